"""A log in which some rows have another base, or one row is erased, as pure code.

The pages of these rows, and those above, are sealed anew. A page that changes gets a new name, because
readers have cached the old one by its name. The old page is unlinked. Rows keep their versions, so a page
keeps its place.

What needs pages is a generator, like a search: it yields references, and is sent their pages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import msgspec

from swapstore.format import bases, manifest
from swapstore.format.append import Draft
from swapstore.format.pages import SealedPage, seal
from swapstore.models import Ref, Row

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Iterable, Mapping, Sequence

    from swapstore.format.append import Stamp
    from swapstore.format.encodings import InForce
    from swapstore.format.manifest import Log, Manifest
    from swapstore.format.pages import Page


# --- finding ---------------------------------------------------------------------------------------


def rows_after(log: Log, version: int, upto: int, most: int) -> Generator[Ref, Page, list[Row]]:
    """Return rows with versions after one and up to another, oldest first, hidden or not.

    They come in whole pages, until there are `most` or more.
    """
    found: list[Row] = []
    ahead: list[Ref | Row] = [*reversed(log.rows), *reversed(log.pages)]
    while ahead and len(found) < most:
        item = ahead.pop()
        if isinstance(item, Row):
            found += [item] if version < item.version <= upto else []
        elif item.last_version > version and item.first_version <= upto:
            page = yield item
            ahead += reversed(page.rows or page.pages)
    return found


def count_after(log: Log, version: int, upto: int) -> Generator[Ref, Page, int]:
    """Count the rows with versions after one and up to another."""
    count = 0
    ahead: list[Ref | Row] = [*log.pages, *log.rows]
    while ahead:
        item = ahead.pop()
        if isinstance(item, Row):
            count += version < item.version <= upto
        elif version < item.first_version and item.last_version <= upto:
            count += item.count
        elif item.last_version > version and item.first_version <= upto:
            page = yield item
            ahead += page.rows or page.pages
    return count


def pages_within(log: Log, first: int, last: int) -> Generator[Ref, Page, list[Ref]]:
    """Return the largest pages that hold only rows of these versions, oldest first."""
    found: list[Ref] = []
    ahead = list(log.pages[::-1])
    while ahead:
        ref = ahead.pop()
        if first <= ref.first_version and ref.last_version <= last:
            found.append(ref)
        elif ref.first_version <= last and first <= ref.last_version:
            page = yield ref
            ahead += reversed(page.pages)
    return found


def nearest_base(log: Log, version: int, *, before: bool) -> Generator[Ref, Page, str | None]:
    """Return the base of the nearest row before or after a version that has one."""
    ahead: list[Ref | Row] = [*log.pages, *log.rows]
    if not before:
        ahead.reverse()
    while ahead:
        item = ahead.pop()
        first, last = _span(item)
        if first >= version if before else last <= version:
            continue
        if isinstance(item, Row):
            if item.base is not None:
                return item.base
        elif item.bases is not None:
            page = yield item
            below: Sequence[Ref | Row] = page.rows or page.pages
            ahead += below if before else reversed(below)
    return None


def needing(manifest: Manifest, names: Collection[str], most: int) -> Generator[Ref, Page, list[Row]]:
    """Return up to `most` rows that name one of these bases, hidden or not: those that are served first."""
    found = {row.version: row for row in manifest.head.kept if row.base in names}
    ahead: list[Ref | Row] = [*reversed(manifest.log.rows), *reversed(manifest.log.pages)]
    while ahead and len(found) < most:
        item = ahead.pop()
        if isinstance(item, Row):
            if item.base in names:
                found[item.version] = item
        elif any(bases.is_shown(name, [item]) for name in names):
            page = yield item
            ahead += reversed(page.rows or page.pages)
    return list(found.values())[:most]


def _span(item: Ref | Row) -> tuple[int, int]:
    if isinstance(item, Row):
        return item.version, item.version
    return item.first_version, item.last_version


# --- the next manifest -----------------------------------------------------------------------------


def redraft(
    base: Manifest,
    changed: Mapping[int, Row],
    *,
    in_force: InForce | None,
    unneeded: Iterable[str],
    stamp: Stamp,
    erasing: Erasing | None = None,
) -> Generator[Ref, Page, Draft]:
    """Draft the manifest in which these rows, by version, take the place of those that are there.

    `in_force`: the base in force from then on. `unneeded`: the names of bases that no row of the new log has.
    """
    dataset, keys, version = base.head.dataset, stamp.keys, base.version + 1
    resealing = _Resealing(changed, dataset, stamp, None if erasing is None else erasing.row)
    pages = yield from resealing.refs(base.log.pages)
    rows = resealing.rows(base.log.rows)
    latest = base.head.latest if erasing is None else erasing.latest
    pinned = base.head.pinned if erasing is None else erasing.pinned
    head = msgspec.structs.replace(
        base.head,
        etag=f"{base.epoch}.{version}.{stamp.nonce}",
        version=version,
        committed_at=stamp.now_ms,
        latest=resealing.row(latest),
        pinned=None if pinned is None else resealing.row(pinned),
        count=base.head.count - resealing.erased,
    )
    log = msgspec.structs.replace(base.log, rows=rows, pages=pages, base=in_force)
    if erasing is not None:
        gone = erasing.row.version
        log = msgspec.structs.replace(
            log,
            dedupe=tuple((key, of) for key, of in log.dedupe if of != gone),
            erased=(*log.erased, gone)[-manifest.recent() :],
        )
    needed = {row.base for row in head.kept} | {in_force and in_force.name}
    left = [keys.base(dataset, name) for name in sorted(set(unneeded) - needed)]
    return Draft(
        base=base,
        manifest=manifest.build(head, log, keys, base=base),
        pages=tuple(resealing.sealed),
        unlinked=(*resealing.replaced, *left),
    )


@attrs.frozen
class Erasing:
    """A row to leave out of a log and the header, and what is served from then on."""

    row: Row
    latest: Row
    pinned: Row | None


class _Resealing:
    """Seals the pages anew in which rows change. Their names begin with a new epoch, as after a repair.

    `gone`: a row to leave out. `erased` counts how often the log had it: once, unless only the header has it.
    """

    def __init__(
        self, changed: Mapping[int, Row], dataset: str, stamp: Stamp, gone: Row | None = None
    ) -> None:
        self._changed = changed
        self._gone = gone
        self._dataset = dataset
        self._stamp = stamp
        self._sealed: dict[str, SealedPage] = {}
        self._made: dict[str, Sequence[Row]] = {}  # the rows of those that hold rows
        self.replaced: list[str] = []
        self.erased = 0

    @property
    def sealed(self) -> list[SealedPage]:
        """The new pages."""
        return list(self._sealed.values())

    def row(self, row: Row) -> Row:
        """Return what takes the place of a row; the row itself if it does not change."""
        instead = self._changed.get(row.version)
        return instead if instead is not None and manifest.same_row(instead, row) else row

    def rows(self, rows: Sequence[Row]) -> tuple[Row, ...]:
        """Return rows with those that change, without the one that is gone."""
        gone = self._gone
        left = tuple(self.row(row) for row in rows if gone is None or not manifest.same_row(row, gone))
        self.erased += len(rows) - len(left)
        return left

    def refs(self, refs: Sequence[Ref]) -> Generator[Ref, Page, tuple[Ref, ...]]:
        """Return references, those of pages that change to the pages that take their place."""
        found: tuple[Ref, ...] = ()
        for ref in refs:
            instead = yield from self._instead_of(ref)
            found += () if instead is None else (instead,)
        return found

    def _instead_of(self, ref: Ref) -> Generator[Ref, Page, Ref | None]:
        """Return what takes the place of a page. None: nothing is left of it."""
        if not any(map(ref.spans, self._changed)) and not (self._gone and ref.spans(self._gone.version)):
            return ref
        page = yield ref
        was = page.rows or page.pages
        rows = self.rows(page.rows)
        refs = yield from self.refs(page.pages)
        below = rows or refs
        if len(below) == len(was) and all(one is other for one, other in zip(below, was, strict=True)):
            return ref  # a row that the header alone has
        self.replaced.append(ref.key)
        if page.pages:
            return (yield from self._of_refs(refs))
        return self._seal_rows(rows) if rows else None

    def _of_refs(self, refs: Sequence[Ref]) -> Generator[Ref, Page, Ref | None]:
        """Return the reference to some pages. Two or more, with more than F rows, have a page above them."""
        if len(refs) < 2:  # noqa: PLR2004 - none, or one that needs no page above it
            return refs[0] if refs else None
        if sum(ref.count for ref in refs) > manifest.F:
            return self._seal(refs)
        rows: list[Row] = []
        for ref in refs:
            if ref.key in self._made:
                self._sealed.pop(ref.key)
                rows += self._made[ref.key]
            else:
                self.replaced.append(ref.key)
                rows += (yield ref).rows
        return self._seal_rows(rows)

    def _seal_rows(self, rows: Sequence[Row]) -> Ref:
        ref = self._seal(rows, level=0)
        self._made[ref.key] = rows
        return ref

    def _seal(self, below: Sequence[Row] | Sequence[Ref], *, level: int = 1) -> Ref:
        made = seal(
            below, level=level, dataset=self._dataset, epoch=self._stamp.new_epoch, keys=self._stamp.keys
        )
        self._sealed[made.ref.key] = made
        return made.ref
