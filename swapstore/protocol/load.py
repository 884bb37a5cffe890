"""The shape of an operation, and the small ones that the others are made of."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import attrs

from swapstore import cache
from swapstore.commands import PERMANENT, Command, Failed, Get, GetServed, Peek, Ttl
from swapstore.errors import Corrupt, Damaged, ReplyLost
from swapstore.format import manifest, pages, records, search
from swapstore.format.manifest import Manifest, snapshot_fields
from swapstore.format.pages import Page
from swapstore.models import Row, Snapshot
from swapstore.protocol.operation import Batch, Operation, Wait

if TYPE_CHECKING:
    from swapstore.format.manifest import Manifest
    from swapstore.models import Ref
    from swapstore.protocol.context import Context


HEADER = 1024  # bytes that hold the header of most manifests
SERVED = 64 * 1024  # bytes of a payload up to which it pays to be given it along with the manifest
SLACK = 256  # how much longer the next header may be

T = TypeVar("T")
R = TypeVar("R")


def ask(ctx: Context, command: Command[R]) -> Operation[R]:
    """Send one command that only reads, and again, bounded, when its reply is lost."""
    replies = yield from ask_all(ctx, [command])
    return value_of(replies[0])


def ask_all(ctx: Context, commands: Sequence[Command[R]]) -> Operation[list[R | Failed]]:
    """Send commands that only read, and again, bounded, when their replies are lost."""
    if not commands:
        return []
    for attempt in range(1, ctx.policy.read_attempts):
        try:
            return (yield Batch(tuple(commands)))
        except ReplyLost:
            yield Wait(ctx.backoff(attempt))
    return (yield Batch(tuple(commands)))


def value_of(reply: R | Failed) -> R:
    """Return a reply, or raise what the store refused the command with."""
    if isinstance(reply, Failed):
        raise reply.error
    return reply


def load_manifest(ctx: Context, dataset: str) -> Operation[Manifest | None]:
    """Read the whole manifest, and remember it. None: nothing is published.

    A client that has seen a later version does not go back to an older one, or to none, that a lagging
    replica shows: it reads again, bounded. If the store insists, it has itself gone back (a restored
    backup, a flush, a failover that lost writes), and the client follows.
    """
    key = ctx.keys.manifest(dataset)
    known = ctx.cache.known(key)
    found: Manifest | None = None
    read_at = 0.0
    for attempt in range(ctx.policy.read_attempts):
        if attempt:
            yield Wait(ctx.backoff(attempt))
        read_at = ctx.clock.monotonic()
        raw = yield from ask(ctx, Get(key))
        found = manifest.parse(raw, dataset, key) if raw is not None else None
        if known is None or (found is not None and not cache.is_newer(known.manifest, found)):
            break
    if found is None:
        ctx.cache.forget(key, basis=known)
    else:
        ctx.cache.learn(found, read_at, basis=known, retreat=True)
    return found


def current_manifest(ctx: Context, dataset: str) -> Operation[Manifest | None]:
    """Return the manifest that is stored now: the one remembered, if its etag still stands there."""
    key = ctx.keys.manifest(dataset)
    known = ctx.cache.known(key)
    if known is None or not known.manifest.complete:
        return (yield from load_manifest(ctx, dataset))
    prefix = manifest.prefix(known.manifest.etag)
    read_at = ctx.clock.monotonic()
    if (yield from ask(ctx, Peek(key, len(prefix)))) != prefix:
        return (yield from load_manifest(ctx, dataset))
    ctx.cache.touch(known, read_at)
    return known.manifest


def current_head(ctx: Context, dataset: str) -> Operation[Manifest | None]:
    """Return the manifest that is stored now, or its header alone: that is enough to read what is served.

    The look that asks whether it has changed brings the header along, so a reader of a new version needs no
    other before it reads the record.
    """
    key = ctx.keys.manifest(dataset)
    known = ctx.cache.known(key)
    if known is None:
        return (yield from load_manifest(ctx, dataset))  # whole: what follows may be a publish
    size = max(known.manifest.head_size + SLACK, HEADER)
    read_at = ctx.clock.monotonic()
    peeked = yield from ask(ctx, Peek(key, size))
    if peeked.startswith(manifest.prefix(known.manifest.etag)):
        ctx.cache.touch(known, read_at)
        return known.manifest
    found = manifest.glimpse(peeked, dataset, key, whole=len(peeked) < size)
    if found is None or cache.is_newer(known.manifest, found):
        return (yield from load_manifest(ctx, dataset))
    ctx.cache.learn(found, read_at, basis=known)
    return found


def current_served(ctx: Context, dataset: str) -> Operation[Manifest | None]:
    """Return the manifest that is stored now, for who is about to read what it serves.

    Who knows none yet is given the payload along with it, where the store can, and remembers both.
    """
    key = ctx.keys.manifest(dataset)
    largest = min(SERVED, ctx.cache.largest)
    if largest <= 0 or not ctx.capabilities.serves or ctx.cache.known(key) is not None:
        return (yield from current_head(ctx, dataset))
    read_at = ctx.clock.monotonic()
    try:  # once: what stands in between may close the connection at a command that it does not know
        (served,) = yield Batch((GetServed(key, ctx.keys.id(dataset, ""), largest),))
    except ReplyLost:
        served = None
    if served is None or isinstance(served, Failed):
        # Plain commands tell what is wrong, if more is than that. Damage is that of one dataset.
        ctx.capabilities.serves = isinstance(served, Failed) and isinstance(served.error, Damaged)
        return (yield from load_manifest(ctx, dataset))
    if served.manifest is None:
        ctx.cache.forget(key, basis=None)
        return None
    found = manifest.parse(served.manifest, dataset, key)
    ctx.cache.learn(found, read_at, basis=None, retreat=True)
    if served.record is not None:
        row = found.head.serving
        id_key = ctx.keys.id(dataset, row.id)
        with suppress(Damaged):  # whoever reads it next says so
            ctx.cache.keep(id_key, row.sha256, records.payload_of(served.record, row, id_key))
    return found


def load_page(ctx: Context, dataset: str, ref: Ref) -> Operation[Page]:
    """Read a page and check it. Pages are immutable, and cached by their key."""
    record = ctx.cache.record(ref.key, "")
    if record is not None:
        return pages.parse(record, ref, dataset)
    record = yield from ask(ctx, Get(ref.key))
    if record is None:
        raise pages.missing(ref)
    page = pages.parse(record, ref, dataset)
    ctx.cache.keep(ref.key, "", record)
    return page


def find(ctx: Context, dataset: str, searching: Generator[Ref, Page, T]) -> Operation[T]:
    """Run a pure search of a manifest, loading the pages it asks for."""
    try:
        ref = next(searching)
        while True:
            ref = searching.send((yield from load_page(ctx, dataset, ref)))
    except StopIteration as stop:
        result: T = stop.value
        return result


# --- lookup ------------------------------------------------------------------------------------
#
# From a manifest to a row, and from a row to its snapshot: what reading and publishing share.


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
    fields = snapshot_fields(row, manifest.head)
    return Snapshot(**{**fields, "labels": dict(row.labels)}, raw=payload)


def served(manifest: Manifest, payload: bytes) -> Snapshot:
    """Build the snapshot that is served. Its labels are the reader's own: changing them changes no cache."""
    fields = manifest.serving_fields
    made = object.__new__(Snapshot)  # within max_staleness, __init__ would add a fifth to the call
    made.__dict__.update(fields, labels=dict(fields["labels"]), raw=payload)
    return made


