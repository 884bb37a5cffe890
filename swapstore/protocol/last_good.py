"""Last good: what a reader was given last is served in an outage, and too old data is refused.

Both are asked for by the reader (`stale_if_error`, `max_age`). Only an outage counts, an `Unavailable`:
damage and refusals are raised, and so is that the store answers and does not show the `min_version`.

A reader that has something to serve waits for no patience: it tries once, within the time-out, and only if no
other caller tries already (see `outages`).

What is served is never older than what this client has given a reader before. So every read of a dataset that
is kept passes by `Cache.keep_good`, and a change by this client drops what is outdated by it.
"""

from __future__ import annotations

from copy import copy
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from swapstore import arguments
from swapstore.cache import LastGood, version_of
from swapstore.errors import SwapstoreError, TooStale, Unavailable
from swapstore.models import CLOCKS_AGREE_MS, GROUP, Group, Snapshot
from swapstore.outages import Attempt
from swapstore.protocol.batching import batched
from swapstore.protocol.context import about
from swapstore.protocol.load import own, served
from swapstore.protocol.operation import Operation, Within
from swapstore.protocol.read import cached, read_latest, remembered
from swapstore.structs import Struct

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from swapstore.models import Commit
    from swapstore.protocol.context import Context

T = TypeVar("T")

DEFAULT_WITHIN_S = 10.0  # where no time-out of the client says how long an attempt may take
ABANDONED_S = 60.0  # after the time-out: then an attempt is over, whatever became of its thread


class Terms(Struct, frozen=True, kw_only=True):
    """What a reader takes, in seconds. `stale_if_error_s` of 0: nothing stale. `max_age_s`: None: any age.

    `names`: of a group, these members; None: all. `of_group`: nothing but a group.
    """

    stale_if_error_s: float
    max_age_s: float | None
    min_version: int = 0
    names: Sequence[str] | None = None
    of_group: bool = False

    @classmethod
    def of(cls, ctx: Context, stale_if_error: Any, max_age: Any, **others: Any) -> Terms:
        """Check what a caller has given."""
        stale_s = ctx.policy.stale_if_error_s
        if stale_if_error is not None:
            stale_s = arguments.staleness_s(stale_if_error, "stale_if_error")
        most_s = None if max_age is None else arguments.staleness_s(max_age, "max_age")
        return cls(stale_if_error_s=stale_s, max_age_s=most_s, **others)


# --- what may be served -----------------------------------------------------------------------------


def find(ctx: Context, dataset: str, terms: Terms) -> LastGood | None:
    """Return what may be served in an outage. None: nothing that this reader takes."""
    if terms.stale_if_error_s <= 0:
        return None
    now = ctx.clock.monotonic()
    for good in _remembered(ctx, dataset, terms):
        if (
            now - good.read_at <= terms.stale_if_error_s
            and version_of(good.snapshot.etag) >= terms.min_version
            and _has(good.snapshot, terms)
            and (terms.max_age_s is None or not _is_too_old(_stale(ctx, good), ctx.clock.now_ms(), terms))
        ):
            return good
    return None


def _remembered(ctx: Context, dataset: str, terms: Terms) -> Iterator[LastGood]:
    """Yield what this client remembers: what the store showed last first, then what a reader was given last.

    The two differ if the store showed a newer version and its payload did not come, or was evicted.
    """
    key = ctx.keys.manifest(dataset)
    good, known = ctx.cache.kept.get(key), ctx.cache.known(key)
    if good is not None and known is not None and good.snapshot.etag == known.manifest.etag:
        yield LastGood(good.snapshot, max(good.read_at, known.read_at), good.keep_s)
    if known is not None:
        found = cached(ctx, known, terms.names)
        if found is not None:
            yield LastGood(found, known.read_at, 0.0)
    if good is not None:
        yield good


def _has(found: Snapshot, terms: Terms) -> bool:
    """Say whether a snapshot has what the reader wants of it."""
    if terms.names is not None:
        return isinstance(found, Group) and all(name in found.members for name in terms.names)
    if isinstance(found, Group):
        return bool(found.raw)  # else only some members were read
    return not terms.of_group


def _stale(ctx: Context, good: LastGood) -> Snapshot:
    """Return a copy that says since when it is not known to be current."""
    made = own(good.snapshot)
    age_ms = int((ctx.clock.monotonic() - good.read_at) * 1000)
    made.__dict__.update(stale=True, seen_at=ctx.clock.now_ms() - age_ms)
    return made


