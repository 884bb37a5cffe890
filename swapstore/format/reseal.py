"""A log in which some rows have another base, as pure code: their pages, and those above, are sealed anew.

A page that changes gets a new name, because readers have cached the old one by its name. The old page is
unlinked. Rows keep their versions, so a page keeps its place and its bounds.

What needs pages is a generator, like a search: it yields references, and is sent their pages.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from swapstore.format import manifest
from swapstore.format.append import Draft
from swapstore.format.pages import SealedPage, seal
from swapstore.models import Ref, Row

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping, Sequence

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
) -> Generator[Ref, Page, Draft]:
    """Draft the manifest in which these rows, by version, take the place of those that are there.

    `in_force`: the base in force from then on. `unneeded`: the names of bases that no row of the new log has.
    """
    dataset, keys, version = base.head.dataset, stamp.keys, base.version + 1
    resealing = _Resealing(changed, dataset, stamp)
    pages = yield from resealing.refs(base.log.pages)
    pinned = base.head.pinned
    head = attrs.evolve(
        base.head,
        etag=f"{base.epoch}.{version}.{stamp.nonce}",
        version=version,
        committed_at=stamp.now_ms,
        latest=resealing.row(base.head.latest),
        pinned=None if pinned is None else resealing.row(pinned),
    )
    log = attrs.evolve(base.log, rows=resealing.rows(base.log.rows), pages=pages, base=in_force)
    needed = {row.base for row in head.kept} | {in_force and in_force.name}
    left = [keys.base(dataset, name) for name in sorted(set(unneeded) - needed)]
    return Draft(
        base=base,
        manifest=manifest.build(head, log, keys, base=base),
        pages=tuple(resealing.sealed),
        unlinked=(*resealing.replaced, *left),
    )


class _Resealing:
    """Seals the pages anew in which rows change. Their names begin with a new epoch, as after a repair."""

    def __init__(self, changed: Mapping[int, Row], dataset: str, stamp: Stamp) -> None:
        self._changed = changed
        self._dataset = dataset
        self._stamp = stamp
        self.sealed: list[SealedPage] = []
        self.replaced: list[str] = []

    def row(self, row: Row) -> Row:
        """Return what takes the place of a row; the row itself if it does not change."""
        instead = self._changed.get(row.version)
        return instead if instead is not None and manifest.same_row(instead, row) else row

    def rows(self, rows: Sequence[Row]) -> tuple[Row, ...]:
        """Return rows with those that change."""
        return tuple(self.row(row) for row in rows)

    def refs(self, refs: Sequence[Ref]) -> Generator[Ref, Page, tuple[Ref, ...]]:
        """Return references, those of pages that change to the pages that take their place."""
        found: tuple[Ref, ...] = ()
        for ref in refs:
            found += ((yield from self._instead_of(ref)),)
        return found

    def _instead_of(self, ref: Ref) -> Generator[Ref, Page, Ref]:
        if not any(map(ref.spans, self._changed)):
            return ref
        page = yield ref
        below: tuple[Row, ...] | tuple[Ref, ...]
        if page.rows:
            below = self.rows(page.rows)
        else:
            below = yield from self.refs(page.pages)
        if all(one is other for one, other in zip(below, page.rows or page.pages, strict=True)):
            return ref  # a row that the header alone has
        made = seal(
            below,
            level=0 if page.rows else 1,
            dataset=self._dataset,
            epoch=self._stamp.new_epoch,
            keys=self._stamp.keys,
        )
        self.sealed.append(made)
        self.replaced.append(ref.key)
        return made.ref
