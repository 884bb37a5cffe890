"""Find rows in a manifest and its pages, as pure code.

A search is a generator: it yields the reference of each page that it needs and is sent the page. So it does
no I/O, and runs the same on any driver. It goes best first: rows and references are in one heap, each under
the best score that it could contain, and the first row to leave the heap is the answer. If the times in the
log ascend, this loads one page a level.

A walk returns many rows. It asks for the pages that come next in batches, and is sent them in order: all, or
those before the first that cannot be read. It asks for that one again when its turn comes.
"""

from __future__ import annotations

import heapq
import itertools
import sys
from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec

from swapstore.format import bases
from swapstore.format import manifest as manifests
from swapstore.models import Ref, Row
from swapstore.structs import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping, Sequence

    from swapstore.format.manifest import Head, Log, Manifest
    from swapstore.format.pages import Page

Score = tuple[int, int]
T = TypeVar("T", "Row | Ref", "Row | Ref | int")
BATCH_PAGES = 16  # that a walk asks for at once
AHEAD_ROWS = 1024  # a walk asks for no further page of references once it knows where so many rows are


class Query(Protocol):
    """What to find: the score of a row, and the best score that a row below a reference can have.

    None: no match.
    """

    def row(self, row: Row) -> Score | None:
        """Score a row; the row with the greatest score is the answer."""

    def bound(self, ref: Ref) -> Score | None:
        """Return the best score that a row below this reference can have."""


class ByVersion(Struct, frozen=True):
    """Find the row that this version committed."""

    version: int

    def row(self, row: Row) -> Score | None:
        """Match the version."""
        return (0, 0) if row.version == self.version else None

    def bound(self, ref: Ref) -> Score | None:
        """Open the pages that span the version."""
        return (0, 0) if ref.spans(self.version) else None


class UpToVersion(Struct, frozen=True):
    """Find the row with the greatest version up to this one."""

    version: int

    def row(self, row: Row) -> Score | None:
        """Prefer the newest row that is not after the version."""
        return (row.version, 0) if row.version <= self.version else None

    def bound(self, ref: Ref) -> Score | None:
        """No row below can be newer than the page's newest, or than the version."""
        return (min(ref.last_version, self.version), 0) if ref.first_version <= self.version else None


class ById(Struct, frozen=True):
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


class AsOf(Struct, frozen=True):
    """Find the row with the greatest `ts` up to a moment; among equal ones, the one committed last.

    `besides`: of another version than this one.
    """

    ts: int
    besides: int = 0

    def row(self, row: Row) -> Score | None:
        """Prefer the newest row that is not after the moment."""
        return (row.ts, row.version) if row.ts <= self.ts and row.version != self.besides else None

    def bound(self, ref: Ref) -> Score | None:
        """No row below can be newer than the page's newest, or than the moment."""
        return (min(ref.max_ts, self.ts), ref.last_version) if ref.min_ts <= self.ts else None


class ByBase(Struct, frozen=True):
    """Find a row that names this base. `besides`: of other versions than these."""

    name: str
    besides: frozenset[int] = frozenset()

    def row(self, row: Row) -> Score | None:
        """Match the base; prefer the newest row."""
        is_other = row.base == self.name and row.version not in self.besides
        return (row.version, 0) if is_other else None

    def bound(self, ref: Ref) -> Score | None:
        """Open the pages that may have such a row."""
        return (ref.last_version, 0) if bases.is_shown(self.name, [ref]) else None


def search(manifest: Manifest, query: Query, *, hidden: bool = False) -> Generator[Ref, Page, Row | None]:
    """Find the best readable row, or None. Yields references, and is sent their pages.

    `hidden`: also find rows that retention hides and that are not unlinked yet.
    """
    head = manifest.head
    rows = [*head.kept, *manifest.log.rows]
    return _best(None if hidden else head, rows, manifest.log.pages, query)


def newest(
    head: Head, log: Log, *, hidden: bool = False, besides: int = 0
) -> Generator[Ref, Page, Row | None]:
    """Find the row of a log with the greatest `ts`, whatever the header serves. Yields like `search`."""
    return _best(None if hidden else head, log.rows, log.pages, AsOf(sys.maxsize, besides))


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


