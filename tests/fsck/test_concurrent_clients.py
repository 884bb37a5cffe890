"""Another client acts once during a verify or a repair: no false finding, and nothing committed expires."""

from __future__ import annotations

import pytest

from swapstore import Problem, Store
from swapstore.commands import Get
from swapstore.errors import Contended
from swapstore.format import manifest
from tests.fsck.simulated import SimulatedDataset, grown, key
from tests.support import invariants
from tests.support.drivers import another, meddled
from tests.support.times import at

pytestmark = pytest.mark.usefixtures("tiny_pages")


def test_no_record_is_called_missing_before_a_reset_is_noticed() -> None:
    """After a flush verify reports records as missing that belong to the old epoch."""
    for number in range(1, 12):
        original = grown(7)
        client, meddler = meddled(original.store)

        def begin_anew(original: SimulatedDataset = original) -> None:
            original.flush()
            another(original.store).publish("mena", "anew", id="anew", ts=at(1))

        meddler.before(number, begin_anew)
        told = []
        try:
            for finding in client.verify("mena"):
                told.append(finding)  # noqa: PERF402 - what was told before it raises counts
        except Contended:
            pass
        assert [finding for finding in told if finding.wrong] == [], number


def test_a_publish_during_a_repair_stays() -> None:
    """A repair drops a publish that was made since it began, and calls its records leaked."""
    original = grown(6)
    original.delete(key("ts", 6))
    probe, watched = meddled(original.copy().store)
    probe.repair("mena", apply=True)
    for number in range(len(watched.batches)):
        dataset = original.copy()
        client, meddler = meddled(dataset.store)

        committed: list[int] = []

        def publish(dataset: SimulatedDataset = dataset, committed: list[int] = committed) -> None:
            committed.append(dataset.store.publish("mena", "new", id="new", ts=at(99)).version)

        meddler.before(number, publish)
        client.repair("mena", apply=True)
        assert [row.id for row in dataset.history()] == [*(row.id for row in original.rows), "new"], number
        assert [dataset.history()[-1].version] == committed, "it never left the log"
        assert dataset.sim.keyspace.values["swapstore:id:{mena}:new"].expires_at is None


def test_a_republished_id_is_never_without_its_record() -> None:
    """A repair that is cut off leaves the record of an acknowledged publish with a TTL."""
    original = grown(5)
    original.delete(key("id", 2), key("ts", 2))
    original.store.publish("mena", "again", id="id-2", ts=at(99))
    client, meddler = meddled(original.store)

    def check() -> None:
        assert original.sim.keyspace.values[key("id", 2)].expires_at is None

    for number in range(60):
        meddler.after(number, check)
    client.repair("mena", apply=True)
    assert len(meddler.batches) < 60
    assert [row.id for row in original.history()] == ["id-1", "id-3", "id-4", "id-5", "id-2"]


@pytest.mark.parametrize("kinds", [("id",), ("id", "ts")])
def test_a_republished_id_whose_page_is_lost_is_never_without_its_record(kinds: tuple[str, ...]) -> None:
    """A repair drops an older row, is cut off, and the later snapshot of that id expires with it.

    Or it gives the older version the content of the later one.
    """
    original = grown(14)
    original.delete(*(key(kind, 2) for kind in kinds))
    again = original.store.publish("mena", "again", id="id-2", ts=at(99))
    for number in range(8):
        original.store.publish("mena", number, id=f"more-{number}", ts=at(100 + number))
    spanning = [ref for ref in original.refs() if ref.spans(again.version)]
    original.delete(min(spanning, key=lambda ref: ref.count).key)
    client, meddler = meddled(original.store)

    def check() -> None:
        assert original.sim.keyspace.values[key("id", 2)].expires_at is None

    for number in range(100):
        meddler.after(number, check)
    (report,) = client.repair("mena", apply=True)
    assert len(meddler.batches) < 100
    assert (report.dropped, report.left) == (("id-2",), ())
    assert [row.version for row in original.history() if row.id == "id-2"] == [again.version]


def losing_pages(original: SimulatedDataset) -> tuple[Store, list[str]]:
    """A client that has read a page of references when it is lost, with a page below it; and their keys."""
    parent = next(ref for ref in original.refs() if ref.count > manifest.F)
    child = min(
        (ref for ref in original.refs() if ref.spans(parent.first_version)), key=lambda ref: ref.count
    )
    client, meddler = meddled(original.store)
    lost: list[str] = []

    def lose() -> None:
        if not lost and Get(parent.key) in meddler.batches[-1]:
            lost.extend([parent.key, child.key])
            original.delete(*lost)

    for number in range(60):
        meddler.after(number, lose)
    return client, lost


def test_pages_that_are_lost_while_they_are_verified_take_no_snapshot_with_them() -> None:
    """A lost page counts as one that retention removed, and the repair lets its snapshots expire."""
    original = grown(13)
    client, lost = losing_pages(original)
    (report,) = client.repair("mena", apply=True)
    assert lost
    assert (report.dropped, report.left) == ((), ())
    original.sim.keyspace.expire_all()
    assert original.history() == original.rows


def test_a_page_below_one_that_is_lost_during_a_verify_is_missing() -> None:
    """Verify takes the page for unlinked, or ends with an error, because nothing tells what names it."""
    client, lost = losing_pages(grown(13))
    found = [(each.problem, each.key) for each in client.verify("mena") if each.wrong]
    _, child = lost
    assert found == [
        (Problem.PAGE_MISSING, child),
        (Problem.LOST, "swapstore:id:{mena}:id-1"),
        (Problem.LOST, "swapstore:id:{mena}:id-2"),
    ]


def test_a_leaked_page_that_is_sealed_again_stays() -> None:
    """A page that a producer seals while a repair lets it expire disappears after its commit."""
    original = grown(5)
    while len(invariants.manifest_of(original.store).log.rows) < 2 * manifest.F - 1:
        original.store.publish("mena", "x")
    original.rows[:] = original.history()
    original.cut_off("torn", writes=3)
    probe, watched = meddled(original.copy().store)
    probe.repair("mena", apply=True)
    sealed = 0
    for number in range(len(watched.batches)):
        dataset = original.copy()
        client, meddler = meddled(dataset.store)

        def check(dataset: SimulatedDataset = dataset) -> None:
            for ref in dataset.refs():
                assert dataset.sim.keyspace.values[ref.key].expires_at is None, f"{ref.key} may expire"

        def seal(dataset: SimulatedDataset = dataset) -> None:
            dataset.store.publish("mena", "sealing", ts=at(99))

        meddler.before(number, seal)
        for later in range(number, number + 20):
            meddler.after(later, check)
        before = set(dataset.pages())
        client.repair("mena", apply=True)
        sealed += set(dataset.pages()) > before
        dataset.repaired()
    assert sealed
