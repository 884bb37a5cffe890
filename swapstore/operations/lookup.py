"""From a manifest to a row, and from a row to its snapshot: what reading and publishing share."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from swapstore.commands import PERMANENT, Get, Ttl
from swapstore.errors import Corrupt, Damaged
from swapstore.format import records, search
from swapstore.format.manifest import snapshot_fields
from swapstore.models import Row, Snapshot
from swapstore.operations.operation import Operation
from swapstore.operations.steps import ask, find

if TYPE_CHECKING:
    from swapstore.format.manifest import Manifest
    from swapstore.operations.context import Context


Labelled = TypeVar("Labelled", Row, Snapshot)


def find_id(
    ctx: Context,
    manifest: Manifest,
    id: str,  # noqa: A002
    *,
    hidden: bool = False,
) -> Operation[Row | None]:
    """Find the row of an id. A record that no row names is not there, however whole it is.

    Older rows are found by their time, which the id record tells. `hidden` also finds what retention hides
    and has not let go of.
    """
    head, dataset = manifest.head, manifest.head.dataset
    for row in (*head.kept, *reversed(manifest.log.rows)):
        if row.id == id and (hidden or head.keeps(row)):
            return row
    key = ctx.keys.id(dataset, id)
    record = yield from ask(ctx, Get(key))
    if record is None:
        return None
    try:
        entry = records.entry_of(record, key)
    except Corrupt:
        if (yield from ask(ctx, Ttl(key))) != PERMANENT:
            return None  # whatever it is, it is not committed
        raise
    query = search.ById(id, entry.ts)
    found = yield from find(ctx, dataset, search.search(manifest, query, hidden=hidden))
    if found is not None:
        with suppress(Damaged):  # who reads it next says so; a whole one need not be fetched again
            ctx.cache.keep(key, found.sha256, records.payload_of(record, found, key))
    return found


def load_snapshot(ctx: Context, manifest: Manifest, row: Row) -> Operation[Snapshot]:
    """Read the record of a row, check it against the row, and remember its payload."""
    dataset = manifest.head.dataset
    key = ctx.keys.id(dataset, row.id)
    payload = ctx.cache.record(key, row.sha256)
    if payload is None:
        record = yield from ask(ctx, Get(key))
        payload = records.payload_of(record, row, key)
        ctx.cache.keep(key, row.sha256, payload)
    return _built(snapshot_fields(row, manifest.head), payload)


def served(manifest: Manifest, payload: bytes) -> Snapshot:
    """Build what a reader gets of the row that is served: all but the payload is remembered."""
    return _built(manifest.serving_fields(), payload)


def _built(fields: dict[str, Any], payload: bytes) -> Snapshot:
    """Its labels are the reader's own: changing them changes nothing that is remembered."""
    made = object.__new__(Snapshot)  # within max_staleness, __init__ would take as long as all the rest
    made.__dict__.update(fields, labels=dict(fields["labels"]), raw=payload)
    return made


def own(found: Labelled) -> Labelled:
    """Give a caller labels of its own: changing them changes nothing that is remembered."""
    if isinstance(found, Row):
        return attrs.evolve(found, labels=dict(found.labels))
    mine = object.__new__(type(found))  # each read comes by here: `evolve` takes as long as all of the cache
    mine.__dict__.update(found.__dict__, labels=dict(found.labels))
    mine.__dict__.pop("value", None)  # what was decoded for another caller is not ours to share
    return mine
