"""Finding rows by version, id and time, and walking the history, compared with a plain list of rows."""

from __future__ import annotations

from collections.abc import Generator
from itertools import pairwise
from typing import TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swapstore.format import append, manifest, pages, records, search
from swapstore.format.append import Stamp
from swapstore.format.keys import Keys
from swapstore.format.manifest import F, G, Manifest
from swapstore.models import Entry, Ref, Row

KEYS = Keys("ns")
T = TypeVar("T")


class Log:
    """A manifest with its pages, and the plain list of rows that it must agree with."""

    def __init__(self, times: list[int]) -> None:
        self.rows: list[Row] = []
        self.stored: dict[str, bytes] = {}
        current: Manifest | None = None
        for number, ts in enumerate(times, start=1):
            entry = Entry(
                id=f"id-{number}",
                ts=ts,
                size=1,
                sha256=records.digest(b"1"),
                labels={"odd": str(number % 2), "third": str(number % 3)},
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

    def gather(self, walking: Generator[list[Ref], list[pages.Page], T], most: int) -> T:
        """Run a walk that is sent so many pages at once at most."""
        try:
            refs = next(walking)
            while True:
                refs = walking.send(self.load(refs[:most]))
        except StopIteration as stop:
            found: T = stop.value
            return found

    def load(self, refs: list[Ref]) -> list[pages.Page]:
        self.opened += len(refs)
        return [pages.parse(self.stored[ref.key], ref, "d") for ref in refs]

    def walk(self, before: int | None = None, wanted: search.Filter = search.EVERY_ROW) -> list[Row]:
        found: list[Row] = []
        cursor = search.walk(self.manifest, before=before, wanted=wanted)
        while True:
            rows, cursor = cursor.step()
            found += rows
            refs = cursor.batch(None)
            if not refs:
                return found
            cursor = cursor.opened(refs, self.load(refs))


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


@settings(max_examples=40)
@given(
    times=st.lists(st.integers(0, 60), min_size=1, max_size=5 * F),
    since=st.none() | st.integers(-1, 61),
    until=st.none() | st.integers(-1, 61),
    labels=st.dictionaries(st.sampled_from(["odd", "third", "none"]), st.sampled_from("012")),
    before=st.none() | st.integers(0, 5 * F),
)
def test_a_walk_finds_what_a_list_would(
    times: list[int], since: int | None, until: int | None, labels: dict[str, str], before: int | None
) -> None:
    """A history that is asked for some rows leaves one out, or returns another."""
    log = Log(times)
    expected = [
        row
        for row in reversed(log.rows)
        if (since is None or row.ts >= since)
        and (until is None or row.ts < until)
        and labels.items() <= row.labels.items()
        and (before is None or row.version < before)
    ]
    assert log.walk(before, search.Filter(labels=labels, since=since, until=until)) == expected


def test_a_search_respects_what_retention_hides() -> None:
    """A manifest that a later release pruned shows more than it keeps."""
    log = Log([number * 10 for number in range(1, 5 * F)])
    rows = log.rows
    head = msgspec.structs.replace(log.manifest.head, first_version=F + 3, floor=(F + 5) * 10, pinned=rows[0])
    log.manifest = manifest.build(head, log.manifest.log, KEYS)
    shown = [row for row in rows if head.shows(row)]
    assert shown[0].version == F + 5
    assert log.walk() == shown[::-1]
    assert log.find(search.ByVersion(F + 4)) is None
    assert log.find(search.ByVersion(F + 5)) == shown[0]
    assert log.find(search.ByVersion(1)) == rows[0], "pinned keeps it alive"
    assert log.find(search.AsOf(shown[0].ts - 1)) == rows[0]
    assert log.find(search.ById(rows[5].id, rows[5].ts)) is None


def test_a_walk_goes_newest_first_and_stops_early(deep: Log) -> None:
    """History loads a page for the tail, or pages that are not next."""
    rows, cursor = search.walk(deep.manifest, before=None).step()
    assert rows == deep.rows[: -len(rows) - 1 : -1]
    refs = cursor.batch(None)
    assert refs[0].last_version == rows[-1].version - 1
    assert all(later.last_version == newer.first_version - 1 for newer, later in pairwise(refs))


@pytest.mark.parametrize(("rows", "count"), [(1, 1), (F, 1), (F + 1, 2), (3 * F, 3), (None, 16)])
def test_a_batch_has_no_page_that_the_limit_does_not_need(deep: Log, rows: int | None, count: int) -> None:
    """A reader of five rows loads sixteen pages."""
    _, cursor = search.walk(deep.manifest, before=2 * F * G + 1).step()
    while (refs := cursor.batch(rows))[0].count > F:
        cursor = cursor.opened(refs, deep.load(refs))
        _, cursor = cursor.step()
    assert len(refs) == count
    _, cursor = search.walk(deep.manifest, before=F * G * G + F // 2).step()
    assert len(cursor.batch(F // 2 - 1)) == 1
    assert len(cursor.batch(F // 2)) == 2, "the rows from that version on are not counted"


def test_the_rows_of_a_batch_are_returned_before_the_next(deep: Log) -> None:
    """A walk holds the rows of many batches, because pages of references come between them."""
    _, cursor = search.walk(deep.manifest, before=None).step()
    batches = 0
    while refs := cursor.batch(None):
        assert len(refs) <= search.BATCH_PAGES
        counts = [ref.count for ref in refs]
        assert counts == sorted(counts), "pages of rows first"
        _, cursor = cursor.opened(refs, deep.load(refs)).step()
        assert not [item for item in cursor.ahead if isinstance(item, Row)]
        assert len(cursor.ahead) < 200
        batches += 1
    assert batches <= len(deep.rows) / 128 * 9 / 8 + 3
    oldest_first = [*reversed(deep.manifest.log.pages)]
    assert [ref.count for ref in oldest_first[-2:]] == [F, F * G * G]
    assert search.batch(oldest_first) == oldest_first[-1:], "no rows behind references"


@pytest.mark.parametrize("stop", range(1, 17))
def test_a_walk_goes_on_after_the_pages_that_it_was_sent(deep: Log, stop: int) -> None:
    """A page that cannot be read, in the middle of a batch, hides or repeats rows before or behind it."""
    cursor, found = search.walk(deep.manifest, before=None), list[Row]()
    while True:
        rows, cursor = cursor.step()
        found += rows
        if not (refs := cursor.batch(None)):
            break
        cursor = cursor.opened(refs, deep.load(refs[:stop]))
    assert found == deep.rows[::-1]


@pytest.mark.parametrize("stop", [1, 2, 5, 16])
def test_going_on_after_a_version_returns_every_row_once(deep: Log, stop: int) -> None:
    """A consumer that is far behind skips rows, or receives some twice."""
    for after in (0, 1, F, F * G - 1, 5 * F * G + 3):
        found: list[Row] = []
        position = after
        while True:
            onward = deep.gather(search.onward(deep.manifest, position), stop)
            found += [item for item in onward.items if isinstance(item, Row)]
            if onward.at_end:
                break
            position = found[-1].version
        assert found == deep.rows[after:]
        assert deep.gather(search.since(deep.manifest, after), stop) == deep.rows[after:]
