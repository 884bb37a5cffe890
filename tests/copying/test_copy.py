"""What a copy is: every commit as it is in the source, in order, once."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest

import swapstore
from swapstore import Copied, CopyStep, Durability, Retention, Store
from swapstore.errors import InvalidInput, NotFound, StoreFull, Unavailable, UnderReplicated
from swapstore.protocol import copying
from swapstore.testing import (
    Crash,
    Fault,
    Keyspace,
    Kind,
    SimulatedStore,
    VirtualClock,
    every_fault,
    failing_at,
    faulty,
)
from tests.copying.histories import D, Producer, assert_same, client, kept, readable, stored
from tests.support.drivers import meddled
from tests.support.times import at

pytestmark = pytest.mark.usefixtures("tiny_pages")


def fill(store: Store, count: int, begin: int = 0, dataset: str = D) -> None:
    for number in range(begin, begin + count):
        store.publish(dataset, number, id=f"id-{number}", ts=at(1000 + number), dedupe_key=f"key-{number}")


def ids(store: Store, dataset: str = D) -> list[str]:
    return [row.id for row in readable(store, dataset)]


def copy(source: Store, target: Store, **options: Any) -> Copied:
    (done,) = swapstore.copy(source, target, **options)
    return done


@pytest.mark.parametrize("seed", range(12))
def test_a_random_history_is_the_same_in_the_target(seed: int, source: Store, target: Store) -> None:
    """A backup lacks a snapshot, or has it in another order, with other labels, or of another time."""
    producer = Producer(source, seed)
    steps = producer.random.choice([3, 20, 40])
    into = client(target, producer.random.choice(["none", "zstd", "delta"]))
    for _ in range(steps):
        producer.step()
    copy(source, into)
    assert_same(source, into)
    assert not list(into.verify())
    for _ in range(5):
        producer.step()
    before = {row.id for row in readable(into)}
    done = copy(source, into)
    assert done.complete
    added = [kept(row) for row in readable(into) if row.id not in before]
    assert added == [kept(row) for row in readable(source) if row.id not in before]
    assert copy(source, into).copied == 0


def test_a_copy_says_what_it_did(source: Store, target: Store) -> None:
    """An operator cannot tell what was copied, how much is left, and what the target serves."""
    fill(source, 5)
    steps: list[CopyStep] = []
    done = copy(source, target, on_progress=steps.append)
    assert done == Copied(dataset=D, copied=5, size=5, source_serves="id-4", target_serves="id-4")
    assert [(step.id, step.outcome, step.done, step.total) for step in steps] == [
        (f"id-{number}", "copied", number + 1, 5) for number in range(5)
    ]
    fill(source, 2, begin=5)
    source.pin(D, id="id-1")
    again = copy(source, target, on_progress=steps.append)
    assert (again.copied, again.already, again.source_serves, again.target_serves) == (2, 5, "id-1", "id-6")
    assert [step.total for step in steps[5:]] == [2, 2]


def test_a_copied_commit_is_not_taken_for_a_fresh_one(source: Store, target: Store) -> None:
    """A monitor says that data is current because somebody has restored a backup of it."""
    fill(source, 2)
    was = source.status(D)
    target._context.clock.advance(86_400_000)  # type: ignore[attr-defined]
    copy(source, target)
    status = target.status(D)
    assert was is not None
    assert status is not None
    assert status.confirmed_at == was.latest.committed_at == status.latest.committed_at
    assert status.committed_at > was.committed_at


def test_several_datasets_and_some_of_them(source: Store, target: Store) -> None:
    """One dataset is copied into another, or one that nobody asked for is."""
    for name in ("b", "a", "c"):
        fill(source, 2, dataset=name)
    assert [done.dataset for done in swapstore.copy(source, target, ["c", "a", "c"])] == ["c", "a"]
    assert target.datasets() == ["a", "c"]
    assert [done.copied for done in swapstore.copy(source, target)] == [0, 2, 0]
    assert [done.dataset for done in swapstore.copy(source, target, "b")] == ["b"]
    with pytest.raises(NotFound, match="nothing is published as 'd' in the source"):
        swapstore.copy(source, target, ["a", "d"])
    with pytest.raises(NotFound, match="nothing is published in the source"):
        swapstore.copy(SimulatedStore().connect(), target)


def test_a_dataset_that_is_being_dropped_has_nothing_to_copy(source: Store, target: Store) -> None:
    """A script is told that all is copied, and that the source serves what nobody can read any more."""
    fill(source, 5)
    copy(source, target)
    fill(source, 2, dataset="other")
    dropping, _ = faulty(source, failing_at(3))
    with pytest.raises(Crash):
        dropping.drop(D)
    assert stored(source).head.is_dropped
    with pytest.raises(NotFound, match="nothing is published as 'mena'"):
        swapstore.copy(source, target, [D, "other"])
    fill(source, 2, begin=10)
    assert copy(source, target, datasets=D) == Copied(
        dataset=D, copied=2, size=4, source_serves="id-11", target_serves="id-11"
    )


def test_a_dataset_that_is_dropped_after_it_was_listed_is_left_out(source: Store, target: Store) -> None:
    """A nightly backup of everything copies nothing, because one dataset was dropped as it began."""
    fill(source, 2)
    fill(source, 2, dataset="other")
    reading, meddler = meddled(source)
    meddler.after(1, lambda: client(source).drop(D))
    done = {each.dataset: each.copied for each in swapstore.copy(reading, target)}
    assert (len(meddler.batches) > 2, done.get(D, 0), done["other"]) == (True, 0, 2)


def test_the_newest_commits(source: Store, target: Store) -> None:
    """A promotion takes the whole history along; or what readers of the source get is missing."""
    fill(source, 20)
    assert copy(source, target, history=7).copied == 7
    assert ids(target) == [f"id-{number}" for number in range(13, 20)]
    steps: list[CopyStep] = []
    assert copy(source, target, history=7, on_progress=steps.append).already == 7
    assert copy(source, target, history=6, on_progress=steps.append).already == 6
    assert not steps, "what is there is found without a payload"
    source.publish(D, "backfilled", id="old", ts=at(1))
    source.pin(D, id="id-4")
    other = SimulatedStore().connect()
    copy(source, other, history=1)
    assert ids(other) == ["id-4", "id-19", "old"]
    third = SimulatedStore().connect()
    assert copy(source, third, history="latest").copied == 1
    assert ids(third) == ["id-4"]
    source.unpin(D)
    assert copy(source, third, history="latest").copied == 1
    assert copy(source, third, history="latest") == Copied(
        dataset=D, already=1, source_serves="id-19", target_serves="id-19"
    )
    copy(source, third)
    assert set(ids(third)) == set(ids(source))


def test_a_group_of_bytes(source: Store, target: Store) -> None:
    """Members that are no JSON arrive as JSON, and cannot be read."""
    source.publish_group(D, {"raw": b"\xff\x00", "empty": b""}, id="group", codec="bytes")
    copy(source, target)
    assert_same(source, target)
    assert not list(target.verify())


def test_a_dedupe_key_that_comes_again_is_no_reason_to_leave_a_snapshot_out(
    source: Store, target: Store
) -> None:
    """The commits between two of one key are gone, so that the target finds the key again: one is lost."""
    source.publish(D, 1, id="first", dedupe_key="key")
    for number in range(9):
        source.publish(D, "backfilled", id=f"old-{number}", ts=at(number))
    source.publish(D, 2, id="second", dedupe_key="key")
    source.prune(D, retention=Retention(max_age=timedelta(days=1)))
    assert ids(source) == ["first", "second"]
    copy(source, target)
    assert_same(source, target)
    again = target.publish(D, "again", dedupe_key="key")
    assert (again.created, again.id) == (False, "second"), "keys are copied, and deduplicate"


# --- the target's own rules -------------------------------------------------------------------------


def test_retention_by_count_bounds_what_is_copied(source: Store, target: Store) -> None:
    """Each run publishes what the target has unlinked once more, and pushes out what is newer."""
    fill(source, 30)
    bounded = client(target, retention=Retention(max_count=8))
    assert copy(source, bounded).copied == 8
    assert ids(target) == [f"id-{number}" for number in range(22, 30)]
    for _ in range(3):
        target.publish(D, "its own")
        bounded.prune(D)
        shown = ids(target)
        assert copy(source, bounded).copied == 0
        assert ids(target) == shown
    fill(source, 1, begin=30)
    assert copy(source, bounded).copied == 1
    assert "id-30" in ids(target)


def test_a_pinned_snapshot_that_the_target_has_unlinked_stays_out(source: Store, target: Store) -> None:
    """Each run publishes what is pinned in the source once more, and pushes out what is newer."""
    fill(source, 10)
    source.pin(D, id="id-1")
    target.publish(D, "its own", ts=at(1))  # so it is not pinned with the first snapshot
    bounded = client(target, retention=Retention(max_count=4))
    copy(source, bounded)
    fill(source, 6, begin=10)
    copy(source, bounded)
    bounded.prune(D)
    shown = ids(target)
    assert shown == ["id-12", "id-13", "id-14", "id-15"]
    done = copy(source, bounded)
    assert (done.copied, ids(target)) == (0, shown)


def test_retention_by_age_leaves_out_what_it_would_hide(source: Store, target: Store) -> None:
    """A copy sends a year of history to a store that keeps a week, or stops at the first old snapshot."""
    now = source._context.clock.now_ms()
    for days in range(20, 0, -1):
        source.publish(D, days, id=f"{days}-days-old", ts=now - days * 86_400_000)
    source.publish(D, "x", id="backfilled", ts=now - 15 * 86_400_000)
    bounded = client(target, retention=Retention(max_age=timedelta(days=5, minutes=1)))
    done = copy(source, bounded)
    assert (done.copied, done.skipped, done.failed) == (5, 16, 0)
    assert ids(target) == [f"{days}-days-old" for days in range(5, 0, -1)]
    again = copy(source, target)
    assert (again.copied, again.already, again.skipped) == (0, 5, 16), "the target says what it has hidden"


def test_what_the_target_has_hidden_meanwhile_is_no_failure(source: Store, target: Store) -> None:
    """A copy that runs while the target is pruned ends with failures that nobody can mend."""
    source.publish(D, 1, id="new")
    source.publish(D, 2, id="backfilled", ts=at(1000))
    target.publish(D, 0, ts=at(1))

    def prune(_: CopyStep) -> None:
        target.prune(D, retention=Retention(max_age=timedelta(days=1)))

    done = copy(source, target, on_progress=prune)
    assert (done.copied, done.skipped, done.failed, ids(target)) == (1, 1, 0, ["new"])


def test_a_clock_that_is_far_ahead_leaves_nothing_out(source: Store, target: Store, tmp_path: Path) -> None:
    """A machine whose clock is years ahead copies the latest alone, because all else seems too old."""
    now = source._context.clock.now_ms()
    for number in range(5):
        source.publish(D, number, ts=now - number)
    ahead = VirtualClock(now + 2 * 366 * 86_400_000)
    bounded = client(target, clock=ahead, retention=Retention(max_age=timedelta(days=30)))
    with pytest.raises(InvalidInput, match="days ahead of the store's"):
        copy(source, bounded)
    assert target.datasets() == []
    with swapstore.connect(f"sqlite:///{tmp_path}/has-no-clock.db") as other:
        bounded = client(other, clock=ahead, retention=Retention(max_age=timedelta(days=30)))
        assert copy(source, bounded).copied == 5


def test_an_old_dataset_is_copied_for_its_latest(source: Store, target: Store) -> None:
    """Readers of a dataset that nobody has published to for long find nothing in the copy."""
    fill(source, 3)
    done = copy(source, client(target, retention=Retention(max_age=timedelta(days=1))))
    assert (done.copied, done.skipped) == (1, 2)
    assert ids(target) == ["id-2"]


def test_a_validator_refuses_one_and_lets_the_others_pass(source: Store, target: Store) -> None:
    """What production would not have published comes in from staging."""
    fill(source, 4)
    strict = client(target, validators=(lambda candidate, _: "not two" if candidate.value == 2 else None,))
    done = copy(source, strict)
    assert (done.copied, done.failed, done.complete, ids(target)) == (3, 1, False, ["id-0", "id-1", "id-3"])
    (failure,) = done.failures
    assert (failure.id, failure.outcome) == ("id-2", "rejected")
    assert "not two" in failure.detail


def test_bounds_of_the_target_hold(source: Store, target: Store) -> None:
    """A store accepts from a copy what it refuses from every producer."""
    far = source._context.clock.now_ms() + 10 * 86_400_000
    unbound = bounded_by(source, max_ahead_ms=None)
    unbound.publish(D, 1, id="future", ts=far)
    source.publish(D, "x" * 100, id="large", ts=at(1))
    source.publish_group(D, {"EG": "y" * 100}, id="large-member", ts=at(2))
    source.publish(D, 1, id="good", ts=at(3))
    done = copy(source, bounded_by(target, max_payload_bytes=90))
    assert [(each.id, each.outcome) for each in done.failures] == [
        ("future", "refused"),
        ("large", "refused"),
        ("large-member", "refused"),
    ]
    assert ids(target) == ["good"]


def bounded_by(store: Store, **bounds: Any) -> Store:
    return client(store, policy=msgspec.structs.replace(store._context.policy, **bounds))


def test_durability_of_the_target_is_waited_for() -> None:
    """A backup is acknowledged that a failover may undo; or it ends at the first wait that is in vain."""
    source = SimulatedStore(seed=1).connect()
    fill(source, 4)
    sim = SimulatedStore(seed=2)
    durable = client(sim.connect(), durability=Durability(replicas=1))
    with pytest.raises(UnderReplicated):
        copy(source, durable)
    assert_same(source, sim.connect())
    late = SimulatedStore(seed=3)

    def tell(step: CopyStep) -> None:
        late.replicas = 1 if step.id == "id-1" else late.replicas

    durable = client(late.connect(), durability=Durability(replicas=1))
    assert copy(source, durable, on_progress=tell).complete, "a wait is for what was committed before, too"


def test_histories_that_have_diverged(source: Store, target: Store) -> None:
    """Two stores are mixed, or an id means two things; or a conflict in one dataset stops all others."""
    fill(source, 5)
    fill(source, 3, dataset="other")
    target.publish(D, "another", id="id-2", ts=at(1002))
    mena, other = swapstore.copy(source, target)
    assert (mena.copied, mena.failed, mena.complete) == (2, 1, False)
    assert mena.failures[0].outcome == "conflict"
    assert "id 'id-2' is committed already" in mena.ended
    assert (other.copied, other.complete) == (3, True)
    assert set(ids(target)) == {"id-2", "id-0", "id-1"}
    assert target.read(D, id="id-2").value == "another"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "other", [{"ts": at(1001)}, {"value": b"1", "codec": "bytes"}, {"labels": {"a": "b"}}], ids=" ".join
)
def test_an_id_with_another_meaning_is_a_conflict(
    source: Store, target: Store, other: dict[str, Any]
) -> None:
    """What has the same bytes at another time, or of another kind, is taken for a copy."""
    same: dict[str, Any] = {"value": 1, "id": "same", "ts": at(1000)}
    source.publish(D, **same)
    target.publish(D, **{**same, **other})
    done = copy(source, target)
    assert [(each.id, each.outcome) for each in done.failures] == [("same", "conflict")]


# --- what is cut, lost or damaged -------------------------------------------------------------------


@pytest.mark.slow
def test_a_copy_is_cut_at_any_command_and_run_again(source: Store) -> None:
    """A backup that was killed has to be thrown away, or has something twice, or out of order."""
    fill(source, 4)
    source.publish_group(D, {"EG": 1, "SG": 2}, id="group", ts=at(5000))
    whole, driver = faulty(client(SimulatedStore().connect(), "delta"))
    copy(source, whole)
    for fault in every_fault(len(driver.done)):
        sim = SimulatedStore(seed=9)
        target = client(sim.connect(), "delta")
        cut, cutting = faulty(target, fault)
        with suppress(Crash, Unavailable):
            copy(source, cut)
        assert [kept(row) for row in readable(target)] == [
            kept(row) for row in readable(source)[: len(readable(target))]
        ], fault
        cutting.deliver_late()
        done = copy(client(source), client(target))
        assert (done.complete, done.copied + done.already) == (True, 5), fault
        assert_same(source, target)
        assert not [finding for finding in target.verify() if finding.wrong], fault


@pytest.mark.slow
def test_the_source_can_fail_at_any_command(source: Store) -> None:
    """A connection to the source that breaks leaves something out."""
    fill(source, 6)
    reading, driver = faulty(source)
    copy(reading, SimulatedStore().connect())
    for fault in every_fault(len(driver.done)):
        target = SimulatedStore().connect()
        reading, _ = faulty(source, fault)
        try:
            copy(reading, target)
        except (Crash, Unavailable):
            copy(source, target)
        assert_same(source, target)


def test_what_retention_unlinks_in_the_source_at_the_same_time(source: Store, target: Store) -> None:
    """A producer with a short history makes every backup fail."""
    fill(source, 12)

    def tell(step: CopyStep) -> None:
        if step.id == "id-0":
            client(source, retention=Retention(max_count=4)).prune(D)
            source._driver.expire()  # type: ignore[attr-defined]

    done = copy(client(source), target, on_progress=tell)
    assert done.complete
    assert set(ids(source)) <= set(ids(target)) | {"id-0"}
    few = SimulatedStore().connect()
    reading = client(source)
    fill(source, 4, begin=12)
    rows = [row for row in readable(source) if row.id == "id-12"]
    client(source, retention=Retention(max_count=1)).prune(D)
    source._driver.expire()  # type: ignore[attr-defined]
    assert reading._run(copying.snapshot_of(reading._context, D, rows[0])) is None
    assert copy(source, few).complete


def test_damage_in_the_source_is_told_and_the_rest_copied(source: Store, target: Store) -> None:
    """One lost payload makes a backup of everything else impossible, or is not noticed."""
    fill(source, 5)
    key = source._context.keys.id(D, "id-1")
    source._driver.keyspace.values.pop(key)  # type: ignore[attr-defined]
    done = copy(client(source), target)
    assert [(each.id, each.outcome) for each in done.failures] == [("id-1", "damaged")]
    assert "does not exist" in done.failures[0].detail
    assert ids(target) == ["id-0", "id-2", "id-3", "id-4"]


def test_a_payload_that_was_altered_is_not_copied(source: Store, target: Store) -> None:
    """Damage spreads into the backup."""
    fill(source, 3)
    values = source._driver.keyspace.values  # type: ignore[attr-defined]
    key = source._context.keys.id(D, "id-1")
    values[key] = attrs.evolve(values[key], data=values[key].data[:-1] + b"7")
    done = copy(client(source), target)
    assert [(each.id, each.outcome) for each in done.failures] == [("id-1", "damaged")]


def test_a_page_of_the_source_that_is_lost_ends_this_dataset_alone(source: Store, target: Store) -> None:
    """One lost page of one dataset stops the copy of all others; or the rest of it counts as copied."""
    fill(source, 12)
    fill(source, 2, dataset="other")
    page = stored(source).log.pages[0].key
    source._driver.keyspace.values.pop(page)  # type: ignore[attr-defined]
    mena, other = swapstore.copy(client(source), target)
    assert (mena.complete, other.complete) == (False, True)
    assert page in mena.ended


def test_a_full_target_ends_the_copy(source: Store, target: Store) -> None:
    """A full store is told as done, or each of a million snapshots is tried in vain."""
    fill(source, 3)
    for number in range(4, 12):
        cut, _ = faulty(target, Fault(Kind.REFUSED, number))
        try:
            copy(source, cut)
        except StoreFull:
            break
    else:
        pytest.fail("nothing was refused")
    copy(source, target)
    assert_same(source, target)


# --- producers at the same time ---------------------------------------------------------------------


def test_a_run_ends_although_producers_go_on(source: Store, target: Store) -> None:
    """A copy of a busy store never ends."""
    fill(source, 50)
    published = 50

    def publish(_: CopyStep) -> None:
        nonlocal published
        fill(source, 2, begin=published)
        published += 2

    done = copy(client(source), target, on_progress=publish)
    assert done.copied == 50
    copy(client(source), target)
    assert_same(source, target)


def test_both_stores_have_producers(source: Store, target: Store) -> None:
    """A producer of the target that commits at the same time makes the copy fail, or lose a commit."""
    fill(source, 6)
    done = copy(source, target, on_progress=lambda _: target.publish(D, "its own") and None)
    assert done.copied == 6
    assert len(ids(target)) == 12
    assert copy(source, target).copied == 0


# --- arguments --------------------------------------------------------------------------------------


def test_bad_arguments_are_refused_before_anything_is_written(source: Store, target: Store) -> None:
    """A typo copies everything, or nothing, without a word."""
    fill(source, 2)
    bad: list[tuple[dict[str, Any], str]] = [
        ({"history": "newest"}, "'all', 'latest' or a number"),
        ({"history": 0}, "1 or more"),
        ({"history": True}, "whole number"),
        ({"datasets": ["no spaces"]}, "dataset name"),
        ({"datasets": 7}, "names of datasets"),
        ({"on_progress": 7}, "must be a function"),
        ({"follow": True, "poll": 0}, "poll must be"),
    ]
    for options, message in bad:
        with pytest.raises(InvalidInput, match=message):
            swapstore.copy(source, target, **options)
    for wrong in ("redis://localhost", None):
        with pytest.raises(InvalidInput, match="two stores"):
            swapstore.copy(source, wrong)  # type: ignore[arg-type]
    for same in (source, client(source)):
        with pytest.raises(InvalidInput, match="source and target are the same"):
            swapstore.copy(source, same)
    assert target.datasets() == []


def test_an_asyncio_store_is_refused_with_advice(target: Store) -> None:
    """A program on asyncio learns nothing but an attribute error."""
    from swapstore import aio  # noqa: PLC0415

    store = aio.connect("sqlite:///unused.db")
    with pytest.raises(InvalidInput, match="asyncio.to_thread"):
        swapstore.copy(store, target)  # type: ignore[arg-type]


# --- following --------------------------------------------------------------------------------------


def test_a_copy_that_follows(source: Store, target: Store) -> None:
    """A commit, a new dataset or the rest after an outage of either store never arrives."""
    fill(source, 3)
    reading, reads = faulty(source)
    writing, writes = faulty(target)
    steps: list[str] = []

    def tell(step: CopyStep) -> None:
        steps.append(step.id)
        if step.id == "id-2":
            fill(source, 2, begin=3)
            writes.plan(lost_at(2), lost_at(3), lost_at(4), lost_at(5))
        if step.id == "id-4":
            source.publish("new", 1, id="first-of-another")
        if step.id == "first-of-another":
            reads.plan(*(lost_at(number) for number in range(12)))
            fill(source, 2, begin=5)
        if step.id == "id-6":
            writing.close()

    done = {each.dataset: each for each in swapstore.copy(reading, writing, follow=True, on_progress=tell)}
    assert (done[D].copied, done["new"].copied) == (7, 1)
    assert_same(source, target)
    assert_same(source, target, "new")


def lost_at(number: int) -> Any:
    return failing_at(number, Kind.LOST_BEFORE)


@pytest.mark.parametrize(("grown", "confirmed"), [(1, 0), (9, 0), (1, 2), (1, 5)])
def test_a_source_that_went_back_is_compared_again(grown: int, confirmed: int) -> None:
    """After a failover of the source that lost commits, those that came instead are never copied."""
    sim, target = SimulatedStore(seed=4), SimulatedStore(seed=5).connect()
    source = sim.connect()
    fill(source, 3)
    backup = sim.keyspace.copy()
    fill(source, 3, begin=3)
    reading = sim.connect()

    def tell(step: CopyStep) -> None:
        if step.id == "id-5":  # the source loses 3 commits, and gets others
            sim.keyspace.values, sim.keyspace.sets = backup.values, backup.sets
            for number in range(grown):
                sim.connect().publish(D, "instead", id=f"instead-{number}", ts=at(2000 + number))
            for _ in range(confirmed):
                sim.connect().confirm(D)
        if step.id == f"instead-{grown - 1}":
            reading.close()

    swapstore.copy(reading, target, follow=True, on_progress=tell)
    assert ids(target) == [*(f"id-{n}" for n in range(6)), *(f"instead-{n}" for n in range(grown))]


@pytest.mark.parametrize("lost_at_step", ["id-25", "id-39"])
def test_a_target_that_went_back_is_filled_again(lost_at_step: str) -> None:
    """After a failover of the target that lost commits, these are missing until somebody notices."""
    source, sim = SimulatedStore(seed=4).connect(), SimulatedStore(seed=5)
    fill(source, 40)
    writing, failover = sim.connect(), Failover(sim, at=lost_at_step)

    def tell(step: CopyStep) -> None:
        failover(step)
        if failover.done and set(ids(sim.connect())) == set(ids(source)):
            writing.close()

    swapstore.copy(source, writing, follow=True, on_progress=tell)
    assert set(ids(sim.connect())) == set(ids(source))


def test_a_target_that_loses_commits_during_a_copy_has_them_in_the_end() -> None:
    """A copy tells that all is copied, and the target has lost some of it on the way."""
    source, sim = SimulatedStore(seed=4).connect(), SimulatedStore(seed=5)
    fill(source, 40)
    assert copy(source, sim.connect(), on_progress=Failover(sim, at="id-25")).complete
    assert set(ids(sim.connect())) == set(ids(source))


class Failover:
    """Takes a store back to what it was after `id-20`, once."""

    def __init__(self, sim: SimulatedStore, *, at: str) -> None:
        self.sim = sim
        self.at = at
        self.backup: Keyspace | None = None
        self.done = False

    def __call__(self, step: CopyStep) -> None:
        if step.id == "id-20" and self.backup is None:
            self.backup = self.sim.keyspace.copy()
        if step.id == self.at and self.backup is not None and not self.done:
            self.sim.keyspace.values, self.sim.keyspace.sets = self.backup.values, self.backup.sets
            self.done = True


def test_a_row_is_not_copied_with_the_payload_of_another() -> None:
    """The source was flushed while it was copied: a new snapshot is copied under the id of an old one."""
    sim = SimulatedStore(seed=4)
    fill(sim.connect(), 1)
    reading = sim.connect()
    (row,) = readable(reading)
    sim.keyspace.values.clear()
    sim.connect().publish(D, "other", id="other")
    assert reading._run(copying.snapshot_of(reading._context, D, row)) is None


def test_a_conflict_is_told_once_and_others_go_on(
    source: Store, target: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """A copy that follows fills the log with one conflict, or ends because of it."""
    fill(source, 3)
    target.publish(D, "another", id="id-1", ts=at(1001))
    source.publish("z", 1, id="z")

    def tell(step: CopyStep) -> None:
        if step.id == "z":
            fill(source, 1, begin=3)
            source.publish("z", 2, id="end")
        if step.id == "end":
            source.close()

    done = {each.dataset: each for each in swapstore.copy(source, target, follow=True, on_progress=tell)}
    assert (done[D].copied, done[D].failed, done["z"].copied) == (1, 1, 2)
    assert [record.message for record in caplog.records if "is not copied any more" in record.message] != []
    assert len([record for record in caplog.records if "'mena'" in record.message]) == 1


def test_following_ends_when_another_thread_closes_a_store(tmp_path: Any) -> None:
    """A program cannot stop a copy that follows."""
    with (
        swapstore.connect(f"sqlite:///{tmp_path}/a.db") as source,
        swapstore.connect(f"sqlite:///{tmp_path}/b.db") as target,
    ):
        source.publish(D, 1)
        seen = threading.Event()
        results: list[Any] = []

        def run() -> None:
            results.extend(
                swapstore.copy(source, target, follow=True, poll=3600, on_progress=lambda _: seen.set())
            )

        thread = threading.Thread(target=run)
        thread.start()
        assert seen.wait(30)
        source.close()
        thread.join(30)
        assert not thread.is_alive()
        assert [each.copied for each in results] == [1]


def test_following_says_at_once_that_an_address_is_wrong(source: Store, target: Store) -> None:
    """A typo in an address looks like an outage that never ends."""
    fill(source, 1)
    broken, _ = faulty(target, *(lost_at(number) for number in range(50)))
    with pytest.raises(Unavailable):
        swapstore.copy(source, broken, follow=True)
