"""What retention unlinks: how much stays, for which readers, and how long, on every kind of store."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from swapstore import Retention, Row, Store
from swapstore.commands import Get, Peek
from swapstore.format import manifest
from tests.retention.model import at_most, expiring, fill, keeping, permanent, stored
from tests.support import invariants
from tests.support.damage import Damage
from tests.support.drivers import another, meddled
from tests.support.times import at

GRACE_MS = 60
pytestmark = pytest.mark.usefixtures("small_pages")


def rows_again(store: Store) -> list[Row]:
    return [row for row in another(store).history("mena", limit=None) if row.id == "again"]


def hasty(store: Store, max_count: int | None = None) -> Store:
    """A client whose reader grace is short."""
    context = store._context
    policy = msgspec.structs.replace(context.policy, reader_grace_ms=GRACE_MS)
    return keeping(Store(store._driver, msgspec.structs.replace(context, policy=policy)), max_count)


def pass_the_grace() -> None:
    time.sleep(GRACE_MS / 1000 + 0.02)


@pytest.mark.parametrize("count", [1, 3, 10, 30])
def test_the_store_does_not_grow_beyond_the_bound(store: Store, count: int) -> None:
    """A producer that keeps ten versions fills the server all the same."""
    client = hasty(store, count)
    most = 0
    for number in range(120):
        client.publish("mena", number, id=f"id-{number}")
        if number % 10 == 0:
            assert len(permanent(store, "id")) <= at_most(count)
            most = max(most, len(stored(store).log.pages))
    assert len(permanent(store, "id")) == len(permanent(store, "ts")) <= at_most(count)
    assert len(permanent(store, "page")) <= at_most(count) // manifest.F + 1
    assert most <= at_most(count) // manifest.F + 1
    assert len(list(another(store).history("mena", limit=None))) == count
    invariants.check(store)


@pytest.mark.every_store
def test_unlinked_records_are_gone_after_the_grace(store: Store) -> None:
    """Records stay permanently although no manifest names them."""
    client = hasty(store, 2)
    fill(client, 40)
    pass_the_grace()
    client.publish("mena", "more", id="more")
    pass_the_grace()
    assert not expiring(store)
    invariants.check(store)


def test_versions_with_gaps_cost_less_than_a_page(store: Store) -> None:
    """A producer that confirms now and then keeps many times the history that it asked for."""
    fill(store, 60)
    client = keeping(store, 50)
    for number in range(100):
        client.publish("mena", number, id=f"more-{number}")
        if number % 7 == 0:
            client.confirm("mena")
        shown = len(list(client.history("mena", limit=None)))
        assert min(50, number + 51) <= shown < 50 + manifest.F
    assert len(permanent(store, "id")) <= at_most(50)
    assert client.prune("mena").count <= at_most(50)
    invariants.check(store)


# --- latest and pinned -----------------------------------------------------------------------------


def test_a_hidden_snapshot_that_is_unpinned_keeps_its_records_while_a_page_names_it(store: Store) -> None:
    """A page that is still in the log names records that have expired, and verify reports damage."""
    fill(store, 24)
    store.pin("mena", id="id-0")
    keeping(store, 23).publish("mena", "new", id="new")
    another(store).unpin("mena")
    status = store.status("mena")
    assert status is not None
    assert status.first_version > 1, "id-0 is hidden"
    oldest = stored(store).log.pages[0]
    assert (oldest.first_version, oldest.count) == (1, manifest.F), "a page of rows names it"
    assert not {key for key in expiring(store) if ":page:" not in key}
    invariants.check(store)


def test_a_pinned_snapshot_outlives_its_page_and_is_unlinked_when_unpinned(store: Store) -> None:
    """A pinned snapshot loses its payload, or its records stay permanently after the unpin."""
    client = keeping(store, 3)
    fill(client, 2)
    client.pin("mena", id="id-1")
    fill(client, 60, begin=2)
    assert "id-1" not in {row.id for row in invariants.check(store)}, "its page is unlinked"
    snapshot = another(store).read_latest("mena")
    assert snapshot is not None
    assert (snapshot.id, snapshot.value) == ("id-1", 1)
    assert another(store).read("mena", id="id-1") == snapshot
    again = client.publish("mena", 1, id="id-1")
    assert (again.version, again.created) == (2, False)
    another(store).unpin("mena")
    invariants.check(store)
    assert another(store).read("mena", id="id-1") is None
    id_key = store._context.keys.id("mena", "id-1")
    assert id_key in expiring(store)


def test_a_pin_that_moves_unlinks_the_one_before(store: Store) -> None:
    """Each pin of an old snapshot leaks its records when another takes its place."""
    client = keeping(store, 3)
    fill(client, 2)
    client.pin("mena", id="id-0")
    fill(client, 60, begin=2)
    another(store).pin("mena", id="id-61")
    assert store._context.keys.id("mena", "id-0") in expiring(store)
    invariants.check(store)


@pytest.mark.parametrize("ts", [1000, 1001, 3000])
def test_a_rollback_keeps_its_snapshot_until_another_is_the_latest(store: Store, ts: int) -> None:
    """Readers lose the snapshot that was rolled back to, or its records stay permanently."""
    client = keeping(store, 3)
    client.publish("mena", "good", id="good", ts=at(1000))
    client.publish("mena", "bad", id="bad", ts=at(2000))
    client.rollback("mena", id="good")
    for number in range(40):
        client.publish("mena", number, id=f"older-{number}", ts=at(500))
    assert "good" not in {row.id for row in invariants.check(store)}
    snapshot = another(store).read_latest("mena")
    assert snapshot is not None
    assert snapshot.value == "good"
    assert client.publish("mena", "older", id="older", ts=at(999)).is_latest is False
    assert store._context.keys.id("mena", "good") in permanent(store, "id")
    assert client.publish("mena", "next", id="next", ts=at(ts)).is_latest
    assert store._context.keys.id("mena", "good") in expiring(store)
    assert store._context.keys.ts("mena", 1000, "good") in expiring(store)
    invariants.check(store)


def test_a_snapshot_that_is_latest_and_pinned_is_unlinked_when_it_is_neither(store: Store) -> None:
    """A snapshot is unlinked while it is still served, or stays when it is neither."""
    client = keeping(store, 2)
    client.publish("mena", "both", id="both", ts=at(10_000))
    client.pin("mena", id="both")
    for number in range(40):
        client.publish("mena", number, id=f"older-{number}", ts=at(500))
    key = store._context.keys.id("mena", "both")
    assert stored(store).head.latest == stored(store).head.pinned
    client.unpin("mena")
    assert key in permanent(store, "id")
    client.pin("mena", id="both")
    client.publish("mena", "newer", id="newer", ts=at(20_000))
    assert key in permanent(store, "id")
    client.unpin("mena")
    assert key in expiring(store)
    invariants.check(store)


def test_a_client_without_retention_unlinks_the_latest_that_it_replaces(store: Store) -> None:
    """The records of the former latest stay permanently, because another client's retention hid them."""
    client = keeping(store, 3)
    client.publish("mena", "good", id="good", ts=at(1000))
    client.publish("mena", "bad", id="bad", ts=at(2000))
    client.rollback("mena", id="good")
    for number in range(40):
        client.publish("mena", number, id=f"older-{number}", ts=at(500))
    assert store._context.keys.id("mena", "good") in permanent(store, "id")
    another(store).publish("mena", "next", id="next", ts=at(3000))
    assert store._context.keys.id("mena", "good") in expiring(store)
    invariants.check(store)


