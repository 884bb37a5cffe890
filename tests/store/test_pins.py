"""Pin, unpin, roll back, and the live view."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

import pytest

from swapstore import Store
from swapstore.errors import (
    InvalidInput,
    NotFound,
    OutcomeUnknown,
    PayloadMissing,
)
from tests.support.deterministic import TickingClock
from tests.support.drivers import another, lose, meddled
from tests.support.times import at


def served(store: Store) -> object:
    snap = another(store).read_latest("mena")
    return snap.value if snap else None


@pytest.mark.every_store
def test_pin_serves_one_snapshot_until_unpin(store: Store) -> None:
    """An operator cannot keep readers on a good version while publishing goes on."""
    good = store.publish("mena", "good")
    store.publish("mena", "bad")
    status = store.pin("mena", id=good.id)
    assert (status.serving.id, status.latest.version) == (good.id, 2)
    assert served(store) == "good"
    commit = store.publish("mena", "newer")
    assert commit.is_latest
    assert served(store) == "good"
    assert store.unpin("mena").pinned is None
    assert served(store) == "newer"


def test_pinning_what_is_pinned_changes_nothing(store: Store) -> None:
    """An operator's command cannot be repeated safely."""
    good = store.publish("mena", "good")
    first = store.pin("mena", id=good.id)
    assert store.pin("mena", id=good.id) == first
    done = store.unpin("mena")
    assert store.unpin("mena") == done


def test_rollback_makes_an_older_snapshot_the_latest(store: Store) -> None:
    """A bad publish cannot be taken back, or the next good one is not served."""
    good = store.publish("mena", "good", ts=at(1000))
    store.publish("mena", "bad", ts=at(3000))
    status = store.rollback("mena", id=good.id)
    assert (status.latest.version, status.version, status.count) == (1, 3, 2)
    assert served(store) == "good"
    assert [row.version for row in store.history("mena")] == [2, 1]
    assert store.publish("mena", "fixed", ts=at(2000)).is_latest
    assert served(store) == "fixed"


def test_a_pin_outlasts_a_rollback_and_a_confirmation(store: Store) -> None:
    """Readers are taken off the snapshot on which an operator keeps them, by an act on another one."""
    for name in ("older", "good", "bad"):
        store.publish("mena", name, id=name)
    store.pin("mena", id="good")
    status = store.rollback("mena", id="older")
    assert (status.serving.id, status.latest.id) == ("good", "older")
    status = store.confirm("mena")
    assert (status.serving.id, status.latest.id) == ("good", "older")
    assert served(store) == "good"
    assert store.unpin("mena").serving.id == "older"
    assert served(store) == "older"


def test_old_snapshots_can_be_pinned_and_rolled_back_to(store: Store) -> None:
    """A snapshot in a page cannot be pinned or rolled back to."""
    first = store.publish("mena", 0)
    for number in range(1, 100):
        store.publish("mena", number)
    assert store.pin("mena", id=first.id).serving.version == 1
    assert store.rollback("mena", id=first.id).latest.version == 1
    assert served(store) == 0


def test_only_what_is_committed_can_be_served(store: Store) -> None:
    """A typo in an id takes the dataset away from readers."""
    acts: list[Callable[[], object]] = [
        lambda: store.pin("mena", id="x"),
        lambda: store.unpin("mena"),
        lambda: store.confirm("mena"),
    ]
    for act in acts:
        with pytest.raises(NotFound, match="dataset 'mena': nothing is published"):
            act()
    store.publish("mena", 1)
    for serve in (store.pin, store.rollback):
        with pytest.raises(NotFound, match="no committed snapshot has id 'x'"):
            serve("mena", id="x")
        with pytest.raises(InvalidInput):
            serve("mena", id="bad id")


@pytest.mark.every_store
def test_a_lost_reply_of_a_pin_is_resolved(store: Store) -> None:
    """A pin whose reply was lost is not made, or made twice, although the etag tells."""
    commit = store.publish("mena", 1)
    client, meddler = meddled(store)
    client.status("mena")
    client.read_latest("mena")
    meddler.after(len(meddler.batches) + 1, lose)
    status = client.pin("mena", id=commit.id)
    assert status.pinned is not None
    assert status.version == 2
    assert status == another(store).status("mena")


def test_a_pin_with_an_unknown_outcome_says_so(store: Store) -> None:
    """A pin that others overtook after a lost reply is silently made twice."""
    commit = store.publish("mena", 1)
    client, meddler = meddled(store)
    client.read_latest("mena")

    def lose_and_overtake() -> None:
        store.publish("mena", 2)
        store.publish("mena", 3)
        lose()

    meddler.after(len(meddler.batches) + 1, lose_and_overtake)
    with pytest.raises(OutcomeUnknown, match="read the status"):
        client.pin("mena", id=commit.id)


