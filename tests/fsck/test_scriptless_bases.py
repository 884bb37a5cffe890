"""Bases that publishes without scripts leave: they are permanent before the swap that may never come."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import attrs
import msgspec
import pytest

from swapstore import Conflict, Store
from swapstore.commands import Command, CompareAndSet, Write
from swapstore.format import records
from swapstore.format.keys import base_name
from swapstore.protocol.context import Capabilities, Policy
from swapstore.testing import SimulatedStore
from tests.fsck.simulated import payload
from tests.support import invariants
from tests.support.committers import Way
from tests.support.drivers import Meddler, another, meddled
from tests.support.times import at

MINUTE_MS = 60_000
POLICY = Policy(compression="delta")
FRESH = payload(4, delta=True, kind=2)
BROUGHT = base_name(4, records.digest(msgspec.json.encode(FRESH)))  # by the next version


def client(sim: SimulatedStore, way: Way) -> tuple[Store, Meddler]:
    """A client that commits in this way, and what passes between it and the store."""
    return meddled(sim.connect(), capabilities=Capabilities(committer=way.committer()))


def about_to_bring_a_base(way: Way) -> SimulatedStore:
    """A store where the next publish of the kind of `FRESH` brings the base of version 4."""
    sim = SimulatedStore(policy=POLICY)
    store, _ = client(sim, way)
    for number, kind in ((1, 1), (2, 1), (3, 2)):
        store.publish("mena", payload(number, delta=True, kind=kind), id=f"id-{number}")
    return sim


def bases(sim: SimulatedStore) -> set[str]:
    """The names of the bases that are permanent."""
    values = sim.keyspace.values.items()
    permanent = [key for key, value in values if ":base:" in key and value.expires_at is None]
    return {key.rpartition(":")[2] for key in permanent}


def before_the_swap(meddler: Meddler, plan: Callable[[], object]) -> None:
    """Plan something right before the first batch that swaps the manifest."""
    carry_out = meddler.execute

    def execute(commands: Sequence[Command[Any]]) -> list[Any]:
        if any(isinstance(each, CompareAndSet | Write) and ":manifest:" in each.key for each in commands):
            meddler.execute = carry_out  # type: ignore[method-assign]
            plan()
        return carry_out(commands)

    meddler.execute = execute  # type: ignore[method-assign]


def die() -> None:
    raise SystemExit


def wrong(sim: SimulatedStore, way: Way) -> list[str]:
    return sorted({each.problem.value for each in client(sim, way)[0].verify() if each.wrong})


def publish(sim: SimulatedStore, kind: int, **options: Any) -> None:
    client(sim, Way.COMPARE)[0].publish("mena", payload(9, delta=True, kind=kind), **options)


@pytest.mark.parametrize("ts", [None, at(5)])
@pytest.mark.parametrize("kind", [1, 3])
def test_a_publish_that_loses_a_race_withdraws_its_base(kind: int, ts: datetime | None) -> None:
    """Each lost race leaves a base that never expires."""
    sim = about_to_bring_a_base(Way.COMPARE)
    store, meddler = client(sim, Way.COMPARE)
    before_the_swap(meddler, lambda: publish(sim, kind))
    assert store.publish("mena", FRESH, ts=ts).version == 5
    assert BROUGHT not in bases(sim)
    assert wrong(sim, Way.COMPARE) == []
    invariants.check(store)


def test_a_publish_that_is_refused_after_a_lost_race_withdraws_its_base() -> None:
    """A refused publish leaves a base that never expires."""
    sim = about_to_bring_a_base(Way.COMPARE)
    store, meddler = client(sim, Way.COMPARE)
    before_the_swap(meddler, lambda: publish(sim, 1))
    with pytest.raises(Conflict):
        store.publish("mena", FRESH, expected_version=3)
    assert BROUGHT not in bases(sim)
    assert wrong(sim, Way.COMPARE) == []


def test_a_base_that_the_winner_of_a_race_has_brought_too_is_not_withdrawn() -> None:
    """Two producers publish the same content, and the loser lets the winner's base expire."""
    sim = about_to_bring_a_base(Way.COMPARE)
    store, meddler = client(sim, Way.COMPARE)
    before_the_swap(meddler, lambda: client(sim, Way.COMPARE)[0].publish("mena", FRESH, id="winner"))
    assert store.publish("mena", FRESH, id="loser").version == 5
    assert BROUGHT in bases(sim)
    assert wrong(sim, Way.COMPARE) == []
    invariants.check(store)


def test_a_base_that_a_publish_is_about_to_bring_is_left_to_it() -> None:
    """A repair beside a publish lets the base of a commit expire."""
    sim = about_to_bring_a_base(Way.COMPARE)
    store, meddler = client(sim, Way.COMPARE)
    before_the_swap(meddler, lambda: client(sim, Way.COMPARE)[0].repair("mena", apply=True))
    assert store.publish("mena", FRESH).created
    assert wrong(sim, Way.COMPARE) == []
    invariants.check(store)


@pytest.mark.parametrize("alone", [False, True])
@pytest.mark.parametrize("way", [Way.COMPARE, Way.LEASE])
def test_the_base_of_a_publish_that_died_is_repaired(way: Way, *, alone: bool) -> None:
    """A crashed producer leaves a base that no repair gets rid of. `alone`: without id and ts records."""
    sim = about_to_bring_a_base(way)
    store, meddler = client(sim, way)
    before_the_swap(meddler, die)
    with pytest.raises(SystemExit):
        store.publish("mena", FRESH, id="torn")
    assert BROUGHT in bases(sim)
    if alone:
        for key in [key for key in sim.keyspace.values if key.endswith("torn")]:
            sim.evict(key)
    assert wrong(sim, way) == ["leaked"]
    sim.clock.advance((0 if alone else 11) * MINUTE_MS)
    reader = another(client(sim, way)[0])
    assert another(reader).repair("mena")[0].left == ()
    (report,) = reader.repair("mena", apply=True)
    assert report.left == ()
    assert BROUGHT not in bases(sim)
    assert wrong(sim, way) == []
    invariants.check(reader)
    assert client(sim, way)[0].publish("mena", FRESH, id="torn").created
    invariants.check(reader)


def test_a_repair_that_passes_by_a_base_does_not_spoil_the_publish_that_wrote_it() -> None:
    """A publish whose records came late commits a row whose base has a TTL by then."""
    sim = about_to_bring_a_base(Way.COMPARE)
    store, meddler = client(sim, Way.COMPARE)

    def lose_and_repair() -> None:
        hidden = {key: value for key, value in sim.keyspace.values.items() if key.endswith("mine")}
        for key in hidden:
            sim.evict(key)
        client(sim, Way.COMPARE)[0].repair("mena", apply=True)
        sim.keyspace.values.update({key: attrs.evolve(value) for key, value in hidden.items()})

    before_the_swap(meddler, lose_and_repair)
    assert store.publish("mena", FRESH, id="mine").version == 5
    assert BROUGHT not in bases(sim)
    invariants.check(store)
