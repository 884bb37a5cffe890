"""The log of a dataset whose history was stored anew, as pure code."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

import pytest

from swapstore.format import manifest, pages, reseal
from swapstore.format.manifest import Log
from swapstore.format.pages import Page
from swapstore.models import Ref
from swapstore.testing import SimulatedStore
from tests.recompress.model import D, fill, stored, storing

T = TypeVar("T")
COUNT = 60


@pytest.fixture
def sim(monkeypatch: pytest.MonkeyPatch) -> SimulatedStore:
    """A dataset with pages of pages of pages; some rows have bases, some have none."""
    monkeypatch.setattr(manifest, "F", 2)
    monkeypatch.setattr(manifest, "G", 2)
    made = SimulatedStore()
    for begin in range(0, COUNT, 10):
        fill(made.connect(), 10, "delta" if begin % 20 else "none", begin=begin)
    return made


def answer(sim: SimulatedStore, searching: Generator[Ref, Page, T]) -> T:
    """Run a search on what is stored."""
    try:
        ref = next(searching)
        while True:
            ref = searching.send(pages.parse(sim.keyspace.values[ref.key].data, ref, D))
    except StopIteration as stop:
        found: T = stop.value
        return found


def log_of(sim: SimulatedStore) -> Log:
    return stored(sim.connect()).manifest.log


def test_searches_agree_with_a_list_of_the_rows(sim: SimulatedStore) -> None:
    """A swap leaves rows out, takes some twice, or takes another base for that of the neighbours."""
    log, rows = log_of(sim), stored(sim.connect()).rows
    for version in range(COUNT + 2):
        before = [row.base for row in reversed(rows) if row.version < version and row.base]
        after = [row.base for row in rows if row.version > version and row.base]
        assert answer(sim, reseal.nearest_base(log, version, before=True)) == next(iter(before), None)
        assert answer(sim, reseal.nearest_base(log, version, before=False)) == next(iter(after), None)
        for upto in (version, version + 7, COUNT):
            between = [row for row in rows if version < row.version <= upto]
            assert answer(sim, reseal.count_after(log, version, upto)) == len(between)
            found = answer(sim, reseal.rows_after(log, version, upto, 3))
            assert found == between[: len(found)]
            assert len(found) >= min(3, len(between))


def test_pages_take_the_place_of_those_that_they_replace(sim: SimulatedStore) -> None:
    """A verify that comes to a page which was replaced skips its rows, or counts them twice."""
    before = log_of(sim)
    storing(sim.connect(), "none").recompress(D, compression="delta")
    after = log_of(sim)
    old = _all_pages(sim, before)
    new = {(ref.first_version, ref.last_version): ref for ref in _all_pages(sim, after)}
    assert {ref.key for ref in old} != {ref.key for ref in new.values()}
    assert len(new) == len(old)
    for ref in old:
        within = answer(sim, reseal.pages_within(after, ref.first_version, ref.last_version))
        assert within == [new[ref.first_version, ref.last_version]]


def _all_pages(sim: SimulatedStore, log: Log) -> list[Ref]:
    found, ahead = list[Ref](), list(log.pages)
    while ahead:
        ref = ahead.pop()
        found.append(ref)
        ahead += pages.parse(sim.keyspace.values[ref.key].data, ref, D).pages
    return found