def _serve(ctx: Context, dataset: str, good: LastGood, terms: Terms, error: Unavailable) -> Snapshot:
    found = _stale(ctx, good)
    if terms.names is not None and isinstance(found, Group):
        found = attrs.evolve(found, raw=b"", members={name: found.members[name] for name in terms.names})
    key = ctx.keys.manifest(dataset)
    kept = ctx.cache.kept.get(key)
    if kept is None or good.snapshot is not kept.snapshot:
        ctx.cache.keep_good(key, own(good.snapshot), terms.stale_if_error_s)
    if ctx.hook is not None:
        _emit_stale(ctx, found, error, stale_s=ctx.clock.monotonic() - good.read_at)
    return found


def _emit_stale(ctx: Context, found: Snapshot, error: Unavailable, *, stale_s: float) -> None:
    from swapstore.events import ReadStale  # noqa: PLC0415 - only listeners need it

    ctx.emit(
        ReadStale(
            dataset=found.dataset,
            version=found.version,
            id=found.id,
            size=found.size,
            error=type(error).__name__,
            stale_s=stale_s,
        )
    )


def _is_too_old(found: Snapshot, now_ms: int, terms: Terms) -> bool:
    """Say whether a snapshot is too old, or nobody can tell because the clocks disagree."""
    if terms.max_age_s is None:
        return False
    if now_ms - found.confirmed_at < -CLOCKS_AGREE_MS:
        return True
    return now_ms - min(found.confirmed_at, found.seen_at) > terms.max_age_s * 1000


def _accepted(ctx: Context, dataset: str, found: Snapshot, terms: Terms) -> Snapshot:
    """Keep what the store has shown just now, and return a copy for the caller. Raises `TooStale`."""
    if terms.stale_if_error_s > 0:
        key = ctx.keys.manifest(dataset)
        good = ctx.cache.kept.get(key)
        if (
            good is None
            or good.keep_s < terms.stale_if_error_s
            or good.snapshot.etag != found.etag
            or isinstance(found, Group)
        ):
            ctx.cache.keep_good(key, own(found), terms.stale_if_error_s)
    now_ms = ctx.clock.now_ms()
    if _is_too_old(found, now_ms, terms):
        raise TooStale.of(found, now_ms, terms.max_age_s or 0.0)
    return own(found)


def keep_published(ctx: Context, dataset: str, commit: Commit, payload: bytes) -> None:
    """Keep what this client has published, in place of what it was given before. Not a group."""
    key = ctx.keys.manifest(dataset)
    known = ctx.cache.known(key)
    if known is None or key not in ctx.cache.kept:
        return
    row = known.manifest.head.serving
    if (row.id, row.sha256) == (commit.id, commit.sha256) and row.codec != GROUP:
        ctx.cache.keep_good(key, served(known.manifest, payload, ctx.moment(known)), 0.0)


# --- reads ------------------------------------------------------------------------------------------


def read_one(
    ctx: Context, dataset: str, reading: Operation[T], max_staleness_s: float, terms: Terms
) -> Operation[T]:
    """Run a read unless something can be served at once; in an outage, return what may be served instead."""
    found: Any = at_once(ctx, dataset, max_staleness_s, terms)
    if found is not None:
        return found  # type: ignore[no-any-return]
    outcome: Any
    if find(ctx, dataset, terms) is None:
        outcome = yield from reading
    else:
        outcome = yield from attempt(ctx, dataset, reading)
    found = answer(ctx, dataset, outcome, terms)
    return found  # type: ignore[no-any-return]


def at_once(ctx: Context, dataset: str, max_staleness_s: float, terms: Terms) -> Snapshot | None:
    """Return what can be served without I/O. None: the store has to be asked.

    It was asked a short while ago, or another caller tries at this moment whether an outage is over.
    """
    now_ms = ctx.clock.now_ms()
    takes = None if terms.max_age_s is None else lambda found: not _is_too_old(found, now_ms, terms)
    found = remembered(ctx, dataset, max_staleness_s, terms.min_version, names=terms.names, takes=takes)
    if found is not None and (isinstance(found, Group) or not terms.of_group):
        return _accepted(ctx, dataset, found, terms)
    error = ctx.cache.outages.tried(dataset, ctx.clock.monotonic())
    good = None if error is None else find(ctx, dataset, terms)
    return None if error is None or good is None else _serve(ctx, dataset, good, terms, error)


def answer(
    ctx: Context, dataset: str, outcome: Snapshot | SwapstoreError | None, terms: Terms
) -> Snapshot | None:
    """Return what the caller of a read gets: what was read, or in an outage what it was given last.

    Raises the error if there is nothing to serve, and `TooStale`.
    """
    if isinstance(outcome, Unavailable) and not outcome.behind:
        good = find(ctx, dataset, terms)
        if good is not None:
            return _serve(ctx, dataset, good, terms, outcome)
    if isinstance(outcome, SwapstoreError):
        error = copy(outcome)  # callers who share an attempt each get their own
        raise error from outcome.__cause__
    return None if outcome is None else _accepted(ctx, dataset, outcome, terms)


