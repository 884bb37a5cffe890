"""Errors say which dataset they are about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from swapstore import arguments, codecs
from swapstore.errors import InvalidInput, SwapstoreError
from swapstore.migration import mirror
from swapstore.models import Outcomes, Retention
from swapstore.protocol import datasets as listing
from swapstore.protocol import live, pointers, prune, read, telling
from swapstore.protocol.batching import together
from swapstore.protocol.follow import Follow
from swapstore.protocol.publish import Publication
from swapstore.protocol.read import History

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime, timedelta

    from swapstore.doctor.check import Check
    from swapstore.fsck.findings import Finding, Progress, Repair
    from swapstore.fsck.verify import Inspection
    from swapstore.models import Candidate, Commit, Gap, LiveView, Pruned, Row, Snapshot, Status
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation, Steps


T = TypeVar("T")


class about:  # noqa: N801 - it reads as a sentence: with about(dataset) as name
    """Check a dataset's name, and put it on every error that passes."""

    __slots__ = ("_name",)

    def __init__(self, dataset: Any) -> None:
        self._name = arguments.dataset(dataset)

    def __enter__(self) -> str:
        return self._name

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, SwapstoreError) and error.dataset is None:
            error.dataset = self._name


class Named(Generic[T]):
    """Steps whose errors say which dataset they are about."""

    def __init__(self, dataset: str, steps: Steps[T]) -> None:
        self._dataset = dataset
        self._steps = steps

    def step(self) -> Operation[list[T] | None]:
        """Take a step."""
        with about(self._dataset):
            return (yield from self._steps.step())


# --- publishing --------------------------------------------------------------------------------
#
# Publishing, and what else a producer does: checked, and handed to the operations.


if TYPE_CHECKING:
    Validate = Callable[[Candidate, Snapshot | None], str | None]


