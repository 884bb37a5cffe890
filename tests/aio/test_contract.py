"""The driver contract for the asyncio drivers: each command means what it means in the blocking ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

import swapstore.aio
from swapstore.drivers.base import Driver
from swapstore.testing import DriverContract, WaitingContract
from tests.aio.support import Blocking, InThread, Place
from tests.support.valkey import Server


@pytest.mark.every_store
class TestAsyncDrivers(DriverContract):
    """SQLite in threads, redis.asyncio on fakeredis and on every real server there is."""

    @pytest.fixture
    def driver(self, place: Place) -> Iterator[Driver]:
        with InThread() as home:
            stack = AsyncExitStack()
            store = home.run(stack.enter_async_context(place.open()))
            yield Blocking(store._driver, home)
            home.run(stack.aclose())


class TestAsyncWaiting(WaitingContract):
    """redis.asyncio on a real server."""

    @pytest.fixture
    def driver(self, valkey: Server) -> Iterator[Driver]:
        with InThread() as home:
            stack = AsyncExitStack()
            store = home.run(stack.enter_async_context(swapstore.aio.connect(valkey.url)))
            yield Blocking(store._driver, home)
            home.run(stack.aclose())
