"""The checks of a connection before the pool lends it: what the pool must not skip to be fast."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import swapstore
from swapstore.commands import Get, Put
from swapstore.drivers.redis import pool as pools
from swapstore.drivers.redis.aio import AsyncRedisDriver
from swapstore.drivers.redis.driver import RedisDriver
from swapstore.errors import Unavailable
from tests.support.valkey import Server


def idle(driver: RedisDriver) -> Any:
    """Return the connection that the next batch will be sent on."""
    pool: Any = driver._pool
    connection = pool.get_connection()
    pool.release(connection)
    return connection


def test_a_connection_that_the_server_closed_loses_no_batch(valkey: Server) -> None:
    """A batch is sent on a connection that the server has closed, and its outcome is unknown."""
    driver = RedisDriver.from_url(valkey.url)
    driver.execute([Put("pool:a", b"1", 10_000)])
    with valkey.client() as admin:
        admin.client_kill_filter(_type="normal", skipme=True)
    assert driver.execute([Get("pool:a")]) == [b"1"], "and no ReplyLost"
    driver.close()


def test_a_connection_with_a_stray_reply_is_not_lent(valkey: Server) -> None:
    """A stray reply is taken for that of the next command, and so is each after it."""
    driver = RedisDriver.from_url(valkey.url)
    driver.execute([Put("pool:b", b"1", 10_000)])
    idle(driver).send_command("PING")
    time.sleep(0.1)
    assert driver.execute([Get("pool:b"), Get("pool:b")]) == [b"1", b"1"]
    driver.close()


def test_a_connection_to_be_renewed_is_disconnected(valkey: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that redis-py marked for a moved server is kept, and lost later."""
    driver = RedisDriver.from_url(valkey.url)
    driver.execute([Put("pool:c", b"1", 10_000)])
    connection = idle(driver)
    monkeypatch.setattr(connection, "should_reconnect", lambda: True, raising=False)
    assert driver.execute([Get("pool:c")]) == [b"1"]
    assert connection._sock is None
    driver.close()


def test_a_connection_with_unread_replies_is_not_lent(valkey: Server) -> None:
    """After an unexpected extra reply, each later reply belongs to another command."""
    driver = RedisDriver.from_url(valkey.url)
    pool: Any = driver._pool
    connection = pool.get_connection()
    connection.send_packed_command([b"PING\r\nPING\r\n"])
    assert connection.read_response(disable_decoding=True) == b"PONG"
    pool.release(connection)
    assert driver.execute([Get("pool:none"), Get("pool:none")]) == [None, None]
    driver.close()


def test_a_batch_waits_for_the_only_connection(valkey: Server) -> None:
    """More threads than connections cause an error, or two threads use one connection."""
    driver = RedisDriver.from_url(f"{valkey.url}?max_connections=1")
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.extend(driver.execute([Get("pool:none")]))) for _ in range(8)
    ]
    pool: Any = driver._pool
    lent = pool.get_connection()
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    assert not found
    pool.release(lent)
    for thread in threads:
        thread.join(10)
    assert found == [None] * 8
    driver.close()


def test_a_waiting_thread_gets_the_next_free_connection_at_once(
    valkey: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that waits for a connection only looks for one now and then."""
    monkeypatch.setattr(pools, "SLICE_S", 60.0)
    driver = RedisDriver.from_url(f"{valkey.url}?max_connections=1&timeout=120")
    pool: Any = driver._pool
    lent = pool.get_connection()
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(pool.get_connection()), daemon=True)
    thread.start()
    while not pool._waiting:
        time.sleep(0.01)
    pool.release(lent)
    thread.join(20)
    assert found == [lent]
    driver.close()


def test_more_threads_than_connections_all_have_their_turn(valkey: Server) -> None:
    """A connection that is returned while a thread begins to wait does not reach it."""
    driver = RedisDriver.from_url(f"{valkey.url}?max_connections=3&timeout=3")
    found: list[Any] = []

    def work() -> None:
        for _ in range(150):
            found.extend(driver.execute([Get("pool:none")]))

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == [None] * 12 * 150
    with valkey.client() as client:
        assert client.info("clients")["connected_clients"] <= 3 + 1
    driver.close()


def test_failures_leave_the_pool_its_connections(tmp_path: Path) -> None:
    """A long outage uses up the pool, and the store does not recover."""
    server = Server(tmp_path).start()
    with swapstore.connect(f"{server.url}?max_connections=2", patience=0) as store:
        store.publish("mena", 1)
        server.stop()
        for _ in range(5):
            with pytest.raises(Unavailable, match="cannot connect"):
                store.read_latest("mena")
        server.start()
        store.publish("mena", 2)
        server.stop()


def test_a_lent_connection_that_is_retired_is_not_lent_again(valkey: Server) -> None:
    """A batch that was under way during a failover brings its connection to the demoted server back."""
    driver = RedisDriver.from_url(valkey.url)
    pool = driver._pool
    lent = pool.get_connection()
    pool.retire()
    pool.release(lent)
    following = pool.get_connection()
    assert following is not lent
    pool.release(following)
    assert pool.get_connection() is following, "it was made later"
    driver.close()


def test_an_asyncio_connection_that_is_retired_while_it_is_lent_is_closed(valkey: Server) -> None:
    """The same for asyncio."""

    async def main() -> None:
        driver: Any = AsyncRedisDriver.from_url(valkey.url)
        exchange = driver._exchange

        async def retired(*args: Any, **options: Any) -> Any:
            await driver.retire()
            return await exchange(*args, **options)

        driver._exchange = retired
        await driver.execute([Get("a")])
        assert not [each for each in driver._pool._available_connections if each.is_connected]
        await driver.close()

    asyncio.run(main())


def test_a_connection_that_an_exception_left_half_read_is_not_used_again(valkey: Server) -> None:
    """A reply that comes late is taken for the reply to the next command."""
    with valkey.client() as client:
        client.set("a", "mine")
    driver: Any = RedisDriver.from_url(valkey.url)
    read = driver._read

    def stopped(request: Any, *_: Any) -> Any:
        request.connection.send_command("BLPOP", "nothing", "0.3")
        raise ZeroDivisionError

    driver._read = stopped
    with pytest.raises(ZeroDivisionError):
        driver.execute([Get("b")])
    driver._read = read
    assert driver.execute([Get("a")]) == [b"mine"]
    driver.close()