class Publishing:
    """The calls of producers."""

    _context: Context

    def publish(
        self,
        dataset: str,
        value: Any,
        *,
        id: str | None = None,  # noqa: A002 - the design's term
        ts: int | datetime | None = None,
        labels: Mapping[str, str] | None = None,
        dedupe_key: str | None = None,
        expected_version: int | None = None,
        validate: Callable[[Candidate, Snapshot | None], str | None] | None = None,
        codec: str = "json",
    ) -> Operation[Commit]:
        """Publish a value as the next snapshot of a dataset: seen whole by every reader, or not at all.

        - `id`: names this content for ever; made (time-sortable) unless given. Publishing again with the
          same id and content returns the first commit (`created=False`), so a retry is safe.
        - `ts`: ms since the Unix epoch, or an aware datetime: the moment the data describes. A snapshot
          older than the current latest joins the history and leaves `latest` alone. Unless given it is
          now, and never older than the latest.
        - `labels`: strings to strings, at most 1 KiB as JSON, kept beside the payload.
        - `dedupe_key`: among at least the last 32 commits, a second publish with the same key returns the
          first one's commit (`created=False`).
        - `expected_version`: publish only if the latest snapshot is still this version, or this is the
          dataset's own current version; 0: only if nothing is published.
        - `validate`: called with the candidate and the latest snapshot (None: nothing is published, or its
          payload was lost) before anything is written; raising, or returning a reason, refuses the publish.
          It may be called again when another producer commits first.
        - `codec`: `json` (any JSON value, attrs classes, dataclasses, msgspec structs, or JSON text as
          `msgspec.Raw`) or `bytes`.

        Raises `Conflict`, `IdConflict`, `Rejected`; `PayloadTooLarge`; `StoreFull`, `Contended`; and
        `OutcomeUnknown` when the reply was lost and the store could not be asked again: publish again
        with its `id`. Whatever is raised, the previous version is served, whole.
        """
        with about(dataset) as name:
            wanted = self._wanted(
                name,
                value,
                id=id,
                ts=ts,
                labels=labels,
                dedupe_key=dedupe_key,
                expected_version=expected_version,
                validate=validate,
                codec=codec,
            )
            return (yield from mirror.publish(self._context, wanted))

    def publish_many(
        self,
        values: Mapping[str, Any],
        *,
        id: str | None = None,  # noqa: A002
        ts: int | datetime | None = None,
        labels: Mapping[str, str] | None = None,
        dedupe_key: str | None = None,
        validate: Validate | None = None,
        codec: str = "json",
    ) -> Operation[Outcomes]:
        """Publish a value to each of several datasets, in one round trip (two when they are not known yet).

        `values` maps datasets to values; everything else is as in `publish`, and the same for all. Each
        dataset swaps by itself: one that fails does not keep another from being published. Returns what
        became of each, its `Commit` or the `SwapstoreError` that publishing it raised; call
        `raise_for_failures()` on it unless you look at each.

        Raises only `InvalidInput`, when `values` is not a mapping.
        """
        if not isinstance(values, Mapping):
            raise InvalidInput(f"values must map datasets to values, not be a {type(values).__name__}")
        shared: dict[str, Any] = {
            "id": id,
            "ts": ts,
            "labels": labels,
            "dedupe_key": dedupe_key,
            "validate": validate,
            "codec": codec,
        }
        publishing = {name: self.publish(name, value, **shared) for name, value in values.items()}
        batch_bytes = self._context.policy.max_batch_bytes
        return Outcomes((yield from together(publishing, batch_bytes=batch_bytes)))

    def confirm(self, dataset: str) -> Operation[Status]:
        """Note that the producer ran and found nothing new: `confirmed_at` becomes now, the data stays.

        Raises `NotFound` when nothing is published.
        """
        with about(dataset) as name:
            return (yield from mirror.after(self._context, pointers.confirm(self._context, name)))

    def put_live(
        self,
        dataset: str,
        value: Any,
        *,
        ttl: float | timedelta,
        etag: str | None = None,
        codec: str = "json",
    ) -> Operation[str]:
        """Store a value that was computed on one version and is worth nothing on another.

        `ttl` is in seconds, or a timedelta. It is bound to `etag` (of the snapshot it was computed on), or
        else to the version this store saw last; returns that etag. Give `etag` where several threads share
        the store. Raises `NotFound` when nothing is published.
        """
        with about(dataset) as name:
            payload = codecs.encode(value, codec, limit_bytes=self._context.policy.max_payload_bytes)
            bound_to = None if etag is None else arguments.etag(etag)
            putting = live.put_live(
                self._context, name, payload, codec=codec, ttl_ms=arguments.ttl_ms(ttl), etag=bound_to
            )
            return (yield from putting)

    def _wanted(
        self,
        name: str,
        value: Any,
        *,
        id: str | None,  # noqa: A002
        ts: int | datetime | None,
        labels: Mapping[str, str] | None,
        dedupe_key: str | None,
        expected_version: int | None,
        validate: Validate | None,
        codec: str,
    ) -> Publication:
        """Check what a producer wants published, and encode it."""
        payload = codecs.encode(value, codec, limit_bytes=self._context.policy.max_payload_bytes)
        if validate is not None and not callable(validate):
            raise InvalidInput(f"validate must be a function, not {type(validate).__name__}")
        return Publication(
            dataset=name,
            payload=payload,
            codec=codec,
            id=None if id is None else arguments.snapshot_id(id),
            ts=None if ts is None else arguments.timestamp_ms(ts),
            labels=arguments.labels({} if labels is None else labels),
            dedupe_key=None if dedupe_key is None else arguments.dedupe_key(dedupe_key),
            expected_version=None
            if expected_version is None
            else arguments.expected_version(expected_version),
            validate=validate,
        )


# --- reading -----------------------------------------------------------------------------------
#
# Reading: checked, and handed to the operations.


