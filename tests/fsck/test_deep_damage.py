"""Damage in a log of several levels, with gaps in its versions, backfilled times, dedupe keys and labels."""

from __future__ import annotations

import attrs
import pytest

from swapstore import Retention, Row, Store
from swapstore.format import manifest, pages
from tests.fsck.simulated import MANIFEST, Clinic, grown, key
from tests.support import invariants
from tests.support.damage import Damage
from tests.support.drivers import another, meddled

pytestmark = pytest.mark.usefixtures("tiny_pages")
SHAPES = pytest.mark.parametrize(
    ("gaps", "backfilled"), [(False, False), (True, False), (False, True), (True, True)]
)


def check_whole(clinic: Clinic) -> None:
    """Repair, and compare the history row for row."""
    clinic.repaired()
    assert clinic.history() == clinic.rows
    latest = another(clinic.store).read_latest("mena")
    assert latest is not None
    assert latest.ts == max(row.ts for row in clinic.rows)
    again = another(clinic.store).publish("mena", "again", dedupe_key=clinic.rows[-1].dedupe_key)
    assert (again.created, again.id) == (False, clinic.rows[-1].id), "dedupe keys are honoured"


def test_a_healthy_deep_log_is_healthy() -> None:
    """Every dataset with a page of references would be called damaged, and rewritten."""
    for count in range(1, 40):
        assert grown(count, gaps=bool(count % 2)).problems() == set()


def test_a_healthy_log_with_pages_of_the_real_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes that everybody has: 300 snapshots make a page of references to pages of 32 rows."""
    monkeypatch.setattr(manifest, "F", 32)
    monkeypatch.setattr(manifest, "G", 8)
    clinic = grown(300)
    assert clinic.pages(of_references=True)
    assert clinic.problems() == set()
    clinic.delete(*clinic.pages()[2:4])
    check_whole(clinic)


@SHAPES
def test_a_lost_manifest_of_a_deep_log_comes_back_row_for_row(gaps: bool, backfilled: bool) -> None:  # noqa: FBT001
    """Versions that clients have written down must name the same snapshots after a rebuild."""
    clinic = grown(23, gaps=gaps, backfilled=backfilled)
    clinic.delete(MANIFEST)
    check_whole(clinic)


@SHAPES
def test_each_page_alone(gaps: bool, backfilled: bool) -> None:  # noqa: FBT001
    """A page of any level is rebuilt: of rows, or of references, whose pages are taken apart."""
    well = grown(23, gaps=gaps, backfilled=backfilled)
    for page in (*well.pages(), *well.pages(of_references=True)):
        clinic = well.copy()
        clinic.delete(page)
        check_whole(clinic)


@SHAPES
def test_holes_next_to_each_other_and_apart(gaps: bool, backfilled: bool) -> None:  # noqa: FBT001
    """Several lost pages at once must not trade their rows."""
    well = grown(23, gaps=gaps, backfilled=backfilled)
    pages, above = well.pages(), well.pages(of_references=True)
    for lost in (
        pages[:2],
        pages[1:4],
        pages[::2],
        pages,
        above[-1:] + pages[:1],
        above[1:],
        above[:1] + pages[-1:],
    ):
        clinic = well.copy()
        clinic.delete(*lost)
        check_whole(clinic)


def test_a_hole_and_dropped_rows() -> None:
    """What can be brought back is, though payloads beside it are gone for good."""
    well = grown(23, gaps=True)
    for lost in (1, 4, 9, 16, 23):
        clinic = well.copy()
        clinic.delete(*clinic.pages()[1:3], key("id", lost), key("id", 12))
        (report,) = another(clinic.store).repair("mena", apply=True)
        clinic.repaired()
        gone = {f"id-{lost}", "id-12"}
        assert [row for row in clinic.rows if row.id not in gone] == clinic.history()
        assert set(report.dropped) <= gone, "those in a lost page are not known to have been there"


@pytest.mark.parametrize("many", [1, 2, 5])
def test_rows_that_have_lost_their_ts_records_too(many: int) -> None:
    """Without an origin a snapshot still finds its place, and shifts nobody else's version."""
    well = grown(23, gaps=True)
    lost = [key("ts", 5 + 3 * number) for number in range(many)]
    for keys in ([MANIFEST], well.pages()[1:4], well.pages(of_references=True)[:1]):
        clinic = well.copy()
        clinic.delete(*lost, *keys)
        clinic.repaired()
        told = [row for row in clinic.rows if key("ts", row.ts) not in lost]
        assert [row for row in clinic.history() if key("ts", row.ts) not in lost] == told
        clinic.still_has({row.id for row in clinic.rows})
        history = clinic.history()
        clinic.delete(MANIFEST)
        clinic.repaired()
        assert [(row.id, row.version) for row in clinic.history()] == [(r.id, r.version) for r in history]


