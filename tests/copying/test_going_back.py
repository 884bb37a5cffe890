"""A store that goes back while a copy is under way, or while it waits: what was lost is copied again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import swapstore
from swapstore import CopyStep, Durability, Store
from swapstore.copying import LOOK_S
from swapstore.errors import UnderReplicated
from swapstore.format import search
from swapstore.testing import Keyspace, SimulatedStore, VirtualClock, faulty
from tests.copying.histories import D, client
from tests.copying.test_copy import Failover, copy, fill, ids, lost_at
from tests.support.times import at

pytestmark = pytest.mark.usefixtures("tiny_pages")

WhenIdle = Callable[..., None]


@pytest.fixture
def when_idle(monkeypatch: pytest.MonkeyPatch) -> WhenIdle:
    """Plan what happens while a copy with `poll=LOOK_S` waits: one thing before each look."""

    def plan(*acts: Callable[[], object]) -> None:
        planned = iter(acts)

        def sleep(clock: VirtualClock, seconds: float) -> None:
            clock.advance(int(seconds * 1000))
            if seconds == LOOK_S:  # and no backoff
                act = next(planned, None)
                assert act is not None, "it waits in vain"
                act()

        monkeypatch.setattr(VirtualClock, "sleep", sleep)

    return plan


def follow(source: Store, target: Store, **options: Any) -> swapstore.Copied:
    return copy(source, target, follow=True, poll=LOOK_S, **options)


def go_back(sim: SimulatedStore, backup: Keyspace) -> None:
    sim.keyspace.values, sim.keyspace.sets = backup.values, backup.sets


def test_a_target_that_goes_back_while_the_copy_waits(when_idle: WhenIdle, source: Store) -> None:
    """A standby that was restored while nothing was published lacks commits until the next publish."""
    fill(source, 5)
    sim = SimulatedStore(seed=5)
    copy(source, sim.connect())
    backup = sim.keyspace.copy()
    fill(source, 3, begin=5)
    writing = sim.connect()
    when_idle(lambda: go_back(sim, backup), writing.close)
    follow(source, writing)
    assert ids(sim.connect()) == ids(source)


def test_a_target_that_loses_no_more_than_its_last_commit(source: Store) -> None:
    """The one commit that a failover has lost is missing, because the next one has its version."""
    fill(source, 30)
    sim = SimulatedStore(seed=5)
    assert copy(source, sim.connect(), on_progress=Failover(sim, at="id-21")).complete
    assert set(ids(sim.connect())) == set(ids(source))


@pytest.mark.parametrize("grown", [0, 8])
def test_a_target_that_is_flushed_after_the_last_commit(grown: int, source: Store) -> None:
    """A copy tells that all is copied into a target that is empty, or has as many commits of its own."""
    fill(source, 5)
    sim = SimulatedStore(seed=5)
    flushes = iter([Keyspace()])

    def tell(step: CopyStep) -> None:
        if step.id == "id-4" and (empty := next(flushes, None)):
            go_back(sim, empty)
            fill(sim.connect(), grown, begin=100)

    assert copy(source, sim.connect(), on_progress=tell).complete
    assert set(ids(source)) <= set(ids(sim.connect()))


def test_commits_on_too_few_replicas_that_are_lost_are_copied_again(source: Store) -> None:
    """The commits that a failover loses are those that no replica had, and these are not looked after."""
    fill(source, 30)
    sim = SimulatedStore(seed=5)
    writing = client(sim.connect(), durability=Durability(replicas=1))
    with pytest.raises(UnderReplicated):
        copy(source, writing, on_progress=Failover(sim, at="id-25"))
    assert set(ids(sim.connect())) == set(ids(source))


def test_a_source_that_goes_back_before_its_last_pages_are_read(
    when_idle: WhenIdle, monkeypatch: pytest.MonkeyPatch, target: Store
) -> None:
    """What a source gets instead of commits that it has lost has their versions, and is taken for copied."""
    monkeypatch.setattr(search, "BATCH_PAGES", 1)
    sim = SimulatedStore(seed=4)
    source = sim.connect()
    fill(source, 12)
    backup = sim.keyspace.copy()
    fill(source, 20, begin=12)
    reading = sim.connect()

    def tell(step: CopyStep) -> None:
        if step.id == "id-3":
            go_back(sim, backup)

    when_idle(lambda: fill(sim.connect(), 4, begin=100), reading.close)
    follow(reading, target, on_progress=tell)
    assert ids(target) == [f"id-{number}" for number in (*range(12), *range(100, 104))]


def test_a_commit_on_the_page_of_the_last_one_that_was_seen(
    when_idle: WhenIdle, monkeypatch: pytest.MonkeyPatch, source: Store, target: Store
) -> None:
    """What is published while a copy walks, and is read along with older rows, is left out for ever."""
    monkeypatch.setattr(search, "BATCH_PAGES", 1)
    fill(source, 21)
    reading = client(source)

    def tell(step: CopyStep) -> None:
        if step.id == "id-3":
            fill(source, 20, begin=21)

    when_idle(lambda: None, reading.close)
    follow(reading, target, on_progress=tell)
    assert ids(target) == ids(source)


def test_a_source_that_goes_back_after_its_latest_alone_was_copied(
    when_idle: WhenIdle, target: Store
) -> None:
    """A promotion that goes on misses what the source gets instead of the commits that it has lost."""
    sim = SimulatedStore(seed=4)
    source = sim.connect()
    fill(source, 5)
    source.pin(D, id="id-1")
    backup = sim.keyspace.copy()
    fill(source, 10, begin=5)
    reading = sim.connect()

    when_idle(lambda: go_back(sim, backup), lambda: fill(sim.connect(), 2, begin=100), reading.close)
    follow(reading, target, history="latest")
    assert ids(target) == ["id-1", "id-100", "id-101"]


@pytest.mark.parametrize(("history", "before"), [("latest", ["id-9"]), (2, ["id-8", "id-9"])])
def test_a_target_of_the_newest_commits_that_goes_back_while_the_copy_waits(
    when_idle: WhenIdle, source: Store, history: Any, before: list[str]
) -> None:
    """What a standby has lost is copied again as far as the newest commits go, and the rest is missing."""
    fill(source, 10)
    sim = SimulatedStore(seed=5)
    writing = sim.connect()
    backups: list[Keyspace] = []

    def more() -> None:
        backups.append(sim.keyspace.copy())
        fill(source, 2, begin=10)
        source.pin(D, id="id-10")
        source.unpin(D)
        fill(source, 3, begin=12)

    when_idle(more, lambda: go_back(sim, backups[0]), writing.close)
    follow(source, writing, history=history)
    assert ids(sim.connect()) == [*before, *(f"id-{number}" for number in range(10, 15))]


def test_an_outage_after_the_first_of_two_old_snapshots(source: Store, target: Store) -> None:
    """After an outage, a copy of the newest commit goes on with the whole history."""
    fill(source, 10)
    source.pin(D, id="id-4")
    source.publish(D, "backfilled", id="old", ts=at(1))
    writing, writes = faulty(target)

    def tell(step: CopyStep) -> None:
        if step.id == "id-4":
            writes.plan(*(lost_at(number) for number in range(8)))
        if step.id == "old":
            writing.close()

    copy(source, writing, history=1, follow=True, on_progress=tell)
    assert ids(target) == ["id-4", "id-9", "old"]


def test_a_target_that_is_closed_has_refused_nothing(source: Store, target: Store) -> None:
    """A copy that was stopped tells of failures, one for each snapshot that it had read."""
    fill(source, 10)
    writing = client(target)
    steps: list[CopyStep] = []

    def tell(step: CopyStep) -> None:
        steps.append(step)
        if step.id == "id-3":
            writing.close()

    done = copy(source, writing, follow=True, on_progress=tell)
    assert (done.copied, done.failed, len(steps)) == (4, 0, 4)
