"""Copy: read the snapshots of one store, in the order of their commits, and find what another one has.

Both are reads. What is copied is published to the other store by id, with the row's own time: see
`copy_of`. So a copy that is cut short leaves what a publish leaves that is cut short, and a copy that
is repeated finds each id committed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore import arguments
from swapstore.format import members, search
from swapstore.format.manifest import same_row
from swapstore.format.retention import complete_from
from swapstore.protocol.load import current_manifest, find, gather, published
from swapstore.protocol.members import snapshot_at
from swapstore.protocol.publish import Publication
from swapstore.protocol.read import through_manifest

if TYPE_CHECKING:
    from collections.abc import Callable

    from swapstore.format.manifest import Manifest
    from swapstore.format.search import Onward
    from swapstore.models import Row, Snapshot
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation


def copy_of(ctx: Context, dataset: str, row: Row, snapshot: Snapshot, *, pins_first: bool) -> Publication:
    """Return the publish of a snapshot of another store as it is there, with the time of its commit.

    The bounds of this store apply. Raises `InvalidInput` for a `ts` or a payload that is beyond them.
    """
    arguments.not_ahead(row.ts, ctx.clock.now_ms(), ctx.policy.max_ahead_ms)
    for payload in (snapshot.raw, *(member.raw for member in snapshot.members.values())):
        arguments.payload_size(len(payload), ctx.policy.max_payload_bytes)
    return Publication(
        dataset=dataset,
        payload=snapshot.raw,
        codec=row.codec,
        id=row.id,
        ts=row.ts,
        labels=dict(row.labels),
        dedupe_key=row.dedupe_key,
        parts={name: members.Part(member.raw, member.codec) for name, member in snapshot.members.items()},
        committed_at=row.committed_at,
        pins_first=pins_first,
    )


def stored(ctx: Context, dataset: str) -> Operation[Manifest | None]:
    """Return the manifest of a dataset. None: nothing is published."""
    return published((yield from current_manifest(ctx.reading(), dataset)))


def upcoming(ctx: Context, dataset: str, after: int) -> Operation[Onward | None]:
    """Return the rows that come next after a version. None: nothing is published."""
    ctx = ctx.reading()

    def view(manifest: Manifest) -> Operation[Onward]:
        return gather(ctx, dataset, search.onward(manifest, after))

    return through_manifest(ctx, dataset, view)


def snapshot_of(ctx: Context, dataset: str, row: Row) -> Operation[Snapshot | None]:
    """Read the snapshot of a row, and check it. None: it has been unlinked since the row was read."""
    ctx, again = ctx.reading(), False

    def view(manifest: Manifest) -> Operation[Snapshot | None]:
        nonlocal again
        current: Row | None = row
        if again:
            query = search.ByVersion(row.version)
            current = yield from find(ctx, dataset, search.search(manifest, query))
        again = True
        if current is None or not same_row(current, row):
            return None
        return (yield from snapshot_at(ctx, manifest, current))

    return (yield from through_manifest(ctx, dataset, view))


def visit_rows(
    ctx: Context, dataset: str, ts: int, visit: Callable[[Row], object]
) -> Operation[Manifest | None]:
    """Call `visit` with each row that has this `ts` or a later one, hidden or not, with some of them twice.

    Returns the manifest. None: nothing is published.
    """

    def view(manifest: Manifest) -> Operation[Manifest]:
        yield from gather(ctx, dataset, search.visited(manifest.log, ts, visit))
        for row in manifest.head.kept:
            visit(row)
        return manifest

    return through_manifest(ctx, dataset, view)


def goes_on(ctx: Context, manifest: Manifest, last: Row | None) -> Operation[bool]:
    """Say whether a log goes on after the row that was read last: the store has not gone back."""
    if last is None or manifest.version < last.version:
        return False
    query = search.ByVersion(last.version)
    found = yield from find(ctx.reading(), manifest.head.dataset, search.in_log(manifest.log, query))
    if found is None:  # unlinked by retention, unless it would still be there
        return last.version < complete_from(manifest.log)
    return same_row(found, last)
