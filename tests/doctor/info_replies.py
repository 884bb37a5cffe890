"""The reply to `INFO` of several kinds of servers: the relevant fields, in their original form."""

VALKEY_9 = b"""# Server\r
redis_version:7.2.4\r
server_name:valkey\r
valkey_version:9.1.2\r
server_mode:standalone\r
\r
# Memory\r
used_memory:1068648\r
maxmemory:0\r
maxmemory_policy:noeviction\r
mem_not_counted_for_evict:0\r
\r
# Persistence\r
loading:0\r
rdb_changes_since_last_save:0\r
rdb_last_bgsave_status:ok\r
aof_enabled:1\r
aof_last_write_status:ok\r
\r
# Stats\r
evicted_keys:0\r
\r
# Replication\r
role:master\r
connected_slaves:0\r
\r
# Cluster\r
cluster_enabled:0\r
"""

VALKEY_8 = VALKEY_9.replace(b"9.1.2", b"8.0.1")
REDIS_8 = (
    VALKEY_9.replace(b"valkey_version:9.1.2\r\n", b"")
    .replace(b"server_name:valkey\r\n", b"")
    .replace(b"7.2.4", b"8.2.1")
    .replace(b"server_mode", b"redis_mode")
)
REDIS_7 = REDIS_8.replace(b"8.2.1", b"7.4.0")
REDIS_6 = REDIS_8.replace(b"8.2.1", b"6.2.14")

DRAGONFLY = b"""# Server
redis_version:7.4.0
dragonfly_version:df-v1.31.0
redis_mode:standalone

# Memory
used_memory:16511056
maxmemory:419430400
cache_mode:cache
maxmemory_policy:eviction

# Replication
role:master
connected_slaves:0
"""


def change(info: bytes, **fields: object) -> bytes:
    """The same reply with other values of some fields; None removes a field."""
    lines = [line for line in info.splitlines() if line.partition(b":")[0].decode() not in fields]
    lines += [f"{name}:{value}".encode() for name, value in fields.items() if value is not None]
    return b"\r\n".join(lines)
