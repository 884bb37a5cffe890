"""The driver contract over REST: each command means what it means on every other store."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import swapstore
import swapstore.aio
from swapstore.drivers.base import Driver
from swapstore.testing import DriverContract
from tests.aio.support import Blocking, InThread
from tests.support.rest import RestServer


class TestRest(DriverContract):
    """The blocking driver."""

    @pytest.fixture
    def driver(self, rest: RestServer) -> Iterator[Driver]:
        with swapstore.connect(rest.url, token=rest.token) as store:
            yield store._driver


class TestAsyncRest(DriverContract):
    """The asyncio driver."""

    @pytest.fixture
    def driver(self, rest: RestServer) -> Iterator[Driver]:
        with InThread() as home:
            store = swapstore.aio.connect(rest.url, token=rest.token)
            yield Blocking(store._driver, home)
            home.run(store.close())


class TestRestThatEncodesOk(DriverContract):
    """An endpoint that encodes the status OK like any other text, as serverless-redis-http does."""

    @pytest.fixture
    def driver(self, rest: RestServer) -> Iterator[Driver]:
        rest.switches.encodes_ok = True
        with swapstore.connect(rest.url, token=rest.token) as store:
            yield store._driver
