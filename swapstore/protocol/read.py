"""Reading: start at the manifest and nowhere else.

A record that is missing or differs means that the manifest has moved on, or that a replica lags: the
manifest is read again, bounded. Only when it persists is it an error, and then it says what is damaged.
`None` means one thing: nothing is published (or, when asking for one snapshot, no row names it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import attrs

from swapstore.errors import Corrupt, PayloadMissing
from swapstore.format import search
from swapstore.models import Row, Snapshot
from swapstore.protocol import telling
from swapstore.protocol.load import (
    current_manifest,
    current_served,
    find,
    find_id,
    load_manifest,
    load_page,
    load_snapshot,
    own,
    served,
)
from swapstore.protocol.operation import Operation, Wait

if TYPE_CHECKING:
    from collections.abc import Callable

    from swapstore.format.manifest import Manifest
    from swapstore.format.search import Cursor
    from swapstore.models import Row
    from swapstore.protocol.context import Context


T = TypeVar("T")


def through_manifest(
    ctx: Context, dataset: str, view: Callable[[Manifest], Operation[T]], *, head_only: bool = False
) -> Operation[T | None]:
    """Run `view` on the manifest that is stored now; on another one when records do not match it.

    `head_only`: the view looks at no more than the header, and reads what is served.
    """
    manifest = yield from (current_served(ctx, dataset) if head_only else current_manifest(ctx, dataset))
    for attempt in range(1, ctx.policy.read_attempts):
        if manifest is None:
            return None
        try:
            return (yield from view(manifest))
        except (PayloadMissing, Corrupt):
            yield Wait(ctx.backoff(attempt))
            manifest = yield from load_manifest(ctx, dataset)
    return None if manifest is None else (yield from view(manifest))


def read_latest(ctx: Context, dataset: str, *, max_staleness_s: float = 0.0) -> Operation[Snapshot | None]:
    """Read the pinned snapshot, or else the latest.

    Within `max_staleness_s` of the last look at the manifest, what is remembered is served without asking.
    """
    found = remembered(ctx, dataset, max_staleness_s)
    if found is not None:
        return found

    def view(manifest: Manifest) -> Operation[Snapshot]:
        return load_snapshot(ctx, manifest, manifest.head.serving)

    return (yield from telling.read(ctx, through_manifest(ctx, dataset, view, head_only=True)))


def remembered(ctx: Context, dataset: str, max_staleness_s: float) -> Snapshot | None:
    """Return what `read_latest` serves without asking; None: it has to ask."""
    if max_staleness_s <= 0:
        return None
    known = ctx.cache.known(ctx.keys.manifest(dataset))
    if known is None or ctx.clock.monotonic() - known.read_at > max_staleness_s:
        return None
    manifest = known.manifest
    row = manifest.head.serving
    payload = ctx.cache.record(ctx.keys.id(dataset, row.id), row.sha256)
    if payload is None:
        return None
    found = served(manifest, payload)
    if ctx.hook is not None:
        telling.remembered(ctx, found)
    return found


def read_id(ctx: Context, dataset: str, id: str) -> Operation[Snapshot | None]:  # noqa: A002
    """Read the snapshot with this id."""
    return (yield from _read_row(ctx, dataset, lambda manifest: find_id(ctx, manifest, id)))


def read_version(ctx: Context, dataset: str, version: int) -> Operation[Snapshot | None]:
    """Read the snapshot that this version committed; None for versions that were no publish."""
    return (yield from _read_row(ctx, dataset, _searching(ctx, search.ByVersion(version))))


def read_as_of(ctx: Context, dataset: str, ts: int) -> Operation[Snapshot | None]:
    """Read the snapshot with the greatest `ts` up to this one."""
    return (yield from _read_row(ctx, dataset, _searching(ctx, search.AsOf(ts))))


def _searching(ctx: Context, query: search.Query) -> Callable[[Manifest], Operation[Row | None]]:
    return lambda manifest: find(ctx, manifest.head.dataset, search.search(manifest, query))


def _read_row(
    ctx: Context, dataset: str, find_row: Callable[[Manifest], Operation[Row | None]]
) -> Operation[Snapshot | None]:
    def view(manifest: Manifest) -> Operation[Snapshot | None]:
        row = yield from find_row(manifest)
        return None if row is None else (yield from load_snapshot(ctx, manifest, row))

    return (yield from telling.read(ctx, through_manifest(ctx, dataset, view)))


# --- history -----------------------------------------------------------------------------------
#
# History: the rows of one manifest, newest first, a page at a time.
#
# The walk belongs to the manifest it began on. So however slowly it is read, it shows one committed version,
# each row once, and never holds more than a page of rows.


class History:
    """A walk through the rows of a dataset; nothing published: no rows."""

    def __init__(self, ctx: Context, dataset: str, *, limit: int | None, before: int | None) -> None:
        self._ctx = ctx
        self._dataset = dataset
        self._left = limit
        self._before = before
        self._rest: Cursor | None = None
        self._begun = False

    def step(self) -> Operation[list[Row] | None]:
        """Return the next rows, newest first; None: that was all."""
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
        return self._walk(search.walk(manifest, before=self._before))

    def _walk(self, cursor: Cursor) -> Operation[list[Row]]:
        while True:
            rows, page_ref, rest = cursor.step()
            if page_ref is None:
                self._rest = None
                return rows
            if rows:
                self._rest = attrs.evolve(rest, ahead=(*rest.ahead, page_ref))
                return rows
            cursor = rest.opened((yield from load_page(self._ctx, self._dataset, page_ref)))
