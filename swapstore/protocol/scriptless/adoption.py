"""Records that no version names: which publish may use them, and how they are deleted.

Where a commit takes several commands, a publish that loses the race or is cut short leaves permanent records.
A publish of the same id, `ts` and content uses them. Any other publish of the id, and a repair, deletes them
first. Nothing but the swap is conditional on the manifest, so the ts record decides between those who use and
those who delete, by compare-and-set:

- its origin names the version that its publish is for. Before a publish on version n swaps, the origin must
  say n+1. So once version n+1 is stored, nobody relies on the records any more: they are **spent**. A publish
  that wants them writes its own version into the origin first;
- no publish relies on a ts record that another has written: it puts its own in the place, which no other
  equals. So a publish that finds its id taken can take back the ts record that it has just written;
- to delete spent records, the origin is replaced by a mark that names no version. From then on no publish
  uses them. Then the id record is replaced by compare-and-set, and after that the ts record is deleted.

So a deletion that arrives late meets other bytes and changes nothing. There is one exception: the same bytes
may be published again after they were deleted. Therefore only the client that wrote the mark deletes, once,
and removes the mark only after the reply. If that client dies, its mark keeps the id from being published
with that very `ts` and content until the mark is as old as a crashed publish's records may become.

A base has no ts record and needs none: the commit of the version in its name brings it, and no other. Once
that version is stored, no publish can come to rely on the base, unless it is in force or a row names it.

A ts record that is not pending shows that its snapshot was committed, and perhaps unlinked since. The command
that gives such records a TTL may still be under way, so nobody uses or deletes them. For this, the committer
makes sure that no ts record is pending when its row is unlinked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swapstore.commands import PERMANENT, Command, CompareAndSet, Drop, Expire, Get, Peek, Ttl
from swapstore.errors import ReplyLost
from swapstore.format import records
from swapstore.format.append import repoint
from swapstore.format.keys import base_version
from swapstore.protocol.commit import Staging, commit
from swapstore.protocol.leftovers import entry_in, read_origin
from swapstore.protocol.load import ask, ask_all, find_id, is_base_named, load_manifest, value_of
from swapstore.protocol.operation import Batch, Operation
from swapstore.protocol.scriptless.members import delete_members, delete_unused
from swapstore.structs import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.format.append import Draft
    from swapstore.format.keys import Name
    from swapstore.format.manifest import Manifest
    from swapstore.format.records import Origin
    from swapstore.models import Entry, Row
    from swapstore.protocol.context import Context

ATTEMPTS = 3  # how often a deletion looks again, after another version was committed


def is_free(ctx: Context, draft: Draft) -> Operation[bool]:
    """Say whether the id that a draft publishes is free: no row of the base names it, hidden or not."""
    if draft.base is None or draft.row is None:
        return True
    return (yield from find_id(ctx, draft.base, draft.row.id, hidden=True)) is None


def may_adopt(ctx: Context, draft: Draft) -> Operation[bool]:
    """Say whether this draft may use permanent records of the same id, `ts` and content.

    The ts record says for which version they were written. Their row was never in this log if that version is
    of another epoch, or later than the base. If the log would still show that version and `ts`, the row was
    not unlinked. Otherwise the command that gives the records a TTL may still be under way.
    """
    if not (yield from is_free(ctx, draft)):
        return False
    if draft.base is None or draft.row is None:
        return True
    head = draft.base.head
    origin = yield from read_origin(ctx, head.dataset, draft.row)
    if origin is None:
        return False
    if origin.version in draft.base.log.erased:
        return False
    is_other_line = origin.epoch != draft.base.epoch or origin.version > head.version
    return is_other_line or (origin.version >= head.first_version and draft.row.ts >= head.floor)


def is_spent(origin: Origin, base: Manifest) -> bool:
    """Say whether no publish that relies on this origin can swap any more, now that `base` is stored."""
    return origin.epoch != base.epoch or origin.version <= base.version


def is_live(origin: Origin, base: Manifest | None) -> bool:
    """Say whether a publish on `base` may rely on this origin."""
    if base is None:  # each publish of a first version draws an epoch of its own
        return True
    return (origin.epoch, origin.version) == (base.epoch, base.version + 1)


def is_abandoned(ctx: Context, origin: Origin) -> bool:
    """Say whether the client that wrote this origin has died, as far as clocks tell."""
    return ctx.clock.now_ms() - origin.committed_at >= ctx.policy.staging_ttl_ms


def deleting(key: str, data: bytes) -> list[Command[Any]]:
    """Return the commands that delete a key if its value is `data`, whenever they arrive.

    What is there between the two looks like no record, so that nobody takes it for one.
    """
    return [CompareAndSet(key, data, records.DELETED, ttl_ms=1), Drop(key)]


class Left(Struct, frozen=True):
    """What a publish has left, as either of its records tells: id, `ts`, and the check of its entry."""

    id: str
    ts: int
    check: str

    @classmethod
    def by(cls, entry: Entry) -> Left:
        """What is left of an entry."""
        return cls(entry.id, entry.ts, records.check_of(entry))

    def is_in(self, record: bytes, key: str) -> bool:
        """Say whether an id record states the entry."""
        entry = entry_in(record, key)
        return entry is not None and Left.by(entry) == self


def reclaim(ctx: Context, dataset: str, left: Left, *, apply: bool = True) -> Operation[bool]:
    """Delete the permanent records of an entry that no version names, or that are of another `ts`.

    If a version names them, an equal publish that claimed the ts record may have left it pending: that ends.

    Returns whether its id record is not permanent any more (without `apply`: whether it can be deleted). A
    publish in flight may rely on records of the very next version. They are left until they are old. Then
    the manifest is swapped first, without a change, so that such a publish would have to look again.
    """
    id_key, ts_key = ctx.keys.id(dataset, left.id), ctx.keys.ts(dataset, left.ts, left.id)
    looks: list[Command[Any]] = [Get(id_key), Ttl(id_key), Get(ts_key), Ttl(ts_key)]
    for _ in range(ATTEMPTS):
        # First the manifest, then the records: a ts record that is pending now was so when it was read.
        base = yield from load_manifest(ctx, dataset)
        if base is None:
            return False
        row = yield from find_id(ctx, base, left.id, hidden=True)
        if row is not None and row.ts == left.ts:
            yield from _state_commit(ctx, base, row, ts_key)
            return False
        record, ttl, ts_record, ts_ttl = map(value_of, (yield from ask_all(ctx, looks)))
        if record is not None and not left.is_in(record, id_key):
            record = None  # the id record is that of another publish
        origin = _pending_in(ts_record, ts_ttl)
        if origin is None:
            return record is None or ttl != PERMANENT
        if not origin.is_reclaimed and is_live(origin, base):
            if not is_abandoned(ctx, origin):
                return False
            if not apply:
                return True
            yield from commit(ctx, repoint(base, stamp=ctx.stamp()), [], Staging())
        elif origin.is_reclaimed and record is not None and not is_abandoned(ctx, origin):
            return False
        elif origin.is_reclaimed or is_spent(origin, base):
            return not apply or (
                yield from delete(ctx, dataset, left.check, (id_key, record), (ts_key, ts_record))
            )
        else:
            return False
    return False


def _state_commit(ctx: Context, base: Manifest, row: Row, ts_key: str) -> Operation[None]:
    """Write to the ts record of a committed row that it is not pending."""
    stored = yield from ask(ctx, Get(ts_key))
    if stored is not None and records.committed_ts(stored) is not None:
        yield from ask_all(ctx, [CompareAndSet(ts_key, stored, records.pack_ts(row, base.epoch))])


def _pending_in(ts_record: bytes | None, ttl: int) -> Origin | None:
    """Return the origin in a permanent ts record if it is pending. None: it is not, or not there."""
    if ts_record is None or ttl != PERMANENT:
        return None
    origin = records.origin_in(ts_record)
    return origin if origin is not None and origin.pending else None


def delete(
    ctx: Context, dataset: str, check: str, by_id: tuple[str, bytes | None], by_ts: tuple[str, bytes]
) -> Operation[bool]:
    """Mark a ts record, delete members and the id record, then the ts record. Returns whether both are gone.

    If the reply to the second step is lost, the mark stays: that command may still arrive. `check`: that of
    their entry, which the mark states too.
    """
    (id_key, record), (ts_key, ts_record) = by_id, by_ts
    mark = records.reclaimed_ts(check, ctx.token(12), ctx.clock.now_ms())
    try:
        (reply,) = yield Batch((CompareAndSet(ts_key, ts_record, mark),))
        marked = value_of(reply)
    except ReplyLost:
        marked = (yield from ask(ctx, Get(ts_key))) == mark
    if not marked:
        return False
    if record is not None:
        yield from delete_members(ctx, dataset, id_key, record)
        try:
            reply, _ = yield Batch(tuple(deleting(id_key, record)))
            value_of(reply)
        except ReplyLost:
            header = record.partition(b"\n")[0] + b"\n"
            if (yield from ask(ctx, Peek(id_key, len(header)))) == header:
                return False
    try:
        yield Batch(tuple(deleting(ts_key, mark)))
    except ReplyLost:
        return True  # without the id record, the mark binds nothing
    return True


def delete_unlinked(
    ctx: Context, current: Manifest, ts_keys: Sequence[str], members: Sequence[str]
) -> Operation[None]:
    """Delete the records of these ts records, which no row names any more, and which leave without a grace.

    `members`: the keys of members that leave too. Their tables may be gone or unreadable by then.

    A `PEXPIRE` would not do: one that arrives late could hit what is published under the id after a second.
    Left is what another client is deleting, and what a publish on `current` may rely on.
    """
    dataset = current.head.dataset
    for ts_key in ts_keys:
        name, ts_record = ctx.keys.parse(ts_key), (yield from ask(ctx, Get(ts_key)))
        origin = None if ts_record is None else records.origin_in(ts_record)
        if name is None or origin is None or ts_record is None:
            continue
        if origin.is_reclaimed and not is_abandoned(ctx, origin):
            continue
        if origin.pending and not origin.is_reclaimed and is_live(origin, current):
            continue
        left = Left(name.id, name.ts, origin.entry)
        id_key = ctx.keys.id(dataset, left.id)
        record = yield from ask(ctx, Get(id_key))
        own = record if record is not None and left.is_in(record, id_key) else None
        yield from delete(ctx, dataset, left.check, (id_key, own), (ts_key, ts_record))
    for id, keys in _by_id(ctx, members).items():  # noqa: A001
        yield from delete_unused(ctx, dataset, id, keys)


def _by_id(ctx: Context, keys: Sequence[str]) -> dict[str, list[str]]:
    """Return the keys of members, by the ids of their groups."""
    found: dict[str, list[str]] = {}
    for key in keys:
        name = ctx.keys.parse(key)
        if name is not None and name.kind == "member":
            found.setdefault(name.id, []).append(key)
    return found


def reclaim_leaked(ctx: Context, dataset: str, leaked: Sequence[str], *, apply: bool) -> Operation[bool]:
    """Delete those of some leaked keys that a publish without scripts has left. Returns whether any was."""
    done: set[str] = set()
    found = yield from _expire_bases(ctx, dataset, leaked, apply=apply)
    for key in leaked:
        name = ctx.keys.parse(key)
        if name is None or name.kind not in {"id", "ts"}:
            continue
        left = _left(name, (yield from ask(ctx, Get(key))))
        ts_key = "" if left is None else ctx.keys.ts(dataset, left.ts, left.id)
        if left is None or ts_key in done:
            continue
        done.add(ts_key)
        both: list[Command[Any]] = [Get(ts_key), Ttl(ts_key)]
        ts_record, ttl = map(value_of, (yield from ask_all(ctx, both)))
        if _pending_in(ts_record, ttl) is not None:
            found |= yield from reclaim(ctx, dataset, left, apply=apply)
    for id, keys in _by_id(ctx, leaked).items():  # noqa: A001
        found |= yield from delete_unused(ctx, dataset, id, keys, apply=apply)
    return found


def _left(name: Name, record: bytes | None) -> Left | None:
    """Return what an id record or a ts record tells. None: there is none, or it cannot be parsed."""
    if name.kind == "id":
        entry = entry_in(record, name.key)
        return None if entry is None else Left.by(entry)
    origin = None if record is None else records.origin_in(record)
    return None if origin is None else Left(name.id, name.ts, origin.entry)


def _expire_bases(ctx: Context, dataset: str, leaked: Sequence[str], *, apply: bool) -> Operation[bool]:
    """Give a TTL to those of some keys that are bases which nothing can need. Returns whether any is.

    A publish in flight may be about to bring a base of the very next version. `apply`: such a base is left.
    """
    names = [name for key in leaked if (name := ctx.keys.parse(key)) is not None and name.kind == "base"]
    current = (yield from load_manifest(ctx, dataset)) if names else None
    if current is None:
        return False
    spent = [name for name in names if base_version(name.rest) <= current.version + (not apply)]
    expiring: list[Command[Any]] = []
    for name in spent:
        if (yield from is_base_named(ctx, current, name.rest)):
            continue
        expiring.append(Expire(name.key, ctx.policy.reader_grace_ms))
    if apply:
        for reply in (yield from ask_all(ctx, expiring)):
            value_of(reply)
    return bool(expiring)
