"""`python -m tests.benchmarks.batching`: eight regions over a slow network, beside six commands for each.

A proxy adds 50 ms each way, so one round trip takes 100 ms. Every round measures each way once, in turn, on
warm connections; the table shows medians and their ratios to one round trip. No figure fails a test.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import redis
from rich.console import Console

import swapstore
import swapstore.aio
from tests.benchmarks import payloads, report
from tests.benchmarks.bench import Bench, titled
from tests.benchmarks.latency import slow_network
from tests.benchmarks.payloads import REGIONS
from tests.benchmarks.rounds import Sample, Way, Wire, in_loop, measure
from tests.benchmarks.six_commands import Six
from tests.support.valkey import Server

SECTION = "many"
SIZE = "10 KB"
DELAY_S = 0.05
ROUNDS = 7
TARGET_S = 0.25

PING = "one round trip (PING)"
MGET = "MGET of eight payloads (raw)"
SIX_EACH = "the six in MULTI/EXEC, region after region"
SIX_TOGETHER = "the six of all regions in one pipeline"
PUBLISH_MANY = "publish_many(8), warm"
READ_NEW = "read_latest_many(8), new versions"
READ_STILL = "read_latest_many(8), nothing new"
PUBLISH_MANY_AIO = "publish_many(8), asyncio, warm"
READ_STILL_AIO = "read_latest_many(8), asyncio, nothing new"


def run(bench: Bench) -> None:
    """Measure eight regions at every delay."""
    payload = payloads.payload(payloads.SIZES[SIZE])
    for delay, url in bench.delays():
        rounds = bench.rounds_for(delay, len(REGIONS) * len(payload))
        samples = measure_with(url, bench.ground.namespace, payload, rounds, bench.ground.wire)
        bench.report.add_timed(SECTION, titled("eight datasets", SIZE, delay), samples, PING)
        bench.ground.clear()


def measure_with(
    url: str, namespace: str, payload: bytes, rounds: int, wire: Wire | None = None
) -> dict[str, Sample]:
    """Measure all ways of publishing and reading eight datasets."""
    with ExitStack() as stack:
        client: Any = stack.enter_context(redis.Redis.from_url(url))
        store, reader = (stack.enter_context(swapstore.connect(url, namespace=namespace)) for _ in range(2))
        sixes = [Six(client, namespace, region) for region in REGIONS]
        keys = [f"{namespace}:get:{region}" for region in REGIONS]
        client.mset(dict.fromkeys(keys, payload))
        values = dict.fromkeys(REGIONS, payload)

        def six_each() -> None:
            for six in sixes:
                six.publish(payload, transaction=True)

        def six_together() -> None:
            pipeline = client.pipeline(transaction=False)
            for six in sixes:
                six.queue(pipeline, payload)
            pipeline.execute()

        def publish_each() -> None:
            for region in REGIONS:
                store.publish(region, payload, codec="bytes")

        def publish_many() -> None:
            store.publish_many(values, codec="bytes").raise_for_failures()

        def read_each() -> None:
            for region in REGIONS:
                assert reader.read_latest(region)

        ways = [
            Way(PING, client.ping),
            Way(SIX_EACH, six_each),
            Way(SIX_TOGETHER, six_together),
            Way("publish, region after region, warm", publish_each),
            Way(PUBLISH_MANY, publish_many),
            Way(MGET, lambda: client.mget(keys)),
            Way("two-step read, region after region", lambda: [six.read() for six in sixes]),
            Way("read_latest, region after region, nothing new", read_each, before=read_each_first(reader)),
            Way(READ_NEW, lambda: reader.read_latest_many(REGIONS), before=publish_many),
            Way(READ_STILL, lambda: reader.read_latest_many(REGIONS), before=read_each_first(reader)),
            # They have their own datasets: each publish would be a conflict for the other producer.
            *stack.enter_context(with_asyncio(url, f"{namespace}:asyncio", values)),
        ]
        publish_many()
        six_each()
        return measure(ways, rounds=rounds, wire=wire)


@contextmanager
def with_asyncio(url: str, namespace: str, values: dict[str, bytes]) -> Iterator[list[Way]]:
    """Yield the ways of a program that runs an event loop."""
    loop = asyncio.new_event_loop()
    producer, reader = (swapstore.aio.connect(url, namespace=namespace) for _ in range(2))

    def look() -> object:
        return loop.run_until_complete(reader.read_latest_many(REGIONS))

    loop.run_until_complete(producer.publish_many(values, codec="bytes"))
    try:
        yield [
            Way(PUBLISH_MANY_AIO, lambda: producer.publish_many(values, codec="bytes"), clock=in_loop(loop)),
            Way(READ_STILL_AIO, lambda: reader.read_latest_many(REGIONS), before=look, clock=in_loop(loop)),
        ]
    finally:
        for store in (producer, reader):
            loop.run_until_complete(store.close())
        loop.close()


def read_each_first(reader: swapstore.Store) -> Any:
    """Let a reader read each dataset first, so that its cache is warm."""
    return lambda: reader.read_latest_many(REGIONS)


def main() -> None:
    """Measure, and print a table, or JSON when piped."""
    with (
        TemporaryDirectory() as directory,
        Server(Path(directory)) as server,
        slow_network("127.0.0.1", server.port, DELAY_S) as port,
    ):
        url = f"redis://127.0.0.1:{port}/0"
        samples = measure_with(url, "many", payloads.payload(payloads.SIZES[SIZE]), ROUNDS)
    title = f"{len(REGIONS)} regions, {SIZE} each, 50 ms each way; medians of {ROUNDS}"
    sheet = report.timed(SECTION, title, samples, PING)
    if not sys.stdout.isatty():
        found = {row["way"]: {"ratio": row["ratio"], "seconds": row["median_us"] / 1e6} for row in sheet.rows}
        sys.stdout.write(json.dumps(found) + "\n")
    console = report.console() if sys.stdout.isatty() else Console(stderr=True)
    console.print(report.shown(sheet))
    for name in (PUBLISH_MANY, READ_NEW, READ_STILL):
        taken_ms = statistics.median(samples[name].taken_ns) / 1e6
        verdict = "met" if taken_ms < TARGET_S * 1000 else "MISSED"
        console.print(f"{name}: {taken_ms:.0f} ms, target {TARGET_S * 1000:.0f} ms: {verdict}")


if __name__ == "__main__":
    main()
