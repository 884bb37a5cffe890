"""Each kind of damage: a clear finding, a dry run that changes nothing, and a repair without losses."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from swapstore import Retention, Store
from swapstore.format import manifest
from tests.fsck.conftest import DEEP, MANIFEST, StoredDataset, key
from tests.support import invariants
from tests.support.drivers import another, meddled
from tests.support.times import at

Make = Callable[[int], StoredDataset]


def check_dry_run(published: StoredDataset, expected: str) -> None:
    """Verify names the problem, and a repair without `apply` changes nothing."""
    assert expected in published.problems()
    before = invariants.contents(published.store)
    (report,) = another(published.store).repair("mena")
    assert not report.applied
    assert expected in {finding.problem.value for finding in report.findings}
    assert invariants.contents(published.store) == before


# --- the manifest ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, DEEP])
def test_a_deleted_manifest_is_rebuilt(published: Make, count: int) -> None:
    """An evicted manifest takes its history with it, or versions change."""
    dataset = published(count)
    dataset.damage.delete(MANIFEST)
    check_dry_run(dataset, "manifest-missing")
    report = dataset.repair()
    assert report.restored == tuple(row.id for row in dataset.rows)
    dataset.still_reads()
    assert list(another(dataset.store).history("mena", limit=None))[::-1] == dataset.rows, "row for row"


DAMAGES = {
    "truncated": lambda raw: raw[: len(raw) // 2],
    "header-cut": lambda raw: raw[:40],
    "emptied": lambda _: b"",
    "other-json": lambda _: b'{"hello": "world"}',
    "another-dataset": lambda raw: raw.replace(b'"dataset":"mena"', b'"dataset":"asia"', 1),
    "body-altered": lambda raw: raw.replace(b'"rows":[', b'"rows":[[],', 1),
    "out-of-order": lambda raw: raw.replace(b'[35,"id-35",', b'[900,"id-35",'),
}


@pytest.mark.every_store
@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_manifest_is_replaced(published: Make, how: str) -> None:
    """Something else under the manifest's key is not called damage, or the history is lost."""
    dataset = published(40)
    dataset.damage.alter(MANIFEST, DAMAGES[how])
    check_dry_run(dataset, "manifest-damaged")
    dataset.repair()
    dataset.still_reads()


@pytest.mark.every_store
@pytest.mark.parametrize(("how", "is_known"), [("body-altered", True), ("header-cut", False)])
def test_a_pin_is_known_as_long_as_the_header_can_be_read(
    *, published: Make, how: str, is_known: bool
) -> None:
    """What was pinned away is served after a repair that could have known, or nobody is told of the pin."""
    dataset = published(12)
    dataset.store.pin("mena", id="id-3")
    dataset.damage.alter(MANIFEST, DAMAGES[how])
    (planned,) = another(dataset.store).repair("mena")
    report = dataset.repair()
    assert planned.pin_unknown == report.pin_unknown == (not is_known)
    served = another(dataset.store).read_latest("mena")
    assert served is not None
    assert served.id == ("id-3" if is_known else "id-12")


def test_a_pin_stays_unknown_when_a_repair_has_more_to_do(store: Store, published: Make) -> None:
    """Nobody is told that a pin may be gone, because something else was repaired after the manifest."""
    dataset = published(12)
    dataset.damage.delete(MANIFEST)
    client, meddler = meddled(store)
    lost: list[str] = []

    def lose() -> None:
        if not lost and another(store).read_latest("mena"):  # the manifest is back
            lost.append("id-2")
            dataset.damage.delete(key("id", 2))

    for number in range(100):
        meddler.before(number, lose)
    (report,) = client.repair("mena", apply=True)
    assert (report.dropped, report.pin_unknown, dataset.problems()) == (("id-2",), True, [])


@pytest.mark.every_store
def test_a_list_in_place_of_the_manifest_is_replaced(published: Make) -> None:
    """A value of another type under the manifest's key is not called damage."""
    dataset = published(3)
    if not dataset.damage.has_types:
        return
    dataset.damage.delete(MANIFEST)
    dataset.damage.client.rpush(MANIFEST, "x")
    check_dry_run(dataset, "manifest-damaged")
    dataset.repair()
    dataset.still_reads()


