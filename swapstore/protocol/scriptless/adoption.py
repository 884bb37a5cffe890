"""Records that are permanent although no manifest names them, and whether a publish may use them.

Where a commit takes several commands, one that was cut leaves such records. Whoever publishes the same id,
time and content again finds them, and may use them unless they are being let go of: that would take them
away once they are committed again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from swapstore.commands import PERMANENT, Command, Get, Ttl
from swapstore.errors import Contended, Corrupt
from swapstore.format import records
from swapstore.protocol.load import ask, ask_all, find_id, value_of
from swapstore.protocol.operation import Operation
from swapstore.protocol.scriptless.probe import Way

if TYPE_CHECKING:
    from swapstore.format.append import Draft
    from swapstore.format.manifest import Manifest
    from swapstore.format.records import Origin
    from swapstore.models import Entry
    from swapstore.protocol.commit import Staging
    from swapstore.protocol.context import Context
    from swapstore.protocol.publish import Intent


def is_free(ctx: Context, draft: Draft) -> Operation[bool]:
    """Say whether no row of the base, hidden or not, names the id that a draft publishes."""
    if draft.base is None or draft.row is None:
        return True
    return (yield from find_id(ctx, draft.base, draft.row.id, hidden=True)) is None


def may_adopt(ctx: Context, draft: Draft) -> Operation[bool]:
    """Say whether permanent records of the same id, time and content may be used by this draft.

    A record that was in the log once may have its TTL on the way. What the log does not hide it has not let
    go of; for which version a record was written is in the ts record.
    """
    if not (yield from is_free(ctx, draft)):
        return False
    if draft.base is None or draft.row is None:
        return True
    head = draft.base.head
    origin = yield from _origin(ctx, head.dataset, draft.row)
    if origin is None:
        return False
    is_other_line = origin.epoch != draft.base.epoch or origin.version > head.version
    return is_other_line or (origin.version >= head.first_version and draft.row.ts >= head.floor)


def left_behind(ctx: Context, this: Intent, base: Manifest | None) -> Operation[Intent]:
    """Return the publish that goes on with what a cut one of the same id and content left behind.

    Raises `Contended` where nothing fits: the id is bound to what is there.
    """
    key = ctx.keys.id(this.wanted.dataset, this.id)
    both: list[Command[Any]] = [Get(key), Ttl(key)]
    record, ttl = map(value_of, (yield from ask_all(ctx, both)))
    entry = _entry(record, key) if ttl == PERMANENT else None
    is_usable = not ctx.strategy.scripted and this.wanted.ts is None
    if entry is not None and this.is_content_of(entry) and is_usable:
        taken = attrs.evolve(this, began_ms=entry.ts, encoding=entry.encoding)
        if taken != this and taken.ts(base) == entry.ts:
            return taken
    when = f" of ts {entry.ts}" if entry else ""
    raise Contended(
        f"{key} holds a snapshot{when} that no version names: another publish of this id is under way or was "
        "cut, or the id is being let go of. Nothing was published; publish what is there with that `ts`, or "
        "publish under another id, and see `swapstore verify`"
    )


def is_pending(ctx: Context, this: Intent) -> Operation[bool]:
    """Say whether what is under an id was written where no script runs, and not committed."""
    key = ctx.keys.id(this.wanted.dataset, this.id)
    entry = _entry((yield from ask(ctx, Get(key))), key)
    if entry is None:
        return False
    origin = yield from _origin(ctx, this.wanted.dataset, entry)
    return origin is not None and origin.pending


def _entry(record: bytes | None, key: str) -> Entry | None:
    """The entry of a record, if it is one."""
    try:
        return None if record is None else records.entry_of(record, key)
    except Corrupt:
        return None


def _origin(ctx: Context, dataset: str, entry: Entry) -> Operation[Origin | None]:
    """What the ts record of an entry was written for, as far as it tells."""
    key = ctx.keys.ts(dataset, entry.ts, entry.id)
    record = yield from ask(ctx, Get(key))
    try:
        return records.read_ts(record, key)[1] if record else None
    except Corrupt:
        return None


def with_own_id(ctx: Context, this: Intent, base: Manifest | None, staging: Staging) -> Intent:
    """Choose another id where this one's record is there for good, with a `ts` that had to move up since.

    Only a compare-and-set without scripts leaves such a record; see `plain`.
    """
    if ctx.strategy.way is not Way.COMPARE:
        return this
    key = ctx.keys.id(this.wanted.dataset, this.id)
    if not staging.holds_another(key, records.entry_header(this.entry(base))):
        return this
    if this.wanted.id is None:
        return attrs.evolve(this, id=ctx.new_id())
    raise Contended(
        f"another producer committed a later snapshot first, and id {this.id!r} is bound to an earlier time: "
        "this endpoint runs no scripts. Nothing was published; publish under another id, or give `ts` too"
    )
