"""Views, beside a dict and a GET: what a look-up takes, and how soon a commit is visible."""

from __future__ import annotations

import statistics
import threading
import time
import tracemalloc
from collections.abc import Mapping
from typing import Any

import redis

import swapstore
from tests.benchmarks import payloads
from tests.benchmarks.bench import Bench, titled
from tests.benchmarks.rounds import Way, measure

SECTION = "view"
LOOK_UPS = 1000  # that one sample times
DATASETS, COMMITS, THREADS, BESIDE_S = 1000, 500, 100, 3.0
GET, DICT, VIEW = "GET of the payload (raw)", f"{LOOK_UPS:,} look-ups in a dict", f"{LOOK_UPS:,} of view[…]"


def run(bench: Bench) -> None:
    """Measure look-ups, then a thousand datasets, then a hundred threads."""
    look_ups(bench)
    datasets = DATASETS // 10 if bench.quick else DATASETS
    a_thousand(bench, datasets)
    beside_a_publisher(bench)


def look_ups(bench: Bench) -> None:
    """Measure what one look-up takes."""
    payload = payloads.payload(1000)
    key = f"{bench.ground.namespace}:get"
    with redis.Redis.from_url(bench.ground.url) as client, bench.ground.store() as store:
        client.set(key, payload)
        store.publish("mena", payload, codec="bytes")
        plain = {"mena": payload}
        with store.view(["mena"]) as view:
            samples = measure(
                [
                    Way(GET, lambda: client.get(key)),
                    Way(DICT, lambda: _repeated(plain)),
                    Way(VIEW, lambda: _repeated(view)),
                ],
                rounds=bench.rounds,
                wire=bench.ground.wire,
            )
    bench.report.add_timed(SECTION, titled(SECTION, "1 KB", 0), samples, GET)
    taken = {name: statistics.median(samples[name].taken_ns) for name in (GET, DICT, VIEW)}
    one = taken[VIEW] / LOOK_UPS
    bench.report.note(
        f"one look-up: view {one:.0f} ns, dict {taken[DICT] / LOOK_UPS:.0f} ns, GET {taken[GET]:.0f} ns; "
        f"target 1,000 ns: {'met' if one < 1000 else 'MISSED'}"
    )
    bench.ground.clear()


def _repeated(mapping: Mapping[str, Any]) -> None:
    for _ in range(LOOK_UPS):
        mapping["mena"]


def a_thousand(bench: Bench, count: int) -> None:
    """Measure the start, the memory, and how soon a commit is visible, with so many datasets of 1 KB."""
    names = [f"d{number}" for number in range(count)]
    seen: dict[tuple[str, int], float] = {}

    def note(changed: Mapping[str, swapstore.Snapshot | None]) -> None:
        now = time.perf_counter()
        seen.update({(name, each.version): now for name, each in changed.items() if each})

    with bench.ground.store() as producer, bench.ground.store() as store:
        for name in names:
            producer.publish(name, payloads.payload(1000), codec="bytes")
        tracemalloc.start()
        began = time.perf_counter()
        view = store.view(names, on_change=note).start()
        started_ms = (time.perf_counter() - began) * 1000
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        producer.publish(names[0], b"wait until it has subscribed", codec="bytes")
        view.wait(5)
        late_ms = []
        for number in range(COMMITS):
            name = names[number % count]
            commit = producer.publish(name, payloads.payload(1000), codec="bytes")
            began = time.perf_counter()
            while (name, commit.version) not in seen:
                time.sleep(0.0002)
            late_ms.append(max(0.0, seen[name, commit.version] - began) * 1000)
            time.sleep(0.002)
        view.close()
    late_ms.sort()
    p50, p99 = late_ms[len(late_ms) // 2], late_ms[len(late_ms) * 99 // 100]
    bench.report.note(
        f"{count:,} datasets of 1 KB in one view: started in {started_ms:.0f} ms (while memory was traced), "
        f"{held / count:,.0f} bytes each; visible after the publish returned: p50 {p50:.1f} ms, "
        f"p99 {p99:.1f} ms, target 50 ms: {'met' if p99 < 50 else 'MISSED'}"
    )
    bench.ground.clear()


def beside_a_publisher(bench: Bench) -> None:
    """Measure a hundred threads that read a view while somebody publishes."""
    stop = threading.Event()
    reads = [0] * THREADS

    def read(index: int, view: swapstore.View) -> None:
        while not stop.is_set():
            for _ in range(100):
                view["mena"]
            reads[index] += 100
            time.sleep(0.001)  # as a server that waits for its next request

    with bench.ground.store() as producer, bench.ground.store() as store:
        producer.publish("mena", 0)
        with store.view(["mena"]) as view:
            threads = [threading.Thread(target=read, args=(index, view)) for index in range(THREADS)]
            for thread in threads:
                thread.start()
            began, published = time.monotonic(), 0
            while time.monotonic() < began + BESIDE_S:
                published += 1
                producer.publish("mena", published)
            stop.set()
            for thread in threads:
                thread.join()
            while (latest := view["mena"]) is None or latest.value != published:
                view.wait(1)
    bench.report.note(
        f"{THREADS} threads beside a publisher in one process: {sum(reads) / BESIDE_S:,.0f} look-ups and "
        f"{published / BESIDE_S:,.0f} publishes a second"
    )
    bench.ground.clear()
