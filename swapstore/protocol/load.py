"""Load what the other operations start from: the manifest, its pages, and the snapshots that its rows name.

`load_manifest` always reads the whole manifest. `current_manifest`, `current_head` and `current_served` first
compare the etag of the manifest that the client remembers with the stored one, which takes a few bytes. Every
answer is remembered in `ctx.cache`.

Commands that only read are sent again when their reply is lost. A replica is asked once (`Route.anywhere`):
when it fails, or shows less than this client has seen, the operation goes on with the primary.

Records and pages are checked when they are read: one that is missing or altered raises `PayloadMissing` or
`Corrupt`, and the caller decides whether the manifest has moved on or the store is damaged.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import msgspec

from swapstore import cache
from swapstore.commands import PERMANENT, Ask, Command, Failed, Get, GetServed, Peek, Served, Ttl
from swapstore.errors import (
    Corrupt,
    Damaged,
    NotFound,
    ReplyLost,
    SwapstoreError,
    Unavailable,
    Unsupported,
)
from swapstore.format import bases, manifest, pages, records, search
from swapstore.format.keys import check_base
from swapstore.format.manifest import snapshot_fields
from swapstore.format.pages import Page, SealedPage
from swapstore.models import Group, Row, Snapshot
from swapstore.protocol.operation import Batch, Operation, Wait

if TYPE_CHECKING:
    from swapstore.cache import Known
    from swapstore.format.encodings import Dictionary
    from swapstore.format.manifest import Log, Manifest
    from swapstore.models import Ref
    from swapstore.protocol.context import Context


HEAD_SLACK_BYTES = 256  # how much longer than the remembered header the stored one may be: a pinned row more
SERVED_BYTES = 64 * 1024  # a larger record is cheaper to read by itself than along with the manifest

_NOTHING = (None, b"", Served(None))  # what a read of a key that is not there is answered with

T = TypeVar("T")
R = TypeVar("R")
A = TypeVar("A")
Labelled = TypeVar("Labelled", Row, Snapshot)


# --- commands that only read -----------------------------------------------------------------------


def ask(ctx: Context, command: Command[R]) -> Operation[R]:
    """Send one command that only reads, and return its reply. See `ask_all`; a refusal is raised."""
    replies = yield from ask_all(ctx, [command])
    return value_of(replies[0])


def ask_all(ctx: Context, commands: Sequence[Command[R]]) -> Operation[list[R | Failed]]:
    """Send commands that only read in one batch; send them again, a few times, when the replies are lost."""
    if not commands:
        return []
    if ctx.route.anywhere:
        replies = yield from _ask_a_replica(ctx, commands)
        if replies is not None:
            return replies
    for attempt in range(1, ctx.policy.read_attempts):
        try:
            return (yield Batch(tuple(commands)))
        except ReplyLost:
            yield Wait(ctx.backoff(attempt))
    return (yield Batch(tuple(commands)))


def _ask_a_replica(ctx: Context, commands: Sequence[Command[R]]) -> Operation[list[R | Failed] | None]:
    """Send commands to a replica. None: it cannot answer all of them, so the primary is asked from now on.

    That a key is not there proves nothing: the replica, or the next one, may lag.
    """
    with suppress(SwapstoreError):
        replies = yield Batch(tuple(commands), anywhere=True)
        if not any(isinstance(reply, Failed) or reply in _NOTHING for reply in replies):
            return replies
    ctx.route.leave()
    return None


def value_of(reply: R | Failed) -> R:
    """Return a reply, or raise the error with which the store refused the command."""
    if isinstance(reply, Failed):
        raise reply.error
    return reply


def nothing_published(ctx: Context) -> NotFound:
    """Return the error for a dataset without a manifest. It names the store: often it is the wrong one."""
    return NotFound(f"nothing is published in {ctx.place}; publish a snapshot first")


def published(found: Manifest | None) -> Manifest | None:
    """Return a manifest as readers and producers see it. None: nothing is published, or all was dropped."""
    return None if found is None or found.head.is_dropped else found


# --- the manifest ----------------------------------------------------------------------------------


def _known(ctx: Context, key: str) -> Known | None:
    """Return the manifest that this client remembers. If it remembers too little, no replica is asked."""
    if ctx.route.anywhere and ctx.cache.must_ask_primary(key):
        ctx.route.leave()
    return ctx.cache.known(key)


def _load_beside_the_list(ctx: Context, key: str) -> Operation[bytes | None]:
    """Read a manifest, and make sure that the list of names is on the same server."""
    both: list[Command[Any]] = [Get(key), Ttl(ctx.keys.datasets())]
    raw, ttl = yield from ask_all(ctx, both)
    found: bytes | None = value_of(raw)
    if isinstance(ttl, Failed) and isinstance(ttl.error, Unsupported):
        raise ttl.error
    ctx.capabilities.may_be_node = False
    return found


def load_manifest(ctx: Context, dataset: str, *, beside_list: bool = False) -> Operation[Manifest | None]:
    """Read the whole manifest, and remember it. None: nothing is published.

    `beside_list`: raise `Unsupported` if this is a node of a cluster, and the list of names is on another.

    When the store shows an older version than this client has seen, or none, a replica may lag: the manifest
    is read again, a few times. If the store still shows the older one, the store itself has gone back (a
    restored backup, a flush, a failover that lost writes), and the client follows it. That is for the primary
    to show: see `Route`.
    """
    key = ctx.keys.manifest(dataset)
    known = _known(ctx, key)
    if ctx.route.anywhere:
        at_replica = yield from _manifest_at_replica(ctx, dataset, known)
        if at_replica is not None:
            return at_replica
    found: Manifest | None = None
    read_at = 0.0
    for attempt in range(ctx.policy.read_attempts):
        if attempt:
            yield Wait(ctx.backoff(attempt))
        read_at = ctx.clock.monotonic()
        if beside_list:
            raw = yield from _load_beside_the_list(ctx, key)
        else:
            raw = yield from ask(ctx, Get(key))
        found = manifest.parse(raw, dataset, key) if raw is not None else None
        if known is None or (found is not None and not cache.is_newer(known.manifest, found)):
            break
    if found is None:
        if known is not None:
            yield from require_data(ctx)
        ctx.cache.forget(key, basis=known)
    else:
        ctx.cache.learn(found, read_at, basis=known, retreat=True)
    return found


def _manifest_at_replica(ctx: Context, dataset: str, known: Known | None) -> Operation[Manifest | None]:
    """Read the whole manifest from a replica. None: it shows less than this client has seen, or nothing."""
    key = ctx.keys.manifest(dataset)
    read_at = ctx.clock.monotonic()
    replies = yield from _ask_a_replica(ctx, [Get(key)])
    if replies is None:
        return None
    raw: Any = replies[0]
    found: Manifest | None = None
    with suppress(Damaged):  # the primary tells whether it is
        found = manifest.parse(raw, dataset, key)
    if found is None or (known is not None and not _goes_on(known.manifest, found)):
        ctx.route.leave()
        return None
    ctx.cache.learn(found, read_at, basis=known)
    return found


def _goes_on(known: Manifest, found: Manifest) -> bool:
    """Say whether a replica shows what this client has seen, or what was committed after it."""
    return known.epoch == found.epoch and known.version <= found.version


def _first_manifest(ctx: Context, dataset: str) -> Operation[Manifest | None]:
    """Read a manifest that this client does not remember, for a caller that relies on what it finds."""
    found = yield from load_manifest(ctx, dataset)
    if found is None:
        yield from require_data(ctx)
    return found


def require_data(ctx: Context) -> Operation[None]:
    """Raise `Unavailable` if the server is a replica that is not connected to its primary.

    It may never have had any data. That nothing is there says nothing then.
    """
    if not ctx.capabilities.tells_role:
        return
    (role,) = yield from ask_all(ctx, [Ask(("ROLE",))])
    match role:
        case [b"slave" | "slave", _, _, state, *_]:
            if state not in {b"connected", "connected"}:
                raise Unavailable(
                    "nothing is there, but the server is a replica that is not connected to its primary, and "
                    "may have no data yet; try again soon"
                )
        case Failed():
            ctx.capabilities.tells_role = False  # it has no such command, or not for this user


def current_manifest(ctx: Context, dataset: str) -> Operation[Manifest | None]:
    """Return the manifest that is stored now: the remembered one if the stored etag is still the same."""
    key = ctx.keys.manifest(dataset)
    known = _known(ctx, key)
    if known is None:
        return (yield from _first_manifest(ctx, dataset))
    if not known.manifest.complete:
        return (yield from load_manifest(ctx, dataset))
    prefix = manifest.prefix(known.manifest.etag)
    read_at = ctx.clock.monotonic()
    if (yield from ask(ctx, Peek(key, len(prefix)))) != prefix:
        return (yield from load_manifest(ctx, dataset))
    ctx.cache.touch(known, read_at)
    return known.manifest


def current_head(ctx: Context, dataset: str) -> Operation[Manifest | None]:
    """Return the manifest that is stored now, or its header alone, which names the snapshot that is served.

    One read compares the etag and brings the header along. So a reader of a new version needs no second one
    before it reads the record.
    """
    key = ctx.keys.manifest(dataset)
    known = _known(ctx, key)
    if known is None:
        return (yield from _first_manifest(ctx, dataset))  # all of it: this client may publish next
    size = known.manifest.head_size + HEAD_SLACK_BYTES
    read_at = ctx.clock.monotonic()
    peeked = yield from ask(ctx, Peek(key, size))
    if peeked.startswith(manifest.prefix(known.manifest.etag)):
        ctx.cache.touch(known, read_at)
        return known.manifest
    found: Manifest | None = None
    with suppress(Damaged):  # the whole manifest, or the primary, tells more
        found = manifest.parse_head(peeked, dataset, key, whole=len(peeked) < size)
    if (
        found is None
        or cache.is_newer(known.manifest, found)
        or (ctx.route.anywhere and not _goes_on(known.manifest, found))
    ):
        return (yield from load_manifest(ctx, dataset))
    ctx.cache.learn(found, read_at, basis=known)
    return found


def current_served(
    ctx: Context,
    dataset: str,
    names: Sequence[str] = (),
    keep: Callable[[Manifest, Served], Operation[None]] | None = None,
) -> Operation[Manifest | None]:
    """Return the manifest that is stored now, or its header alone, to a reader of the snapshot it serves.

    A client that remembers no manifest of the dataset reads it and the served record in one round trip, where
    the store can do that, and remembers both. `names`: instead of the record, those of these members of a
    group are read, and `keep` remembers them.
    """
    key = ctx.keys.manifest(dataset)
    largest = min(SERVED_BYTES, ctx.cache.largest)
    if largest <= 0 or not ctx.capabilities.serves or _known(ctx, key) is not None:
        return (yield from current_head(ctx, dataset))
    read_at = ctx.clock.monotonic()
    prefix = ctx.keys.members(dataset) if names else ctx.keys.id(dataset, "")
    question = GetServed(key, prefix, ctx.keys.base(dataset, ""), largest, tuple(names))
    served: Served | Failed | None = None
    if ctx.route.anywhere:
        replies = yield from _ask_a_replica(ctx, [question])
        served = None if replies is None else replies[0]
    if not ctx.route.anywhere:
        served = yield from _ask_once(question)
    if served is None or isinstance(served, Failed):
        # Plain commands are tried instead, and fail if more is wrong than that this command does not work.
        # Damage concerns one dataset, and a failover passes. They say nothing about the command.
        passing = isinstance(served, Failed) and (served.again or isinstance(served.error, Damaged))
        ctx.capabilities.serves = passing
        return (yield from _first_manifest(ctx, dataset))
    if served.manifest is None:
        yield from require_data(ctx)
        ctx.cache.forget(key, basis=None)
        return None
    try:
        found = manifest.parse(served.manifest, dataset, key)
    except Damaged:
        if not ctx.route.leave():
            raise
        return (yield from _first_manifest(ctx, dataset))
    if found.head_size == len(found.raw):
        found = msgspec.structs.replace(found, complete=False)
    ctx.cache.learn(found, read_at, basis=None, retreat=True)
    with suppress(Damaged):  # the caller reads the record next, and raises this
        if found.head.is_dropped:
            pass
        elif keep is not None:
            yield from keep(found, served)
        elif served.record is not None:
            yield from payload_in(ctx, dataset, found.head.serving, served.record, served.base)
    return found


def _ask_once(question: GetServed) -> Operation[Served | Failed | None]:
    """Ask the primary once: a proxy may close the connection when it does not know the command."""
    try:
        (served,) = yield Batch((question,))
    except ReplyLost:
        return None
    found: Served | Failed = served
    return found


# --- pages of the log ------------------------------------------------------------------------------


def load_page(ctx: Context, dataset: str, ref: Ref) -> Operation[Page]:
    """Read a page and check it."""
    (page,) = yield from load_pages(ctx, dataset, [ref])
    return page


def load_pages(ctx: Context, dataset: str, refs: Sequence[Ref]) -> Operation[list[Page]]:
    """Read pages in one round trip, and check them. Returns those before the first that cannot be read.

    Raises what is wrong with the first of all. Pages are immutable, so they are cached by their key and
    bounds. The key alone may stand for other rows, if the store went back and has grown past what this client
    knew.
    """
    cached = [cached_page(ctx, ref) for ref in refs]
    missing = [Get(ref.key) for ref, record in zip(refs, cached, strict=True) if record is None]
    replies = iter((yield from ask_all(ctx, missing)))
    found: list[Page] = []
    for ref, known in zip(refs, cached, strict=True):
        record = next(replies) if known is None else known
        try:
            page = _page_in(record, ref, dataset)
        except SwapstoreError:
            if not found:
                raise
            break
        if known is None and isinstance(record, bytes):
            ctx.cache.keep(ref.key, _bounds(ref), record)
        found.append(page)
    return found


def cached_page(ctx: Context, ref: Ref) -> bytes | None:
    """Return the record of a page that this client has read or sealed, if it remembers it."""
    return ctx.cache.record(ref.key, _bounds(ref))


def keep_pages(ctx: Context, sealed: Iterable[SealedPage]) -> None:
    """Remember the pages that a commit of this client has sealed. Retention takes them apart one day."""
    for page in sealed:
        ctx.cache.keep(page.ref.key, _bounds(page.ref), page.record)


def _bounds(ref: Ref) -> str:
    return f"{ref.count}.{ref.min_ts}.{ref.max_ts}"


def _page_in(reply: bytes | Failed | None, ref: Ref, dataset: str) -> Page:
    record = value_of(reply)
    if record is None:
        raise pages.missing(ref)
    return pages.parse(record, ref, dataset)


def find(ctx: Context, dataset: str, searching: Generator[Ref, Page, T]) -> Operation[T]:
    """Run a search of `format.search`, which does no I/O: load each page that it asks for."""
    return supplied(searching, partial(load_page, ctx, dataset))


def gather(ctx: Context, dataset: str, walking: Generator[list[Ref], list[Page], T]) -> Operation[T]:
    """Run a walk of `format.search`, which does no I/O: load each batch of pages that it asks for."""
    return supplied(walking, partial(load_pages, ctx, dataset))


def supplied(asking: Generator[A, R, T], load: Callable[[A], Operation[R]]) -> Operation[T]:
    """Run what asks for something, again and again, and is sent what `load` makes of it."""
    try:
        wanted = next(asking)
        while True:
            wanted = asking.send((yield from load(wanted)))
    except StopIteration as stop:
        result: T = stop.value
        return result


# --- rows and snapshots ----------------------------------------------------------------------------


def find_id(
    ctx: Context,
    current: Manifest,
    id: str,  # noqa: A002
    *,
    hidden: bool = False,
) -> Operation[Row | None]:
    """Find the row of an id. None: no row names it, even if there is a record under its key.

    A row in a page is searched for by its `ts`, which the id record tells. `hidden` also finds rows that
    retention hides and has not unlinked yet.
    """
    head, dataset = current.head, current.head.dataset
    for row in (*head.kept, *reversed(current.log.rows)):
        if row.id == id and (hidden or head.keeps(row)):
            return row
    key = ctx.keys.id(dataset, id)
    record = yield from ask(ctx, Get(key))
    if record is None or record == records.DELETED:
        return None
    try:
        entry = records.entry_of(record, key)
    except Corrupt:
        if (yield from ask(ctx, Ttl(key))) != PERMANENT:
            return None  # it has a TTL, so it is not committed
        raise
    query = search.ById(id, entry.ts)
    found = yield from find(ctx, dataset, search.search(current, query, hidden=hidden))
    if found is not None:
        with suppress(Damaged):  # the next reader of the record raises this
            yield from payload_in(ctx, dataset, found, record)
    return found


def load_snapshot(ctx: Context, current: Manifest, row: Row) -> Operation[Snapshot]:
    """Read the record of a row, check it against the row, and remember its payload."""
    dataset = current.head.dataset
    key = ctx.keys.id(dataset, row.id)
    payload = ctx.cache.record(key, row.sha256)
    if payload is None:
        asked = [Get(key)]
        if row.base is not None and ctx.cache.base(ctx.keys.base(dataset, row.base)) is None:
            asked.append(Get(ctx.keys.base(dataset, row.base)))
        record, *brought = yield from ask_all(ctx, asked)
        base = next((reply for reply in brought if not isinstance(reply, Failed)), None)
        payload = yield from payload_in(ctx, dataset, row, value_of(record), base)
    fields = snapshot_fields(row, current.head)
    return Snapshot(**{**fields, "labels": dict(row.labels)}, seen_at=ctx.seen_at(current), raw=payload)


def payload_in(
    ctx: Context, dataset: str, row: Row, record: bytes | None, base_record: bytes | None = None
) -> Operation[bytes]:
    """Decode the payload in an id record, check it against the row, and remember it.

    `base_record`: the record of the base that the row names, if it was read along. The id record decides
    whether a base is needed, and which.
    """
    key = ctx.keys.id(dataset, row.id)
    held = records.held(record, row, key)
    base = None
    if held.base is not None:
        check_base(held.base, key)
        base = yield from load_base(ctx, dataset, held.base, base_record if held.base == row.base else None)
    payload = held.payload(base)
    ctx.cache.keep(key, row.sha256, payload)
    cache.note_frame(row.sha256, held)
    return payload


def load_base(ctx: Context, dataset: str, name: str, record: bytes | None = None) -> Operation[Dictionary]:
    """Read a base and check it, and remember it. `record`: it was read already.

    Raises `PayloadMissing` if it does not exist, and `Corrupt` if it is damaged.
    """
    key = ctx.keys.base(dataset, name)
    base = ctx.cache.base(key)
    if base is None:
        record = record or (yield from ask(ctx, Get(key)))
        if record is None:
            raise bases.missing(key)
        base = bases.parse(record, name, dataset=dataset, key=key)
        ctx.cache.keep_base(key, base, compressing=ctx.policy.compression == "delta")
    return base


def served(current: Manifest, payload: bytes, seen_at: int) -> Snapshot:
    """Build the snapshot that a manifest serves, with a copy of the labels: see `own`."""
    fields = current.serving_fields
    made = object.__new__(Snapshot)  # within max_staleness, __init__ would add a fifth to the call
    made.__dict__.update(fields, labels=dict(fields["labels"]), raw=payload, seen_at=seen_at, stale=False)
    return made


def own(found: Labelled) -> Labelled:
    """Copy a row or snapshot with its labels: a caller that changes them changes nothing in the cache."""
    if isinstance(found, Row):
        return attrs.evolve(found, labels=dict(found.labels))
    if isinstance(found, Group):
        members = {name: attrs.evolve(member) for name, member in found.members.items()}
        return attrs.evolve(found, labels=dict(found.labels), members=members)
    # Every read calls this. `evolve` loops over the fields, and takes ten times as long.
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
        confirmed_at=found.confirmed_at,
        seen_at=found.seen_at,
        stale=found.stale,
        raw=found.raw,
    )


# --- whether a manifest names something ------------------------------------------------------------
#
# The answer decides what is unlinked. When a damaged page leaves it open, it is yes: verify finds a record
# that stays too long, but one that is unlinked too early is lost.


def is_in_log(ctx: Context, dataset: str, log: Log, query: search.Query) -> Operation[bool]:
    """Say whether a log holds such a row, hidden or not."""
    try:
        return (yield from find(ctx, dataset, search.in_log(log, query))) is not None
    except Damaged:
        return True


def is_row_named(ctx: Context, current: Manifest, version: int) -> Operation[bool]:
    """Say whether the header or the log names the row of a version."""
    if any(row.version == version for row in current.head.kept):
        return True
    return (yield from is_in_log(ctx, current.head.dataset, current.log, search.ByVersion(version)))


def is_base_named(ctx: Context, current: Manifest, name: str) -> Operation[bool]:
    """Say whether a base is in force, or the header or the log names it."""
    in_force = current.log.base
    if (in_force and in_force.name) == name or any(row.base == name for row in current.head.copies):
        return True
    return (yield from is_in_log(ctx, current.head.dataset, current.log, search.ByBase(name)))


def is_page_named(ctx: Context, current: Manifest, key: str, first_version: int) -> Operation[bool]:
    """Say whether the log names this page. `first_version` is the version of the page's first row."""
    try:
        return (yield from find(ctx, current.head.dataset, search.is_named(current, key, first_version)))
    except Damaged:
        return True
