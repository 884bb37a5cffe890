"""The live view: a value computed from one committed version, shown only while that version is current.

A commit removes it in the same step. If the removal fails, or a late write brings an old view back, the view
is still hidden, because it is bound to the etag of its version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swapstore.commands import Command, Get, Peek, Put
from swapstore.format import manifest, records
from swapstore.protocol.load import ask_all, load_manifest, nothing_published, value_of
from swapstore.protocol.operation import Batch, Operation

if TYPE_CHECKING:
    from swapstore.models import LiveView
    from swapstore.protocol.context import Context

_ETAG_BYTES = 128  # more than the prefix of a manifest with any etag


def put_live(
    ctx: Context, dataset: str, payload: bytes, *, codec: str, ttl_ms: int, etag: str | None
) -> Operation[str]:
    """Write a live view bound to `etag`. Default: the version that this client saw last. Returns the etag.

    It is never bound to a newer version than the caller can have seen: a view of the old data would be shown
    as one of the new data. Raises `NotFound` when nothing is published.
    """
    if etag is None:
        known = ctx.cache.known(ctx.keys.manifest(dataset))
        seen = known.manifest if known else (yield from load_manifest(ctx, dataset))
        if seen is None or seen.head.is_dropped:
            raise nothing_published(ctx)
        etag = seen.etag
    record = records.pack_live(etag=etag, codec=codec, payload=payload, text_only=ctx.policy.text_only)
    (reply,) = yield Batch((Put(ctx.keys.live(dataset), record, ttl_ms),))
    value_of(reply)
    return etag


def read_live(ctx: Context, dataset: str) -> Operation[LiveView | None]:
    """Read the live view. None: there is none, or it is bound to a version that is not current."""
    key = ctx.keys.live(dataset)
    both: list[Command[Any]] = [Get(key), Peek(ctx.keys.manifest(dataset), _ETAG_BYTES)]
    record, stored = map(value_of, (yield from ask_all(ctx, both)))
    if record is None:
        return None
    view = records.read_live(record, dataset, key)
    return view if stored.startswith(manifest.prefix(view.etag)) else None
