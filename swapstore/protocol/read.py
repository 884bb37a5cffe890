"""Read snapshots and the history: start at the manifest and nowhere else.

A record that is missing or altered means that the manifest has moved on, or that a replica lags. So the
manifest is read again, a few times. If the record stays missing, `PayloadMissing` or `Corrupt` says what is
damaged. `None` means that nothing is published, or that no row names the snapshot that was asked for.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from swapstore import arguments
from swapstore.arguments import shown
from swapstore.errors import Contended, Corrupt, InvalidInput, PayloadMissing, Unavailable
from swapstore.format import search
from swapstore.format.keys import group_name
from swapstore.models import GROUP, Group, Snapshot
from swapstore.protocol.load import (
    current_manifest,
    current_served,
    find,
    find_id,
    is_page_named,
    load_manifest,
    load_pages,
    load_snapshot,
    own,
    published,
    served,
)
from swapstore.protocol.members import cached_group, current_members, load_group, snapshot_at
from swapstore.protocol.operation import Emit, Operation, Tally, Wait

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from swapstore.cache import Known
    from swapstore.format.manifest import Manifest
    from swapstore.format.pages import Page
    from swapstore.format.search import Cursor, Filter
    from swapstore.models import Ref, Row
    from swapstore.protocol.context import Context


T = TypeVar("T")


def through_manifest(
    ctx: Context,
    dataset: str,
    view: Callable[[Manifest], Operation[T]],
    *,
    begin: Callable[[Context, str], Operation[Manifest | None]] = current_manifest,
    min_version: int = 0,
) -> Operation[T | None]:
    """Run `view` on the stored manifest, and again on a newer one when its records are missing or altered.

    `begin` returns the manifest, or its header alone if the view needs no more. `min_version`: see
    `require_version`. None: nothing is published.
    """
    manifest = yield from begin(ctx, dataset)
    ctx.cache.outages.answers += 1
    if min_version:
        manifest = yield from require_version(ctx, dataset, manifest, min_version)
    for attempt in range(1, ctx.policy.read_attempts):
        manifest = published(manifest)
        if manifest is None:
            return None
        try:
            return (yield from view(manifest))
        except (PayloadMissing, Corrupt):
            if not ctx.route.leave():
                yield Wait(ctx.backoff(attempt))
            manifest = yield from load_manifest(ctx, dataset)
    manifest = published(manifest)
    return None if manifest is None else (yield from view(manifest))


def require_version(ctx: Context, dataset: str, found: Manifest | None, version: int) -> Operation[Manifest]:
    """Return the stored manifest if it has this version or a later one, or read again, a few times.

    Raises `Unavailable` if the primary does not show it either.
    """
    for attempt in range(1, ctx.policy.read_attempts):
        if found is not None and found.version >= version:
            return found
        if not ctx.route.leave():
            yield Wait(ctx.backoff(attempt))
        found = yield from load_manifest(ctx, dataset)
    if found is not None and found.version >= version:
        return found
    error = Unavailable(
        f"version {shown(version)} is not there: {ctx.place} shows "
        f"{'no version' if found is None else f'version {found.version}'}. This server may lag behind the "
        "one that has it; or the store went back, after a failover or a restore"
    )
    error.behind = True
    raise error


def read_latest(
    ctx: Context, dataset: str, *, max_staleness_s: float = 0.0, min_version: int = 0
) -> Operation[Snapshot | None]:
    """Read the pinned snapshot, or else the latest, from a manifest of version `min_version` or later.

    Within `max_staleness_s` of the last look at the manifest, the remembered snapshot is served without I/O.
    """
    found = remembered(ctx, dataset, max_staleness_s, min_version)
    if found is not None:
        return found
    ctx = ctx.reading()

    def view(manifest: Manifest) -> Operation[Snapshot]:
        row = manifest.head.serving
        return load_group(ctx, manifest, row) if row.codec == GROUP else load_snapshot(ctx, manifest, row)

    found = yield from through_manifest(ctx, dataset, view, begin=current_served, min_version=min_version)
    if found is not None:
        if ctx.cache.kept:
            _replace_kept(ctx, found, ctx.keys.manifest(dataset))
        if ctx.hook is not None:
            yield Emit(partial(_emit_read, ctx, found))
    return found


def _replace_kept(ctx: Context, found: Snapshot, key: str) -> None:
    """Replace what is kept for an outage by what a reader is given now: see `last_good`."""
    good = ctx.cache.kept.get(key)
    if good is not None and good.snapshot.etag != found.etag:
        ctx.cache.keep_good(key, own(found), 0.0)


def remembered(
    ctx: Context,
    dataset: str,
    max_staleness_s: float,
    min_version: int = 0,
    *,
    names: Sequence[str] | None = None,
    takes: Callable[[Snapshot], bool] | None = None,
) -> Snapshot | None:
    """Return what `read_latest` can serve without I/O. None: it has to ask the store.

    `names`: of a group, only these members. `takes`: whether the caller takes what is found; None: it does.
    """
    if max_staleness_s <= 0:
        return None
    known = ctx.cache.known(ctx.keys.manifest(dataset))
    if known is None or ctx.clock.monotonic() - known.read_at > max_staleness_s:
        return None
    if known.manifest.version < min_version:
        return None
    found = cached(ctx, known, names)
    if found is None or (takes is not None and not takes(found)):
        return None
    if known.manifest.key in ctx.cache.kept:
        _replace_kept(ctx, found, known.manifest.key)
    if ctx.hook is not None:
        _emit_read(ctx, found, Tally(ctx.clock.monotonic()))
    return found


def cached(ctx: Context, known: Known, names: Sequence[str] | None = None) -> Snapshot | None:
    """Return what a manifest serves, if all of it is in the cache."""
    manifest = known.manifest
    if manifest.head.is_dropped:
        return None
    row = manifest.head.serving
    if row.codec == GROUP:
        return cached_group(ctx, manifest, row, names)
    payload = ctx.cache.record(ctx.keys.id(manifest.head.dataset, row.id), row.sha256)
    return None if payload is None else served(manifest, payload, known.seen_at or ctx.moment(known))


def read_group(
    ctx: Context,
    dataset: str,
    names: Sequence[str] | None,
    *,
    max_staleness_s: float = 0.0,
    min_version: int = 0,
) -> Operation[Group | None]:
    """Read the members of these names, or all, of the group that is pinned, or else the latest.

    Raises `InvalidInput` if what is served is no group, and `NotFound` for a name that it does not have.
    """
    found = remembered(ctx, dataset, max_staleness_s, min_version, names=names)
    if isinstance(found, Group):
        return found
    ctx = ctx.reading()

    def view(manifest: Manifest) -> Operation[Group]:
        row = manifest.head.serving
        if row.codec != GROUP:
            raise InvalidInput(
                f"version {row.version} is a single snapshot and no group: read it with read_latest(), "
                "and name no members"
            )
        return load_group(ctx, manifest, row, names)

    begin = partial(current_members, names=names or ())
    read = yield from through_manifest(ctx, dataset, view, begin=begin, min_version=min_version)
    if read is not None:
        if ctx.cache.kept:
            _replace_kept(ctx, read, ctx.keys.manifest(dataset))
        if ctx.hook is not None:
            yield Emit(partial(_emit_read, ctx, read))
    return read


def read_id(ctx: Context, dataset: str, id: str) -> Operation[Snapshot | None]:  # noqa: A002
    """Read the snapshot with this id."""
    ctx = ctx.reading()
    return (yield from _read_row(ctx, dataset, lambda manifest: find_id(ctx, manifest, id)))


def read_version(ctx: Context, dataset: str, version: int) -> Operation[Snapshot | None]:
    """Read the snapshot that this version committed. None: the version is no commit, or is not there."""
    ctx = ctx.reading()
    return (yield from _read_row(ctx, dataset, _searching(ctx, search.ByVersion(version))))


def read_as_of(ctx: Context, dataset: str, ts: int) -> Operation[Snapshot | None]:
    """Read the snapshot with the greatest `ts` that is not later than this one (ms since the epoch)."""
    ctx = ctx.reading()
    return (yield from _read_row(ctx, dataset, _searching(ctx, search.AsOf(ts))))


def _searching(ctx: Context, query: search.Query) -> Callable[[Manifest], Operation[Row | None]]:
    return lambda manifest: find(ctx, manifest.head.dataset, search.search(manifest, query))


def _read_row(
    ctx: Context, dataset: str, find_row: Callable[[Manifest], Operation[Row | None]]
) -> Operation[Snapshot | None]:
    def view(manifest: Manifest) -> Operation[Snapshot | None]:
        row = yield from find_row(manifest)
        return None if row is None else (yield from snapshot_at(ctx, manifest, row))

    found = yield from through_manifest(ctx, dataset, view)
    if found is None and ctx.policy.reads_replicas:  # a replica that lags has no row of it yet
        ctx.route.leave()
        found = yield from through_manifest(ctx, dataset, view)
    if found is not None and ctx.hook is not None:
        yield Emit(partial(_emit_read, ctx, found))
    return found


def _emit_read(ctx: Context, found: Snapshot, tally: Tally) -> None:
    """Emit `ReadMiss` if the payload of a read was fetched from the store, `ReadHit` if not."""
    from swapstore.events import ReadHit, ReadMiss  # noqa: PLC0415 - only listeners need it

    keys = [ctx.keys.id(found.dataset, found.id)]
    group = group_name(found.id, found.sha256)
    keys += [ctx.keys.member(found.dataset, group, name) for name in found.members]
    fetched = tally.served or any(key in tally.asked_for for key in keys)
    kind = ReadMiss if fetched else ReadHit
    ctx.emit(
        kind(
            dataset=found.dataset,
            version=found.version,
            id=found.id,
            size=found.size,
            round_trips=tally.round_trips,
            elapsed_s=ctx.clock.monotonic() - tally.began,
        )
    )


# --- history ---------------------------------------------------------------------------------------


def wanted_rows(label: Any, since: Any, until: Any) -> search.Filter:
    """Check what a history is asked for."""
    labels = {} if label is None else arguments.labels(label, "label")
    first = None if since is None else arguments.timestamp_ms(since, "since")
    end = None if until is None else arguments.timestamp_ms(until, "until")
    if first is not None and end is not None and end < first:
        raise InvalidInput(f"until ({end}) is before since ({first}), so no ts is in between; swap the two")
    return search.Filter(labels=labels, since=first, until=end)


class History:
    """Iterate over the rows of a dataset, newest first, a batch of pages at a time. None: nothing published.

    All rows come from the manifest that the first step read. So a history that is read slowly still shows one
    committed version, each row once, and holds the rows of one batch at a time. One that is read more slowly
    than the reader grace may come to a page that retention has unlinked.
    """

    def __init__(
        self,
        ctx: Context,
        dataset: str,
        *,
        limit: int | None,
        before: int | None,
        wanted: Filter = search.EVERY_ROW,
    ) -> None:
        self._ctx = ctx.reading()
        self._dataset = dataset
        self._left = limit
        self._before = before
        self._wanted = wanted
        self._is_sparse = bool(wanted.labels)  # a page may have no wanted row: its reference does not tell
        self._rest: Cursor | None = None
        self._begun = False

    def step(self) -> Operation[list[Row] | None]:
        """Return the next rows, newest first. None: that was all."""
        if self._left == 0 or (self._begun and self._rest is None):
            return None
        if self._rest is None:
            self._begun = True
            rows = (yield from through_manifest(self._ctx, self._dataset, self._first)) or []
        else:
            rows = yield from self._walk(self._rest)
        if self._left is not None:
            rows = rows[: self._left]
            self._left -= len(rows)
        return [own(row) for row in rows]

    def _first(self, manifest: Manifest) -> Operation[list[Row]]:
        return self._walk(search.walk(manifest, before=self._before, wanted=self._wanted))

    def _walk(self, cursor: Cursor) -> Operation[list[Row]]:
        """Walk up to the first rows, or over one batch with pages of rows, though none of them is wanted."""
        looked = False
        while True:
            rows, cursor = cursor.step()
            self._is_sparse |= looked and not rows
            refs = cursor.batch(None if self._is_sparse else self._left)
            if rows or looked or not refs:
                self._rest = cursor if refs else None
                return rows
            pages = yield from self._load(refs)
            looked = any(page.rows for page in pages)
            cursor = cursor.opened(refs, pages)

    def _load(self, refs: list[Ref]) -> Operation[list[Page]]:
        """Load pages. Raises `Contended` if retention has unlinked the first one since the first step."""
        try:
            return (yield from load_pages(self._ctx, self._dataset, refs))
        except Corrupt:
            if not self._ctx.route.leave():
                raise
            return (yield from self._load(refs))
        except PayloadMissing:
            ref = refs[0]
            current = published((yield from load_manifest(self._ctx, self._dataset)))
            if current is not None and (
                yield from is_page_named(self._ctx, current, ref.key, ref.first_version)
            ):
                raise
        raise Contended(
            f"versions {ref.first_version} to {ref.last_version} were unlinked while the history was read, "
            "more slowly than unlinked pages are kept, or one of them was erased, or the dataset dropped; "
            "nothing is damaged. Read the history again"
        )
