"""The next manifest, as pure code: `append` adds a row, `repoint` changes what is served or retained.

When the tail reaches 2F rows, the oldest F are sealed into a page. When the last G references have the same
size, they are sealed into a page of references. So a manifest stays a few KB at any depth: it names a few
pages of each size, like the digits of a number. The same run always seals into the same bytes under the
same key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from swapstore.format import bases, manifest, records, retention
from swapstore.format.manifest import Head, Log, Manifest
from swapstore.format.pages import Page, SealedPage, seal
from swapstore.format.retention import Limits
from swapstore.models import Entry, Ref, Row
from swapstore.structs import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from swapstore.commands import Rewritten
    from swapstore.format.encodings import InForce
    from swapstore.format.keys import Keys


class Draft(Struct, frozen=True, kw_only=True):
    """A manifest that a swap would make current.

    `base` is the manifest that it is built on (None: there is none). `row` is the row that a publish adds,
    `pages` are the pages that it seals. `unlinked` are the keys that the new log no longer references; they
    expire after `grace_ms` (default: the reader grace). `freed_bytes` is the size of their payloads.
    `frees_soon`: whether it takes the log apart, or one of the next F swaps does, because retention goes on.
    `over`: the corrupt bytes that a repair replaces; `base` is then None. `even_if_full`: see `Swap`.
    `rewritten` are the records that are stored anew: the old ones take `freed_bytes`, the new ones, and what
    else is added, `added_bytes`. Of a group, `added_bytes` is the size of its members. `groups`: the rows of
    groups whose records are unlinked. The records of their members are unlinked with them, as are those of an
    unlinked base: see `protocol/unlink.py`.
    """

    base: Manifest | None
    manifest: Manifest
    row: Row | None = None
    pages: tuple[SealedPage, ...] = ()
    unlinked: tuple[str, ...] = ()
    over: bytes | None = None
    grace_ms: int | None = None
    freed_bytes: int = 0
    frees_soon: bool = False
    even_if_full: bool = False
    rewritten: tuple[Rewritten, ...] = ()
    added_bytes: int = 0
    groups: tuple[Row, ...] = ()

    @property
    def size_bytes(self) -> int:
        """About how many bytes it sends: the manifest, and what it adds."""
        return len(self.manifest.raw) + self.adds_bytes

    @property
    def adds_bytes(self) -> int:
        """The size of the payload, and of what else it adds, but for headers and pages, of a few KB."""
        return self.added_bytes + (self.row.size if self.row else 0)

    @property
    def frees_as_much(self) -> bool:
        """Whether the swap frees as much as it adds."""
        return self.adds_bytes <= self.freed_bytes


class Stamp(Struct, frozen=True, kw_only=True):
    """What a new manifest needs from outside: the time, its nonce, key names, and an epoch for a new log.

    `max_ahead_ms`: a time that is further ahead was set by a wrong clock. None: there is no such bound.
    """

    now_ms: int
    nonce: str
    new_epoch: str
    keys: Keys
    max_ahead_ms: int | None = None

    def confirmed_at(self, base: Manifest | None) -> int:
        """Return `confirmed_at` of a swap that confirms. A clock that is behind does not move it back."""
        before = base.head.confirmed_at if base else 0
        is_wrong = self.max_ahead_ms is not None and before > self.now_ms + self.max_ahead_ms
        return self.now_ms if is_wrong else max(self.now_ms, before)


class Retained(Struct, frozen=True, kw_only=True):
    """What retention may take out of the log in a swap.

    `pages` are the pages that can be removed or opened, by key. `released` are rows that are not in the log
    any more, and were readable only because they were `latest` or `pinned` until this swap. `named` are keys
    of rows that leave in this swap, which belong to rows that stay in a page. `unneeded` are bases of
    rows that leave, or are released, which no row needs that stays in a page: see `bases.lies_between`.
    """

    limits: Limits = msgspec.field(default_factory=Limits)
    pages: Mapping[str, Page] = msgspec.field(default_factory=dict)
    released: tuple[Row, ...] = ()
    named: frozenset[str] = frozenset()
    unneeded: frozenset[str] = frozenset()


def append(
    base: Manifest | None,
    entry: Entry,
    *,
    dataset: str,
    dedupe_key: str | None,
    stamp: Stamp,
    retained: Retained | None = None,
    delta_of: str | None = None,
    in_force: InForce | None = None,
    added_bytes: int = 0,
    committed_at: int | None = None,
    pins: bool = False,
) -> Draft:
    """Draft the manifest that adds a snapshot to the log.

    `delta_of`: the base that its payload is stored against. `in_force`: the base in force from then on; None:
    the one that is in force now. `added_bytes`: the size of the members, if it is a group. `committed_at`:
    when the store committed it that it is copied from. `pins`: the snapshot is pinned, too.

    `latest` is the row with the greatest `ts`; among equal ones, the one committed last. So a snapshot that
    is older than the latest is added to the history and does not change `latest`.
    """
    version = base.version + 1 if base else 1
    epoch = base.epoch if base else stamp.new_epoch
    row = Row(
        id=entry.id,
        ts=entry.ts,
        size=entry.size,
        sha256=entry.sha256,
        codec=entry.codec,
        labels=entry.labels,
        version=version,
        committed_at=stamp.now_ms if committed_at is None else committed_at,
        dedupe_key=dedupe_key,
        base=delta_of,
    )
    log = base.log if base else Log(rows=(), pages=())
    head = Head(
        etag=f"{epoch}.{version}.{stamp.nonce}",
        format=records.FORMAT,
        dataset=dataset,
        version=version,
        committed_at=stamp.now_ms,
        confirmed_at=stamp.confirmed_at(base) if committed_at is None else _not_before(base, committed_at),
        latest=base.head.latest if base and is_older_than_latest(row.ts, base.head) else row,
        pinned=row if pins else base.head.pinned if base else None,
        count=base.head.count + 1 if base else 1,
        first_version=base.head.first_version if base else 1,
        floor=base.head.floor if base else 0,
        dropped=base.head.dropped if base else 0,
    )
    log = Log(
        rows=(*log.rows, row),
        pages=log.pages,
        dedupe=log.dedupe,
        base=in_force or log.base,
        erased=log.erased,
    )
    unlinked: tuple[str, ...] = ()
    gone: list[Row] = []
    frees_soon = False
    if base is not None and (retained is not None or not head.shows_everything):
        retained = retained or Retained()
        head, log, unlinked, gone = _retain(head, log, retained, stamp.keys)
        ahead = retention.ahead(log, retained.limits, stamp.now_ms)
        frees_soon = log.pages != base.log.pages or 0 < ahead <= manifest.F
    if base is not None:
        unlinked = tuple(dict.fromkeys(unlinked + _succeeded(base.log, head, log, stamp.keys)))
    log, sealed = sealed_log(log, dataset=dataset, epoch=epoch, keys=stamp.keys)
    return Draft(
        base=base,
        manifest=manifest.build(head, log, stamp.keys, base=base),
        row=row,
        pages=sealed,
        unlinked=unlinked,
        groups=_groups_in(gone),
        freed_bytes=sum(row.size for row in gone),
        added_bytes=added_bytes,
        frees_soon=frees_soon,
    )


def _not_before(base: Manifest | None, committed_at: int) -> int:
    """Return `confirmed_at` of a swap that copies: nobody has confirmed more than what is copied."""
    return max(base.head.confirmed_at, committed_at) if base else committed_at


def is_older_than_latest(ts: int, head: Head) -> bool:
    """Whether a snapshot of this time would not become the latest."""
    return not head.is_dropped and ts < head.latest.ts


def repoint(base: Manifest, *, stamp: Stamp, retained: Retained | None = None, **changes: Any) -> Draft:
    """Draft a manifest without a new row: other `latest`, `pinned` or `confirmed_at`, or less history.

    It is swapped in a full store too: without new records, no dataset grows by more than a few hundred bytes.
    """
    version = base.version + 1
    etag = f"{base.epoch}.{version}.{stamp.nonce}"
    head = msgspec.structs.replace(
        base.head, etag=etag, version=version, committed_at=stamp.now_ms, **changes
    )
    head, log, unlinked, gone = _retain(head, base.log, retained or Retained(), stamp.keys)
    return Draft(
        base=base,
        manifest=manifest.build(head, log, stamp.keys, base=base),
        unlinked=unlinked,
        groups=_groups_in(gone),
        even_if_full=True,
    )


def drop(base: Manifest, *, stamp: Stamp, retained: Retained) -> Draft:
    """Draft the manifest in which nothing is published any more. Its rows stay in the log until they leave.

    So each of their records has a row that names it, and nothing is left that a repair could restore.
    `retained`: which rows only the header has.
    """
    version = base.version + 1
    head = msgspec.structs.replace(
        base.head,
        etag=f"{base.epoch}.{version}.{stamp.nonce}",
        version=version,
        committed_at=stamp.now_ms,
        pinned=None,
        first_version=version + 1,
        floor=0,
        dropped=version,
    )
    log = msgspec.structs.replace(base.log, dedupe=(), base=None)
    named = retained.named.union(keys_of(log.rows, head.dataset, stamp.keys))
    gone = keys_of(retained.released, head.dataset, stamp.keys)
    names = [row.base for row in retained.released]
    names += [] if base.log.base is None else [base.log.base.name]
    left = unlinked_bases(names, head, log, unneeded=retained.unneeded)
    return Draft(
        base=base,
        manifest=manifest.build(head, log, stamp.keys),
        unlinked=(
            *(key for key in gone if key not in named),
            *(stamp.keys.base(head.dataset, name) for name in left),
        ),
        grace_ms=0,
    )


def emptied(base: Manifest, *, stamp: Stamp) -> Draft:
    """Draft the manifest of a dropped dataset whose log has no rows, because its pages cannot be read."""
    version = base.version + 1
    etag = f"{base.epoch}.{version}.{stamp.nonce}"
    head = msgspec.structs.replace(base.head, etag=etag, version=version, committed_at=stamp.now_ms, count=0)
    log = msgspec.structs.replace(base.log, rows=(), pages=())
    return Draft(
        base=base,
        manifest=manifest.build(head, log, stamp.keys),
        unlinked=tuple(ref.key for ref in base.log.pages),
        grace_ms=0,
    )


# --- sealing ---------------------------------------------------------------------------------------


def sealed_log(log: Log, *, dataset: str, epoch: str, keys: Keys) -> tuple[Log, tuple[SealedPage, ...]]:
    """Seal the oldest F rows of a tail of 2F or more, then the references that this completes."""
    size = manifest.F
    if len(log.rows) < 2 * size:
        return log, ()
    page = seal(log.rows[:size], level=0, dataset=dataset, epoch=epoch, keys=keys)
    refs, above = sealed_refs((*log.pages, page.ref), dataset=dataset, epoch=epoch, keys=keys)
    named = [(row.dedupe_key, row.version) for row in log.rows[:size] if row.dedupe_key is not None]
    dedupe = (*log.dedupe, *named)
    dedupe = dedupe[max(0, len(dedupe) - (manifest.recent() - size)) :]
    return msgspec.structs.replace(log, rows=log.rows[size:], pages=refs, dedupe=dedupe), (page, *above)


def sealed_refs(
    refs: tuple[Ref, ...], *, dataset: str, epoch: str, keys: Keys
) -> tuple[tuple[Ref, ...], tuple[SealedPage, ...]]:
    """Seal the last G references, again and again while they have the same height."""
    sealed: list[SealedPage] = []
    while len(refs) >= manifest.G and len({height(ref) for ref in refs[-manifest.G :]}) == 1:
        run = refs[-manifest.G :]
        page = seal(run, level=height(run[0]) + 1, dataset=dataset, epoch=epoch, keys=keys)
        refs = (*refs[: -manifest.G], page.ref)
        sealed.append(page)
    return refs, tuple(sealed)


def height(ref: Ref) -> int:
    """How many levels of reference pages are above the rows; the number of rows determines it."""
    levels, size = 0, manifest.F
    while size < ref.count:
        levels, size = levels + 1, size * manifest.G
    return levels


# --- retention -------------------------------------------------------------------------------------


def _retain(
    head: Head, log: Log, retained: Retained, keys: Keys
) -> tuple[Head, Log, tuple[str, ...], list[Row]]:
    """Hide the rows past the limits, and remove from the log what can be.

    Returns the keys to unlink too, and the rows whose records these are.
    """
    head = retention.hidden(head, log, retained.limits)
    log, gone, pages = retention.taken_apart(head, log, dict(retained.pages))
    head = msgspec.structs.replace(head, count=head.count - len(gone))
    gone = [*gone, *retained.released]
    unlinked = keys_of(gone, head.dataset, keys)
    names = unlinked_bases((row.base for row in gone), head, log, unneeded=retained.unneeded)
    left = [keys.base(head.dataset, name) for name in names]
    if unlinked:  # another row may name the same records: its id was published again after they were lost
        named = retained.named.union(keys_of((*head.kept, *log.rows), head.dataset, keys))
        unlinked = tuple(key for key in unlinked if key not in named)
        gone = [row for row in gone if keys.id(head.dataset, row.id) not in named]
    return head, log, (*unlinked, *pages, *left), gone


def _groups_in(rows: Iterable[Row]) -> tuple[Row, ...]:
    return tuple(row for row in rows if row.is_group)


def _succeeded(was: Log, head: Head, log: Log, keys: Keys) -> tuple[str, ...]:
    """The key of the base that is not in force any more, if no row needs it."""
    if was.base is None or (log.base is not None and was.base.name == log.base.name):
        return ()
    return tuple(keys.base(head.dataset, name) for name in unlinked_bases([was.base.name], head, log))


def unlinked_bases(
    names: Iterable[str | None], head: Head, log: Log, *, unneeded: frozenset[str] = frozenset()
) -> list[str]:
    """Those of some bases that no row needs any more, and that are not in force.

    A row that is gone may have needed one of `names`. What the log shows decides: see `bases.py`. No row
    below a reference needs one that is `unneeded`.
    """
    left = {name for name in names if name is not None} - {log.base and log.base.name}
    rows: list[Row | Ref] = [*head.copies, *log.rows]
    return sorted(
        name for name in left if not bases.is_shown(name, rows if name in unneeded else [*rows, *log.pages])
    )


def keys_of(rows: Iterable[Row], dataset: str, keys: Keys) -> tuple[str, ...]:
    """The keys of the id and ts records of rows."""
    return tuple(key for row in rows for key in keys.records(dataset, row))
