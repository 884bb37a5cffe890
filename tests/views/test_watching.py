"""When a view looks: at once after a hint, at all within `poll` whatever happens, and not too often."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from swapstore import Store, Throttled, Unavailable
from swapstore.commands import Command
from swapstore.engine import run
from swapstore.protocol.operation import Listen
from swapstore.testing import SimulatedStore
from tests.support.drivers import Meddler

POLL_S = 10.0


class Steps:
    """A view whose steps a test takes. `waits`: how long it wanted to wait for a hint, each time."""

    def __init__(self, sim: SimulatedStore, **of: Any) -> None:
        self._sim = sim
        self._store: Store = sim.connect()
        self.driver: Any = Meddler(self._store._driver)
        self.view = self._store.view(poll=POLL_S, **of)
        self.view._started = True
        self.viewing = self.view._viewing
        self.waits: list[float] = []

    def step(self, *hints: str, after: float = 0.0, meanwhile: Callable[[], object] = int) -> list[str]:
        """Take a step. If it waits: something happens meanwhile, and these hints come after some seconds."""

        def listen(wanted: Listen) -> list[str]:
            self.waits.append(wanted.seconds)
            meanwhile()
            self._sim.clock.sleep(min(after, wanted.seconds + 0.001))
            return list(hints)

        found = run(self.viewing.step(), self.driver, self._sim.clock.sleep, listen=listen) or []
        self.viewing.told(found)
        return found


def channel(name: str) -> str:
    return f"swapstore:manifest:{{{name}}}"


def test_a_change_before_the_subscription_is_confirmed() -> None:
    """What is published between the first look and the subscription is seen a whole `poll` later."""
    sim = SimulatedStore()
    steps, producer = Steps(sim, datasets=["a"]), sim.connect()
    assert steps.step(meanwhile=lambda: producer.publish("a", 1)) == []
    assert steps.step() == ["a"]


def test_hints_that_never_end_do_not_put_off_the_look_at_all() -> None:
    """A busy dataset keeps the view from one whose hint was lost."""
    sim = SimulatedStore()
    steps, producer = Steps(sim, datasets=["busy", "quiet"]), sim.connect()
    producer.publish("quiet", 1)
    assert steps.step() == ["quiet"]
    producer.publish("quiet", 2)
    found: list[str] = []
    for _ in range(int(2 * POLL_S)):
        found += steps.step(channel("busy"), after=1.0)
    assert found == ["quiet"]


def test_the_look_after_a_fault_is_at_all() -> None:
    """A fault during the wait takes hints with it, and the view looks at what was hinted before."""
    sim = SimulatedStore()
    steps, producer = Steps(sim, datasets=["a", "b"]), sim.connect()
    steps.step(channel("a"))

    def fail() -> None:
        producer.publish("b", 1)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        steps.step(meanwhile=fail)
    assert steps.step() == ["b"]


@pytest.mark.parametrize("hinted", [False, True])
def test_the_age_is_that_of_the_last_look(hinted: bool) -> None:  # noqa: FBT001
    """An alarm on the age sounds although the store confirms each few seconds what is served."""
    sim = SimulatedStore()
    steps = Steps(sim, datasets=["a"])
    sim.connect().publish("a", 1)
    steps.step()
    steps.step(channel("a"), after=3.0)
    assert steps.view.age("a") == 3.0
    if not hinted:
        steps.step(after=POLL_S)
    steps.step()
    assert steps.view.age("a") == 0.0


def test_looks_in_an_outage(caplog: pytest.LogCaptureFixture) -> None:
    """After a long outage a view comes back hours later; during it, it asks all the time, or says nothing."""
    caplog.set_level(logging.INFO, "swapstore")
    sim = SimulatedStore()
    steps = Steps(sim, datasets=["a"])
    steps.step()
    usual = steps.driver.execute

    def dark(_: Sequence[Command[Any]]) -> list[Any]:
        raise Unavailable("dark")

    for _ in range(2):
        steps.driver.execute = dark
        del steps.waits[:]
        for _ in range(30):
            steps.step(after=POLL_S)
        assert steps.waits[0] <= 0.05
        assert POLL_S / 2 <= steps.waits[20] <= POLL_S
        assert steps.viewing.errors
        steps.driver.execute = usual
        sim.connect().publish("a", 1)
        assert steps.step() == ["a"]
        assert not steps.viewing.errors
        steps.step()
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"] * 2


def test_an_endpoint_that_throttles_is_asked_when_it_says() -> None:
    """Each view asks a throttled endpoint again and again, and so keeps it throttled."""
    steps = Steps(SimulatedStore(), datasets=["a"])
    steps.step()

    def throttled(_: Sequence[Command[Any]]) -> list[Any]:
        raise Throttled("too many requests", retry_after_s=7 * POLL_S)

    steps.driver.execute = throttled
    del steps.waits[:]
    steps.step(after=POLL_S)
    steps.step(after=POLL_S)
    assert steps.waits[-1] >= 6 * POLL_S


def test_messages_of_others_are_not_looked_up() -> None:
    """Another program's message makes the view ask for what cannot be a dataset."""
    sim = SimulatedStore()
    steps = Steps(sim, prefix="")
    strange = [channel(name) for name in ("\ufffd", "", "a}", "a" * 1000)]
    steps.step(*strange, "swapstore:manifest:{a}b", after=0.1)
    del steps.driver.batches[:]
    steps.step()
    assert steps.driver.batches == []
