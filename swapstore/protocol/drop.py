"""Drop: nothing of a dataset is published any more, at once; then all of it is removed, in bounded steps.

1. Swap to a manifest that says so. Its rows stay in the log, hidden, and each of their records stays until
   its row leaves. So whatever cuts it short, nothing is stored that no manifest names, and a repair has
   nothing to restore.
2. Let the rows leave, some pages a swap, as retention does it. The commit deletes their records at once.
3. Scan the keys of the dataset for what else there is: what was staged, unlinked or leaked.
4. Take the name off the list of datasets, and swap a last time: the commit deletes the manifest after its
   SET.

Run again, it goes on where it was cut. A producer may publish at any time: the next version is the first
snapshot that is there, and the rows that were dropped leave as any hidden row does. Then steps 3 and 4 are
left out.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from swapstore.commands import Command, Register, Unregister
from swapstore.errors import Contended, OutcomeUnknown
from swapstore.events import DatasetDropped
from swapstore.format import append, reseal, search
from swapstore.format.reseal import Erasing
from swapstore.format.retention import Limits
from swapstore.protocol.commit import Moved, Record, Staging, commit
from swapstore.protocol.copies import KeysOf, keys_of
from swapstore.protocol.erase import still_there
from swapstore.protocol.load import find, is_in_log, load_manifest, nothing_published, value_of
from swapstore.protocol.operation import Batch, Emit, Operation, Tally, Turn, Wait
from swapstore.protocol.prune import PAGES_A_PRUNE, retained
from swapstore.protocol.scriptless.resend import sent_again
from swapstore.reports import Dropped

EXPIRED_S = 0.002  # after which a manifest is gone to which the last swap gave the shortest TTL

if TYPE_CHECKING:
    from collections.abc import Callable

    from swapstore.format.append import Draft
    from swapstore.format.manifest import Manifest
    from swapstore.models import Row
    from swapstore.protocol.context import Context


def drop(ctx: Context, dataset: str, *, on_progress: Callable[[int], None] | None) -> Operation[Dropped]:
    """Drop a dataset. `on_progress` is called with the number of snapshots that are left.

    Raises `NotFound` if there is no manifest, and `Contended` if other producers keep committing first.
    """
    yield Turn((dataset,))
    run = _Drop(ctx, dataset, on_progress)
    made = yield from run.all()
    if ctx.hook is not None:
        yield Emit(partial(_emit, ctx, made))
    return made


def _emit(ctx: Context, made: Dropped, tally: Tally) -> None:
    ctx.emit(
        DatasetDropped(
            dataset=made.dataset,
            snapshots=made.snapshots,
            republished=made.republished,
            elapsed_s=ctx.clock.monotonic() - tally.began,
        )
    )


class _Drop:
    """One call."""

    def __init__(self, ctx: Context, dataset: str, on_progress: Callable[[int], None] | None) -> None:
        self._ctx = ctx
        self._dataset = dataset
        self._on_progress = on_progress
        self._before: int | None = None  # `dropped` of the first manifest, if that is published
        self._removed = 0
        self._keys: list[str] = []  # that the swap before was to delete

    def all(self) -> Operation[Dropped]:
        """Take the steps of the module docstring."""
        current = yield from load_manifest(self._ctx, self._dataset)
        if current is None:
            raise nothing_published(self._ctx)
        self._before = None if current.head.is_dropped else current.head.dropped
        lost = 0
        while lost < self._ctx.policy.commit_attempts:
            if current is None:
                return self._made(republished=False)
            draft = yield from self._next(current)
            if draft is None:
                yield from self._list(Register(self._ctx.keys.datasets(), self._dataset))
                return self._made(republished=True)
            try:
                verdict = yield from commit(self._ctx, draft, [], Staging())
            except OutcomeUnknown:  # it does not matter whose swap it was: the manifest shows what is left
                verdict = Moved((yield from load_manifest(self._ctx, self._dataset)))
            if isinstance(verdict, Moved):
                lost += 1
                yield Wait(self._ctx.backoff(lost))
                current = verdict.current
                continue
            self._removed += current.head.count - draft.manifest.head.count
            is_last, current = current.key in draft.unlinked, draft.manifest
            if is_last:
                self._ctx.cache.forget(current.key, basis=self._ctx.cache.known(current.key))
                lost += 1
                yield Wait(EXPIRED_S)
                current = yield from load_manifest(self._ctx, self._dataset)
                continue
            if self._on_progress is not None:
                self._on_progress(current.head.count)
            yield Turn((self._dataset,))  # between two swaps, others have theirs
        raise Contended(
            f"other producers committed first, {self._ctx.policy.commit_attempts} times; what is not removed "
            "yet can be removed by dropping again, unless something was published since"
        )

    def _made(self, *, republished: bool) -> Dropped:
        return Dropped(dataset=self._dataset, snapshots=self._removed, republished=republished)

    # --- swaps -------------------------------------------------------------------------------------

    def _next(self, current: Manifest) -> Operation[Draft | None]:
        """Return the next swap. None: nothing is left to do, because somebody has published since."""
        head, stamp = current.head, self._ctx.stamp()
        if self._before is not None and not head.is_dropped and head.dropped <= self._before:
            only = yield from retained(self._ctx, current, Limits(), keeping=(), most=0)
            return append.drop(current, stamp=stamp, retained=only)
        self._before = None
        if _has_dropped(current):
            return (yield from self._without_rows(current))
        if not head.is_dropped:
            return None
        keys = yield from self._leftovers()
        if keys and keys == self._keys:
            raise still_there()
        self._keys = keys
        if not keys:
            yield from self._list(Unregister(self._ctx.keys.datasets(), self._dataset))
        return msgspec.structs.replace(
            append.repoint(current, stamp=stamp),
            unlinked=tuple(keys or [current.key]),
            grace_ms=0,
            even_if_full=False,
        )

    def _without_rows(self, current: Manifest) -> Operation[Draft | None]:
        """Return the swap that lets the next rows leave. None: they are in pages that cannot be read.

        If nothing was published since, such pages leave, too. The scan finds what they have named.
        """
        ctx, kept = self._ctx, current.head.kept
        taken = yield from retained(ctx, current, Limits(), keeping=kept, most=PAGES_A_PRUNE)
        draft = append.repoint(current, stamp=ctx.stamp(), retained=taken)
        if draft.manifest.log != current.log:
            return msgspec.structs.replace(draft, grace_ms=0, even_if_full=False)
        return append.emptied(current, stamp=ctx.stamp()) if current.head.is_dropped else None

    # --- what no manifest names --------------------------------------------------------------------

    def _leftovers(self) -> Operation[list[str]]:
        """Return some permanent keys that the empty log does not name, and discard those that expire."""
        scan = KeysOf(self._ctx, self._dataset)
        while scan.pending:
            permanent, expiring = yield from scan.step()
            dead: list[Command[Any]] = [
                self._ctx.capabilities.committer.discard(name.key) for name in expiring
            ]
            if dead:
                for reply in (yield from sent_again(self._ctx, Batch(tuple(dead)))):
                    value_of(reply)
            if permanent:
                return [name.key for name in permanent]
        return []

    def _list(self, command: Register | Unregister) -> Operation[None]:
        """Change the list of names. A producer that publishes now puts the name on it once more."""
        for reply in (yield from sent_again(self._ctx, Batch((command,)))):
            value_of(reply)


def _has_dropped(current: Manifest) -> bool:
    """Say whether the log still has rows that were dropped."""
    dropped, log = current.head.dropped, current.log
    return any(ref.first_version <= dropped for ref in log.pages) or any(
        row.version <= dropped for row in log.rows
    )


# --- an id that is published again -----------------------------------------------------------------


def unlink(ctx: Context, base: Manifest, row: Row) -> Operation[None]:
    """Let one dropped row leave the log at once, because its id is published again.

    If that fails because others came first, the publish finds out and comes here again.
    """
    dataset = base.head.dataset
    others = search.ByBase(row.base or "", frozenset({row.version}))
    is_needed = row.base is None or (yield from is_in_log(ctx, dataset, base.log, others))
    draft = yield from find(
        ctx,
        dataset,
        reseal.redraft(
            base,
            {},
            in_force=base.log.base,
            unneeded=[] if is_needed or row.base is None else [row.base],
            stamp=ctx.stamp(),
            erasing=Erasing(row, base.head.latest, base.head.pinned),
        ),
    )
    keys = yield from keys_of(ctx, dataset, row)
    needed = [Record.of(page.ref.key, page.record, shared=True) for page in draft.pages]
    draft = msgspec.structs.replace(draft, unlinked=(*draft.unlinked, *keys), grace_ms=0)
    with suppress(OutcomeUnknown):
        yield from commit(ctx, draft, needed, Staging())
