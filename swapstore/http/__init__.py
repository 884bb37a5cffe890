"""Serve snapshots over HTTP."""
