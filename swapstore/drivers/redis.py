"""Redis and Valkey, through redis-py.

A batch is one pipeline, one round trip, on one connection of the pool. The pipeline is written here on the
connection's own public methods rather than with `Redis.pipeline`, for three reasons: every reply is looked
at by itself, nothing is ever sent twice (a client's retry policy wraps its commands, not its connections),
and it is known whether anything was sent when the connection fails.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from swapstore.commands import Command, Failed, Reading
from swapstore.drivers import redis_errors
from swapstore.drivers.redis_wire import Wire, value
from swapstore.errors import InvalidInput
from swapstore.forks import survive_forks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CONNECT_TIMEOUT_S = 5.0
REPLY_TIMEOUT_S = 10.0


class RedisDriver:
    """Carries out commands on a Redis or Valkey server.

    Built from a URL it opens and closes its own connections; built from a client it borrows that client's
    connection pool and never closes it.
    """

    kind = "redis"

    def __init__(
        self, pool: redis.ConnectionPool, *, where: str, renew: Callable[[], redis.ConnectionPool] | None
    ) -> None:
        self._pool = pool
        self._inherited: list[redis.ConnectionPool] = []
        self._renew = renew  # None: the pool is borrowed
        self._wire = Wire()
        self.where = where
        survive_forks(self)

    def after_fork(self) -> None:
        """Leave the parent's pool alone: its lock may be held by a thread that the child does not have."""
        if self._renew is not None:
            self._inherited.append(self._pool)
            self._pool = self._renew()

    @classmethod
    def from_url(cls, url: str) -> RedisDriver:
        """Make a driver for `redis://`, `rediss://` or `unix://`. Connects at the first command."""
        where = _place(url)

        def pool() -> redis.ConnectionPool:
            return redis.ConnectionPool.from_url(
                url,
                socket_connect_timeout=CONNECT_TIMEOUT_S,
                socket_timeout=REPLY_TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
            )

        with suppress(ValueError, TypeError):
            return cls(pool(), where=where, renew=pool)
        raise _malformed()

    @classmethod
    def from_client(cls, client: Any) -> RedisDriver:
        """Make a driver on the connections of a `redis.Redis`, whatever its decoding and retry settings."""
        if not isinstance(client, redis.Redis):
            raise InvalidInput(
                f"cannot use a {type(client).__module__}.{type(client).__name__}: "
                "pass a URL or a redis.Redis client"
            )
        pool = client.connection_pool
        if getattr(pool, "cache", None) is not None:
            raise InvalidInput(
                "cannot use a client with a client-side cache: pass a URL, or a client without cache_config"
            )
        options = client.get_connection_kwargs()
        address = f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
        place = getattr(pool, "service_name", None) or options.get("path") or address
        return cls(pool, where=f"redis {place}/{options.get('db') or 0}", renew=None)

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Send the commands as one pipeline; see `Driver.execute`."""
        connection = redis_errors.connected(self._pool, self.where)
        try:
            replies = self._exchange(connection, commands)
            unknown = [
                i for i, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)
            ]
            if unknown:  # the server was restarted, or its scripts flushed: nothing ran, so send the text
                again = self._exchange(connection, [commands[i] for i in unknown], as_text=True)
                for i, reply in zip(unknown, again, strict=True):
                    replies[i] = reply
        finally:
            self._pool.release(connection)
        return [self._read(command, reply) for command, reply in zip(commands, replies, strict=True)]

    def _exchange(
        self, connection: Any, commands: Sequence[Command[Any]], *, as_text: bool = False
    ) -> list[Any]:
        """Write every command, then read every reply: values, or the errors that came as replies."""
        frames = [self._wire.frame(command, as_text=as_text) for command in commands]
        reads_only = all(isinstance(command, Reading) for command in commands)
        replies: list[Any] = []
        with redis_errors.while_exchanging(connection, self.where, reads_only=reads_only):
            connection.send_packed_command(connection.pack_commands(frames), check_health=False)
            for _ in frames:
                try:
                    replies.append(connection.read_response(disable_decoding=True))
                except redis.ResponseError as error:
                    replies.append(error)
        return replies

    def _read(self, command: Command[Any], reply: Any) -> Any:
        if isinstance(reply, redis.RedisError):
            return Failed(redis_errors.refusal(reply, self.where, getattr(command, "key", None)))
        return value(command, reply)

    def close(self) -> None:
        """Close the connections, if they are the driver's own."""
        if self._renew is not None:
            self._pool.disconnect()


def _place(url: str) -> str:
    """Show a URL without user, password and query. Refuse a database that redis-py would ignore."""
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme == "unix":
            return f"unix://{parts.path}"
        options = dict(parse_qsl(parts.query))
        database = options.get("db") or parts.path.strip("/") or "0"
        # A password that is not encoded moves the rest of the URL to where it does not belong.
        misplaced = parts.fragment or "@" in parts.query
        if parts.hostname and database.isdecimal() and not misplaced:
            return f"{parts.scheme}://{parts.hostname}:{parts.port or 6379}/{database}"
    raise _malformed()


def _malformed() -> InvalidInput:
    """Build the error for a bad URL: without any part of it, and without a cause, which would quote it."""
    return InvalidInput(
        "the redis URL is malformed: write redis://user:password@host:6379/0, with a number for the database "
        "and the password percent-encoded (urllib.parse.quote(password, safe=''))"
    )
