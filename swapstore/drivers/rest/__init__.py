"""The drivers for Redis over HTTP: the REST API of Upstash, and of endpoints compatible with it."""