def test_a_manifest_with_a_ttl_is_made_permanent(published: Make) -> None:
    """A dataset disappears because somebody ran EXPIRE on its manifest."""
    dataset = published(3)
    dataset.damage.expire(MANIFEST)
    check_dry_run(dataset, "manifest-expiring")
    dataset.repair()
    dataset.still_reads()


def test_a_lost_manifest_that_was_published_over_gives_the_history_back(published: Make) -> None:
    """Old snapshots are lost when a cron job publishes before anybody notices the lost manifest."""
    dataset = published(DEEP)
    dataset.damage.delete(MANIFEST)
    producer = another(dataset.store)
    for number in (DEEP + 1, DEEP + 2):
        producer.publish("mena", {"n": number}, id=f"id-{number}", ts=at(number))
    check_dry_run(dataset, "lost")
    report = dataset.repair()
    assert len(report.restored) == DEEP
    for row in another(dataset.store).history("mena", limit=None):
        if row.ts > DEEP:
            dataset.rows.append(row)
    assert len(dataset.rows) == DEEP + 2
    dataset.still_reads()


def test_a_wrong_count_is_corrected(published: Make) -> None:
    """A count that somebody edited by hand stays wrong."""
    dataset = published(3)
    dataset.damage.alter(MANIFEST, lambda raw: raw.replace(b'"count":3', b'"count":7', 1))
    check_dry_run(dataset, "count-wrong")
    dataset.repair()


def test_a_latest_that_the_log_does_not_hold_is_replaced(published: Make) -> None:
    """A header permanently serves a snapshot that its own log does not name."""
    dataset = published(3)
    stored = dataset.damage.get(MANIFEST)
    line, body = stored.split(b"\n", 1)
    dataset.damage.alter(
        MANIFEST,
        lambda _: line + b"\n" + body.replace(b'[3,"id-3",', b'[4,"id-3",'),
    )
    assert dataset.problems()
    dataset.repair()
    dataset.still_reads()


# --- pages -----------------------------------------------------------------------------------------


def test_a_deleted_page_is_rebuilt(published: Make) -> None:
    """A lost page takes its snapshots with it, or changes their versions."""
    dataset = published(DEEP)
    dataset.damage.delete(dataset.page())
    check_dry_run(dataset, "page-missing")
    report = dataset.repair()
    assert len(report.restored) == manifest.F
    dataset.still_reads()
    assert list(another(dataset.store).history("mena", limit=None))[::-1] == dataset.rows, "row for row"


def test_an_altered_page_is_rebuilt(published: Make) -> None:
    """One wrong byte in a page is not found, or the page is rewritten under the same name."""
    dataset = published(DEEP)
    page = dataset.page()
    dataset.damage.alter(page, lambda raw: raw.replace(b'[7,"id-7",', b'[6,"id-7",'))
    check_dry_run(dataset, "page-damaged")
    dataset.repair()
    assert dataset.page() != page
    dataset.still_reads()


def test_a_page_with_a_ttl_is_made_permanent(published: Make) -> None:
    """A page disappears because somebody ran EXPIRE on it."""
    dataset = published(DEEP)
    dataset.damage.expire(dataset.page())
    check_dry_run(dataset, "page-expiring")
    dataset.repair()
    dataset.still_reads()


# --- records ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, DEEP - 1, DEEP], ids=["in-a-page", "in-the-tail", "latest"])
@pytest.mark.parametrize("how", ["deleted", "altered", "emptied", "of-another-id"])
def test_a_snapshot_without_its_payload_is_dropped_and_named(published: Make, number: int, how: str) -> None:
    """A lost payload is not reported, stays in the history, or takes other snapshots with it."""
    dataset = published(DEEP)
    record = key("id", number)
    if how == "deleted":
        dataset.damage.delete(record)
    else:
        other = dataset.damage.get(key("id", 40))
        change = {
            "altered": lambda raw: raw[:-1] + b"!",
            "emptied": lambda _: b"",
            "of-another-id": lambda _: other,
        }
        dataset.damage.alter(record, change[how])
    check_dry_run(dataset, "record-missing" if how == "deleted" else "record-damaged")
    report = dataset.repair()
    assert report.dropped == (f"id-{number}",)
    dataset.still_reads(but=(f"id-{number}",))