class Reading:
    """The calls of readers."""

    _context: Context

    def read_latest(
        self, dataset: str, *, max_staleness: float | timedelta = 0.0
    ) -> Operation[Snapshot | None]:
        """Return the snapshot that is served: the pinned one, or else the latest. None: nothing is published.

        With `max_staleness` (seconds, or a timedelta) what this store last saw is served without asking,
        if it looked within that time.
        """
        with about(dataset) as name:
            bound = arguments.staleness_s(max_staleness)
            return (yield from read.read_latest(self._context, name, max_staleness_s=bound))

    def remembered(self, dataset: str, *, max_staleness: float | timedelta = 0.0) -> Snapshot | None:
        """Return what `read_latest` serves without asking the store; None: it has to ask."""
        if not max_staleness:
            return None
        try:
            bound = arguments.staleness_s(max_staleness)
        except InvalidInput:
            return None  # `read_latest` says what is wrong, and with which dataset
        return read.remembered(self._context, arguments.dataset(dataset), bound)

    def read_latest_many(
        self, datasets: Iterable[str], *, max_staleness: float | timedelta = 0.0
    ) -> Operation[dict[str, Snapshot | None]]:
        """Return the snapshot that is served of each dataset, in two round trips at most, one when warm.

        Like `read_latest` of each, but asked together. A dataset that cannot be read raises its error, once
        all have been asked.
        """
        names = [datasets] if isinstance(datasets, str) else list(datasets)
        reading = {name: self.read_latest(name, max_staleness=max_staleness) for name in names}
        outcomes = yield from together(reading, batch_bytes=self._context.policy.max_batch_bytes)
        found: dict[str, Snapshot | None] = {}
        for name, outcome in outcomes.items():
            if isinstance(outcome, SwapstoreError):
                raise outcome
            found[name] = outcome
        return found

    def read(
        self,
        dataset: str,
        *,
        id: str | None = None,  # noqa: A002
        version: int | None = None,
        as_of: int | datetime | None = None,
    ) -> Operation[Snapshot | None]:
        """Return one committed snapshot, named by exactly one of `id`, `version` and `as_of`.

        `as_of` (ms since the Unix epoch, or an aware datetime) is the snapshot with the greatest `ts` up
        to that moment. None: there is no such snapshot in the history. A record that was staged and never
        committed is not there, whatever its id.
        """
        with about(dataset) as name:
            match (id, version, as_of):
                case (str(), None, None):
                    return (yield from read.read_id(self._context, name, arguments.snapshot_id(id)))
                case (None, None, moment) if moment is not None:
                    ts = arguments.timestamp_ms(moment, "as_of")
                    return (yield from read.read_as_of(self._context, name, ts))
                case (None, number, None) if number is not None:
                    number = arguments.whole(number, "version", least=1)
                    return (yield from read.read_version(self._context, name, number))
            raise InvalidInput("read takes exactly one of id=, version= and as_of=")

    def status(self, dataset: str) -> Operation[Status | None]:
        """Return a dataset at a glance, without reading its payload. None: nothing is published."""
        with about(dataset) as name:
            return (yield from listing.status(self._context, name))

    def datasets(self) -> Operation[list[str]]:
        """Return the names of the datasets that have something published, in alphabetical order."""
        return (yield from listing.datasets(self._context))

    def read_live(self, dataset: str) -> Operation[LiveView | None]:
        """Return the live view, if there is one and the version it was computed on is still current."""
        with about(dataset) as name:
            return (yield from live.read_live(self._context, name))

    def history(self, dataset: str, *, limit: int | None = 50, before: int | None = None) -> Steps[Row]:
        """Iterate over the committed rows, newest commit first, loading older pages as they are reached.

        `limit` bounds how many (None: all of them); `before` starts below a version. All rows come from
        one manifest, however slowly they are read.
        """
        with about(dataset) as name:
            most = None if limit is None else arguments.whole(limit, "limit", least=0)
            below = None if before is None else arguments.whole(before, "before", least=0)
            return Named(name, History(self._context, name, limit=most, before=below))

    def follow(
        self, dataset: str, *, after: int | None = None, poll: float | timedelta = 2.0
    ) -> Steps[Row | Gap]:
        """Iterate over the commits of a dataset as they come, in their order: none skipped and none twice.

        It begins after the version `after`; at the oldest that is retained with 0; and unless given at the
        next commit from now on. It does not end by itself: it waits. On Redis and Valkey a hint wakes it,
        and a look at the manifest every `poll` seconds (or timedelta) at most makes up for those that are
        lost; on SQLite the look is all there is.

        Pins, rollbacks and confirmations are no commits. A `Gap` comes in the place of commits that cannot
        be given: retention let go of them, or the dataset was reset.

        Raises `Unavailable` if the store cannot be reached at the beginning. Later it tries again until the
        store is back, and logs a warning to the logger `swapstore`, one an outage. `Damaged` is raised.
        """
        with about(dataset) as name:
            begin = None if after is None else arguments.whole(after, "after", least=0)
            return Named(name, Follow(self._context, name, after=begin, poll_s=arguments.poll_s(poll)))


# --- steering ----------------------------------------------------------------------------------
#
# What an operator does to what is served: checked, and handed to the operations.


class Steering:
    """The calls of operators."""

    _context: Context

    def pin(self, dataset: str, *, id: str) -> Operation[Status]:  # noqa: A002
        """Serve this snapshot to every reader of the latest until `unpin`; publishing goes on behind it.

        Raises `NotFound` unless the id is committed, `PayloadMissing` or `Corrupt` if it cannot be read.
        """
        with about(dataset) as name:
            return (
                yield from mirror.after(
                    self._context, pointers.pin(self._context, name, arguments.snapshot_id(id))
                )
            )

    def unpin(self, dataset: str) -> Operation[Status]:
        """Serve the latest snapshot again. Harmless when nothing is pinned."""
        with about(dataset) as name:
            return (yield from mirror.after(self._context, pointers.unpin(self._context, name)))

    def rollback(self, dataset: str, *, id: str) -> Operation[Status]:  # noqa: A002
        """Make this snapshot the latest, until a publish that is not older than it.

        Snapshots after it stay in the history. Raises like `pin`.
        """
        with about(dataset) as name:
            return (
                yield from mirror.after(
                    self._context, pointers.rollback(self._context, name, arguments.snapshot_id(id))
                )
            )


