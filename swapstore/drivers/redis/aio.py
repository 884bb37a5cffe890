"""The asyncio driver for Redis and Valkey, on `redis.asyncio`.

As in `driver.py`, a batch is one pipeline on one connection, each reply is examined by itself, and nothing is
sent twice. If a batch is cancelled or fails half-way, its connection is aborted at once: nothing more is sent
on it, and no later batch can read the replies of this one.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, ClassVar

import redis.asyncio
from redis._parsers import _AsyncHiredisParser, _AsyncRESP2Parser
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelManagedConnection
from redis.backoff import NoBackoff
from redis.utils import HIREDIS_AVAILABLE

from swapstore.commands import Command, Failed
from swapstore.drivers.base import LEFT_S
from swapstore.drivers.limiter import Limiter
from swapstore.drivers.redis import address, elsewhere, errors, replicas, sentinel, wire
from swapstore.drivers.redis.driver import after_asking, answers, is_for_others, misdirected, without_script
from swapstore.drivers.redis.pool import FOR_ANY_COMMAND
from swapstore.drivers.redis.subscription import AsyncRedisListener
from swapstore.drivers.redis.wire import Wire, bundled
from swapstore.errors import ReplyLost, SwapstoreError
from swapstore.forks import survive_forks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from swapstore.models import Timeout

    Pool = redis.asyncio.ConnectionPool


FAR_S = 1e6  # redis-py's own bound, on the whole of a reply: `_silence` ends the wait


# Not redis-py's default: that may be a parser of RESP3, which it replaces only if it is that very class.
_Parser: Any = _AsyncHiredisParser if HIREDIS_AVAILABLE else _AsyncRESP2Parser


class Parser(_Parser):  # type: ignore[misc]
    """redis-py's parser, but LOADING is the reply to one command, and those after it are read."""

    EXCEPTION_CLASSES: ClassVar = {**_Parser.EXCEPTION_CLASSES, "LOADING": errors.Loading}


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
        self._generation = 0  # how often the connections were retired
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
    def from_url(
        cls, url: str, *, timeout: Timeout | None = None, to_replicas: bool = False
    ) -> AsyncRedisDriver:
        """Make a driver for a URL of a server, or of sentinels; see `RedisDriver.from_url`."""
        asked = sentinel.parse(url)

        def parsed() -> tuple[str, Pool]:
            where, pool = address.parse(
                asked.url if asked else url,
                redis.asyncio.BlockingConnectionPool,
                no_retry(),
                Parser,
                timeout,
                where=asked.where if asked else None,
            )
            if asked:
                _lead(pool, asked, to_replicas=to_replicas)
            return where, pool

        where, pool = parsed()
        return cls(pool, where=where, renew=lambda: parsed()[1])

    @classmethod
    def from_client(cls, client: Any, *, timeout: Timeout | None = None) -> AsyncRedisDriver:  # noqa: ARG003 - the client has its own
        """Make a driver on the connections of a `redis.asyncio.Redis`, whatever its settings."""
        where = address.where_of_client(client, redis.asyncio.Redis, "redis.asyncio.Redis")
        return cls(client.connection_pool, where=where, renew=None)

    async def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Send the commands as one pipeline; see `AsyncDriver.execute`."""
        if is_for_others(commands):
            return await self._elsewhere(commands)
        units = bundled(commands)
        async with self._limiter:
            found = answers(units, await self._replies(units, asking=False), self.where)
            if misdirected(commands, found):
                await self.retire()
        return found

    async def _elsewhere(self, commands: Sequence[Command[Any]]) -> list[Any]:
        """Ask sentinels, and replicas that they name, for `doctor`."""
        others = elsewhere.behind(self._pool)
        found = elsewhere.begun(commands, others)
        if others is None:
            return found
        for node, asks in elsewhere.divided(commands).items():
            kind, options = others.way(node)
            pool = redis.asyncio.ConnectionPool(connection_class=kind, **{**options, "retry": no_retry()})
            try:
                replies = await AsyncRedisDriver(pool, where=node, renew=None).execute([*asks.values()])
            except SwapstoreError as error:
                replies = [Failed(error)] * len(asks)
            finally:
                await pool.disconnect()
            for i, reply in zip(asks, replies, strict=True):
                found[i] = elsewhere.final(reply)
        return found

    async def exchange(self, units: Sequence[Command[Any]], *, asking: bool) -> list[Any]:
        """Send a batch and read the reply to each command: a value, or an error of the server.

        `asking`: precede each command with ASKING, for a node of a cluster that is about to get its key.
        """
        async with self._limiter:
            return await self._replies(units, asking=asking)

    async def _replies(self, units: Sequence[Command[Any]], *, asking: bool) -> list[Any]:
        before, generation = _cancellations(), self._generation
        connection = await self._connected()
        transport = _transport(connection)  # redis-py forgets it when it closes the connection itself
        try:
            _raise_if_cancelled(since=before)
            replies = await self._exchange(connection, units, asking=asking)
            unknown = without_script(units, replies)
            if unknown:  # after a restart or SCRIPT FLUSH: they did not run, so send the text
                without = [units[i] for i in unknown]
                again = await self._exchange(connection, without, asking=asking, as_text=True)
                for i, reply in zip(unknown, again, strict=True):
                    replies[i] = reply
        except BaseException as error:
            _abort(transport)
            await _close(connection)
            failure = errors.of_exchanging(error, self.where, units, closed=False)
            if failure is None:
                raise
            if isinstance(failure, ReplyLost):
                await self.retire()
            raise failure from error
        finally:
            if generation != self._generation:
                await _close(connection)
            await self._release(connection)
        return replies

    async def _release(self, connection: Any) -> None:
        """Give a connection back, even if this is cancelled: else the pool counts it as lent for good."""
        try:
            await self._pool.release(connection)  # to shield it at once would take a task for each call
        except asyncio.CancelledError:
            with suppress(KeyError):  # it was given back before the cancellation came
                await asyncio.shield(self._pool.release(connection))
            raise

    async def _connected(self) -> Any:
        """Take a connection from the pool, ready for use."""
        try:
            pool: Any = self._pool
            sentinels = pool.connection_kwargs.get("sentinels")
            if sentinels is not None:
                await sentinels.refresh()
            connection = await pool.get_connection(*FOR_ANY_COMMAND)
            leads = sentinels is not None or isinstance(connection, replicas.Checked)
            try:
                if leads and connection.should_reconnect():
                    await _close(connection)
                    await connection.connect()
                await self._check_health(connection)
            except BaseException:
                await asyncio.shield(pool.release(connection))
                raise
        except Exception as error:
            failed = errors.of_connecting(error, self.where, self._pool, closed=False)
            if failed is None:
                raise
        else:
            return connection
        failure, cause = failed
        raise failure from cause

    async def _check_health(self, connection: Any) -> None:
        """Send a PING after `health_check_interval`, if the URL or the client has that option."""
        try:
            await connection.check_health()
        except (redis.RedisError, OSError):
            await _close(connection)
            await self.retire()
            await connection.connect()
        except BaseException:
            await _close(connection)
            raise

    async def retire(self) -> None:
        """Close all idle connections now, and the lent ones when they come back.

        What happened to one connection may have happened to all: see `pool.py`.
        """
        self._generation += 1
        idle: list[Any] = self._pool._available_connections  # noqa: SLF001 - `disconnect` can be overtaken
        for connection in list(idle):
            if connection in idle:
                await _close(connection)

    async def _exchange(
        self, connection: Any, commands: Sequence[Command[Any]], *, asking: bool, as_text: bool = False
    ) -> list[Any]:
        """Send every command, then read every reply: a value, or the error that the server replied with."""
        frames = [self._wire.frame(command, as_text=as_text) for command in commands]
        frames = wire.asking(frames) if asking else frames
        await _send(connection, wire.portions(wire.packed(frames)))
        read = connection.read_response
        if isinstance(connection, SentinelManagedConnection):
            # Its own method takes READONLY for a failed connection, and leaves the other replies unread.
            read = super(SentinelManagedConnection, connection).read_response
        replies: list[Any] = []
        try:
            async with _silence(connection):
                for _ in frames:
                    replies.append(await _reply(read))  # noqa: PERF401 - what came before a failure counts
        except (redis.RedisError, OSError):
            if not replies or not errors.is_last(replies[-1]):
                raise
            await _close(connection)
            replies += replies[-1:] * (len(frames) - len(replies))  # nothing of the rest was carried out
        return after_asking(replies) if asking else replies

    @property
    def reply_s(self) -> float | None:
        """How long it waits for a reply in silence, in seconds. None: it has no bound."""
        found: float | None = self._pool.connection_kwargs.get("socket_timeout")
        return found

    def listen(self, channels: Sequence[str], pattern: str = "") -> AsyncRedisListener:
        """Subscribe to hints on channels; see `AsyncListener`. The connection is not one of the pool's."""
        kind, options = self._pool.connection_class, self._pool.connection_kwargs
        return AsyncRedisListener(lambda: kind(**{**options, "retry": no_retry()}), channels, pattern)

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
                sentinels = self._pool.connection_kwargs.get("sentinels")
                if sentinels is not None:
                    await sentinels.close()


