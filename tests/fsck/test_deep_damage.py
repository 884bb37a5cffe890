"""Damage in a log of several levels, with version gaps, backfills, dedupe keys and labels."""

from __future__ import annotations

from datetime import timedelta

import attrs
import msgspec
import pytest

from swapstore import Retention, Row, Store
from swapstore.commands import Get
from swapstore.format import manifest, pages
from tests.fsck.simulated import MANIFEST, SimulatedDataset, grown, key, opened
from tests.support import invariants
from tests.support.damage import Damage
from tests.support.drivers import another, meddled
from tests.support.times import at

pytestmark = [pytest.mark.usefixtures("tiny_pages"), pytest.mark.slow]
SHAPES = pytest.mark.parametrize(
    ("gaps", "backfilled"), [(False, False), (True, False), (False, True), (True, True)]
)


def check_whole(dataset: SimulatedDataset) -> None:
    """Repair, and compare the history row for row."""
    dataset.repaired()
    assert dataset.history() == dataset.rows
    latest = another(dataset.store).read_latest("mena")
    assert latest is not None
    assert latest.ts == max(row.ts for row in dataset.rows)
    again = another(dataset.store).publish("mena", "again", dedupe_key=dataset.rows[-1].dedupe_key)
    assert (again.created, again.id) == (False, dataset.rows[-1].id), "dedupe keys are honoured"


def test_a_healthy_deep_log_is_healthy() -> None:
    """A dataset with a page of references is called damaged, and rewritten."""
    for count in range(1, 40):
        assert grown(count, gaps=bool(count % 2)).problems() == set()


