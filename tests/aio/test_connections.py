"""Connections of the asyncio store: how many are opened, and what happens to them after a failure."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

import swapstore
import swapstore.aio
from swapstore.drivers.limiter import Limiter
from swapstore.drivers.redis import address
from swapstore.errors import (
    AccessDenied,
    InvalidInput,
    Misconfigured,
    StoreClosed,
    SwapstoreError,
    Unavailable,
)
from tests.real.test_server import SECRET, everything_about
from tests.support import invariants
from tests.support.proxy import Proxy
from tests.support.valkey import Server, free_port


def test_the_pool_is_bounded(valkey: Server) -> None:
    """A burst of 300 readers opens more connections than allowed, or some are not served."""

    async def main() -> None:
        async with swapstore.aio.connect(f"{valkey.url}?max_connections=5") as store:
            await store.publish("mena", 1)
            with valkey.client() as admin:
                before = len(admin.client_list()) - 1
                snaps = await asyncio.gather(*(store.read_latest("mena") for _ in range(300)))
                assert len(admin.client_list()) - before <= 5
            assert all(snap is not None for snap in snaps)

    asyncio.run(main())


def test_a_pool_is_bounded_by_default() -> None:
    """A burst opens connections without limit, in `Store` or in `AsyncStore`."""
    url = f"redis://localhost:{free_port()}"
    for connect in (swapstore.connect, swapstore.aio.connect):
        driver: Any = connect(url)._driver
        assert driver._pool.max_connections == address.MAX_CONNECTIONS
        driver = connect(f"{url}?max_connections=7&timeout=3")._driver
        assert (driver._pool.max_connections, driver._pool.timeout) == (7, 3)


def test_waiting_for_a_connection_ends(valkey: Server) -> None:
    """When all connections stay busy, the error does not name the pool and its size, or others hang."""
    with valkey.client() as admin:

        async def main() -> None:
            async with swapstore.aio.connect(f"{valkey.url}?max_connections=2&timeout=0.1") as store:
                await store.publish("mena", 1)
                admin.client_pause(600)
                stuck = await asyncio.gather(
                    *(store.status("mena") for _ in range(6)), return_exceptions=True
                )
                refused = [each for each in stuck if isinstance(each, Unavailable)]
                assert refused
                assert "all 2 connections of the pool to redis://127.0.0.1" in str(refused[0])
                assert await store.read_latest("mena") is not None

        asyncio.run(main())


def test_waiting_for_a_connection_ends_for_threads_too(valkey: Server) -> None:
    """A thread waits forever for a connection of a busy pool."""
    with swapstore.connect(f"{valkey.url}?max_connections=1&timeout=0.05") as store:
        driver: Any = store._driver
        connection = driver._pool.get_connection()
        with pytest.raises(Unavailable, match="all 1 connections of the pool to redis://127.0.0.1"):
            store.datasets()
        driver._pool.release(connection)
        assert store.datasets() == []


def test_a_limiter_wakes_the_next_task_when_the_first_one_is_cancelled() -> None:
    """After one reader timed out, the others wait for a connection although one is free."""

    async def main() -> None:
        limiter = Limiter("somewhere", 1, 5, exhausted=lambda: Unavailable("none"))

        async def enter() -> str:
            async with limiter:
                return "entered"

        async with limiter:
            waiting = [asyncio.ensure_future(enter()) for _ in range(3)]
            await asyncio.sleep(0)
        waiting[0].cancel()
        async with asyncio.timeout(1):
            done = await asyncio.gather(*waiting, return_exceptions=True)
        assert [str(each) for each in done[1:]] == ["entered", "entered"]

        async with limiter:
            closing = asyncio.ensure_future(limiter.close())
            late = asyncio.ensure_future(enter())
            await asyncio.sleep(0)
            assert not closing.done()
        await closing
        with pytest.raises(StoreClosed):
            await late

    asyncio.run(main())


@pytest.mark.parametrize("cancellations", [1, 2])
def test_a_connection_is_given_back_although_that_is_cancelled(valkey: Server, cancellations: int) -> None:
    """A call that is cancelled while it gives its connection back takes that from the pool for good."""

    async def main() -> None:
        async with swapstore.aio.connect(f"{valkey.url}?max_connections=1&timeout=0.5") as store:
            await store.publish("mena", 1)
            pool: Any = store._driver._pool  # type: ignore[attr-defined]
            with valkey.client() as admin:
                admin.client_pause(300)
            reading = asyncio.ensure_future(store.status("mena"))
            await asyncio.sleep(0.1)  # it waits for the reply
            async with pool._condition:
                await asyncio.sleep(0.5)  # it waits for the pool
                assert len(pool._in_use_connections) == 1
                for _ in range(cancellations):
                    reading.cancel()
                    await asyncio.sleep(0.1)
            with pytest.raises(asyncio.CancelledError):
                await reading
            snap = await store.read_latest("mena")
            assert snap is not None

    asyncio.run(main())


def test_a_warm_call_makes_no_task(valkey: Server) -> None:
    """Each read or publish makes tasks of its own, which take as long as the rest of a small read."""
    made: list[str] = []

    def note(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        made.append(getattr(coroutine, "__qualname__", repr(coroutine)))
        return asyncio.Task(coroutine, loop=loop, **options)

    async def main() -> None:
        async with swapstore.aio.connect(valkey.url) as store:
            await store.publish("mena", 1)
            await store.publish("mena", 2)
            await store.read_latest("mena")
            asyncio.get_running_loop().set_task_factory(note)
            await store.read_latest("mena")
            await store.publish("mena", 3)
            asyncio.get_running_loop().set_task_factory(None)

    asyncio.run(main())
    assert not made


@pytest.mark.server
def test_a_cancelled_publish_sends_nothing_more(tmp_path: Path) -> None:
    """A cancelled publish still sends its payload in the background for as long as the server takes."""

    async def main() -> None:
        async with swapstore.aio.connect(server.url) as store:
            await store.publish("mena", 1)
            before = admin.info("stats")["total_net_input_bytes"]
            os.kill(pid, signal.SIGSTOP)
            publishing = asyncio.ensure_future(store.publish("mena", b"x" * 60_000_000, codec="bytes"))
            await asyncio.sleep(0.3)
            publishing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await publishing
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(0.5)
            assert admin.info("stats")["total_net_input_bytes"] - before < 30_000_000

    with Server(tmp_path) as server, server.client() as admin:
        assert server._process is not None
        pid = server._process.pid
        asyncio.run(main())


def test_a_reply_lost_on_the_wire_is_one_commit(valkey: Server) -> None:
    """A connection that breaks after the commit was applied leads to a second row, or to an error."""

    async def main(url: str) -> None:
        async with swapstore.aio.connect(url) as store:
            await store.publish("mena", 1, id="before")
            proxy.lose_reply_of(b"EVAL")
            commit = await store.publish("mena", 2, id="mine")
            assert (commit.version, commit.created, proxy.lost) == (2, True, 1)

    with Proxy(valkey.port) as proxy, swapstore.connect(valkey.url) as look:
        asyncio.run(main(proxy.url))
        assert [row.id for row in invariants.check(look)] == ["before", "mine"]


def test_a_borrowed_client_with_retries_sends_a_commit_once(valkey: Server) -> None:
    """redis-py's default retries send a commit twice that the server has applied already."""

    async def main() -> None:
        async with redis.asyncio.Redis(host="127.0.0.1", port=proxy.port, decode_responses=True) as client:
            async with swapstore.aio.connect(client) as store:
                assert str(proxy.port) in repr(store)
                await store.publish("mena", b"\xff", codec="bytes")
                before = sum(b"EVAL" in request for request in proxy.requests)
                proxy.lose_reply_of(b"EVAL")
                assert (await store.publish("mena", b"\x00", codec="bytes")).version == 2
                assert sum(b"EVAL" in request for request in proxy.requests) == before + 1
            assert await client.ping(), "a borrowed client is not closed"

    with Proxy(valkey.port) as proxy:
        asyncio.run(main())


