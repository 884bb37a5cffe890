"""`erase` as an operator uses it: one snapshot is gone from every key, and nothing else has changed."""

from __future__ import annotations

import attrs
import pytest

from swapstore import Store
from swapstore.errors import NotFound
from swapstore.models import Compression, Row
from tests.erase.model import Traces, fill, left_of, name_of
from tests.recompress.model import D, stored, storing
from tests.support.drivers import another

HOW: list[Compression] = ["none", "zstd", "delta"]


def seen(store: Store, *, without: str = "") -> list[tuple[Row, bytes]]:
    """What a new client reads of the history, but for one snapshot."""
    reader = another(store)
    found = []
    for row in reader.history(D, limit=None):
        if row.id != without:
            snapshot = reader.read(D, id=row.id)
            assert snapshot is not None
            found.append((attrs.evolve(row, base=None), snapshot.raw))
    return found


def traces(store: Store, number: int) -> Traces:
    snapshot = another(store).read(D, id=name_of(number))
    assert snapshot is not None
    return Traces.of(snapshot)


def wrong(store: Store) -> list[object]:
    """What verify finds wrong."""
    return [finding for finding in another(store).verify(D) if finding.wrong]


@pytest.mark.every_store
@pytest.mark.parametrize("how", HOW)
def test_nothing_of_it_is_left_and_nothing_else_changes(store: Store, how: Compression) -> None:
    """Its bytes stay in a page, or in the base of others; or another snapshot is lost with it."""
    for begin in range(0, 80, 20):
        fill(store, 20, how, begin=begin, like=begin)
    for number in (0, 3, 17, 70, 78):
        gone = traces(store, number)
        before = seen(store, without=gone.id)
        assert left_of(gone, store)
        done = storing(store, how).erase(D, id=gone.id)
        assert (done.id, done.version, done.latest) == (gone.id, number + 1, 80)
        assert left_of(gone, store) == []
        stored(store)
        assert seen(store) == before
        assert another(store).read(D, version=number + 1) is None
        assert wrong(store) == []


@pytest.mark.parametrize("how", HOW)
def test_all_of_a_history_can_be_erased_but_one(store: Store, how: Compression) -> None:
    """Pages with few rows, or none, cannot be read, or stand for ever."""
    fill(store, 150, how)
    client = storing(store, how)
    for number in [*range(148, -1, -3), *range(0, 149, 3), *range(149)]:
        try:
            client.erase(D, version=number + 1)
        except NotFound:
            continue
        if number % 10 == 0:
            stored(store)
    found = stored(store)
    assert [row.id for row in found.rows] == [name_of(149)]
    assert not found.manifest.log.pages
    fill(store, 30, how, begin=150)
    assert len(stored(store).rows) == 31
