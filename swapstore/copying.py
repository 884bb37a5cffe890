"""Copy datasets from one store to another, and keep the copy current.

The commits of a dataset are copied one by one, the oldest first, each with its own id, `ts`, labels, dedupe
key and time of its commit. A copy that is cut short leaves the first part of them, and a new run goes on.

If nothing is published in the target yet, and the source has a pin, the pinned snapshot comes before all
others, and its commit pins it, too. So a target that is new serves what the source serves from its first
commit on, wherever the copy is cut short. The pin of a target that has the dataset is never changed.

What the target has already is found by what its rows say, before any payload is read: see `_Plan`. After
that, a copy that follows remembers the last row that it copied, and goes on after it. If one of the stores
goes back (a restored backup, a flush, a failover that lost writes), it compares all rows again.
"""

from __future__ import annotations

import logging
import sys
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import attrs

from swapstore import arguments
from swapstore.errors import (
    Damaged,
    IdConflict,
    InvalidInput,
    NotFound,
    Refused,
    Rejected,
    StoreClosed,
    SwapstoreError,
    TooOld,
    Unavailable,
    UnderReplicated,
)
from swapstore.format.manifest import Manifest
from swapstore.fsck.keyset import Keyset
from swapstore.models import Snapshot
from swapstore.protocol import copying, prune
from swapstore.protocol.batching import batched
from swapstore.protocol.clock import retention_time
from swapstore.protocol.operation import portions
from swapstore.reports import Copied, CopyStep
from swapstore.store import AsyncStore, Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import timedelta

    from swapstore.format.manifest import Head
    from swapstore.models import Commit, Entry, Row
    from swapstore.protocol.operation import Operation
    from swapstore.reports import CopyOutcome

    Look = Manifest | SwapstoreError | None  # at a dataset of one store
    Tried = tuple[CopyOutcome, SwapstoreError | None]

History = Literal["all", "latest"] | int

LOG = logging.getLogger("swapstore")
BATCH_BYTES = 4 * 1024 * 1024  # of payloads that are read from the source at once
BATCH_ROWS = 64
FAILURES_KEPT = 20
LOOK_S = 0.25  # how long until a copy that waits sees that a store was closed


def copy(
    source: Store,
    target: Store,
    datasets: Iterable[str] | str | None,
    *,
    history: History,
    on_progress: Callable[[CopyStep], object] | None,
    follow: bool,
    poll: float | timedelta,
) -> list[Copied]:
    """Copy datasets. See `swapstore.copy`."""
    _refuse_stores(source, target)
    names = _names(datasets)
    limit = None if history == "all" else 0 if history == "latest" else _number(history)
    if on_progress is not None and not callable(on_progress):
        raise InvalidInput(f"on_progress must be a function, not {type(on_progress).__name__}")
    job = _Job(source, target, names, limit, on_progress, follows=follow)
    if follow:
        return job.follow(arguments.poll_s(poll))
    return job.once()


# --- arguments -------------------------------------------------------------------------------------


def _refuse_stores(source: Any, target: Any) -> None:
    for store in (source, target):
        if isinstance(store, AsyncStore):
            raise InvalidInput(
                "copy takes two blocking stores: make them with swapstore.connect(), and run "
                "asyncio.to_thread(swapstore.copy, source, target)"
            )
        if not isinstance(store, Store):
            raise InvalidInput(f"copy takes two stores that connect() returned, not {arguments.shown(store)}")
    if source is target or (source.where, source.namespace) == (target.where, target.namespace):
        raise InvalidInput(
            f"source and target are the same: {source.where}, namespace {source.namespace!r}. Nothing was "
            "copied; name another store, or another namespace"
        )


def _names(datasets: Any) -> list[str] | None:
    if datasets is None:
        return None
    try:
        given = [datasets] if isinstance(datasets, str) else list(datasets)
    except TypeError as error:
        raise InvalidInput(f"datasets must be names of datasets, not a {type(datasets).__name__}") from error
    return list(dict.fromkeys(arguments.dataset(name) for name in given))


def _number(history: Any) -> int:
    if isinstance(history, str):
        raise InvalidInput(f"history must be 'all', 'latest' or a number, not {arguments.shown(history)}")
    return arguments.whole(history, "history", least=1)


