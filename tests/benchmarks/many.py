"""`python -m tests.benchmarks.many`: eight regions over a slow network, beside the six commands of each.

A proxy adds 50 ms each way, so one round trip takes 100 ms. Every round measures each way once, in turn, on
warm connections; the table shows medians and their ratios to one round trip. Nothing decides a test.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import redis
from rich.console import Console
from rich.table import Table

import swapstore
from tests.benchmarks.latency import SlowNetwork
from tests.support.valkey import Server

REGIONS = ("mena", "europe", "asia", "africa", "oceania", "latam", "nordics", "us")
DELAY_S = 0.05
ROUNDS = 7
PAYLOAD = b"x" * 10_000
TARGET_S = 0.25


def old_way(client: redis.Redis, number: int) -> None:
    """Publish each region with its six commands, one region after the other, as the producer does today."""
    for region in REGIONS:
        name, ts = f"run-{number}", 1_800_000_000_000 + number
        pipeline = client.pipeline(transaction=True)
        pipeline.set(f"snapshot:v1:{region}:{ts}", PAYLOAD)
        pipeline.set(f"snapshot-by-id:v1:{name}", PAYLOAD)
        pipeline.set(f"snapshot:v1:{region}:latest", name)
        pipeline.zadd(f"snapshot-index:v1:{region}", {name: ts})
        pipeline.zremrangebyscore(f"snapshot-index:v1:{region}", 0, 0)
        pipeline.delete(f"live:{region}")
        pipeline.execute()


def old_read(client: redis.Redis) -> None:
    """Read each region in two steps."""
    for region in REGIONS:
        name: Any = client.get(f"snapshot:v1:{region}:latest")
        assert client.get(f"snapshot-by-id:v1:{name.decode()}") == PAYLOAD


def measure(port: int) -> dict[str, list[float]]:
    """Measure each way, in turn."""
    client = redis.Redis(port=port)
    store = swapstore.connect(f"redis://127.0.0.1:{port}/0")
    reader = swapstore.connect(f"redis://127.0.0.1:{port}/0")
    numbers = iter(range(10_000))

    def publish_many() -> None:
        store.publish_many(dict.fromkeys(REGIONS, PAYLOAD), codec="bytes").raise_for_failures()

    def publish_each() -> None:
        for region in REGIONS:
            store.publish(region, PAYLOAD, codec="bytes")

    def read_each() -> None:
        for region in REGIONS:
            assert reader.read_latest(region)

    ways: dict[str, Callable[[], Any]] = {
        "one round trip (PING)": client.ping,
        "six commands, region after region": lambda: old_way(client, next(numbers)),
        "publish, region after region": publish_each,
        "publish_many": publish_many,
        "two-step read, region after region": lambda: old_read(client),
        "read_latest, region after region, warm": read_each,
        "read_latest_many, new versions": lambda: reader.read_latest_many(REGIONS),
        "read_latest_many, nothing new": lambda: reader.read_latest_many(REGIONS),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(ROUNDS + 1):
        for name, way in ways.items():
            if name == "read_latest_many, new versions":
                publish_many()
            began = time.perf_counter()
            way()
            if number:  # the first round warms up
                taken[name].append(time.perf_counter() - began)
    for each in (store, reader, client):
        each.close()
    return taken


def main() -> None:
    """Measure, and print a table, or JSON when piped."""
    with (
        TemporaryDirectory() as directory,
        Server(Path(directory)) as server,
        SlowNetwork(server.port, DELAY_S) as network,
    ):
        medians = {name: statistics.median(each) for name, each in measure(network.port).items()}
    trip = medians["one round trip (PING)"]
    if not sys.stdout.isatty():
        found = {name: {"ratio": each / trip, "seconds": each} for name, each in medians.items()}
        sys.stdout.write(json.dumps(found) + "\n")
    table = Table(title=f"{len(REGIONS)} regions, 10 KB each, 50 ms each way; medians of {ROUNDS}")
    for column in ("way", "round trips", "ms"):
        table.add_column(column, justify="left" if column == "way" else "right")
    for name, each in medians.items():
        table.add_row(name, f"{each / trip:.1f}", f"{each * 1000:.0f}")
    console = Console(stderr=not sys.stdout.isatty())
    console.print(table)
    for name in ("publish_many", "read_latest_many, new versions", "read_latest_many, nothing new"):
        verdict = "met" if medians[name] < TARGET_S else "MISSED"
        console.print(f"{name}: {medians[name] * 1000:.0f} ms, target {TARGET_S * 1000:.0f} ms: {verdict}")


if __name__ == "__main__":
    main()
