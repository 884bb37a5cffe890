"""The members of a group where no script runs: which publish may rely on them, and how they are deleted.

The key of a member follows from the id of its group and the digest of its table. So publishes of the same
content under one id write under the same keys, stored against different bases perhaps. By compare-and-set,
three rules keep them apart; `adoption.py` has those for the id record and the ts record.

- A member carries the **attempt** that has written it, and the pending ts record says which attempt its
  members carry. A publish writes members only after it has seen its own ts record, and the id record, in
  place. It relies on members of the attempt in its ts record, and on no others.
- An attempt serves one ts record and one base. A publish that takes the ts record over from an equal one that
  may still swap goes on with that one's attempt. In each other case it begins another. So the members of one
  attempt have the same bytes as long as anybody may commit them, and these bytes never come back later.
- So an attempt is **over** if a client sees a member of it, and *after that* sees that the id record is not
  there or is that of another snapshot, or that its ts record names another attempt: the id record is deleted
  only after its ts record has been replaced by a mark.

Only members of an attempt that is over are replaced or deleted, by compare-and-set with all of their bytes.
Such a command may arrive as late as it likes: nobody relies on these bytes.

Under a lease members carry no attempt. The only writer replaces what another has left.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from swapstore.commands import PERMANENT, Command, CompareAndSet, Drop, Get, Keep, Peek, Ttl
from swapstore.errors import Corrupt, Damaged, ReplyLost
from swapstore.format import members, records
from swapstore.format.keys import group_name
from swapstore.models import GROUP
from swapstore.protocol.leftovers import entry_in
from swapstore.protocol.load import ask_all, find_id, load_base, load_manifest, value_of
from swapstore.protocol.members import load_table
from swapstore.protocol.operation import Batch, Operation
from swapstore.protocol.scriptless.resend import requests, sent_again
from swapstore.structs import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.models import Entry
    from swapstore.protocol.commit import Record, Staging
    from swapstore.protocol.context import Context

AT_ONCE = 100  # members that are read in one request before they are replaced or deleted


class Signature(Struct, frozen=True):
    """The attempt that members carry, as long as they are for this ts record and stored against this base."""

    attempt: str
    ts_key: str
    base: str | None


# --- write -----------------------------------------------------------------------------------------


class InTheWay(Struct, frozen=True):
    """What is stored under the key of a member instead of the record that should be there."""

    record: Record
    value: bytes
    ttl: int


def write_members(
    ctx: Context, wanted: Sequence[Record], staging: Staging, until: float | None
) -> Operation[list[InTheWay] | None]:
    """Write members whose keys are free. Return what is under the keys of the others, unless it is the same.

    None: what was there is gone by now, so look again.
    """
    writes = [record for record in wanted if not staging.is_kept(record)]
    looked = [record for record in wanted if staging.is_kept(record)]
    commands: list[Command[Any]] = [Keep(record.key, record.data) for record in writes]
    replies = yield from sent_again(ctx, Batch((*commands, *_looks(looked)), until=until))
    answers = list(map(value_of, replies))
    unwritten = [record for record, written in zip(writes, answers, strict=False) if not written]
    seen = answers[len(writes) :]
    seen += map(value_of, (yield from ask_all(ctx, _looks(unwritten))))
    wrong: list[Record] = []
    for record, header, ttl in zip((*looked, *unwritten), seen[::2], seen[1::2], strict=True):
        if header != record.header or ttl != PERMANENT:
            wrong.append(record)
    for record in wanted:
        staging.keep(record)
    for record in wrong:
        staging.lose(record)
    return (yield from _in_the_way(ctx, wrong))


def _looks(wanted: Sequence[Record]) -> list[Command[Any]]:
    return [look for each in wanted for look in (Peek(each.key, len(each.header)), Ttl(each.key))]


def _in_the_way(ctx: Context, wrong: Sequence[Record]) -> Operation[list[InTheWay] | None]:
    found: list[InTheWay] = []
    for start in range(0, len(wrong), AT_ONCE):
        some = wrong[start : start + AT_ONCE]
        looks: list[Command[Any]] = [look for each in some for look in (Get(each.key), Ttl(each.key))]
        seen = list(map(value_of, (yield from ask_all(ctx, looks))))
        found += map(InTheWay, some, seen[::2], seen[1::2])
    return None if any(each.value is None for each in found) else found


def is_of_attempt(each: InTheWay, attempt: str) -> bool:
    """Say whether a member in the way was written by this attempt, or by an equal publish for it."""
    try:
        return members.parse_member(each.value, each.record.key).attempt == attempt
    except Corrupt:
        return False


def can_be_read(each: InTheWay, base: str | None) -> bool:
    """Say whether a member of the same attempt can be read if the row of its group names this base."""
    return each.ttl == PERMANENT and members.parse_member(each.value, each.record.key).base in {None, base}


# --- delete ----------------------------------------------------------------------------------------


def delete_members(ctx: Context, dataset: str, key: str, record: bytes) -> Operation[None]:
    """Delete the members of a group whose ts record was replaced by a mark. `record`: its id record.

    If its table cannot be read, they stay, as do those whose deletion is lost: verify finds them.
    """
    entry = entry_in(record, key)
    if entry is None or entry.codec != GROUP:
        return
    with suppress(Damaged):
        held = records.held_as(record, key)
        base = None if held.base is None else (yield from load_base(ctx, dataset, held.base))
        listed = members.parse_table(held.payload(base), key)
        group = group_name(entry.id, entry.sha256)
        keys = [ctx.keys.member(dataset, group, name) for name in listed]
        yield from delete_unused(ctx, dataset, entry.id, keys)


def delete_unused(
    ctx: Context,
    dataset: str,
    id: str,  # noqa: A002
    keys: Sequence[str],
    *,
    apply: bool = True,
) -> Operation[bool]:
    """Delete those of some members of an id that no publish can rely on. Returns whether there are any."""
    found = False
    for start in range(0, len(keys), AT_ONCE):
        some = keys[start : start + AT_ONCE]
        # First the members, then the records that tell whether their attempts are over.
        looks: list[Command[Any]] = [look for key in some for look in (Get(key), Ttl(key))]
        seen = list(map(value_of, (yield from ask_all(ctx, looks))))
        stored = {
            key: value
            for key, value, ttl in zip(some, seen[::2], seen[1::2], strict=True)
            if value is not None and ttl == PERMANENT
        }
        unused = (yield from _unused(ctx, dataset, id, stored)) if stored else []
        found = found or bool(unused)
        if apply and unused:
            yield from _delete(ctx, {key: stored[key] for key in unused})
    return found


def _unused(ctx: Context, dataset: str, id: str, stored: dict[str, bytes]) -> Operation[list[str]]:  # noqa: A002
    """Return the keys of members, seen before this, that no publish and no version can rely on."""
    id_key = ctx.keys.id(dataset, id)
    looks: list[Command[Any]] = [Get(id_key), Ttl(id_key)]
    record, ttl = map(value_of, (yield from ask_all(ctx, looks)))
    if record is None:
        return list(stored)
    entry = entry_in(record, id_key)
    if entry is None or ttl != PERMANENT:
        return []  # damaged, or about to be unlinked together with its members
    ts_key = ctx.keys.ts(dataset, entry.ts, id)
    (reply,) = yield from ask_all(ctx, [Get(ts_key)])
    ts_record = value_of(reply)
    origin = records.origin_in(ts_record) if ts_record and records.states_ts(ts_record, entry) else None
    if origin is None:
        return []
    if not origin.pending:
        return (yield from _unlisted(ctx, dataset, entry, stored))
    if not origin.is_reclaimed and origin.members is None and entry.codec == GROUP:
        return []  # a publish under a lease
    alive = None if origin.is_reclaimed else origin.members
    return [key for key, value in stored.items() if alive is None or _attempt_of(value, key) != alive]


def _unlisted(ctx: Context, dataset: str, entry: Entry, stored: dict[str, bytes]) -> Operation[list[str]]:
    """Return those of some keys that do not belong to the committed snapshot of an entry."""
    current = yield from load_manifest(ctx, dataset)
    row = None if current is None else (yield from find_id(ctx, current, entry.id, hidden=True))
    if current is None or row is None or row.ts != entry.ts:
        return []  # its members are being unlinked
    try:
        listed = (yield from load_table(ctx, current, row)) if row.is_group else {}
    except Damaged:
        return []
    used = {ctx.keys.member(dataset, group_name(row.id, row.sha256), name) for name in listed}
    return [key for key in stored if key not in used]


def _attempt_of(value: bytes, key: str) -> str | None:
    try:
        return members.parse_member(value, key).attempt
    except Corrupt:
        return None


def _delete(ctx: Context, unused: dict[str, bytes]) -> Operation[None]:
    commands: list[Command[Any]] = []
    for key, value in unused.items():
        commands += [CompareAndSet(key, value, records.DELETED, ttl_ms=1), Drop(key)]
    for portion in requests(ctx, commands):
        with suppress(ReplyLost):
            for reply in (yield Batch(portion)):
                value_of(reply)
