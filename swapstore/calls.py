"""The calls of a store, without I/O: each one checks its arguments and is an operation.

`Store` runs them, `AsyncStore` awaits them. Both take their signatures and docstrings from here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from swapstore import arguments, codecs
from swapstore.commands import BackUp, Restore
from swapstore.errors import InvalidInput, Rejected, SwapstoreError, UnderReplicated
from swapstore.events import Published, PublishRejected
from swapstore.failures import NO_DATASET, Named, about
from swapstore.migration import mirror
from swapstore.models import Durability, Outcomes, Retention, Validator
from swapstore.protocol import datasets as listing
from swapstore.protocol import live, pointers, prune, read
from swapstore.protocol.batching import batched
from swapstore.protocol.durability import asking, publish_durably, require
from swapstore.protocol.follow import Follow
from swapstore.protocol.load import ask
from swapstore.protocol.operation import Batch, Emit, Tally, Turn
from swapstore.protocol.publish import publication, publish
from swapstore.protocol.read import History

if TYPE_CHECKING:
    import os
    from collections.abc import Callable
    from datetime import datetime, timedelta

    from swapstore.codecs import Codec
    from swapstore.doctor.check import Check
    from swapstore.fsck.findings import Finding, Progress, Repair
    from swapstore.fsck.verify import Inspection
    from swapstore.models import (
        Candidate,
        Commit,
        Compression,
        Gap,
        LiveView,
        Pruned,
        Recompressed,
        Row,
        Snapshot,
        Status,
    )
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation, Steps


class Calls:
    """All calls, on the context of one client. `kind` is the kind of store, for messages."""

    def __init__(self, context: Context, kind: str) -> None:
        self._context = context
        self._kind = kind

    # --- publish --------------------------------------------------------------------------------------

    def publish(
        self,
        dataset: str,
        value: Any,
        *,
        id: str | None = None,  # noqa: A002 - the public name
        ts: int | datetime | None = None,
        labels: Mapping[str, str] | None = None,
        dedupe_key: str | None = None,
        expected_version: int | None = None,
        validate: Callable[[Candidate, Snapshot | None], str | None] | None = None,
        codec: Codec = "json",
        durability: Durability | None = None,
    ) -> Operation[Commit]:
        """Publish a value as the next snapshot of a dataset. Readers see all of it, or the previous snapshot.

        - `id`: the snapshot id. Default: a new UUIDv7. Same id and content as an earlier commit: returns that
          commit (`created=False`), so a retry is safe. Other content: raises `IdConflict`.
        - `ts`: the moment that the data describes, in milliseconds since the Unix epoch or as an aware
          datetime. Default: now, but never older than the latest. A snapshot that is older than the latest
          is added to the history and does not change the latest.
        - `labels`: a mapping of strings to strings, at most 1 KiB as JSON, stored beside the payload.
        - `dedupe_key`: if one of the last 32 or more commits has this key, that commit is returned
          (`created=False`), whatever its content.
        - `expected_version`: optimistic lock: the `version` of a snapshot or of the status. `Conflict` is
          raised unless the latest snapshot or the dataset still has this version; 0 means that nothing may
          be published yet.
        - `validate`: called before anything is written, with the `Candidate` and the latest snapshot (None:
          nothing is published, or its payload was lost). Returning a reason or raising refuses the publish.
          It may be called again if another producer commits first.
        - `codec`: `json` (any JSON value, attrs classes, dataclasses, msgspec structs, or JSON text as
          `msgspec.Raw`) or `bytes`.
        - `durability`: wait until replicas, or disks, have the commit: a `Durability`. Default: that of the
          store.

        Raises `Conflict`, `IdConflict`, `Rejected`, `TooOld` (retention would hide the snapshot at once),
        `PayloadTooLarge`, `StoreFull`, `Contended`, and `OutcomeUnknown` if the reply was lost and the store
        could not be asked for the outcome: publish again with the error's `id`. With a `durability`:
        `UnderReplicated` if it is published and too few replicas have it, `Unsupported` if the store cannot
        give it. After any of these errors, readers still see one whole version.
        """
        with about(self._context, "publish", dataset) as name:
            wanted = publication(
                self._context,
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
            if self._context.mirror is not None:
                mirror.refuse_what_it_cannot_write(self._context, wanted.payload)
            under = None
            ctx = self._context if durability is None else asking(self._context, durability)
            if ctx.durability is not None:
                yield from require(ctx, ctx.durability)
            yield Turn((name,))
            try:
                if ctx.durability is None:
                    commit = yield from publish(ctx, wanted)
                else:
                    commit = yield from publish_durably(ctx, wanted, ctx.durability)
            except Rejected as error:
                size, reason = len(wanted.payload), error.reason
                self._context.emit(PublishRejected(dataset=name, id=error.id or "", size=size, reason=reason))
                raise
            except UnderReplicated as error:  # it is published
                commit, under = error.commit, error
            if self._context.hook is not None:
                yield Emit(partial(self._emit_published, commit))
            if self._context.mirror is not None:
                held = wanted.payload if commit.created else None
                yield from mirror.bring_up_to_date(self._context, self._context.mirror, name, commit, held)
            if under is not None:
                raise under
            return commit

    def publish_many(
        self,
        values: Mapping[str, Any],
        *,
        id: str | None = None,  # noqa: A002
        ts: int | datetime | None = None,
        labels: Mapping[str, str] | None = None,
        dedupe_key: str | None = None,
        validate: Validator | None = None,
        codec: Codec = "json",
        durability: Durability | None = None,
    ) -> Operation[Outcomes]:
        """Publish a value to each of several datasets.

        It takes one round trip if the store has their manifests in its cache and two if it does not, for any
        number of datasets (more only beyond `max_batch` bytes). `values` maps datasets to values; the other
        arguments are those of `publish` and apply to all datasets.

        Each dataset swaps by itself: a failure of one does not prevent the others from being published.
        Returns the outcome of each: its `Commit`, or the `SwapstoreError` that `publish` would have raised.
        Call `raise_for_failures()` on it, or look at each outcome. With a `durability`, all datasets are
        waited for at once, and each outcome says how many replicas have it.

        Raises only `InvalidInput`: if `values` is not a mapping or cannot be read, or if one `id` is for
        several datasets of a store with a mirror.
        """
        if not isinstance(values, Mapping):
            raise InvalidInput(f"values must map datasets to values, not be a {type(values).__name__}")
        try:
            each = dict(values.items())
        except Exception as error:
            kind = type(error).__name__
            raise InvalidInput(f"values cannot be read: that raised {kind}; nothing was published") from error
        if id is not None and self._context.mirror is not None:
            mirror.refuse_one_id(each)
        publishing = {
            name: self.publish(
                name,
                value,
                id=id,
                ts=ts,
                labels=labels,
                dedupe_key=dedupe_key,
                validate=validate,
                codec=codec,
                durability=durability,
            )
            for name, value in each.items()
        }
        return Outcomes((yield from batched(self._context, publishing)))

    def confirm(self, dataset: str) -> Operation[Status]:
        """Mark the data as still current without publishing: set `confirmed_at` to now.

        Raises `NotFound` if nothing is published.
        """
        with about(self._context, "confirm", dataset) as name:
            return (yield from self._swapped(name, pointers.confirm(self._context, name)))

    def put_live(
        self,
        dataset: str,
        value: Any,
        *,
        ttl: float | timedelta,
        etag: str | None = None,
        codec: Codec = "json",
    ) -> Operation[str]:
        """Store the live view: a value that was computed from one version and is invalid for any other.

        `ttl` is in seconds, or a timedelta, from 1 ms to 366 days. `etag` is the etag of the snapshot that
        the value was computed from. Default: that of the version that this store saw last; if threads share
        the store, pass `etag`. Returns the etag that the view is bound to. Raises `NotFound` if no etag is
        given and nothing is published.
        """
        with about(self._context, "put_live", dataset) as name:
            payload = codecs.encode(value, codec, limit_bytes=self._context.policy.max_payload_bytes)
            bound_to = None if etag is None else arguments.etag(etag)
            putting = live.put_live(
                self._context, name, payload, codec=codec, ttl_ms=arguments.ttl_ms(ttl), etag=bound_to
            )
            return (yield from putting)

    # --- read -----------------------------------------------------------------------------------------

    def read_latest(
        self, dataset: str, *, max_staleness: float | timedelta = 0.0, min_version: int = 0
    ) -> Operation[Snapshot | None]:
        """Return the snapshot that is served: the pinned one, or else the latest. None: nothing is published.

        `max_staleness` is in seconds, or a timedelta. If the store checked the manifest within that time, it
        returns the cached snapshot without a round trip. `min_version`, the version of a `Commit`, reads what
        somebody has written: the dataset must have that version, or a later one. A pinned snapshot may be
        older. Raises `Unavailable` if neither a replica nor the primary shows that version.
        """
        with about(self._context, "read_latest", dataset) as name:
            bound, least = arguments.staleness_s(max_staleness), arguments.min_version(min_version)
            reading = read.read_latest(self._context, name, max_staleness_s=bound, min_version=least)
            return (yield from reading)

    def remembered(
        self, dataset: str, *, max_staleness: float | timedelta = 0.0, min_version: int = 0
    ) -> Snapshot | None:
        """Return what `read_latest` can serve from the cache. None: it has to ask the store."""
        with about(self._context, "read_latest", dataset) as name:
            bound, least = arguments.staleness_s(max_staleness), arguments.min_version(min_version)
            return read.remembered(self._context, name, bound, least) if bound else None

    def read_latest_many(
        self, datasets: Iterable[str], *, max_staleness: float | timedelta = 0.0
    ) -> Operation[dict[str, Snapshot | None]]:
        """Return the snapshot that is served of each dataset, or None for each without one.

        Like `read_latest` of each, but in one batch: two round trips at most, one if the store has the
        snapshots in its cache. If a dataset cannot be read, its error is raised after all have been read.
        """
        if not isinstance(datasets, Iterable):
            raise InvalidInput(f"datasets must be names of datasets, not a {type(datasets).__name__}")
        try:
            given = [datasets] if isinstance(datasets, str) else list(datasets)
        except Exception as error:
            kind = type(error).__name__
            raise InvalidInput(f"datasets cannot be read: that raised {kind}") from error
        names = [arguments.dataset(name) for name in given]
        reading = {name: self.read_latest(name, max_staleness=max_staleness) for name in names}
        outcomes = yield from batched(self._context, reading)
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
        """Return one committed snapshot. Give exactly one of `id`, `version` and `as_of`.

        `as_of` (milliseconds since the Unix epoch, or an aware datetime) finds the snapshot with the greatest
        `ts` up to that moment. None: the history has no such snapshot. Pins and rollbacks do not affect it,
        and a snapshot that was staged and never committed is not found.
        """
        with about(self._context, "read", dataset) as name:
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
        """Return a summary of a dataset, without reading its payload. None: nothing is published."""
        with about(self._context, "status", dataset) as name:
            return (yield from listing.status(self._context, name))

    def datasets(self) -> Operation[list[str]]:
        """Return the names of all datasets with at least one published snapshot, in alphabetical order."""
        with about(self._context, "datasets", NO_DATASET):
            return (yield from listing.datasets(self._context))

    def read_live(self, dataset: str) -> Operation[LiveView | None]:
        """Return the live view if there is one and its version is still current, else None."""
        with about(self._context, "read_live", dataset) as name:
            return (yield from live.read_live(self._context, name))

    def history(self, dataset: str, *, limit: int | None = 50, before: int | None = None) -> Steps[Row]:
        """Iterate over the committed rows, newest commit first.

        `limit` is the most rows to return (None: all). `before` starts below a version. Older pages are
        loaded when the iteration reaches them. All rows come from one manifest, however slowly they are read.
        """
        with about(self._context, "history", dataset) as name:
            most = None if limit is None else arguments.whole(limit, "limit", least=0)
            below = None if before is None else arguments.whole(before, "before", least=0)
            return Named(
                self._context, "history", name, History(self._context, name, limit=most, before=below)
            )

    def follow(
        self, dataset: str, *, after: int | None = None, poll: float | timedelta = 2.0
    ) -> Steps[Row | Gap]:
        """Iterate over the commits of a dataset in order, as they come, none skipped and none twice.

        `after` is a version: start after it. 0: start with the oldest commit that is retained. Default: start
        with the next commit after this call. The iterator does not end by itself: it waits for the next
        commit. On Redis and Valkey a hint wakes it; `poll` (seconds, or a timedelta) is the longest time
        until a commit is seen whose hint was lost. On SQLite there are no hints.

        Only commits that published a snapshot are returned. A `Gap` takes the place of those that cannot be:
        retention unlinked them, or the store went back (a flush, a restored backup, a failover that lost
        some). One of the last 4,096 comes twice only after such a `Gap`, if it was published again.

        Raises `Unavailable` if the store cannot be reached at the beginning, within `patience`. Later it
        retries until the store is back, and logs one warning for each outage to the logger `swapstore`.
        Raises `Damaged` for damage that it meets, and `Misconfigured` for what waiting does not cure.
        """
        with about(self._context, "follow", dataset) as name:
            begin = None if after is None else arguments.whole(after, "after", least=0)
            following = Follow(self._context, name, after=begin, poll_s=arguments.poll_s(poll))
            return Named(self._context, "follow", name, following)

    # --- pin and roll back ----------------------------------------------------------------------------

    def pin(
        self,
        dataset: str,
        *,
        id: str | None = None,  # noqa: A002
        version: int | None = None,
    ) -> Operation[Status]:
        """Serve this snapshot to every reader of the latest until `unpin`. Producers can continue to publish.

        Give exactly one of `id` and `version`. Does nothing if it has taken effect already. Raises `NotFound`
        if there is no such snapshot in the history, and `PayloadMissing` or `Corrupt` if it cannot be read.
        """
        with about(self._context, "pin", dataset) as name:
            chosen = yield from self._chosen("pin", name, id, version)
            return (yield from self._swapped(name, pointers.pin(self._context, name, chosen)))

    def unpin(self, dataset: str) -> Operation[Status]:
        """Serve the latest snapshot again. Does nothing if nothing is pinned.

        Raises `NotFound` if nothing is published.
        """
        with about(self._context, "unpin", dataset) as name:
            return (yield from self._swapped(name, pointers.unpin(self._context, name)))

    def rollback(
        self,
        dataset: str,
        *,
        id: str | None = None,  # noqa: A002
        version: int | None = None,
    ) -> Operation[Status]:
        """Make this snapshot the latest, until the next publish whose `ts` is not older.

        Give exactly one of `id` and `version`. Snapshots after it stay in the history. Raises the same errors
        as `pin`.
        """
        with about(self._context, "rollback", dataset) as name:
            chosen = yield from self._chosen("rollback", name, id, version)
            return (yield from self._swapped(name, pointers.rollback(self._context, name, chosen)))

    # --- maintain -------------------------------------------------------------------------------------

    def prune(self, dataset: str, *, retention: Retention | None = None) -> Operation[Pruned]:
        """Apply retention now: hide the snapshots past its bounds, and unlink all that can be unlinked.

        `retention`: default: that of the store. Without a bound in either, nothing more is hidden, and only
        what earlier bounds have hidden is unlinked. Publishing does the same in small steps; `prune` is for
        tighter bounds, and for datasets without a producer. Raises `NotFound` if nothing is published.
        """
        with about(self._context, "prune", dataset) as name:
            if retention is not None and not isinstance(retention, Retention):
                raise InvalidInput(f"retention must be a Retention, not {type(retention).__name__}")
            return (yield from prune.prune(self._context, name, retention or self._context.retention))

    def recompress(
        self, dataset: str, *, compression: Compression, limit: int | None = None
    ) -> Operation[Recompressed]:
        """Store the existing snapshots of a dataset in another way, beside producers and readers.

        `compression` is `"delta"`, `"zstd"` or `"none"`, as for `connect`. With `"delta"` and `"zstd"`, what
        does not get smaller stays as it is. Nothing else changes: ids, versions, digests, the history.
        Publishes go on as their store says, so connect that with the same `compression` first. `limit`: the
        most snapshots to store anew (default: all). It swaps a few dozen snapshots at a time. If it is cut
        short anywhere, every snapshot can be read, and the next call goes on. A call that finds nothing to do
        swaps nothing.

        Raises `NotFound` if nothing is published, `Unsupported` on an endpoint that runs no scripts,
        `StoreFull` if the store has no room for it, and `Contended` if other producers always commit first.
        """
        from swapstore.protocol.recompress import recompress  # noqa: PLC0415 - only operators need it

        with about(self._context, "recompress", dataset) as name:
            to = arguments.one_compression(compression)
            most = None if limit is None else arguments.whole(limit, "limit", least=1)
            return (yield from recompress(self._context, name, to, limit=most))

    def backup(self, path: str | os.PathLike[str]) -> Operation[int]:
        """Copy a SQLite store into a new file, beside producers and readers. Returns its size in bytes.

        The copy is one state of the store, between two commits, and is a store itself. Raises `InvalidInput`
        if the new file exists or the store is not on SQLite, `NotFound` if the store's file does not exist,
        `Unavailable` or `StoreFull` if the copy cannot be written, and `Corrupt` if the store is damaged.
        """
        with about(self._context, "backup", NO_DATASET):
            return (yield from ask(self._context, BackUp(self._file("backup", path))))

    def restore(self, path: str | os.PathLike[str]) -> Operation[None]:
        """Replace all that a SQLite store contains by a backup, beside producers and readers.

        It is one transaction, for all namespaces. The file of the store is created if it is not there. Raises
        `InvalidInput` if there is no such backup or the store is not a SQLite file, `Corrupt` if the backup
        is damaged or no store, and `ReplyLost` if the disk failed at the end: restore again.
        """
        with about(self._context, "restore", NO_DATASET):
            yield Batch((Restore(self._file("restore", path)),))

    def _file(self, call: str, path: Any) -> str:
        if self._kind != "sqlite":
            raise InvalidInput(f"{call} is for SQLite files; a server has its own way, such as BGSAVE")
        return arguments.file(path)

    def doctor(self) -> Operation[list[Check]]:
        """Check the server or the SQLite file for settings that could break what swapstore promises.

        Changes no data. A check is `unknown` if the server does not say. If a SQLite file cannot be opened or
        written, one of the checks reports the problem. Raises `Unavailable` if a server cannot be reached.
        """
        if self._context.doctor is not None:
            with about(self._context, "doctor", NO_DATASET):
                return (yield from self._context.doctor(self._context))
        from swapstore.doctor.check import unknown_kind  # noqa: PLC0415 - only operators need it

        return [unknown_kind(self._kind)]

    def verify(
        self, dataset: str | None = None, *, on_progress: Callable[[Progress], None] | None = None
    ) -> Steps[Finding]:
        """Compare everything that is stored with what the manifests say, and iterate over the findings.

        `dataset`: default: every dataset of which the namespace holds any key. It reads every payload, a few
        MB at a time, and writes nothing. Findings that are not `wrong` are not damage: orphans expire by
        themselves. `on_progress` is called after each step. Producers can publish at the same time. Raises
        `Contended` if a dataset is reset or repaired while it is verified: run it again.
        """
        if on_progress is not None and not callable(on_progress):
            raise InvalidInput(f"on_progress must be a function, not {type(on_progress).__name__}")
        if dataset is None:
            return Named(self._context, "verify", NO_DATASET, self._inspection(None, on_progress))
        with about(self._context, "verify", dataset) as name:
            return Named(self._context, "verify", name, self._inspection(name, on_progress))

    def repair(self, dataset: str | None = None, *, apply: bool = False) -> Operation[list[Repair]]:
        """Repair what `verify` finds wrong, in one dataset or in all (default).

        Without `apply` it writes nothing, and returns what it would do. A lost or damaged manifest or page is
        rebuilt from the committed records, in a new epoch. The rows of snapshots whose payload is gone are
        dropped, and the report has their ids. Committed records become permanent again, and permanent records
        that nothing references expire in a day. Producers can publish at the same time: it commits like them.
        Returns a report for each dataset in which something was wrong.

        Raises `Contended` if producers or other repairs always commit first: run it again.
        """
        from swapstore.fsck import repair  # noqa: PLC0415 - only operators need it

        if not isinstance(apply, bool):
            raise InvalidInput(f"apply must be True or False, not {arguments.shown(apply)}")
        if dataset is None:
            with about(self._context, "repair", NO_DATASET):
                names = yield from self._wrong()
        else:
            names = [dataset]
        reports = []
        for each in names:
            with about(self._context, "repair", each) as name:
                reports += [(yield from repair.repair(self._context, name, apply=apply))]
        return [report for report in reports if report.findings]

    def _wrong(self) -> Operation[list[str]]:
        """Return the datasets in which something is wrong."""
        inspection, wrong = self._inspection(None, None), set[str]()
        while (found := (yield from inspection.step())) is not None:
            wrong |= {finding.dataset for finding in found if finding.wrong}
        return sorted(wrong)

    def _inspection(self, dataset: str | None, on_progress: Callable[[Progress], None] | None) -> Inspection:
        from swapstore.fsck.verify import Inspection  # noqa: PLC0415 - only operators need it

        return Inspection(self._context, dataset, on_progress=on_progress)

    def _emit_published(self, commit: Commit, tally: Tally) -> None:
        self._context.emit(
            Published(
                dataset=commit.dataset,
                version=commit.version,
                id=commit.id,
                ts=commit.ts,
                size=commit.size,
                created=commit.created,
                is_latest=commit.is_latest,
                replicas=commit.replicas,
                attempts=len(tally.drafts),
                round_trips=tally.round_trips,
                elapsed_s=self._context.clock.monotonic() - tally.began,
            )
        )

    def _chosen(self, what: str, dataset: str, id: Any, version: Any) -> Operation[str]:  # noqa: A002
        """Return the id of the snapshot that a caller of `pin` or `rollback` chose by id or version."""
        if (id is None) == (version is None):
            raise InvalidInput(f"{what} takes exactly one of id= and version=")
        if version is None:
            return arguments.snapshot_id(id)
        number = arguments.whole(version, "version", least=1)
        return (yield from pointers.id_of(self._context, dataset, number))

    def _swapped(self, name: str, swap: Operation[Status]) -> Operation[Status]:
        """Run a swap other than a publish in its turn, and bring the mirror up to date."""
        yield Turn((name,))
        status = yield from swap
        if self._context.mirror is not None:
            yield from mirror.bring_up_to_date(self._context, self._context.mirror, status.dataset)
        return status
