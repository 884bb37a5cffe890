"""Redis over HTTP: the REST API of Upstash, and of what speaks it."""
