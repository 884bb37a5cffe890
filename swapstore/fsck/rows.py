"""Rows and their records: what is wrong with them, read in batches of bounded size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from swapstore.commands import PERMANENT, Command, Failed, Get, Ttl
from swapstore.errors import Corrupt, Damaged, UnsupportedFormat
from swapstore.format import records
from swapstore.format.keys import check_base
from swapstore.format.records import Held
from swapstore.fsck.bases import KEPT, undecodable
from swapstore.fsck.findings import Finding, Problem
from swapstore.fsck.stored import read_stored
from swapstore.protocol.load import ask_all, value_of
from swapstore.protocol.operation import Operation, portions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from swapstore.format.records import Holding
    from swapstore.fsck.bases import Bases, StoredBase
    from swapstore.fsck.stored import Stored
    from swapstore.models import Row
    from swapstore.protocol.context import Context


CHUNK_BYTES = 4 * 1024 * 1024  # of payloads that are read in one batch
CHUNK_ROWS = 128


@attrs.frozen
class Compared:
    """A row, what is wrong with its records, and the base that its id record names, without its content."""

    row: Row
    faults: list[Finding]
    base: StoredBase | None = None


def compare(
    ctx: Context, dataset: str, rows: Sequence[Row], bases: Bases, *, again: bool = False
) -> Operation[list[Compared]]:
    """Compare rows with their records: there, whole, the same, and permanent; their payloads are decoded.

    `again`: read bases once more that seem lost.
    """
    keys = [key for row in rows for key in ctx.keys.records(dataset, row)]
    replies = yield from read_stored(ctx, keys)
    headers = [records.entry_header(row) for row in rows]
    by_id = [
        None  # all of it is as it should be
        if records.is_plain(record, header, row.size, row.sha256)
        else _held(dataset, row, key, record)
        for row, header, key, (record, _) in zip(rows, headers, keys[::2], replies[::2], strict=True)
    ]
    stored: dict[str, StoredBase] = {}
    found = []
    each = zip(rows, by_id, headers, keys[::2], replies[::2], keys[1::2], replies[1::2], strict=True)
    for index, (row, held, header, key, (_, ttl), ts_key, ts_stored) in enumerate(each):
        base = None
        if isinstance(held, Finding):
            faults = [held]
        elif held is None:
            faults = _of_ttl(dataset, row, key, ttl)
        else:
            if held.base is not None:
                if held.base not in stored:
                    stored = yield from bases.read(_next_bases(by_id[index:]), again=again)
                base = stored[held.base]
            faults = _of_id(dataset, row, held, base, ttl)
        faults += _of_ts(dataset, row, ts_key, header, ts_stored)
        found.append(Compared(row, faults, base and attrs.evolve(base, content=None)))
    return found


def _next_bases(by_id: Sequence[Held | Finding | None]) -> list[str]:
    """Return the bases that the next records name: as many as may be read at once."""
    names = (held.base for held in by_id if isinstance(held, Held) and held.base is not None)
    return list(dict.fromkeys(names))[:KEPT]


def _held(dataset: str, row: Row, key: str, reply: bytes | Failed | None) -> Held | Finding:
    """Parse a row's id record. A finding: it is not there, or is not the row's."""
    try:
        record = value_of(reply)
        if record is None:
            return finding_of(dataset, Problem.RECORD_MISSING, key, row=row)
        held = records.held(record, row, key)
        check_base(held.base, key)
    except UnsupportedFormat:
        raise
    except Damaged as error:
        return finding_of(dataset, Problem.RECORD_DAMAGED, key, row=row, detail=error.args[0])
    return held


def _of_id(dataset: str, row: Row, held: Held, base: StoredBase | None, ttl: int) -> list[Finding]:
    wrong = undecodable(held, base)
    if wrong:
        is_lost = base is not None and base.problem is not None
        problem = Problem.RECORD_BASELESS if is_lost else Problem.RECORD_DAMAGED
        return [finding_of(dataset, problem, held.key, row=row, detail=wrong)]
    found = []
    if base is not None and base.name != row.base:
        found.append(finding_of(dataset, Problem.ROW_DAMAGED, held.key, row=row))
    if base is not None and not base.is_permanent:
        found.append(finding_of(dataset, Problem.BASE_EXPIRING, base.key, expires_in_ms=base.ttl))
    return found + _of_ttl(dataset, row, held.key, ttl)


def _of_ttl(dataset: str, row: Row, key: str, ttl: int) -> list[Finding]:
    if ttl == PERMANENT:
        return []
    return [finding_of(dataset, Problem.RECORD_EXPIRING, key, row=row, expires_in_ms=ttl)]


def _of_ts(dataset: str, row: Row, key: str, header: bytes, stored: Stored) -> list[Finding]:
    reply, ttl = stored
    if reply is None:
        return [finding_of(dataset, Problem.TS_MISSING, key, row=row)]
    if not _is_ts_of(row, header, bytes_of(reply)):
        expires = None if ttl == PERMANENT else ttl
        return [finding_of(dataset, Problem.TS_DAMAGED, key, row=row, expires_in_ms=expires)]
    if ttl == PERMANENT:
        return []
    return [finding_of(dataset, Problem.TS_EXPIRING, key, row=row, expires_in_ms=ttl)]


def _is_ts_of(row: Row, header: bytes, record: bytes) -> bool:
    """Say whether a ts record is a row's. Its origin is never later than the row: see `records.Origin`."""
    is_own = record.startswith(records.begin_of_ts(header))
    origin = records.origin_in(record) if is_own else None
    return origin is not None and origin.version <= row.version