def oldest(log: Log) -> Generator[Ref, Page, tuple[Row, ...]]:
    """Return the rows of the oldest page, hidden or not, or else the tail. Yields like `search`."""
    rows, refs = log.rows, log.pages
    while refs:
        page = yield refs[0]
        rows, refs = page.rows, page.pages
    return rows


# --- walks -----------------------------------------------------------------------------------------


def batch(ahead: Sequence[Row | Ref | int], rows: int | None = None) -> list[Ref]:
    """Return the references that a walk needs next, for one round trip. `ahead`: the next one comes last.

    They cover `rows` rows if there are so many (None: all). Pages of rows come first, so that the rows of one
    batch have been returned before the next one is needed. The pages of references behind them are what the
    next batches need.
    """
    wanted = AHEAD_ROWS if rows is None else min(rows, AHEAD_ROWS)
    found: list[Ref] = []
    covered = 0
    for item in reversed(ahead):
        if covered >= wanted or len(found) == BATCH_PAGES:
            break
        if isinstance(item, Ref):
            if found and item.count <= manifests.F < found[-1].count:
                break
            found.append(item)
            covered += item.count
    return found


def since(manifest: Manifest, version: int) -> Generator[list[Ref], list[Page], list[Row]]:
    """Walk the rows of the log with later versions, and return them, hidden or not."""
    rows = [row for row in manifest.log.rows if row.version > version]
    ahead = [ref for ref in manifest.log.pages if ref.last_version > version]
    while ahead:
        pages = yield ahead[:BATCH_PAGES]
        below = [ref for page in pages for ref in page.pages if ref.last_version > version]
        rows += [row for page in pages for row in page.rows if row.version > version]
        ahead = below + ahead[len(pages) :]
    return sorted(rows, key=lambda row: row.version)


def visited(log: Log, ts: int, visit: Callable[[Row], object]) -> Generator[list[Ref], list[Page], None]:
    """Walk the rows of a log with this `ts` or a later one, hidden or not. `visit` is called with each."""
    ahead = [ref for ref in log.pages if ref.max_ts >= ts]
    rows: Iterable[Row] = log.rows
    while True:
        for row in rows:
            visit(row)
        if not ahead:
            return
        pages = yield ahead[:BATCH_PAGES]
        below = [ref for page in pages for ref in page.pages if ref.max_ts >= ts]
        rows = [row for page in pages for row in page.rows]
        ahead = below + ahead[len(pages) :]


class Onward(Struct, frozen=True):
    """What comes next in a log, oldest first: rows that can be read, and versions of hidden rows.

    A version stands for a run of hidden rows: it is that of the last one. `at_end`: nothing comes after.
    """

    items: list[Row | int]
    at_end: bool


def onward(manifest: Manifest, after: int) -> Generator[list[Ref], list[Page], Onward]:
    """Walk on after a version, up to the end of the first batch with rows that can be read."""
    head, log = manifest.head, manifest.log
    items: list[Row | int] = []
    begin = end = after
    kept = [row.version for row in head.kept if row.version > after]

    def parts(ref: Ref) -> bool:
        """Whether a page may have hidden rows before one that is kept: they are a run of their own."""
        return any(ref.first_version < version <= ref.last_version for version in kept)

    def below(rows: Sequence[Row], refs: Sequence[Ref]) -> list[Row | Ref | int]:
        """Return what a log or page holds after `after`, the oldest last. Hidden pages stand as versions."""
        return [
            *(row for row in reversed(rows) if row.version > after),
            *(
                ref if head.opens(ref) or parts(ref) else ref.last_version
                for ref in reversed(refs)
                if ref.last_version > after
            ),
        ]

    ahead = below(log.rows, log.pages)
    while True:
        while ahead and not isinstance(item := ahead[-1], Ref):
            ahead.pop()
            end = item if isinstance(item, int) else item.version
            items.append(item if isinstance(item, Row) and head.keeps(item) else end)
        if not ahead or any(isinstance(item, Row) for item in items):
            break
        refs = batch(ahead)
        ahead = _opened(ahead, refs, (yield refs), below)
    there = {(item.version, item.id) for item in items if isinstance(item, Row)}
    # `latest` and `pinned` can be read even if they are not in the log any more, or in a hidden page.
    end = end if ahead else manifest.version
    items += [row for row in head.kept if begin < row.version <= end and (row.version, row.id) not in there]
    return Onward(sorted(items, key=lambda item: item if isinstance(item, int) else item.version), not ahead)


