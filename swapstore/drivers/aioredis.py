"""Redis and Valkey for asyncio, through `redis.asyncio`.

Like the driver in `redis.py`: a batch is one pipeline on one connection, each reply is looked at by itself,
and nothing is sent twice. A connection whose batch was cancelled or failed half-way is cut off at once: what
is still to be sent is not sent, and no later batch can read the replies of this one.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from swapstore.commands import Command
from swapstore.drivers import redis_common, redis_errors, resp
from swapstore.drivers.aioredis_listener import AsyncRedisListener
from swapstore.drivers.limiter import Gate
from swapstore.drivers.redis_batch import bundled
from swapstore.drivers.redis_wire import Wire
from swapstore.forks import survive_forks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Pool = redis.asyncio.ConnectionPool


class AsyncRedisDriver:
    """Carries out commands on a Redis or Valkey server, in one event loop.

    Built from a URL it opens and closes its own connections; built from a client it borrows that client's
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
        self._gate = self._new_gate()
        survive_forks(self)

    def _new_gate(self) -> Gate:
        size: int = self._pool.max_connections
        wait_s = getattr(self._pool, "timeout", None) or redis_common.POOL_WAIT_S
        return Gate(self.where, size, wait_s, exhausted=lambda: redis_errors.exhausted(self.where, size))

    def after_fork(self) -> None:
        """Leave the parent's connections, and its event loop, alone."""
        if self._renew is not None:
            self._inherited.append(self._pool)
            self._pool = self._renew()
            self._gate = self._new_gate()

    @classmethod
    def from_url(cls, url: str) -> AsyncRedisDriver:
        """Make a driver for `redis://`, `rediss://` or `unix://`. Connects at the first command."""
        where, made, pool = redis_common.pools(url, redis.asyncio.BlockingConnectionPool, _no_retry)
        return cls(made, where=where, renew=pool)

    @classmethod
    def from_client(cls, client: Any) -> AsyncRedisDriver:
        """Make a driver on the connections of a `redis.asyncio.Redis`, whatever its settings."""
        where = redis_common.place_of_client(client, redis.asyncio.Redis, "redis.asyncio.Redis")
        return cls(client.connection_pool, where=where, renew=None)

    async def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Send the commands as one pipeline; see `AsyncDriver.execute`."""
        units = bundled(commands)
        async with self._gate:
            before = _cancellations()
            connection = await self._connected()
            try:
                _heed(before)
                replies = await self._exchange(connection, units)
                unknown = redis_common.without_script(replies)
                if unknown:  # the server was restarted, or its scripts flushed: nothing ran, send the text
                    again = await self._exchange(connection, [units[i] for i in unknown], as_text=True)
                    for i, reply in zip(unknown, again, strict=True):
                        replies[i] = reply
            finally:
                # Not to be cancelled: the pool would count the connection as lent for ever.
                await asyncio.shield(self._pool.release(connection))
        return redis_common.answers(units, replies, self.where)

    async def _connected(self) -> Any:
        """Take a connection that is ready."""
        try:
            pool: Any = self._pool
            return await pool.get_connection()
        except Exception as error:
            failed = redis_errors.of_connecting(error, self.where, self._pool)
            if failed is None:
                raise
        failure, cause = failed
        raise failure from cause

    async def _exchange(
        self, connection: Any, commands: Sequence[Command[Any]], *, as_text: bool = False
    ) -> list[Any]:
        """Write every command, then read every reply: values, or the errors that came as replies."""
        frames = [self._wire.frame(command, as_text=as_text) for command in commands]
        transport = getattr(getattr(connection, "_writer", None), "transport", None)
        try:
            before = _cancellations()
            await connection.send_packed_command(resp.packed(frames), check_health=False)
            _heed(before)
            return [await _reply(connection) for _ in frames]
        except BaseException as error:
            if transport is not None:
                transport.abort()  # or else it would go on sending what it holds
            await connection.disconnect(nowait=True)
            failure = redis_errors.of_exchanging(error, self.where, commands)
            if failure is None:
                raise
            raise failure from error

    def listen(self, channel: str) -> AsyncRedisListener:
        """Hear hints on a channel; see `AsyncListener`. It has a connection of its own, beside the pool's."""
        kind, options = self._pool.connection_class, self._pool.connection_kwargs
        return AsyncRedisListener(lambda: kind(**{**options, "retry": _no_retry()}), channel)

    async def close(self) -> None:
        """Wait for the batches on their way; close the connections, if they are the driver's own."""
        if not self._gate.is_deserted:
            self._gate.come_home()
        try:
            await self._gate.close()
        finally:
            if self._renew is not None and not self._gate.is_deserted:
                with suppress(redis.RedisError, OSError):
                    await self._pool.disconnect()


def _no_retry() -> Retry:
    """Nothing is ever sent twice by itself."""
    return Retry(NoBackoff(), 0)


def _cancellations() -> int:
    """How often the task was told to stop."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0


def _heed(before: int) -> None:
    """Stop, if the task was told to since then.

    redis-py writes in an `asyncio.wait_for`. With Python 3.11 a cancellation that comes just as the write
    ends is lost there: it returns as if nothing was.
    """
    if _cancellations() > before:
        raise asyncio.CancelledError


async def _reply(connection: Any) -> Any:
    """Read one reply: a value, or an error that came as one."""
    try:
        return await connection.read_response(disable_decoding=True)
    except redis.ResponseError as error:
        return error
