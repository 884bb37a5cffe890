"""What is permanent without reason: it gets a TTL, is never shown, and nobody else's record goes with it."""

from __future__ import annotations

from itertools import product

import pytest

from swapstore.errors import Corrupt
from swapstore.format import manifest
from swapstore.fsck.findings import Problem
from tests.fsck.simulated import MANIFEST, Clinic, grown, key
from tests.support import invariants
from tests.support.drivers import another

pytestmark = pytest.mark.usefixtures("tiny_pages")
DAY_MS = 24 * 3_600_000


@pytest.fixture
def well() -> Clinic:
    return grown(13)


@pytest.mark.parametrize("writes", [1, 2])
def test_a_torn_commit_is_never_shown(well: Clinic, writes: int) -> None:
    """A server died between the records and the swap: what was never committed would become history."""
    well.torn("torn", writes=writes)
    assert well.problems() == {"leaked"}
    (report,) = another(well.store).repair("mena", apply=True)
    assert report.restored == ()
    well.repaired()
    assert well.history() == well.rows
    expiry = well.sim.keyspace.values["swapstore:id:{mena}:torn"].expires_at
    assert expiry is not None
    assert expiry <= well.sim.clock.ms + DAY_MS
    again = well.store.publish("mena", "torn, again", id="torn", ts=50)
    assert again.created
    invariants.check(well.store)


def test_a_torn_commit_that_seals(well: Clinic) -> None:
    """The page that it left is the one that the next producer seals: it must stay."""
    for writes in range(1, 4):  # its two records and the page; then comes the swap
        clinic = well.copy()
        while len(invariants.manifest_of(clinic.store).log.rows) < 2 * manifest.F - 1:
            clinic.store.publish("mena", "x")
        clinic.rows[:] = clinic.history()
        clinic.torn("torn", writes=writes)
        other = clinic.copy()
        clinic.repaired()
        clinic.store.publish("mena", "sealing")
        assert clinic.problems() == set()
        invariants.check(clinic.store)
        other.store.publish("mena", "sealing", ts=other.rows[-1].ts + 1)
        other.repaired()
        assert [row.id for row in other.rows] == [row.id for row in other.history()][:-1]


def test_a_page_that_nobody_names(well: Clinic) -> None:
    """It would stay for ever."""
    name = "swapstore:page:{mena}:0123abcd.1-2"
    well.put(name, b'{"page":"0123abcd.1-2"}\n{}')
    found = [finding for finding in another(well.store).verify() if finding.wrong]
    assert [(finding.problem, finding.key) for finding in found] == [(Problem.LEAKED, name)]
    well.repaired()
    assert name in well.sim.keyspace.values, "nothing is deleted"


def test_a_live_view_without_a_ttl(well: Clinic) -> None:
    """Somebody ran PERSIST on it."""
    well.store.put_live("mena", "live", ttl=60)
    name = "swapstore:live:{mena}"
    well.put(name, well.sim.keyspace.values[name].data)
    assert well.problems() == {"leaked"}
    well.repaired()


def test_a_page_in_the_way_of_sealing_blocks_until_repair(well: Clinic) -> None:
    """A restored backup left another page under the next page's name: publishing stops, and says why."""
    log, head = invariants.manifest_of(well.store).log, invariants.manifest_of(well.store).head
    first, last = log.rows[0].version, log.rows[manifest.F - 1].version
    name = f"swapstore:page:{{mena}}:{head.etag.partition('.')[0]}.{first}-{last}"
    well.put(name, b'{"page":"other"}\n{}')
    with pytest.raises(Corrupt, match="permanent"):
        more(well)
    assert well.problems() == {"leaked"}
    well.repaired()
    more(well)
    invariants.check(well.store)


def more(clinic: Clinic) -> None:
    for number in range(4):
        clinic.store.publish("mena", number, id=f"more-{number}")


@pytest.mark.parametrize("ts", [99, 3])
def test_an_id_that_was_taken_again_keeps_its_new_record(well: Clinic, ts: int) -> None:
    """A record was deleted by hand, and its id published again: repair must not let go of the new one."""
    well.delete(key("id", 3), key("ts", 3))
    well.store.publish("mena", "new", id="id-3", ts=ts)
    assert well.problems() >= {"record-damaged"}
    well.repaired()
    snapshot = another(well.store).read("mena", id="id-3")
    assert snapshot is not None
    assert (snapshot.value, snapshot.ts) == ("new", ts)
    assert len(well.history()) == 13


def test_leftovers_without_any_manifest_are_left_and_said(well: Clinic) -> None:
    """Nothing can be committed on them; the next publish makes a manifest, and then they go."""
    names = [name for name in well.sim.keyspace.values if ":page:" not in name]
    well.delete(*names)
    assert well.problems() == {"leaked"}
    (report,) = another(well.store).repair("mena", apply=True)
    assert {finding.problem for finding in report.left} == {Problem.LEAKED}
    well.store.publish("mena", "anew")
    well.repaired()


def test_a_dataset_of_which_no_payload_is_left(well: Clinic) -> None:
    """There is nothing to serve: it is said, nothing is made worse, and the next publish helps."""
    well.delete(*(key("id", row.ts) for row in well.rows))
    before = well.sim.keyspace.values[MANIFEST]
    (report,) = another(well.store).repair("mena", apply=True)
    assert len(report.left) == 13
    assert well.sim.keyspace.values[MANIFEST] == before
    well.store.publish("mena", "anew", id="anew", ts=99)
    (report,) = another(well.store).repair("mena", apply=True)
    assert len(report.dropped) == 13
    well.repaired()
    assert [row.id for row in well.history()] == ["anew"]


def test_an_altered_ts_record_is_no_obstacle_to_a_rebuild(well: Clinic) -> None:
    """Two damages at once: the manifest is gone, and what it is rebuilt from was altered."""
    for lost, expiring in product(([MANIFEST], well.pages()[:1]), (False, True)):
        clinic = well.copy()
        if expiring:
            clinic.expire(key("ts", 2))
        clinic.alter(key("ts", 2), lambda raw: raw.replace(b'"size"', b'"Size"'))
        clinic.delete(*lost)
        clinic.repaired()
        assert [(row.id, row.version) for row in clinic.history()] == [(r.id, r.version) for r in clinic.rows]


def test_published_over_a_lost_manifest_without_a_ts_record(well: Clinic) -> None:
    """Others of the lost line prove that it was committed; alone it would be taken for a leak, and expire."""
    well.delete(MANIFEST, key("ts", 4))
    well.alter(key("ts", 6), lambda raw: raw.replace(b'"size"', b'"Size"'))
    well.store.publish("mena", "over", id="over", ts=99)
    well.repaired()
    assert {row.id for row in well.history()} == {row.id for row in well.rows} | {"over"}
