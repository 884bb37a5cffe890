"""What Prometheus gets: counts, durations, and the ages of views; the dashboard and the alerts use it."""

from __future__ import annotations

import gc
import json
import re
import threading
import time
import urllib.request
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, Gauge, generate_latest, start_http_server
from prometheus_client.parser import text_string_to_metric_families

import swapstore
from swapstore import Store
from swapstore.observe import otel_view, prometheus_metrics, prometheus_view
from swapstore.testing import SimulatedStore
from tests.events.test_observe import ALL, READ
from tests.support.drivers import another
from tests.support.valkey import Server, free_port

GRAFANA = Path(__file__).parents[2] / "docs" / "grafana"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def scraped(registry: CollectorRegistry) -> Iterator[Any]:
    """A function that scrapes over HTTP, as Prometheus does."""
    server, thread = start_http_server(0, "127.0.0.1", registry)

    def scrape() -> Samples:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    yield scrape
    server.shutdown()
    server.server_close()
    assert isinstance(thread, threading.Thread)
    thread.join()


def named(name: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return name, tuple(sorted({"dataset": "mena", **labels}.items()))


def test_each_event_is_counted(registry: CollectorRegistry, scraped: Any) -> None:
    """A dashboard shows no failures, because nothing counts them."""
    listener = prometheus_metrics(registry)
    for event in ALL:
        listener(event)
    found = scraped()
    expected = {
        named("swapstore_publishes_total", outcome="committed"): 1,
        named("swapstore_publishes_total", outcome="rejected"): 1,
        named("swapstore_publish_seconds_sum"): 0.25,
        named("swapstore_published_bytes_total", form="payload"): 1234,
        named("swapstore_published_bytes_total", form="stored"): 0,
        named("swapstore_retries_total"): 1,
        named("swapstore_failures_total", call="publish", error="StoreFull"): 1,
        named("swapstore_reads_total", outcome="hit"): 1,
        named("swapstore_reads_total", outcome="miss"): 1,
        named("swapstore_reads_total", outcome="stale"): 1,
        named("swapstore_read_seconds_sum", outcome="miss"): READ["elapsed_s"],
        named("swapstore_repairs_total"): 1,
    }
    assert {key: found[key] for key in expected} == expected


def test_what_was_done_already_is_told_apart(registry: CollectorRegistry, tmp_path: Path) -> None:
    """A job that publishes the same again seems to store its bytes, or a cache that never hits seems to."""
    listener, url = prometheus_metrics(registry), f"sqlite:///{tmp_path}/store.db"

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"swapstore_{name}_total", {"dataset": "mena", **labels})

    with swapstore.connect(url, on_event=listener) as store:
        for _ in range(3):
            size = store.publish("mena", [1] * 500, id="a").size
    with swapstore.connect(url, on_event=listener) as reader:
        for _ in range(4):
            reader.read_latest("mena")
    assert (value("publishes", outcome="committed"), value("publishes", outcome="already")) == (1, 2)
    assert value("published_bytes", form="payload") == size
    assert (value("reads", outcome="miss"), value("reads", outcome="hit")) == (1, 3)


@pytest.mark.parametrize("compression", ["none", "zstd", "delta"])
def test_bytes_before_and_after_encoding(compression: Any, tmp_path: Path) -> None:
    """Nobody sees what compression is worth, or that it is worth nothing."""
    events: list[swapstore.events.Event] = []
    url = f"sqlite:///{tmp_path}/store.db"
    value = {"rows": [{"name": "something", "value": number % 7} for number in range(400)]}
    with swapstore.connect(url, compression=compression, on_event=events.append) as store:
        store.publish("mena", value, id="a")
        store.publish("mena", {**value, "more": 1})
        store.publish("mena", value, id="a")
    first, second, again = (event for event in events if isinstance(event, swapstore.events.Published))
    assert again.stored_size == 0
    most = {"none": 1.1, "zstd": 0.2, "delta": 0.1}[compression]
    assert 0 < second.stored_size < most * second.size
    assert first.stored_size > (1.0 if compression == "none" else 0.01) * first.size