def test_flushed_scripts_are_not_noticed(valkey: Server) -> None:
    """SCRIPT FLUSH between two publishes fails the second, or costs more than one round trip."""

    async def main() -> None:
        async with swapstore.aio.connect(valkey.url) as store:
            await store.publish("mena", 1)
            with valkey.client() as admin:
                admin.script_flush()
            assert (await store.publish("mena", 2)).version == 2

    asyncio.run(main())


@pytest.mark.server
def test_a_restarted_server_is_found_again(tmp_path: Path) -> None:
    """During a restart a read returns None instead of raising Unavailable, or the store never recovers."""
    server = Server(tmp_path, "--appendonly", "yes", "--appendfsync", "always").start()

    async def main() -> None:
        async with swapstore.aio.connect(server.url, patience=0) as store:
            await store.publish("mena", 1)
            server.stop()
            for use in (lambda: store.read_latest("mena"), lambda: store.publish("mena", 2), store.datasets):
                with pytest.raises(Unavailable, match=f"127.0.0.1:{server.port}"):
                    await use()
            server.start()
            snap = await store.read_latest("mena")
            assert snap is not None
            assert (await store.publish("mena", 2)).version == 2

    try:
        asyncio.run(main())
    finally:
        server.stop()


def failure_of(url: str, **options: Any) -> SwapstoreError:
    """The error that reading from an address raises."""

    async def main() -> None:
        async with swapstore.aio.connect(url, patience=0, **options) as store:
            await store.read_latest("mena")

    with pytest.raises(SwapstoreError) as caught:
        asyncio.run(main())
    return caught.value


