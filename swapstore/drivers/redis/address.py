"""Addresses of Redis servers, and the pools of connections to them, for both drivers."""

from __future__ import annotations

import inspect
import re
import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import attrs
import redis

from swapstore.errors import InvalidInput

if TYPE_CHECKING:
    from swapstore.models import Timeout

MAX_CONNECTIONS = 50
MAX_TIMEOUT_S = 366 * 86_400
POOL_WAIT_S = 10.0  # how long a batch waits for a free connection
CONNECT_TIMEOUT_S = 5.0
REPLY_TIMEOUT_S = 10.0
READ_SIZE = 128 * 1024  # bytes per read from the socket: with redis-py's 64 KB, 1 MB takes 1.3 times as long
PROTOCOL = 2  # RESP2: the server sends only replies

# A connection that died silently is found by the kernel before a batch is sent on it: after 45 s at most.
KEEPALIVE = {
    getattr(socket, name): value
    for name, value in {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}.items()
    if hasattr(socket, name)
}

# Leave out CLIENT SETINFO: it takes time, and some proxies hang up when they see it.
ANONYMOUS: dict[str, Any] = (
    {"driver_info": None}
    if "driver_info" in inspect.signature(redis.connection.AbstractConnection.__init__).parameters
    else {"lib_name": None, "lib_version": None}
)

# The options that a URL may set: those whose value is a number, a text or a yes or no.
OPTIONS = {
    *("db", "username", "password", "client_name", "path", "max_connections", "timeout"),
    *("socket_timeout", "socket_connect_timeout", "socket_keepalive", "socket_read_size"),
    *("health_check_interval", "retry_on_timeout", "protocol"),
    *("ssl_keyfile", "ssl_certfile", "ssl_password", "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path"),
    *("ssl_ca_data", "ssl_check_hostname", "ssl_min_version", "ssl_ciphers"),
    *("ssl_include_verify_flags", "ssl_exclude_verify_flags"),
}

ALIASES = {"valkey": "redis", "valkeys": "rediss"}

NUMBERS = {"socket_read_size", "ssl_min_version", "protocol"}  # of a URL too, which redis-py 5 leaves as text


def where_of_url(url: str) -> str:
    """Return a URL without user, password and query. Rejects a database that redis-py would ignore."""
    if "," in re.split("[/?#]", url.partition("://")[2])[0].rpartition("@")[2]:
        raise InvalidInput(
            "the address names several hosts: write redis+sentinel://host1:26379,host2:26379/mymaster/0 for "
            "sentinels, redis+cluster:// for a cluster, or one host"
        )
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme == "unix":
            return f"unix://{parts.path}"
        options = dict(parse_qsl(parts.query))
        database = options.get("db") or parts.path.strip("/") or "0"
        # A password that is not percent-encoded can end up in the query or the fragment.
        misplaced = parts.fragment or "@" in parts.query
        if parts.hostname and database.isdecimal() and not misplaced:
            return f"{parts.scheme}://{parts.hostname}:{parts.port or 6379}/{database}"
    raise malformed()


def malformed() -> InvalidInput:
    """Build the error for a bad URL. It quotes no part of the URL and has no cause, which would quote it."""
    return InvalidInput(
        "the redis URL is malformed: write redis://USER:PASSWORD@host:6379/0, with a number for the database "
        "and the password percent-encoded (urllib.parse.quote(password, safe=''))"
    )


# The driver chooses the version of the protocol: the parser is made for it.
_PROTOCOL_OPTION = re.compile(r"(?<=[?&])protocol=[23](&|$)")


def parse(
    url: str, kind: Any, retry: Any, parser: type[Any], timeout: Timeout | None, *, where: str | None = None
) -> tuple[str, Any]:
    """Return the address of a URL, and a pool of redis-py's, of the class `kind`, made from it.

    `retry` is the retry policy of its connections, `parser` reads their replies. A URL may set time-outs of
    its own (`socket_timeout=`), which win. `where`: the address to name instead.
    """
    where = where or where_of_url(url)
    scheme, _, rest = url.partition("://")
    url = f"{ALIASES.get(scheme, scheme)}://{rest}"
    refuse_options(url, where)
    options: dict[str, Any] = {
        "max_connections": MAX_CONNECTIONS,
        "timeout": (timeout and timeout.connect) or POOL_WAIT_S,
        "socket_connect_timeout": (timeout and timeout.connect) or CONNECT_TIMEOUT_S,
        "socket_timeout": (timeout and timeout.reply) or REPLY_TIMEOUT_S,
        "socket_read_size": READ_SIZE,
        "retry": retry,
        "parser_class": parser,
        "protocol": PROTOCOL,
        **ANONYMOUS,
    }
    if not url.startswith("unix:"):
        options |= {"socket_keepalive": True, "socket_keepalive_options": KEEPALIVE}
    made = None
    with suppress(ValueError, TypeError):
        parsed = kind.from_url(_PROTOCOL_OPTION.sub("", url), **options)
        for name in NUMBERS & parsed.connection_kwargs.keys():
            parsed.connection_kwargs[name] = int(parsed.connection_kwargs[name])
        made = parsed
    if made is None:
        raise malformed()
    check_options(made, where)
    return where, made


