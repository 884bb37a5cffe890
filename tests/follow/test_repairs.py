"""Followers across repairs: rows get other versions, and each commit is still returned once."""

from __future__ import annotations

from datetime import timedelta

import pytest

from swapstore import Retention, Row
from swapstore.format import manifest
from tests.follow.followers import ids, take, versions
from tests.fsck.simulated import MANIFEST, grown, key, opened
from tests.support.drivers import another
from tests.support.times import at


@pytest.fixture(autouse=True)
def tiny_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows in a page, so that a repair rewrites part of a log."""
    monkeypatch.setattr(manifest, "F", 2)
    monkeypatch.setattr(manifest, "G", 2)


@pytest.mark.parametrize("position", [3, 5, 13])
@pytest.mark.parametrize("lost", [(3, 4), (2, 5)])
def test_a_repair_neither_repeats_nor_skips_a_commit(position: int, lost: tuple[int, ...]) -> None:
    """A repair gives rows new versions, and a follower returns them again, or skips what comes after them."""
    dataset = grown(13)
    follower = another(dataset.store).follow("mena", after=0)
    got = [next(follower) for _ in range(position)]
    dataset.delete(*(key("ts", number) for number in lost), *dataset.pages()[:3])
    another(dataset.store).repair("mena", apply=True)
    another(dataset.store).publish("mena", "last", id="last", ts=at(99))
    while not (isinstance(got[-1], Row) and got[-1].id == "last"):
        got.append(next(follower))
    assert len(ids(got)) == len(got), "no gap"
    assert sorted(ids(got)) == sorted([*(row.id for row in dataset.rows), "last"])


def test_a_repair_that_dropped_the_last_row_repeats_no_other() -> None:
    """A repair drops the row at which a follower is, and the follower returns rows before it again."""
    dataset = grown(13)
    follower = another(dataset.store).follow("mena", after=0)
    take(follower, 13)
    dataset.delete(key("ts", 3), key("ts", 4), key("id", 13), *dataset.pages()[:3])
    another(dataset.store).repair("mena", apply=True)
    assert [row.id for row in dataset.history()][-2:] == ["id-3", "id-4"], (
        "they are where the follower reads on"
    )
    another(dataset.store).publish("mena", "last", id="last", ts=at(99))
    assert ids(take(follower, 1)) == ["last"]


def test_what_was_returned_is_no_gap_for_a_follower_far_behind() -> None:
    """A repair and retention while a follower catches up cause an alarm about rows that it has returned."""
    dataset = grown(40)
    follower = another(dataset.store).follow("mena", after=0)
    assert versions(take(follower, 32)) == list(range(1, 33)), "one batch of pages"
    dataset.delete(*dataset.pages()[:2])
    another(dataset.store).repair("mena", apply=True)
    another(dataset.store).prune("mena", retention=Retention(max_count=9))
    assert dataset.history()[0].id == "id-32", "all before the follower's place is hidden"
    assert ids(take(follower, 8)) == [f"id-{number}" for number in range(33, 41)]


@pytest.mark.parametrize("after", [0, 5])
def test_hidden_rows_that_come_back_are_not_returned_too_late(after: int) -> None:
    """A repair shows rows again that were hidden, and a follower returns some of them out of order."""
    dataset = grown(13)
    another(dataset.store).prune("mena", retention=Retention(max_count=1))
    follower = another(dataset.store).follow("mena", after=after)
    expected = [13] if after == 0 else [(5, 13, "retention"), 13]
    assert versions(take(follower, len(expected))) == expected
    dataset.delete(MANIFEST)
    another(dataset.store).repair("mena", apply=True)
    assert [row.id for row in dataset.history()] == [f"id-{number}" for number in range(5, 14)]
    another(dataset.store).publish("mena", "last", id="last", ts=at(99))
    assert ids(take(follower, 1)) == ["last"]


def test_what_was_returned_before_a_repair_is_no_gap_when_it_is_hidden() -> None:
    """A repair gives the last row of a follower an earlier version, and rows that it had become a gap."""
    dataset = opened()
    recent = dataset.sim.clock.now_ms()
    for number in range(5):
        dataset.store.publish("mena", number, id=f"first-{number}", ts=recent)
    dataset.delete(MANIFEST)
    dataset.sim.clock.advance(1000)
    for number in range(2):
        another(dataset.store).publish("mena", number, id=f"second-{number}", ts=at(number))
    dataset.repaired()
    follower = another(dataset.store).follow("mena", after=0)
    got = [next(follower) for _ in range(7)]
    assert [item.id for item in got if isinstance(item, Row)][-1] == "first-4"
    dataset.delete(MANIFEST)  # the new log has the older commits first again
    dataset.repaired()
    assert [row.id for row in dataset.history()][-2:] == ["second-0", "second-1"]
    another(dataset.store).prune("mena", retention=Retention(max_age=timedelta(hours=1)))
    another(dataset.store).publish("mena", "last", id="last")
    last = next(follower)
    assert isinstance(last, Row), last
    assert last.id == "last"


def test_a_follower_gets_nothing_from_before_its_beginning() -> None:
    """After a repair, a consumer that went on after version 12 is given version 12."""
    dataset = grown(13)
    follower = another(dataset.store).follow("mena", after=12)
    got = [next(follower)]
    dataset.delete(*dataset.pages()[:3])
    another(dataset.store).repair("mena", apply=True)
    another(dataset.store).publish("mena", "last", id="last", ts=at(99))
    got.append(next(follower))
    assert [item.id for item in got if isinstance(item, Row)] == ["id-13", "last"]
