"""The driver contract, for every blocking driver."""

from __future__ import annotations

import pytest

from swapstore import Store
from swapstore.drivers.base import Driver
from swapstore.testing import DriverContract, SimulatedStore


@pytest.mark.every_store
class TestDrivers(DriverContract):
    """SQLite, fakeredis, and every real server there is."""

    @pytest.fixture
    def driver(self, store: Store) -> Driver:
        return store._driver


class TestSimulated(DriverContract):
    """The simulated store that the proofs run on: it must behave like the real ones."""

    sim: SimulatedStore

    @pytest.fixture
    def driver(self) -> Driver:
        self.sim = SimulatedStore()
        return self.sim.connect()._driver

    def pass_time(self, seconds: float) -> None:
        self.sim.clock.sleep(seconds)
