"""A pin is copied with a dataset that is new in the target, and never into one that is there."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest

import swapstore
from swapstore import CopyStep, Retention, Store
from swapstore.errors import SwapstoreError
from swapstore.testing import Crash, Fault, SimulatedStore, every_fault, failing_at, faulty
from swapstore.validators import must_be_newer
from tests.copying.histories import D, client, stored
from tests.copying.test_copy import copy, fill, ids
from tests.support.drivers import meddled
from tests.support.times import at

pytestmark = pytest.mark.usefixtures("tiny_pages")


def pinned_id(store: Store) -> str | None:
    status = store.status(D)
    return status.pinned.id if status and status.pinned else None


def test_a_restore_serves_what_the_source_served_from_its_first_commit_on(
    source: Store, target: Store
) -> None:
    """A restore serves what an operator had pinned away, while it runs or when it is done."""
    fill(source, 9)
    source.pin(D, id="id-3")
    served = []

    def look(_: CopyStep) -> None:
        found = client(target).read_latest(D)
        served.append(found and found.id)

    done = copy(source, target, on_progress=look)
    assert served == ["id-3"] * 9
    assert (done.copied, done.already, done.pinned, done.target_serves) == (9, 0, True, "id-3")
    assert ids(target) == ["id-3", *(f"id-{number}" for number in range(9) if number != 3)]
    assert not list(target.verify())
    again = copy(source, target)
    assert (again.copied, again.already, again.pinned, pinned_id(target)) == (0, 9, False, "id-3")


@pytest.mark.parametrize("fault", list(every_fault(20)), ids=str)
def test_a_restore_that_is_cut_short_anywhere_serves_the_pin(
    fault: Fault, source: Store, target: Store
) -> None:
    """A restore that was killed, or lost a reply, serves what was pinned away, for good or until its end."""
    fill(source, 4)
    source.pin(D, id="id-1")
    dying, _ = faulty(target, fault)
    with suppress(Crash, SwapstoreError):
        swapstore.copy(source, dying)
    begun = client(target).read_latest(D)
    assert begun is None or begun.id == "id-1"
    done = copy(source, client(target))
    assert (done.source_serves, done.target_serves, set(ids(target))) == ("id-1", "id-1", set(ids(source)))


@pytest.mark.parametrize("pinned", [None, "id-0"])
def test_what_a_target_that_has_the_dataset_serves_is_its_own_decision(
    pinned: str | None, source: Store, target: Store
) -> None:
    """A nightly copy pins what an operator of the target has unpinned, or moves the pin."""
    fill(source, 4)
    copy(source, target)
    if pinned:
        target.pin(D, id=pinned)
    fill(source, 2, begin=4)
    source.pin(D, id="id-5")
    done = copy(source, target)
    assert (done.pinned, pinned_id(target), done.source_serves) == (False, pinned, "id-5")
    target.unpin(D)
    source.pin(D, id="id-2")
    assert (copy(source, target).pinned, pinned_id(target)) == (False, None)


def test_a_pin_that_retention_has_left_is_there(source: Store, target: Store) -> None:
    """What only the target's pin still names is read again from the source, and told once more."""
    fill(source, 4)
    copy(source, target)
    target.pin(D, id="id-1")
    fill(target, 6, begin=100)
    target.prune(D, retention=Retention(max_count=3))
    steps: list[CopyStep] = []
    done = copy(source, client(target), on_progress=steps.append)
    assert (done.copied, done.already) == (3, 1)
    assert [(step.id, step.total) for step in steps] == [("id-0", 3), ("id-2", 3), ("id-3", 3)]


def test_what_is_served_and_latest_before_the_rest_is_copied_in_its_order(
    source: Store, target: Store
) -> None:
    """The pinned snapshot is the newer commit in the target, as only the newest commits are to be copied."""
    fill(source, 2)
    source.pin(D, id="id-0")
    for number in range(5):
        source.publish(D, number, id=f"older-{number}", ts=at(900 + number))
    fill(target, 1, begin=100)
    copy(source, target, history=2)
    assert ids(target) == ["id-100", "id-0", "id-1", "older-3", "older-4"]


def test_a_dataset_that_was_dropped_is_restored_with_its_pin(source: Store, target: Store) -> None:
    """What was dropped by mistake comes back without its pin, and serves what was pinned away."""
    fill(source, 4)
    source.pin(D, id="id-2")
    fill(target, 3)
    dropping, _ = faulty(target, failing_at(3))
    with pytest.raises(Crash):
        dropping.drop(D)
    assert stored(target).head.is_dropped
    assert (copy(source, client(target)).pinned, pinned_id(target)) == (True, "id-2")


