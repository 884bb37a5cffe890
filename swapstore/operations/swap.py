"""The swap: carry one draft through to an answer, whatever is lost on the way.

Every change of a dataset ends here, in one batch: the records it relies on, then the commit. The commit
refuses unless each record is really there, so nothing is inferred from the order of the batch. A draft is
bound to the manifest it was built on (`base`); only the store decides whether it became the next one.

What can go wrong, and why it is safe:

- crash before the commit: staged records expire; nobody saw them;
- reply lost: the draft either became version n+1 or it never will once another did. The manifest tells;
  while it still shows version n, the **same bytes** are sent again, so it cannot be committed twice;
- a delayed commit that arrives late finds another etag and does nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.commands import (
    Already,
    Commit,
    Committed,
    Conflict,
    Failed,
    Held,
    Staged,
    Unstaged,
)
from swapstore.errors import Contended, ReplyLost, SwapstoreError, Unscripted
from swapstore.format import manifest
from swapstore.operations import plain, telling
from swapstore.operations.listing import note_listed, unlisted
from swapstore.operations.operation import Batch, Operation, Wait
from swapstore.operations.probing import without_scripts
from swapstore.operations.settle import Moved, Swapped, Taken, Vanished, ask_after_loss, settle, unknown
from swapstore.operations.staging import Record, Staging
from swapstore.operations.strategy import Way

if TYPE_CHECKING:
    from swapstore.format.append import Draft
    from swapstore.operations.context import Context


def swap(
    ctx: Context, draft: Draft, needed: list[Record], staging: Staging
) -> Operation[Swapped | Moved | Taken | Vanished]:
    """Send a draft until the store has decided.

    Raises what the store refused a command with (nothing was committed), `Contended` when records keep
    being taken over, and `OutcomeUnknown` when a reply was lost and the store cannot be asked.
    """
    lost: ReplyLost | None = None
    losses = 0
    for attempt in range(ctx.policy.commit_attempts):
        if attempt > 1:
            yield Wait(ctx.backoff(attempt))
        try:
            carry = _send if ctx.strategy.scripted else plain.send
            outcome = yield from carry(ctx, draft, needed, staging)
            if isinstance(outcome, Swapped | Taken | Vanished):
                return outcome
            if outcome is None:
                continue  # a record was not there: the staging knows what to do about it
            current = outcome.current
        except ReplyLost as error:
            lost, losses = error, losses + 1
            current = yield from ask_after_loss(ctx, draft, error)
        except SwapstoreError as error:
            if lost is None:
                raise
            raise unknown(draft, error) from error
        verdict = yield from settle(ctx, draft, current, lost)
        if isinstance(verdict, Moved):
            telling.retried(ctx, draft)
        if verdict is not None:
            return verdict
        if losses == ctx.policy.lost_attempts:
            break
    if lost is not None:
        raise unknown(draft, lost) from lost
    raise Contended(
        f"another producer kept taking over the staged records of version {draft.manifest.version}; "
        "let producers use different ids, or try again"
    )


def _send(
    ctx: Context, draft: Draft, needed: list[Record], staging: Staging
) -> Operation[Swapped | Moved | Taken | Vanished | None]:
    """Send one batch: what has to be staged, then the commit. The commit's own reply decides."""
    key, dataset = draft.manifest.key, draft.manifest.head.dataset
    names = unlisted(ctx, dataset)
    stages = staging.commands(ctx, needed)
    known, sent_at = ctx.cache.known(key), ctx.clock.monotonic()
    replies = yield Batch((*names, *stages, _commit(ctx, draft, needed)))
    note_listed(ctx, dataset, replies[: len(names)])
    refusal = staging.note(stages, replies[len(names) : -1])
    match replies[-1]:
        case Committed() | Already():
            ctx.strategy.way = Way.SCRIPT
            ctx.cache.learn(draft.manifest, sent_at, basis=known)
            return Swapped()
        case Failed(Unscripted()) if ctx.strategy.way is None:
            yield from without_scripts(ctx)
            return None
        case Failed(error):
            raise refusal or error
        case Unstaged() as unstaged:
            if refusal is not None:
                raise refusal  # the record is not there because the store would not take it
            if any(record.stored and record.key == unstaged.key for record in needed):
                return Vanished(unstaged.key)
            staging.missed(unstaged)
            return None
        case Held(held):
            return Taken(held)
        case Conflict(raw):
            current = manifest.parse(raw, dataset, key) if raw is not None else None
            if current is None:
                ctx.cache.forget(key, basis=known)
            else:
                ctx.cache.learn(current, sent_at, basis=known, retreat=True)
            return Moved(current)
        case other:
            raise TypeError(f"a driver answered a commit with {other!r}")


def _commit(ctx: Context, draft: Draft, needed: list[Record]) -> Commit:
    return Commit(
        key=draft.manifest.key,
        expected=manifest.prefix(draft.base.etag) if draft.base else draft.over or b"",
        whole=draft.over is not None,
        prefix=manifest.prefix(draft.manifest.etag),
        manifest=draft.manifest.raw,
        live_key=ctx.keys.live(draft.manifest.head.dataset),
        staged=tuple(Staged(record.key, record.header, record.shared) for record in needed),
        staging_ttl_ms=ctx.policy.staging_ttl_ms,
        unlinked=draft.unlinked,
        grace_ms=ctx.policy.reader_grace_ms if draft.grace_ms is None else draft.grace_ms,
    )