def test_a_healthy_log_with_pages_of_the_real_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real page sizes a healthy dataset of 300 snapshots is called damaged."""
    monkeypatch.setattr(manifest, "F", 8)
    monkeypatch.setattr(manifest, "G", 8)
    dataset = grown(300)
    assert dataset.pages(of_references=True)
    assert dataset.problems() == set()
    dataset.delete(*dataset.pages()[2:4])
    check_whole(dataset)


def test_verify_reads_sixteen_pages_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """To verify a long history takes a round trip for each page, and another for its eight rows."""
    monkeypatch.setattr(manifest, "F", 8)
    monkeypatch.setattr(manifest, "G", 8)
    client, meddler = meddled(grown(1000).store)
    assert list(client.verify("mena")) == []
    reads = [batch for batch in meddler.batches if any(isinstance(command, Get) for command in batch)]
    pages_read = [batch for batch in reads if isinstance(batch[0], Get) and ":page:" in batch[0].key]
    assert len(pages_read) <= 1000 / 128 + 3
    assert len(reads) - len(pages_read) <= 1000 / 32 + 3


@SHAPES
def test_a_lost_manifest_of_a_deep_log_comes_back_row_for_row(gaps: bool, backfilled: bool) -> None:  # noqa: FBT001
    """After a rebuild a version that a client wrote down names another snapshot."""
    dataset = grown(23, gaps=gaps, backfilled=backfilled)
    dataset.delete(MANIFEST)
    check_whole(dataset)


@SHAPES
def test_each_page_can_be_rebuilt(gaps: bool, backfilled: bool) -> None:  # noqa: FBT001
    """A lost page of some level, of rows or of references, is not rebuilt."""
    original = grown(23, gaps=gaps, backfilled=backfilled)
    for page in (*original.pages(), *original.pages(of_references=True)):
        dataset = original.copy()
        dataset.delete(page)
        check_whole(dataset)


@SHAPES
def test_several_lost_pages(gaps: bool, backfilled: bool) -> None:  # noqa: FBT001
    """Several lost pages exchange rows when they are rebuilt."""
    original = grown(23, gaps=gaps, backfilled=backfilled)
    pages, above = original.pages(), original.pages(of_references=True)
    for lost in (
        pages[:2],
        pages[1:4],
        pages[::2],
        pages,
        above[-1:] + pages[:1],
        above[1:],
        above[:1] + pages[-1:],
    ):
        dataset = original.copy()
        dataset.delete(*lost)
        check_whole(dataset)


def test_a_lost_page_beside_lost_payloads() -> None:
    """Lost payloads keep a lost page from being rebuilt."""
    original = grown(23, gaps=True)
    for lost in (1, 4, 9, 16, 23):
        dataset = original.copy()
        dataset.delete(*dataset.pages()[1:3], key("id", lost), key("id", 12))
        (report,) = another(dataset.store).repair("mena", apply=True)
        dataset.repaired()
        gone = {f"id-{lost}", "id-12"}
        assert [row for row in dataset.rows if row.id not in gone] == dataset.history()
        assert set(report.dropped) <= gone, "the rows of a lost page are unknown"


@pytest.mark.parametrize("many", [1, 2, 5])
def test_rows_that_have_lost_their_ts_records_too(many: int) -> None:
    """A snapshot without its ts record is not placed, or shifts the versions of others."""
    original = grown(23, gaps=True)
    lost = [key("ts", 5 + 3 * number) for number in range(many)]
    for keys in ([MANIFEST], original.pages()[1:4], original.pages(of_references=True)[:1]):
        dataset = original.copy()
        dataset.delete(*lost, *keys)
        dataset.repaired()
        told = [row for row in dataset.rows if key("ts", row.ts) not in lost]
        assert [row for row in dataset.history() if key("ts", row.ts) not in lost] == told
        dataset.still_has({row.id for row in dataset.rows})
        history = dataset.history()
        dataset.delete(MANIFEST)
        dataset.repaired()
        assert [(row.id, row.version) for row in dataset.history()] == [(r.id, r.version) for r in history]


@pytest.mark.parametrize("damage", ["pages", "references", "body"])
def test_pins_and_rollbacks_survive_a_repair(damage: str) -> None:
    """A repair puts readers back on the snapshot that an operator took away."""
    original = grown(23)
    original.store.pin("mena", id="id-3")
    original.store.rollback("mena", id="id-5")
    dataset = original.copy()
    if damage == "body":
        dataset.alter(MANIFEST, lambda raw: raw[:-9])
    else:
        dataset.delete(*dataset.pages(of_references=damage == "references"))
    dataset.repaired()
    assert dataset.history() == dataset.rows
    reader = another(dataset.store)
    snapshot = reader.read_latest("mena")
    assert snapshot is not None
    assert snapshot.id == "id-3"
    status = reader.unpin("mena")
    assert status.latest.id == "id-5"


def test_retention_is_respected_after_a_rebuild() -> None:
    """Hidden snapshots are shown again after a page or the manifest was repaired."""
    for damage in ("body", "pages"):
        dataset = grown(23)
        context = msgspec.structs.replace(another(dataset.store)._context, retention=Retention(max_count=9))
        keeper = Store(another(dataset.store)._driver, context)
        keeper.publish("mena", {"n": 24}, id="id-24", ts=at(24))
        shown, stored = dataset.history(), invariants.check(dataset.store)
        assert len(stored) > len(shown), "some are hidden and not unlinked yet"
        dataset.rows[:] = stored
        if damage == "body":
            dataset.alter(MANIFEST, lambda raw: raw[:-9])
        else:
            dataset.delete(*dataset.pages())
        dataset.repaired()
        assert dataset.history() == shown
        keeper = Store(
            another(dataset.store)._driver,
            msgspec.structs.replace(context, cache=another(dataset.store)._context.cache),
        )
        keeper.prune("mena")
        assert dataset.problems() == set()


@pytest.mark.every_store
def test_deep_repairs_on_real_stores(store: Store) -> None:
    """Redis, SQLite and the simulated store differ in a repair of several levels."""
    for number in range(1, 24):
        store.publish("mena", {"n": number}, id=f"id-{number}", ts=at(number), labels={"n": str(number)})
        if number % 4 == 0:
            store.confirm("mena")
    rows: list[Row] = list(store.history("mena", limit=None))[::-1]
    damage = Damage(store)
    assert [f for f in another(store).verify() if f.wrong] == []
    refs = invariants.manifest_of(store).log.pages
    damage.delete(refs[0].key, refs[-1].key, "swapstore:id:{mena}:id-7")
    another(store).repair(apply=True)
    assert [f for f in another(store).verify() if f.wrong] == []
    assert list(another(store).history("mena", limit=None))[::-1] == [row for row in rows if row.id != "id-7"]
    damage.delete(MANIFEST)
    another(store).repair(apply=True)
    assert list(another(store).history("mena", limit=None))[::-1] == [row for row in rows if row.id != "id-7"]
    invariants.check(store)


def test_a_lost_pinned_snapshot_is_unpinned() -> None:
    """Readers fail permanently on a lost pinned snapshot, although there is a latest."""
    original = grown(5)
    original.store.pin("mena", id="id-2")
    original.delete(key("id", 2))
    client, meddler = meddled(original.store)
    (report,) = client.repair("mena", apply=True)
    assert (report.dropped, report.left) == (("id-2",), ())
    assert meddler.commits() == 1, "no swap leaves readers with what is gone"
    snapshot = another(original.store).read_latest("mena")
    assert snapshot is not None
    assert snapshot.id == "id-5"
    assert original.problems() == set()


def test_a_pin_that_left_the_log_takes_no_place_in_a_lost_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of a lost page gets a new version, because the pinned snapshot takes its place."""
    monkeypatch.setattr(manifest, "G", 8)
    original = opened()
    now = original.sim.clock.now_ms()

    def publish(first: int, last: int) -> None:
        for number in range(first, last + 1):
            ts = now - 5000 if number in {11, 12} else now
            original.store.publish("mena", number, id=f"id-{number}", ts=ts)

    publish(1, 24)
    original.store.pin("mena", id="id-12")
    original.store.prune("mena", retention=Retention(max_age=timedelta(seconds=1)))
    publish(25, 32)
    before = original.history()
    ref = max(original.refs(), key=lambda ref: ref.count)
    assert ref.spans(12)
    assert "id-12" not in {row.id for row in before}, "it left the log before this page was sealed"
    assert ref.count < ref.last_version - ref.first_version
    original.delete(ref.key)
    original.repaired()
    assert original.history() == before


def test_a_page_of_other_times_than_its_reference_says_is_found() -> None:
    """A page of a restored backup is not found, and searches by time miss its rows."""
    original = grown(7)
    name = original.pages()[0]
    ref = next(ref for ref in original.refs() if ref.key == name)
    page = pages.parse(original.sim.keyspace.values[name].data, ref, "mena")
    rows = [attrs.evolve(row, ts=row.ts + 50) for row in page.rows]
    epoch = name.rpartition(":")[2].partition(".")[0]
    other = pages.seal(rows, level=0, dataset="mena", epoch=epoch, keys=original.store._context.keys)
    assert other.ref.key == name
    original.put(name, other.record)
    assert "page-damaged" in original.problems()
    original.repaired()
    assert original.history() == original.rows
