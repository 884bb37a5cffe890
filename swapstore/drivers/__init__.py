"""Drivers: each carries out the commands on one kind of store. They know nothing of the protocol."""
