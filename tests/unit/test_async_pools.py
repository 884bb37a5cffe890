"""Which connections the asyncio driver uses again, and which it closes: on connections that only note."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import redis.asyncio

from swapstore.commands import Get, Put
from swapstore.drivers.limiter import Limiter
from swapstore.drivers.redis.aio import AsyncRedisDriver
from swapstore.drivers.redis.pool import FOR_ANY_COMMAND
from swapstore.drivers.redis.wire import PORTION
from swapstore.errors import ReplyLost, StoreClosed, Unavailable


class Connection(redis.asyncio.Connection):
    """A connection to a server that answers every command with `value`, after `before_reply`."""

    made: list[Connection]
    is_open = False
    before_sent: Callable[[], Any] | None = None
    before_reply: Callable[[], Any] | None = None
    unhealthy: Callable[[], Any] | None = None

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._writer: Any = self
        self.made.append(self)

    def __del__(self, _: Any = None) -> None:
        """Unlike that of redis-py, it does not warn about an open writer."""

    @property
    def is_connected(self) -> bool:
        return self.is_open

    async def connect(self) -> None:
        self.is_open = True

    async def disconnect(self, *_: Any, **__: Any) -> None:
        self.is_open = False

    async def can_read(self, *_: Any) -> bool:
        return False

    can_read_destructive = can_read  # what redis-py called it once

    async def check_health(self) -> None:
        if self.unhealthy is not None:
            await self.unhealthy()

    def write(self, _: Any) -> None:
        assert self.is_open, "the request is lost"

    async def drain(self) -> None:
        if self.before_sent is not None:
            await self.before_sent()

    async def read_response(self, *_: Any, **__: Any) -> Any:
        await asyncio.sleep(0)
        if self.before_reply is not None:
            await self.before_reply()
        return b"value"


@pytest.fixture
def kind() -> Any:
    """Return a class of connections of this test's own."""
    return type("Connection", (Connection,), {"made": []})


@pytest.fixture(params=[redis.asyncio.ConnectionPool, redis.asyncio.BlockingConnectionPool])
def driver(request: pytest.FixtureRequest, kind: Any) -> Any:
    """Return a driver on two connections at most."""
    pool = request.param(connection_class=kind, max_connections=2)
    return AsyncRedisDriver(pool, where="here", renew=lambda: pool)


async def forever() -> None:
    await asyncio.Event().wait()


async def fails() -> None:
    raise redis.TimeoutError("no answer")


async def cancelled(driver: Any) -> None:
    """Begin a batch, and cancel it where it waits."""
    task = asyncio.create_task(driver.execute([Get("a")]))
    for _ in range(20):
        await asyncio.sleep(0)
    assert task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def both(driver: Any) -> list[Any]:
    """Use both connections at the same time."""
    return list(await asyncio.gather(driver.execute([Get("a")]), driver.execute([Get("b")])))


@pytest.mark.parametrize("where", ["before_reply", "unhealthy"])
def test_the_connection_of_a_cancelled_batch_is_closed_and_given_back(
    driver: Any, kind: Any, where: str
) -> None:
    """A late reply is taken for the next command's, or no connection is to be had any more."""

    async def main() -> None:
        for _ in range(3):
            setattr(kind, where, staticmethod(forever))
            await cancelled(driver)
            assert not any(each.is_open for each in kind.made)
            setattr(kind, where, None)
        assert await both(driver) == [[b"value"], [b"value"]]
        assert len(kind.made) == 2

    asyncio.run(main())


def test_a_cancelled_batch_leaves_no_connection_to_a_server_that_hangs() -> None:
    """Each cancelled publish keeps a socket and a part of its payload for as long as the server hangs."""

    async def main() -> int:
        driver: Any = AsyncRedisDriver.from_url(f"redis://127.0.0.1:{listener.getsockname()[1]}")
        connection = await driver._pool.get_connection(*FOR_ANY_COMMAND)
        transport = connection._writer.transport
        await driver._pool.release(connection)
        task = asyncio.create_task(driver.execute([Put("a", bytes(32 << 20), 1)]))
        while not transport.get_write_buffer_size():  # noqa: ASYNC110 - until the server is full
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.sleep(0.01)
        return received(listener)  # nothing else happens in this event loop

    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert asyncio.run(main()) < 32 << 20


