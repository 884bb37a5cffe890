"""Find rows in a manifest and its pages, as pure code.

A search is a generator: it yields the reference of each page that it needs and is sent the page. So it does
no I/O, and runs the same on any driver. It goes best first: rows and references are in one heap, each under
the best score that it could contain, and the first row to leave the heap is the answer. If the times in the
log ascend, this loads one page a level.
"""

from __future__ import annotations

import heapq
import itertools
import sys
from typing import TYPE_CHECKING, Protocol

import attrs

from swapstore.format.keys import base_version
from swapstore.models import Ref, Row

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    from swapstore.format.manifest import Head, Log, Manifest
    from swapstore.format.pages import Page

Score = tuple[int, int]


class Query(Protocol):
    """What to find: the score of a row, and the best score that a row below a reference can have.

    None: no match.
    """

    def row(self, row: Row) -> Score | None:
        """Score a row; the row with the greatest score is the answer."""

    def bound(self, ref: Ref) -> Score | None:
        """Return the best score that a row below this reference can have."""


@attrs.frozen
class ByVersion:
    """Find the row that this version committed."""

    version: int

    def row(self, row: Row) -> Score | None:
        """Match the version."""
        return (0, 0) if row.version == self.version else None

    def bound(self, ref: Ref) -> Score | None:
        """Open the pages that span the version."""
        return (0, 0) if ref.spans(self.version) else None


@attrs.frozen
class UpToVersion:
    """Find the row with the greatest version up to this one."""

    version: int

    def row(self, row: Row) -> Score | None:
        """Prefer the newest row that is not after the version."""
        return (row.version, 0) if row.version <= self.version else None

    def bound(self, ref: Ref) -> Score | None:
        """No row below can be newer than the page's newest, or than the version."""
        return (min(ref.last_version, self.version), 0) if ref.first_version <= self.version else None


@attrs.frozen
class ById:
    """Find the row with this id, whose `ts` is known from its id record. `besides`: of another version."""

    id: str
    ts: int
    besides: int = 0

    def row(self, row: Row) -> Score | None:
        """Match the id; there is at most one row per id in an undamaged log."""
        return (row.version, 0) if row.id == self.id and row.version != self.besides else None

    def bound(self, ref: Ref) -> Score | None:
        """Open the pages that span the time, newest first."""
        return (ref.last_version, 0) if ref.min_ts <= self.ts <= ref.max_ts else None


@attrs.frozen
class ByBase:
    """Find a row whose payload may need the base that this version brought. Bases ascend along the log."""

    version: int

    def row(self, row: Row) -> Score | None:
        """Match the base; any row that needs it will do."""
        return None if row.base is None or base_version(row.base) != self.version else (row.version, 0)

    def bound(self, ref: Ref) -> Score | None:
        """Open the pages that span the base."""
        return (ref.last_version, 0) if ref.bases and ref.bases[0] <= self.version <= ref.bases[1] else None


@attrs.frozen
class AsOf:
    """Find the row with the greatest `ts` up to a moment; among equal ones, the one committed last."""

    ts: int

    def row(self, row: Row) -> Score | None:
        """Prefer the newest row that is not after the moment."""
        return (row.ts, row.version) if row.ts <= self.ts else None

    def bound(self, ref: Ref) -> Score | None:
        """No row below can be newer than the page's newest, or than the moment."""
        return (min(ref.max_ts, self.ts), ref.last_version) if ref.min_ts <= self.ts else None


def search(manifest: Manifest, query: Query, *, hidden: bool = False) -> Generator[Ref, Page, Row | None]:
    """Find the best readable row, or None. Yields references, and is sent their pages.

    `hidden`: also find rows that retention hides and that are not unlinked yet.
    """
    head = manifest.head
    rows = [*head.kept, *manifest.log.rows]
    return _best(None if hidden else head, rows, manifest.log.pages, query)


def newest(head: Head, log: Log, *, hidden: bool = False) -> Generator[Ref, Page, Row | None]:
    """Find the row of a log with the greatest `ts`, whatever the header serves. Yields like `search`."""
    return _best(None if hidden else head, log.rows, log.pages, AsOf(sys.maxsize))


def in_log(log: Log, query: Query) -> Generator[Ref, Page, Row | None]:
    """Find the best row of a log, hidden or not, whatever the header serves. Yields like `search`."""
    return _best(None, log.rows, log.pages, query)


