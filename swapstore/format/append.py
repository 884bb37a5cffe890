"""The next manifest, as pure code: a row more, another row served, or less history.

When the tail reaches 2F rows, the oldest F are sealed into a page; when the last G references have the same
size, they are sealed into a page of references. So a manifest stays a few KB at any depth: it names a
handful of pages of each size, like the digits of a number. The same run always seals into the same bytes
under the same key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from swapstore.format import manifest, records, retention
from swapstore.format.manifest import Head, Log, Manifest
from swapstore.format.pages import Page, SealedPage, seal
from swapstore.format.retention import Limits
from swapstore.models import Entry, Ref, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from swapstore.format.keys import Keys


@attrs.frozen(kw_only=True)
class Draft:
    """The manifest that a swap would make current, and what it stands on.

    `row` is what a publish adds; `pages` are the pages sealed by it; `unlinked` are the keys of what the
    log no longer names, which live for `grace_ms` more (unless given: the reader grace). A repair may
    replace what is no manifest: `over` is all of that, and then there is no base.
    """

    base: Manifest | None
    manifest: Manifest
    row: Row | None = None
    pages: tuple[SealedPage, ...] = ()
    unlinked: tuple[str, ...] = ()
    over: bytes | None = None
    grace_ms: int | None = None


@attrs.frozen(kw_only=True)
class Stamp:
    """What a new manifest takes from outside: the time, its nonce, names. `new_epoch` begins a log."""

    now_ms: int
    nonce: str
    new_epoch: str
    keys: Keys


@attrs.frozen(kw_only=True)
class Retained:
    """What retention does in a swap.

    `pages` are pages that are ripe, by their keys; `released` are rows that `latest` or `pinned` alone kept
    alive until now.
    """

    limits: Limits = attrs.field(factory=Limits)
    pages: Mapping[str, Page] = attrs.field(factory=dict)
    released: tuple[Row, ...] = ()


def append(
    base: Manifest | None,
    entry: Entry,
    *,
    dataset: str,
    dedupe_key: str | None,
    stamp: Stamp,
    retained: Retained | None = None,
) -> Draft:
    """Add a snapshot to the log.

    `latest` is the row with the greatest `ts`, the later commit among equals, so a snapshot older than
    the current latest joins the history and leaves `latest` alone.
    """
    version = base.version + 1 if base else 1
    epoch = base.epoch if base else stamp.new_epoch
    row = Row(
        id=entry.id,
        ts=entry.ts,
        size=entry.size,
        sha256=entry.sha256,
        codec=entry.codec,
        encoding=entry.encoding,
        labels=entry.labels,
        version=version,
        committed_at=stamp.now_ms,
        dedupe_key=dedupe_key,
    )
    log = base.log if base else Log(rows=(), pages=())
    head = Head(
        etag=f"{epoch}.{version}.{stamp.nonce}",
        format=records.FORMAT,
        dataset=dataset,
        version=version,
        committed_at=stamp.now_ms,
        confirmed_at=stamp.now_ms,
        latest=base.head.latest if base and base.head.latest.ts > row.ts else row,
        pinned=base.head.pinned if base else None,
        count=base.head.count + 1 if base else 1,
        first_version=base.head.first_version if base else 1,
        floor=base.head.floor if base else 0,
    )
    log = Log(rows=(*log.rows, row), pages=log.pages)
    unlinked: tuple[str, ...] = ()
    if retained is not None or not head.shows_everything:
        head, log, unlinked = _let_go(head, log, retained or Retained(), stamp.keys)
    log, sealed = sealed_log(log, dataset=dataset, epoch=epoch, keys=stamp.keys)
    return Draft(
        base=base,
        manifest=manifest.build(head, log, stamp.keys, base=base),
        row=row,
        pages=sealed,
        unlinked=unlinked,
    )


def repoint(base: Manifest, *, stamp: Stamp, retained: Retained | None = None, **changes: Any) -> Draft:
    """Swap without a new row: `latest`, `pinned` or `confirmed_at` change, or retention lets go."""
    version = base.version + 1
    etag = f"{base.epoch}.{version}.{stamp.nonce}"
    head = attrs.evolve(base.head, etag=etag, version=version, committed_at=stamp.now_ms, **changes)
    head, log, unlinked = _let_go(head, base.log, retained or Retained(), stamp.keys)
    return Draft(base=base, manifest=manifest.build(head, log, stamp.keys, base=base), unlinked=unlinked)


# --- growing ---------------------------------------------------------------------------------------


def sealed_log(log: Log, *, dataset: str, epoch: str, keys: Keys) -> tuple[Log, tuple[SealedPage, ...]]:
    """Seal the oldest F rows of a tail that has reached 2F, and references as far as that goes."""
    size = manifest.F
    if len(log.rows) < 2 * size:
        return log, ()
    page = seal(log.rows[:size], level=0, dataset=dataset, epoch=epoch, keys=keys)
    refs, above = sealed_refs((*log.pages, page.ref), dataset=dataset, epoch=epoch, keys=keys)
    return Log(rows=log.rows[size:], pages=refs), (page, *above)


def sealed_refs(
    refs: tuple[Ref, ...], *, dataset: str, epoch: str, keys: Keys
) -> tuple[tuple[Ref, ...], tuple[SealedPage, ...]]:
    """Seal the last G references while they are of one height."""
    sealed: list[SealedPage] = []
    while len(refs) >= manifest.G and len({height(ref) for ref in refs[-manifest.G :]}) == 1:
        run = refs[-manifest.G :]
        page = seal(run, level=height(run[0]) + 1, dataset=dataset, epoch=epoch, keys=keys)
        refs = (*refs[: -manifest.G], page.ref)
        sealed.append(page)
    return refs, tuple(sealed)


def height(ref: Ref) -> int:
    """How many pages of references lead down to the rows, told by how many rows there are."""
    levels, size = 0, manifest.F
    while size < ref.count:
        levels, size = levels + 1, size * manifest.G
    return levels


# --- letting go ------------------------------------------------------------------------------------


def _let_go(head: Head, log: Log, retained: Retained, keys: Keys) -> tuple[Head, Log, tuple[str, ...]]:
    """Hide what is past the limits, and take out of the log what can be. Returns the keys to unlink."""
    head = retention.hidden(head, log, retained.limits)
    log, from_tail = retention.trimmed(head, log)
    log, from_pages, pages = retention.taken_apart(head, log, dict(retained.pages))
    gone = [*from_tail, *from_pages]
    head = attrs.evolve(head, count=head.count - len(gone))
    kept = {row.version for row in head.kept}
    records_gone = keys_of(
        [row for row in (*gone, *retained.released) if row.version not in kept], head.dataset, keys
    )
    return head, log, (*records_gone, *pages)


def keys_of(rows: Iterable[Row], dataset: str, keys: Keys) -> tuple[str, ...]:
    """The keys of the records of some rows."""
    return tuple(key for row in rows for key in keys.records(dataset, row))