def test_a_pin_follows_a_conflict(store: Store) -> None:
    """A publish between an operator's look and swap is lost, or fails the pin."""
    commit = store.publish("mena", 1)
    client, meddler = meddled(store)
    client.read_latest("mena")
    meddler.before(len(meddler.batches) + 1, lambda: store.publish("mena", 2))
    status = client.pin("mena", id=commit.id)
    assert (status.version, status.count, status.serving.version) == (3, 2, 1)


@pytest.mark.every_store
def test_a_live_view_is_shown_while_its_version_is_current(store: Store) -> None:
    """A view that was computed from one version is shown for another."""
    commit = store.publish("mena", 1)
    assert store.put_live("mena", {"now": 5}, ttl=60) == commit.etag
    view = another(store).read_live("mena")
    assert view is not None
    assert (view.value, view.etag) == ({"now": 5}, commit.etag)
    store.publish("mena", 2)
    assert another(store).read_live("mena") is None


def test_a_late_live_view_of_an_old_version_stays_hidden(store: Store) -> None:
    """A worker that writes after the next commit shows readers a view of the old version."""
    old = store.publish("mena", 1)
    worker = another(store)
    worker.read_latest("mena")
    new = store.publish("mena", 2)
    assert worker.put_live("mena", "stale", ttl=60) == old.etag
    assert store.read_live("mena") is None
    worker.put_live("mena", "stale", ttl=60, etag=old.etag)
    assert store.read_live("mena") is None
    worker.put_live("mena", "fresh", ttl=60, etag=new.etag)
    view = store.read_live("mena")
    assert view is not None
    assert view.value == "fresh"


@pytest.mark.every_store
def test_a_live_view_expires(store: Store) -> None:
    """A view is shown longer than its TTL."""
    store.publish("mena", 1)
    store.put_live("mena", b"x", ttl=timedelta(milliseconds=500), codec="bytes")
    assert store.read_live("mena") is not None
    time.sleep(0.55)
    assert store.read_live("mena") is None


def test_a_live_view_needs_a_published_version(store: Store) -> None:
    """Bad input, or a view of an empty dataset, is accepted."""
    with pytest.raises(NotFound, match="nothing is published"):
        store.put_live("mena", 1, ttl=60)
    store.publish("mena", 1)
    with pytest.raises(InvalidInput, match="ttl"):
        store.put_live("mena", 1, ttl=0)
    with pytest.raises(InvalidInput, match="NaN|nan"):
        store.put_live("mena", float("nan"), ttl=1)
    with pytest.raises(InvalidInput, match="etag"):
        store.put_live("mena", 1, ttl=1, etag="not one")


def test_a_snapshot_whose_payload_is_gone_cannot_be_pinned(store: Store) -> None:
    """A pin gives readers a snapshot that cannot be read."""
    from tests.store.test_damage import delete  # noqa: PLC0415

    commit = store.publish("mena", 1, id="gone")
    store.publish("mena", 2)
    delete(store, "swapstore:id:{mena}:gone")
    with pytest.raises(PayloadMissing, match="gone"):
        another(store).pin("mena", id=commit.id)
    assert served(store) == 2


def test_confirm_moves_the_moment_of_the_last_look(store: Store) -> None:
    """An alarm on `confirmed_at` stays on, however often the producer confirms."""
    client, _ = meddled(store, clock=TickingClock())
    client.publish("mena", 1)
    before = client.status("mena")
    assert before is not None
    after = client.confirm("mena")
    assert after.confirmed_at > before.confirmed_at
    assert after.committed_at > before.committed_at


def test_rolling_back_to_the_latest_changes_nothing(store: Store) -> None:
    """A repeated rollback makes a new version each time, and ends every live view."""
    commit = store.publish("mena", 1)
    before = store.status("mena")
    assert store.rollback("mena", id=commit.id) == before


def test_a_version_names_the_snapshot_too(store: Store) -> None:
    """Whoever reads a version in a log has to look its id up before it can be served again."""
    for number in range(1, 4):
        store.publish("mena", number, id=f"id-{number}")
    assert store.pin("mena", version=1).serving.id == "id-1"
    assert store.rollback("mena", version=2).latest.id == "id-2"
    assert store.unpin("mena").serving.version == 2
    for change in (store.pin, store.rollback):
        with pytest.raises(NotFound, match="as version 9"):
            change("mena", version=9)
        for wrong in ({}, {"id": "id-1", "version": 1}, {"version": 0}, {"version": "1"}, {"version": True}):
            with pytest.raises(InvalidInput):
                change("mena", **wrong)
    with pytest.raises(NotFound):
        store.pin("nowhere", version=1)
