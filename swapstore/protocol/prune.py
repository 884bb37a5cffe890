"""Retention: what a swap hides and unlinks, and `prune`, which swaps for that alone.

Every publish takes one page apart at most, so that it stays fast. `prune` takes apart all that there are. A
page has to be read before it is taken apart. One that cannot be read stays in the log, and verify reports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.commands import Get
from swapstore.errors import Contended, Damaged, OutcomeUnknown, StoreFull
from swapstore.format import pages, retention, search
from swapstore.format.append import Retained, repoint
from swapstore.format.keys import base_version
from swapstore.format.manifest import same_row
from swapstore.format.retention import Limits
from swapstore.models import Pruned
from swapstore.protocol.clock import retention_time
from swapstore.protocol.commit import Moved, Staging, Swapped, commit
from swapstore.protocol.load import (
    ask_all,
    current_manifest,
    is_in_log,
    load_manifest,
    nothing_published,
    value_of,
)
from swapstore.protocol.operation import Operation, Turn, Wait

if TYPE_CHECKING:
    from collections.abc import Collection

    from swapstore.format.append import Draft
    from swapstore.format.manifest import Manifest
    from swapstore.format.pages import Page
    from swapstore.models import Ref, Retention, Row
    from swapstore.protocol.context import Context

PAGES_A_PUBLISH = 1
PAGES_A_PRUNE = 16


def limits(bounds: Retention, now_ms: int) -> Limits:
    """Return the limits that a retention sets at a moment."""
    age = bounds.max_age_ms
    return Limits(0 if age is None else max(0, now_ms - age), bounds.max_count)


def retained(
    ctx: Context, base: Manifest, bounds: Limits, *, keeping: Collection[Row], most: int = PAGES_A_PUBLISH
) -> Operation[Retained]:
    """Read what retention has to know for the swap after `base`.

    `keeping`: the rows that `latest` and `pinned` will be. `most`: how many pages may be taken apart.
    """
    head = retention.hidden(base.head, base.log, bounds)
    ripe = retention.ripe(head, base.log, bounds) if most else []
    released = []
    for row in base.head.kept:
        # A row that the history shows is in the log, and is unlinked when it leaves the log.
        if not any(same_row(row, kept) for kept in keeping) and not base.head.shows(row):
            in_log = yield from is_in_log(ctx, base, search.ById(row.id, row.ts))
            released += [] if in_log else [row]
    shared = yield from _shared_bases(ctx, base, released)
    readable = yield from _readable(ctx, base, ripe, most)
    return Retained(limits=bounds, pages=readable, released=tuple(released), shared=shared)


def _shared_bases(ctx: Context, base: Manifest, released: list[Row]) -> Operation[frozenset[str]]:
    """Return the bases of some rows outside the log that rows in the log need, too.

    What the manifest shows does not tell: pages before and after such a row may be below one reference now.
    """
    shared = set()
    for name in {row.base for row in released if row.base is not None}:
        if (yield from is_in_log(ctx, base, search.ByBase(base_version(name)))):
            shared.add(name)
    return frozenset(shared)


def _readable(ctx: Context, base: Manifest, ripe: list[Ref], most: int) -> Operation[dict[str, Page]]:
    """Read the first ripe pages. A page that cannot be read must not block those behind it."""
    found: dict[str, Page] = {}
    size = most
    while ripe and not found:
        found = yield from _load(ctx, base.head.dataset, ripe[:size])
        ripe, size = ripe[size:], PAGES_A_PRUNE
    return retention.chosen(base.log, found, most)


def _load(ctx: Context, dataset: str, refs: list[Ref]) -> Operation[dict[str, Page]]:
    replies = yield from ask_all(ctx, [Get(ref.key) for ref in refs])
    found: dict[str, Page] = {}
    for ref, reply in zip(refs, replies, strict=True):
        try:
            record = value_of(reply)
            if record is not None:
                found[ref.key] = pages.parse(record, ref, dataset)
        except Damaged:
            continue
    return found


# --- prune -----------------------------------------------------------------------------------------


def prune(ctx: Context, dataset: str, kept: Retention) -> Operation[Pruned]:
    """Hide what is past the bounds, and unlink all that can be unlinked, in as many swaps as that takes.

    Raises `NotFound` when nothing is published, `InvalidInput` when this machine's clock is far ahead, and
    `Contended` when other producers keep committing first.
    """
    yield Turn((dataset,))
    base = yield from current_manifest(ctx, dataset)
    now_ms = ctx.clock.now_ms()
    if base is not None and kept.max_age is not None:
        now_ms = yield from retention_time(ctx, base, now_ms)
    bounds = limits(kept, now_ms)
    let_go = lost = 0
    most = PAGES_A_PRUNE
    while lost < ctx.policy.commit_attempts:
        if base is None:
            raise nothing_published(ctx)
        taken = yield from retained(ctx, base, bounds, keeping=base.head.kept, most=most)
        draft = repoint(base, stamp=ctx.stamp(), retained=taken)
        if not _changes(base, draft):
            return _pruned(base, let_go)
        try:
            verdict = yield from commit(ctx, draft, [], Staging())
        except StoreFull:  # on a full disk, a swap that takes fewer pages apart may have room
            if most == PAGES_A_PUBLISH:
                raise
            most = PAGES_A_PUBLISH
            continue
        except OutcomeUnknown:  # it does not matter whose swap it was: the manifest shows what is left to do
            verdict = Moved((yield from load_manifest(ctx, dataset)))
        match verdict:
            case Swapped():
                let_go += base.head.count - draft.manifest.head.count
                yield Turn((dataset,))  # between two swaps, others have theirs
                known = ctx.cache.known(base.key)
                base = known.manifest if known and known.manifest.complete else draft.manifest
            case Moved(current):
                lost += 1
                yield Wait(ctx.backoff(lost))
                base = current
    raise Contended(
        f"other producers committed first, {ctx.policy.commit_attempts} times; what was hidden and "
        "unlinked so far stays so. Try again"
    )


def _changes(base: Manifest, draft: Draft) -> bool:
    """Say whether a swap would change anything: hide a row, or take a row or page out of the log."""
    before, after = base.head, draft.manifest.head
    if draft.unlinked or base.log != draft.manifest.log:
        return True
    hides = any(before.shows(row) and not after.shows(row) for row in base.log.rows)
    return hides or any(retention.hides_more(before, after, ref) for ref in base.log.pages)


def _pruned(current: Manifest, let_go: int) -> Pruned:
    head = current.head
    return Pruned(
        dataset=head.dataset,
        version=head.version,
        etag=head.etag,
        let_go=let_go,
        count=head.count,
        first_version=head.first_version,
        floor=head.floor,
    )