class Filter(Struct, frozen=True, kw_only=True):
    """The rows that a history is asked for: with all of these labels, and `since` <= `ts` < `until`."""

    labels: Mapping[str, str] = msgspec.field(default_factory=dict)
    since: int | None = None
    until: int | None = None

    def takes(self, row: Row) -> bool:
        """Whether this row is wanted."""
        return (
            (self.since is None or row.ts >= self.since)
            and (self.until is None or row.ts < self.until)
            and all(row.labels.get(key) == text for key, text in self.labels.items())
        )

    def opens(self, ref: Ref) -> bool:
        """Whether a row below this reference may be wanted: pages tell their times, and no labels."""
        return (self.since is None or ref.max_ts >= self.since) and (
            self.until is None or ref.min_ts < self.until
        )


EVERY_ROW = Filter()


class Cursor(Struct, frozen=True):
    """A position in the history, read newest first: what is still ahead, as an immutable value.

    It belongs to one manifest, so a history that is read slowly shows one committed version throughout.
    """

    manifest: Manifest
    ahead: tuple[Row | Ref, ...]  # the oldest first
    before: int | None
    wanted: Filter = EVERY_ROW

    def step(self) -> tuple[list[Row], Cursor]:
        """Return the rows that are available, and the position after them."""
        found: list[Row] = []
        ahead = list(self.ahead)
        while ahead:
            item = ahead[-1]
            if self.before is None or _first_version(item) < self.before:
                if isinstance(item, Ref):
                    break
                found.append(item)
            ahead.pop()
        return found, msgspec.structs.replace(self, ahead=tuple(ahead))

    def batch(self, rows: int | None) -> list[Ref]:
        """Return the pages to load next, for so many more rows (None: for all). None are left: the end."""
        if rows is not None and self.before is not None and self.ahead:
            newest = self.ahead[-1]
            rows += max(0, _last_version(newest) + 1 - self.before)  # those are skipped
        return batch(self.ahead, rows)

    def opened(self, refs: Sequence[Ref], pages: Sequence[Page]) -> Cursor:
        """Return the position after loading the first of these pages: what they hold comes next."""

        def below(rows: Sequence[Row], refs: Sequence[Ref]) -> list[Row | Ref]:
            return _shown(self.manifest, self.wanted, rows, refs)

        return msgspec.structs.replace(self, ahead=tuple(_opened(self.ahead, refs, pages, below)))


def walk(manifest: Manifest, *, before: int | None, wanted: Filter = EVERY_ROW) -> Cursor:
    """Return the position at the newest wanted row, or at the newest one with a version below `before`."""
    ahead = _shown(manifest, wanted, manifest.log.rows, manifest.log.pages)
    return Cursor(manifest, tuple(ahead), before, wanted)


def _opened(
    ahead: Sequence[T],
    refs: Sequence[Ref],
    pages: Sequence[Page],
    below: Callable[[Sequence[Row], Sequence[Ref]], list[T]],
) -> list[T]:
    """Replace the first of the references by what is below them. There may be fewer pages than references."""
    loaded = dict(zip((ref.key for ref in refs), pages, strict=False))
    opened: list[T] = []
    for item in ahead:
        page = loaded.get(item.key) if isinstance(item, Ref) else None
        opened += [item] if page is None else below(page.rows, page.pages)
    return opened


def _first_version(item: Row | Ref) -> int:
    return item.version if isinstance(item, Row) else item.first_version


def _last_version(item: Row | Ref) -> int:
    return item.version if isinstance(item, Row) else item.last_version


def _shown(manifest: Manifest, wanted: Filter, rows: Iterable[Row], refs: Iterable[Ref]) -> list[Row | Ref]:
    head = manifest.head
    return [
        *(ref for ref in refs if head.opens(ref) and wanted.opens(ref)),
        *(row for row in rows if head.shows(row) and wanted.takes(row)),
    ]