def _lead(pool: Any, asked: sentinel.Address, *, to_replicas: bool) -> None:
    """Make the connections of a pool lead to the primary that sentinels name, or to its replicas."""
    plain, options = pool.connection_class, pool.connection_kwargs

    def client(options: dict[str, Any]) -> Any:
        made = redis.asyncio.ConnectionPool(connection_class=plain, **options)
        return redis.asyncio.Redis(connection_pool=made)

    leading: Any = sentinel.connections
    asks: Any = sentinel.AsyncSentinels
    if to_replicas:
        leading, asks, options = replicas.connections, replicas.AsyncReplicas, replicas.hasty(options)
        pool.timeout = min(pool.timeout, replicas.CONNECT_S)
    pool.connection_class = leading(plain, is_async=True)
    pool.connection_kwargs = {**options, "sentinels": asks(asked, client, options)}


def no_retry() -> Retry:
    """Return a policy that never sends anything a second time."""
    return Retry(NoBackoff(), 0)


def _cancellations() -> int:
    """Return how often the current task has been cancelled."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0


def _raise_if_cancelled(*, since: int) -> None:
    """Raise `CancelledError` if the task has been cancelled more than `since` times.

    When redis-py connects, it writes within `asyncio.wait_for`. In Python 3.11 that swallows a cancellation
    that arrives just as the write ends.
    """
    if _cancellations() > since:
        raise asyncio.CancelledError


async def _send(connection: Any, portions: Iterable[bytes]) -> None:
    """Send the portions of a request. Raises `CutOff` if the server hangs up before the last.

    They are written to the stream itself: if somebody has closed it, redis-py would connect anew, and the
    server would take a part of a payload for commands. In Python 3.11, redis-py makes a task of each write.
    And it uses `writelines`, which before Python 3.12.9 and 3.13.2 buffers all of it, so no wait would see
    how the transfer goes.
    """
    writer = connection._writer  # noqa: SLF001 - there is no public way that does not connect
    if writer is None:
        raise redis.ConnectionError("the connection was closed before a request was sent")
    write = getattr(writer, "write", lambda portion: writer.writelines([portion]))  # fakeredis has the latter
    left = iter(portions)
    for portion in left:
        try:
            write(portion)
            async with asyncio.timeout(connection.socket_timeout):
                await writer.drain()
        except TimeoutError:
            raise
        except OSError as error:
            if next(left, None) is None:
                raise
            raise errors.CutOff(str(error)) from error


async def _reply(read: Callable[..., Any]) -> Any:
    """Read one reply: a value, or the error that the server replied with."""
    try:
        return await read(disable_decoding=True, timeout=FAR_S)
    except redis.ResponseError as error:
        return error


@asynccontextmanager
async def _silence(connection: Any) -> AsyncIterator[None]:
    """Bound the silence while replies are read, not the time that they take: bytes that arrive end it.

    redis-py bounds each reply as a whole, so a large one would have to arrive within the time-out.
    """
    silence_s, stream = connection.socket_timeout, getattr(connection, "_reader", None)
    left_s = LEFT_S.get()
    if left_s < (float("inf") if silence_s is None else silence_s):
        silence_s = left_s
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(silence_s) as bound:
            if silence_s is not None and isinstance(stream, asyncio.StreamReader):

                def feed_data(data: bytes) -> None:
                    if not bound.expired():
                        bound.reschedule(loop.time() + silence_s)
                    asyncio.StreamReader.feed_data(stream, data)

                vars(stream)["feed_data"] = feed_data
            yield
    except TimeoutError as error:
        raise redis.TimeoutError(f"no answer within {silence_s} seconds") from error
    finally:
        if isinstance(stream, asyncio.StreamReader):
            vars(stream).pop("feed_data", None)


async def _close(connection: Any) -> None:
    """Close a connection at once, and send nothing more of its buffer. Closing twice is harmless."""
    _abort(_transport(connection))
    await connection.disconnect(nowait=True)


def _transport(connection: Any) -> Any:
    return getattr(getattr(connection, "_writer", None), "transport", None)


def _abort(transport: Any) -> None:
    """Send nothing more: a transport that is only closed keeps its buffer while the server hangs."""
    if isinstance(transport, asyncio.WriteTransport):  # that of fakeredis is not, and has no `abort`
        transport.abort()
