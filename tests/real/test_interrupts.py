"""Ctrl-C, soft time limits, threads that close the store: no connection is lost, none is used half-read."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import swapstore
from swapstore import StoreClosed, SwapstoreError
from swapstore.commands import Get, Put
from swapstore.drivers.redis import driver as driver_module
from swapstore.drivers.redis import pool as pool_module
from swapstore.drivers.redis.driver import RedisDriver
from tests.support.valkey import Server

pytestmark = pytest.mark.server

FILES = {driver_module.__file__, pool_module.__file__}


class Interrupt(BaseException):
    """What a signal handler raises."""


def interrupted_at(number: int, call: Callable[[], object]) -> bool:
    """Call a function, and raise at the line of this number in the driver's and the pool's code."""
    left = number

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        if frame.f_code.co_filename not in FILES:
            return None
        if event == "line":
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise Interrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except Interrupt:
        return True
    finally:
        sys.settrace(before)
    return False


@pytest.mark.parametrize("cold", [False, True], ids=["warm", "cold"])
def test_an_interrupt_at_any_line_loses_no_connection(valkey: Server, cold: bool) -> None:  # noqa: FBT001
    """Each interrupt uses up a connection of the pool, until every call fails; or a reply goes to another."""
    driver = RedisDriver.from_url(f"{valkey.url}?max_connections=3&timeout=0.5")
    try:
        driver.execute([Put("one", b"1", 60_000), Put("two", b"2", 60_000)])
        number = 0
        while True:
            if cold:
                driver._pool.retire()
            if not interrupted_at(number, lambda: driver.execute([Get("one"), Get("one")])):
                break
            assert driver.execute([Get("two")]) == [b"2"], f"after an interrupt at line {number}"
            number += 1
        assert number > 20
        pool: Any = driver._pool
        assert len({id(pool.get_connection()) for _ in range(3)}) == 3 or number
        with valkey.client() as client:
            client.ping()
            deadline = time.monotonic() + 10
            while client.info("clients")["connected_clients"] > 3 + 1 and time.monotonic() < deadline:
                time.sleep(0.02)
            assert client.info("clients")["connected_clients"] <= 3 + 1
    finally:
        driver.close()


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="Windows has no timers that interrupt")
def test_two_hundred_soft_time_limits_leave_the_store_usable(valkey: Server) -> None:
    """A worker with soft time limits exhausts the pool within a day, and every publish fails."""

    def limit(*_: object) -> None:
        raise Interrupt

    before = signal.signal(signal.SIGALRM, limit)
    interrupts = 0
    driver = RedisDriver.from_url(f"{valkey.url}?max_connections=3&timeout=0.5")
    try:
        driver.execute([Put("one", b"1", 60_000), Put("two", b"2", 60_000)])
        for number in range(200):
            try:
                signal.setitimer(signal.ITIMER_REAL, 0.0001 + 0.00001 * (number % 60))
                for _ in range(100):
                    assert driver.execute([Get("one"), Get("two")]) == [b"1", b"2"]
            except Interrupt:
                interrupts += 1
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            assert driver.execute([Get("two"), Get("one")]) == [b"2", b"1"]
        assert interrupts > 100
    finally:
        signal.signal(signal.SIGALRM, before)
        driver.close()


def test_closing_beside_busy_threads_raises_errors_of_ours(valkey: Server) -> None:
    """`close()` while other threads connect or read raises AttributeError, or leaves connections open."""
    wrong: list[BaseException] = []
    with valkey.client() as client:
        before = client.info("clients")["connected_clients"]
        for _ in range(30):
            store = swapstore.connect(f"{valkey.url}?max_connections=8")
            started = threading.Barrier(9)

            def work(store: Any = store, started: threading.Barrier = started) -> None:
                started.wait(10)
                try:
                    for number in range(50):
                        store.publish("mena", number) if number % 5 == 0 else store.read_latest("mena")
                except SwapstoreError:
                    pass
                except BaseException as error:  # noqa: BLE001
                    wrong.append(error)

            threads = [threading.Thread(target=work) for _ in range(8)]
            for thread in threads:
                thread.start()
            started.wait(10)
            store.close()
            for thread in threads:
                thread.join(20)
            with pytest.raises(StoreClosed):
                store.read_latest("mena")
        assert not wrong, wrong
        deadline = time.monotonic() + 10
        while client.info("clients")["connected_clients"] > before and time.monotonic() < deadline:
            time.sleep(0.02)
        assert client.info("clients")["connected_clients"] <= before


def test_without_descriptors_the_error_is_ours(tmp_path: Path, valkey: Server) -> None:
    """A process that has no file descriptors left gets a raw OSError or ValueError."""
    resource = pytest.importorskip("resource")
    with swapstore.connect(valkey.url, patience=0) as store:
        store.publish("mena", 1)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        driver: Any = store._driver
        driver._pool.retire()
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
        try:
            with pytest.raises(SwapstoreError, match="Too many open files"):
                store.read_latest("mena")
            with pytest.raises(SwapstoreError), swapstore.connect(valkey.url, patience=0) as another:
                another.read_latest("mena")
            with pytest.raises(SwapstoreError), swapstore.connect(f"sqlite:///{tmp_path}/x.db") as another:
                another.publish("mena", 1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert store.read_latest("mena") is not None