def _best(
    head: Head | None, rows: Iterable[Row], refs: Iterable[Ref], query: Query
) -> Generator[Ref, Page, Row | None]:
    """Search best first. Skips what `head` hides; without a header, nothing is hidden."""
    heap: list[tuple[int, int, int, int, Row | Ref]] = []
    order = itertools.count()

    def consider(rows: Iterable[Row], refs: Iterable[Ref]) -> None:
        # Rows go before references of the same score: they need no page.
        for row in rows:
            if (head is None or head.keeps(row)) and (score := query.row(row)):
                heapq.heappush(heap, (-score[0], -score[1], 0, next(order), row))
        for ref in refs:
            if (head is None or head.opens(ref)) and (score := query.bound(ref)):
                heapq.heappush(heap, (-score[0], -score[1], 1, next(order), ref))

    consider(rows, refs)
    while heap:
        best = heapq.heappop(heap)[-1]
        if isinstance(best, Row):
            return best
        page = yield best
        consider(page.rows, page.pages)
    return None


def is_named(manifest: Manifest, key: str, version: int) -> Generator[Ref, Page, bool]:
    """Whether the log references the page of this key, whose first row has this version."""
    refs = manifest.log.pages
    while True:
        ref = next((ref for ref in refs if ref.spans(version)), None)
        if ref is None or ref.key == key:
            return ref is not None
        refs = (yield ref).pages


def since(manifest: Manifest, version: int) -> Generator[Ref, Page, list[Row]]:
    """Return the rows of the log with later versions, hidden or not. Yields like `search`."""
    rows = [row for row in manifest.log.rows if row.version > version]
    ahead = [ref for ref in manifest.log.pages if ref.last_version > version]
    while ahead:
        page = yield ahead.pop()
        rows += [row for row in page.rows if row.version > version]
        ahead += [ref for ref in page.pages if ref.last_version > version]
    return sorted(rows, key=lambda row: row.version)


@attrs.frozen
class Onward:
    """What comes next in a log, oldest first: rows that can be read, and versions of hidden rows.

    A version stands for a run of hidden rows: it is that of the last one. `at_end`: nothing comes after.
    """

    items: list[Row | int]
    at_end: bool


def onward(manifest: Manifest, after: int) -> Generator[Ref, Page, Onward]:
    """Go on after a version, up to the first page with rows that can be read. Yields like `search`."""
    head, log = manifest.head, manifest.log
    items: list[Row | int] = []
    at_end = False
    begin = after
    while not at_end and not any(isinstance(item, Row) for item in items):
        rows, refs, end, at_end = log.rows, log.pages, manifest.version, True
        while (ref := _next_open(head, refs, after, items)) is not None:
            page = yield ref
            rows, refs, end, at_end = page.rows, page.pages, ref.last_version, False
        items += [row if head.keeps(row) else row.version for row in rows if row.version > after]
        after = end
    there = {(item.version, item.id) for item in items if isinstance(item, Row)}
    # `latest` and `pinned` can be read even if they are not in the log any more, or in a hidden page.
    items += [row for row in head.kept if begin < row.version <= after and (row.version, row.id) not in there]
    return Onward(sorted(items, key=lambda item: item if isinstance(item, int) else item.version), at_end)


def _next_open(head: Head, refs: Iterable[Ref], after: int, skipped: list[Row | int]) -> Ref | None:
    """Return the first reference after a version that the history shows; note the hidden ones before it."""
    for ref in refs:
        if ref.last_version > after:
            if head.opens(ref):
                return ref
            skipped.append(ref.last_version)
    return None


@attrs.frozen
class Cursor:
    """A position in the history, read newest first: what is still ahead, as an immutable value.

    It belongs to one manifest, so a history that is read slowly shows one committed version throughout.
    """

    manifest: Manifest
    ahead: tuple[Row | Ref, ...]  # oldest first
    before: int | None

    def step(self) -> tuple[list[Row], Ref | None, Cursor]:
        """Return the rows that are available, the page to load next (None at the end), and the rest."""
        found: list[Row] = []
        ahead = list(self.ahead)
        while ahead:
            item = ahead.pop()
            if self.before is not None and _first_version(item) >= self.before:
                continue
            if isinstance(item, Row):
                found.append(item)
            else:
                return found, item, attrs.evolve(self, ahead=tuple(ahead))
        return found, None, attrs.evolve(self, ahead=())

    def opened(self, page: Page) -> Cursor:
        """Return the position after loading a page: its rows and references come next."""
        return attrs.evolve(self, ahead=(*self.ahead, *_shown(self.manifest, page.rows, page.pages)))


def walk(manifest: Manifest, *, before: int | None) -> Cursor:
    """Return the position at the newest row, or at the newest one with a version below `before`."""
    return Cursor(manifest, tuple(_shown(manifest, manifest.log.rows, manifest.log.pages)), before)


def _first_version(item: Row | Ref) -> int:
    return item.version if isinstance(item, Row) else item.first_version


def _shown(manifest: Manifest, rows: Iterable[Row], refs: Iterable[Ref]) -> list[Row | Ref]:
    head = manifest.head
    return [
        *(ref for ref in refs if head.opens(ref)),
        *(row for row in rows if head.shows(row)),
    ]
