"""Followers across repairs: rows get other versions, and each commit is still returned once."""

from __future__ import annotations

import pytest

from swapstore import Row
from swapstore.format import manifest
from tests.fsck.simulated import grown, key
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
    ids = [item.id for item in got if isinstance(item, Row)]
    assert len(ids) == len(got), "no gap"
    assert sorted(ids) == sorted([*(row.id for row in dataset.rows), "last"])
