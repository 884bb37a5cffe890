"""`drop` as an operator uses it: a dataset is gone at once for readers, and then from every key."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

import attrs
import msgspec
import pytest

from swapstore import Dropped, Gap, Retention, Store
from swapstore.commands import Swap
from swapstore.errors import Contended, InvalidInput, NotFound, Unavailable
from swapstore.models import Compression
from swapstore.testing import Crash, Fault, Kind, SimulatedStore, faulty
from tests.erase.model import fill, name_of
from tests.follow.followers import take, versions
from tests.recompress.model import D, check, stored, storing
from tests.support import invariants
from tests.support.drivers import another, meddled

HOW: list[Compression] = ["none", "delta"]


def keys(store: Store) -> set[str]:
    """All keys of the store but the list of names, once what was discarded has expired."""
    store._context.clock.sleep(0.003)
    return set(invariants.contents(store)) - {store._context.keys.datasets()}


def wrong(store: Store) -> list[Any]:
    return [finding for finding in another(store).verify() if finding.wrong]


def nothing_is_published(store: Store) -> None:
    """Readers of every kind see no dataset."""
    reader = another(store)
    assert reader.read_latest(D) is None
    assert reader.read_latest_many([D]) == {D: None}
    assert (reader.read(D, version=1), reader.read(D, id=name_of(0))) == (None, None)
    assert list(reader.history(D)) == []
    assert reader.status(D) is None
    assert D not in reader.datasets()
    for call in (reader.unpin, reader.confirm, reader.prune):
        with pytest.raises(NotFound, match="nothing is published"):
            call(D)


@pytest.mark.every_store
@pytest.mark.parametrize("how", HOW)
def test_nothing_of_it_is_left(store: Store, how: Compression) -> None:
    """A dataset that was dropped takes room for ever, or comes back with a repair."""
    store.publish("other", 1)
    others = keys(store)
    for begin in (0, 60):
        fill(store, 60, how, begin=begin, like=begin)
    storing(store, how).pin(D, id=name_of(3))
    store.put_live(D, [1], ttl=60)
    left: list[int] = []
    client = another(store)
    assert client.drop(D, on_progress=left.append) == Dropped(dataset=D, snapshots=120, republished=False)
    assert left == sorted(left, reverse=True)
    assert keys(store) == others
    assert another(store).datasets() == ["other"]
    nothing_is_published(store)
    assert wrong(store) == []
    assert client.read_latest(D) is None
    with pytest.raises(NotFound, match="nothing is published"):
        client.drop(D)
    assert client.publish(D, 1, id=name_of(3)).version == 1
    assert client.datasets() == ["mena", "other"]
    assert wrong(store) == []


def test_readers_see_nothing_from_the_first_swap_on(store: Store) -> None:
    """A reader gets a part of the history while the rest of it is being removed."""
    fill(store, 200, "none")
    warm = another(store)
    assert warm.read_latest(D) is not None
    begun: list[int] = []

    def look(left: int) -> None:
        begun.append(left)
        nothing_is_published(store)
        assert warm.read_latest(D) is None
        assert wrong(store) == []
        check(invariants.contents(store), store._context.keys)

    store.drop(D, on_progress=look)
    assert begun[0] == 200
    assert len(begun) > 3


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("how", HOW)
def test_a_producer_goes_on_at_once(store: Store, at: int, how: Compression) -> None:
    """What is published while a dataset is dropped is refused, hidden, or removed with the rest."""
    fill(store, 150, how)
    store.prune(D, retention=Retention(max_count=140))
    seen: list[int] = []

    def publish(_: int) -> None:
        seen.append(1)
        if len(seen) - 1 == at:
            client = storing(store, how)
            commit = client.publish(D, "new", id=name_of(149), ts=1_000_000_000_000, expected_version=0)
            assert commit.created
            assert commit.is_latest
            assert client.publish(D, "new", id=name_of(149)).created is False
            assert client.publish(D, "more", dedupe_key=f"key-of-{name_of(148)}").created

    done = another(store).drop(D, on_progress=publish)
    assert done.republished is True
    reader = another(store)
    assert [row.id for row in reader.history(D)][-1] == name_of(149)
    assert reader.read_latest(D).value == "more"  # type: ignore[union-attr]
    assert reader.datasets() == [D]
    found = stored(store)
    assert len(found.rows) == 2
    assert wrong(store) == []
    fill(store, 20, how, begin=200)
    stored(store)


def test_a_producer_at_any_moment_is_kept_and_listed() -> None:
    """What is published between two of its steps is removed, too, or its dataset is on no list."""
    number, is_done = 0, False
    while not is_done:
        store = SimulatedStore().connect()
        fill(store, 12, "none")
        producer = another(store)
        producer.publish(D, "old")  # so that it knows that the dataset is listed
        client, meddler = meddled(store)
        gone_before: list[bool] = []

        def publish(store: Store = store, producer: Store = producer, seen: list[bool] = gone_before) -> None:
            seen.append(another(store).read_latest(D) is None)
            producer.publish(D, "new")

        meddler.before(number, publish)
        made = client.drop(D)
        reader = another(store)
        served = reader.read_latest(D)
        assert made.republished == (served is not None) == any(gone_before)
        assert served is None or served.value == "new"
        assert reader.datasets() == ([D] if served else [])
        assert wrong(store) == []
        number, is_done = number + 1, number >= len(meddler.batches)
    assert number > 8


def test_what_was_dropped_leaves_with_the_next_publishes() -> None:
    """A drop that was cut, and published over, leaves all of its rows for ever."""
    sim = SimulatedStore()
    store = sim.connect()
    fill(store, 60, "none")
    with suppress(Crash):
        _stop(sim.connect()).drop(D)
    nothing_is_published(store)
    for number in range(10):
        store.publish(D, number, id=name_of(number))
        stored(store)
    assert [row.id for row in stored(store).rows] == [name_of(number) for number in range(10)]
    assert [row.id for row in store.history(D)] == [name_of(number) for number in range(9, -1, -1)]


def _stop(store: Store) -> Store:
    """A client that dies after its first swap."""

    def die(_: int) -> None:
        raise Crash

    client, meddler = meddled(store)
    real = meddler.execute

    def execute(commands: Any) -> Any:
        replies = real(commands)
        if any(isinstance(command, Swap) for command in commands):
            raise Crash
        return replies

    meddler.execute = execute  # type: ignore[method-assign]
    return client


def test_repair_does_not_bring_it_back() -> None:
    """A page or the body of the manifest is damaged while a dataset is dropped: repair publishes it again."""
    for spoil in (_lose_page, _lose_log, _lose_record):
        sim = SimulatedStore()
        store = sim.connect()
        fill(store, 60, "none")
        with suppress(Crash):
            _stop(sim.connect()).drop(D)
        spoil(sim, store)
        assert wrong(store)
        another(store).repair(D, apply=True)
        nothing_is_published(store)
        assert another(store).drop(D).republished is False
        assert keys(store) == set()


def _lose_page(sim: SimulatedStore, _: Store) -> None:
    sim.evict(next(key for key in sim.keyspace.values if ":page:" in key))


def _lose_log(sim: SimulatedStore, store: Store) -> None:
    key = store._context.keys.manifest(D)
    value = sim.keyspace.values[key]
    sim.keyspace.values[key] = attrs.evolve(value, data=value.data[:-10])


def _lose_record(sim: SimulatedStore, store: Store) -> None:
    sim.evict(store._context.keys.id(D, name_of(7)))


def test_pages_that_cannot_be_read_do_not_keep_it(store: Store) -> None:
    """One lost page keeps a dataset from being dropped."""
    sim = SimulatedStore()
    client = sim.connect()
    fill(client, 100, "none")
    _lose_page(sim, client)
    sim.connect().drop(D)
    assert keys(client) == set()


def test_pages_that_cannot_be_read_do_not_take_what_was_published_since() -> None:
    """A dropped page is lost while a producer has gone on: its snapshot leaves with the page."""
    sim = SimulatedStore()
    store = sim.connect()
    fill(store, 100, "none")
    begun: list[int] = []

    def publish(left: int) -> None:
        if not begun:
            store.publish(D, "new")
            for key in [key for key in sim.keyspace.values if ":page:" in key]:
                sim.evict(key)
        begun.append(left)

    assert sim.connect().drop(D, on_progress=publish).republished is True
    (row,) = another(store).history(D)
    assert another(store).read(D, version=row.version).value == "new"  # type: ignore[union-attr]
    assert another(store).datasets() == [D]


def test_followers_go_on_with_what_is_published_then(store: Store) -> None:
    """A follower misses what is published after a drop, or hangs."""
    fill(store, 5, "none")
    follower = another(store).follow(D, after=2, poll=0.01)
    assert versions(take(follower, 3)) == [3, 4, 5]
    store.drop(D)
    store.publish(D, "new")
    first, row = take(follower, 2)
    assert isinstance(first, Gap)
    assert row.version == 1  # type: ignore[union-attr]
    follower.close()


def test_wrong_arguments_are_refused(store: Store) -> None:
    """A typo is reported as done."""
    with pytest.raises(NotFound, match="nothing is published"):
        store.drop("other")
    with pytest.raises(InvalidInput, match="on_progress must be a function"):
        store.drop(D, on_progress=3)  # type: ignore[arg-type]


def test_producers_that_always_come_first_end_it(store: Store) -> None:
    """It goes on for ever beside a busy producer, or says that it is done."""
    fill(store, 3, "none")
    policy = msgspec.structs.replace(store._context.policy, commit_attempts=3)
    client, meddler = meddled(store, policy=policy)
    for number in range(40):
        meddler.before(number, lambda number=number: fill(store, 1, "none", begin=100 + number))  # type: ignore[misc]
    with pytest.raises(Contended, match="other producers"):
        client.drop(D)
    stored(store)


# --- cut short -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "then"),
    [
        pytest.param("delta", "publish", marks=pytest.mark.slow),
        *(pytest.param(how, then, marks=pytest.mark.nightly) for how in HOW for then in ("drop", "publish")),
    ],
)
def test_a_fault_at_any_command_can_be_finished(how: Compression, then: str) -> None:
    """Cut short, it shows a part of the dataset, or leaves what nobody removes or has to repair."""
    commands = 0
    while True in [_cut(how, then, Fault(kind, commands)) for kind in Kind]:
        commands += 1
    assert commands > 15


@cache
def _template(how: Compression) -> SimulatedStore:
    sim = SimulatedStore()
    fill(sim.connect(), 17, how)
    return sim


def _cut(how: Compression, then: str, fault: Fault) -> bool:
    """Cut it, and call it again, or publish. Returns whether it came so far."""
    sim = SimulatedStore(seed=1)
    sim.keyspace, sim.clock.ms = _template(how).keyspace.copy(), _template(how).clock.ms
    store = sim.connect()
    broken, driver = faulty(storing(store, how), fault)
    with suppress(Unavailable, Crash):
        broken.drop(D)
    came_so_far = driver._number > fault.at
    assert another(store).read_latest(D) is None or len(list(another(store).history(D))) == 17
    assert wrong(store) == []
    if then == "publish" and another(store).read_latest(D) is None:
        assert another(store).publish(D, "new", id=name_of(3), ts=10**12).created
        assert D in another(store).datasets()
    is_late = bool(driver.late)
    driver.deliver_late()
    assert is_late or wrong(store) == []  # a late command may take the name off the list
    with suppress(NotFound):
        sim.connect().drop(D)
    assert keys(store) == set()
    assert sim.keyspace.sets["swapstore:datasets"] == frozenset()
    return came_so_far
