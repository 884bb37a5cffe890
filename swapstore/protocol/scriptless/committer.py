"""Commit with plain commands, where no script runs. The same promise, in steps that each leave it whole.

1. With a lease only: take it (`SET NX PX`). Look whether the manifest is still the one that was built on.
2. Write the records **without a TTL**, each only if its key is free, and read back what is there: a record
   must be whole and permanent before a manifest may name it. The ts record says that it is pending.
3. Swap the manifest: by compare-and-set, or under the lease by a plain `SET`, which is then read back.
4. Let the ts record say that it is committed; give what the log let go of its TTL; give the lease back.

Cut anywhere, this leaves permanent records that no manifest names: invisible, pending, found by verify, and
used by whoever publishes the same again. They are never removed by a publish that lost: another publish of
the same may be relying on them. What a late command can still do:

- with compare-and-set: nothing. The manifest has moved on, a record's key is taken;
- under a lease: the plain `SET` may arrive when the lease is another's, and take back what that committed.
  So it is sent only while the lease holds for longer than any request may take, and never after its reply
  was lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

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
    Remove,
    Ttl,
    Write,
)
from swapstore.errors import LeaseLost, OutcomeUnknown, ReplyLost, SwapstoreError
from swapstore.format import manifest, records
from swapstore.protocol.commit import (
    Moved,
    Record,
    Swapped,
    Taken,
    Vanished,
    ask_after_loss,
    settle,
    unknown,
    unmovable,
)
from swapstore.protocol.datasets import note_listed, unlisted
from swapstore.protocol.load import ask_all, load_manifest, value_of
from swapstore.protocol.operation import Batch, Operation
from swapstore.protocol.scriptless.adoption import is_free, may_adopt
from swapstore.protocol.scriptless.lease import Lease, release, take
from swapstore.protocol.scriptless.probe import Way

if TYPE_CHECKING:
    from swapstore.format.append import Draft
    from swapstore.protocol.commit import Staging
    from swapstore.protocol.context import Context

Outcome = Swapped | Moved | Taken | Vanished | None


def send(ctx: Context, draft: Draft, needed: list[Record], staging: Staging) -> Operation[Outcome]:
    """Carry one draft to the manifest. None: a record was not there after all; try again."""
    if ctx.strategy.way is not Way.LEASE:
        return (yield from _Sending(ctx, draft, needed, staging, None).run())
    lease = yield from take(ctx, draft)
    sending = _Sending(ctx, draft, needed, staging, lease)
    try:
        outcome = yield from sending.run()
    except (ReplyLost, OutcomeUnknown, LeaseLost):
        raise  # something may still be on its way: the lease has to run out
    except SwapstoreError:
        yield from release(ctx, lease)
        raise
    if outcome is not None and not sending.lost:
        yield from release(ctx, lease)
    return outcome


@attrs.frozen
class _Found:
    """What is there under a record's key, after it was tried to write it: its beginning, or all of it."""

    record: Record
    value: bytes
    ttl: int
    written: bool

    @property
    def has_header(self) -> bool:
        return self.value.startswith(self.record.header)

    @property
    def is_whole(self) -> bool:
        return self.ttl == PERMANENT and self.has_header