# --- rounds ----------------------------------------------------------------------------------------


@attrs.define
class _Job:
    """One call: its datasets, and where they stand."""

    source: Store
    target: Store
    names: list[str] | None
    limit: int | None  # of the newest commits; 0: the snapshot that is served; None: all
    on_progress: Callable[[CopyStep], object] | None
    follows: bool
    known: dict[str, _Dataset] = attrs.field(factory=dict)

    def once(self) -> list[Copied]:
        """Copy everything that is there."""
        looks = self.looks()
        missing = [name for name, (ours, _) in looks.items() if ours is None and self.names is not None]
        if missing or not looks:
            what = f" as {', '.join(map(repr, missing))}" if missing else ""
            raise NotFound(
                f"nothing is published{what} in the source, {self.source.where}, namespace "
                f"{self.source.namespace!r}. Nothing was copied; are the address and the namespace right?"
            )
        self.round(looks)
        for each in self.known.values():
            if each.under is not None:
                raise each.under
        return self.results()

    def follow(self, poll_s: float) -> list[Copied]:
        """Copy what is there and what comes, until one of the stores is closed.

        `Unavailable` is raised at the beginning: an address may be wrong.
        """
        self.target.datasets()
        if not any(ours for ours, _ in self.looks().values()):
            LOG.warning("nothing is published in the source, %s; waiting for it", self.source.where)
        failed = False
        while not self.is_over():
            try:
                self.round(self.looks())
            except (Unavailable, StoreClosed) as error:
                if self.is_over():
                    break
                if not failed:
                    LOG.warning("copying is interrupted: %s; retrying until it goes on", error)
                failed = True
            else:
                if failed:
                    LOG.warning("copying goes on")
                failed = False
            self.wait(poll_s)
        return self.results()

    def looks(self) -> dict[str, tuple[Look, Look]]:
        """Return the manifests of source and target, or what is wrong with them, but for what has ended."""
        names = self.source.datasets() if self.names is None else self.names
        ended = {name for name, each in self.known.items() if each.done.ended}
        found: list[dict[str, Look]] = []
        for store in (self.source, self.target):
            ctx = _context(store)
            looking = {name: copying.stored(ctx, name) for name in names if name not in ended}
            found.append(_run(store, batched(ctx, looking)))
        ours, theirs = found
        return {name: (look, theirs[name]) for name, look in ours.items()}

    def round(self, looks: Mapping[str, tuple[Look, Look]]) -> None:
        """Copy what is new in these datasets."""
        for name, (ours, theirs) in looks.items():
            self.known.setdefault(name, _Dataset(self, name)).advance(ours, theirs)

    def wait(self, seconds: float) -> None:
        """Wait until the next look, or until a store is closed."""
        while seconds > 0 and not self.is_over():
            _context(self.source).clock.sleep(min(seconds, LOOK_S))
            seconds -= LOOK_S

    def is_over(self) -> bool:
        """Whether one of the stores is closed."""
        return self.source._is_closed() or self.target._is_closed()  # noqa: SLF001

    def results(self) -> list[Copied]:
        """Return what was done with each dataset."""
        return [each.done for each in self.known.values()]