# --- upkeep ------------------------------------------------------------------------------------
#
# Looking after what is stored: checked, and handed to the operations.


class Upkeep:
    """What an operator, or a cron job of theirs, calls now and then."""

    _context: Context
    _kind: str

    def prune(self, dataset: str, *, retention: Retention | None = None) -> Operation[Pruned]:
        """Apply retention now: hide what is past its bounds, and let go of all that can be let go of.

        `retention` is the store's own unless given. Publishing does the same a little at a time; this is
        for bounds that have become tighter, and for datasets that nobody publishes to. Raises `NotFound`
        when nothing is published.
        """
        with about(dataset) as name:
            if retention is not None and not isinstance(retention, Retention):
                raise InvalidInput(f"retention must be a Retention, not {type(retention).__name__}")
            return (yield from prune.prune(self._context, name, prune.limits(self._context, retention)))

    def doctor(self) -> Operation[list[Check]]:
        """Ask the server, or look at the file, for what could break the promise, and say what to do.

        Writes nothing. What a server does not say is `unknown`. A SQLite file that cannot be opened or
        written is a problem among the checks; a server that cannot be reached raises `Unavailable`.
        """
        from swapstore.doctor.diagnose import diagnose  # noqa: PLC0415 - for who looks after a store

        return (yield from diagnose(self._context, self._kind))

    def verify(
        self, dataset: str | None = None, *, on_progress: Callable[[Progress], None] | None = None
    ) -> Steps[Finding]:
        """Compare all that is stored with what the manifests say, and iterate over what is found.

        Of one dataset, or of all that the namespace holds any key of. It reads every payload, a few MB at a
        time, and writes nothing. Findings that are not `wrong` are no damage: orphans expire by themselves.
        `on_progress` is called after each step. Producers may go on meanwhile; a dataset that is reset or
        repaired meanwhile raises `Contended`.
        """
        if dataset is None:
            return self._inspection(None, on_progress)
        with about(dataset) as name:
            return Named(name, self._inspection(name, on_progress))

    def repair(self, dataset: str | None = None, *, apply: bool = False) -> Operation[list[Repair]]:
        """Mend what `verify` finds wrong, in one dataset or in all; without `apply`, say what that would do.

        A lost or damaged manifest or page is rebuilt from the committed records, in a new epoch. Snapshots
        whose payload is gone are dropped, and named. Records that should be permanent become so, and what
        is permanent without reason expires in a day. Producers may go on meanwhile: it commits as they do.
        Returns a report for each dataset in which something was wrong.

        Raises `Contended` when others repair or reset the dataset again and again.
        """
        from swapstore.fsck import repair  # noqa: PLC0415 - for who looks after a store

        if dataset is None:
            names = yield from self._wrong()
        else:
            names = [arguments.dataset(dataset)]
        reports = []
        for each in names:
            with about(each) as name:
                repairing = repair.repair(self._context, name, apply=apply)
                reports += [(yield from telling.repair(self._context, repairing))]
        return [report for report in reports if report.findings]

    def _wrong(self) -> Operation[list[str]]:
        """The datasets in which something is wrong."""
        inspection, wrong = self._inspection(None, None), set[str]()
        while (found := (yield from inspection.step())) is not None:
            wrong |= {finding.dataset for finding in found if finding.wrong}
        return sorted(wrong)

    def _inspection(self, dataset: str | None, on_progress: Callable[[Progress], None] | None) -> Inspection:
        from swapstore.fsck.verify import Inspection  # noqa: PLC0415 - for who looks after a store

        return Inspection(self._context, dataset, on_progress=on_progress)


# --- calls -------------------------------------------------------------------------------------
#
# What can be asked of a store, without any I/O: each call checks its arguments and is an operation.
#
# `Store` runs them, `AsyncStore` awaits them. Both take signatures and documentation from here.


class Calls(Publishing, Reading, Steering, Upkeep):
    """All calls, on one client's context and a kind of store."""

    def __init__(self, context: Context, kind: str) -> None:
        self._context = context
        self._kind = kind
