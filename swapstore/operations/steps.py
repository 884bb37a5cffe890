"""The shape of an operation, and the small ones that the others are made of."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import attrs

from swapstore import cache, manifest, pages
from swapstore.commands import Command, Failed, Get, Peek
from swapstore.errors import ReplyLost
from swapstore.manifest import Manifest
from swapstore.pages import Page

if TYPE_CHECKING:
    from swapstore.models import Ref
    from swapstore.operations.context import Context

T = TypeVar("T")
R = TypeVar("R")


@attrs.frozen
class Batch:
    """Commands to send together; the answer is the list of their replies."""

    commands: tuple[Command[Any], ...]


@attrs.frozen
class Wait:
    """Time to let pass; the answer is an empty list."""

    seconds: float


Operation = Generator[Batch | Wait, list[Any], T]


class Steps(Protocol[T]):
    """What is iterated over: some items a step, each step an operation."""

    def step(self) -> Operation[list[T] | None]:
        """Return the next items, perhaps none yet; None: that was all."""


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
    if known is None:
        return (yield from load_manifest(ctx, dataset))
    prefix = manifest.prefix(known.manifest.etag)
    read_at = ctx.clock.monotonic()
    if (yield from ask(ctx, Peek(key, len(prefix)))) != prefix:
        return (yield from load_manifest(ctx, dataset))
    ctx.cache.touch(known, read_at)
    return known.manifest


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