@attrs.define
class _Dataset:
    """Copies one dataset, in one or several rounds.

    `position`: the versions of the source up to this one are done; None: all rows are to be compared. `last`
    is a row that the source has as long as it has not gone back: the one that was done last, or before that
    its newest one. `etag` is the manifest that was done. `plan`: what the last comparison has found, until
    all of that is done. `began`: later versions of the source are copied, however many newest ones are asked
    for; they were published after the copy began, or are among those.

    Of the target, `seen` is the manifest that was there after that, `epoch` and `version` are those of the
    last commit. `lost`: a commit has a version that an earlier one had, so the target has lost some.
    `under`: the last commit is on too few replicas; a wait is for those before it, too.
    """

    job: _Job
    name: str
    done: Copied = attrs.field(init=False)
    position: int | None = None
    last: Row | None = None
    etag: str = ""
    began: int = sys.maxsize
    plan: _Plan | None = None
    seen: Manifest | None = None
    epoch: str = ""
    version: int = 0
    lost: bool = False
    under: UnderReplicated | None = None
    tried: int = 0
    total: int = 0

    def __attrs_post_init__(self) -> None:
        self.done = Copied(dataset=self.name)

    def advance(self, ours: Look, theirs: Look) -> None:
        """Copy what a manifest has and the last one had not. `theirs`: that of the target."""
        try:
            for look in (ours, theirs):
                if isinstance(look, SwapstoreError):
                    raise look
            if self.seen is not None and not self._has_seen(theirs):
                self._begin_again()
            if isinstance(ours, Manifest) and ours.etag != self.etag:
                self._copy_all(ours)
        except (IdConflict, Damaged) as error:
            self.done = attrs.evolve(self.done, ended=error.args[0])
            if self.job.follows:
                LOG.warning("dataset %r is not copied any more: %s", self.name, error.args[0])
        except SwapstoreError as error:
            error.dataset = error.dataset or self.name
            raise

    def _has_seen(self, theirs: Look) -> bool:
        """Say whether the target goes on after the manifest that was there last."""
        if not isinstance(theirs, Manifest) or self.seen is None:
            return False
        last = self.seen.log.rows[-1]
        ctx = _context(self.job.target)
        return theirs.etag == self.seen.etag or _run(self.job.target, copying.goes_on(ctx, theirs, last))

    def _begin_again(self) -> None:
        self.position = self.last = self.plan = self.seen = None
        self.etag = self.epoch = ""
        self.version, self.lost = 0, False

    def _copy_all(self, manifest: Manifest) -> None:
        """Copy what a manifest of the source has, and note what both stores serve."""
        target = self.job.target
        while True:
            self._begin(manifest)
            self._walk(manifest.version)
            seen: Manifest | None = _run(target, copying.stored(_context(target), self.name))
            if not self.lost and self._has_committed(seen):
                break
            self._begin_again()
        self.seen = seen
        pin = self.plan.pin if self.plan else None
        has_pinned = pin and seen and seen.head.pinned and seen.head.pinned.id == pin.id
        self.etag, self.plan = manifest.etag, None
        self.done = attrs.evolve(
            self.done,
            pinned=self.done.pinned or bool(has_pinned),
            source_serves=manifest.head.serving.id,
            target_serves=seen.head.serving.id if seen else None,
        )

    def _begin(self, manifest: Manifest) -> None:
        """Find the place to go on at: after the last row, or where a comparison of all rows says."""
        job = self.job
        if self.position is not None:
            reading = copying.goes_on(_context(job.source), manifest, self.last)
            if _run(job.source, reading):
                return
        self._begin_again()
        self.plan = plan = _Plan.of(job, self.name, manifest, self.began)
        self.total += plan.total
        if plan.pin is not None:
            self._copy([plan.pin])
        self._rows(plan.early)
        self.position, self.last = plan.after, manifest.log.rows[-1]
        self.began = min(self.began, plan.after)

    def _walk(self, upto: int) -> None:
        """Copy the rows after the position, up to a version."""
        source = self.job.source
        while self.position is not None and self.position < upto:
            found = _run(source, copying.upcoming(_context(source), self.name, self.position))
            if found is None:  # the dataset is gone
                return
            rows = [item for item in found.items if not isinstance(item, int) and item.version <= upto]
            self._rows(rows)
            ends = [item if isinstance(item, int) else item.version for item in found.items]
            if ends:
                self.position = min(upto, ends[-1])
            if found.at_end:  # before `upto`, if the source has gone back
                return

    def _rows(self, rows: list[Row]) -> None:
        wanted = []
        first = self.plan.pin if self.plan else None
        for row in rows:
            if row == first:  # it has been tried
                continue
            state = "wanted" if self.plan is None else self.plan.state(row)
            if state == "wanted":
                wanted.append(row)
            else:
                self._count(**{state: 1})
        if self.plan is None:
            self.total += len(wanted)
        for batch in portions(wanted, _size_by_row, room=BATCH_BYTES, most=BATCH_ROWS):
            self._copy(batch)
        if rows:
            self.last = rows[-1]

    def _copy(self, rows: list[Row]) -> None:
        """Read snapshots in one batch, and publish them one after the other."""
        source = self.job.source
        ctx = _context(source)
        reads = {str(row.version): copying.snapshot_of(ctx, self.name, row) for row in rows}
        found = _run(source, batched(ctx, reads))
        for row in rows:
            snapshot = found[str(row.version)]
            self._step(row, _size(row, snapshot), *self._tried(row, snapshot))
            self.last = row
            self.position = None if self.position is None else row.version

    def _tried(self, row: Row, found: Snapshot | SwapstoreError | None) -> Tried:
        """Publish one snapshot. Raises what concerns more than this one."""
        if found is None:
            return "skipped", None
        try:
            if isinstance(found, SwapstoreError):
                raise found
            pins = self.plan is not None and row == self.plan.pin
            calls = self.job.target._calls  # noqa: SLF001
            commit: Commit = _run(self.job.target, calls.publish_copy(self.name, row, found, pins_first=pins))
            self._note(commit)
        except UnderReplicated as error:
            self._note(error.commit)
            self.under = error
            return "copied", None
        except TooOld:
            return "skipped", None
        except IdConflict as error:
            return "conflict", error
        except Rejected as error:
            return "rejected", error
        except Damaged as error:
            return "damaged", error
        except StoreClosed:
            raise
        except (Refused, InvalidInput) as error:
            return "refused", error
        return "copied" if commit.created else "already", None

    def _note(self, commit: Commit) -> None:
        """Note a commit of the target."""
        self.under = None
        if commit.created:
            epoch = commit.etag.partition(".")[0]
            self.lost |= self.epoch not in {"", epoch} or commit.version <= self.version
            self.epoch, self.version = epoch, commit.version

    def _has_committed(self, theirs: Manifest | None) -> bool:
        """Say whether the target has the last commit, as far as its version tells."""
        if theirs is None or not self.epoch:
            return not self.epoch
        return theirs.epoch == self.epoch and theirs.version >= self.version

    def _step(self, row: Row, size: int, outcome: CopyOutcome, error: SwapstoreError | None) -> None:
        """Count what was done with a snapshot, and tell it. Raises a conflict."""
        self.tried += 1
        step = CopyStep(
            dataset=self.name,
            id=row.id,
            ts=row.ts,
            version=row.version,
            size=size,
            outcome=outcome,
            detail="" if error is None else error.args[0],
            done=self.tried,
            total=max(self.total, self.tried),
        )
        if step.failed:
            self._count(failed=1)
            failures = (*self.done.failures, step)[:FAILURES_KEPT]
            self.done = attrs.evolve(self.done, failures=failures)
        else:
            self._count(**{outcome: 1}, size=size if outcome == "copied" else 0)
        if self.job.on_progress is not None:
            self.job.on_progress(step)
        if isinstance(error, IdConflict):
            raise error

    def _count(self, **more: int) -> None:
        counts = {name: getattr(self.done, name) + by for name, by in more.items()}
        self.done = attrs.evolve(self.done, **counts)