@pytest.mark.every_store
@pytest.mark.parametrize("kind", ["id", "ts"])
@pytest.mark.parametrize("number", [1, DEEP])
def test_a_committed_key_with_a_ttl_is_made_permanent(published: Make, kind: str, number: int) -> None:
    """A record silently disappears because somebody ran EXPIRE on it."""
    dataset = published(DEEP)
    dataset.damage.expire(key(kind, number))
    check_dry_run(dataset, "record-expiring" if kind == "id" else "ts-expiring")
    dataset.repair()
    dataset.still_reads()


@pytest.mark.parametrize("how", ["deleted", "altered", "altered-and-expiring"])
@pytest.mark.parametrize("number", [1, DEEP])
def test_a_lost_ts_record_is_written_again(published: Make, how: str, number: int) -> None:
    """A snapshot without its ts record cannot be rebuilt after the manifest is lost."""
    dataset = published(DEEP)
    record = key("ts", number)
    if how == "deleted":
        dataset.damage.delete(record)
    else:
        dataset.damage.alter(record, lambda raw: raw.replace(b'"entry":"', b'"entry":"?'))
    if how == "altered-and-expiring":
        dataset.damage.expire(record)
    check_dry_run(dataset, "ts-missing" if how == "deleted" else "ts-damaged")
    dataset.repair()
    dataset.still_reads()
    dataset.damage.delete(MANIFEST)
    dataset.repair()
    dataset.still_reads()


@pytest.mark.every_store
def test_several_kinds_of_damage_at_once(published: Make) -> None:
    """Several kinds of damage need several runs, or repair fails on them."""
    dataset = published(DEEP)
    dataset.damage.delete(dataset.page(), key("id", 50), key("ts", 60))
    dataset.damage.expire(key("id", 70))
    dataset.damage.unlist()
    found = dataset.problems()
    assert found == ["name-missing", "page-missing", "record-expiring", "record-missing", "ts-missing"] or (
        set(found)
        == {"lost", "name-missing", "page-missing", "record-expiring", "record-missing", "ts-missing"}
    )
    assert dataset.repair().dropped == ("id-50",)
    dataset.still_reads(but=("id-50",))
    assert another(dataset.store).datasets() == ["mena"]


# --- going back ------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 3, 40])
def test_an_older_manifest_that_was_put_back_loses_nothing(published: Make, steps: int) -> None:
    """A manifest restored from a backup loses what was committed since."""
    dataset = published(20)
    old = dataset.damage.get(MANIFEST)
    for number in range(21, 21 + steps):
        dataset.store.publish("mena", {"n": number}, id=f"id-{number}", ts=at(number))
    dataset.rows[:] = list(dataset.store.history("mena", limit=None))[::-1]
    dataset.damage.put(MANIFEST, old)
    check_dry_run(dataset, "lost")
    assert len(dataset.repair().restored) == steps
    dataset.still_reads()


def test_a_count_that_is_too_large_hides_nothing(published: Make) -> None:
    """A damaged count makes retention unlink what is within its bound."""
    dataset = published(5)
    dataset.damage.alter(MANIFEST, lambda raw: raw.replace(b'"count":5', b'"count":500', 1))
    keeping = msgspec.structs.replace(another(dataset.store)._context, retention=Retention(max_count=6))
    Store(dataset.store._driver, keeping).publish("mena", {"n": 6}, id="id-6", ts=at(6))
    dataset.rows[:] = list(another(dataset.store).history("mena", limit=None))[::-1]
    assert len(dataset.rows) == 6
    dataset.repair()
    dataset.still_reads()
