"""Pin, unpin, rollback and confirm: swaps that change the manifest's header and leave the log as it is.

They commit like a publish. They add no row, so when a reply is lost and others have committed since, nothing
shows whether the swap took effect. Then they raise `OutcomeUnknown`, and never swap a second time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.arguments import shown
from swapstore.errors import Contended, Corrupt, NotFound, PayloadMissing
from swapstore.format import search
from swapstore.format.append import repoint
from swapstore.format.retention import Limits
from swapstore.models import Status
from swapstore.protocol.commit import Moved, Staging, Swapped, commit
from swapstore.protocol.datasets import status_of
from swapstore.protocol.load import (
    current_manifest,
    find,
    find_id,
    load_manifest,
    nothing_published,
)
from swapstore.protocol.members import snapshot_at
from swapstore.protocol.operation import Operation, Wait
from swapstore.protocol.prune import retained
from swapstore.protocol.read import through_manifest

if TYPE_CHECKING:
    from collections.abc import Callable

    from swapstore.format.append import Draft
    from swapstore.format.manifest import Manifest
    from swapstore.models import Row
    from swapstore.protocol.context import Context


def id_of(ctx: Context, dataset: str, version: int) -> Operation[str]:
    """Return the id that this version committed. Raises `NotFound` if the history does not show it.

    Pin and rollback go by the id from then on: after a concurrent reset the version may be another snapshot.
    """

    def view(manifest: Manifest) -> Operation[str]:
        row = yield from find(ctx, dataset, search.search(manifest, search.ByVersion(version)))
        if row is None:
            raise _no_snapshot(ctx, f"has version {shown(version)}")
        return row.id

    found = yield from through_manifest(ctx, dataset, view)
    if found is None:
        raise nothing_published(ctx)
    return found


def pin(ctx: Context, dataset: str, id: str) -> Operation[Status]:  # noqa: A002
    """Serve this snapshot to readers of the latest until it is unpinned. Producers may still publish."""

    def change(base: Manifest) -> Operation[Draft | None]:
        row = yield from _committed(ctx, base, id)
        if base.head.pinned == row:
            return None
        return (yield from _repoint(ctx, base, latest=base.head.latest, pinned=row))

    return (yield from _change_header(ctx, dataset, change))


def unpin(ctx: Context, dataset: str) -> Operation[Status]:
    """Serve the latest again."""

    def change(base: Manifest) -> Operation[Draft | None]:
        if base.head.pinned is None:
            return None
        return (yield from _repoint(ctx, base, latest=base.head.latest, pinned=None))

    return (yield from _change_header(ctx, dataset, change))


def rollback(ctx: Context, dataset: str, id: str) -> Operation[Status]:  # noqa: A002
    """Make this snapshot the latest, until the next publish whose `ts` is not older than this one's."""

    def change(base: Manifest) -> Operation[Draft | None]:
        row = yield from _committed(ctx, base, id)
        if base.head.latest == row:
            return None
        return (yield from _repoint(ctx, base, latest=row, pinned=base.head.pinned))

    return (yield from _change_header(ctx, dataset, change))


def confirm(ctx: Context, dataset: str) -> Operation[Status]:
    """Mark the data as still current without publishing: `confirmed_at` becomes now."""

    def change(base: Manifest) -> Operation[Draft | None]:
        yield from ()
        stamp = ctx.stamp()
        return repoint(base, stamp=stamp, confirmed_at=stamp.confirmed_at(base))

    return (yield from _change_header(ctx, dataset, change))


def _change_header(
    ctx: Context, dataset: str, change: Callable[[Manifest], Operation[Draft | None]]
) -> Operation[Status]:
    """Commit the draft that `change` makes of the stored manifest. None from `change`: nothing to do."""
    base = yield from current_manifest(ctx, dataset)
    for attempt in range(ctx.policy.commit_attempts):
        if attempt > 1:
            yield Wait(ctx.backoff(attempt))
            base = yield from load_manifest(ctx, dataset)
        if base is None or base.head.is_dropped:
            raise nothing_published(ctx)
        try:
            draft = yield from change(base)
        except (PayloadMissing, Corrupt):
            # Retention may have unlinked what this remembered manifest names: the reader grace is over.
            before, base = base, (yield from load_manifest(ctx, dataset))
            if base is None or base.etag == before.etag:
                raise
            continue
        if draft is None:
            return status_of(ctx, base)
        match (yield from commit(ctx, draft, [], Staging())):
            case Swapped():
                return status_of(ctx, draft.manifest)
            case Moved(current):
                base = current
    raise Contended(
        f"other producers committed first, {ctx.policy.commit_attempts} times in a row; "
        "nothing was changed. Try again"
    )


def _repoint(ctx: Context, base: Manifest, *, latest: Row, pinned: Row | None) -> Operation[Draft]:
    """Serve other rows. A row that is not in the log any more, and is not served any more, is unlinked."""
    keeping = [row for row in (latest, pinned) if row is not None]
    released = yield from retained(ctx, base, Limits(), keeping=keeping, most=0)
    return repoint(base, stamp=ctx.stamp(), retained=released, latest=latest, pinned=pinned)


def _committed(ctx: Context, base: Manifest, id: str) -> Operation[Row]:  # noqa: A002
    """Find a committed snapshot, and read its record, so that only a whole one is served."""
    row = yield from find_id(ctx, base, id)
    if row is None:
        raise _no_snapshot(ctx, f"has id {shown(id)}")
    yield from snapshot_at(ctx, base, row)
    return row


def _no_snapshot(ctx: Context, what: str) -> NotFound:
    return NotFound(f"no committed snapshot {what} in {ctx.place}; `swapstore history` lists those there are")
