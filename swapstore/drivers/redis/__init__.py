"""The drivers for Redis and Valkey, on redis-py, and their Lua scripts."""
