"""Compare rows of the log with the records that they name: there, whole, the same, and permanent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.commands import PERMANENT, Command, Failed, Get, Ttl
from swapstore.errors import Corrupt, Damaged, UnsupportedFormat
from swapstore.findings import Finding, Problem
from swapstore.format import records
from swapstore.operations.operation import Operation
from swapstore.operations.steps import ask_all, value_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from swapstore.models import Row
    from swapstore.operations.context import Context

CHUNK_BYTES = 4 * 1024 * 1024
CHUNK_ROWS = 32


def compare(ctx: Context, dataset: str, rows: Sequence[Row]) -> Operation[list[tuple[Row, list[Finding]]]]:
    """Return what is wrong with each of some rows."""
    commands: list[Command[Any]] = []
    for row in rows:
        id_key, ts_key = ctx.keys.records(dataset, row)
        commands += [Get(id_key), Ttl(id_key), Get(ts_key), Ttl(ts_key)]
    replies = yield from ask_all(ctx, commands)
    found = []
    for index, row in enumerate(rows):
        record, ttl, ts_record, ts_ttl = replies[4 * index : 4 * index + 4]
        faults = [
            *_of_id(ctx, dataset, row, record, value_of(ttl)),
            *_of_ts(ctx, dataset, row, ts_record, value_of(ts_ttl)),
        ]
        found.append((row, faults))
    return found


def _of_id(ctx: Context, dataset: str, row: Row, reply: bytes | Failed | None, ttl: int) -> list[Finding]:
    key = ctx.keys.id(dataset, row.id)
    try:
        record = value_of(reply)
        if record is None:
            return [finding_of(dataset, Problem.RECORD_MISSING, key, row=row)]
        records.payload_of(record, row, key)
    except UnsupportedFormat:
        raise
    except Damaged as error:
        return [finding_of(dataset, Problem.RECORD_DAMAGED, key, row=row, detail=error.args[0])]
    if ttl == PERMANENT:
        return []
    return [finding_of(dataset, Problem.RECORD_EXPIRING, key, row=row, expires_in_ms=ttl)]


def _of_ts(ctx: Context, dataset: str, row: Row, reply: bytes | Failed | None, ttl: int) -> list[Finding]:
    key = ctx.keys.ts(dataset, row.ts, row.id)
    if reply is None:
        return [finding_of(dataset, Problem.TS_MISSING, key, row=row)]
    if not bytes_of(reply).startswith(records.entry_header(row)):
        expires = None if ttl == PERMANENT else ttl
        return [finding_of(dataset, Problem.TS_DAMAGED, key, row=row, expires_in_ms=expires)]
    if ttl == PERMANENT:
        return []
    return [finding_of(dataset, Problem.TS_EXPIRING, key, row=row, expires_in_ms=ttl)]


def bytes_of(reply: bytes | Failed | None) -> bytes:
    """What a key holds; empty for nothing, and for a value of another type. Raises what else failed."""
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
    """Make a finding about a key, and the row that names it."""
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
    """Split rows so that reading their payloads takes a bounded amount of memory."""
    split: list[list[Row]] = []
    room = 0
    for row in rows:
        if not split or room < row.size or len(split[-1]) == CHUNK_ROWS:
            split.append([])
            room = CHUNK_BYTES
        split[-1].append(row)
        room -= row.size
    return split
