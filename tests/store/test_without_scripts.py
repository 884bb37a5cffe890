"""Commits without scripts on a simulated store: what late commands and dead clients must not spoil."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest

from swapstore import Contended, Retention, Store
from swapstore.commands import Command, Expire
from swapstore.protocol.context import Capabilities
from swapstore.testing import SimulatedStore
from tests.exploration.maintenance import pages_of_two
from tests.support.committers import Way
from tests.support.drivers import Meddler, meddled

WAYS = [Way.COMPARE, Way.LEASE]
MINUTE_MS = 60_000


@pytest.fixture
def small_pages() -> Iterator[None]:
    """Pages of two rows, so that a few snapshots leave the log."""
    with pages_of_two():
        yield


def client(sim: SimulatedStore, way: Way) -> tuple[Store, Meddler]:
    """A client that commits in this way, and what passes between it and the store."""
    return meddled(sim.connect(), capabilities=Capabilities(committer=way.committer()))


def dying(
    sim: SimulatedStore, way: Way, before: Callable[[Command[Any]], bool]
) -> tuple[Store, list[Command[Any]]]:
    """A client that dies when it sends such a command, and the batch, which is still under way."""
    store, meddler = client(sim, way)
    late: list[Command[Any]] = []
    carry_out = meddler.execute

    def execute(commands: Sequence[Command[Any]]) -> list[Any]:
        if any(map(before, commands)):
            late.extend(commands)
            raise SystemExit
        return carry_out(commands)

    meddler.execute = execute  # type: ignore[method-assign]
    return store, late


def arrive(sim: SimulatedStore, late: Sequence[Command[Any]]) -> None:
    for command in late:
        sim.keyspace.apply(command, sim.clock.now_ms())


def wrong(store: Store) -> list[Any]:
    return [each for each in store.verify() if each.wrong]


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("way", WAYS)
def test_what_retention_by_age_is_unlinking_is_not_published_again(way: Way) -> None:
    """After a rollback, a snapshot older than `max_age` is published again, and expires as the latest."""
    sim = SimulatedStore()
    store, _ = client(sim, way)
    now = sim.clock.now_ms()
    for number, name in enumerate(("served", "undone", "late", "later", "last", "at-last")):
        ts = now - (10 if number < 2 else 20) * MINUTE_MS + number
        store.publish("mena", name, id=name, ts=ts)
        if name == "undone":
            store.rollback("mena", id="served")
    pruner, late = dying(sim, way, lambda each: isinstance(each, Expire) and ":undone" in each.key)
    with pytest.raises(SystemExit):
        pruner.prune("mena", retention=Retention(max_age=timedelta(minutes=5)))
    other, _ = client(sim, way)
    with pytest.raises(Contended, match="is being unlinked"):
        other.publish("mena", "undone", id="undone", ts=now - 10 * MINUTE_MS + 1)
    arrive(sim, late)
    sim.clock.advance(11 * MINUTE_MS)
    assert other.read_latest("mena").value == "served"  # type: ignore[union-attr]
    assert wrong(other) == []
    assert other.publish("mena", "undone", id="undone", ts=now - 10 * MINUTE_MS + 1).created
