"""One send of a draft without scripts: what both committers do with its records, in the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from swapstore.commands import ABSENT, PERMANENT, Command, Drop, Get, Keep, Peek, Ttl, Write
from swapstore.format import manifest, records
from swapstore.protocol.commit import Moved, Record, Taken, Vanished
from swapstore.protocol.datasets import note_listed, unlisted
from swapstore.protocol.load import ask_all, load_manifest, value_of
from swapstore.protocol.operation import Batch, Operation
from swapstore.protocol.scriptless.resend import sent_again
from swapstore.structs import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.format.append import Draft
    from swapstore.protocol.commit import Staging
    from swapstore.protocol.context import Context


class Found(Struct, frozen=True):
    """What is stored under a record's key, after the attempt to write the record.

    `value` begins with the stored header line; of a ts record it is all. `written`: this attempt wrote it.
    """

    record: Record
    value: bytes
    ttl: int
    written: bool

    @property
    def has_header(self) -> bool:
        """Whether it has the header that the record should have."""
        return self.value.startswith(self.record.header)

    @property
    def is_whole(self) -> bool:
        """Whether a manifest may name it."""
        return self.ttl == PERMANENT and self.has_header


class Sending:
    """One send of a draft: what both committers do in the same way."""

    _until: float | None = None

    def __init__(self, ctx: Context, draft: Draft, needed: list[Record], staging: Staging) -> None:
        self._ctx = ctx
        self._draft = draft
        self._staging = staging
        self._dataset = draft.manifest.head.dataset
        row = draft.row
        self._id_key, self._ts_key = ctx.keys.records(self._dataset, row) if row else ("", "")
        self._ts: bytes | None = None  # the ts record, as it is stored before the swap
        self._final = next((record.data for record in needed if record.key == self._ts_key), b"")
        beginning = ctx.keys.members(self._dataset)
        self._members = [each for each in needed if each.key.startswith(beginning) and not each.stored]
        apart = {each.key for each in self._members}
        needed = [each for each in needed if each.key not in apart]
        # The id record, which is the first, is written last. Where it is, the ts record with the origin is
        # too.
        self._wanted = [self._pending(each) if each.key == self._ts_key else each for each in needed][::-1]

    def _pending(self, record: Record) -> Record:
        """Return a ts record which says that its commit is not over."""
        row = self._draft.row
        assert row is not None  # noqa: S101 - only a row has a ts record
        self._staging.mark = self._staging.mark or self._ctx.token(12)
        header, rest = records.pending_ts(
            row, self._draft.manifest.epoch, self._staging.mark, members=self._attempt_of_members()
        )
        return msgspec.structs.replace(record, header=header, body=rest)

    def _attempt_of_members(self) -> str | None:
        """Return the attempt that the members of this draft carry."""
        return None

    def _expected(self) -> bytes:
        """Return the first bytes of the manifest that the draft replaces."""
        draft = self._draft
        if draft.over is not None:
            return draft.over
        return b"" if draft.base is None else manifest.prefix(draft.base.etag)

    def _look_at_manifest(self) -> Peek:
        return Peek(self._draft.manifest.key, max(len(self._expected()), 1))

    def _moved(self) -> Operation[Moved]:
        return Moved((yield from load_manifest(self._ctx, self._dataset)))

    # --- records -----------------------------------------------------------------------------------

    def _write(self, record: Record) -> Command[bool] | None:
        """Return the command that writes a record if its key is free. None: it is there already."""
        if record.stored or self._staging.is_kept(record):
            return None
        return Keep(record.key, record.data)

    def _written(self, around: Sequence[Command[Any]] = ()) -> Operation[tuple[list[Found], list[Any]]]:
        """Write records. Return what is stored under each key after that, and the replies to `around`.

        Only what this did not write is read back. `around` is sent in the same request, before the records.
        """
        names = unlisted(self._ctx, self._draft)
        writes = {record.key: command for record in self._wanted if (command := self._write(record))}
        looks = self._looks([record for record in self._wanted if record.key not in writes])
        if not (writes or looks or around):
            return [], []
        batch = Batch((*names, *around, *writes.values(), *looks), until=self._until)
        replies = yield from sent_again(self._ctx, batch)
        note_listed(self._ctx, self._dataset, replies[: len(names)])
        answers = [value_of(reply) for reply in replies[len(names) :]]
        told, answers = answers[: len(around)], answers[len(around) :]
        written = {key for key, answer in zip(writes, answers, strict=False) if answer}
        seen = answers[len(writes) :]
        unwritten = [record for record in self._wanted if record.key in writes and record.key not in written]
        if unwritten:
            again = yield from ask_all(self._ctx, self._looks(unwritten))
            seen = [*seen, *map(value_of, again)]
        looked = [record for record in self._wanted if record.key not in writes] + unwritten
        there = dict(
            zip((record.key for record in looked), zip(seen[::2], seen[1::2], strict=True), strict=True)
        )
        found = []
        for record in self._wanted:
            value, ttl = there.get(record.key, (record.data, PERMANENT))
            found.append(Found(record, value or b"", ttl, record.key in written))
        return found, told

    def _looks(self, wanted: Sequence[Record]) -> list[Command[Any]]:
        looks: list[Command[Any]] = []
        for record in wanted:
            is_ts = record.key == self._ts_key
            looks += [Get(record.key) if is_ts else Peek(record.key, len(record.header)), Ttl(record.key)]
        return looks

    def _establish(self, found: list[Found]) -> Operation[Taken | Vanished | bool]:
        """Correct what is wrong with the records. True: each is there, permanent, with its header."""
        corrections: list[Command[Any]] = []
        complete = True
        wrong: Taken | Vanished | list[Command[Any]]
        for each in found:
            record = each.record
            if record.key == self._ts_key:
                self._ts = each.value
            if each.is_whole:
                given = each.written or record.shared or record.stored
                wrong = [] if given else (yield from self._use(each))
                if not record.stored:
                    self._staging.keep(record)
            else:
                complete = False
                self._staging.lose(record)
                wrong = yield from self._correct(each)
            if isinstance(wrong, Taken | Vanished):
                return wrong
            complete = complete and not wrong
            corrections += wrong
        if corrections:
            for reply in (yield from self._send_corrections(Batch(tuple(corrections), until=self._until))):
                value_of(reply)
        return complete

    def _correct(self, found: Found) -> Operation[Taken | Vanished | list[Command[Any]]]:
        """Return what corrects a record that is not there, not permanent, or another one."""
        record = found.record
        # A base that has a TTL may have been unlinked just now, so a publish does not make it permanent.
        if record.stored and not (found.has_header and self._draft.row is None):
            return Vanished(record.key)
        if found.ttl == PERMANENT and found.value:
            if not (yield from self._may_overwrite(record)):
                return self._taken(record)
            return [Write(record.key, record.data)]
        if record.stored:
            return (yield from self._made_permanent(record))
        # One with a TTL was staged by a script, or unlinked.
        return [Drop(record.key)] if found.ttl not in {ABSENT, PERMANENT} else []

    def _use(self, found: Found) -> Operation[Taken | list[Command[Any]]]:
        """Say whether the draft may use a record that it did not write, and what must be corrected first."""
        raise NotImplementedError

    def _send_corrections(self, batch: Batch) -> Operation[list[Any]]:
        raise NotImplementedError

    def _taken(self, record: Record) -> Taken:
        """Return `Taken` for the draft's id, whichever of its records is in the way."""
        return Taken(self._id_key or record.key)

    def _may_overwrite(self, record: Record) -> Operation[bool]:
        """Say whether a permanent record with another header may be replaced."""
        raise NotImplementedError

    def _made_permanent(self, record: Record) -> Operation[list[Command[Any]]]:
        """Return the command that writes a record over itself, which removes its TTL."""
        (reply,) = yield from ask_all(self._ctx, [Get(record.key)])
        value = value_of(reply)
        return [] if value is None else [self._over_itself(record.key, value)]

    def _over_itself(self, key: str, value: bytes) -> Command[Any]:
        raise NotImplementedError

    # --- after the swap ----------------------------------------------------------------------------

    def _grace_ms(self) -> int:
        given = self._draft.grace_ms
        return self._ctx.policy.reader_grace_ms if given is None else given

    def _is_pending(self) -> bool:
        """Whether the ts record still says that the commit is not over."""
        return self._ts is not None and bool(self._final) and self._ts != self._final
