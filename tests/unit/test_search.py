"""Finding rows by version, id and time, and walking the history, compared with a plain list of rows."""

from __future__ import annotations

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swapstore.format import append, manifest, pages, records, search
from swapstore.format.append import Stamp
from swapstore.format.keys import Keys
from swapstore.format.manifest import F, G, Manifest
from swapstore.models import Entry, Row

KEYS = Keys("ns")


class Log:
    """A manifest with its pages, and the plain list of rows that it must agree with."""

    def __init__(self, times: list[int]) -> None:
        self.rows: list[Row] = []
        self.stored: dict[str, bytes] = {}
        current: Manifest | None = None
        for number, ts in enumerate(times, start=1):
            entry = Entry(
                id=f"id-{number}", ts=ts, size=1, sha256=records.digest(b"1"), codec="json", labels={}
            )
            draft = append.append(
                current,
                entry,
                dataset="d",
                dedupe_key=None,
                stamp=Stamp(now_ms=0, nonce="0" * 16, new_epoch="e", keys=KEYS),
            )
            self.stored.update({page.ref.key: page.record for page in draft.pages})
            current = draft.manifest
            assert draft.row is not None
            self.rows.append(draft.row)
        assert current is not None
        self.manifest = current
        self.opened = 0

    def find(self, query: search.Query) -> Row | None:
        searching = search.search(self.manifest, query)
        self.opened = 0
        try:
            ref = next(searching)
            while True:
                self.opened += 1
                ref = searching.send(pages.parse(self.stored[ref.key], ref, "d"))
        except StopIteration as stop:
            found: Row | None = stop.value
            return found

    def walk(self, before: int | None = None) -> list[Row]:
        found: list[Row] = []
        cursor = search.walk(self.manifest, before=before)
        while True:
            rows, ref, cursor = cursor.step()
            found += rows
            if ref is None:
                return found
            cursor = cursor.opened(pages.parse(self.stored[ref.key], ref, "d"))


@pytest.fixture(scope="module")
def deep() -> Log:
    """Three levels of pages, times in order."""
    return Log([number * 10 for number in range(1, F * G * G + 5 * F)])


def test_every_version_is_found_in_a_page_a_level(deep: Log) -> None:
    """A read by version loads more than one page of each level."""
    for row in deep.rows[::7]:
        assert deep.find(search.ByVersion(row.version)) == row
        assert deep.opened <= 3
    assert deep.find(search.ByVersion(len(deep.rows) + 1)) is None
    assert deep.opened == 0


def test_the_last_row_up_to_a_version_is_found_in_a_page_a_level(deep: Log) -> None:
    """A follower that goes on after a version loads more than one page of each level."""
    for row in deep.rows[::7]:
        assert deep.find(search.UpToVersion(row.version)) == row
        assert deep.opened <= 3
    assert deep.find(search.UpToVersion(len(deep.rows) + 1)) == deep.rows[-1]
    assert deep.find(search.UpToVersion(0)) is None
    assert deep.opened == 0


def test_every_id_is_found_in_a_page_a_level(deep: Log) -> None:
    """A read by id loads more than one page of each level, when times are in order."""
    for row in deep.rows[::7]:
        assert deep.find(search.ById(row.id, row.ts)) == row
        assert deep.opened <= 3
    assert deep.find(search.ById("never", 50)) is None


def test_every_moment_is_found_in_a_page_a_level(deep: Log) -> None:
    """as_of loads more than one page of each level, when times are in order."""
    for row in deep.rows[::7]:
        for moment in (row.ts, row.ts + 9):
            assert deep.find(search.AsOf(moment)) == row
            assert deep.opened <= 3
    assert deep.find(search.AsOf(9)) is None


@settings(max_examples=40)
@given(
    times=st.lists(st.integers(0, 60), min_size=1, max_size=5 * F),
    moment=st.integers(-1, 61),
    data=st.data(),
)
def test_backfills_in_any_order_are_found_like_in_a_list(
    times: list[int], moment: int, data: st.DataObject
) -> None:
    """Times that are out of order or equal hide a row, or find the wrong one."""
    log = Log(times)
    upto = [row for row in log.rows if row.ts <= moment]
    assert log.find(search.AsOf(moment)) == max(upto, key=lambda row: (row.ts, row.version), default=None)
    wanted = data.draw(st.sampled_from(log.rows))
    assert log.find(search.ById(wanted.id, wanted.ts)) == wanted
    assert log.find(search.ByVersion(wanted.version)) == wanted
    assert log.walk() == log.rows[::-1]
    assert log.walk(before=wanted.version) == log.rows[: wanted.version - 1][::-1]


def test_a_search_respects_what_retention_hides() -> None:
    """A manifest that a later release pruned shows more than it keeps."""
    log = Log([number * 10 for number in range(1, 5 * F)])
    rows = log.rows
    head = attrs.evolve(log.manifest.head, first_version=F + 3, floor=(F + 10) * 10, pinned=rows[0])
    log.manifest = manifest.build(head, log.manifest.log, KEYS)
    shown = [row for row in rows if head.shows(row)]
    assert shown[0].version == F + 10
    assert log.walk() == shown[::-1]
    assert log.find(search.ByVersion(F + 9)) is None
    assert log.find(search.ByVersion(F + 10)) == shown[0]
    assert log.find(search.ByVersion(1)) == rows[0], "pinned keeps it alive"
    assert log.find(search.AsOf(shown[0].ts - 1)) == rows[0]
    assert log.find(search.ById(rows[5].id, rows[5].ts)) is None


def test_a_walk_goes_newest_first_and_stops_early(deep: Log) -> None:
    """History loads a page for the tail, or more than one for each F rows after it."""
    rows, ref, _ = search.walk(deep.manifest, before=None).step()
    assert rows == deep.rows[: -len(rows) - 1 : -1]
    assert ref is not None
    assert ref.last_version == rows[-1].version - 1
