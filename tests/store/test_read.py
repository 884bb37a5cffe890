"""Reading, as a caller sees it, on every kind of store."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from typing import Any

import msgspec
import pytest

from swapstore import Store
from swapstore.commands import Get, GetServed, Peek
from swapstore.errors import (
    Corrupt,
    InvalidInput,
    PayloadMissing,
    ReplyLost,
    StoreClosed,
)
from swapstore.testing import SimulatedStore
from tests.follow.followers import grown, take
from tests.follow.followers import versions as followed_versions
from tests.store.test_damage import MANIFEST, alter, delete
from tests.support import invariants
from tests.support.deterministic import TickingClock
from tests.support.drivers import another, cold_trips, lose, meddled
from tests.support.rivals import PATIENT
from tests.support.times import at


def fill(store: Store, count: int, dataset: str = "mena") -> None:
    for number in range(1, count + 1):
        store.publish(dataset, {"n": number}, id=f"id-{number}", ts=at(number * 1000))


def test_nothing_published_is_none_and_nothing_else(store: Store) -> None:
    """None means something else than a missing manifest."""
    assert store.read_latest("mena") is None
    assert store.read("mena", id="x") is None
    assert store.read("mena", version=1) is None
    assert store.read("mena", as_of=at(1)) is None
    assert store.status("mena") is None
    assert store.read_live("mena") is None
    assert list(store.history("mena")) == []
    assert store.datasets() == []


@pytest.mark.every_store
def test_any_version_is_read_by_id_version_and_time(store: Store) -> None:
    """A version in the tail or in a page cannot be read, with a warm or a cold cache."""
    fill(store, 150)
    for client in (store, another(store)):
        for number in (1, 2, 8, 9, 64, 65, 128, 129, 136, 137, 149, 150):
            for snap in (
                client.read("mena", id=f"id-{number}"),
                client.read("mena", version=number),
                client.read("mena", as_of=at(number * 1000)),
                client.read("mena", as_of=at(number * 1000 + 999)),
                client.read("mena", as_of=datetime.fromtimestamp(number, UTC)),
            ):
                assert snap is not None
                assert (snap.value, snap.version, snap.id) == ({"n": number}, number, f"id-{number}")
        assert client.read("mena", id="id-151") is None
        assert client.read("mena", version=151) is None
        assert client.read("mena", as_of=at(999)) is None


def test_read_takes_exactly_one_way_of_naming(store: Store) -> None:
    """An ambiguous request is guessed at instead of refused."""
    ambiguous: list[dict[str, Any]] = [{}, {"id": "a", "version": 1}, {"version": 1, "as_of": 1}]
    wrong: list[dict[str, Any]] = [{"id": 7}, {"version": 0}, {"version": "1"}, {"as_of": -1}]
    for arguments in ambiguous + wrong:
        with pytest.raises(InvalidInput, match="dataset 'mena'"):
            store.read("mena", **arguments)


@pytest.mark.every_store
def test_a_staged_record_is_not_found(store: Store) -> None:
    """An id record that no row names is served."""
    fill(store, 3)
    client, meddler = meddled(store)
    meddler.before(1, lambda: drop_commit(meddler))
    with pytest.raises(RuntimeError):
        client.publish("mena", "staged only", id="orphan")
    assert another(store).read("mena", id="orphan") is None
    assert [row.id for row in another(store).history("mena")] == ["id-3", "id-2", "id-1"]


def drop_commit(meddler: Any) -> None:
    meddler._driver.execute(meddler.batches[-1][:-1])
    raise RuntimeError("the producer dies before its commit")


def test_history_pages_newest_first(store: Store) -> None:
    """A history ends early without a word, or a limit or a start gives other rows than it has there."""
    fill(store, 140)
    reader = another(store)
    whole = list(reader.history("mena"))
    assert [row.version for row in whole] == list(range(140, 0, -1))
    assert list(reader.history("mena", limit=50)) == whole[:50]
    assert list(reader.history("mena", limit=0)) == []
    pieces = []
    before = None
    while piece := list(reader.history("mena", limit=17, before=before)):
        pieces += piece
        before = piece[-1].version
    assert pieces == whole


def test_history_that_is_read_slowly_shows_one_version(store: Store) -> None:
    """A publish during an iteration repeats or drops a row."""
    fill(store, 100)
    rows = []
    for row in another(store).history("mena", limit=None):
        rows.append(row.version)
        if len(rows) % 20 == 0:
            store.publish("mena", "more")
    assert rows == list(range(100, 0, -1))


def test_history_loads_pages_as_they_are_reached(store: Store) -> None:
    """The first rows of a long history load pages, or it takes a round trip a page."""
    fill(store, 140)  # 12 rows in the tail, 16 pages, and of the first 8 and the next 8 a page of references
    client, meddler = meddled(store)
    rows = client.history("mena", limit=None)
    for _ in range(12):
        next(rows)
    assert len(meddler.batches) == 1
    next(rows)
    assert [len(batch) for batch in meddler.batches[1:]] == [2, 16]
    list(rows)
    assert len(meddler.batches) == 1 + 2


@pytest.mark.parametrize(
    ("limit", "pages"), [(5, []), (13, [1, 1]), (20, [1, 1]), (21, [1, 2]), (50, [1, 5])]
)
def test_history_loads_no_page_that_its_limit_does_not_need(
    store: Store, limit: int, pages: list[int]
) -> None:
    """A list of the last few commits loads sixteen pages."""
    fill(store, 140)
    client, meddler = meddled(store)
    assert len(list(client.history("mena", limit=limit))) == limit
    assert [len(batch) for batch in meddler.batches[1:]] == pages


@pytest.mark.parametrize(
    ("versions", "trips", "followed"),
    [(140, 3, 3), (1000, 10, 11), pytest.param(10_000, 99, 102, marks=pytest.mark.nightly)],
)
@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_a_history_takes_a_round_trip_for_every_sixteen_pages(
    versions: int, trips: int, followed: int, cache_bytes: int
) -> None:
    """To list a history, or to catch up with it, takes a round trip for every eight rows."""
    store = SimulatedStore().connect()
    grown(store, versions)
    client, meddler = meddled(store, cache_bytes=cache_bytes)
    assert [row.version for row in client.history("mena", limit=None)] == [*range(versions, 0, -1)]
    assert len(meddler.batches) == trips
    client, meddler = meddled(store)
    assert followed_versions(take(client.follow("mena", after=0), versions)) == [*range(1, versions + 1)]
    assert sum(len(batch) > 1 for batch in meddler.batches) <= followed


@pytest.mark.parametrize("damage", ["missing", "altered"])
def test_the_rows_before_a_page_that_cannot_be_read_come_first(store: Store, damage: str) -> None:
    """One lost page hides the newer rows that are read in the same round trip, or is skipped."""
    fill(store, 140)
    key = store._context.keys.page("mena", f"{invariants.manifest_of(store).epoch}.65-72")
    if damage == "missing":
        delete(store, key)
    else:
        alter(store, key, lambda raw: raw[:-5] + b"x" + raw[-4:])
    rows = another(store).history("mena", limit=None)
    assert [row.version for row in islice(rows, 68)] == [*range(140, 72, -1)]
    with pytest.raises(PayloadMissing if damage == "missing" else Corrupt) as caught:
        next(rows)
    assert caught.value.key == key
    older = another(store).history("mena", before=65, limit=50)
    assert [row.version for row in older] == [*range(64, 14, -1)]


def test_history_checks_its_arguments_at_once(store: Store) -> None:
    """A wrong argument raises at the first row instead of at the call."""
    wrong: list[dict[str, Any]] = [{"limit": -1}, {"limit": 1.5}, {"before": "x"}]
    for arguments in wrong:
        with pytest.raises(InvalidInput):
            store.history("mena", **arguments)


def test_a_warm_reader_sees_a_new_version_at_once(store: Store) -> None:
    """A reader with a cache is served an old version that it did not ask for."""
    reader = another(store)
    for number in range(5):
        store.publish("mena", number)
        snap = reader.read_latest("mena")
        assert snap is not None
        assert snap.value == number


def test_within_max_staleness_nothing_is_asked(store: Store) -> None:
    """A busy web handler asks the store within max_staleness, or does not ask after it."""
    store.publish("mena", 1)
    reader, meddler = meddled(store)
    reader.read_latest("mena", max_staleness=60)
    asked = len(meddler.batches)
    store.publish("mena", 2)
    snap = reader.read_latest("mena", max_staleness=60)
    assert snap is not None
    assert snap.value == 1
    assert len(meddler.batches) == asked
    snap = reader.read_latest("mena")
    assert snap is not None
    assert snap.value == 2
    snap = reader.read_latest("mena", max_staleness=60)
    assert snap is not None
    assert snap.value == 2, "never back in time"


@pytest.mark.every_store
def test_a_lost_reply_is_asked_for_again(store: Store) -> None:
    """A read fails because its connection broke once."""
    store.publish("mena", 1)
    reader, meddler = meddled(store)
    for number in (0, 2):
        meddler.after(number, lose)
    snap = reader.read_latest("mena")
    assert snap is not None
    assert snap.value == 1
    assert [type(batch[0]) for batch in meddler.batches[1:]] == [Get] * 3


@pytest.mark.every_store
def test_round_trips(store: Store) -> None:
    """An operation takes more round trips than the cost model says."""
    producer, sent = meddled(store)
    producer.publish("mena", 1)
    assert len(sent.batches) == 2, "cold publish: the manifest, then everything else"
    producer.publish("mena", 2)
    assert len(sent.batches) == 3, "warm publish: one"
    cold = cold_trips(store)
    reader, asked = meddled(store)
    reader.read_latest("mena")
    assert len(asked.batches) == cold, "cold read: the manifest, then the record, or both at once"
    reader.read_latest("mena")
    assert len(asked.batches) == cold + 1, "warm read: one"
    (revalidation,) = asked.batches[-1]
    assert isinstance(revalidation, Peek)
    assert revalidation.size < 1500, "and a small one: the header, not the log"
    producer.publish("mena", 3)
    again = reader.read_latest("mena")
    assert again is not None
    assert again.value == 3
    assert len(asked.batches) == cold + 3, (
        "a new version: what asked for it brought its header, then the record"
    )
    assert again.version == 3
    assert [row.version for row in reader.history("mena")] == [3, 2, 1], "the log is read when it is needed"
    assert reader.publish("mena", 4).version == 4


def test_confirm_and_status(store: Store) -> None:
    """A producer that ran and found nothing new cannot be told from one that did not run."""
    commit = store.publish("mena", 1)
    before = store.status("mena")
    after = another(store).confirm("mena")
    assert before is not None
    assert after == another(store).status("mena")
    assert after.confirmed_at >= before.confirmed_at
    assert (after.version, after.count, after.latest) == (2, 1, before.latest)
    snap = store.read_latest("mena")
    assert snap is not None
    assert (snap.version, snap.etag) == (commit.version, after.etag)


def test_a_closed_store_says_so(store: Store) -> None:
    """Use after close gives no clear error, or a second close fails."""
    client = another(store)
    client.close()
    client.close()
    for use in (
        lambda: client.read_latest("mena"),
        lambda: client.publish("mena", 1),
        client.datasets,
        lambda: list(client.history("mena")),
    ):
        with pytest.raises(StoreClosed, match="closed"):
            use()


def test_a_snapshot_and_a_status_describe_themselves(store: Store) -> None:
    """A reader that logs, forwards or compares a snapshot or status finds a wrong field."""
    clock = TickingClock()
    client, _ = meddled(store, clock=clock)
    began = clock.ms
    client.publish("mena", b"payload", codec="bytes", id="x")
    snap, status = client.read_latest("mena"), client.status("mena")
    assert snap is not None
    assert status is not None
    assert (snap.dataset, snap.size, snap.codec) == ("mena", len(b"payload"), "bytes")
    assert began < snap.committed_at < clock.ms
    assert (status.dataset, status.first_version) == ("mena", 1)
    assert status.committed_at == status.confirmed_at == snap.committed_at == status.latest.committed_at


@pytest.mark.parametrize("attempts", [1, 2, 3, 6])
def test_a_missing_payload_is_looked_for_a_bounded_number_of_times(store: Store, attempts: int) -> None:
    """A replica that lags is called damage too early, or readers wait too long."""
    store.publish("mena", 1, id="gone")
    delete(store, "swapstore:id:{mena}:gone")
    cold_trips(store)  # it is known from here on whether the store tells both at once
    reader, meddler = meddled(store, policy=msgspec.structs.replace(PATIENT, read_attempts=attempts))
    with pytest.raises(PayloadMissing):
        reader.read_latest("mena")
    asked = [command for batch in meddler.batches for command in batch]
    assert asked.count(Get("swapstore:id:{mena}:gone")) == attempts
    manifests = [each for each in asked if isinstance(each, Get | GetServed) and each.key == MANIFEST]
    assert len(manifests) == attempts


@pytest.mark.parametrize("attempts", [1, 2, 3, 6])
def test_a_read_whose_reply_is_always_lost_ends(store: Store, attempts: int) -> None:
    """A reader retries less often than the policy says, or forever."""
    store.publish("mena", 1)
    reader, meddler = meddled(store, policy=msgspec.structs.replace(PATIENT, read_attempts=attempts))
    for number in range(100):
        meddler.before(number, lose)
    with pytest.raises(ReplyLost):
        reader.datasets()
    assert len(meddler.batches) == attempts


def test_a_dataset_that_is_flushed_during_a_read_is_none(store: Store) -> None:
    """A flush between the manifest and the payload crashes a read."""
    store.publish("mena", 1, id="gone")
    delete(store, "swapstore:id:{mena}:gone")
    reader, meddler = meddled(store, policy=msgspec.structs.replace(PATIENT, read_attempts=2))
    meddler.before(2, lambda: delete(store, MANIFEST))
    assert reader.read_latest("mena") is None


def test_a_record_that_arrives_late_is_read_all_the_same(store: Store) -> None:
    """A replica that shows the manifest before the payload makes a read fail."""
    store.publish("mena", 1)
    cold_trips(store)  # it is known from here on whether the store tells both at once
    client, meddler = meddled(store)
    meddler.replies(1, lambda _: [None])
    snap = client.read_latest("mena")
    assert snap is not None
    assert snap.value == 1


def test_a_look_that_finds_nothing_new_renews_the_staleness_bound() -> None:
    """A reader that asked a moment ago asks again, although its bound allows what it saw then."""
    simulated = SimulatedStore()
    simulated.connect().publish("mena", 1)
    reader, meddler = meddled(simulated.connect(), clock=simulated.clock)
    reader.read_latest("mena")
    simulated.clock.advance(50_000)
    reader.read_latest("mena")
    simulated.clock.advance(50_000)
    asked = len(meddler.batches)
    assert reader.read_latest("mena", max_staleness=60) is not None
    assert len(meddler.batches) == asked


def test_a_record_that_does_not_match_is_read_again(store: Store) -> None:
    """A replica that is behind makes a read fail that would succeed a moment later."""
    store.publish("mena", {"n": 1})
    reader, meddler = meddled(store)
    reader.status("mena")
    fetch = len(meddler.batches) + 1  # after the look at the manifest
    meddler.replies(fetch, lambda replies: [b"{}\n" for _ in replies])
    found = reader.read_latest("mena")
    assert found is not None
    assert found.value == {"n": 1}
    assert len(meddler.batches) > fetch + 1
