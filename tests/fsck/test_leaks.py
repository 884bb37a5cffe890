"""Leaked records: they get a TTL, are never shown, and do not take other records with them."""

from __future__ import annotations

from itertools import product

import pytest

from swapstore.errors import Corrupt
from swapstore.format import manifest
from swapstore.fsck.findings import Problem
from tests.fsck.simulated import MANIFEST, SimulatedDataset, grown, key
from tests.support import invariants
from tests.support.drivers import another
from tests.support.times import at

pytestmark = pytest.mark.usefixtures("tiny_pages")
DAY_MS = 24 * 3_600_000


@pytest.fixture
def original() -> SimulatedDataset:
    return grown(13)


@pytest.mark.parametrize("writes", [1, 2])
def test_a_commit_that_was_cut_off_is_never_shown(original: SimulatedDataset, writes: int) -> None:
    """A server dies between the records and the swap, and what was never committed becomes history."""
    original.cut_off("torn", writes=writes)
    assert original.problems() == {"leaked"}
    (report,) = another(original.store).repair("mena", apply=True)
    assert report.restored == ()
    original.repaired()
    assert original.history() == original.rows
    expiry = original.sim.keyspace.values["swapstore:id:{mena}:torn"].expires_at
    assert expiry is not None
    assert expiry <= original.sim.clock.ms + DAY_MS
    again = original.store.publish("mena", "torn, again", id="torn", ts=at(50))
    assert again.created
    invariants.check(original.store)


def test_a_commit_that_was_cut_off_while_sealing(original: SimulatedDataset) -> None:
    """Repair lets a page expire that the next producer seals."""
    for writes in range(1, 4):  # its two records and the page; then comes the swap
        dataset = original.copy()
        while len(invariants.manifest_of(dataset.store).log.rows) < 2 * manifest.F - 1:
            dataset.store.publish("mena", "x")
        dataset.rows[:] = dataset.history()
        dataset.cut_off("torn", writes=writes)
        other = dataset.copy()
        dataset.repaired()
        dataset.store.publish("mena", "sealing")
        assert dataset.problems() == set()
        invariants.check(dataset.store)
        other.store.publish("mena", "sealing", ts=at(other.rows[-1].ts + 1))
        other.repaired()
        assert [row.id for row in other.rows] == [row.id for row in other.history()][:-1]


def test_a_leaked_page(original: SimulatedDataset) -> None:
    """A page that nothing names stays permanently."""
    name = "swapstore:page:{mena}:0123abcd.1-2"
    original.put(name, b'{"page":"0123abcd.1-2"}\n{}')
    found = [finding for finding in another(original.store).verify() if finding.wrong]
    assert [(finding.problem, finding.key) for finding in found] == [(Problem.LEAKED, name)]
    original.repaired()
    assert name in original.sim.keyspace.values, "nothing is deleted"


def test_a_live_view_without_a_ttl(original: SimulatedDataset) -> None:
    """A live view stays permanently because somebody ran PERSIST on it."""
    original.store.put_live("mena", "live", ttl=60)
    name = "swapstore:live:{mena}"
    original.put(name, original.sim.keyspace.values[name].data)
    assert original.problems() == {"leaked"}
    original.repaired()


def test_a_page_in_the_way_of_sealing_blocks_until_repair(original: SimulatedDataset) -> None:
    """A page of a restored backup under the next page's name stops publishing without an explanation."""
    log, head = invariants.manifest_of(original.store).log, invariants.manifest_of(original.store).head
    first, last = log.rows[0].version, log.rows[manifest.F - 1].version
    name = f"swapstore:page:{{mena}}:{head.etag.partition('.')[0]}.{first}-{last}"
    original.put(name, b'{"page":"other"}\n{}')
    with pytest.raises(Corrupt, match="permanent"):
        more(original)
    assert original.problems() == {"leaked"}
    original.repaired()
    more(original)
    invariants.check(original.store)


def more(dataset: SimulatedDataset) -> None:
    for number in range(4):
        dataset.store.publish("mena", number, id=f"more-{number}")


@pytest.mark.parametrize("ts", [99, 3])
def test_a_republished_id_keeps_its_new_record(original: SimulatedDataset, ts: int) -> None:
    """Repair unlinks the record of an id that was deleted by hand and published again."""
    original.delete(key("id", 3), key("ts", 3))
    original.store.publish("mena", "new", id="id-3", ts=at(ts))
    assert original.problems() >= {"record-damaged"}
    original.repaired()
    snapshot = another(original.store).read("mena", id="id-3")
    assert snapshot is not None
    assert (snapshot.value, snapshot.ts) == ("new", ts)
    assert len(original.history()) == 13


def test_leftovers_without_a_manifest_are_reported(original: SimulatedDataset) -> None:
    """Repair deletes leftovers of a dataset without a manifest, or does not report them."""
    names = [name for name in original.sim.keyspace.values if ":page:" not in name]
    original.delete(*names)
    assert original.problems() == {"leaked"}
    (report,) = another(original.store).repair("mena", apply=True)
    assert {finding.problem for finding in report.left} == {Problem.LEAKED}
    original.store.publish("mena", "anew")
    original.repaired()


def test_a_dataset_of_which_no_payload_is_left(original: SimulatedDataset) -> None:
    """Repair makes a dataset worse that has no payload left, or the next publish does not help."""
    original.delete(*(key("id", row.ts) for row in original.rows))
    before = original.sim.keyspace.values[MANIFEST]
    (report,) = another(original.store).repair("mena", apply=True)
    assert len(report.left) == 13
    assert original.sim.keyspace.values[MANIFEST] == before
    original.store.publish("mena", "anew", id="anew", ts=at(99))
    (report,) = another(original.store).repair("mena", apply=True)
    assert len(report.dropped) == 13
    original.repaired()
    assert [row.id for row in original.history()] == ["anew"]


def test_an_altered_ts_record_is_no_obstacle_to_a_rebuild(original: SimulatedDataset) -> None:
    """A lost manifest cannot be rebuilt because one of its ts records was altered."""
    for lost, expiring in product(([MANIFEST], original.pages()[:1]), (False, True)):
        dataset = original.copy()
        if expiring:
            dataset.expire(key("ts", 2))
        dataset.alter(key("ts", 2), lambda raw: raw.replace(b'"entry":"', b'"entry":"?'))
        dataset.delete(*lost)
        dataset.repaired()
        assert [(row.id, row.version) for row in dataset.history()] == [
            (r.id, r.version) for r in dataset.rows
        ]


def test_published_over_a_lost_manifest_without_a_ts_record(original: SimulatedDataset) -> None:
    """A committed record of the lost epoch without its ts record is taken for a leak, and expires."""
    original.delete(MANIFEST, key("ts", 4))
    original.alter(key("ts", 6), lambda raw: raw.replace(b'"entry":"', b'"entry":"?'))
    original.store.publish("mena", "over", id="over", ts=at(99))
    original.repaired()
    assert {row.id for row in original.history()} == {row.id for row in original.rows} | {"over"}
