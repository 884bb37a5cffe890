"""What retention hides, and from which moment, for readers and producers, on every kind of store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

import swapstore
from swapstore import Retention, Store
from swapstore.errors import IdConflict, InvalidInput, TooOld
from swapstore.format import manifest
from swapstore.testing import SimulatedStore, VirtualClock
from tests.retention.model import keeping, stored
from tests.support import invariants
from tests.support.drivers import another, lose, meddled
from tests.support.times import at

NOW = 1_790_000_000_000
DAY = 86_400_000


def clocked(store: Store, ms: int = NOW) -> tuple[Store, VirtualClock]:
    """A client whose clock the test sets, and which never doubts it."""
    clock = VirtualClock(ms)
    context = store._context
    policy = msgspec.structs.replace(context.policy, max_ahead_ms=None)
    return Store(store._driver, msgspec.structs.replace(context, clock=clock, policy=policy)), clock


def ids(store: Store) -> list[str]:
    return [row.id for row in store.history("mena", limit=None)]


def fill(store: Store, count: int, **options: Any) -> None:
    for number in range(count):
        store.publish("mena", number, id=f"id-{number}", **options)


@pytest.mark.every_store
def test_max_count_hides_all_but_the_newest_at_once(store: Store) -> None:
    """max_count applies only later, or not to every way of reading."""
    fill(store, 5, ts=NOW)
    keeping(store, 3).publish("mena", 5, id="id-5", ts=NOW)
    reader = another(store)
    assert ids(reader) == ["id-5", "id-4", "id-3"]
    assert [reader.read("mena", version=version) is None for version in (3, 4)] == [True, False]
    assert [reader.read("mena", id=f"id-{number}") is None for number in (2, 3)] == [True, False]
    as_of = reader.read("mena", as_of=NOW)
    assert as_of is not None
    assert as_of.id == "id-5"
    status = reader.status("mena")
    assert status is not None
    assert status.first_version == 4


def test_max_age_hides_by_ts_at_once(store: Store) -> None:
    """Data past its age is served, or recent data that was published late is hidden."""
    client, _ = clocked(store)
    for age in (0, 3, 1, 2, 9):
        client.publish("mena", age, id=f"{age}-days", ts=NOW - age * DAY)
    keeping(client, max_age=timedelta(days=2)).publish("mena", "new", id="new", ts=NOW)
    reader = another(store)
    assert ids(reader) == ["new", "2-days", "1-days", "0-days"]
    assert reader.read("mena", as_of=NOW - 3 * DAY) is None
    assert reader.read("mena", id="9-days") is None
    invariants.check(store)


def test_max_count_of_one_keeps_the_latest(store: Store) -> None:
    """max_count of 1 hides what readers are served."""
    client = keeping(store, 1)
    fill(client, 70)
    assert ids(another(store)) == ["id-69"]
    latest = another(store).read_latest("mena")
    assert latest is not None
    assert latest.value == 69
    assert manifest.recent() <= len(invariants.check(store)) < manifest.recent() + manifest.F


def test_a_latest_beyond_every_bound_is_still_served(store: Store) -> None:
    """A dataset that is rarely published disappears when its only snapshot is old."""
    client, clock = clocked(store)
    fill(client, 3, ts=NOW)
    clock.advance(400 * DAY)
    assert keeping(client, max_age=timedelta(milliseconds=1)).prune("mena").floor == NOW + 400 * DAY - 1
    reader = another(store)
    latest = reader.read_latest("mena")
    assert latest is not None
    assert latest.value == 2
    assert reader.read("mena", id="id-2") == latest
    assert reader.read("mena", version=3) == latest
    assert reader.read("mena", as_of=NOW) == latest
    assert ids(reader) == []


def test_hidden_rows_stay_hidden(store: Store) -> None:
    """A producer without bounds shows again a part of what another one hid: a history with holes."""
    fill(store, 10)
    keeping(store, 2).publish("mena", 10, id="id-10")
    store.publish("mena", 11, id="id-11")
    keeping(store, 100, timedelta(days=9)).publish("mena", 12, id="id-12")
    assert ids(another(store)) == ["id-12", "id-11", "id-10", "id-9"]


def test_a_clock_that_goes_back_changes_nothing(store: Store) -> None:
    """A producer with a slow clock shows again what another one hid."""
    client, clock = clocked(store)
    aged = keeping(client, max_age=timedelta(days=1))
    for days in (0, 2):
        aged.publish("mena", days, ts=NOW + days * DAY)
    clock.advance(2 * DAY)
    aged.publish("mena", "two", id="two")
    floor = stored(store).head.floor
    clock.advance(-5 * DAY)
    aged.publish("mena", "back", id="back")
    assert stored(store).head.floor == floor == NOW + DAY
    assert ids(store)[:2] == ["back", "two"]


def test_a_clock_far_in_the_future_blocks_no_publish(store: Store) -> None:
    """One producer with a broken clock stops all others, or makes readers lose the latest."""
    client, clock = clocked(store)
    aged = keeping(client, max_age=timedelta(days=1))
    fill(aged, 3)
    clock.ms = NOW + 10_000 * DAY
    aged.prune("mena")
    clock.ms = NOW
    commit = aged.publish("mena", "right", id="right")
    assert commit.is_latest
    latest = another(store).read_latest("mena")
    assert latest is not None
    assert latest.value == "right"
    invariants.check(store)


# --- too old ---------------------------------------------------------------------------------------


def test_a_backfill_that_would_be_hidden_is_refused(store: Store) -> None:
    """A backfill below the bound is acknowledged, and can never be read."""
    client, _ = clocked(store)
    aged = keeping(client, max_age=timedelta(days=1))
    aged.publish("mena", "new", ts=NOW)
    before = invariants.contents(store)
    with pytest.raises(TooOld, match="max_age") as caught:
        aged.publish("mena", "old", id="old", ts=NOW - DAY - 1)
    assert caught.value.dataset == "mena"
    assert invariants.contents(store) == before, "nothing was written"
    assert aged.publish("mena", "edge", id="edge", ts=NOW - DAY).created
    assert "edge" in ids(another(store))
    with pytest.raises(TooOld):
        client.publish("mena", "old", id="old", ts=at(stored(store).head.floor - 1))


def test_what_becomes_the_latest_is_never_too_old(store: Store) -> None:
    """A first publish, or one after a rollback, is refused although every reader would see it."""
    client, _ = clocked(store)
    aged = keeping(client, max_age=timedelta(days=1))
    assert aged.publish("mena", "first", id="first", ts=NOW - 9 * DAY).is_latest
    assert aged.publish("mena", "second", id="second", ts=NOW - 8 * DAY).is_latest
    latest = another(store).read_latest("mena")
    assert latest is not None
    assert latest.value == "second"


def test_too_old_is_never_decided_from_the_cache(store: Store) -> None:
    """A producer that missed a rollback is refused what would be the latest now."""
    client, _ = clocked(store)
    client.publish("mena", "older", id="older", ts=NOW - 5 * DAY)
    client.publish("mena", "newer", id="newer", ts=NOW)
    aged = keeping(client, max_age=timedelta(days=1))
    with pytest.raises(TooOld):
        aged.publish("mena", "between", id="between", ts=NOW - 3 * DAY)
    another(store).rollback("mena", id="older")
    assert aged.publish("mena", "between", id="between", ts=NOW - 3 * DAY).is_latest


def test_a_repeated_publish_is_a_success_also_when_it_is_too_old_now(store: Store) -> None:
    """A retry of an acknowledged publish fails because time has passed."""
    client, clock = clocked(store)
    aged = keeping(client, max_age=timedelta(days=1))
    first = aged.publish("mena", "x", id="x", ts=NOW)
    clock.advance(5 * DAY)
    aged.publish("mena", "y", id="y")
    assert "x" not in ids(store)
    again = aged.publish("mena", "x", id="x", ts=NOW)
    assert (again.version, again.created) == (first.version, False)
    with pytest.raises(IdConflict):
        aged.publish("mena", "other", id="x", ts=NOW)


def test_a_hidden_id_deep_in_a_page_is_still_taken(store: Store) -> None:
    """An id is committed twice while its first row is still in the log."""
    fill(store, 100, ts=NOW)
    keeping(store, 94).publish("mena", "new", ts=NOW)  # hides 7 rows: the first page holds one more
    assert "id-3" not in ids(store)
    for client in (another(store), keeping(store, 94)):
        again = client.publish("mena", 3, id="id-3")
        assert (again.version, again.created) == (4, False)
        with pytest.raises(IdConflict):
            client.publish("mena", "other", id="id-3")
    assert len(invariants.check(store)) == 101


def test_dedupe_keys_count_among_hidden_rows(store: Store) -> None:
    """With a short history a cron job that runs twice publishes twice."""
    client = keeping(store, 1)
    first = client.publish("mena", "run", dedupe_key="run-1")
    fill(client, manifest.recent() - 1)
    again = keeping(store, 1).publish("mena", "run again", dedupe_key="run-1")
    assert (again.version, again.created) == (first.version, False)


# --- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bounds",
    [
        {"max_count": 0},
        {"max_count": -1},
        {"max_count": 1.5},
        {"max_count": True},
        {"max_count": "5"},
        {"max_age": timedelta(0)},
        {"max_age": timedelta(days=-1)},
        {"max_age": timedelta(microseconds=999)},
        {"max_age": 90},
        {"max_age": "90d"},
    ],
    ids=str,
)
def test_invalid_bounds_are_refused(bounds: dict[str, Any]) -> None:
    """A typo in a bound deletes the history, or keeps all of it."""
    with pytest.raises(InvalidInput, match=next(iter(bounds))):
        Retention(**bounds)


def test_the_largest_bounds_are_accepted(store: Store) -> None:
    """A bound that means "keep everything" overflows."""
    client = keeping(store, 10**18, timedelta.max)
    fill(client, 3, ts=datetime(1970, 1, 1, tzinfo=UTC))
    assert len(ids(client)) == 3
    assert stored(store).head.floor == 0


def test_connect_takes_a_retention_and_nothing_else(tmp_path: Any) -> None:
    """The retention given to `connect` is ignored, or a mistake in it is found by the first publish."""
    url = f"sqlite:///{tmp_path}/store.db"
    with swapstore.connect(url, retention=Retention(max_count=2)) as store:
        fill(store, 4)
        assert ids(store) == ["id-3", "id-2"]
    with pytest.raises(InvalidInput, match="retention"):
        swapstore.connect(url, retention=timedelta(days=1))  # type: ignore[arg-type]


@pytest.mark.every_store
def test_a_producer_that_lost_the_race_hides_by_what_it_finds(store: Store) -> None:
    """After each lost race the bound is applied to the old log, and keeps one row too many."""
    fill(store, 5)
    client, meddler = meddled(store, retention=Retention(max_count=2))
    client.read_latest("mena")

    def rivals() -> None:
        for number in range(3):
            another(store).publish("mena", number, id=f"rival-{number}")

    meddler.before(len(meddler.batches), rivals)
    client.publish("mena", "mine", id="mine")
    assert ids(another(store)) == ["mine", "rival-2"]


@pytest.mark.usefixtures("tiny_pages")
def test_a_wider_bound_does_not_bring_hidden_rows_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two producers with two bounds show again what was hidden: a history with holes."""
    monkeypatch.setattr(manifest, "F", 4)
    store = SimulatedStore().connect()
    for number in range(1, 7):
        store.publish("mena", number, id=f"id-{number}")
    keeping(store, 1).publish("mena", 7, id="id-7")
    keeping(store, 3).publish("mena", 8, id="id-8")
    assert [row.id for row in store.history("mena", limit=None)] == ["id-8", "id-7"]


@pytest.mark.usefixtures("tiny_pages")
def test_a_lost_publish_that_is_hidden_is_acknowledged() -> None:
    """A committed publish that is sealed and hidden before its outcome is resolved counts as failed."""
    store = SimulatedStore().connect()
    for number in range(8):
        store.publish("mena", number)
    client, meddler = meddled(store)
    client.read_latest("mena")

    def overtake() -> None:
        for number in range(7):  # then a smaller page goes first
            store.publish("mena", number)
        keeping(store, 1).publish("mena", "last")
        lose()

    meddler.after(len(meddler.batches), overtake)
    commit = client.publish("mena", "mine", id="mine")
    assert (commit.version, commit.created) == (9, True)
    assert store.read("mena", id="mine") is None, "hidden"
    assert "mine" not in {row.id for row in invariants.manifest_of(store).log.rows}, "in a page"