class _Sending:
    """One draft on its way. `lost`: the last reply was lost, so that a command may still arrive."""

    def __init__(
        self, ctx: Context, draft: Draft, needed: list[Record], staging: Staging, lease: Lease | None
    ) -> None:
        self._ctx = ctx
        self._draft = draft
        self._staging = staging
        self._lease = lease
        self._until = lease.safe_until if lease else None
        self._dataset = draft.manifest.head.dataset
        row = draft.row
        self._ts_key = ctx.keys.ts(self._dataset, row.ts, row.id) if row else ""
        self._ts: bytes | None = None  # the ts record, as it is stored before the swap
        self._final = next((record.data for record in needed if record.key == self._ts_key), b"")
        self._needed = [self._pending(record) if record.key == self._ts_key else record for record in needed]
        self.lost = False

    def _pending(self, record: Record) -> Record:
        assert self._draft.row is not None  # noqa: S101 - only a publish has a ts record of its own
        origin = records.origin_of(self._draft.row, self._draft.manifest.epoch, pending=True)
        return attrs.evolve(record, body=origin)

    def run(self) -> Operation[Outcome]:
        """Take the steps."""
        in_the_way = yield from self._look()
        if in_the_way is not None:
            return in_the_way
        missing = yield from self._establish()
        if missing is not True:
            return missing or None
        outcome = yield from (self._compare_and_set() if self._lease is None else self._set(self._lease))
        if isinstance(outcome, Swapped):
            yield from self._finish()
        return outcome

    def _look(self) -> Operation[Moved | Taken | None]:
        """Look, before records become permanent, whether the manifest is still the base, and the id free."""
        draft, row = self._draft, self._draft.row
        expected = b"" if draft.base is None else manifest.prefix(draft.base.etag)
        expected = expected if draft.over is None else draft.over
        looks: list[Command[Any]] = [Peek(draft.manifest.key, max(len(expected), 1))]
        record = next((each for each in self._needed if row and not self._staging.is_kept(each)), None)
        if record is not None:
            looks += [Peek(record.key, len(record.header)), Ttl(record.key)]
        stored, *there = map(value_of, (yield from ask_all(self._ctx, looks)))
        if stored != expected:
            return Moved((yield from load_manifest(self._ctx, self._dataset)))
        if record is None or there[1] != PERMANENT or not there[0]:  # it came between the two looks at it
            return None
        judging = may_adopt(self._ctx, draft) if there[0] == record.header else self._may_overwrite(record)
        return None if (yield from judging) else Taken(record.key)

    # --- records -----------------------------------------------------------------------------------

    def _establish(self) -> Operation[Taken | Vanished | bool]:
        """Write what is not there yet; say whether each record is there now, permanent, with our header."""
        mending: list[Command[Any]] = []
        complete = True
        for found in (yield from self._written()):
            record = found.record
            if record.key == self._ts_key:
                self._ts = found.value
            if found.is_whole:
                given = found.written or record.shared or record.stored
                if not given and not (yield from may_adopt(self._ctx, self._draft)):
                    return Taken(record.key)
                self._staging.keep(record)
                continue
            complete = False
            self._staging.lose(record)
            if record.stored and not found.has_header:
                return Vanished(record.key)
            if found.ttl == PERMANENT and found.value:
                if not (yield from self._may_overwrite(record)):
                    return Taken(record.key)
                mending.append(Write(record.key, record.data))
            elif record.stored:
                mending += yield from self._made_permanent(record)
            elif found.ttl not in {ABSENT, PERMANENT}:
                mending.append(Drop(record.key))  # it was staged by a script, or let go of
        if mending:
            for reply in (yield Batch(tuple(mending), until=self._until)):
                value_of(reply)
        return complete

    def _written(self) -> Operation[list[_Found]]:
        """Write records where their keys are free; return what is there then."""
        if not self._needed:
            return []
        # Last the first, which has the payload: where it is, its ts record is too, and tells who wrote both.
        wanted = self._needed[::-1]
        names = unlisted(self._ctx, self._dataset)
        keeps = [
            Keep(record.key, record.data)
            for record in wanted
            if not (record.stored or self._staging.is_kept(record))
        ]
        looks: list[Command[Any]] = []
        for record in wanted:
            is_ts = record.key == self._ts_key
            look: Command[Any] = Get(record.key) if is_ts else Peek(record.key, len(record.header))
            looks += [look, Ttl(record.key)]
        replies = yield Batch((*names, *keeps, *looks), until=self._until)
        note_listed(self._ctx, self._dataset, replies[: len(names)])
        answers = [value_of(reply) for reply in replies[len(names) :]]
        written = {keep.key for keep, answer in zip(keeps, answers, strict=False) if answer}
        seen = answers[len(keeps) :]
        return [
            _Found(record, value or b"", ttl, record.key in written)
            for record, value, ttl in zip(wanted, seen[::2], seen[1::2], strict=True)
        ]

    def _may_overwrite(self, record: Record) -> Operation[bool]:
        """Say whether a permanent record with another header may be replaced: a lone writer's leftover."""
        if record.shared:
            raise unmovable(record.key)
        return self._lease is not None and (yield from is_free(self._ctx, self._draft))

    def _made_permanent(self, record: Record) -> Operation[list[Command[Any]]]:
        """Write a record that has a TTL over itself, which takes the TTL away."""
        (reply,) = yield from ask_all(self._ctx, [Get(record.key)])
        value = value_of(reply)
        if value is None:
            return []
        return [Write(record.key, value) if self._lease else CompareAndSet(record.key, value, value)]

    # --- the swap ----------------------------------------------------------------------------------

    def _compare_and_set(self) -> Operation[Swapped | Moved]:
        draft, cache = self._draft, self._ctx.cache
        key = draft.manifest.key
        base = draft.base.raw if draft.base else draft.over
        known, sent_at = cache.known(key), self._ctx.clock.monotonic()
        swap = Keep(key, draft.manifest.raw) if base is None else CompareAndSet(key, base, draft.manifest.raw)
        # A live view is hidden by its etag in any case, and only a cache: it may go although the swap fails.
        swapped, _ = yield Batch((swap, Remove(self._ctx.keys.live(self._dataset))))
        if not value_of(swapped):
            return Moved((yield from load_manifest(self._ctx, self._dataset)))
        cache.learn(draft.manifest, sent_at, basis=known)
        return Swapped()

    def _set(self, lease: Lease) -> Operation[Swapped]:
        """Set the manifest and read back what is there, while the lease is sure to be ours."""
        draft, cache = self._draft, self._ctx.cache
        key, prefix = draft.manifest.key, manifest.prefix(draft.manifest.etag)
        known, sent_at = cache.known(key), self._ctx.clock.monotonic()
        live = self._ctx.keys.live(self._dataset)
        swap = (Write(key, draft.manifest.raw), Peek(key, len(prefix)), Get(lease.key), Remove(live))
        try:
            replies = yield Batch(swap, until=self._until)
            value_of(replies[0])
        except ReplyLost as error:
            return (yield from self._after_loss(error))
        # From here on it is set. It is not sent again: the second might be the one that arrives too late.
        unread = next((each.error for each in replies[1:3] if isinstance(each, Failed)), None)
        if unread is not None:
            return (yield from self._after_loss(ReplyLost(unread.args[0])))
        if replies[1:3] != [prefix, lease.token]:
            raise LeaseLost(
                f"another writer swapped {key} at the same time, although single_writer=True promises that "
                "there is none: one of the two commits is lost. Look with `swapstore verify`, publish again, "
                "and let one process at a time publish here",
                key=key,
            )
        cache.learn(draft.manifest, sent_at, basis=known)
        return Swapped()

    def _after_loss(self, error: ReplyLost) -> Operation[Swapped]:
        """Look whether the manifest was set; if it cannot be seen there, it may be yet."""
        current = yield from ask_after_loss(self._ctx, self._draft, error)
        if isinstance((yield from settle(self._ctx, self._draft, current, error)), Swapped):
            self.lost = True
            return Swapped()
        raise unknown(self._draft, error) from error

    # --- afterwards --------------------------------------------------------------------------------

    def _finish(self) -> Operation[None]:
        """Say in the ts record that it is committed; let go. The commit stands, whatever becomes of this."""
        draft = self._draft
        grace = self._ctx.policy.reader_grace_ms if draft.grace_ms is None else draft.grace_ms
        commands: list[Command[Any]] = []
        if self._ts is not None and self._final and self._ts != self._final:
            commands.append(
                CompareAndSet(self._ts_key, self._ts, self._final)
                if self._lease is None
                else Write(self._ts_key, self._final)
            )
        # Without a lease, what a repair lets go of may be adopted before it has its TTL: it stays.
        if self._lease is not None or draft.grace_ms is None:
            commands += [Expire(key, grace) for key in draft.unlinked]
        try:
            if commands:
                yield Batch(tuple(commands), until=self._until)
        except SwapstoreError:
            self.lost = True