@pytest.mark.parametrize("damage", ["pages", "references", "body"])
def test_pinned_and_rolled_back_survive(damage: str) -> None:
    """An operator took readers away from a bad snapshot: a repair must not put them back on it."""
    well = grown(23)
    well.store.pin("mena", id="id-3")
    well.store.rollback("mena", id="id-5")
    clinic = well.copy()
    if damage == "body":
        clinic.alter(MANIFEST, lambda raw: raw[:-9])
    else:
        clinic.delete(*clinic.pages(of_references=damage == "references"))
    clinic.repaired()
    assert clinic.history() == clinic.rows
    reader = another(clinic.store)
    snapshot = reader.read_latest("mena")
    assert snapshot is not None
    assert snapshot.id == "id-3"
    status = reader.unpin("mena")
    assert status.latest.id == "id-5"


def test_retention_is_respected_after_a_rebuild() -> None:
    """What retention hides must not come back into sight with a repaired page or manifest."""
    for damage in ("body", "pages"):
        clinic = grown(23)
        context = attrs.evolve(another(clinic.store)._context, retention=Retention(max_count=9))
        keeper = Store(another(clinic.store)._driver, context)
        keeper.publish("mena", {"n": 24}, id="id-24", ts=24)
        shown, stored = clinic.history(), invariants.check(clinic.store)
        assert len(stored) > len(shown), "some are hidden and not let go of yet"
        clinic.rows[:] = stored
        if damage == "body":
            clinic.alter(MANIFEST, lambda raw: raw[:-9])
        else:
            clinic.delete(*clinic.pages())
        clinic.repaired()
        assert clinic.history() == shown
        keeper = Store(
            another(clinic.store)._driver, attrs.evolve(context, cache=another(clinic.store)._context.cache)
        )
        keeper.prune("mena")
        assert clinic.problems() == set()


def test_the_same_on_real_stores(store: Store) -> None:
    """Lua, SQLite and the simulation must agree about a repair of several levels."""
    for number in range(1, 24):
        store.publish("mena", {"n": number}, id=f"id-{number}", ts=number, labels={"n": str(number)})
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


def test_a_pinned_snapshot_that_is_gone_is_served_no_more() -> None:
    """Readers would fail for ever on what is pinned, although there is a latest that they could have."""
    well = grown(5)
    well.store.pin("mena", id="id-2")
    well.delete(key("id", 2))
    client, meddler = meddled(well.store)
    (report,) = client.repair("mena", apply=True)
    assert (report.dropped, report.left) == (("id-2",), ())
    assert meddler.commits() == 1, "no swap leaves readers with what is gone"
    snapshot = another(well.store).read_latest("mena")
    assert snapshot is not None
    assert snapshot.id == "id-5"
    assert well.problems() == set()


def test_a_page_of_other_times_than_its_reference_says_is_found() -> None:
    """A page of a restored backup is whole and has the right name: searches by time would miss its rows."""
    well = grown(7)
    name = well.pages()[0]
    ref = next(ref for ref in well.refs() if ref.key == name)
    page = pages.parse(well.sim.keyspace.values[name].data, ref, "mena")
    rows = [attrs.evolve(row, ts=row.ts + 50) for row in page.rows]
    epoch = name.rpartition(":")[2].partition(".")[0]
    other = pages.seal(rows, level=0, dataset="mena", epoch=epoch, keys=well.store._context.keys)
    assert other.ref.key == name
    well.put(name, other.record)
    assert "page-damaged" in well.problems()
    well.repaired()
    assert well.history() == well.rows
