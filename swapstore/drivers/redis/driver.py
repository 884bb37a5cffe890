"""The blocking driver for Redis and Valkey, on redis-py.

A batch is one pipeline, one round trip, on one connection of the pool. The driver uses the public methods of
the connection and not `Redis.pipeline`, for three reasons: it examines each reply by itself, it never sends
anything twice (a client's retry policy wraps its commands, not its connections), and it knows whether
anything was sent when the connection fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from swapstore.commands import Command, Failed, Stage
from swapstore.drivers.redis import address, errors, wire
from swapstore.drivers.redis.pool import FOR_ANY_COMMAND, Pool
from swapstore.drivers.redis.subscription import RedisListener
from swapstore.drivers.redis.wire import Bundle, Wire, bundled, value
from swapstore.forks import survive_forks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swapstore.models import Timeout


class RedisDriver:
    """Carries out commands on a Redis or Valkey server.

    Built from a URL, it opens and closes its own connections. Built from a client, it borrows the client's
    connection pool and never closes it.
    """

    kind = "redis"
    binary_safe = True

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
        """Replace the parent's pool, unused: a thread that does not exist in the child may hold its lock."""
        if self._renew is not None:
            self._inherited.append(self._pool)
            self._pool = self._renew()

    @classmethod
    def from_url(cls, url: str, *, timeout: Timeout | None = None) -> RedisDriver:
        """Make a driver for `redis://`, `rediss://` or `unix://`. Connects at the first command."""
        where, made, pool = address.pools(url, Pool, _no_retry, timeout)
        return cls(made, where=where, renew=pool)

    @classmethod
    def from_client(cls, client: Any, *, timeout: Timeout | None = None) -> RedisDriver:  # noqa: ARG003 - the client has its own
        """Make a driver on the connections of a `redis.Redis`, whatever its decoding and retry settings."""
        where = address.where_of_client(client, redis.Redis, "redis.Redis")
        return cls(client.connection_pool, where=where, renew=None)

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Send the commands as one pipeline; see `Driver.execute`."""
        units = bundled(commands)
        connection = self._connected()
        try:
            replies = self._exchange(connection, units)
            unknown = without_script(replies)
            if unknown:  # after a restart or SCRIPT FLUSH: they did not run, so send the text of the script
                again = self._exchange(connection, [units[i] for i in unknown], as_text=True)
                for i, reply in zip(unknown, again, strict=True):
                    replies[i] = reply
        finally:
            self._pool.release(connection)
        return answers(units, replies, self.where)

    def _connected(self) -> Any:
        """Take a connection from the pool, ready for use."""
        try:
            return self._pool.get_connection(*FOR_ANY_COMMAND)
        except Exception as error:
            failed = errors.of_connecting(error, self.where, self._pool)
            if failed is None:
                raise
        failure, cause = failed
        raise failure from cause

    def _exchange(
        self, connection: Any, commands: Sequence[Command[Any]], *, as_text: bool = False
    ) -> list[Any]:
        """Send every command, then read every reply: a value, or the error that the server replied with."""
        frames = [self._wire.frame(command, as_text=as_text) for command in commands]
        try:
            connection.send_packed_command(wire.packed(frames), check_health=False)
            return [_reply(connection) for _ in frames]
        except BaseException as error:
            connection.disconnect()
            failure = errors.of_exchanging(error, self.where, commands)
            if failure is None:
                raise
            raise failure from error

    def listen(self, channel: str) -> RedisListener:
        """Subscribe to hints on a channel; see `Listener`. The connection is not one of the pool's."""
        kind, options = self._pool.connection_class, self._pool.connection_kwargs
        return RedisListener(lambda: kind(**{**options, "retry": _no_retry()}), channel)

    def close(self) -> None:
        """Close the connections if the driver opened them."""
        if self._renew is not None:
            self._pool.disconnect()


def _no_retry() -> Retry:
    """Return a policy that never sends anything a second time."""
    return Retry(NoBackoff(), 0)


def _reply(connection: Any) -> Any:
    """Read one reply: a value, or the error that the server replied with."""
    try:
        return connection.read_response(disable_decoding=True)
    except redis.ResponseError as error:
        return error


# --- replies, for the asyncio driver too -----------------------------------------------------------


def answers(units: Sequence[Command[Any]], replies: Sequence[Any], where: str) -> list[Any]:
    """Return the answer to each command, refusals included. The one reply to a bundle holds several."""
    found: list[Any] = []
    for unit, reply in zip(units, replies, strict=True):
        if type(unit) is not Bundle:
            found.append(_answer(unit, reply, where))
        elif isinstance(reply, redis.RedisError):
            found += unit.refused(errors.refusal(reply, where, unit.commit))
        else:
            outcome = value(unit.commit, reply)
            if isinstance(reply, bytes):  # committed, and no key was taken
                found += (*[True] * len(unit.stages), outcome)
            else:
                placed = zip(unit.in_commit_order, reply[1:], strict=True)
                staged = {stage.key: _placed(stage, each, where) for stage, each in placed}
                found += (*(staged[stage.key] for stage in unit.stages), outcome)
    return found


def _answer(command: Command[Any], reply: Any, where: str) -> Any:
    if isinstance(reply, redis.RedisError):
        return Failed(errors.refusal(reply, where, command))
    return value(command, reply)


def _placed(stage: Stage, reply: Any, where: str) -> bool | Failed:
    """Return the answer to a `Stage` that the commit script carried out: whether its key was free."""
    if isinstance(reply, redis.RedisError):
        return Failed(errors.refusal(reply, where, stage))
    return bool(reply)


def without_script(replies: Sequence[Any]) -> list[int]:
    """Return the indexes of the commands that did not run because the server does not know our script."""
    return [i for i, reply in enumerate(replies) if isinstance(reply, redis.exceptions.NoScriptError)]
