"""The state machine on the simulated store with faults, and on fakeredis and a real server without.

A failing run prints its steps and, under the random profile, a `@reproduce_failure` line; put that above the
class to run it again. `make nightly` runs the random profile.
"""

from __future__ import annotations

from collections.abc import Callable

import fakeredis
import pytest
from hypothesis.stateful import run_state_machine_as_test

import swapstore
from swapstore import Store
from swapstore.testing import SimulatedStore
from tests.conftest import steps
from tests.machine.removing import Removing
from tests.support.rest import RestServer
from tests.support.rest_switches import NO_SCRIPTS
from tests.support.valkey import Server

pytestmark = pytest.mark.fuzz


class Simulated(Removing):
    """Every fault at every command."""

    faults_happen = True

    def connect(self) -> Store:
        self.simulated = SimulatedStore()
        return self.simulated.connect()

    def tick(self) -> None:
        self.simulated.clock.advance(3)


class FakeRedis(Removing):
    """The real driver and the real scripts, without a server."""

    def connect(self) -> Store:
        return swapstore.connect(fakeredis.FakeRedis(server=fakeredis.FakeServer()))


def test_the_promises_hold_under_every_fault() -> None:
    """Some sequence of operations and faults breaks a promise of the protocol."""
    run_state_machine_as_test(Simulated, settings=steps(100, 40))


def test_the_promises_hold_on_fakeredis() -> None:
    """The scripts differ from the simulated store, so that its proofs say nothing about them."""
    run_state_machine_as_test(FakeRedis, settings=steps(10, 25))


@pytest.fixture
def flushed(servers: Callable[[str], Server]) -> Callable[[], Server]:
    """The real server, empty each time it is used."""
    return lambda: servers("valkey")


def test_the_promises_hold_on_a_real_server(flushed: Callable[[], Server]) -> None:
    """A real server behaves differently from fakeredis and the simulated store."""

    class Valkey(Removing):
        def connect(self) -> Store:
            return swapstore.connect(flushed().url)

    run_state_machine_as_test(Valkey, settings=steps(12, 25))


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_the_promises_hold_over_rest(valkey: Server, *, scripts: bool) -> None:
    """JSON and HTTP, or commits without scripts, change what an operation does."""
    with RestServer(valkey) as rest:
        if not scripts:
            rest.switches.denied = NO_SCRIPTS

        class Rest(Removing):
            unused_pages, scripts_run = not scripts, scripts

            def connect(self) -> Store:
                with valkey.client() as client:
                    client.flushall()
                store = swapstore.connect(rest.url, token=rest.token)
                store._driver._pool = client.connection_pool  # type: ignore[attr-defined]  # to look behind it
                return store

        run_state_machine_as_test(Rest, settings=steps(10, 25))
