"""Addresses of Redis servers, and the pools of connections to them, for both drivers."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from swapstore.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from swapstore.models import Timeout

MAX_CONNECTIONS = 50
POOL_WAIT_S = 10.0  # how long a batch waits for a free connection
CONNECT_TIMEOUT_S = 5.0
REPLY_TIMEOUT_S = 10.0
READ_SIZE = 128 * 1024  # bytes per read from the socket: with redis-py's 64 KB, 1 MB takes 1.3 times as long
PROTOCOL = 2  # RESP2: the server sends only replies


def where_of_url(url: str) -> str:
    """Return a URL without user, password and query. Rejects a database that redis-py would ignore."""
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
        "the redis URL is malformed: write redis://user:password@host:6379/0, with a number for the database "
        "and the password percent-encoded (urllib.parse.quote(password, safe=''))"
    )


def pools(
    url: str, kind: Any, retry: Callable[[], Any], timeout: Timeout | None
) -> tuple[str, Any, Callable[[], Any]]:
    """Return the address of a URL, a bounded pool of connections to it, and a function that makes another.

    `kind` is the class of the pool, `retry` makes the retry policy of its connections.
    A URL may set time-outs of its own (`socket_timeout=`), which win.
    """
    where = where_of_url(url)
    connect_s = (timeout and timeout.connect) or CONNECT_TIMEOUT_S
    reply_s = (timeout and timeout.reply) or REPLY_TIMEOUT_S

    def pool() -> Any:
        return kind.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=POOL_WAIT_S,
            socket_connect_timeout=connect_s,
            socket_timeout=reply_s,
            socket_read_size=READ_SIZE,
            retry=retry(),
            protocol=PROTOCOL,
        )

    made = None
    with suppress(ValueError, TypeError):
        made = pool()
    if made is None:
        raise malformed()
    check_options(made, where)
    return where, made, pool


def check_options(pool: Any, where: str) -> None:
    """Reject options that redis-py does not know. A pool would notice them only when it first connects."""
    try:
        pool.connection_class(**pool.connection_kwargs)
    except TypeError as error:
        raise InvalidInput(
            f"the URL of {where} has an option that redis-py does not know: {error}"
        ) from error


def where_of_client(client: Any, kind: type[Any], name: str) -> str:
    """Return the address of a user's client. Rejects an object that is not a client of this kind."""
    if not isinstance(client, kind):
        raise InvalidInput(
            f"cannot use a {type(client).__module__}.{type(client).__name__}: pass a URL or a {name} client"
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
