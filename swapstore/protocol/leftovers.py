"""Permanent records under an id that no version names, as a publish that was cut short leaves them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swapstore.commands import PERMANENT, Command, Get, Ttl
from swapstore.errors import Contended, Corrupt
from swapstore.format import records
from swapstore.protocol.load import ask, ask_all, value_of

if TYPE_CHECKING:
    from swapstore.format.records import Holding, Origin
    from swapstore.models import Entry
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation


def permanent_entry(ctx: Context, key: str) -> Operation[Holding | None]:
    """Read the entry of a permanent id record. None: it is not there, has a TTL, or is damaged."""
    both: list[Command[Any]] = [Get(key), Ttl(key)]
    record, ttl = map(value_of, (yield from ask_all(ctx, both)))
    return entry_in(record, key) if ttl == PERMANENT else None


def entry_in(record: bytes | None, key: str) -> Holding | None:
    """Return the entry of an id record. None: there is no record, or it is damaged."""
    try:
        return None if record is None else records.holding_of(record, key)
    except Corrupt:
        return None


def read_origin(ctx: Context, dataset: str, entry: Entry) -> Operation[Origin | None]:
    """Read the origin of an entry from its ts record. None: there is none, or it cannot be read."""
    key = ctx.keys.ts(dataset, entry.ts, entry.id)
    record = yield from ask(ctx, Get(key))
    return None if record is None else records.origin_in(record)


def bound_elsewhere(key: str, entry: Entry | None) -> Contended:
    """Build the error for an id under which another publish has left permanent records."""
    when = f" of ts {entry.ts}" if entry else ""
    return Contended(
        f"{key} holds a snapshot{when} that no version names: another publish of this id is under way or was "
        "cut short, or the id is being unlinked. Nothing was published; publish the same content with that "
        "`ts`, or publish under another id, and see `swapstore verify`"
    )


def unmovable(key: str) -> Corrupt:
    """Build the error for a permanent record that no commit of this library would have left under a key."""
    return Corrupt(
        f"{key} is permanent and holds something else than what belongs there: a damaged or restored store "
        "left it. Nothing was published, and nothing can be until that key is removed",
        key=key,
    )
