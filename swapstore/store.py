"""The face of the library: a `Store` checks what it is given and runs one operation a method."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swapstore import checks, codecs
from swapstore.errors import InvalidInput
from swapstore.operations import history, listing, live, mirror, read, steer
from swapstore.operations.publication import Publication
from swapstore.upkeep import Upkeep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime, timedelta

    from swapstore.models import Candidate, Commit, LiveView, Row, Snapshot, Status


class Store(Upkeep):
    """Datasets in one namespace of one store. Made by `swapstore.connect`; also a context manager.

    A store may be shared by threads. Every method raises `InvalidInput` for arguments it cannot use (then
    nothing was written), `Unavailable` or one of its children when the server or file cannot serve, and
    `Damaged` or one of its children when what is stored is not what swapstore wrote.
    """

    # --- publishing --------------------------------------------------------------------------------

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
    ) -> Commit:
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
        with self._about(dataset) as name:
            payload = codecs.encode(value, codec, limit_bytes=self._context.policy.max_payload_bytes)
            if validate is not None and not callable(validate):
                raise InvalidInput(f"validate must be a function, not {type(validate).__name__}")
            wanted = Publication(
                dataset=name,
                payload=payload,
                codec=codec,
                id=None if id is None else checks.snapshot_id(id),
                ts=None if ts is None else checks.timestamp_ms(ts),
                labels=checks.labels({} if labels is None else labels),
                dedupe_key=None if dedupe_key is None else checks.dedupe_key(dedupe_key),
                expected_version=None
                if expected_version is None
                else checks.expected_version(expected_version),
                validate=validate,
            )
            return self._run(mirror.publish(self._context, wanted))

    def confirm(self, dataset: str) -> Status:
        """Note that the producer ran and found nothing new: `confirmed_at` becomes now, the data stays.

        Raises `NotFound` when nothing is published.
        """
        with self._about(dataset) as name:
            return self._run(mirror.after(self._context, steer.confirm(self._context, name)))

    # --- reading -----------------------------------------------------------------------------------

    def read_latest(self, dataset: str, *, max_staleness: float | timedelta = 0.0) -> Snapshot | None:
        """Return the snapshot that is served: the pinned one, or else the latest. None: nothing is published.

        With `max_staleness` (seconds, or a timedelta) what this store last saw is served without asking,
        if it looked within that time.
        """
        with self._about(dataset) as name:
            bound = checks.staleness_s(max_staleness)
            return self._run(read.read_latest(self._context, name, max_staleness_s=bound))

    def read(
        self,
        dataset: str,
        *,
        id: str | None = None,  # noqa: A002
        version: int | None = None,
        as_of: int | datetime | None = None,
    ) -> Snapshot | None:
        """Return one committed snapshot, named by exactly one of `id`, `version` and `as_of`.

        `as_of` (ms since the Unix epoch, or an aware datetime) is the snapshot with the greatest `ts` up
        to that moment. None: there is no such snapshot in the history. A record that was staged and never
        committed is not there, whatever its id.
        """
        with self._about(dataset) as name:
            match (id, version, as_of):
                case (str(), None, None):
                    return self._run(read.read_id(self._context, name, checks.snapshot_id(id)))
                case (None, None, moment) if moment is not None:
                    ts = checks.timestamp_ms(moment, "as_of")
                    return self._run(read.read_as_of(self._context, name, ts))
                case (None, number, None) if number is not None:
                    number = checks.whole(number, "version", least=1)
                    return self._run(read.read_version(self._context, name, number))
            raise InvalidInput("read takes exactly one of id=, version= and as_of=")

    def history(self, dataset: str, *, limit: int | None = 50, before: int | None = None) -> Iterator[Row]:
        """Iterate over the committed rows, newest commit first, loading older pages as they are reached.

        `limit` bounds how many (None: all of them); `before` starts below a version. All rows come from
        one manifest, however slowly they are read.
        """
        with self._about(dataset) as name:
            most = None if limit is None else checks.whole(limit, "limit", least=0)
            below = None if before is None else checks.whole(before, "before", least=0)
        return self._history(name, most, below)

    def _history(self, dataset: str, limit: int | None, before: int | None) -> Iterator[Row]:
        if limit == 0:
            return
        with self._about(dataset):
            stretch = self._run(history.begin_history(self._context, dataset, before=before))
        given = 0
        while True:
            for row in stretch.rows:
                yield row
                given += 1
                if given == limit:
                    return
            if stretch.rest is None:
                return
            with self._about(dataset):
                stretch = self._run(history.go_on(self._context, dataset, stretch.rest))

    def datasets(self) -> list[str]:
        """Return the names of the datasets that have something published, in alphabetical order."""
        self._refuse_if_closed()
        return self._run(listing.datasets(self._context))

    def status(self, dataset: str) -> Status | None:
        """Return a dataset at a glance, without reading its payload. None: nothing is published."""
        with self._about(dataset) as name:
            return self._run(listing.status(self._context, name))

    # --- the live view -----------------------------------------------------------------------------

    def put_live(
        self,
        dataset: str,
        value: Any,
        *,
        ttl: float | timedelta,
        etag: str | None = None,
        codec: str = "json",
    ) -> str:
        """Store a value that was computed on one version and is worth nothing on another.

        `ttl` is in seconds, or a timedelta. It is bound to `etag` (of the snapshot it was computed on), or
        else to the version this store saw last; returns that etag. Give `etag` where several threads share
        the store. Raises `NotFound` when nothing is published.
        """
        with self._about(dataset) as name:
            payload = codecs.encode(value, codec, limit_bytes=self._context.policy.max_payload_bytes)
            bound_to = None if etag is None else checks.etag(etag)
            putting = live.put_live(
                self._context, name, payload, codec=codec, ttl_ms=checks.ttl_ms(ttl), etag=bound_to
            )
            return self._run(putting)

    def read_live(self, dataset: str) -> LiveView | None:
        """Return the live view, if there is one and the version it was computed on is still current."""
        with self._about(dataset) as name:
            return self._run(live.read_live(self._context, name))

    # --- steering ----------------------------------------------------------------------------------

    def pin(self, dataset: str, *, id: str) -> Status:  # noqa: A002
        """Serve this snapshot to every reader of the latest until `unpin`; publishing goes on behind it.

        Raises `NotFound` unless the id is committed, `PayloadMissing` or `Corrupt` if it cannot be read.
        """
        with self._about(dataset) as name:
            return self._run(
                mirror.after(self._context, steer.pin(self._context, name, checks.snapshot_id(id)))
            )

    def unpin(self, dataset: str) -> Status:
        """Serve the latest snapshot again. Harmless when nothing is pinned."""
        with self._about(dataset) as name:
            return self._run(mirror.after(self._context, steer.unpin(self._context, name)))

    def rollback(self, dataset: str, *, id: str) -> Status:  # noqa: A002
        """Make this snapshot the latest, until a publish that is not older than it.

        Snapshots after it stay in the history. Raises like `pin`.
        """
        with self._about(dataset) as name:
            return self._run(
                mirror.after(self._context, steer.rollback(self._context, name, checks.snapshot_id(id)))
            )