def refuse_options(url: str, where: str) -> None:
    """Reject options that a URL cannot set: misspelt ones, and those that redis-py expects an object for."""
    given = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    names = set(given)
    unknown = sorted(names - OPTIONS)
    if given.get("max_connections", "1").strip() in {"0", ""}:
        raise InvalidInput(f"the URL of {where} allows no connection: max_connections must be 1 or more")
    if unknown:
        raise InvalidInput(
            f"the URL of {where} has an option that a URL cannot set: {', '.join(unknown)}. Is it misspelt? "
            "Otherwise pass a client of redis-py that has it"
        )


def check_options(pool: Any, where: str) -> None:
    """Reject values that redis-py cannot use. A pool would notice them only when it first connects."""
    given = {**pool.connection_kwargs, "timeout": pool.timeout}
    for name in ("socket_timeout", "socket_connect_timeout", "socket_read_size", "timeout"):
        if given[name] is None or not 0 < given[name] <= MAX_TIMEOUT_S:
            raise InvalidInput(f"the URL of {where} has no positive number for {name}: {given[name]}")
    for name in ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile"):
        if given.get(name) is not None and not Path(given[name]).is_file():
            raise InvalidInput(f"the URL of {where} names a file for {name} that is not there: {given[name]}")
    try:
        pool.connection_class(**pool.connection_kwargs)
    except Exception as error:  # whatever redis-py and ssl raise
        raise InvalidInput(f"the URL of {where} has an option that cannot be used: {error}") from error


def where_of_client(client: Any, kind: type[Any], name: str) -> str:
    """Return the address of a user's client. Rejects an object that is not a client of this kind."""
    if type(client).__module__.partition(".")[0] == "valkey":
        raise InvalidInput(
            "cannot use a client of valkey-py, whose connections are not those of redis-py: pass its "
            f"address, valkey://host:6379/0 or valkey+sentinel://…, or a {name} client"
        )
    if not isinstance(client, kind):
        raise InvalidInput(
            f"cannot use a {type(client).__module__}.{type(client).__name__}: pass a URL or a {name} client, "
            "or a RedisCluster of the same kind"
        )
    if hasattr(client, "command_stack"):
        raise InvalidInput("a pipeline is not a client: pass the client that it was made from")
    if getattr(client.connection_pool, "cache", None) is not None:
        raise InvalidInput(
            "cannot use a client with a client-side cache: pass a URL, or a client without cache_config"
        )
    options = client.get_connection_kwargs()
    address = f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
    place = getattr(client.connection_pool, "service_name", None) or options.get("path") or address
    return f"redis {place}/{options.get('db') or 0}"


# --- clusters --------------------------------------------------------------------------------------

CLUSTER_SCHEMES = {
    "redis+cluster": "redis",
    "valkey+cluster": "redis",
    "rediss+cluster": "rediss",
    "valkeys+cluster": "rediss",
}

SHOWN_SEEDS = 3  # of a cluster's nodes in messages

_HOST_AND_PORT = re.compile(r"(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:\[\]]+))(?::(?P<port>[0-9]{1,5}))?")
_OF_A_CLIENT = (OPTIONS | {"credential_provider", "socket_keepalive_options", "socket_type"}) - {
    *("db", "path", "protocol", "timeout", "socket_read_size", "retry_on_timeout"),
}


@attrs.frozen(kw_only=True)
class ClusterAddress:
    """Where a cluster is, and how to connect to each of its nodes.

    `where`: for messages. `seeds`: the nodes to ask first. `kind` and `options`: the class of the connections
    and what they are made with, but for host and port. `size` and `wait_s`: of the pool of each node.
    `remap`: turns an address that the cluster tells into the one to connect to. `to_replicas`: commands go to
    the replicas of a slot's primary.
    """

    where: str
    seeds: tuple[tuple[str, int], ...]
    kind: type[Any]
    options: dict[str, Any] = attrs.field(repr=False)
    size: int = MAX_CONNECTIONS
    wait_s: float = POOL_WAIT_S
    remap: Any = None
    to_replicas: bool = False


