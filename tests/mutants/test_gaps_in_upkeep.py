"""Mistakes of retention, verify and repair that no other test told, each now with a check of its own."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from swapstore import Retention, Store
from swapstore.commands import Get
from swapstore.errors import Contended
from swapstore.format import manifest, pages
from swapstore.testing import SimulatedStore
from tests.support import invariants
from tests.support.drivers import another, lose, meddled
from tests.upkeep.clinic import Clinic, grown, key


@pytest.fixture(autouse=True)
def _tiny_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifest, "F", 2)
    monkeypatch.setattr(manifest, "G", 2)


def keeping(store: Store, count: int) -> Store:
    """Another client, with retention."""
    return meddled(store, retention=Retention(max_count=count))[0]


# --- retention -------------------------------------------------------------------------------------


def test_a_wider_bound_does_not_bring_hidden_rows_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two producers, two bounds: a history would show again what it had hidden, with holes in it."""
    monkeypatch.setattr(manifest, "F", 4)
    store = SimulatedStore().connect()
    for number in range(1, 7):
        store.publish("mena", number, id=f"id-{number}")
    keeping(store, 1).publish("mena", 7, id="id-7")
    keeping(store, 3).publish("mena", 8, id="id-8")
    assert [row.id for row in store.history("mena", limit=None)] == ["id-8", "id-7"]


def test_a_lost_publish_that_is_hidden_is_acknowledged() -> None:
    """Its reply is lost, it is sealed and hidden before the producer asks: it was committed all the same."""
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


# --- verify ----------------------------------------------------------------------------------------


def test_a_record_that_a_replica_shows_late_is_not_dropped() -> None:
    """A replica that lags for a moment would make a repair take snapshots out of the history for good."""
    well = grown(5)
    seen = meddled(well.store)
    list(seen[0].verify("mena"))
    for number in range(len(seen[1].batches)):
        client, meddler = meddled(well.store)

        def late(replies: list[Any], meddler: Any = meddler) -> list[Any]:
            asked = zip(meddler.batches[-1], replies, strict=True)
            return [None if isinstance(each, Get) and ":id:" in each.key else reply for each, reply in asked]

        meddler.replies(number, late)
        assert [finding for finding in client.verify("mena") if finding.wrong] == []


def test_a_page_of_other_times_than_its_reference_says_is_found() -> None:
    """A page of a restored backup is whole and has the right name: searches by time would miss its rows."""
    well = grown(7)
    name = well.pages()[0]
    ref = next(ref for ref in _refs(well) if ref.key == name)
    page = pages.parse(well.sim.keyspace.values[name].data, ref, "mena")
    rows = [attrs.evolve(row, ts=row.ts + 50) for row in page.rows]
    epoch = name.rpartition(":")[2].partition(".")[0]
    other = pages.seal(rows, level=0, dataset="mena", epoch=epoch, keys=well.store._context.keys)
    assert other.ref.key == name
    well.put(name, other.record)
    assert "page-damaged" in well.problems()
    well.repaired()
    assert well.history() == well.rows


def _refs(well: Clinic) -> list[Any]:
    """All references of a log, at any depth."""
    ahead, found = list(invariants.manifest_of(well.store).log.pages), []
    while ahead:
        ref = ahead.pop()
        found.append(ref)
        ahead += pages.parse(well.sim.keyspace.values[ref.key].data, ref, "mena").pages
    return found


def test_nothing_is_called_missing_before_a_reset_is_noticed() -> None:
    """Findings are told as they come: after a flush they would name records that nobody misses."""
    for number in range(1, 12):
        well = grown(7)
        client, meddler = meddled(well.store)

        def begin_anew(well: Clinic = well) -> None:
            well.flush()
            another(well.store).publish("mena", "anew", id="anew", ts=1)

        meddler.before(number, begin_anew)
        told = []
        try:
            for finding in client.verify("mena"):
                told.append(finding)  # noqa: PERF402 - what was told before it raises counts
        except Contended:
            pass
        assert [finding for finding in told if finding.wrong] == [], number


# --- repair ----------------------------------------------------------------------------------------


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


def test_one_publish_beside_a_repair_stays() -> None:
    """A repair that drafts from what it saw would drop the publish, and then call its records leaked."""
    well = grown(6)
    well.delete(key("ts", 6))
    probe, watched = meddled(well.copy().store)
    probe.repair("mena", apply=True)
    for number in range(len(watched.batches)):
        clinic = well.copy()
        client, meddler = meddled(clinic.store)

        def publish(clinic: Clinic = clinic) -> None:
            clinic.store.publish("mena", "new", id="new", ts=99)

        meddler.before(number, publish)
        client.repair("mena", apply=True)
        assert [row.id for row in clinic.history()] == [*(row.id for row in well.rows), "new"], number
        assert clinic.sim.keyspace.values["swapstore:id:{mena}:new"].expires_at is None


def test_an_id_that_was_taken_again_is_never_without_its_record() -> None:
    """A repair would give the record of an acknowledged publish a TTL, and if it is cut then, it expires."""
    well = grown(5)
    well.delete(key("id", 2), key("ts", 2))
    well.store.publish("mena", "again", id="id-2", ts=99)
    client, meddler = meddled(well.store)

    def check() -> None:
        assert well.sim.keyspace.values[key("id", 2)].expires_at is None

    for number in range(60):
        meddler.after(number, check)
    client.repair("mena", apply=True)
    assert len(meddler.batches) < 60
    assert [row.id for row in well.history()] == ["id-1", "id-3", "id-4", "id-5", "id-2"]


def test_a_leaked_page_that_is_sealed_again_stays() -> None:
    """A producer seals the very page that a repair is about to let expire: a committed page would vanish."""
    well = grown(5)
    while len(invariants.manifest_of(well.store).log.rows) < 2 * manifest.F - 1:
        well.store.publish("mena", "x")
    well.rows[:] = well.history()
    well.torn("torn", writes=3)
    probe, watched = meddled(well.copy().store)
    probe.repair("mena", apply=True)
    sealed = 0
    for number in range(len(watched.batches)):
        clinic = well.copy()
        client, meddler = meddled(clinic.store)

        def check(clinic: Clinic = clinic) -> None:
            for ref in _refs(clinic):
                assert clinic.sim.keyspace.values[ref.key].expires_at is None, f"{ref.key} may expire"

        def seal(clinic: Clinic = clinic) -> None:
            clinic.store.publish("mena", "sealing", ts=99)

        meddler.before(number, seal)
        for later in range(number, number + 20):
            meddler.after(later, check)
        before = set(clinic.pages())
        client.repair("mena", apply=True)
        sealed += set(clinic.pages()) > before
        clinic.repaired()
    assert sealed
