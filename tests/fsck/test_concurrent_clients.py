"""Another client acts once during a verify or a repair: nothing is misjudged, nothing committed expires."""

from __future__ import annotations

import pytest

from swapstore.errors import Contended
from swapstore.format import manifest
from tests.fsck.simulated import Clinic, grown, key
from tests.support import invariants
from tests.support.drivers import another, meddled

pytestmark = pytest.mark.usefixtures("tiny_pages")


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
            for ref in clinic.refs():
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