def parse_cluster(
    url: str, kind: Any, retry: Any, parser: type[Any], timeout: Timeout | None
) -> ClusterAddress:
    """Return the address of `redis+cluster://[user:password@]host:port,host:port[/0][?options]`.

    `kind`, `retry`, `parser` and `timeout`: as for `parse`.
    """
    scheme, _, rest = url.partition("://")
    end = min((found for mark in "/?#" if (found := rest.find(mark)) >= 0), default=len(rest))
    credentials, at, hosts = rest[:end].rpartition("@")
    if "://" in rest:
        raise InvalidInput(
            f"the URL of a cluster has one scheme for all hosts: write {scheme}://host:port,host:port"
        )
    if "@" in credentials:
        raise InvalidInput(
            "the URL of a cluster has one user and password for all nodes, before the first host: write "
            f"{scheme}://user:password@host:7000,host:7001"
        )
    if not hosts.strip(", "):
        raise InvalidInput(
            f"the URL of a cluster names at least one of its nodes: {scheme}://host:port,host:port"
        )
    seeds = tuple(dict.fromkeys(_host_and_port(each.strip()) for each in hosts.split(",") if each.strip()))
    where = _where_of_seeds(scheme, seeds)
    path, _, query = rest[end:].partition("?")
    database = dict(parse_qsl(query)).get("db") or path.strip("/")
    if database.isdecimal() and int(database):
        raise InvalidInput(
            f"a cluster has database 0 only, not {int(database)}: write {where}. To keep stores apart on one "
            "cluster, give each a namespace of its own: connect(…, namespace=…)"
        )
    plain = f"{CLUSTER_SCHEMES[scheme]}://{credentials}{at}{shown(seeds[0])}{rest[end:]}"
    _, pool = parse(plain, kind, retry, parser, timeout)
    options = {name: value for name, value in pool.connection_kwargs.items() if name not in {"host", "port"}}
    return ClusterAddress(
        where=where,
        seeds=seeds,
        kind=pool.connection_class,
        options=options,
        size=pool.max_connections,
        wait_s=pool.timeout,
    )


def _where_of_seeds(scheme: str, seeds: tuple[tuple[str, int], ...]) -> str:
    more = ",…" if len(seeds) > SHOWN_SEEDS else ""
    return f"{scheme}://{','.join(map(shown, seeds[:SHOWN_SEEDS]))}{more}"


def shown(node: tuple[str, int]) -> str:
    """Return `host:port`."""
    host, port = node
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _host_and_port(text: str) -> tuple[str, int]:
    found = _HOST_AND_PORT.fullmatch(text)
    port = int(found["port"] or 6379) if found else 0
    if found is None or not 0 < port < 1 << 16:
        raise InvalidInput(
            "the URL of a cluster is malformed: write redis+cluster://user:password@host:7000,host:7001, "
            "with the password percent-encoded (urllib.parse.quote(password, safe=''))"
        )
    return found["six"] or found["host"], port


def cluster_of_client(client: Any, kinds: tuple[type[Any], type[Any]], **fixed: Any) -> ClusterAddress:
    """Return the address of a caller's `RedisCluster`: its nodes, credentials and settings.

    The connections are not the client's: each of redis-py's has another parser, and it sends commands of its
    own on them. `kinds`: the classes of plain and of encrypted connections. `fixed`: options of ours that
    win.
    """
    name = f"{type(client).__module__}.{type(client).__name__}"
    if "Pipeline" in type(client).__name__:
        raise InvalidInput("a pipeline is not a client: pass the client that it was made from")
    nodes = client.nodes_manager
    if getattr(nodes, "_cache", None) is not None:
        raise InvalidInput(
            "cannot use a client with a client-side cache: pass a URL, or a client without cache_config"
        )
    given = client.get_connection_kwargs()
    seeds = tuple(
        dict.fromkeys(
            (node.host, int(node.port))
            for node in [*nodes.startup_nodes.values(), *getattr(nodes, "nodes_cache", {}).values()]
        )
    )
    if not seeds:
        raise InvalidInput(f"this {name} knows no node: pass a URL, or a client that was made with a host")
    secure = bool(given.get("ssl")) or "SSL" in getattr(given.get("connection_class"), "__name__", "")
    options: dict[str, Any] = {
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_timeout": REPLY_TIMEOUT_S,
        "socket_keepalive": True,
        "socket_keepalive_options": KEEPALIVE,
        **{each: given[each] for each in _OF_A_CLIENT & given.keys() if given[each] is not None},
        "socket_read_size": READ_SIZE,
        "protocol": PROTOCOL,
        **ANONYMOUS,
        **fixed,
    }
    size = options.pop("max_connections", None)
    if not secure:
        options = {each: value for each, value in options.items() if not each.startswith("ssl")}
    return ClusterAddress(
        where=_where_of_seeds("rediss+cluster" if secure else "redis+cluster", seeds),
        seeds=seeds,
        kind=kinds[secure],
        options=options,
        size=size if size and size < 1 << 31 else MAX_CONNECTIONS,
        remap=getattr(nodes, "address_remap", None),
    )