def test_a_pin_and_a_publish_in_the_swap_that_drops_the_page(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The records of the former latest leak when its page goes in the swap that replaces it."""
    monkeypatch.setattr(manifest, "G", 8)  # no page of references has to be taken apart first
    client = keeping(store)
    client.publish("mena", "peak", id="peak", ts=at(10_000))
    for number in range(manifest.recent() + 2 * manifest.F):
        client.publish("mena", number, id=f"older-{number}", ts=at(500))
    keeping(store, 1).publish("mena", "newer", id="newer", ts=at(20_000))
    assert store._context.keys.id("mena", "peak") in expiring(store)
    invariants.check(store)


# --- ids again -------------------------------------------------------------------------------------


def test_an_unlinked_id_can_be_published_again(store: Store) -> None:
    """An unlinked id is refused permanently, or unlinked again together with its old page."""
    client = keeping(store, 2)
    fill(client, 40)
    assert "id-0" not in {row.id for row in invariants.check(store)}
    assert client.publish("mena", "other", id="id-0").created, "with other content, within the grace"
    same = client.publish("mena", 1, id="id-1", ts=int(time.time() * 1000))
    assert same.created
    invariants.check(store)
    keeping(store).pin("mena", id="id-0")
    fill(client, 30, begin=100)
    store.prune("mena", retention=Retention(max_count=1))
    invariants.check(store)
    snapshot = another(store).read_latest("mena")
    assert snapshot is not None
    assert snapshot.value == "other"


@pytest.mark.every_store
def test_a_record_that_comes_back_within_its_grace_stays(store: Store) -> None:
    """A snapshot that is published again expires with the TTL of its first publish."""
    client = keeping(store, 1)
    client.publish("mena", "again", id="again", ts=at(5))
    fill(client, 40)
    assert store._context.keys.id("mena", "again") in expiring(store)
    for again in (client, another(store)):
        commit = again.publish("mena", "again", id="again", ts=at(5))
        assert (commit.version, commit.created) == (42, again is client)
        invariants.check(store)


AGAIN: dict[str, dict[str, Any]] = {
    "the same": {},
    "another ts": {"ts": at(1003)},
    "other content": {"value": "other"},
    "other labels": {"labels": {"a": "b"}},
}


@pytest.mark.every_store
@pytest.mark.parametrize("by", ["publish", "prune"])
@pytest.mark.parametrize("again", AGAIN)
def test_a_snapshot_that_replaced_a_lost_one_outlives_its_row(store: Store, again: str, by: str) -> None:
    """A row whose records were lost leaves the log, and what was published again under its id is deleted."""
    lost: dict[str, Any] = {"value": "lost", "ts": at(5)}
    store.publish("mena", **lost, id="again")
    fill(store, 2 * manifest.F)
    ref = stored(store).log.pages[0]
    assert ref.spans(1), "its row is in a page"
    Damage(store).delete(*store._context.keys.records("mena", rows_again(store)[0]))
    there = lost | AGAIN[again]
    version = store.publish("mena", **there, id="again").version
    fill(store, 3 * manifest.F, begin=100)
    assert stored(store).log.rows[0].version > version, "both rows are in pages"
    count = stored(store).head.count
    if by == "prune":
        keeping(store, count - manifest.F).prune("mena")
    else:
        fill(keeping(store, count), 2 * manifest.F, begin=200)
    assert ref.key in expiring(store), "the page with the lost row has left the log"
    assert [row.version for row in rows_again(store)] == [version]
    invariants.check(store)
    snapshot = another(store).read("mena", id="again")
    assert snapshot is not None
    assert (snapshot.value, snapshot.version) == (there["value"], version)
    fill(store, 6 * manifest.F, begin=300)
    keeping(store, 1).prune("mena")
    assert not [key for key in permanent(store, "id") | permanent(store, "ts") if key.endswith("again")]
    invariants.check(store)


@pytest.mark.parametrize("factor", [1, 37])
def test_what_a_publish_reads_before_it_unlinks(store: Store, factor: int) -> None:
    """A producer with a bounded history takes more round trips because ids may have been published again."""
    client, meddler = meddled(keeping(store, 40))
    fill(client, 1)
    meddler.batches.clear()
    for number in range(1, 160):
        before = len(meddler.batches)
        client.publish("mena", number, id=f"id-{number}", ts=at(1000 + number * factor % 1009))
        *reads, _ = meddler.batches[before:]
        assert len(reads) <= 1
        assert not any(isinstance(c, Get) and ":page:" in c.key for batch in reads for c in batch)
        if factor == 1:
            assert all(isinstance(command, Peek) for batch in reads for command in batch)
    assert len(meddler.batches) > 160 + 20
    stranger, meddler = meddled(client)
    for number in range(160, 160 + 4 * manifest.F):
        before = len(meddler.batches)
        stranger.publish("mena", number, id=f"id-{number}", ts=at(10_000 + number))
        assert len(meddler.batches) - before <= 3 + (number == 160)
    invariants.check(store)


# --- readers in between ----------------------------------------------------------------------------


@pytest.mark.every_store
def test_a_reader_with_the_previous_manifest_still_finds_its_payload(store: Store) -> None:
    """A reader between the manifest and the payload fails at each publish."""
    fill(store, 12)
    reader, meddler = meddled(store, cache_bytes=0)
    reader.status("mena")

    def overtake() -> None:
        client = keeping(store, 1)
        fill(client, 30, begin=12)
        client.prune("mena")

    meddler.before(len(meddler.batches) + 1, overtake)
    snapshot = reader.read_latest("mena")
    assert snapshot is not None
    assert snapshot.value == 11
    assert store._context.keys.id("mena", "id-11") in expiring(store)
    assert len(meddler.batches) == 3, "found at once, without looking again"


def test_a_reader_later_than_the_grace_gets_the_current_version(store: Store) -> None:
    """A slow reader is told of damage where there is none."""
    fill(store, 12)
    reader, meddler = meddled(store, cache_bytes=0)
    reader.status("mena")

    def overtake() -> None:
        client = hasty(store, 1)
        fill(client, 40, begin=12)
        pass_the_grace()

    meddler.before(len(meddler.batches) + 1, overtake)
    snapshot = reader.read_latest("mena")
    assert snapshot is not None
    assert snapshot.value == 51


def test_a_history_that_was_begun_before_is_read_to_its_end(store: Store) -> None:
    """Listing a long history fails in the middle whenever a producer prunes."""
    fill(store, 60)
    reader, meddler = meddled(store)
    rows = reader.history("mena", limit=None)
    first = next(rows)
    batches = len(meddler.batches)
    pruned = store.prune("mena", retention=Retention(max_count=1))
    assert pruned.let_go == 60 - manifest.recent()
    assert [row.id for row in (first, *rows)] == [f"id-{number}" for number in reversed(range(60))]
    assert len(meddler.batches) > batches, "unlinked pages were read"
    assert [row.id for row in reader.history("mena", limit=None)] == ["id-59"]
