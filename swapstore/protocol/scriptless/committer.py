"""Commit with plain commands, where no script runs: the same promise, in several steps.

1. Under a lease only: take it (`SET NX PX`). Check that the manifest is still the base.
2. Write the records **without a TTL**, each only if its key is free, and read back what is there: a record
   must be whole and permanent before a manifest may name it. The ts record says that it is pending.
3. Swap the manifest: by compare-and-set, or under the lease by a plain `SET`, which is then read back.
4. Write to the ts record that it is committed. Give the unlinked keys their TTL. Release the lease.

A commit that is cut short at any step leaves permanent records that no manifest names at worst. They are
invisible and pending, verify finds them, and a publish of the same id and content uses them. A publish that
loses the race does not remove them, because another publish of the same id may rely on them. A command that
arrives late can still do this:

- with compare-and-set: nothing. The manifest has moved on, or the record's key is taken;
- under a lease: the plain `SET` may arrive when another writer has the lease, and overwrite its commit. So
  it is sent only while the lease holds for longer than any request may take, and never sent again after its
  reply was lost.
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
from swapstore.errors import Contended, LeaseLost, OutcomeUnknown, ReplyLost, SwapstoreError
from swapstore.format import manifest, records
from swapstore.protocol.commit import (
    Moved,
    Outcome,
    Record,
    Swapped,
    Taken,
    Vanished,
    ask_after_loss,
    bound_elsewhere,
    permanent_entry,
    resolve,
    unknown,
    unmovable,
)
from swapstore.protocol.datasets import note_listed, unlisted
from swapstore.protocol.load import ask_all, load_manifest, value_of
from swapstore.protocol.operation import Batch, Operation
from swapstore.protocol.scriptless.adoption import is_free, may_adopt
from swapstore.protocol.scriptless.lease import Lease, release, take

if TYPE_CHECKING:
    from swapstore.format.append import Draft
    from swapstore.format.manifest import Manifest
    from swapstore.protocol.commit import Staging
    from swapstore.protocol.context import Context
    from swapstore.protocol.publish import Intent


class _Scriptless:
    """What both committers do in the same way."""

    def stage_ahead(self, _ctx: Context, _needed: list[Record], _staging: Staging) -> Operation[None]:
        """Do nothing: records are written right before the swap, and are permanent at once."""
        yield from ()

    def adopt(self, ctx: Context, intent: Intent, base: Manifest | None) -> Operation[Intent | None]:
        """Use the permanent records that a publish of the same id and content, cut short, has left.

        Raises `Contended` when they hold something else, or have another `ts` than the caller wants: then
        the id is bound to them.
        """
        key = ctx.keys.id(intent.wanted.dataset, intent.id)
        entry = yield from permanent_entry(ctx, key)
        if entry is not None and intent.is_content_of(entry) and intent.wanted.ts is None:
            taken = attrs.evolve(intent, began_ms=entry.ts, encoding=entry.encoding)
            if taken != intent and taken.ts(base) == entry.ts:
                return taken
        raise bound_elsewhere(key, entry)


class ByCompareAndSet(_Scriptless):
    """Swaps with `SET … IFEQ`, which compares and sets in one command."""

    # A publish may begin to use a record that a repair unlinks, before the record has its TTL.
    expires_leaks = False

    def send(
        self, ctx: Context, draft: Draft, needed: list[Record], staging: Staging
    ) -> Operation[Outcome | None]:
        """Send a draft once. None: a record is not there yet; send it again."""
        return _Sending(ctx, draft, needed, staging, None).run()

    def refit(self, ctx: Context, intent: Intent, base: Manifest | None, staging: Staging) -> Intent:
        """Choose a new id if this one's record is permanent, with a `ts` that has had to move up since.

        Raises `Contended` if the caller chose the id.
        """
        key = ctx.keys.id(intent.wanted.dataset, intent.id)
        if not staging.holds_another(key, records.entry_header(intent.entry(base))):
            return intent
        if intent.wanted.id is None:
            return attrs.evolve(intent, id=ctx.new_id())
        raise Contended(
            f"another producer committed a later snapshot first, and id {intent.id!r} is bound to an earlier "
            "`ts`, because this endpoint runs no scripts. Nothing was published; publish under another id, "
            "or pass `ts` too"
        )


class UnderLease(_Scriptless):
    """Swaps with a plain SET, while a lease keeps other writers away."""

    expires_leaks = True

    def send(
        self, ctx: Context, draft: Draft, needed: list[Record], staging: Staging
    ) -> Operation[Outcome | None]:
        """Send a draft once, under the lease. None: a record is not there yet; send it again."""
        lease = yield from take(ctx, draft)
        sending = _Sending(ctx, draft, needed, staging, lease)
        try:
            outcome = yield from sending.run()
        except (ReplyLost, OutcomeUnknown, LeaseLost):
            raise  # a command may still arrive: the lease has to run out
        except SwapstoreError:
            yield from release(ctx, lease)
            raise
        if outcome is not None and not sending.lost:
            yield from release(ctx, lease)
        return outcome

    def refit(self, _ctx: Context, intent: Intent, _base: Manifest | None, _staging: Staging) -> Intent:
        """Return the intent unchanged: the only writer may replace records that it left itself."""
        return intent


@attrs.frozen
class _Found:
    """What is stored under a record's key, after the attempt to write the record.

    `value` begins with the stored header line; of a ts record it is all. `written`: this attempt wrote it.
    """

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
    """One send of a draft. `lost`: the reply to its last command was lost, so that may still arrive."""

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
        row = self._draft.row
        assert row is not None  # noqa: S101 - only a publish has a ts record of its own
        origin = records.origin_of(row, self._draft.manifest.epoch, pending=True)
        return attrs.evolve(record, header=records.entry_header(row), body=origin)

    def run(self) -> Operation[Outcome | None]:
        """Take the steps of the module docstring, except for those about the lease."""
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
        """Check that the manifest is still the base and the id is free, before records become permanent."""
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
        if record is None or there[1] != PERMANENT or not there[0]:  # it was written between Peek and Ttl
            return None
        judging = may_adopt(self._ctx, draft) if there[0] == record.header else self._may_overwrite(record)
        return None if (yield from judging) else self._taken(record)

    # --- records -----------------------------------------------------------------------------------

    def _establish(self) -> Operation[Taken | Vanished | bool]:
        """Write records that are not there yet. True: each is there now, permanent, with its header."""
        corrections: list[Command[Any]] = []
        complete = True
        for found in (yield from self._written()):
            record = found.record
            if record.key == self._ts_key:
                self._ts = found.value
            if found.is_whole:
                given = found.written or record.shared or record.stored
                if not given and not (yield from may_adopt(self._ctx, self._draft)):
                    return self._taken(record)
                self._staging.keep(record)
                continue
            complete = False
            self._staging.lose(record)
            if record.stored and not found.has_header:
                return Vanished(record.key)
            if found.ttl == PERMANENT and found.value:
                if not (yield from self._may_overwrite(record)):
                    return self._taken(record)
                corrections.append(Write(record.key, record.data))
            elif record.stored:
                corrections += yield from self._made_permanent(record)
            elif found.ttl not in {ABSENT, PERMANENT}:
                corrections.append(Drop(record.key))  # it was staged by a script, or unlinked
        if corrections:
            for reply in (yield Batch(tuple(corrections), until=self._until)):
                value_of(reply)
        return complete

    def _written(self) -> Operation[list[_Found]]:
        """Write records whose keys are free. Return what is stored under each key after that."""
        if not self._needed:
            return []
        # The id record, which is the first, is written last. Where it is, the ts record with the origin is
        # too.
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

    def _taken(self, record: Record) -> Taken:
        """Return `Taken` for the draft's id, whichever of its records is in the way."""
        row = self._draft.row
        return Taken(record.key if row is None else self._ctx.keys.id(self._dataset, row.id))

    def _may_overwrite(self, record: Record) -> Operation[bool]:
        """Say whether a permanent record with another header may be replaced: the only writer left it."""
        if record.shared:
            raise unmovable(record.key)
        return self._lease is not None and (yield from is_free(self._ctx, self._draft))

    def _made_permanent(self, record: Record) -> Operation[list[Command[Any]]]:
        """Return the command that writes a record over itself, which removes its TTL."""
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
        # The live view may be removed although the swap fails: it is only a cache, and its etag hides it.
        swapped, _ = yield Batch((swap, Remove(self._ctx.keys.live(self._dataset))))
        if not value_of(swapped):
            return Moved((yield from load_manifest(self._ctx, self._dataset)))
        cache.learn(draft.manifest, sent_at, basis=known)
        return Swapped()

    def _set(self, lease: Lease) -> Operation[Swapped]:
        """Set the manifest and read it back, while the lease is certainly ours."""
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
        # The manifest is set. It is not sent again, because a second `SET` might arrive too late.
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
        """Check whether the manifest was set. If it is not there, it may still be set: `OutcomeUnknown`."""
        current = yield from ask_after_loss(self._ctx, self._draft, error)
        if isinstance((yield from resolve(self._ctx, self._draft, current, error)), Swapped):
            self.lost = True
            return Swapped()
        raise unknown(self._draft, error) from error

    # --- after the swap ----------------------------------------------------------------------------

    def _finish(self) -> Operation[None]:
        """Mark the ts record as committed, and expire unlinked keys. If this fails, the commit stands."""
        draft = self._draft
        grace = self._ctx.policy.reader_grace_ms if draft.grace_ms is None else draft.grace_ms
        commands: list[Command[Any]] = []
        if self._ts is not None and self._final and self._ts != self._final:
            commands.append(
                CompareAndSet(self._ts_key, self._ts, self._final)
                if self._lease is None
                else Write(self._ts_key, self._final)
            )
        # Without a lease, a publish may adopt a key that a repair unlinks before the key has its TTL. So the
        # key stays.
        if self._lease is not None or draft.grace_ms is None:
            commands += [Expire(key, grace) for key in draft.unlinked]
        try:
            if commands:
                yield Batch(tuple(commands), until=self._until)
        except SwapstoreError:
            self.lost = True
