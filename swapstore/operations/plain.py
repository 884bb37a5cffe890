"""Commit with plain commands, where no script runs. The same promise, in steps that each leave it whole.

1. With a lease only: take it (`SET NX PX`). Look whether the manifest is still the one that was built on.
2. Write the records **without a TTL**, each only if its key is free, and read back what is there: a record
   must be whole and permanent before a manifest may name it. Nothing may come between, so nothing is staged.
3. Swap the manifest: by compare-and-set, or under the lease by a plain `SET`, which is then read back.
4. Give what the log let go of its TTL, remove the lease.

Cut anywhere, this leaves permanent records that no manifest names: invisible, found by verify, and used by
whoever publishes the same again. They are never removed by a publish that lost: another publish of the same
may have been relying on them. What a late command can still do:

- with compare-and-set: nothing. The manifest has moved on, a record's key is taken;
- under a lease: the plain `SET` may arrive when the lease is another's, and take back what that committed.
  So it is sent only while the lease holds for longer than any request may take, and never twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from swapstore import manifest
from swapstore.commands import (
    ABSENT,
    PERMANENT,
    Command,
    CompareAndSet,
    Drop,
    Expire,
    Failed,
    Get,
    Keep,
    Peek,
    Register,
    Remove,
    Ttl,
    Write,
)
from swapstore.errors import Corrupt, LeaseLost, OutcomeUnknown, ReplyLost, SwapstoreError, Unsupported
from swapstore.operations.adoption import is_free, may_adopt
from swapstore.operations.lease import Lease, release, take
from swapstore.operations.settle import Moved, Swapped, Taken, ask_after_loss, settle, unknown
from swapstore.operations.staging import Record
from swapstore.operations.steps import Batch, Operation, ask_all, load_manifest, value_of
from swapstore.operations.strategy import Way

if TYPE_CHECKING:
    from swapstore.growth import Draft
    from swapstore.operations.context import Context
    from swapstore.operations.staging import Staging


def send(
    ctx: Context, draft: Draft, needed: list[Record], staging: Staging
) -> Operation[Swapped | Moved | Taken | None]:
    """Carry one draft to the manifest. None: a record was not there after all; try again."""
    if ctx.strategy.way is not Way.LEASE:
        return (yield from _send(ctx, draft, needed, staging, None))
    lease = yield from take(ctx, draft)
    try:
        outcome = yield from _send(ctx, draft, needed, staging, lease)
    except (ReplyLost, OutcomeUnknown, LeaseLost):
        raise  # something may still be on its way: the lease has to run out
    except SwapstoreError:
        yield from release(ctx, lease)
        raise
    if outcome is not None:
        yield from release(ctx, lease)
    return outcome


def _send(
    ctx: Context, draft: Draft, needed: list[Record], staging: Staging, lease: Lease | None
) -> Operation[Swapped | Moved | Taken | None]:
    if not (yield from _stands_on_base(ctx, draft)):
        return Moved((yield from load_manifest(ctx, draft.manifest.head.dataset)))
    established = yield from _establish(ctx, draft, needed, staging)
    if established is not True:
        return established or None
    outcome: Swapped | Moved | None
    if lease is None:
        outcome = yield from _compare_and_set(ctx, draft)
    else:
        outcome = yield from _set(ctx, draft, lease)
    if isinstance(outcome, Swapped):
        yield from _let_go(ctx, draft)
    return outcome


def _stands_on_base(ctx: Context, draft: Draft) -> Operation[bool]:
    """Look whether the manifest is still the one that was built on, before records become permanent."""
    expected = b"" if draft.base is None else manifest.prefix(draft.base.etag)
    expected = expected if draft.over is None else draft.over
    (reply,) = yield from ask_all(ctx, [Peek(draft.manifest.key, max(len(expected), 1))])
    return value_of(reply) == expected


# --- records ---------------------------------------------------------------------------------------


@attrs.frozen
class _Found:
    """What is there under a record's key, after it was tried to write it."""

    record: Record
    header: bytes
    ttl: int
    written: bool

    @property
    def is_whole(self) -> bool:
        return self.ttl == PERMANENT and self.header == self.record.header


def _establish(ctx: Context, draft: Draft, needed: list[Record], staging: Staging) -> Operation[Taken | bool]:
    """Write what is not there yet; say whether each record is there now, permanent, with our header."""
    repairs: list[Command[Any]] = []
    complete = True
    for found in (yield from _written(ctx, draft, needed, staging)):
        record = found.record
        if found.is_whole:
            usable = found.written or record.shared or record.stored or (yield from may_adopt(ctx, draft))
            if not usable:
                return Taken(record.key)
            staging.keep(record)
            continue
        complete = False
        if found.ttl == PERMANENT:
            if not (yield from _may_overwrite(ctx, draft, record)):
                return Taken(record.key)
            repairs.append(Write(record.key, record.data))
        elif found.ttl != ABSENT:
            repairs.append(_making_way(record))
        staging.lose(record)
    if repairs:
        for reply in (yield Batch(tuple(repairs))):
            value_of(reply)
    return complete


