"""Damage beside other damage, and damage that goes on while it is repaired."""

from __future__ import annotations

from datetime import timedelta

import pytest

from swapstore import Retention
from swapstore.commands import Swap
from swapstore.format import records
from swapstore.format.manifest import row_array
from tests.fsck.simulated import MANIFEST, grown, key, opened
from tests.support.drivers import another, meddled
from tests.support.times import at


@pytest.mark.usefixtures("tiny_pages")
def test_what_is_damaged_again_and_again_is_not_called_repaired() -> None:
    """A store that goes on losing records is called repaired, because the last repair was the last look."""
    dataset = grown(12)
    client, meddler = meddled(dataset.store)
    left = list(range(1, 13))

    def lose() -> None:
        if not meddler.batches or any(isinstance(command, Swap) for command in meddler.batches[-1]):
            dataset.delete(key("ts", left.pop()))

    lose()
    for number in range(300):
        meddler.after(number, lose)
    (report,) = client.repair("mena", apply=True)
    assert len(meddler.batches) < 300
    assert [finding.problem.value for finding in report.left] == ["ts-missing"]


def test_a_lost_name_stays_lost_until_it_is_applied() -> None:
    """A dry run writes to the store."""
    dataset = grown(3)
    dataset.sim.keyspace.sets.clear()
    before = dataset.sim.keyspace.fingerprint()
    (planned,) = another(dataset.store).repair("mena")
    assert (planned.applied, planned.left) == (False, ())
    assert dataset.sim.keyspace.fingerprint() == before
    dataset.repaired()
    assert another(dataset.store).datasets() == ["mena"]


def test_a_dataset_that_is_all_hidden_can_be_repaired() -> None:
    """A dataset whose history is older than retention allows cannot be repaired, although it serves one."""
    dataset = opened()
    dataset.store.publish("mena", "latest", id="latest", ts=at(1000))
    for number in range(80):
        dataset.store.publish("mena", number, id=f"old-{number}", ts=at(1 + number))
    dataset.sim.clock.advance(3600_000)
    another(dataset.store).prune("mena", retention=Retention(max_age=timedelta(seconds=1)))
    dataset.rows.extend(dataset.history())
    assert [row.id for row in dataset.rows] == []
    dataset.put("swapstore:page:{mena}:abcdef.1-2", b'{"page":"abcdef.1-2"}\n')
    dataset.repaired()
    latest = another(dataset.store).read_latest("mena")
    assert latest is not None
    assert latest.id == "latest"


def test_the_newest_snapshot_of_a_lost_line_is_served_although_its_ts_record_is_lost_too() -> None:
    """Readers stay on an older snapshot after a repair, because the newest has lost its ts record."""
    dataset = grown(5)
    dataset.delete(MANIFEST, key("ts", 5))
    dataset.sim.clock.advance(1)
    another(dataset.store).publish("mena", "backfill", id="backfill", ts=at(2))
    dataset.rows.extend(dataset.history())
    dataset.repaired()
    latest = another(dataset.store).read_latest("mena")
    assert latest is not None
    assert latest.id == "id-5"


@pytest.mark.usefixtures("tiny_pages")
def test_an_altered_row_beside_a_lost_page_is_corrected() -> None:
    """One altered character in a row drops a whole snapshot, because a page elsewhere is lost."""
    dataset = grown(12, backfilled=True)
    row = dataset.rows[-1]
    dataset.delete(*dataset.pages()[:2])
    array = row_array(row, None)
    stored, digest = records.to_json(array), array[5].encode()
    other = (b"B" if digest[:1] == b"A" else b"A") + digest[1:]
    dataset.alter(MANIFEST, lambda raw: raw.replace(stored, stored.replace(digest, other)))
    (report,) = another(dataset.store).repair("mena", apply=True)
    assert (report.dropped, report.left) == ((), ())
    dataset.repaired()
    assert dataset.history() == dataset.rows


@pytest.mark.usefixtures("tiny_pages")
@pytest.mark.parametrize("lost", [[0], [0, 1], [1, 2]])
def test_a_lost_line_takes_no_place_in_a_lost_page_of_the_next(lost: list[int]) -> None:
    """A version that a client has stored names a snapshot of a line that was lost before."""
    dataset = grown(9)
    dataset.delete(MANIFEST)
    dataset.sim.clock.advance(1000)
    producer = dataset.sim.connect()
    for number in range(9):
        producer.publish("mena", number, id=f"new-{number}", ts=at(100 + number))
    published = dataset.history()
    dataset.delete(*(dataset.pages()[number] for number in lost))
    dataset.rows.extend(published)
    dataset.repaired()
    after = {row.id: row for row in dataset.history()}
    assert len(after) == 18
    assert [after[row.id] for row in published] == published


@pytest.mark.usefixtures("tiny_pages")
def test_two_lost_lines_fit_into_one_lost_page() -> None:
    """A page is rebuilt with versions that are not its own, and the whole log becomes unreadable."""
    dataset = grown(2)
    dataset.delete(MANIFEST, key("id", 1))
    dataset.sim.clock.advance(1000)
    producer = dataset.sim.connect()
    for number in range(9):
        producer.publish("mena", number, id=f"new-{number}", ts=at(100 + number))
    dataset.rows.extend(dataset.history())
    dataset.delete(dataset.pages()[0], "swapstore:id:{mena}:new-0")
    dataset.repaired()
    assert [row.id for row in dataset.history()] == ["id-2", *(f"new-{number}" for number in range(1, 9))]


@pytest.mark.usefixtures("tiny_pages")
def test_what_a_dead_retry_has_staged_says_nothing_about_a_lost_page() -> None:
    """A snapshot of a lost page gets a new version, because a retry that died has staged a record for it."""
    dataset = grown(13)  # its dedupe key is no longer at hand
    dataset.delete(key("ts", 2))
    producer, meddler = meddled(dataset.store)

    def die() -> None:
        raise KeyboardInterrupt

    meddler.after(1, die)
    with pytest.raises(KeyboardInterrupt):
        producer.publish("mena", {"n": 2}, id="id-2", ts=at(2), labels={"n": "2"}, dedupe_key="run-2")
    assert b'"version":14' in dataset.sim.keyspace.values[key("ts", 2)].data
    dataset.delete(dataset.pages()[0])
    dataset.repaired()
    assert [(row.id, row.version) for row in dataset.history()] == [(r.id, r.version) for r in dataset.rows]