def attempt(
    ctx: Context, dataset: str, reading: Operation[T], came: int | None = None
) -> Operation[T | Unavailable]:
    """Run a read without patience. Returns the error if there is an outage, or another caller tries already.

    `came`: how many attempts had failed when the caller came, if it has waited for others since.
    """
    with _Trying(ctx, came) as trying:
        refusal = trying.refused(dataset, ctx.clock.monotonic())
        if refusal is not None:
            return refusal
        yield Within(trying.within_s, patient=False)
        try:
            found = yield from reading
        except Unavailable as error:
            if not error.behind:
                trying.failed(dataset, error)
            return error
        trying.succeeded(dataset)
        return found


def read_many(
    ctx: Context, datasets: Sequence[str], max_staleness_s: float, terms: Terms
) -> Operation[dict[str, Snapshot | None]]:
    """Read several datasets in one batch; see `read_one`. The first error is raised in the end."""
    found = {name: at_once(ctx, name, max_staleness_s, terms) for name in datasets}
    reading = {name: read_latest(ctx, name) for name, served in found.items() if served is None}
    outcomes = yield from _attempts(ctx, reading, terms)
    failures: list[SwapstoreError] = []
    for name in reading:
        try:
            with about(ctx, "read_latest", name):
                found[name] = answer(ctx, name, outcomes[name], terms)
        except SwapstoreError as error:
            failures.append(error)
    if failures:
        raise failures[0]
    return found


def _attempts(
    ctx: Context, readings: Mapping[str, Operation[Snapshot | None]], terms: Terms
) -> Operation[dict[str, Snapshot | SwapstoreError | None]]:
    """Run reads of several datasets in one batch. Returns the outcome of each, for `answer`.

    Where others try whether an outage is over, these datasets are not read. All that are read are read
    without patience, if there is something to serve of each.
    """
    outcomes: dict[str, Snapshot | SwapstoreError | None] = {}
    with _Trying(ctx, None) as trying:
        having = [name for name in readings if find(ctx, name, terms) is not None]
        for name in having:
            refusal = trying.refused(name, ctx.clock.monotonic())
            if refusal is not None:
                outcomes[name] = refusal
        wanted = {name: reading for name, reading in readings.items() if name not in outcomes}
        if wanted and wanted.keys() <= set(having):
            yield Within(trying.within_s, patient=False)
        found = yield from batched(ctx, wanted)
        for name in wanted:
            outcome = found[name]
            if isinstance(outcome, Unavailable):
                trying.failed(name, outcome)
            elif not isinstance(outcome, SwapstoreError):
                trying.succeeded(name)
    return outcomes | found


# --- reads that concurrent callers share ------------------------------------------------------------


def shared(
    ctx: Context, dataset: str, terms: Terms
) -> tuple[str, Callable[[], Operation[Snapshot | SwapstoreError | None]]]:
    """Return what a reader shares with others, and under which key. `shared_answer` takes the outcome.

    Readers who have something to serve share with each other, because they have no patience.
    """
    if find(ctx, dataset, terms) is None:
        return dataset, partial(_shared, ctx, dataset, None)
    return f"{dataset} or stale", partial(_shared, ctx, dataset, ctx.cache.outages.failures)


def _shared(ctx: Context, dataset: str, came: int | None) -> Operation[Snapshot | SwapstoreError | None]:
    with about(ctx, "read_latest", dataset) as name:
        reading = read_latest(ctx, name)
        return (yield from (reading if came is None else attempt(ctx, name, reading, came)))


def shared_answer(
    ctx: Context, dataset: str, outcome: Snapshot | SwapstoreError | None, terms: Terms
) -> Snapshot | None:
    """Return what one of those who shared a read gets: a copy of its own; see `answer`."""
    with about(ctx, "read_latest", dataset) as name:
        return answer(ctx, name, outcome, terms)


class _Trying(Attempt):
    """An attempt of a caller of this context, who waits for `within_s` seconds at most."""

    def __init__(self, ctx: Context, came: int | None) -> None:
        self.within_s = ctx.policy.total_s or ctx.policy.reply_s or DEFAULT_WITHIN_S
        until = ctx.clock.monotonic() + self.within_s + ABANDONED_S
        super().__init__(ctx.cache.outages, until, came)