def own(found: Labelled) -> Labelled:
    """Give a caller labels of its own: changing them changes nothing that is remembered."""
    if isinstance(found, Row):
        return attrs.evolve(found, labels=dict(found.labels))
    # Not `evolve`: each read comes by here, and the loop over the fields takes ten times as long as this.
    return Snapshot(
        dataset=found.dataset,
        id=found.id,
        ts=found.ts,
        version=found.version,
        etag=found.etag,
        committed_at=found.committed_at,
        size=found.size,
        sha256=found.sha256,
        codec=found.codec,
        labels=dict(found.labels),
        raw=found.raw,
    )


# --- naming ------------------------------------------------------------------------------------
#
# Whether a manifest names something.
#
# What cannot be disproved, because a page is damaged, counts as named: a record too many is found by verify,
# one too few is a loss.


def is_in_log(ctx: Context, current: Manifest, version: int) -> Operation[bool]:
    """Say whether the log itself, hidden or not, holds the row of a version."""
    searching = search.in_log(current.log, search.ByVersion(version))
    try:
        return (yield from find(ctx, current.head.dataset, searching)) is not None
    except Damaged:
        return True


def is_row_named(ctx: Context, current: Manifest, version: int) -> Operation[bool]:
    """Say whether the header or the log names the row of a version."""
    return current.head.keeps_alive(version) or (yield from is_in_log(ctx, current, version))


def is_page_named(ctx: Context, current: Manifest, key: str, first_version: int) -> Operation[bool]:
    """Say whether the log names a page, whose first row has this version."""
    try:
        return (yield from find(ctx, current.head.dataset, search.is_named(current, key, first_version)))
    except Damaged:
        return True