def test_a_server_that_reads_nothing_is_given_up() -> None:
    """A large publish to a server that hangs never ends, and keeps its connection."""

    async def main() -> None:
        port = listener.getsockname()[1]
        driver: Any = AsyncRedisDriver.from_url(f"redis://127.0.0.1:{port}?socket_timeout=0.2")
        async with asyncio.timeout(10):
            with pytest.raises(ReplyLost) as caught:
                await driver.execute([Put("a", bytes(32 << 20), 1)])
            assert not caught.value.cut_off, "the server may still read all of it"
            await driver.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        asyncio.run(main())


def test_a_server_that_hangs_before_its_reply_gets_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """redis-py closes the connection, and the payload is kept for as long as the server hangs."""

    async def at_once(_: asyncio.StreamWriter) -> None:
        """As for the last portions, which the buffer takes at once."""

    async def main() -> int:
        port = listener.getsockname()[1]
        driver: Any = AsyncRedisDriver.from_url(f"redis://127.0.0.1:{port}?socket_timeout=0.2")
        with pytest.raises(ReplyLost):
            await driver.execute([Put("a", bytes(32 << 20), 1)])
        await asyncio.sleep(0.01)
        return received(listener)

    monkeypatch.setattr(asyncio.StreamWriter, "drain", at_once)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert asyncio.run(main()) < 32 << 20


def test_a_payload_is_buffered_no_faster_than_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a slow line the time-out ends a large publish that goes on, and its payload is in memory twice."""

    def writelines(transport: Any, pieces: Any) -> None:
        """As in Python before 3.12.9 and 3.13.2: it never asks the writer to pause."""
        monkeypatch.setattr(transport, "_maybe_pause_protocol", lambda: None)
        transport.write(b"".join(pieces))

    async def main() -> None:
        port = listener.getsockname()[1]
        driver: Any = AsyncRedisDriver.from_url(f"redis://127.0.0.1:{port}?socket_timeout=2")
        connection = await driver._pool.get_connection(*FOR_ANY_COMMAND)
        transport = connection._writer.transport
        await driver._pool.release(connection)
        task = asyncio.create_task(driver.execute([Put("a", bytes(32 << 20), 1)]))
        await asyncio.sleep(0.5)
        assert 0 < transport.get_write_buffer_size() < 2 * PORTION
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    monkeypatch.setattr("asyncio.selector_events._SelectorSocketTransport.writelines", writelines)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        asyncio.run(main())


@pytest.mark.parametrize(
    ("portion", "raised", "cut_off"),
    [(1, ConnectionResetError(), True), (3, ConnectionResetError(), False), (1, TimeoutError(), False)],
)
def test_a_request_that_was_not_sent_in_whole_is_not_carried_out(
    driver: Any, kind: Any, *, portion: int, raised: OSError, cut_off: bool
) -> None:
    """A commit that may have been carried out is told as one that was not, or the other way round."""
    sent = 0

    async def fails_at_once() -> None:
        nonlocal sent
        sent += 1
        if sent == portion:
            raise raised

    async def main() -> None:
        kind.before_sent = staticmethod(fails_at_once)
        with pytest.raises(ReplyLost) as caught:
            await driver.execute([Put("a", bytes(3 * PORTION - 100), 1)])
        assert caught.value.cut_off is cut_off
        assert not any(each.is_open for each in kind.made)

    asyncio.run(main())
    assert sent == portion


def test_a_call_that_is_cancelled_after_it_gave_its_connection_back(driver: Any, kind: Any) -> None:
    """The program's own time-out is told as a KeyError of the pool."""

    async def main() -> None:
        pool = driver._pool
        release = pool.release

        async def slowly(connection: Any) -> None:
            await release(connection)
            await forever()

        await driver.execute([Get("a")])
        pool.release = slowly
        task = asyncio.create_task(driver.execute([Get("a")]))
        await asyncio.sleep(0.01)
        pool.release = release
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await both(driver) == [[b"value"], [b"value"]]

    asyncio.run(main())