@pytest.mark.parametrize("pinned", [None, "live"])
def test_a_producer_that_publishes_first_keeps_the_pin_out(
    pinned: str | None, source: Store, target: Store
) -> None:
    """What a producer publishes as a restore begins is not served, or its own pin is called a copy."""
    fill(source, 4)
    source.pin(D, id="id-2")
    writing, meddler = meddled(target)

    def publish() -> None:
        client(target).publish(D, "live", id="live")
        if pinned:
            client(target).pin(D, id=pinned)

    meddler.before(2, publish)
    done = copy(source, writing)
    assert (done.pinned, pinned_id(target), done.target_serves) == (False, pinned, "live")
    assert set(ids(target)) == {"live", *ids(source)}


def test_a_promotion_pins_nothing(source: Store, target: Store) -> None:
    """Production stays at the first snapshot that was promoted, because staging was pinned then."""
    fill(source, 4)
    source.pin(D, id="id-2")
    done = copy(source, target, history="latest")
    assert (done.pinned, done.target_serves, pinned_id(target)) == (False, "id-2", None)


def test_validators_see_the_snapshots_in_their_order(source: Store, target: Store) -> None:
    """A target that takes only what is newer refuses all that is older than the pinned snapshot."""
    fill(source, 4)
    source.pin(D, id="id-2")
    done = copy(source, client(target, validators=(must_be_newer(),)))
    assert (done.copied, done.failed, done.pinned, ids(target)) == (4, 0, False, ids(source))


def test_the_pinned_snapshot_cannot_be_copied(source: Store, target: Store) -> None:
    """A restore of the rest fails, or pins what is not there, because the pinned snapshot is damaged."""
    fill(source, 4)
    source.pin(D, id="id-2")
    source._driver.keyspace.values.pop(source._context.keys.id(D, "id-2"))  # type: ignore[attr-defined]
    done = copy(client(source), target)
    assert ([step.id for step in done.failures], done.failed, done.copied) == (["id-2"], 1, 3)
    assert (done.pinned, done.source_serves, done.target_serves) == (False, "id-2", "id-3")


def test_a_pin_that_is_older_than_the_target_keeps_is_restored(source: Store, target: Store) -> None:
    """A store with a short history serves what was pinned away, because the pinned one is too old for it."""
    now = source._context.clock.now_ms()
    for days in range(20, 0, -1):
        source.publish(D, days, id=f"{days}-days-old", ts=now - days * 86_400_000)
    source.pin(D, id="18-days-old")
    for retention in (Retention(max_age=timedelta(days=5, minutes=1)), Retention(max_count=5)):
        into = SimulatedStore().connect()
        done = copy(source, client(into, retention=retention))
        assert (done.pinned, done.target_serves, done.failed) == (True, "18-days-old", 0)
        assert ids(into) == ["18-days-old", *(f"{days}-days-old" for days in range(5, 0, -1))]


def test_a_restore_with_a_pin_that_is_cut_by_count_goes_on_where_it_stopped(
    source: Store, target: Store
) -> None:
    """Snapshots between the last one copied and the pinned one are left out, if the target was pruned."""
    fill(source, 9)
    source.pin(D, id="id-6")
    dying, _ = faulty(target)

    def stop(step: CopyStep) -> None:
        if step.id == "id-2":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        swapstore.copy(source, dying, on_progress=stop)
    target.prune(D, retention=Retention(max_count=1))
    copy(source, client(target))
    assert ids(target) == ["id-6", "id-2", "id-3", "id-4", "id-5", "id-7", "id-8"]


def test_a_copy_that_follows_pins_a_dataset_when_it_is_new(source: Store, target: Store) -> None:
    """A standby is pinned and unpinned by what operators try in the source; or is never pinned."""
    fill(source, 4)
    source.pin(D, id="id-2")
    writing = client(target)

    def tell(step: CopyStep) -> None:
        if step.id == "id-3":
            fill(source, 1, begin=4)
            source.pin(D, id="id-3")
        if step.id == "id-4":
            fill(source, 1, begin=5)
        if step.id == "id-5":
            writing.close()

    done = copy(source, writing, follow=True, on_progress=tell)
    assert (done.copied, done.pinned, pinned_id(target)) == (6, True, "id-2")
