"""Rows whose producers staged for the same version, and rows that their own records contradict."""

from __future__ import annotations

from typing import Any

import pytest

from swapstore import Gap, Retention, Row
from tests.fsck.simulated import MANIFEST, SimulatedDataset, key, opened
from tests.support import invariants
from tests.support.drivers import another


def raced(*, pinned: str | None = None, times: tuple[int, ...] = (2000, 2002, 2001), more: int = 70) -> Any:
    """Producers that all remember version 1 publish one after the other; then come `more` ordinary ones."""
    dataset = opened()
    dataset.store.publish("mena", "first", id="first", ts=1000)
    producers = [another(dataset.store) for _ in times]
    for producer in producers:
        producer.read_latest("mena")
    for name, ts, producer in zip("xpy", times, producers, strict=False):
        dataset.sim.clock.advance(1)
        producer.publish("mena", name, id=name, ts=ts)
    if pinned:
        dataset.store.pin("mena", id=pinned)
    for number in range(more):
        dataset.store.publish("mena", number, id=f"more-{number}", ts=1001 + number)
    dataset.rows.extend(dataset.history())
    return dataset


def lose_the_first_page(dataset: SimulatedDataset) -> None:
    dataset.delete(invariants.manifest_of(dataset.store).log.pages[0].key)


@pytest.mark.parametrize("pinned", [None, "p", "x", "y"])
def test_what_is_served_is_found_again_by_its_id(pinned: str | None) -> None:
    """A repair that lost a page lets the payload expire that readers are served."""
    dataset = raced(pinned=pinned)
    lose_the_first_page(dataset)
    (report,) = another(dataset.store).repair("mena", apply=True)
    assert (report.dropped, report.left) == ((), ())
    dataset.repaired()
    another(dataset.store).prune("mena", retention=Retention(max_count=2))
    dataset.sim.keyspace.expire_all()
    served = another(dataset.store).read_latest("mena")
    assert served is not None
    assert served.id == (pinned or "p")
    assert dataset.problems() == set()
    invariants.check(dataset.store)
    another(dataset.store).publish("mena", "new", id="new", ts=9000)
    another(dataset.store).unpin("mena")
    another(dataset.store).prune("mena", retention=Retention(max_count=2))
    dataset.sim.keyspace.expire_all()
    assert dataset.problems() == set()


def test_a_version_cursor_skips_no_commit_after_a_repair() -> None:
    """A follower that resumes after version 2 never hears of a commit, and is told of no gap."""
    dataset = raced(times=(2002, 2001, 2000))
    first = dataset.rows[:2]
    lose_the_first_page(dataset)
    dataset.repaired()
    told = list(first)
    rest: list[Row | Gap] = []
    follow = another(dataset.store).follow("mena", after=2)
    for item in follow:
        rest.append(item)
        if isinstance(item, Row) and item.id == "more-69":
            break
    ids = {row.id for row in told} | {item.id for item in rest if isinstance(item, Row)}
    assert ids == {row.id for row in dataset.rows} or any(isinstance(item, Gap) for item in rest), rest[:3]


def test_a_retry_leaves_no_later_origin_beside_a_committed_id() -> None:
    """A retry after a lost ts record makes a later repair let a whole, acknowledged snapshot expire."""
    dataset = opened()
    for number in range(1, 81):
        dataset.store.publish("mena", {"n": number}, id=f"id-{number}", ts=number)
    dataset.rows.extend(dataset.history())
    dataset.delete(key("ts", 6))
    again = another(dataset.store).publish("mena", {"n": 6}, id="id-6", ts=6)
    assert not again.created
    dataset.repaired()
    lose_the_first_page(dataset)
    (report,) = another(dataset.store).repair("mena", apply=True)
    assert (report.dropped, report.left) == ((), ())
    dataset.repaired()
    assert dataset.history() == dataset.rows


@pytest.mark.parametrize("number", [5, 79])
@pytest.mark.parametrize("swap", [(b'"sha256":"', b'"sha256":"'), (b'"labels":{"n":"', b'"labels":{"n":"9')])
def test_one_altered_character_of_a_row_drops_nothing(number: int, swap: tuple[bytes, bytes]) -> None:
    """One altered character in a row of the manifest drops a snapshot whose records are whole."""
    dataset = opened()
    for at in range(1, 81):
        dataset.store.publish("mena", {"n": at}, id=f"id-{at}", ts=at, labels={"n": str(at)})
    dataset.rows.extend(dataset.history())
    target = MANIFEST if number == 79 else dataset.pages()[0]

    def change(raw: bytes) -> bytes:
        at = raw.rindex(b'"id":"id-%d"' % number)
        at = raw.index(swap[0], at) + len(swap[0])
        other = b"0" if raw[at : at + 1] != b"0" else b"1"
        return raw[:at] + other + raw[at + 1 :]

    dataset.alter(target, change)
    (report,) = another(dataset.store).repair("mena", apply=True)
    assert (report.dropped, report.left) == ((), ())
    dataset.repaired()
    assert dataset.history() == dataset.rows