# --- what is there already -------------------------------------------------------------------------


@attrs.frozen
class _Plan:
    """What is to be copied: the `early` rows, then those after a version that the target has not.

    The rows of both stores are compared. A row of the target stands for one of the source if id, `ts`,
    content and labels are equal.

    - Of the target's retention, `max_count` bounds how many rows are copied, and what is older than its age
      is left out, except for the latest: readers need that one.
    - If the target has unlinked or hidden commits because there were too many, rows before the newest one
      that both have are left out. Such a row may have been there. Copied again, it would be the newest
      commit, and others would have to go, in each run. A row that the target hides, and has pinned, says
      nothing about those before it: it may have come before its turn.

    `pin`: the row that is copied before all others, and is pinned by its commit. None if the target has the
    dataset, if it would be the only row, and if validators are to see the snapshots in their order.
    `total` counts the rows that are to be copied.
    """

    after: int
    early: list[Row]
    total: int
    floor: int
    latest: str
    there: Keyset
    pin: Row | None

    def state(self, row: Row) -> str:
        """Say whether a row is `wanted`, is there `already`, or is to be `skipped`."""
        if _named(row) in self.there:
            return "already"
        return "skipped" if row.ts < self.floor and row.id != self.latest else "wanted"

    @classmethod
    def of(cls, job: _Job, name: str, manifest: Manifest, began: int) -> _Plan:
        """Compare the rows of both stores, without a payload. `began`: see `_Dataset`."""
        head, limit = manifest.head, _limit(job, manifest, began)
        early = [head.serving] if job.limit == 0 else sorted(head.kept, key=lambda row: row.version)
        oldest = 0
        if limit is not None:
            oldest = min(row.ts for row in chain(early, _newest(job, name, manifest, limit)))
        there, theirs = _there(job, name, oldest)
        ctx = _context(job.target)
        floor = theirs.head.floor if theirs else 0
        if ctx.retention.max_age is not None:
            now_ms = _run(job.target, retention_time(ctx, manifest, ctx.clock.now_ms()))
            floor = max(floor, prune.limits(ctx.retention, now_ms).floor)
        is_new = theirs is None and job.limit != 0 and not ctx.validators
        pin = head.pinned if is_new else None
        plan = cls(manifest.version, early, 0, floor, head.latest.id, there, pin)
        return plan._bounded(job, manifest, limit, began, theirs.head if theirs else None)

    def _bounded(
        self, job: _Job, manifest: Manifest, limit: int | None, began: int, theirs: Head | None
    ) -> _Plan:
        """Find the version after which rows are copied, and count them."""
        name = manifest.head.dataset
        after = manifest.version if limit == 0 else 0
        total, early = 0, self.early
        is_cut = theirs is not None and theirs.first_version > 1
        hidden = [row.id for row in theirs.kept if not theirs.shows(row)] if theirs else []
        for seen, row in enumerate(_newest(job, name, manifest, limit), 1):
            if job.limit is not None and seen > job.limit and row.version <= began:
                after = row.version
                break
            state = self.state(row)
            total += state == "wanted"
            if is_cut and state == "already" and row.id not in hidden:
                after, early = row.version, []
                break
            if seen == limit:
                after = row.version - 1
        early = [row for row in early if row.version <= after]
        total += sum(self.state(row) == "wanted" for row in early)
        return attrs.evolve(self, after=after, early=early, total=total)


