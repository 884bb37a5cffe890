"""Moves from the six-command layout to a store: import its history, and keep its readers up to date.

`layout` names the old keys, and `source` reads them. `plan` decides, without I/O, which snapshots they amount
to. `importer` publishes these in order and reports facts. `mirror` writes the two keys that old readers use
after each swap.
"""
