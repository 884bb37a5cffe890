"""Commits without scripts on a simulated store: what late commands and dead clients must not spoil."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest

from swapstore import Commit, Contended, IdConflict, Retention, Store
from swapstore.commands import Command, CompareAndSet, Expire, Keep, Write
from swapstore.format import manifest
from swapstore.fsck.findings import Problem
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


def before(meddler: Meddler, is_meant: Callable[[Command[Any]], bool], plan: Callable[[], object]) -> None:
    """Plan something right before the first batch with such a command."""
    carry_out = meddler.execute

    def execute(commands: Sequence[Command[Any]]) -> list[Any]:
        if any(map(is_meant, commands)):
            meddler.execute = carry_out  # type: ignore[method-assign]
            plan()
        return carry_out(commands)

    meddler.execute = execute  # type: ignore[method-assign]


def is_swap(command: Command[Any]) -> bool:
    return isinstance(command, CompareAndSet | Write | Keep) and ":manifest:" in command.key


def cut(store: Store, meddler: Meddler, is_meant: Callable[[Command[Any]], bool], act: Any) -> Any:
    """Let a client die when it sends such a command. Return its batch, which is still under way."""

    def die() -> None:
        raise SystemExit

    before(meddler, is_meant, die)
    sent: list[Any] = []
    carry_out = meddler.execute

    def execute(commands: Sequence[Command[Any]]) -> list[Any]:
        sent[:] = commands
        return carry_out(commands)

    meddler.execute = execute  # type: ignore[method-assign]
    with pytest.raises(SystemExit):
        act(store)
    return sent


def arrive(sim: SimulatedStore, late: Sequence[Command[Any]]) -> None:
    for command in late:
        sim.keyspace.apply(command, sim.clock.now_ms())


def wrong(store: Store) -> list[Any]:
    return [each for each in store.verify() if each.wrong]


@pytest.mark.usefixtures("small_pages")
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "retention", [Retention(max_age=timedelta(minutes=5)), Retention(max_count=1)], ids=["age", "count"]
)
def test_what_is_being_unlinked_is_not_published_again(way: Way, retention: Retention) -> None:
    """After a rollback, a snapshot that retention unlinks is published again, and expires as the latest."""
    sim = SimulatedStore()
    store, _ = client(sim, way)
    now = sim.clock.now_ms()
    others = [f"late-{number}" for number in range(manifest.recent())]  # so many never leave the log
    for number, name in enumerate(("served", "undone", *others)):
        ts = now - (10 if number < 2 else 20) * MINUTE_MS + number
        store.publish("mena", name, id=name, ts=ts)
        if name == "undone":
            store.rollback("mena", id="served")
    late = cut(
        *client(sim, way),
        lambda each: isinstance(each, Expire) and ":undone" in each.key,
        lambda pruner: pruner.prune("mena", retention=retention),
    )
    other, _ = client(sim, way)
    with pytest.raises(Contended, match="is being unlinked"):
        other.publish("mena", "undone", id="undone", ts=now - 10 * MINUTE_MS + 1)
    arrive(sim, late)
    sim.clock.advance(11 * MINUTE_MS)
    assert other.read_latest("mena").value == "served"  # type: ignore[union-attr]
    assert wrong(other) == []
    assert other.publish("mena", "undone", id="undone", ts=now - 10 * MINUTE_MS + 1).created


@pytest.mark.usefixtures("small_pages")
def test_a_late_swap_of_an_equal_publish_keeps_its_record() -> None:
    """A slow retry deletes the ts record of what the first attempt has committed meanwhile."""
    sim = SimulatedStore()
    store, _ = client(sim, Way.COMPARE)
    store.publish("mena", "before", id="before")
    ts = sim.clock.now_ms()

    def publish(producer: Store) -> Commit:
        return producer.publish("mena", 1, id="run-1", ts=ts)

    late = cut(*client(sim, Way.COMPARE), is_swap, publish)
    slow, meddler = client(sim, Way.COMPARE)

    def overtake() -> None:
        arrive(sim, late)
        for number in range(5):  # the row is in a page by then
            store.publish("mena", number)

    before(meddler, is_swap, overtake)
    commit = publish(slow)
    assert (commit.created, commit.version) == (False, 2)
    assert [each for each in wrong(store) if each.problem is not Problem.LEAKED] == []
    sim.evict("swapstore:manifest:{mena}")
    store.repair("mena", apply=True)
    assert store.read("mena", id="run-1").value == 1  # type: ignore[union-attr]


def cut_while_it_deletes(sim: SimulatedStore, ts: int) -> list[Command[Any]]:
    """Publish `run-1`, lose the race, and cut the repair that deletes the records. Return its last batch."""
    store, _ = client(sim, Way.COMPARE)
    store.publish("mena", "before", id="before")
    cut(*client(sim, Way.COMPARE), is_swap, lambda each: each.publish("mena", 1, id="run-1", ts=ts))
    store.publish("mena", "meanwhile", id="meanwhile")
    late: list[Command[Any]] = cut(
        *client(sim, Way.COMPARE),
        lambda each: isinstance(each, CompareAndSet) and each.key.endswith(":id:{mena}:run-1"),
        lambda each: each.repair("mena", apply=True),
    )
    return late


@pytest.mark.parametrize("arrives", [False, True])
@pytest.mark.parametrize("later_ms", [0, 1])
def test_a_deletion_that_was_cut_binds_the_id_for_ten_minutes_only(later_ms: int, *, arrives: bool) -> None:
    """A client that dies while it deletes records binds their id, or deletes what was published again."""
    sim = SimulatedStore()
    ts = sim.clock.now_ms()
    late = cut_while_it_deletes(sim, ts)
    store, _ = client(sim, Way.COMPARE)
    sim.clock.advance(9 * MINUTE_MS)
    with pytest.raises(Contended):
        store.publish("mena", 1, id="run-1", ts=ts + later_ms)
    if arrives:
        arrive(sim, late)
    sim.clock.advance(2 * MINUTE_MS)
    assert store.publish("mena", 1, id="run-1", ts=ts + later_ms).created
    assert store.read("mena", id="run-1").value == 1  # type: ignore[union-attr]
    store.repair("mena", apply=True)  # of the mark, if another ts was published
    assert wrong(store) == []


@pytest.mark.usefixtures("small_pages")
def test_a_commit_that_is_finished_late_binds_no_id() -> None:
    """The ts record of a snapshot that retention has unlinked comes back, and binds its id permanently."""
    sim = SimulatedStore()
    store, _ = client(sim, Way.COMPARE)
    ts = sim.clock.now_ms()
    late = cut(
        *client(sim, Way.COMPARE),
        lambda each: isinstance(each, CompareAndSet | Write) and ":ts:" in each.key,
        lambda each: each.publish("mena", 1, id="run-1", ts=ts),
    )
    for number in range(manifest.recent() + 1):
        store.publish("mena", number)
    store.prune("mena", retention=Retention(max_count=1))
    sim.clock.advance(11 * MINUTE_MS)
    arrive(sim, late)
    assert wrong(store) == []
    assert store.publish("mena", 1, id="run-1", ts=ts).created


def test_a_writer_that_is_behind_waits_for_no_lease_of_its_own() -> None:
    """A publish that finds a newer manifest keeps its lease, and waits for a minute and a half for itself."""
    sim = SimulatedStore()
    behind, _ = client(sim, Way.LEASE)
    behind.publish("mena", 1, id="first")
    client(sim, Way.LEASE)[0].publish("mena", 2, id="second")
    before_ms = sim.clock.now_ms()
    assert behind.publish("mena", 3).version == 3
    with pytest.raises(IdConflict):
        behind.publish("mena", "other", id="second")
    assert behind.publish("mena", 4).version == 4
    assert sim.clock.now_ms() - before_ms < behind._context.policy.lease_poll_ms