def test_the_age_of_a_view(store: Store, registry: CollectorRegistry, scraped: Any) -> None:
    """A service serves old data through an outage, and no monitor sees it."""
    another(store).publish("mena", 1, ts=time.time_ns() // 1_000_000 - 100_000)
    with store.view(["mena", "europe"]) as view:
        prometheus_view(view, registry)
        with store.view(["asia"]) as other:
            prometheus_view(other, registry)
            found = scraped()
        assert found[named("swapstore_view_age_seconds")] < 60
        assert found[named("swapstore_view_behind")] == 0
        assert found[named("swapstore_view_confirmed_age_seconds")] < 60
        assert 100 <= found[named("swapstore_view_data_age_seconds")] < 160
        assert named("swapstore_view_data_age_seconds", dataset="europe") not in found
        assert found[named("swapstore_view_behind", dataset="asia")] == 0
        assert named("swapstore_view_behind", dataset="asia") not in scraped()
    assert not scraped()


def test_a_view_that_is_not_started_yet(registry: CollectorRegistry) -> None:
    """All metrics of a process are missing until its view has started, or the view is missing for good."""
    with SimulatedStore().connect() as store:
        view = store.view(["mena"])
        prometheus_view(view, registry)
        assert registry.get_sample_value("swapstore_view_behind", {"dataset": "mena"}) is None
        with view:
            assert registry.get_sample_value("swapstore_view_behind", {"dataset": "mena"}) == 0


def test_a_view_that_has_read_nothing(registry: CollectorRegistry) -> None:
    """The store is down at the start, and all metrics of the process are missing, or say that all is well."""
    with (
        swapstore.connect(f"redis://127.0.0.1:{free_port()}", timeout=0.2) as store,
        store.view(["mena"], wait_ready=0) as view,
    ):
        prometheus_view(view, registry)
        assert b'swapstore_view_behind{dataset="mena"} 1.0' in generate_latest(registry)
        assert registry.get_sample_value("swapstore_view_age_seconds", {"dataset": "mena"}) is None


def test_a_closed_view_is_not_kept(registry: CollectorRegistry) -> None:
    """A service that makes a view for each task keeps the payloads of all of them."""
    with SimulatedStore().connect() as store:
        view = store.view(["mena"])
        with view:
            prometheus_view(view, registry)
        list(registry.collect())
        kept = weakref.ref(view)
        del view
        gc.collect()
        assert kept() is None


def test_names_that_are_taken_are_refused_each_time() -> None:
    """A second try seems to succeed, and exports nothing."""
    registry = CollectorRegistry(auto_describe=True)  # like that of the process
    Gauge("swapstore_view_behind", "of another library", registry=registry)
    with SimulatedStore().connect() as store:
        for _ in range(2):
            with pytest.raises(ValueError, match="Duplicated"):
                prometheus_view(store.view(["mena"]), registry)


def test_a_view_that_is_added_during_two_scrapes(registry: CollectorRegistry) -> None:
    """It is never exported, because the first scrape has put back the views that it had found."""
    with SimulatedStore().connect() as store, store.view(["mena"]) as first, store.view(["asia"]) as second:
        health = first.health

        def adding() -> Any:
            first.health = health  # type: ignore[method-assign]
            list(registry.collect())
            prometheus_view(second, registry)
            return health()

        prometheus_view(first, registry)
        first.health = adding  # type: ignore[method-assign]
        list(registry.collect())
        assert registry.get_sample_value("swapstore_view_behind", {"dataset": "asia"}) == 0


def test_the_age_of_a_view_in_an_outage(tmp_path: Path, registry: CollectorRegistry) -> None:
    """The age does not grow while the store is down."""
    with Server(tmp_path / "own") as server, swapstore.connect(server.url, timeout=0.5) as store:
        store.publish("mena", 1)
        with store.view(["mena"], poll=0.05) as view:
            prometheus_view(view, registry)
            server.stop()

            def value(name: str) -> float:
                return registry.get_sample_value(f"swapstore_view_{name}", {"dataset": "mena"}) or 0.0

            for _ in range(1000):
                if value("behind"):
                    break
                view.wait(0.02)
            before = value("age_seconds")
            view.wait(0.2)
            assert value("age_seconds") >= before + 0.15


def test_the_age_of_a_view_with_opentelemetry(store: Store) -> None:
    """Who exports with OpenTelemetry has no ages."""
    reader = InMemoryMetricReader()
    another(store).publish("mena", 1, ts=time.time_ns() // 1_000_000 - 100_000)
    with store.view(["mena"]) as view:
        otel_view(view, MeterProvider([reader]).get_meter("test"))
        exported: Any = reader.get_metrics_data()
        (found,) = exported.resource_metrics[0].scope_metrics
        assert {metric.name for metric in found.metrics} == {
            "swapstore.view.age",
            "swapstore.view.data_age",
            "swapstore.view.confirmed_age",
            "swapstore.view.behind",
        }
        for metric in found.metrics:
            assert [dict(point.attributes) for point in metric.data.data_points] == [{"dataset": "mena"}]
            least, most = {
                "age": (0, 60),
                "data_age": (100, 160),
                "confirmed_age": (0, 60),
                "behind": (0, 0),
            }[metric.name.split(".")[-1]]
            assert least <= metric.data.data_points[0].value <= most


def test_what_is_no_view_is_refused(registry: CollectorRegistry, store: Store) -> None:
    """Every scrape fails, because somebody has passed the store and not the view."""
    with pytest.raises(swapstore.InvalidInput, match="not a Store"):
        prometheus_view(store, registry)  # type: ignore[arg-type]
    with pytest.raises(swapstore.InvalidInput, match="not a Store"):
        otel_view(store)  # type: ignore[arg-type]


def test_all_stores_of_a_process_share_a_listener(registry: CollectorRegistry) -> None:
    """A service with two stores cannot start: its metrics are there already."""
    assert prometheus_metrics(registry) is prometheus_metrics(registry)


# --- the dashboard and the alerts -----------------------------------------------------------------------


def exported() -> set[str]:
    """Return the names of all samples that there can be."""
    registry = CollectorRegistry()
    listener = prometheus_metrics(registry)
    for event in ALL:
        listener(event)
    with SimulatedStore().connect() as store, store.view(["mena"]) as view:
        store.publish("mena", 1)
        view.wait(10)
        prometheus_view(view, registry)
        return {sample.name for family in registry.collect() for sample in family.samples}


@pytest.mark.parametrize("file", ["dashboard.json", "alerts.yml"])
def test_what_is_shown_and_watched_is_exported(file: str) -> None:
    """A panel stays empty, or an alert never fires, because a metric has another name."""
    used = set(re.findall(r"\bswapstore_\w+", (GRAFANA / file).read_text("utf-8")))
    assert used
    assert used <= exported()


def test_the_dashboard_can_be_imported() -> None:
    """Grafana refuses the file, or shows panels on top of each other."""
    dashboard = json.loads((GRAFANA / "dashboard.json").read_text("utf-8"))
    assert dashboard["uid"] == "swapstore"
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken
        assert all(x < 24 for x, _ in cells)
        taken |= cells
        assert panel["targets"]
        assert panel["description"]
        assert all(target["datasource"]["uid"] == "${source}" for target in panel["targets"])
