"""The pool lends idle connections on a short path of its own. These are the checks that it must not skip."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

import swapstore
from swapstore.commands import Get, Put
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
    """A server or a firewall closes what is idle: the fate of a commit sent on that would be unknown."""
    driver = RedisDriver.from_url(valkey.url)
    driver.execute([Put("pool:a", b"1", 10_000)])
    with valkey.client() as admin:
        admin.client_kill_filter(_type="normal", skipme=True)
    assert driver.execute([Get("pool:a")]) == [b"1"], "and no ReplyLost"
    driver.close()


def test_a_connection_with_an_answer_to_nobody_is_not_lent(valkey: Server) -> None:
    """A stray reply on a connection would be taken for that of the next command, and each after it."""
    driver = RedisDriver.from_url(valkey.url)
    driver.execute([Put("pool:b", b"1", 10_000)])
    idle(driver).send_command("PING")
    time.sleep(0.1)
    assert driver.execute([Get("pool:b"), Get("pool:b")]) == [b"1", b"1"]
    driver.close()


def test_a_connection_to_be_renewed_is_disconnected(valkey: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """redis-py marks connections to a server that is about to move: to keep one is to lose it later."""
    driver = RedisDriver.from_url(valkey.url)
    driver.execute([Put("pool:c", b"1", 10_000)])
    connection = idle(driver)
    monkeypatch.setattr(connection, "should_reconnect", lambda: True, raising=False)
    assert driver.execute([Get("pool:c")]) == [b"1"]
    assert connection._sock is None
    driver.close()


def test_a_connection_with_unread_replies_is_not_lent(valkey: Server) -> None:
    """More came than was asked for, and was read with it: each later reply would be another command's."""
    driver = RedisDriver.from_url(valkey.url)
    pool: Any = driver._pool
    connection = pool.get_connection()
    connection.send_packed_command([b"PING\r\nPING\r\n"])
    assert connection.read_response(disable_decoding=True) == b"PONG"
    pool.release(connection)
    assert driver.execute([Get("pool:none"), Get("pool:none")]) == [None, None]
    driver.close()


def test_a_batch_waits_for_the_only_connection(valkey: Server) -> None:
    """More threads than connections is no error: each has its turn, and the pool gives none away twice."""
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


def test_more_threads_than_connections_all_have_their_turn(valkey: Server) -> None:
    """A connection that comes back while a thread begins to wait must reach it: or it waits for nothing."""
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
    """An outage longer than the pool is large must not exhaust it: the store would not come back."""
    server = Server(tmp_path).start()
    with swapstore.connect(f"{server.url}?max_connections=2") as store:
        store.publish("mena", 1)
        server.stop()
        for _ in range(5):
            with pytest.raises(Unavailable, match="cannot connect"):
                store.read_latest("mena")
        server.start()
        store.publish("mena", 2)
        server.stop()
