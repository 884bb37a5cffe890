"""Listeners for `on_event`: one writes a log, one counts and measures with OpenTelemetry.

    from swapstore import observe

    store = swapstore.connect(on_event=observe.log_events())

A listener is a function of an event.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from swapstore.errors import InvalidInput
from swapstore.events import (
    CallFailed,
    DatasetDropped,
    Event,
    Published,
    PublishRejected,
    ReadHit,
    ReadMiss,
    ReadStale,
    Repaired,
    Retried,
    SnapshotErased,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from opentelemetry.metrics import Meter

__all__ = ["log_events", "otel_metrics"]

LOGGER = "swapstore.events"


def log_events(logger: logging.Logger | None = None) -> Callable[[Event], None]:
    """Return a listener that writes one line for each event.

    `logger`: default: the logger `swapstore.events`. Publishes and retries are logged at INFO, failures,
    rejections, repairs and stale reads at WARNING, other reads at DEBUG.
    """
    log = logging.getLogger(LOGGER) if logger is None else logger

    def log_event(event: Event) -> None:
        level = _level(event)
        if log.isEnabledFor(level):
            log.log(level, "dataset %r: %s", event.dataset, _describe(event))

    return log_event


def _level(event: Event) -> int:
    match event:
        case CallFailed() | PublishRejected() | ReadStale() | Repaired():
            return logging.WARNING
        case ReadHit() | ReadMiss():
            return logging.DEBUG
        case _:
            return logging.INFO


def _describe(event: Event) -> str:
    match event:
        case Published():
            action = "published" if event.created else "was published before:"
            on = "" if event.replicas is None else f", replicas: {event.replicas}"
            return f"{action} version {event.version}, id {event.id}, {event.size:,} bytes{on}{_cost(event)}"
        case CallFailed():
            return f"{event.call} failed: {event.error} ({event.elapsed_s:.3f} s)"
        case PublishRejected():
            return f"refused id {event.id}, {event.size:,} bytes: {event.reason}"
        case Retried():
            return f"another commit became version {event.version} first; trying again"
        case ReadHit() | ReadMiss():
            source = " from memory" if isinstance(event, ReadHit) else f", fetched {event.size:,} bytes"
            return f"read version {event.version}{source}{_cost(event)}"
        case ReadStale():
            return f"served version {event.version}, seen {event.stale_s:.1f} s ago, because of {event.error}"
        case Repaired():
            return (
                f"repaired: {event.found} findings, {event.left} left; {event.dropped} snapshots dropped, "
                f"{event.restored} restored"
            )
        case SnapshotErased():
            which = f"version {event.version}, id {event.id}"
            return f"erased {which}; {event.stored_anew} snapshots stored anew ({event.elapsed_s:.3f} s)"
        case DatasetDropped():
            since = ", published to again since" if event.republished else ""
            return f"dropped, {event.snapshots:,} snapshots removed{since} ({event.elapsed_s:.3f} s)"
        case _:
            return type(event).__name__


def _cost(event: Published | ReadHit | ReadMiss) -> str:
    return f" (round trips: {event.round_trips}, {event.elapsed_s:.3f} s)"


def otel_metrics(meter: Meter | None = None) -> Callable[[Event], None]:
    """Return a listener that counts and measures; every metric has the attribute `dataset`.

    `meter`: default: the meter `swapstore` of the process's meter provider, which needs the extra `otel`.
    Raises `InvalidInput` if it needs the extra and the extra is not installed.
    """
    if meter is None:
        try:
            from opentelemetry import metrics  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise InvalidInput("otel_metrics needs an extra: pip install 'swapstore[otel]'") from error
        meter = metrics.get_meter("swapstore")
    return _Metrics(meter)


class _Metrics:
    """The instruments. The attribute `outcome` says how a publish or a read ended."""

    def __init__(self, meter: Meter) -> None:
        self._publishes = meter.create_counter(
            "swapstore.publishes", unit="{publish}", description="Publishes that ended in a commit or refusal"
        )
        self._publish_s = meter.create_histogram(
            "swapstore.publish.duration", unit="s", description="How long a publish took"
        )
        self._publish_bytes = meter.create_histogram(
            "swapstore.publish.size", unit="By", description="Payloads of new commits"
        )
        self._retries = meter.create_counter(
            "swapstore.retries", unit="{retry}", description="Swaps to which another commit came first"
        )
        self._failures = meter.create_counter(
            "swapstore.failures", unit="{call}", description="Calls that raised an error"
        )
        self._reads = meter.create_counter(
            "swapstore.reads", unit="{read}", description="Reads that found a snapshot"
        )
        self._read_s = meter.create_histogram(
            "swapstore.read.duration", unit="s", description="How long a read took"
        )
        self._read_stale_s = meter.create_histogram(
            "swapstore.read.staleness", unit="s", description="How long ago the store showed what was served"
        )
        self._repairs = meter.create_counter(
            "swapstore.repairs", unit="{repair}", description="Repairs that found something wrong"
        )

    def __call__(self, event: Event) -> None:
        dataset = {"dataset": event.dataset}
        match event:
            case Published():
                outcome = {**dataset, "outcome": "committed" if event.created else "already"}
                self._publishes.add(1, outcome)
                self._publish_s.record(event.elapsed_s, outcome)
                if event.created:
                    self._publish_bytes.record(event.size, dataset)
            case CallFailed():
                kind = {"swapstore.call": event.call, "error.type": event.error}
                self._failures.add(1, {**dataset, **kind})
            case PublishRejected():
                self._publishes.add(1, {**dataset, "outcome": "rejected"})
            case Retried():
                self._retries.add(1, dataset)
            case ReadHit() | ReadMiss():
                outcome = {**dataset, "outcome": "hit" if isinstance(event, ReadHit) else "miss"}
                self._reads.add(1, outcome)
                self._read_s.record(event.elapsed_s, outcome)
            case ReadStale():
                self._reads.add(1, {**dataset, "outcome": "stale"})
                self._read_stale_s.record(event.stale_s, dataset)
            case Repaired():
                self._repairs.add(1, dataset)
