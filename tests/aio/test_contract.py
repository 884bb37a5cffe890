"""The driver contract for the asyncio drivers: each command means what it means in the blocking ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AsyncExitStack

import pytest

from swapstore.drivers.base import Driver
from swapstore.testing import DriverContract
from tests.aio.support import Blocking, InThread, Place


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
