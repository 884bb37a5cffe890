"""The asyncio driver for Redis and Valkey, on `redis.asyncio`.

As in `driver.py`, a batch is one pipeline on one connection, each reply is examined by itself, and nothing is
sent twice. If a batch is cancelled or fails half-way, its connection is aborted at once: nothing more is sent
on it, and no later batch can read the replies of this one.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from swapstore.commands import Command
from swapstore.drivers.limiter import Limiter
from swapstore.drivers.redis import address, errors, wire
from swapstore.drivers.redis.driver import answers, without_script
from swapstore.drivers.redis.pool import FOR_ANY_COMMAND
from swapstore.drivers.redis.subscription import AsyncRedisListener
from swapstore.drivers.redis.wire import Wire, bundled
from swapstore.forks import survive_forks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swapstore.models import Timeout

    Pool = redis.asyncio.ConnectionPool


class AsyncRedisDriver:
    """Carries out commands on a Redis or Valkey server, in one event loop.

    Built from a URL, it opens and closes its own connections. Built from a client, it borrows the client's
    connection pool and never closes it.
    """

    kind = "redis"
    binary_safe = True

    def __init__(self, pool: Pool, *, where: str, renew: Callable[[], Pool] | None) -> None:
        self._pool = pool
        self._inherited: list[Pool] = []
        self._renew = renew  # None: the pool is borrowed
        self._wire = Wire()
        self.where = where
        self._limiter = self._new_limiter()
        survive_forks(self)

    def _new_limiter(self) -> Limiter:
        size: int = self._pool.max_connections
        wait_s = getattr(self._pool, "timeout", None) or address.POOL_WAIT_S
        return Limiter(self.where, size, wait_s, exhausted=lambda: errors.exhausted(self.where, size))

    def after_fork(self) -> None:
        """Replace the parent's pool and limiter, unused: they belong to its event loop."""
        if self._renew is not None:
            self._inherited.append(self._pool)
            self._pool = self._renew()
            self._limiter = self._new_limiter()

    @classmethod
    def from_url(cls, url: str, *, timeout: Timeout | None = None) -> AsyncRedisDriver:
        """Make a driver for `redis://`, `rediss://` or `unix://`. Connects at the first command."""
        where, made, pool = address.pools(url, redis.asyncio.BlockingConnectionPool, _no_retry, timeout)
        return cls(made, where=where, renew=pool)

    @classmethod
    def from_client(cls, client: Any, *, timeout: Timeout | None = None) -> AsyncRedisDriver:  # noqa: ARG003 - the client has its own
        """Make a driver on the connections of a `redis.asyncio.Redis`, whatever its settings."""
        where = address.where_of_client(client, redis.asyncio.Redis, "redis.asyncio.Redis")
        return cls(client.connection_pool, where=where, renew=None)

    async def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Send the commands as one pipeline; see `AsyncDriver.execute`."""
        units = bundled(commands)
        async with self._limiter:
            before = _cancellations()
            connection = await self._connected()
            try:
                _raise_if_cancelled(since=before)
                replies = await self._exchange(connection, units)
                unknown = without_script(replies)
                if unknown:  # after a restart or SCRIPT FLUSH: they did not run, so send the text
                    again = await self._exchange(connection, [units[i] for i in unknown], as_text=True)
                    for i, reply in zip(unknown, again, strict=True):
                        replies[i] = reply
            finally:
                # Shielded: if this were cancelled, the pool would count the connection as lent permanently.
                await asyncio.shield(self._pool.release(connection))
        return answers(units, replies, self.where)

    async def _connected(self) -> Any:
        """Take a connection from the pool, ready for use."""
        try:
            pool: Any = self._pool
            return await pool.get_connection(*FOR_ANY_COMMAND)
        except Exception as error:
            failed = errors.of_connecting(error, self.where, self._pool)
            if failed is None:
                raise
        failure, cause = failed
        raise failure from cause

    async def _exchange(
        self, connection: Any, commands: Sequence[Command[Any]], *, as_text: bool = False
    ) -> list[Any]:
        """Send every command, then read every reply: a value, or the error that the server replied with."""
        frames = [self._wire.frame(command, as_text=as_text) for command in commands]
        transport = getattr(getattr(connection, "_writer", None), "transport", None)
        try:
            before = _cancellations()
            await connection.send_packed_command(wire.packed(frames), check_health=False)
            _raise_if_cancelled(since=before)
            return [await _reply(connection) for _ in frames]
        except BaseException as error:
            if transport is not None:
                transport.abort()  # otherwise it would send the rest of its buffer
            await connection.disconnect(nowait=True)
            failure = errors.of_exchanging(error, self.where, commands)
            if failure is None:
                raise
            raise failure from error

    def listen(self, channel: str) -> AsyncRedisListener:
        """Subscribe to hints on a channel; see `AsyncListener`. The connection is not one of the pool's."""
        kind, options = self._pool.connection_class, self._pool.connection_kwargs
        return AsyncRedisListener(lambda: kind(**{**options, "retry": _no_retry()}), channel)

    async def close(self) -> None:
        """Wait for the batches in progress, then close the connections if the driver opened them."""
        if not self._limiter.loop_is_closed:
            self._limiter.require_own_loop()
        try:
            await self._limiter.close()
        finally:
            if self._renew is not None and not self._limiter.loop_is_closed:
                with suppress(redis.RedisError, OSError):
                    await self._pool.disconnect()


def _no_retry() -> Retry:
    """Return a policy that never sends anything a second time."""
    return Retry(NoBackoff(), 0)


def _cancellations() -> int:
    """Return how often the current task has been cancelled."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0


def _raise_if_cancelled(*, since: int) -> None:
    """Raise `CancelledError` if the task has been cancelled more than `since` times.

    redis-py writes within `asyncio.wait_for`, which in Python 3.11 swallows a cancellation that arrives just
    as the write ends.
    """
    if _cancellations() > since:
        raise asyncio.CancelledError


async def _reply(connection: Any) -> Any:
    """Read one reply: a value, or the error that the server replied with."""
    try:
        return await connection.read_response(disable_decoding=True)
    except redis.ResponseError as error:
        return error