def _written(ctx: Context, draft: Draft, needed: list[Record], staging: Staging) -> Operation[list[_Found]]:
    """Write records where their keys are free; return what is there then."""
    if not needed:
        return []
    # Last the first, which has the payload: where it is, its ts record is too, and tells who wrote both.
    wanted = needed[::-1]
    key, dataset = draft.manifest.key, draft.manifest.head.dataset
    names = [] if ctx.cache.is_listed(key) else [Register(ctx.keys.datasets(), dataset)]
    keeps = [
        Keep(record.key, record.data) for record in wanted if not (record.stored or staging.is_kept(record))
    ]
    looks: list[Command[Any]] = []
    for record in wanted:
        looks += [Peek(record.key, len(record.header)), Ttl(record.key)]
    replies = yield Batch((*names, *keeps, *looks))
    if names and not isinstance(replies[0], Failed):
        ctx.cache.note_listed(key)
    answers = [value_of(reply) for reply in replies[len(names) :]]
    written = {keep.key for keep, answer in zip(keeps, answers, strict=False) if answer}
    seen = answers[len(keeps) :]
    return [
        _Found(record, header, ttl, record.key in written)
        for record, header, ttl in zip(wanted, seen[::2], seen[1::2], strict=True)
    ]


def _may_overwrite(ctx: Context, draft: Draft, record: Record) -> Operation[bool]:
    """Say whether a permanent record with another header may be replaced: a lone writer's own leftover."""
    if record.shared or record.stored:
        raise Corrupt(
            f"{record.key} is permanent and holds something else than what belongs there: it was left by a "
            "damaged or restored store; publishing cannot go on before it is removed",
            key=record.key,
        )
    return ctx.strategy.way is Way.LEASE and (yield from is_free(ctx, draft))


def _making_way(record: Record) -> Drop:
    """Remove what will expire anyway: staged by another way of committing, or let go of."""
    if record.stored:
        raise Unsupported(
            f"{record.key} has a TTL, and an endpoint without scripts cannot make it permanent; do this "
            "through the Redis protocol, or through an endpoint that runs scripts",
            key=record.key,
        )
    return Drop(record.key)


# --- the swap --------------------------------------------------------------------------------------


def _compare_and_set(ctx: Context, draft: Draft) -> Operation[Swapped | Moved]:
    key, dataset = draft.manifest.key, draft.manifest.head.dataset
    base = draft.base.raw if draft.base else draft.over
    known, sent_at = ctx.cache.known(key), ctx.clock.monotonic()
    swap = Keep(key, draft.manifest.raw) if base is None else CompareAndSet(key, base, draft.manifest.raw)
    # A live view is hidden by its etag in any case, and only a cache: it may go although the swap fails.
    swapped, _ = yield Batch((swap, Remove(ctx.keys.live(dataset))))
    if not value_of(swapped):
        return Moved((yield from load_manifest(ctx, dataset)))
    ctx.cache.learn(draft.manifest, sent_at, basis=known)
    return Swapped()


def _set(ctx: Context, draft: Draft, lease: Lease) -> Operation[Swapped | None]:
    """Set the manifest and read back what is there, while the lease is sure to be ours."""
    key, dataset = draft.manifest.key, draft.manifest.head.dataset
    prefix = manifest.prefix(draft.manifest.etag)
    known, sent_at = ctx.cache.known(key), ctx.clock.monotonic()
    if sent_at >= lease.safe_until:
        return None
    try:
        replies = yield Batch(
            (
                Write(key, draft.manifest.raw),
                Peek(key, len(prefix)),
                Get(lease.key),
                Remove(ctx.keys.live(dataset)),
            )
        )
    except ReplyLost as error:
        # It may yet arrive. It is not sent again: the second may be the one that arrives too late.
        current = yield from ask_after_loss(ctx, draft, error)
        if isinstance((yield from settle(ctx, draft, current, error)), Swapped):
            return Swapped()
        raise unknown(draft, error) from error
    _, stored, holder = map(value_of, replies[:3])
    if stored != prefix or holder != lease.token:
        raise LeaseLost(
            f"another writer swapped {key} at the same time, although single_writer=True promises that there "
            "is none: one of the two commits is lost. Look with `swapstore verify`, publish again, and let "
            "one process at a time publish here",
            key=key,
        )
    ctx.cache.learn(draft.manifest, sent_at, basis=known)
    return Swapped()


def _let_go(ctx: Context, draft: Draft) -> Operation[None]:
    """Give what the log does not name any more its TTL. The commit stands, whatever becomes of this."""
    grace = ctx.policy.reader_grace_ms if draft.grace_ms is None else draft.grace_ms
    if draft.unlinked:
        try:
            yield Batch(tuple(Expire(key, grace) for key in draft.unlinked))
        except SwapstoreError:
            return