def received(listener: socket.socket) -> int:
    """Count what has come on a connection until its end."""
    connection, _ = listener.accept()
    size = 0
    with connection, suppress(ConnectionError):
        connection.settimeout(5)
        while data := connection.recv(1 << 20):
            size += len(data)
    return size


def test_a_lost_reply_retires_the_idle_connections(driver: Any, kind: Any) -> None:
    """After a network forgot all connections, each of them costs a time-out."""

    async def main() -> None:
        await both(driver)
        assert [each.is_open for each in kind.made] == [True] * len(kind.made)
        kind.before_reply = staticmethod(fails)
        with pytest.raises(ReplyLost):
            await driver.execute([Get("a")])
        assert not any(each.is_open for each in kind.made)
        kind.before_reply = None
        assert await both(driver) == [[b"value"], [b"value"]]

    asyncio.run(main())


def test_a_connection_that_does_not_answer_retires_the_idle_ones(driver: Any, kind: Any) -> None:
    """The same, where the health check finds it."""

    async def main() -> None:
        kind.before_reply = staticmethod(lambda: asyncio.sleep(0))
        await both(driver)
        assert len(kind.made) == 2
        checks = 0

        async def once() -> None:
            nonlocal checks
            checks += 1
            if checks == 1:
                raise redis.TimeoutError("no PONG")

        kind.unhealthy = staticmethod(once)
        assert await driver.execute([Get("a")]) == [b"value"]
        assert not all(each.is_open for each in kind.made)

    asyncio.run(main())


def test_a_connection_that_cannot_be_replaced_is_given_back(driver: Any, kind: Any) -> None:
    """After an outage, no connection is to be had."""

    async def main() -> None:
        await driver.execute([Get("a")])
        connect = kind.connect

        async def unhealthy() -> None:
            async def refused(_: Any) -> None:
                raise redis.ConnectionError("refused")

            kind.connect = refused
            raise redis.TimeoutError("no PONG")

        for _ in range(3):
            kind.unhealthy, kind.connect = staticmethod(unhealthy), connect
            with pytest.raises(Unavailable):
                await driver.execute([Get("a")])
        kind.unhealthy, kind.connect = None, connect
        assert await both(driver) == [[b"value"], [b"value"]]

    asyncio.run(main())


def test_closing_waits_for_the_batches_in_progress(driver: Any, kind: Any) -> None:
    """The reply to a publish is lost because another task closes the store."""

    async def main() -> None:
        answer = asyncio.Event()
        kind.before_reply = staticmethod(answer.wait)
        batch = asyncio.create_task(driver.execute([Get("a")]))
        await asyncio.sleep(0.01)
        closing = asyncio.create_task(driver.close())
        await asyncio.sleep(0.01)
        assert [each.is_open for each in kind.made] == [True]
        assert not closing.done()
        answer.set()
        assert await batch == [b"value"]
        await closing
        assert not any(each.is_open for each in kind.made)

    asyncio.run(main())


def test_who_waits_for_a_slot_finds_the_store_closed() -> None:
    """A batch is sent, and a connection opened, after the store was closed."""

    async def main() -> None:
        limiter = Limiter("here", 1, 60, exhausted=lambda: Unavailable("exhausted"))
        async with limiter:
            waiting = asyncio.create_task(limiter.__aenter__())
            await asyncio.sleep(0)
            closing = asyncio.create_task(limiter.close())
            await asyncio.sleep(0)
        with pytest.raises(StoreClosed):
            await waiting
        await closing

    asyncio.run(main())
