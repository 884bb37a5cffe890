"""The live view: a value computed on one committed version, shown only while that version is current.

A commit removes it in the same step. Were the removal lost, or a late write to bring it back, the etag it
is bound to hides it all the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swapstore.commands import Command, Get, Peek, Put
from swapstore.errors import NotFound
from swapstore.format import manifest, records
from swapstore.protocol.load import ask_all, load_manifest, value_of
from swapstore.protocol.operation import Batch, Operation

if TYPE_CHECKING:
    from swapstore.models import LiveView
    from swapstore.protocol.context import Context

_ETAG_ROOM = 128  # bytes: more than any etag takes


def put_live(
    ctx: Context, dataset: str, payload: bytes, *, codec: str, ttl_ms: int, etag: str | None
) -> Operation[str]:
    """Write a live view bound to `etag`, or to the version this client saw last. Returns that etag.

    It is not bound to a newer version than the caller can have seen: that would show a view of the old
    data as one of the new.
    """
    if etag is None:
        known = ctx.cache.known(ctx.keys.manifest(dataset))
        seen = known.manifest if known else (yield from load_manifest(ctx, dataset))
        if seen is None:
            raise NotFound("nothing is published, so there is no version to bind a live view to")
        etag = seen.etag
    record = records.pack_live(etag=etag, codec=codec, payload=payload, encoding=ctx.encoding(payload))
    (reply,) = yield Batch((Put(ctx.keys.live(dataset), record, ttl_ms),))
    value_of(reply)
    return etag


def read_live(ctx: Context, dataset: str) -> Operation[LiveView | None]:
    """Read the live view, if there is one of the version that is current."""
    key = ctx.keys.live(dataset)
    both: list[Command[Any]] = [Get(key), Peek(ctx.keys.manifest(dataset), _ETAG_ROOM)]
    record, stored = map(value_of, (yield from ask_all(ctx, both)))
    if record is None:
        return None
    view = records.read_live(record, dataset, key)
    return view if stored.startswith(manifest.prefix(view.etag)) else None
