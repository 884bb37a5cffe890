"""Drivers: how the commands are carried out on one kind of store. They know nothing of the protocol."""
