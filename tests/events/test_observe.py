"""Events written to a log, and exported as metrics."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from swapstore.events import (
    CallFailed,
    Event,
    Published,
    PublishRejected,
    ReadHit,
    ReadMiss,
    ReadStale,
    Repaired,
    Retried,
)
from swapstore.observe import log_events, otel_metrics

PUBLISHED = Published(
    dataset="mena", version=7, id="a", ts=5, size=1234, created=True, is_latest=True,
    attempts=1, round_trips=1, elapsed_s=0.25,
)  # fmt: skip
READ: dict[str, Any] = {"dataset": "mena", "version": 7, "id": "a", "size": 1234, "elapsed_s": 0.5}
ALL = [
    PUBLISHED,
    PublishRejected(dataset="mena", id="b", size=2, reason="it is empty"),
    Retried(dataset="mena", version=8, id="c"),
    ReadHit(**READ, round_trips=0),
    ReadMiss(**READ, round_trips=2),
    ReadStale(dataset="mena", version=3, id="a", size=1000, stale_s=61.0, error="Throttled"),
    Repaired(dataset="mena", version=9, found=2, left=1, dropped=0, restored=1, elapsed_s=1.0),
    CallFailed(dataset="mena", call="publish", error="StoreFull", elapsed_s=0.5),
]


def test_each_event_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    """An operator sees that something happened, but not to which dataset nor how bad it is."""
    tell = log_events()
    with caplog.at_level(logging.DEBUG, "swapstore.events"):
        for event in ALL:
            tell(event)
    assert [(record.name, record.levelname) for record in caplog.records] == [
        ("swapstore.events", level)
        for level in ("INFO", "WARNING", "INFO", "DEBUG", "DEBUG", "WARNING", "WARNING", "WARNING")
    ]
    assert [record.getMessage().removeprefix("dataset 'mena': ") for record in caplog.records] == [
        "published version 7, id a, 1,234 bytes (round trips: 1, 0.250 s)",
        "refused id b, 2 bytes: it is empty",
        "another commit became version 8 first; trying again",
        "read version 7 from memory (round trips: 0, 0.500 s)",
        "read version 7, fetched 1,234 bytes (round trips: 2, 0.500 s)",
        "served version 3, seen 61.0 s ago, because of Throttled",
        "repaired: 2 findings, 1 left; 0 snapshots dropped, 1 restored",
        "publish failed: StoreFull (0.500 s)",
    ]


def test_reads_are_not_logged_by_default(caplog: pytest.LogCaptureFixture) -> None:
    """A log grows by a line for each request that a web service serves."""
    with caplog.at_level(logging.INFO, "mine"):
        for event in ALL:
            log_events(logging.getLogger("mine"))(event)
    assert [record.name for record in caplog.records] == ["mine"] * 6


def test_an_unknown_event_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    """A new kind of event breaks every existing listener."""
    with caplog.at_level(logging.INFO, "swapstore.events"):
        log_events()(Event(dataset="mena"))
    assert caplog.messages == ["dataset 'mena': Event"]
    otel_metrics(MeterProvider().get_meter("test"))(Event(dataset="mena"))


def measured(*events: Event) -> dict[str, list[tuple[dict[str, Any], Any]]]:
    """Return what OpenTelemetry exports: the attributes and the count or sum of each instrument."""
    reader = InMemoryMetricReader()
    provider = MeterProvider(metric_readers=[reader])
    tell = otel_metrics(provider.get_meter("test"))
    for event in events:
        tell(event)
    data = reader.get_metrics_data()
    assert data is not None
    provider.shutdown()
    return {
        metric.name: [
            (dict(point.attributes or {}), getattr(point, "sum", None) or getattr(point, "value", None))
            for point in metric.data.data_points
        ]
        for metric in data.resource_metrics[0].scope_metrics[0].metrics
    }


def test_each_event_is_measured() -> None:
    """A dashboard shows nothing, or mixes up datasets and outcomes."""
    mena = {"dataset": "mena"}
    already = Published(
        dataset="mena", version=7, id="a", ts=5, size=1234, created=False, is_latest=True,
        attempts=0, round_trips=1, elapsed_s=0.5,
    )  # fmt: skip
    found = measured(*ALL, PUBLISHED, already)
    assert found["swapstore.publishes"] == [
        ({**mena, "outcome": "committed"}, 2),
        ({**mena, "outcome": "rejected"}, 1),
        ({**mena, "outcome": "already"}, 1),
    ]
    assert found["swapstore.publish.duration"] == [
        ({**mena, "outcome": "committed"}, 0.5),
        ({**mena, "outcome": "already"}, 0.5),
    ]
    assert found["swapstore.publish.size"] == [(mena, 2468)]
    assert found["swapstore.retries"] == [(mena, 1)]
    assert found["swapstore.repairs"] == [(mena, 1)]
    assert found["swapstore.failures"] == [
        ({**mena, "swapstore.call": "publish", "error.type": "StoreFull"}, 1)
    ]
    assert found["swapstore.reads"] == [({**mena, "outcome": kind}, 1) for kind in ("hit", "miss", "stale")]
    assert found["swapstore.read.staleness"] == [(mena, 61.0)]
    assert found["swapstore.read.duration"] == [({**mena, "outcome": kind}, 0.5) for kind in ("hit", "miss")]


def test_the_meter_of_the_process_is_the_default() -> None:
    """A program that has set up OpenTelemetry has to pass its meter around."""
    tell = otel_metrics()
    for event in ALL:
        tell(event)


def test_without_the_extra_the_error_names_it() -> None:
    """A user without the extra gets an ImportError of an unknown name."""
    code = (
        "import sys; sys.modules['opentelemetry'] = None\n"
        "from swapstore import InvalidInput, observe\n"
        "observe.log_events()\n"
        "try: observe.otel_metrics()\n"
        "except InvalidInput as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'swapstore[otel]'" in done.stdout
