"""From the six-command layout to a store: read what is there, plan, publish in order, report.

`source` reads the old keys and never writes; `plan` decides, without any I/O, which snapshots they amount
to; `importer` publishes those and tells what it did, fact by fact (`facts`).
"""
