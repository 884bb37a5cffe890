"""What a client caches: how old it may be, and what replaces it when the store moves on or goes back."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from swapstore import Damaged, Store, Unavailable
from swapstore.commands import Ask, Command, Get, Peek
from swapstore.protocol.context import Capabilities
from swapstore.testing import SimulatedStore
from tests.store.test_damage import MANIFEST, alter, delete
from tests.support.deterministic import TickingClock
from tests.support.drivers import another, meddled
from tests.support.rivals import known_to, warm


def value(client: Store, **options: Any) -> object:
    snap = client.read_latest("mena", **options)
    return snap.value if snap else None


def test_pages_are_cached(store: Store) -> None:
    """A walk through the history, or a read of an old version, loads every page every time."""
    for number in range(70):
        store.publish("mena", number)
    reader, meddler = meddled(store)
    assert len(list(reader.history("mena", limit=None))) == 70
    before = len(meddler.batches)
    assert len(list(reader.history("mena", limit=None))) == 70
    assert [type(command) for batch in meddler.batches[before:] for command in batch] == [Peek]


# --- max_staleness ----------------------------------------------------------------------------------


def test_without_max_staleness_the_store_is_asked(store: Store) -> None:
    """The second of two reads within one tick of the clock is served from the cache."""

    class Stopped(TickingClock):
        now = 1.0

        def monotonic(self) -> float:
            return self.now

    store.publish("mena", 1)
    clock = Stopped()
    reader, _ = meddled(store, clock=clock)
    reader.read_latest("mena")
    store.publish("mena", 2)
    clock.now = 1.5  # exactly as old as is allowed
    stale = reader.read_latest("mena", max_staleness=0.5)
    clock.now = 1.0
    fresh = reader.read_latest("mena")
    assert stale is not None
    assert fresh is not None
    assert (stale.value, fresh.value) == (1, 2)


def test_max_staleness_is_a_bound() -> None:
    """A handler that accepts ten seconds is served what is eleven seconds old."""
    simulated = SimulatedStore()
    producer, reader = simulated.connect(), simulated.connect()
    producer.publish("mena", 1)
    assert value(reader) == 1
    producer.publish("mena", 2)
    simulated.clock.advance(10_000)
    assert value(reader, max_staleness=10) == 1
    simulated.clock.advance(1)
    assert value(reader, max_staleness=10) == 2


@pytest.mark.parametrize("memory", ["cold", "warm"])
def test_a_slow_reply_is_as_old_as_its_request(memory: str) -> None:
    """What a reply of a minute showed counts as new when it arrives."""
    simulated = SimulatedStore()
    producer = simulated.connect()
    producer.publish("mena", 1)
    reader, meddler = meddled(producer)
    if memory == "warm":
        assert value(reader) == 1

    def slow() -> None:
        producer.publish("mena", 2)
        simulated.clock.advance(60_000)

    meddler.after(len(meddler.batches), slow)
    assert value(reader) == 1
    assert value(reader, max_staleness=5) == 2


# --- lagging replicas -------------------------------------------------------------------------------


@pytest.mark.every_store
@pytest.mark.parametrize("lagging", [1, 2])
def test_a_lagging_replica_does_not_take_a_client_back_in_time(store: Store, lagging: int) -> None:
    """A client that has seen version 2 is shown version 1 by a replica that lags."""
    store.publish("mena", 1)
    (old,) = store._driver.execute([Get(MANIFEST)])
    store.publish("mena", 2)
    client, meddler = meddled(store)
    assert value(client) == 2
    store.publish("mena", 3)
    for number in range(lagging):
        meddler.replies(len(meddler.batches) + number, lambda _: [old])
    assert value(client) == 3
    assert value(client) == 3


def test_a_replica_that_shows_less_than_is_known_is_asked_again(store: Store) -> None:
    """A client that has seen version 3 is shown version 2, or nothing, by a replica that lags."""
    for number in (1, 2):
        store.publish("mena", number)
    (old,) = store._driver.execute([Get(MANIFEST)])
    store.publish("mena", 3)
    for lagging in ([old], [None]):
        reader, meddler, _ = warm(store)
        store.publish("mena", 4, id=f"four-{lagging == [None]}")
        other = known_to(another_that_read(store))
        reader._context.cache.learn(other, 0.0, basis=None)
        shown = len(meddler.batches)
        meddler.replies(shown, lambda _: [b""])  # the reply to the etag check: not the cached one
        meddler.replies(shown + 1, lambda _, lagging=lagging: lagging)  # type: ignore[misc]
        snap = reader.read_latest("mena")
        assert snap is not None
        assert (snap.value, snap.version) == (4, other.version)


def another_that_read(store: Store) -> Store:
    client = another(store)
    client.read_latest("mena")
    return client


# --- a store that went back -------------------------------------------------------------------------


def test_a_client_follows_a_restored_store(store: Store) -> None:
    """A client that reads from its cache never sees that the store went back to a backup."""
    store.publish("mena", 1)
    (backup,) = store._driver.execute([Get(MANIFEST)])
    store.publish("mena", 2)
    reader, _, _ = warm(store)
    alter(store, MANIFEST, lambda _: backup)
    for staleness in (0, 60):
        snap = reader.read_latest("mena", max_staleness=staleness)
        assert snap is not None
        assert snap.version == 1
    assert known_to(reader).version == 1


def test_pages_of_a_store_that_went_back_and_grew_past_what_was_known() -> None:
    """After a restore, and many publishes, a client raises `Corrupt` for a history that is in order."""
    sim = SimulatedStore()
    store = sim.connect()
    for number in range(120):
        if number == 20:
            backup = sim.keyspace.copy()
        store.publish("mena", number)
    reader = sim.connect()
    assert len(list(reader.history("mena", limit=None))) == 120
    sim.keyspace.values, sim.keyspace.sets = backup.values, backup.sets
    sim.clock.advance(1000)
    producer = sim.connect()
    for number in range(150):
        producer.publish("mena", f"new {number}")
    assert list(reader.history("mena", limit=None)) == list(sim.connect().history("mena", limit=None))
    found = reader.read("mena", version=40)
    assert found is not None
    assert found.value == "new 19"


def test_after_a_restore_a_producer_remembers_its_own_publish(store: Store) -> None:
    """After a restore the cache shows what the backup does not have."""
    store.publish("mena", 1)
    (backup,) = store._driver.execute([Get(MANIFEST)])
    for number in (2, 3, 4):
        store.publish("mena", number)
    client, _, _ = warm(store)
    alter(store, MANIFEST, lambda _: backup)
    assert client.publish("mena", "mine").version == 2
    snap = client.read_latest("mena", max_staleness=60)
    assert snap is not None
    assert (snap.value, snap.version) == ("mine", 2)


def test_a_client_follows_a_new_epoch(store: Store) -> None:
    """A client that knew the old epoch does not cache the new one after a flush."""
    store.publish("mena", 1)
    reader, _, _ = warm(store)
    delete(store, MANIFEST)
    commit = another(store).publish("mena", 2)
    for staleness in (0, 60):
        snap = reader.read_latest("mena", max_staleness=staleness)
        assert snap is not None
        assert snap.etag == commit.etag


@pytest.mark.parametrize("memory", ["cold", "warm"])
@pytest.mark.parametrize("flushed", ["since", "before"])
@pytest.mark.parametrize("whole", [False, True])
def test_a_late_reply_replaces_nothing_newer(memory: str, flushed: str, *, whole: bool) -> None:
    """What one thread read before a flush replaces what another has read since."""

    def look(client: Store) -> None:
        if whole:
            list(client.history("mena"))
        else:
            client.read_latest("mena")

    for number in range(8):
        simulated = SimulatedStore()
        producer = simulated.connect()
        producer.publish("mena", 1)
        reader, meddler = meddled(producer)
        if memory == "warm":
            look(reader)
        producer.publish("mena", 2)
        if flushed == "before":
            simulated.evict(MANIFEST)

        def begin_anew(simulated: SimulatedStore = simulated, reader: Store = reader) -> None:
            if flushed == "since":
                simulated.evict(MANIFEST)
            simulated.connect().publish("mena", "anew")
            assert value(reader) == "anew"  # as another thread would

        planned = len(meddler.batches) + number
        meddler.after(planned, begin_anew)
        look(reader)
        if len(meddler.batches) > planned:
            before = len(meddler.batches)
            assert value(reader, max_staleness=60) == "anew", number
            assert len(meddler.batches) == before, number


@pytest.mark.every_store
def test_a_flushed_store_is_forgotten(store: Store) -> None:
    """A client serves a dataset from its cache after a flush, or does not list its name again."""
    store.publish("mena", 1)
    reader, _, _ = warm(store)
    reader.read_latest("mena")
    delete(store, MANIFEST)
    assert reader.read_latest("mena") is None
    assert reader.read_latest("mena", max_staleness=60) is None
    assert not reader._context.cache.is_listed(MANIFEST)


def test_a_store_that_nobody_has_any_more_is_freed() -> None:
    """A program that connects for each job keeps the cache of every store that it ever made."""
    store = SimulatedStore().connect()
    store.publish("mena", 1)
    cache = weakref.ref(store._context.cache)
    del store
    gc.collect()
    assert cache() is None


@pytest.mark.parametrize("lost", ["page", "record"])
def test_what_was_damaged_on_the_way_is_not_remembered(lost: str) -> None:
    """A client that met damage once reports it for good, although the store is whole again."""
    simulated = SimulatedStore()
    producer, reader = simulated.connect(), simulated.connect()
    for number in range(70):
        producer.publish("mena", number, id=f"id-{number}")
    key = next(key for key in simulated.keyspace.values if key.endswith(".1-8" if lost == "page" else "id-3"))
    whole = simulated.keyspace.values[key]
    simulated.keyspace._set(key, b"damaged", None)
    with pytest.raises(Damaged):
        reader.read("mena", version=4)
    simulated.keyspace.values[key] = whole
    found = reader.read("mena", version=4)
    assert found is not None
    assert found.value == 3


def test_what_is_damaged_before_it_is_committed_is_not_there() -> None:
    """A publish that died while it was written makes a read of its id fail until it expires."""
    simulated = SimulatedStore()
    store = simulated.connect()
    store.publish("mena", 1)
    simulated.keyspace._set("swapstore:id:{mena}:staged", b"damaged", simulated.clock.now_ms() + 60_000)
    assert store.read("mena", id="staged") is None


# --- a replica without data ------------------------------------------------------------------------

ALONE = [b"slave", b"10.0.0.1", 6379, b"connect", -1]
LOOKS: list[Callable[[Store], object]] = [
    lambda store: store.read_latest("mena"),
    lambda store: store.read_latest_many(["mena"]),
    lambda store: store.read("mena", version=1),
    lambda store: store.status("mena"),
    lambda store: list(store.history("mena")),
    lambda store: store.datasets(),
    lambda store: store.follow("mena"),
]


@pytest.mark.parametrize("knows", [True, False])
@pytest.mark.parametrize("serves", [True, False])
@pytest.mark.parametrize("look", LOOKS)
def test_a_replica_that_has_no_data_yet(
    look: Callable[[Store], object], *, serves: bool, knows: bool
) -> None:
    """A replica that has never reached its primary tells readers that nothing is published."""
    simulated = SimulatedStore()
    simulated.connect().publish("mena", 1)
    capabilities = Capabilities(tells_role=True, serves=serves)
    client, meddler = meddled(simulated.connect(), capabilities=capabilities)
    if knows:
        client.read_latest("mena")
    execute = meddler.execute

    def on_replica(commands: Sequence[Command[Any]]) -> list[Any]:
        return [ALONE] if tuple(commands) == (Ask(("ROLE",)),) else execute(commands)

    meddler.execute = on_replica  # type: ignore[method-assign]
    simulated.keyspace.values.clear()
    simulated.keyspace.sets.clear()
    with pytest.raises(Unavailable, match="may have no data yet"):
        look(client)
