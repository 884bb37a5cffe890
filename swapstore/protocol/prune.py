"""Retention: what a swap hides and unlinks, and `prune`, which swaps for that alone.

Every publish takes one page apart at most, so that it stays fast. `prune` takes apart all that there are. A
page has to be read before it is taken apart. One that cannot be read stays in the log, and verify reports it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swapstore.commands import Get, Peek
from swapstore.errors import Contended, Corrupt, Damaged, OutcomeUnknown, PayloadTooLarge, StoreFull
from swapstore.format import bases, pages, records, retention, search
from swapstore.format.append import Retained, repoint
from swapstore.format.manifest import same_row
from swapstore.format.retention import Limits
from swapstore.protocol.clock import retention_time
from swapstore.protocol.commit import Moved, Staging, Swapped, commit
from swapstore.protocol.load import (
    ask_all,
    cached_page,
    current_manifest,
    find,
    is_in_log,
    load_manifest,
    nothing_published,
    value_of,
)
from swapstore.protocol.operation import Operation, Turn, Wait

if TYPE_CHECKING:
    from collections.abc import Collection

    from swapstore.commands import Command, Failed
    from swapstore.format.append import Draft
    from swapstore.format.manifest import Log, Manifest
    from swapstore.format.pages import Page
    from swapstore.models import Ref, Retention, Row
    from swapstore.protocol.context import Context
    from swapstore.reports import Pruned

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
            in_log = yield from is_in_log(ctx, base.head.dataset, base.log, search.ById(row.id, row.ts))
            released += [] if in_log else [row]
    readable = yield from _readable(ctx, base, ripe, most)
    left, gone, _ = retention.taken_apart(head, base.log, readable)
    named = yield from _named(ctx, base.head.dataset, [*gone, *released], left)
    unneeded = yield from _unneeded(ctx, base.head.dataset, [*gone, *released], left)
    return Retained(limits=bounds, pages=readable, released=tuple(released), named=named, unneeded=unneeded)


def _unneeded(ctx: Context, dataset: str, rows: list[Row], left: Log) -> Operation[frozenset[str]]:
    """Return bases of rows that leave the log which no row needs that is left in a page.

    Only those are searched for of which the references do not tell that.
    """
    found = []
    for name in {row.base for row in rows if row.base is not None}:
        if not bases.lies_between(name, left.pages):
            continue
        if not (yield from is_in_log(ctx, dataset, left, search.ByBase(name))):
            found.append(name)
    return frozenset(found)


def _readable(ctx: Context, base: Manifest, ripe: list[Ref], most: int) -> Operation[dict[str, Page]]:
    """Read the first ripe pages. A page that cannot be read must not block those behind it."""
    found: dict[str, Page] = {}
    size = most
    while ripe and not found:
        found = yield from _load(ctx, base.head.dataset, ripe[:size])
        ripe, size = ripe[size:], PAGES_A_PRUNE
    return retention.chosen(base.log, found, most)


def _load(ctx: Context, dataset: str, refs: list[Ref]) -> Operation[dict[str, Page]]:
    cached = [cached_page(ctx, ref) for ref in refs]
    missing = [Get(ref.key) for ref, record in zip(refs, cached, strict=True) if record is None]
    replies = iter((yield from ask_all(ctx, missing)))
    found: dict[str, Page] = {}
    for ref, known in zip(refs, cached, strict=True):
        try:
            record = value_of(next(replies) if known is None else known)
            if record is not None:
                found[ref.key] = pages.parse(record, ref, dataset)
        except Damaged:
            continue
    return found


# --- ids that were published again -----------------------------------------------------------------
#
# If somebody deletes the records of a snapshot, and its id is published again, two rows have the same keys.
# When the first one leaves the log, the records of the second must stay.

SLACK_BYTES = 32  # more than `records.states` looks at, beyond the entry


def _named(ctx: Context, dataset: str, rows: list[Row], left: Log) -> Operation[frozenset[str]]:
    """Return the keys of rows that leave the log which belong to a row that is left in a page.

    The records tell whose they are: the id record states the entry, and the ts record the version as well,
    where pages may hold the same entry twice. The log is searched only for what the records do not tell.
    """
    commands: list[Command[Any]] = []
    for row in rows:
        id_key, ts_key = ctx.keys.records(dataset, row)
        commands.append(Peek(id_key, len(records.stated(row)) + SLACK_BYTES))
        if _spans(left, row.ts):
            commands.append(Get(ts_key))
    replies = iter((yield from ask_all(ctx, commands)))
    own, others = set[str](), set[str]()
    for row in rows:
        keys = ctx.keys.records(dataset, row)
        id_record = _bytes_of(next(replies))
        is_own = records.states(id_record, row)
        if _spans(left, row.ts):
            ts_record = _bytes_of(next(replies))
            origin = records.origin_in(ts_record) if records.states_ts(ts_record, row) else None
            is_own = is_own and origin is not None and origin.version <= row.version
        if is_own:
            own.update(keys)
        elif id_record:
            others |= yield from _keys_of_another(ctx, dataset, row, left)
    return frozenset(others - own)


def _spans(left: Log, ts: int) -> bool:
    return any(ref.min_ts <= ts <= ref.max_ts for ref in left.pages)


def _keys_of_another(ctx: Context, dataset: str, row: Row, left: Log) -> Operation[set[str]]:
    """Return those keys of a row that leaves the log which a row names that is left in it."""
    id_key, ts_key = ctx.keys.records(dataset, row)
    record = _bytes_of((yield from ask_all(ctx, [Get(id_key)]))[0])
    try:
        ts = records.entry_of(record, id_key).ts
    except Corrupt:
        ts = row.ts
    try:
        other = yield from find(ctx, dataset, search.in_log(left, search.ById(row.id, ts)))
    except Damaged:
        return {id_key, ts_key}
    if other is None:
        return set()
    return {id_key, ts_key} if other.ts == row.ts else {id_key}


def _bytes_of(reply: bytes | Failed | None) -> bytes:
    """Return the value of a key. Empty: there is none, or it is of another type. Raises other refusals."""
    try:
        return value_of(reply) or b""
    except Corrupt:
        return b""


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
        if base is None or base.head.is_dropped:
            raise nothing_published(ctx)
        taken = yield from retained(ctx, base, bounds, keeping=base.head.kept, most=most)
        draft = repoint(base, stamp=ctx.stamp(), retained=taken)
        if not _changes(base, draft):
            return _pruned(base, let_go)
        try:
            verdict = yield from commit(ctx, draft, [], Staging())
        except (StoreFull, PayloadTooLarge):  # a swap that takes fewer pages apart may have room
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
    from swapstore.reports import Pruned  # noqa: PLC0415 - every publish may prune, and few report it

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