def recorded(ctx: Context, dataset: str, row: Row, bases: Bases) -> Operation[Holding | None]:
    """Return what the id record of a row states, if the row is what was altered, and not the record.

    A row, its id record and its ts record state the same. Two of them outvote the third. An id record whose
    payload has the size and the digest that it states outvotes a row that no ts record agrees with.
    """
    key, own_key = ctx.keys.records(dataset, row)
    commands: list[Command[Any]] = [Get(key), Ttl(key), Get(own_key)]
    stored, ttl, own = yield from ask_all(ctx, commands)
    record = bytes_of(stored)
    try:
        entry = records.holding_of(record, key)
    except Corrupt:
        return None
    agrees = records.states_ts(bytes_of(own), row)
    if entry.id != row.id or agrees or not (yield from bases.is_whole(record, entry)):
        return None
    ts_key = ctx.keys.ts(dataset, entry.ts, entry.id)
    told: list[Command[Any]] = [Get(ts_key), Ttl(ts_key)]
    ts_record, ts_ttl = yield from ask_all(ctx, told)
    if value_of(ts_ttl) != PERMANENT or not records.states_ts(bytes_of(ts_record), entry):
        return entry if value_of(ttl) == PERMANENT else None
    origin = records.origin_in(bytes_of(ts_record))
    is_later = origin is not None and origin.version > row.version  # the id was published again
    return None if is_later else entry


def bytes_of(reply: bytes | Failed | None) -> bytes:
    """Return the value of a key. Empty: there is none, or it is of another type. Raises other refusals."""
    try:
        return value_of(reply) or b""
    except Corrupt:
        return b""


def finding_of(
    dataset: str,
    problem: Problem,
    key: str,
    *,
    row: Row | None = None,
    detail: str = "",
    expires_in_ms: int | None = None,
) -> Finding:
    """Build a finding about a key, and about the row that names it, if there is one."""
    return Finding(
        problem=problem,
        dataset=dataset,
        key=key,
        version=row.version if row else None,
        id=row.id if row else None,
        detail=detail,
        expires_in_ms=expires_in_ms,
    )


def chunks(rows: Sequence[Row]) -> list[list[Row]]:
    """Split rows into chunks, so that reading their payloads takes a bounded amount of memory."""
    return portions(rows, lambda row: row.size, room=CHUNK_BYTES, most=CHUNK_ROWS)
