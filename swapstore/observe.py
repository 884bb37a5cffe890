"""Listeners for `on_event`: one writes a log, two count and measure, with OpenTelemetry and for Prometheus.

    from swapstore import observe

    store = swapstore.connect(on_event=observe.log_events())

A listener is a function of an event. Views have no events: their ages are asked for when they are exported.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from swapstore.errors import InvalidInput, StoreClosed
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
    from collections.abc import Callable, Iterable, Iterator

    from opentelemetry.metrics import CallbackOptions, Meter, Observation
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import GaugeMetricFamily

    from swapstore.views import AsyncView, View

__all__ = ["log_events", "otel_metrics", "otel_view", "prometheus_metrics", "prometheus_view"]

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
    return _OtelMetrics(meter or _meter("otel_metrics"))


def _meter(needed_by: str) -> Meter:
    try:
        from opentelemetry import metrics  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InvalidInput(f"{needed_by} needs an extra: pip install 'swapstore[otel]'") from error
    return metrics.get_meter("swapstore")


class _OtelMetrics:
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
        self._stored_bytes = meter.create_histogram(
            "swapstore.publish.stored_size", unit="By", description="Records of new commits, encoded"
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
                    self._stored_bytes.record(event.stored_size, dataset)
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


def otel_view(view: View | AsyncView, meter: Meter | None = None) -> None:
    """Export what a view knows of each dataset, with OpenTelemetry: see `prometheus_view` for what that is.

    The names are `swapstore.view.age`, `swapstore.view.data_age` and `swapstore.view.confirmed_age`, in
    seconds, and `swapstore.view.behind`. They are exported as long as the view is open. `meter` and the extra
    are those of `otel_metrics`.
    """
    _require_view(view)
    made = meter or _meter("otel_view")
    for name, unit, about, key in _OF_VIEWS:

        def observe(_: CallbackOptions, key: str = key) -> Iterable[Observation]:
            from opentelemetry.metrics import Observation  # noqa: PLC0415 - an extra

            for dataset, figures in (_figures(view) or {}).items():
                if key in figures:
                    yield Observation(figures[key], {"dataset": dataset})

        made.create_observable_gauge(
            f"swapstore.view.{name}", callbacks=[observe], unit=unit, description=about
        )


# What is exported of each dataset of a view: name, unit, description, key of `_figures`.
_OF_VIEWS = (
    ("age", "s", "Seconds since the store last confirmed what the view serves", "age"),
    ("data_age", "s", "Seconds since the ts of the snapshot that the view serves", "data_age"),
    ("confirmed_age", "s", "Seconds since a producer published or confirmed it", "confirmed_age"),
    ("behind", "1", "1 if the last look at the dataset failed, else 0", "behind"),
)


def _figures(view: View | AsyncView) -> dict[str, dict[str, float]] | None:
    """Return the figures of each dataset of a view, without I/O. None: the view is closed."""
    try:
        health = view.health()
    except StoreClosed:
        return None
    except InvalidInput:  # it is not started yet, or it is of another process
        return {}
    found: dict[str, dict[str, float]] = {}
    for name, each in health.datasets.items():
        found[name] = {"behind": float(each.behind)}
        if each.age is not None:
            found[name]["age"] = each.age
        if each.ts is not None and each.confirmed_at is not None:
            found[name]["data_age"] = time.time() - each.ts / 1000
            found[name]["confirmed_age"] = time.time() - each.confirmed_at / 1000
    return found


# --- Prometheus -----------------------------------------------------------------------------------------


def prometheus_metrics(registry: CollectorRegistry | None = None) -> Callable[[Event], None]:
    """Return a listener that counts and measures for Prometheus; every metric has the label `dataset`.

    `registry`: default: the one of the process, which `prometheus_client` exports. All stores of a registry
    share one listener, which each call returns. Raises `InvalidInput` if the extra `prometheus` is not
    installed.
    """
    client = _prometheus("prometheus_metrics")
    where = registry or client.REGISTRY
    with _REGISTERING:
        if where not in _LISTENERS:
            _LISTENERS[where] = _PrometheusMetrics(client, where)
    return _LISTENERS[where]


def prometheus_view(view: View | AsyncView, registry: CollectorRegistry | None = None) -> None:
    """Export what a view knows of each dataset, for Prometheus, as long as it is open.

    `swapstore_view_age_seconds`: since the store last confirmed what is served; it grows in an outage.
    `swapstore_view_data_age_seconds`: since the `ts` of the snapshot; it grows when nobody publishes.
    `swapstore_view_confirmed_age_seconds`: since a producer published or confirmed it.
    `swapstore_view_behind`: 1 if the last look at the dataset failed. Two views of one registry must not have
    the same datasets. Raises `InvalidInput` if the extra `prometheus` is not installed.
    """
    _require_view(view)
    client = _prometheus("prometheus_view")
    where = registry or client.REGISTRY
    with _REGISTERING:
        if where not in _COLLECTORS:
            collector = _ViewCollector(client)
            where.register(collector)
            _COLLECTORS[where] = collector
    _COLLECTORS[where].views[view] = None


_REGISTERING = threading.Lock()
_COLLECTORS: WeakKeyDictionary[Any, _ViewCollector] = WeakKeyDictionary()  # one for each registry
_LISTENERS: WeakKeyDictionary[Any, _PrometheusMetrics] = WeakKeyDictionary()  # likewise


def _require_view(view: Any) -> None:
    """Refuse what is no view. Their module is above this one, so it goes by a method that only they have."""
    if not hasattr(type(view), "age"):
        raise InvalidInput(f"this exports what store.view(…) returns, not a {type(view).__name__}")


def _prometheus(needed_by: str) -> Any:
    try:
        import prometheus_client  # noqa: PLC0415 - an extra
        import prometheus_client.core  # noqa: PLC0415
    except ImportError as error:
        raise InvalidInput(f"{needed_by} needs an extra: pip install 'swapstore[prometheus]'") from error
    return prometheus_client


class _ViewCollector:
    """Makes the metrics of views at each scrape.

    Views are added and scraped in any thread, so each change of `views` is one step of a dict.
    """

    def __init__(self, client: Any) -> None:
        self.views: dict[View | AsyncView, None] = {}
        self._client = client

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Return the gauges as they are now."""
        each_view = {view: _figures(view) for view in tuple(self.views)}
        for view, figures in each_view.items():
            if figures is None:
                self.views.pop(view, None)
        for name, unit, about, key in _OF_VIEWS:
            full_name = f"swapstore_view_{name}" + ("_seconds" if unit == "s" else "")
            gauge = self._client.core.GaugeMetricFamily(full_name, about, labels=["dataset"])
            every = (item for figures in each_view.values() for item in (figures or {}).items())
            for dataset, each in every:
                if key in each:
                    gauge.add_metric([dataset], each[key])
            yield gauge


