"""The driver contract, for every blocking driver."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import swapstore
from swapstore import Store
from swapstore.drivers.base import Driver
from swapstore.testing import DriverContract, SimulatedStore, WaitingContract
from tests.support.valkey import Server


@pytest.mark.every_store
class TestDrivers(DriverContract):
    """SQLite, fakeredis, and every real server there is."""

    @pytest.fixture
    def driver(self, store: Store) -> Driver:
        return store._driver


class TestSimulated(DriverContract, WaitingContract):
    """The simulated store that the proofs run on: it must behave like the real ones."""

    sim: SimulatedStore

    @pytest.fixture
    def driver(self) -> Driver:
        self.sim = SimulatedStore()
        return self.sim.connect()._driver

    def pass_time(self, seconds: float) -> None:
        self.sim.clock.sleep(seconds)


class TestWaiting(WaitingContract):
    """A real server: SQLite has no replicas, and fakeredis does not know the command."""

    @pytest.fixture
    def driver(self, valkey: Server) -> Iterator[Driver]:
        with swapstore.connect(valkey.url) as store:
            yield store._driver
