"""The shape of an operation, and the small ones that the others are made of."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from swapstore import cache
from swapstore.commands import Command, Failed, Get, GetServed, Peek
from swapstore.errors import Damaged, ReplyLost
from swapstore.format import manifest, pages, records
from swapstore.format.manifest import Manifest
from swapstore.format.pages import Page
from swapstore.operations.operation import Batch, Operation, Wait

if TYPE_CHECKING:
    from swapstore.models import Ref
    from swapstore.operations.context import Context

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
    if largest <= 0 or not ctx.strategy.serves or ctx.cache.known(key) is not None:
        return (yield from current_head(ctx, dataset))
    read_at = ctx.clock.monotonic()
    try:  # once: what stands in between may close the connection at a command that it does not know
        (served,) = yield Batch((GetServed(key, ctx.keys.id(dataset, ""), largest),))
    except ReplyLost:
        served = None
    if served is None or isinstance(served, Failed):
        # Plain commands tell what is wrong, if more is than that. Damage is that of one dataset.
        ctx.strategy.serves = isinstance(served, Failed) and isinstance(served.error, Damaged)
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
