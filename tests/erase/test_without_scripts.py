"""`erase` and `drop` where a commit takes several requests: by compare-and-set, or under a lease."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import msgspec
import pytest

from swapstore import Store
from swapstore.cache import Cache
from swapstore.commands import Command, CompareAndSet
from swapstore.errors import Contended, NotFound, Unavailable, Unsupported
from swapstore.format import records
from swapstore.protocol.context import Capabilities
from swapstore.testing import Crash, Fault, FaultyDriver, Kind, SimulatedStore
from tests.erase.model import Traces, fill, left_of, name_of, payload_of
from tests.recompress.model import D, stored, storing
from tests.support import invariants
from tests.support.committers import Way
from tests.support.drivers import another, meddled

WAYS = [Way.COMPARE, Way.LEASE]
TEN_MINUTES_MS = 600_000
LEASE_MS = 90_000


def client(sim: SimulatedStore, way: Way) -> Store:
    store = sim.connect()
    context = msgspec.structs.replace(store._context, capabilities=Capabilities(committer=way.committer()))
    return Store(store._driver, context)


def failing(store: Store, fault: Fault) -> tuple[Store, FaultyDriver]:
    driver = FaultyDriver(store._driver, [fault])
    return Store(driver, msgspec.structs.replace(store._context, cache=Cache(0))), driver


@cache
def _template(way: Way) -> SimulatedStore:
    sim = SimulatedStore()
    store = client(sim, way)
    fill(store, 18, "none")
    return sim


def filled(way: Way) -> SimulatedStore:
    """A store with a page and a tail, published in this way."""
    sim = SimulatedStore(seed=1)
    sim.keyspace, sim.clock.ms = _template(way).keyspace.copy(), _template(way).clock.ms
    return sim


def keys(sim: SimulatedStore) -> set[str]:
    sim.clock.advance(3)
    return set(invariants.contents(sim.connect())) - {f"swapstore:lease:{{{D}}}"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("number", [2, 15, 17])
def test_erase(way: Way, number: int) -> None:
    """What a script deletes with its swap stays, because it takes requests of its own."""
    sim = filled(way)
    store = client(sim, way)
    gone = Traces.of(store.read(D, id=name_of(number)))  # type: ignore[arg-type]
    assert store.erase(D, id=gone.id, force=True).version == number + 1
    assert left_of(gone, store) == []
    assert len(stored(store).rows) == 17
    assert store.publish(D, gone.content, id=gone.id, codec="bytes").created
    assert [each for each in store.verify(D) if each.wrong] == []


@pytest.mark.parametrize("way", WAYS)
def test_drop(way: Way) -> None:
    """What a script deletes with its swap stays, because it takes requests of its own."""
    sim = filled(way)
    store = client(sim, way)
    assert store.drop(D).snapshots == 18
    assert keys(sim) == set()
    assert store.publish(D, "new", id=name_of(3)).version == 1
    assert store.datasets() == [D]
    assert store.drop(D).snapshots == 1
    assert keys(sim) == set()


@pytest.mark.parametrize("way", WAYS)
def test_groups_whose_tables_are_differences_are_dropped(way: Way) -> None:
    """Their base is deleted first, so nothing tells which members there are, and these stay for ever."""
    sim = SimulatedStore()
    store = storing(client(sim, way), "delta")
    for number in range(3):
        members = {f"member-{each:02}": payload_of(0 if each else number, each) for each in range(12)}
        store.publish_group(D, members, id=name_of(number), codec="bytes")
    tables = [invariants.contents(store)[store._context.keys.id(D, name_of(each))][0] for each in (1, 2)]
    assert all(records.held_as(each, "").base for each in tables)
    dropper, driver = meddled(client(sim, way), cache_bytes=0)  # else it remembers the base
    real = driver.execute

    def execute(commands: Any) -> Any:
        sim.clock.advance(2)  # so what has the shortest TTL is gone in the next request
        return real(commands)

    driver.execute = execute  # type: ignore[method-assign]
    assert dropper.drop(D).snapshots == 3
    assert keys(sim) == set()


@pytest.mark.parametrize("way", WAYS)
def test_members_that_nothing_tells_of_are_dropped(way: Way) -> None:
    """The records of a group were lost, so each drop finds its members and asks to be repeated."""
    sim = SimulatedStore()
    store = client(sim, way)
    row = store.publish_group(D, {"m": b"x"}, id=name_of(0), codec="bytes")
    for key in (store._context.keys.id(D, row.id), store._context.keys.ts(D, row.ts, row.id)):
        sim.evict(key)
    assert client(sim, way).drop(D).snapshots == 1
    assert keys(sim) == set()


@pytest.mark.parametrize("way", WAYS)
def test_what_others_are_stored_against_is_refused(way: Way) -> None:
    """The base is deleted, and with it all snapshots that need it."""
    sim = SimulatedStore()
    store = client(sim, way)
    fill(store, 9, "delta")
    before = stored(store)
    assert before.bases
    with pytest.raises(Unsupported, match=r"Allow EVAL"):
        store.erase(D, id=name_of(0))
    assert stored(store).manifest.etag == before.manifest.etag


@pytest.mark.parametrize("act", [lambda store: store.erase(D, id=name_of(2)), lambda store: store.drop(D)])
def test_what_a_dead_client_was_deleting_is_not_reported_as_gone(act: Callable[[Store], object]) -> None:
    """Nobody may delete it for ten minutes: until then it goes on for ever, or says that it is done."""
    sim = filled(Way.COMPARE)
    gone = Traces.of(sim.connect().read(D, id=name_of(2)))  # type: ignore[arg-type]
    dying, meddler = meddled(client(sim, Way.COMPARE))
    real = meddler.execute

    def execute(commands: Sequence[Command[Any]]) -> list[Any]:
        replies = real(commands)
        if any(isinstance(each, CompareAndSet) and ":ts:" in each.key for each in commands):
            raise Crash  # it has marked what it is about to delete
        return replies

    dying._driver.execute = execute  # type: ignore[method-assign]
    with pytest.raises(Crash):
        act(dying)
    for _ in range(2):
        again, meddler = meddled(client(sim, Way.COMPARE))
        meddler.before(200, lambda: pytest.fail("it goes on for ever"))
        with pytest.raises(Contended, match="keys are left.*call it again in ten minutes"):
            act(again)
    sim.clock.advance(TEN_MINUTES_MS)
    act(client(sim, Way.COMPARE))
    assert left_of(gone, sim.connect()) == []
    assert client(sim, Way.COMPARE).publish(D, gone.content, id=gone.id, codec="bytes").created


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.nightly
def test_a_fault_at_any_command_of_an_erase(way: Way) -> None:
    """Cut short, it has lost another snapshot, or what is left can be published or found."""
    commands = 0
    while True in [_cut_erase(way, Fault(kind, commands)) for kind in Kind]:
        commands += 1
    assert commands > 15


def _cut_erase(way: Way, fault: Fault) -> bool:
    sim = filled(way)
    broken, driver = failing(client(sim, way), fault)
    gone = Traces.of(sim.connect().read(D, id=name_of(2)))  # type: ignore[arg-type]
    with suppress(Unavailable, Crash):
        broken.erase(D, id=gone.id)
    came_so_far = driver._number > fault.at
    _finished(sim, way, lambda store: store.erase(D, id=gone.id))
    assert left_of(gone, sim.connect()) == []
    published = client(sim, way)
    again = published.publish(D, payload_of(2, 0), id=gone.id, codec="bytes")
    if way is Way.COMPARE:  # under a lease, a late command may hit what was published since
        driver.deliver_late()
    assert client(sim, way).read(D, version=again.version).raw == payload_of(2, 0)  # type: ignore[union-attr]
    stored(published)
    return came_so_far


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.nightly
def test_a_fault_at_any_command_of_a_drop(way: Way) -> None:
    """Cut short, it leaves keys that nobody removes, or removes what is published then."""
    commands = 0
    while True in [_cut_drop(way, Fault(kind, commands)) for kind in Kind]:
        commands += 1
    assert commands > 25


def _cut_drop(way: Way, fault: Fault) -> bool:
    sim = filled(way)
    broken, driver = failing(client(sim, way), fault)
    with suppress(Unavailable, Crash):
        broken.drop(D)
    came_so_far = driver._number > fault.at
    _finished(sim, way, lambda store: store.drop(D))
    assert keys(sim) == set()
    published = client(sim, way)
    again = published.publish(D, payload_of(2, 0), id=name_of(2), codec="bytes")
    if way is Way.COMPARE:
        driver.deliver_late()
    assert another(published).read(D, version=again.version).raw == payload_of(2, 0)  # type: ignore[union-attr]
    return came_so_far


def _finished(sim: SimulatedStore, way: Way, act: Any) -> None:
    """Call it again, in ten minutes once more if a client has died that was deleting."""
    for wait_ms in (LEASE_MS, TEN_MINUTES_MS, 0):
        try:
            with suppress(NotFound):
                act(client(sim, way))
        except Contended:
            assert wait_ms
            sim.clock.advance(wait_ms)
        else:
            return
