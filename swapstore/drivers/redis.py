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
from urllib.parse import urlsplit

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
from swapstore.errors import InvalidInput

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

    def frame(self, keys: Sequence[str], arguments: Sequence[bytes | int]) -> Frame:
        how = ("EVALSHA", self.sha) if self.sent else ("EVAL", self.text)
        self.sent = True
        return (*how, len(keys), *keys, *arguments)


class RedisDriver:
    """Carries out commands on a Redis or Valkey server.

    Built from a URL it opens and closes its own connections; built from a client it borrows that client's
    connection pool and never closes it.
    """

    def __init__(self, pool: redis.ConnectionPool, *, where: str, owned: bool) -> None:
        self._pool = pool
        self._owned = owned
        self._commit = _Script("commit.lua")
        self._replace = _Script("replace.lua")
        self.where = where

    @classmethod
    def from_url(cls, url: str) -> RedisDriver:
        """Make a driver for `redis://`, `rediss://` or `unix://`. Connects at the first command."""
        where = _place(url)
        with suppress(ValueError, TypeError):
            pool = redis.ConnectionPool.from_url(
                url,
                socket_connect_timeout=CONNECT_TIMEOUT_S,
                socket_timeout=REPLY_TIMEOUT_S,
                retry=Retry(NoBackoff(), 0),
            )
            return cls(pool, where=where, owned=True)
        raise _malformed()

    @classmethod
    def from_client(cls, client: Any) -> RedisDriver:
        """Make a driver on the connections of a `redis.Redis`, whatever its decoding and retry settings."""
        if not isinstance(client, redis.Redis):
            raise InvalidInput(
                f"cannot use a {type(client).__module__}.{type(client).__name__}: "
                "pass a URL or a redis.Redis client"
            )
        options = client.get_connection_kwargs()
        place = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
        return cls(client.connection_pool, where=f"redis {place}/{options.get('db') or 0}", owned=False)

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Send the commands as one pipeline; see `Driver.execute`."""
        with redis_errors.while_connecting(self.where):
            connection = self._pool.get_connection()
        try:
            replies = self._exchange(connection, commands)
            unknown = [
                i for i, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)
            ]
            if unknown:  # the server was restarted, or its scripts flushed: nothing ran, so send the text
                self._commit.sent = self._replace.sent = False
                again = self._exchange(connection, [commands[i] for i in unknown])
                for i, reply in zip(unknown, again, strict=True):
                    replies[i] = reply
        finally:
            self._pool.release(connection)
        return [self._read(command, reply) for command, reply in zip(commands, replies, strict=True)]

    def _exchange(self, connection: Any, commands: Sequence[Command[Any]]) -> list[Any]:
        """Write every command, then read every reply: values, or the errors that came as replies."""
        frames = [self._frame(command) for command in commands]
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

    def _frame(self, command: Command[Any]) -> Frame:
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
                return self._replace.frame([key], [record, ttl_ms])
            case Commit():
                return self._commit.frame(*_commit_arguments(command))
            case _:
                raise TypeError(f"unknown command {command!r}")

    def _read(self, command: Command[Any], reply: Any) -> Any:
        if isinstance(reply, redis.RedisError):
            return Failed(redis_errors.refusal(reply, self.where, getattr(command, "key", None)))
        return _READERS[type(command)](reply)

    def close(self) -> None:
        """Close the connections, if they are the driver's own."""
        if self._owned:
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


def _commit_reply(reply: list[Any]) -> Any:
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
    raise TypeError(f"the commit script answered {reply!r}")


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
        database = parts.path.strip("/") or "0"
        if parts.hostname and database.isdecimal():
            return f"{parts.scheme}://{parts.hostname}:{parts.port or 6379}/{database}"
    raise _malformed()


def _malformed() -> InvalidInput:
    """Build the error for a bad URL: without any part of it, and without a cause, which would quote it."""
    return InvalidInput(
        "the redis URL is malformed: write redis://user:password@host:6379/0, with a number for the database "
        "and the password percent-encoded (urllib.parse.quote(password, safe=''))"
    )