class _PrometheusMetrics:
    """The instruments. The label `outcome` says how a publish or a read ended."""

    def __init__(self, client: Any, where: CollectorRegistry) -> None:
        def counter(name: str, about: str, *labels: str) -> Any:
            return client.Counter(f"swapstore_{name}", about, ["dataset", *labels], registry=where)

        def histogram(name: str, about: str, *labels: str) -> Any:
            return client.Histogram(f"swapstore_{name}", about, ["dataset", *labels], registry=where)

        self._publishes = counter("publishes", "Publishes that ended in a commit or refusal", "outcome")
        self._publish_s = histogram("publish_seconds", "How long a publish took")
        self._bytes = counter("published_bytes", "Bytes of new commits, as payload and as stored", "form")
        self._retries = counter("retries", "Swaps to which another commit came first")
        self._failures = counter("failures", "Calls that raised an error", "call", "error")
        self._reads = counter("reads", "Reads that found a snapshot", "outcome")
        self._read_s = histogram("read_seconds", "How long a read took", "outcome")
        self._repairs = counter("repairs", "Repairs that found something wrong")

    def __call__(self, event: Event) -> None:
        dataset = event.dataset
        match event:
            case Published():
                self._publishes.labels(dataset, "committed" if event.created else "already").inc()
                self._publish_s.labels(dataset).observe(event.elapsed_s)
                if event.created:
                    self._bytes.labels(dataset, "payload").inc(event.size)
                    self._bytes.labels(dataset, "stored").inc(event.stored_size)
            case CallFailed():
                self._failures.labels(dataset, event.call, event.error).inc()
            case PublishRejected():
                self._publishes.labels(dataset, "rejected").inc()
            case Retried():
                self._retries.labels(dataset).inc()
            case ReadHit() | ReadMiss():
                outcome = "hit" if isinstance(event, ReadHit) else "miss"
                self._reads.labels(dataset, outcome).inc()
                self._read_s.labels(dataset, outcome).observe(event.elapsed_s)
            case ReadStale():
                self._reads.labels(dataset, "stale").inc()
            case Repaired():
                self._repairs.labels(dataset).inc()
