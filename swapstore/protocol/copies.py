"""Every key that holds something of a snapshot: its own, and copies that no manifest names any more.

A snapshot's own keys hold its records. Its row is in the manifest or in a page, too, and its content may be
that of a base. What was unlinked stays for its grace: pages with the row, bases with the content, and records
that name such a base. What was staged and not committed stays for as long. No key leads to these, so they are
searched for among all keys of the dataset.

What has a TTL is not looked into: whatever it holds, its grace ends here, unless a manifest names it. A
reader that still needs it reads the manifest again, and a publish that has staged it stages it once more.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import attrs

from swapstore.commands import PERMANENT, Command, Peek, Scan, Ttl
from swapstore.errors import Corrupt, Damaged
from swapstore.format import manifest, records, search
from swapstore.format.keys import base_version, group_name
from swapstore.models import Row
from swapstore.protocol.load import (
    ask,
    ask_all,
    find,
    is_base_named,
    is_page_named,
    value_of,
)
from swapstore.protocol.operation import Batch, Operation
from swapstore.protocol.scriptless.resend import sent_again
from swapstore.protocol.unlink import members_of, members_of_base

if TYPE_CHECKING:
    from swapstore.format.keys import Name
    from swapstore.format.manifest import Manifest
    from swapstore.models import Entry
    from swapstore.protocol.context import Context

SCAN_KEYS = 500  # that are looked at in one step
HEADER_BYTES = 4096  # hold the header of every record
ETAG_BYTES = 128  # more than the prefix of a manifest with any etag


# --- the keys of one snapshot ----------------------------------------------------------------------


def keys_of(ctx: Context, dataset: str, row: Row) -> Operation[list[str]]:
    """Return the keys that hold a snapshot and nothing else. Those come last that tell of the members."""
    return [*(yield from members_of(ctx, dataset, row)), *ctx.keys.records(dataset, row)]


def keys_of_base(ctx: Context, dataset: str, name: str) -> Operation[list[str]]:
    """Return the keys that hold a base. That one comes last that tells of the members."""
    return [*(yield from members_of_base(ctx, dataset, name)), ctx.keys.base(dataset, name)]


def is_of(name: Name, id: str) -> bool:  # noqa: A002
    """Say whether a key holds something of a snapshot with this id."""
    return name.kind in {"id", "ts", "member"} and name.id == id


class KeysOf:
    """A scan of the keys of one dataset that may hold data, some hundred a step. The manifest is left out."""

    def __init__(self, ctx: Context, dataset: str) -> None:
        self._ctx = ctx
        self._dataset = dataset
        self._cursor: str | None = ""

    @property
    def pending(self) -> bool:
        """Whether there are more steps."""
        return self._cursor is not None

    def step(self) -> Operation[tuple[list[Name], list[Name]]]:
        """Return the next keys: those that are permanent, and those that have a TTL."""
        pattern = self._ctx.keys.all(self._dataset)
        scanned = yield from ask(self._ctx, Scan(pattern, self._cursor or "", SCAN_KEYS))
        self._cursor = scanned.cursor
        names = [n for key in dict.fromkeys(scanned.keys) if (n := self._ctx.keys.parse(key)) is not None]
        names = [n for n in names if n.dataset == self._dataset and n.kind not in _NO_DATA]
        ttls = [value_of(ttl) for ttl in (yield from ask_all(self._ctx, [Ttl(n.key) for n in names]))]
        permanent = [name for name, ttl in zip(names, ttls, strict=True) if ttl == PERMANENT]
        return permanent, [name for name, ttl in zip(names, ttls, strict=True) if ttl >= 0]


_NO_DATA = {"manifest", "lease", "mark"}


# --- copies that nothing leads to ------------------------------------------------------------------


@attrs.define
class Copies:
    """What was found: permanent keys that may have to go with a swap. What has a TTL is gone already.

    `bases`: the names of bases with the content. `pages`: those that may have the row. `records`: those under
    the id.
    """

    bases: set[str] = attrs.field(factory=set)
    pages: list[Name] = attrs.field(factory=list)
    records: list[Name] = attrs.field(factory=list)


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
    scan = KeysOf(ctx, current.head.dataset)
    while scan.pending:
        permanent, expiring = yield from scan.step()
        for name in permanent:
            _note(found, name, row, is_own=id is not None and is_of(name, id))
        dead: list[Command[Any]] = []
        for name in expiring:
            is_needed = yield from is_named(ctx, current, name, besides=row)
            dead += [] if is_needed else [ctx.capabilities.committer.discard(name.key)]
        if dead:
            for reply in (yield from sent_again(ctx, Batch(tuple(dead)))):
                value_of(reply)
    return found


def _note(found: Copies, name: Name, row: Row | None, *, is_own: bool) -> None:
    if is_own:
        found.records.append(name)
    elif row is not None and name.kind == "base" and name.rest.partition(".")[2][:16] == row.sha256[:16]:
        found.bases.add(name.rest)
    elif row is not None and name.kind == "page" and name.spans(row.version):
        found.pages.append(name)


def find_left(
    ctx: Context,
    current: Manifest,
    *,
    id: str | None,  # noqa: A002
    version: int | None,
) -> Operation[Row | None]:
    """Return the row of a snapshot that no row names any more, as far as keys tell. None: nothing is left.

    Its records tell, or a base that its version has brought: then the digest is only the beginning of it. If
    only members are left, they tell nothing but the id.
    """
    scan, digest = KeysOf(ctx, current.head.dataset), ""
    found: list[tuple[Name, bytes]] = []
    while scan.pending:
        permanent, expiring = yield from scan.step()
        names = [name for name in (*permanent, *expiring) if _may_tell(name, id)]
        replies = yield from ask_all(ctx, [Peek(name.key, HEADER_BYTES) for name in names])
        found += [
            (name, reply)
            for name, reply in zip(names, replies, strict=True)
            if isinstance(reply, bytes) and (id is not None or _states(reply, current, version))
        ]
        brought = [n.rest for n in (*permanent, *expiring) if n.kind == "base"]
        digest = next((b.partition(".")[2] for b in brought if base_version(b) == version), digest)
    entry: Entry | None = None
    told: Name | None = None
    has_members = False
    for name, record in found:
        if name.kind == "member" and (has_members or record == records.DELETED):
            continue
        if (yield from is_named(ctx, current, name, besides=None)):
            continue  # the id was published again
        if name.kind == "id":
            with suppress(Corrupt):
                entry = records.entry_of(record, name.key)
        elif name.kind == "ts":
            told, origin = name, records.origin_in(record)
            version = version if origin is None else origin.version
        else:
            has_members = True
    if entry is None and told is not None:
        beside = yield from _entry_of_id(ctx, current.head.dataset, told.id)
        entry = beside if beside is not None and beside.ts == told.ts else None
    if entry is None and told is None and not digest and not has_members:
        return None
    fields = attrs.asdict(entry, recurse=False) if entry else {"id": id or "", "ts": 0, "size": 0}
    if entry is None and told is not None:
        fields |= {"id": told.id, "ts": told.ts}
    fields = {"sha256": digest, "codec": "bytes", "labels": {}} | fields
    return Row(**fields, version=version or 0, committed_at=0, dedupe_key=None)


def _entry_of_id(ctx: Context, dataset: str, id: str) -> Operation[Entry | None]:  # noqa: A002
    """Read the entry of the id record of an id. None: it is not there, or damaged."""
    key = ctx.keys.id(dataset, id)
    try:
        return records.entry_of((yield from ask(ctx, Peek(key, HEADER_BYTES))), key)
    except Corrupt:
        return None


def _may_tell(name: Name, id: str | None) -> bool:  # noqa: A002
    return name.kind == "ts" if id is None else is_of(name, id)


def _states(record: bytes, current: Manifest, version: int | None) -> bool:
    """Say whether a ts record states that this version has committed its snapshot."""
    origin = records.origin_in(record)
    return origin is not None and (origin.epoch, origin.version) == (current.epoch, version)


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
        row = yield from _row_of(ctx, current, name)
    except Damaged:
        return True
    return row is not None and not (besides is not None and manifest.same_row(row, besides))


def _row_of(ctx: Context, current: Manifest, name: Name) -> Operation[Row | None]:
    """Find the row that names an id record, a ts record or a member."""
    if name.kind == "ts":
        return (yield from _row_at(ctx, current, name.ts, name.id))
    if name.kind == "member":
        row = yield from _row_of_id(ctx, current, name.id)
        return row if row is not None and group_name(row.id, row.sha256) == name.rest else None
    return (yield from _row_of_id(ctx, current, name.id))


def _row_of_id(ctx: Context, current: Manifest, id: str) -> Operation[Row | None]:  # noqa: A002
    for row in (*current.head.kept, *current.log.rows):
        if row.id == id:
            return row
    entry = yield from _entry_of_id(ctx, current.head.dataset, id)
    return None if entry is None else (yield from _row_at(ctx, current, entry.ts, id))


def _row_at(ctx: Context, current: Manifest, ts: int, id: str) -> Operation[Row | None]:  # noqa: A002
    """Find the row of an id with this very `ts`."""
    searching = search.search(current, search.ById(id, ts), hidden=True)
    row = yield from find(ctx, current.head.dataset, searching)
    return row if row is not None and row.ts == ts else None
