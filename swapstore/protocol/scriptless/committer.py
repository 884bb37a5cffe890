"""Commit with plain commands, where no script runs: the same promise, in several requests.

1. Write the records **without a TTL**, each only if its key is free: a record must be whole and permanent
   before a manifest may name it. What was not written now is read back. The ts record says that it is
   pending, and for which version. Check that the manifest is still the base.
   (Under a lease, a request before this one takes the lease and looks at the manifest and the id.)
   Write the members of a group in the same way, when the id is certainly this publish's: see `members.py`.
2. Swap the manifest: by compare-and-set, or under the lease by a plain `SET`, which is then read back.
3. Write to the ts record that it is committed. Give the unlinked keys their TTL. Release the lease.

A commit that is cut short at any step leaves permanent records that no manifest names at worst. They are
invisible and pending, and verify finds them. A publish of the same id uses or deletes them, and a repair
deletes them: `adoption.py` says when each is safe. A command that arrives late can still do this:

- with compare-and-set: nothing. The manifest has moved on, or the record's key is taken;
- under a lease: the plain `SET` may arrive when another writer has the lease, and overwrite its commit. So
  it is sent only while the lease holds for longer than any request may take, and never sent again after its
  reply was lost.

A lost reply before step 2 shows that nothing was committed, so those requests are sent again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from swapstore.commands import (
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
from swapstore.errors import LeaseLost, OutcomeUnknown, ReplyLost, SwapstoreError, Unsupported
from swapstore.format import manifest, members, records
from swapstore.protocol.commit import (
    Committer,
    Moved,
    Outcome,
    Record,
    Swapped,
    Taken,
    Vanished,
    ask_after_loss,
    resolve,
    unknown,
)
from swapstore.protocol.encoder import Encoder
from swapstore.protocol.leftovers import bound_elsewhere, permanent_entry, unmovable
from swapstore.protocol.load import ask, ask_all, load_manifest, value_of
from swapstore.protocol.operation import Batch, Operation
from swapstore.protocol.scriptless.adoption import (
    Left,
    delete,
    delete_unlinked,
    deleting,
    is_abandoned,
    is_free,
    is_live,
    is_spent,
    may_adopt,
    reclaim,
    reclaim_leaked,
)
from swapstore.protocol.scriptless.lease import Lease, release, take
from swapstore.protocol.scriptless.members import Signature, can_be_read, is_of_attempt, write_members
from swapstore.protocol.scriptless.resend import requests, sent_again
from swapstore.protocol.scriptless.sending import Found, Sending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.format.append import Draft
    from swapstore.format.manifest import Manifest
    from swapstore.format.records import Holding
    from swapstore.models import Row
    from swapstore.protocol.commit import Staging
    from swapstore.protocol.context import Context
    from swapstore.protocol.publish import Intent


class _Scriptless:
    """What both committers do in the same way."""

    def stage_ahead(self, _ctx: Context, _needed: list[Record], _staging: Staging) -> Operation[None]:
        """Do nothing: records are written right before the swap, and are permanent at once."""
        yield from ()

    def discard(self, key: str) -> Command[Any]:
        """Return the command that deletes a key if it has a TTL, and leaves it if it is permanent."""
        return Drop(key)


class ByCompareAndSet(_Scriptless):
    """Swaps with `SET … IFEQ`, which compares and sets in one command."""

    # A publish may begin to use a record that a repair unlinks, before the record has its TTL. See `reclaim`.
    expires_leaks = False

    def send(
        self, ctx: Context, draft: Draft, needed: list[Record], staging: Staging
    ) -> Operation[Outcome | None]:
        """Send a draft once. None: a record is not there yet; send it again."""
        _refuse_rewriting(draft)
        return _Comparing(ctx, draft, needed, staging).run()

    def adopt(self, ctx: Context, intent: Intent, base: Manifest | None) -> Operation[Intent | None]:
        """Use the records that a publish of the same id and content has left, or delete them.

        Raises `Contended` when another publish may be about to commit them, or retention is unlinking them.
        """
        dataset = intent.wanted.dataset
        key = ctx.keys.id(dataset, intent.id)
        entry = yield from permanent_entry(ctx, key)
        if entry is None:
            return intent  # its key is free by now
        if (taken := _with_ts_of(ctx, intent, entry, base)) is not None:
            return taken
        if (yield from reclaim(ctx, dataset, Left.by(entry))):
            return intent
        current = yield from load_manifest(ctx, dataset)
        if (current and current.etag) != (base and base.etag):
            return intent  # decide anew: the other publish may be committed by now
        raise bound_elsewhere(key, entry)

    def reclaim(self, ctx: Context, dataset: str, leaked: Sequence[str], *, apply: bool) -> Operation[bool]:
        """Delete what publishes that were cut short, or lost the race, have left."""
        return reclaim_leaked(ctx, dataset, leaked, apply=apply)


class UnderLease(_Scriptless, Committer):
    """Swaps with a plain SET, while a lease keeps other writers away."""

    expires_leaks = True

    def send(
        self, ctx: Context, draft: Draft, needed: list[Record], staging: Staging
    ) -> Operation[Outcome | None]:
        """Send a draft once, under the lease. None: a record is not there yet; send it again."""
        _refuse_rewriting(draft)
        sending = _Leasing(ctx, draft, needed, staging)
        try:
            outcome = yield from sending.run()
        except (ReplyLost, OutcomeUnknown, LeaseLost):
            raise  # a command may still arrive: the lease has to run out
        except SwapstoreError:
            yield from sending.release()
            raise
        if not isinstance(outcome, Swapped):  # a commit releases it with its last commands
            yield from sending.release()
        return outcome

    def adopt(self, ctx: Context, intent: Intent, base: Manifest | None) -> Operation[Intent | None]:
        """Use the records that a publish of the same id and content, cut short, has left.

        Raises `Contended` when retention is unlinking them.
        """
        key = ctx.keys.id(intent.wanted.dataset, intent.id)
        entry = yield from permanent_entry(ctx, key)
        taken = entry and _with_ts_of(ctx, intent, entry, base)
        if taken:
            return taken
        raise bound_elsewhere(key, entry)


def _refuse_rewriting(draft: Draft) -> None:
    """Raise `Unsupported` for a draft that stores committed records anew."""
    if draft.rewritten:
        raise Unsupported(
            "this endpoint runs no scripts (EVAL), and only a script can replace committed records in the "
            "same step as the manifest that says which bases they need. No snapshot was changed. Allow EVAL "
            "and EVALSHA for this token or user, or do this through the Redis protocol (rediss://)"
        )


def _with_ts_of(ctx: Context, intent: Intent, entry: Holding, base: Manifest | None) -> Intent | None:
    """Return the intent with the `ts` of the entry that has its id and content. None: that does not fit."""
    if not intent.is_content_of(entry) or intent.wanted.ts is not None:
        return None
    in_force = base.log.base if base else None
    if entry.base is not None and (in_force is None or entry.base != in_force.name):
        return None  # its base was never committed, or is about to be unlinked
    held = (entry.encoding, entry.base)
    if intent.began_ms == entry.ts and intent.encoder is not None and intent.encoder.adopted == held:
        return None
    wanted = intent.wanted
    encoder = intent.encoder or Encoder(ctx, wanted.dataset, wanted.payload, intent.sha256)
    taken = msgspec.structs.replace(intent, began_ms=entry.ts, encoder=encoder.adopting(held))
    return taken if taken.ts(base) == entry.ts else None


class _Comparing(Sending):
    """A send by compare-and-set."""

    _is_bound = False  # whether its members would have to be stored otherwise than an equal publish needs

    def run(self) -> Operation[Outcome | None]:
        """Take the steps of the module docstring."""
        if self._is_bound or (
            self._draft.row is not None and not (yield from self._withdraw_superseded(self._draft.row))
        ):
            return self._taken(self._wanted[-1])
        expected = self._expected()
        is_new = self._draft.row is not None and not self._staging.is_kept(self._wanted[-1])
        is_first = not self._staging.claimed(self._ts_key)
        ahead = [Ttl(self._id_key)] if is_new else []
        found, told = yield from self._written([self._look_at_manifest(), *ahead, *self._to_finish()])
        for each in found:
            if each.written:
                self._staging.keep(each.record)
            if each.written and each.record.key == self._ts_key:
                self._staging.claim(self._ts_key, each.value)
        if told[0] != expected:
            return (yield from self._moved())
        missing = yield from self._established(found, was_there=is_new and is_first and told[1] == PERMANENT)
        if missing is True and self._members:
            missing = yield from self._write_members()
        if missing is not True:
            return missing or None
        yield from self._finish_unlinked(told[1 + len(ahead) :])
        outcome = yield from self._swap()
        if isinstance(outcome, Swapped):
            yield from self._finish()
        return outcome

    # --- records -----------------------------------------------------------------------------------

    def _withdraw_superseded(self, row: Row) -> Operation[bool]:
        """Delete what this publish has written for a base that is not in force any more. False: it is there.

        Nobody else relies on it while the ts record is still the one that this publish has written.
        """
        ts_record = self._staging.superseded(self._wanted[-1], self._ts_key)
        if ts_record is None:
            return True
        record = yield from ask(self._ctx, Get(self._id_key))
        check = records.check_of(row)
        return (
            yield from delete(
                self._ctx, self._dataset, check, (self._id_key, record), (self._ts_key, ts_record)
            )
        )

    def _write(self, record: Record) -> Command[bool] | None:
        """Claim the ts record for this draft's version, even if an earlier attempt has claimed it."""
        seen = self._staging.claimed(record.key)
        if record.key == self._ts_key and seen not in {None, b"", record.data}:
            return CompareAndSet(record.key, seen, record.data)
        return super()._write(record)

    def _established(self, found: list[Found], *, was_there: bool) -> Operation[Taken | Vanished | bool]:
        """Correct what is wrong. If the id is taken, delete the ts record that was written beside it.

        Nobody else relies on it, or they would have put their own in its place; unless it replaced theirs.
        """
        ours = next((each for each in found if each.record.key == self._ts_key and each.written), None)
        # An id record without a ts record may be one that retention is unlinking.
        unclaimed = (
            was_there
            and ours is not None
            and any(each.record.key == self._id_key and each.is_whole for each in found)
        )
        is_taken = unclaimed or self._is_held_otherwise(found)
        verdict = self._taken(found[-1].record) if is_taken else (yield from self._establish(found))
        if isinstance(verdict, Taken) and ours is not None and not self._staging.is_taken_over(self._ts_key):
            yield from sent_again(self._ctx, Batch(tuple(deleting(self._ts_key, ours.record.data))))
            self._staging.lose(ours.record)
            self._staging.forget(self._ts_key)
        return verdict

    def _is_held_otherwise(self, found: list[Found]) -> bool:
        """Say whether the id record has this snapshot, but stored in another way.

        Its ts record is not claimed then: it would bind the id to this version, and `reclaim` would wait.
        """
        row = self._draft.row
        return row is not None and any(
            each.ttl == PERMANENT and not each.has_header and each.value.startswith(records.stated(row))
            for each in found
            if each.record.key == self._id_key
        )

    def _use(self, found: Found) -> Operation[Taken | list[Command[Any]]]:
        """Use what an earlier publish left, or an equal one has written, if the ts record can be claimed."""
        record, draft = found.record, self._draft
        if record.key != self._ts_key:
            return [] if (yield from is_free(self._ctx, draft)) else self._taken(record)
        if found.value == record.data:
            self._staging.claim(record.key, found.value)
            return []
        origin = records.origin_in(found.value)
        if origin is None or not (yield from is_free(self._ctx, draft)):
            return self._taken(record)
        if not origin.pending:
            if not (yield from may_adopt(self._ctx, draft)):
                return self._taken(record)
        elif origin.is_reclaimed:
            if not is_abandoned(self._ctx, origin) and (yield from self._id_is_there()):
                return self._taken(record)
        elif not is_live(origin, draft.base) and (draft.base is None or not is_spent(origin, draft.base)):
            return self._taken(record)
        # An equal publish may have written it, and may delete it again. So nobody relies on another's bytes.
        # If this succeeds, the ts record was the same all the time. So the id record is still what was found,
        # unless the ts record was a mark.
        may_swap = origin.pending and not origin.is_reclaimed and is_live(origin, draft.base)
        self._sign(origin.members if may_swap else None)
        ours = self._pending(record).data
        claiming = Batch((CompareAndSet(record.key, found.value, ours),))
        (claimed,) = map(value_of, (yield from sent_again(self._ctx, claiming)))
        if not claimed:
            self._staging.signature = None
        if not claimed or origin.is_reclaimed:
            return [Ttl(record.key)]  # look at everything again
        self._ts = ours
        self._staging.claim(record.key, ours, taken_over=True)
        return []

    def _id_is_there(self) -> Operation[bool]:
        """Say whether the id record of this draft is stored, permanently."""
        record = self._wanted[-1]
        looks: list[Command[Any]] = [Peek(record.key, len(record.header)), Ttl(record.key)]
        return list(map(value_of, (yield from ask_all(self._ctx, looks)))) == [record.header, PERMANENT]

    def _correct(self, found: Found) -> Operation[Taken | Vanished | list[Command[Any]]]:
        """Correct a record. If it is the id or the ts record, the members' attempt is over."""
        if self._members and found.record.key in {self._id_key, self._ts_key}:
            self._staging.signature = None
            if found.record.key == self._ts_key and found.ttl != PERMANENT:
                self._staging.forget(self._ts_key)
        return (yield from super()._correct(found))

    def _send_corrections(self, batch: Batch) -> Operation[list[Any]]:
        return (yield from sent_again(self._ctx, batch))

    # --- members: see `members.py` ---------------------------------------------------------------------

    def _attempt_of_members(self) -> str | None:
        if not self._members:
            return None
        known, base = self._staging.signature, self._base_of_members
        if known is None or (known.ts_key, known.base) != (self._ts_key, base):
            # An equal publish may be about to commit what carries the attempt of before.
            self._is_bound = known is not None and known.ts_key == self._ts_key and self._is_shared()
            if not self._is_bound:
                self._sign(None)
        assert self._staging.signature is not None  # noqa: S101 - it was signed now, or before
        return self._staging.signature.attempt

    @property
    def _base_of_members(self) -> str | None:
        return None if self._draft.row is None else self._draft.row.base

    def _sign(self, attempt: str | None) -> None:
        """Let members carry an attempt from now on. None: a new one."""
        if self._members:
            attempt = attempt or self._ctx.token(12)
            self._staging.signature = Signature(attempt, self._ts_key, self._base_of_members)

    def _is_shared(self) -> bool:
        """Say whether this publish has taken its ts record over, for the version of this draft."""
        claimed, row = self._staging.claimed(self._ts_key), self._draft.row
        origin = records.origin_in(claimed) if claimed else None
        is_same = origin is not None and row is not None and origin.version == row.version
        return is_same and self._staging.is_taken_over(self._ts_key)

    def _write_members(self) -> Operation[Taken | bool]:
        """Write the members, and replace what attempts have left that are over."""
        origin = records.origin_in(self._ts or b"")
        attempt = "" if origin is None else origin.members or ""
        signed = [
            msgspec.structs.replace(each, header=members.signed(each.header, attempt))
            for each in self._members
        ]
        found = yield from write_members(self._ctx, signed, self._staging, self._until)
        if found is None:
            return False
        replacing: list[Command[Any]] = []
        for each in found:
            if not is_of_attempt(each, attempt):
                replacing.append(CompareAndSet(each.record.key, each.value, each.record.data))
            elif not can_be_read(each, self._base_of_members):
                return self._taken(each.record)
        replies = yield from sent_again(self._ctx, Batch(tuple(replacing)))
        return all(map(value_of, replies))

    def _may_overwrite(self, record: Record) -> Operation[bool]:
        """Refuse: another publish may be about to commit it."""
        if record.shared:
            raise unmovable(record.key)
        yield from ()
        return False

    def _over_itself(self, key: str, value: bytes) -> Command[Any]:
        return CompareAndSet(key, value, value)

    # --- the swap, and what comes after it -----------------------------------------------------------

    def _swap(self) -> Operation[Swapped | Moved]:
        draft, cache = self._draft, self._ctx.cache
        key = draft.manifest.key
        base = draft.base.raw if draft.base else draft.over
        known, sent_at = cache.known(key), self._ctx.clock.monotonic()
        swap = Keep(key, draft.manifest.raw) if base is None else CompareAndSet(key, base, draft.manifest.raw)
        # The live view may be removed although the swap fails: it is only a cache, and its etag hides it.
        swapped, _ = yield Batch((swap, Remove(self._ctx.keys.live(self._dataset))))
        if not value_of(swapped):
            return (yield from self._moved())
        cache.learn(draft.manifest, sent_at, basis=known)
        return Swapped()

    def _to_finish(self) -> list[Get]:
        """Return reads of the ts records that this draft unlinks."""
        return [] if self._leaves_unlinked else [Get(key) for key in self._unlinked("ts")]

    @property
    def _leaves_unlinked(self) -> bool:
        """Whether what the draft unlinks stays: a publish may adopt what a repair unlinks before its TTL."""
        return bool(self._draft.grace_ms)

    def _unlinked(self, *kinds: str) -> list[str]:
        """Return the keys that the draft unlinks, of these kinds."""
        names = [self._ctx.keys.parse(key) for key in self._draft.unlinked]
        return [name.key for name in names if name is not None and name.kind in kinds]

    def _finish_unlinked(self, stored: Sequence[bytes | None]) -> Operation[None]:
        """Mark as committed what the draft unlinks, before the swap: see `adoption.py`.

        Such a record is still pending if its own commit was cut short after its swap.
        """
        commands: list[Command[Any]] = []
        epoch = self._draft.manifest.epoch
        for command, value in zip(self._to_finish(), stored, strict=True):
            final = records.committed_ts(value, epoch=epoch) if value else None
            if value and final:
                commands.append(CompareAndSet(command.key, value, final))
        if commands:
            for reply in (yield from sent_again(self._ctx, Batch(tuple(commands)))):
                value_of(reply)

    def _finish(self) -> Operation[None]:
        """Mark the ts record as committed, and expire unlinked keys. If this fails, the commit stands.

        Records without a grace go last, because they tell a second call what to search for. Then the base of
        a group's table may be gone: the members are those that the draft names.
        """
        commands: list[Command[Any]] = []
        if self._is_pending() and self._ts is not None:
            commands.append(CompareAndSet(self._ts_key, self._ts, self._final))
        at_once = self._draft.grace_ms == 0
        if not self._leaves_unlinked:
            kinds = ("page", "base") if at_once else ("page", "base", "member", "id", "ts")
            commands += [Expire(key, self._grace_ms()) for key in self._unlinked(*kinds)]
            raw = self._draft.manifest.raw
            # The last swap of a drop deletes the manifest, unless somebody has published since.
            commands += [CompareAndSet(key, raw, raw, ttl_ms=1) for key in self._unlinked("manifest")]
        try:
            for portion in requests(self._ctx, commands):
                yield Batch(portion)
            if at_once:
                going = self._unlinked("ts"), self._unlinked("member")
                yield from delete_unlinked(self._ctx, self._draft.manifest, *going)
        except SwapstoreError:
            return


