"""Redis and Valkey, through redis-py; the Lua scripts stand beside their drivers."""
