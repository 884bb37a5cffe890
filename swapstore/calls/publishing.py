"""Publishing, and what else a producer does: checked, and handed to the operations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from swapstore import checks, codecs
from swapstore.calls.about import about
from swapstore.errors import InvalidInput
from swapstore.migration import mirror
from swapstore.models import Outcomes
from swapstore.protocol import live, pointers
from swapstore.protocol.batching import together
from swapstore.protocol.publish import Publication

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta

    from swapstore.models import Candidate, Commit, Snapshot, Status
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation

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
            bound_to = None if etag is None else checks.etag(etag)
            putting = live.put_live(
                self._context, name, payload, codec=codec, ttl_ms=checks.ttl_ms(ttl), etag=bound_to
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
            id=None if id is None else checks.snapshot_id(id),
            ts=None if ts is None else checks.timestamp_ms(ts),
            labels=checks.labels({} if labels is None else labels),
            dedupe_key=None if dedupe_key is None else checks.dedupe_key(dedupe_key),
            expected_version=None if expected_version is None else checks.expected_version(expected_version),
            validate=validate,
        )
