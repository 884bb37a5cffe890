"""Every key that holds something of a snapshot: its own, and copies that no manifest names any more.

A snapshot's own keys hold its records. Its row is in the manifest or in a page, too, and its content may be
that of a base. What was unlinked stays for its grace: pages with the row, and bases with the content. What
was staged and not committed stays for as long. No key leads to these, so they are searched for among all keys
of the dataset.

An unlinked page or base is not looked into: whatever it holds, its grace ends here. A reader that still needs
it reads the manifest again, and a publish that has staged it stages it once more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from swapstore.commands import PERMANENT, Command, Failed, Get, Peek, Scan, Ttl
from swapstore.errors import Damaged
from swapstore.format import manifest, records, search
from swapstore.protocol.load import (
    ask,
    ask_all,
    find,
    find_id,
    is_base_named,
    is_page_named,
    value_of,
)
from swapstore.protocol.operation import Batch, Operation
from swapstore.protocol.scriptless.resend import sent_again

if TYPE_CHECKING:
    from swapstore.format.keys import Name
    from swapstore.format.manifest import Manifest
    from swapstore.models import Row
    from swapstore.protocol.context import Context

SCAN_KEYS = 500  # that are looked at in one step
ETAG_BYTES = 128  # more than the prefix of a manifest with any etag


# --- the keys of one snapshot ----------------------------------------------------------------------


def keys_of(ctx: Context, dataset: str, row: Row) -> Operation[list[str]]:
    """Return the keys that hold a snapshot and nothing else."""
    yield from ()
    return list(ctx.keys.records(dataset, row))


def keys_of_base(ctx: Context, dataset: str, name: str) -> Operation[list[str]]:
    """Return the keys that hold a base."""
    yield from ()
    return [ctx.keys.base(dataset, name)]


def is_of(name: Name, id: str) -> bool:  # noqa: A002
    """Say whether a key holds something of a snapshot with this id."""
    return (name.kind == "id" and name.rest == id) or (name.kind == "ts" and name.ts_and_id[1] == id)


# --- copies that nothing leads to ------------------------------------------------------------------


@attrs.define
class Copies:
    """What was found: permanent keys that may have to go with a swap. What has a TTL is gone already.

    `bases`: the names of bases with the content. `pages`: those that may have the row. `records`: those under
    the id. `had_records`: there were records under the id that no manifest names, and that had a TTL.
    """

    bases: set[str] = attrs.field(factory=set)
    pages: list[Name] = attrs.field(factory=list)
    records: list[Name] = attrs.field(factory=list)
    had_records: bool = False


def find_copies(
    ctx: Context,
    current: Manifest,
    *,
    id: str | None,  # noqa: A002
    row: Row | None,
) -> Operation[Copies]:
    """Scan the keys of a dataset for copies of a snapshot, and end the grace of what was unlinked.

    `row`: its row, if the log or the header has it. `id`: its id, if that is known.
    """
    found = Copies()
    cursor: str | None = ""
    while cursor is not None:
        scanned = yield from ask(ctx, Scan(ctx.keys.all(current.head.dataset), cursor, SCAN_KEYS))
        cursor = scanned.cursor
        names = [name for key in dict.fromkeys(scanned.keys) if (name := ctx.keys.parse(key)) is not None]
        yield from _look(ctx, current, [n for n in names if _may_be_copy(n, current, id)], row, found)
    return found


def _may_be_copy(name: Name, current: Manifest, id: str | None) -> bool:  # noqa: A002
    if name.dataset != current.head.dataset:
        return False  # the pattern matches other keys, too
    return name.kind in {"page", "base", "live"} or (id is not None and is_of(name, id))


def _look(
    ctx: Context, current: Manifest, names: list[Name], row: Row | None, found: Copies
) -> Operation[None]:
    """Note the permanent ones of these keys, and discard those that expire."""
    asked: list[Command[Any]] = [Ttl(name.key) for name in names]
    dead: list[Command[Any]] = []
    for name, reply in zip(names, (yield from ask_all(ctx, asked)), strict=True):
        ttl = value_of(reply)
        if ttl == PERMANENT:
            _note(found, name, row)
        elif ttl >= 0 and not (yield from is_named(ctx, current, name, besides=row)):
            dead.append(ctx.capabilities.committer.discard(name.key))
            found.had_records = found.had_records or name.kind in {"id", "ts"}
    if dead:
        for reply in (yield from sent_again(ctx, Batch(tuple(dead)))):
            value_of(reply)


def _note(found: Copies, name: Name, row: Row | None) -> None:
    if name.kind in {"id", "ts"}:
        found.records.append(name)
    elif row is not None and name.kind == "base" and name.rest.endswith(f".{row.sha256[:16]}"):
        found.bases.add(name.rest)
    elif row is not None and name.kind == "page" and name.spans(row.version):
        found.pages.append(name)


def find_id_of(ctx: Context, current: Manifest, version: int) -> Operation[str | None]:
    """Find the id of a snapshot that a version has committed and no row names, in a ts record."""
    cursor: str | None = ""
    while cursor is not None:
        scanned = yield from ask(ctx, Scan(ctx.keys.all(current.head.dataset), cursor, SCAN_KEYS))
        cursor = scanned.cursor
        names = [name for key in scanned.keys if (name := ctx.keys.parse(key)) is not None]
        names = [name for name in names if name.kind == "ts" and name.dataset == current.head.dataset]
        replies = yield from ask_all(ctx, [Get(name.key) for name in names])
        for name, reply in zip(names, replies, strict=True):
            origin = None if isinstance(reply, Failed) else records.origin_in(reply or b"")
            if origin is not None and (origin.epoch, origin.version) == (current.epoch, version):
                ts, id = name.ts_and_id  # noqa: A001
                if (yield from _row_at(ctx, current, ts, id)) is None:
                    return id
    return None


def is_named(ctx: Context, current: Manifest, name: Name, *, besides: Row | None) -> Operation[bool]:
    """Say whether a manifest needs a key, not counting what one row needs. If damage hides that: yes."""
    match name.kind:
        case "page":
            return (yield from is_page_named(ctx, current, name.key, name.first_version))
        case "base":
            return (yield from is_base_named(ctx, current, name.rest))
        case "live":
            stored = yield from ask(ctx, Peek(name.key, ETAG_BYTES))
            return stored.startswith(manifest.prefix(current.etag))
    try:
        if name.kind == "id":
            row = yield from find_id(ctx, current, name.rest, hidden=True)
        else:
            row = yield from _row_at(ctx, current, *name.ts_and_id)
    except Damaged:
        return True
    return row is not None and not (besides is not None and manifest.same_row(row, besides))


def _row_at(ctx: Context, current: Manifest, ts: int, id: str) -> Operation[Row | None]:  # noqa: A002
    """Find the row of an id with this very `ts`."""
    searching = search.search(current, search.ById(id, ts), hidden=True)
    row = yield from find(ctx, current.head.dataset, searching)
    return row if row is not None and row.ts == ts else None