class _Leasing(Sending):
    """A send under a lease. `lost`: the reply to its last command was lost, so that may still arrive."""

    def __init__(self, ctx: Context, draft: Draft, needed: list[Record], staging: Staging) -> None:
        super().__init__(ctx, draft, needed, staging)
        self._lease: Lease | None = None
        self._lost = False

    def run(self) -> Operation[Outcome | None]:
        """Take the lease, and then the steps of the module docstring."""
        record = next((each for each in self._wanted[::-1] if self._ts_key), None)
        looks: list[Command[Any]] = [self._look_at_manifest()]
        if record is not None and not self._staging.is_kept(record):
            looks += [Peek(record.key, len(record.header)), Ttl(record.key)]
        lease, looked = yield from take(self._ctx, self._draft, looks)
        self._lease, self._until = lease, lease.safe_until
        if looked[0] != self._expected():
            return (yield from self._moved())
        if record is not None and len(looked) > 1 and looked[1] and looked[2] == PERMANENT:
            is_same = looked[1] == record.header
            judging = may_adopt(self._ctx, self._draft) if is_same else self._may_overwrite(record)
            if not (yield from judging):
                return self._taken(record)
        found, _ = yield from self._written()
        missing = yield from self._establish(found)
        if missing is True and self._members:
            missing = yield from self._write_members()
        if missing is not True:
            return missing or None
        outcome = yield from self._set(lease)
        yield from self._finish(lease)
        return outcome

    def release(self) -> Operation[None]:
        """Give the lease back, unless a command that it protects may still arrive."""
        if self._lease is not None and not self._lost:
            yield from release(self._ctx, self._lease)

    # --- records -----------------------------------------------------------------------------------

    def _use(self, found: Found) -> Operation[Taken | list[Command[Any]]]:
        return [] if (yield from may_adopt(self._ctx, self._draft)) else self._taken(found.record)

    def _send_corrections(self, batch: Batch) -> Operation[list[Any]]:
        return (yield batch)

    def _may_overwrite(self, record: Record) -> Operation[bool]:
        """Say whether a permanent record with another header may be replaced: the only writer left it."""
        if record.shared:
            raise unmovable(record.key)
        return (yield from is_free(self._ctx, self._draft))

    def _over_itself(self, key: str, value: bytes) -> Command[Any]:
        return Write(key, value)

    def _write_members(self) -> Operation[Taken | bool]:
        """Write the members of a group, and replace what another publish has left."""
        found = yield from write_members(self._ctx, self._members, self._staging, self._until)
        if not found:
            return found is not None
        if not (yield from is_free(self._ctx, self._draft)):
            return self._taken(found[0].record)
        for portion in requests(self._ctx, [Write(each.record.key, each.record.data) for each in found]):
            for reply in (yield Batch(portion, until=self._until)):
                value_of(reply)
        return True

    # --- the swap, and what comes after it -----------------------------------------------------------

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
                id=draft.row.id if draft.row else None,
            )
        cache.learn(draft.manifest, sent_at, basis=known)
        return Swapped()

    def _after_loss(self, error: ReplyLost) -> Operation[Swapped]:
        """Check whether the manifest was set. If it is not there, it may still be set: `OutcomeUnknown`."""
        current = yield from ask_after_loss(self._ctx, self._draft, error)
        if isinstance((yield from resolve(self._ctx, self._draft, current, error)), Swapped):
            self._lost = True
            return Swapped()
        raise unknown(self._draft, error) from error

    def _finish(self, lease: Lease) -> Operation[None]:
        """Mark the ts record as committed, expire unlinked keys, and give the lease back.

        If this fails, the commit stands, and the lease runs out: a command may still arrive.
        """
        commands: list[Command[Any]] = [Write(self._ts_key, self._final)] if self._is_pending() else []
        commands += [Expire(key, self._grace_ms()) for key in self._draft.unlinked]
        if not self._lost and self._ctx.clock.monotonic() < lease.safe_until:
            commands.append(Remove(lease.key))
        try:
            for portion in requests(self._ctx, commands):
                yield Batch(portion, until=self._until)
        except SwapstoreError:
            return