def _limit(job: _Job, manifest: Manifest, began: int) -> int | None:
    """Return how many of the newest commits are looked at, at most. None: all."""
    most = _context(job.target).retention.max_count
    wanted = None if job.limit is None else max(job.limit, manifest.version - began)
    limits = [number for number in (wanted, most) if number is not None]
    return min(limits, default=None)


def _newest(job: _Job, name: str, manifest: Manifest, limit: int | None) -> Iterator[Row]:
    """Iterate over the rows of the source that the manifest shows, newest first."""
    return job.source.history(name, limit=limit, before=manifest.version + 1)


def _there(job: _Job, name: str, oldest: int) -> tuple[Keyset, Manifest | None]:
    """Return the names of the target's rows that have this `ts` or a later one, and its manifest."""
    there = Keyset()
    target = job.target
    visiting = copying.visit_rows(_context(target), name, oldest, lambda row: there.add(_named(row)))
    return there, _run(target, visiting)


def _named(row: Entry) -> str:
    """Return what names a snapshot and its content in every store."""
    return "\n".join([row.id, str(row.ts), row.sha256, row.codec, *map(repr, sorted(row.labels.items()))])


def _size(row: Row, found: Snapshot | SwapstoreError | None) -> int:
    """Return the size of a payload; of a group, with its members."""
    members = found.members.values() if isinstance(found, Snapshot) else ()
    return row.size + sum(member.size for member in members)


def _size_by_row(row: Row) -> int:
    """Return the size of a payload as its row tells it. Of a group it does not: it is read alone."""
    return BATCH_BYTES if row.is_group else row.size


def _context(store: Store) -> Any:
    return store._context  # noqa: SLF001 - a copy is what two stores do together


def _run(store: Store, operation: Operation[Any]) -> Any:
    return store._run(operation)  # noqa: SLF001
