"""The driver for SQLite: one file, no server, several processes at once."""
