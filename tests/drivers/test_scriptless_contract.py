"""The contract of the commands that commits without scripts use, for each driver that has them."""

from __future__ import annotations

from collections.abc import Iterator

import fakeredis
import pytest

import swapstore
from swapstore.drivers.base import Driver
from swapstore.testing import ComparingContract, PlainContract, SimulatedStore
from tests.support.rest import RestServer
from tests.support.valkey import Server


class TestSimulated(ComparingContract):
    """The store that the exploration runs on."""

    @pytest.fixture
    def driver(self) -> Driver:
        return SimulatedStore().connect()._driver


class TestFakeRedis(PlainContract):
    """A server without compare-and-set: it has no `SET … IFEQ`."""

    @pytest.fixture
    def driver(self) -> Driver:
        return swapstore.connect(fakeredis.FakeRedis(server=fakeredis.FakeServer()))._driver


class TestValkey(ComparingContract):
    """The real server."""

    @pytest.fixture
    def driver(self, valkey: Server) -> Iterator[Driver]:
        with swapstore.connect(valkey.url) as store:
            yield store._driver


class TestRest(ComparingContract):
    """The same server, over REST."""

    @pytest.fixture
    def driver(self, valkey: Server) -> Iterator[Driver]:
        with RestServer(valkey) as rest, swapstore.connect(rest.url, token=rest.token) as store:
            yield store._driver
