"""Redis and Valkey, through redis-py.

A batch is one pipeline, one round trip, on one connection of the pool. The pipeline is written here on the
connection's own public methods rather than with `Redis.pipeline`, for three reasons: every reply is looked
at by itself, nothing is ever sent twice (a client's retry policy wraps its commands, not its connections),
and it is known whether anything was sent when the connection fails.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from swapstore.commands import (
    Already,
    Command,
    Commit,
    Committed,
    Conflict,
    Failed,
    Get,
    Held,
    Members,
    Peek,
    Put,
    Register,
    Replace,
    Stage,
    Unstaged,
)
from swapstore.drivers import redis_errors
from swapstore.errors import InvalidInput, ReplyLost
from swapstore.forks import survive_forks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

CONNECT_TIMEOUT_S = 5.0
REPLY_TIMEOUT_S = 10.0

Frame = tuple[Any, ...]


class _Script:
    """A Lua script. Its text is sent the first time, which also loads it; after that its digest is."""

    def __init__(self, name: str) -> None:
        self.text = resources.files("swapstore.drivers").joinpath(name).read_text("utf-8")
        self.sha = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        self.sent = False

    def frame(self, keys: Sequence[str], arguments: Sequence[bytes | int], *, as_text: bool) -> Frame:
        how = ("EVALSHA", self.sha) if self.sent and not as_text else ("EVAL", self.text)
        self.sent = True
        return (*how, len(keys), *keys, *arguments)


class RedisDriver:
    """Carries out commands on a Redis or Valkey server.

    Built from a URL it opens and closes its own connections; built from a client it borrows that client's
    connection pool and never closes it.
    """

    def __init__(
        self, pool: redis.ConnectionPool, *, where: str, renew: Callable[[], redis.ConnectionPool] | None
    ) -> None:
        self._pool = pool
        self._inherited: list[redis.ConnectionPool] = []
        self._renew = renew  # None: the pool is borrowed
        self._commit = _Script("commit.lua")
        self._replace = _Script("replace.lua")
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
        frames = [self._frame(command, as_text=as_text) for command in commands]
        reads_only = all(isinstance(command, Get | Peek | Members) for command in commands)
        replies: list[Any] = []
        with redis_errors.while_exchanging(connection, self.where, reads_only=reads_only):
            connection.send_packed_command(connection.pack_commands(frames), check_health=False)
            for _ in frames:
                try:
                    replies.append(connection.read_response(disable_decoding=True))
                except redis.ResponseError as error:
                    replies.append(error)
        return replies

    def _frame(self, command: Command[Any], *, as_text: bool) -> Frame:
        match command:
            case Get(key):
                return ("GET", key)
            case Peek(key, size):
                return ("GETRANGE", key, 0, size - 1)
            case Members(key):
                return ("SMEMBERS", key)
            case Stage(key, record, ttl_ms):
                return ("SET", key, record, "NX", "PX", ttl_ms)
            case Put(key, value, ttl_ms):
                return ("SET", key, value, "PX", ttl_ms)
            case Register(key, member):
                return ("SADD", key, member)
            case Replace(key, record, ttl_ms):
                return self._replace.frame([key], [record, ttl_ms], as_text=as_text)
            case Commit():
                return self._commit.frame(*_commit_arguments(command), as_text=as_text)
            case _:
                raise TypeError(f"unknown command {command!r}")

    def _read(self, command: Command[Any], reply: Any) -> Any:
        if isinstance(reply, redis.RedisError):
            return Failed(redis_errors.refusal(reply, self.where, getattr(command, "key", None)))
        return _READERS[type(command)](reply)

    def close(self) -> None:
        """Close the connections, if they are the driver's own."""
        if self._renew is not None:
            self._pool.disconnect()


def _commit_arguments(commit: Commit) -> tuple[list[str], list[bytes | int]]:
    keys = [commit.key, commit.live_key, *(staged.key for staged in commit.staged), *commit.unlinked]
    arguments: list[bytes | int] = [
        commit.expected,
        commit.prefix,
        commit.manifest,
        len(commit.staged),
        commit.staging_ttl_ms,
        commit.grace_ms,
    ]
    for staged in commit.staged:
        arguments += [int(staged.shared), staged.header]
    return keys, arguments


def _commit_reply(reply: Any) -> Any:
    match reply:
        case [b"committed"]:
            return Committed()
        case [b"already"]:
            return Already()
        case [b"conflict", current]:
            return Conflict(current)
        case [b"unstaged", key, present]:
            return Unstaged(key.decode(), bool(present))
        case [b"held", key]:
            return Held(key.decode())
    raise ReplyLost(f"the commit script gave an answer that is none of its own ({type(reply).__name__})")


_READERS: dict[type[Command[Any]], Callable[[Any], Any]] = {
    Get: lambda reply: reply,
    Peek: lambda reply: reply,
    Members: lambda reply: frozenset(member.decode("utf-8", "replace") for member in reply),
    Stage: lambda reply: reply is not None,
    Put: lambda reply: None,  # noqa: ARG005
    Register: lambda reply: None,  # noqa: ARG005
    Replace: bool,
    Commit: _commit_reply,
}


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