def test_errors_say_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No server, a silent server and a missing directory cannot be told apart, or look like no data."""
    nobody = failure_of(f"redis://127.0.0.1:{free_port()}")
    assert isinstance(nobody, Unavailable)
    assert "cannot connect" in str(nobody)
    assert isinstance(failure_of(f"unix://{tmp_path}/none.sock"), Unavailable)
    assert isinstance(failure_of(f"sqlite:///{tmp_path}/none/x.db"), Misconfigured)
    monkeypatch.setattr(address, "REPLY_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as hole:
        assert isinstance(failure_of(f"redis://127.0.0.1:{hole.getsockname()[1]}"), Unavailable)


@pytest.mark.server
def test_passwords_are_never_shown(tmp_path: Path) -> None:
    """Wrong or missing credentials put the password into an error message or a log."""
    with Server(tmp_path, "--requirepass", "right-" + SECRET) as server:
        host = f"127.0.0.1:{server.port}/0"
        for url in (f"redis://:{SECRET}@{host}", f"redis://{host}", f"redis://user:{SECRET}@{host}"):
            error = failure_of(url)
            assert isinstance(error, AccessDenied)
            assert SECRET not in everything_about(error)
    for url in (f"redis://:{SECRET}/x@localhost:6379/0", f"mysql://user:{SECRET}@localhost", f"x:{SECRET}@y"):
        with pytest.raises(InvalidInput) as caught:
            swapstore.aio.connect(url)
        assert SECRET not in everything_about(caught.value)


@pytest.mark.slow
def test_sentinels_that_know_no_server_do_not_show_their_password() -> None:
    """redis-py quotes the sentinels' options in its error, and the password reaches the log."""
    make: Any = redis.asyncio.Sentinel

    async def main() -> None:
        sentinel = make([("127.0.0.1", free_port())], sentinel_kwargs={"password": SECRET})
        async with swapstore.aio.connect(sentinel.master_for("mymaster"), patience=0) as store:
            with pytest.raises(Unavailable, match="sentinels know no server for redis mymaster") as caught:
                await store.read_latest("mena")
            assert SECRET not in everything_about(caught.value)

    asyncio.run(main())


@pytest.mark.parametrize("thing", [42, redis.asyncio.Redis, redis.Redis()])
def test_a_blocking_client_is_refused(thing: Any) -> None:
    """A blocking client is accepted, and blocks the event loop."""
    with pytest.raises(InvalidInput, match=r"pass a URL or a redis\.asyncio\.Redis client"):
        swapstore.aio.connect(thing)


def test_an_option_that_redis_py_does_not_know_is_refused() -> None:
    """A misspelt option in the URL looks like an outage."""
    with pytest.raises(InvalidInput, match="no_such_option"):
        swapstore.aio.connect("redis://localhost?no_such_option=1")
