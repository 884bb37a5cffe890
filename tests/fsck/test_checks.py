"""What a ts record of another entry does: it proves nothing, and takes no snapshot with it."""

from __future__ import annotations

from contextlib import suppress

import attrs
import pytest

from swapstore import Retention
from swapstore.errors import Corrupt
from swapstore.format import records
from tests.fsck.simulated import MANIFEST, SimulatedDataset, grown, key
from tests.support.drivers import another
from tests.support.times import at

pytestmark = pytest.mark.usefixtures("tiny_pages")


def stage_under(dataset: SimulatedDataset, number: int) -> None:
    """Publish other content under an id and `ts` whose ts record is permanent: it is staged, and refused."""
    with suppress(Corrupt):
        another(dataset.store).publish("mena", "never", id=f"id-{number}", ts=at(number))
    staged = dataset.sim.keyspace.values[key("id", number)]
    assert staged.expires_at is not None
    assert staged.data.endswith(b'"never"')


def of_another_entry(dataset: SimulatedDataset, number: int) -> bytes:
    """The ts record that other content would have been given in the place of this snapshot."""
    row = dataset.rows[number - 1]
    return records.pack_ts(attrs.evolve(row, labels={}), dataset.rows[0].id)


@pytest.mark.parametrize("lost", ["manifest", "page"])
def test_what_was_only_staged_is_not_restored_by_the_ts_record_of_a_lost_payload(lost: str) -> None:
    """A publish that was refused becomes history in a repair, by the ts record of what was there before."""
    dataset = grown(13)
    pages = dataset.pages()
    dataset.delete(key("id", 1))
    stage_under(dataset, 1)
    dataset.delete(MANIFEST if lost == "manifest" else pages[0])
    (report,) = another(dataset.store).repair("mena", apply=True)
    assert "id-1" not in report.restored
    dataset.repaired()
    assert dataset.history() == dataset.rows[1:]


def test_what_was_only_staged_corrects_no_row_beside_an_altered_ts_record() -> None:
    """A row whose payload is lost is corrected to a publish that was refused, and that soon expires."""
    dataset = grown(13)
    dataset.delete(key("id", 3))
    dataset.alter(key("ts", 3), lambda raw: raw.replace(b'"entry":"', b'"entry":"?'))
    stage_under(dataset, 3)
    (report,) = another(dataset.store).repair("mena", apply=True)
    assert (report.dropped, report.restored) == (("id-3",), ())
    dataset.repaired()
    assert dataset.history() == [row for row in dataset.rows if row.id != "id-3"]


@pytest.mark.parametrize("lost", ["manifest", "page"])
@pytest.mark.parametrize("kind", ["id", "ts"])
def test_a_lost_snapshot_with_a_ttl_is_permanent_again(kind: str, lost: str) -> None:
    """A snapshot is put back into the log, and one of its records expires all the same."""
    dataset = grown(13)
    dataset.expire(key(kind, 1))
    dataset.delete(MANIFEST if lost == "manifest" else dataset.pages()[0])
    (report,) = another(dataset.store).repair("mena", apply=True)
    assert "id-1" in report.restored
    dataset.repaired()
    assert dataset.sim.keyspace.values[key(kind, 1)].expires_at is None
    assert dataset.history() == dataset.rows


def test_a_ts_record_of_another_entry_takes_no_snapshot_that_was_published_again() -> None:
    """Retention takes an old row, and with it the payload of the row of the same id, `ts` and content."""
    dataset = grown(13)
    dataset.delete(key("id", 3), key("ts", 3))
    again = dataset.store.publish("mena", {"n": 3}, id="id-3", ts=at(3), labels={"n": "3"})
    assert again.created
    dataset.put(key("ts", 3), of_another_entry(dataset, 3))
    for number in range(4):
        dataset.store.publish("mena", number, id=f"more-{number}", ts=at(20 + number))
    another(dataset.store).prune("mena", retention=Retention(max_count=6))
    dataset.sim.keyspace.expire_all()
    assert {row.version for row in dataset.history() if row.id == "id-3"} == {again.version}
    assert another(dataset.store).read("mena", id="id-3") is not None
    dataset.rows[:] = dataset.history()
    dataset.repaired()
    assert dataset.history() == dataset.rows
