"""The table of targets: each figure beside what people would use instead, measured by itself in a short run.

`make bench ARGS='--only targets'`. Only the two sides of a ratio take turns, so the figures may differ from
those of the large tables, where each way finds the processor's caches as seven others left them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import attrs
import redis
import redis.asyncio

import swapstore.aio
from tests.benchmarks import compression, depth, depth_timing, payloads, publishing, sequences, starting
from tests.benchmarks.bench import Bench
from tests.benchmarks.costs import DATASET as DEEP
from tests.benchmarks.ground import Cold
from tests.benchmarks.load_processes import Processes
from tests.benchmarks.report import Row, Sheet
from tests.benchmarks.rounds import UNTIMED, Ratio, Sample, Way, in_loop, measure, median, ratio, told
from tests.benchmarks.six_commands import Six
from tests.support import bulk

SECTION = "targets"
SIX, OURS = "the six in MULTI/EXEC", "swapstore"
VERIFIED, BY_HUNDRED, FEW = 100_000, 100, 2_000
DEEPEST = 10_000_000
PROCESSES, PUBLISHES = 8, 400
SLOW_MS = 20
SLOW_ROUNDS = {"100 KB": 0.2, "1 MB": 0.05}  # of the rounds


@attrs.frozen
class Target:
    """A figure and its bound. `unit`: empty for a ratio. `least`: the figure is to be at least the bound."""

    figure: str
    against: str
    bound: float
    found: Ratio
    unit: str = ""
    least: bool = False

    def row(self) -> Row:
        """Judge it by its median."""
        value = self.found.value
        is_met = value >= self.bound if self.least else value <= self.bound
        return {
            "figure": self.figure,
            "against": self.against,
            "target": f"{'≥' if self.least else '≤'} {self.bound:g}{self.unit}",
            "measured": value,
            "low": self.found.low,
            "high": self.found.high,
            "verdict": "met" if is_met else "MISSED",
        }


def run(bench: Bench) -> None:
    """Measure every target, and show them in one table."""
    rows = []
    for measured in (
        publishes,
        differences,
        values,
        cold_reads,
        stale_reads,
        with_asyncio,
        processes,
        verifying,
        on_sqlite,
        starts,
        deep,
    ):
        with bench.report.console.status(measured.__name__):
            rows += [target.row() for target in measured(bench)]
        bench.ground.clear()
    missed = sum(row["verdict"] != "met" for row in rows)
    sheet = Sheet(SECTION, f"targets: {len(rows) - missed} of {len(rows)} met", rows)
    sheet.notes.append("medians, round by round; low and high: 95 %. Times of a busy machine decide nothing")
    bench.report.add(sheet)


def compared(samples: dict[str, Sample]) -> Ratio:
    """Return the ratio of the second way to the first."""
    base, ours, *_ = samples.values()
    return ratio(ours, base)


# --- publishing ------------------------------------------------------------------------------------


def publishes(bench: Bench) -> Iterator[Target]:
    """Small payloads on loopback."""
    for size in ("1 KB", "10 KB"):
        payload = payloads.payload(payloads.SIZES[size])
        with redis.Redis.from_url(bench.ground.url) as client, bench.ground.store() as store:
            six = Six(client, bench.ground.namespace)
            ways = [
                Way(SIX, partial(six.publish, payload, transaction=True)),
                Way(OURS, partial(store.publish, "mena", payload, codec="bytes")),
            ]
            found = compared(measure(ways, rounds=3 * bench.rounds))
        yield Target(f"publish {size}, warm, loopback", SIX, 1.1, found)


def differences(bench: Bench) -> Iterator[Target]:
    """Versions of a document, as differences: on loopback, and over a slow network."""
    for delay_ms, most in ((0, 0.8), (SLOW_MS, 0.4)):
        url = bench.behind(delay_ms)
        for size in compression.SIZES if url is not None else ():
            part = SLOW_ROUNDS[size] if delay_ms else compression.ROUNDS_OF[size]
            rounds = max(5, round(bench.rounds * part))
            versions = sequences.generated(size, rounds + UNTIMED)
            samples = compression.published(bench, url or "", versions, compressions=("delta",))
            where = f"20 Mbit/s, {delay_ms} ms" if delay_ms else "loopback"
            yield Target(f"publish {size} of JSON, delta, {where}", SIX, most, compared(samples))


def values(bench: Bench) -> Iterator[Target]:
    """Python values: the encoding counts."""
    for size in ("10 KB", "100 KB"):
        with publishing.from_values(bench, payloads.value(payloads.SIZES[size])) as ways:
            found = compared(measure(ways, rounds=bench.rounds))
        yield Target(f"publish from a Python value, {size}", "json.dumps and the six", 0.9, found)


def on_sqlite(bench: Bench) -> Iterator[Target]:
    """A file, with the same sync."""
    with publishing.on_sqlite(bench.ground.directory, payloads.payload(payloads.SIZES["10 KB"])) as ways:
        found = compared(measure(ways[:2], rounds=bench.rounds))
    yield Target("publish 10 KB to SQLite", "plain INSERT, same sync", 1.4, found)


def processes(bench: Bench) -> Iterator[Target]:
    """Many processes on one dataset, beside one that publishes as often as all of them."""
    url, namespace = bench.ground.url, bench.ground.namespace
    with (
        Processes(url, f"{namespace}:one", 1, PUBLISHES) as one,
        Processes(url, f"{namespace}:many", PROCESSES, PUBLISHES // PROCESSES) as many,
    ):
        ways = [
            Way("many", lambda: many.publish()[0], clock=told),
            Way("one", lambda: one.publish()[0], clock=told),
        ]
        found = compared(measure(ways, rounds=max(5, bench.rounds // 10)))
    name = f"publishes a second, {PROCESSES} processes on one dataset"
    yield Target(name, "one process", 0.8, found, least=True)


# --- reading ---------------------------------------------------------------------------------------


def cold_reads(bench: Bench) -> Iterator[Target]:
    """First reads of large payloads."""
    for size in ("100 KB", "1 MB"):
        payload = payloads.payload(payloads.SIZES[size])
        with redis.Redis.from_url(bench.ground.url) as client, bench.ground.store() as store:
            six = Six(client, bench.ground.namespace)
            six.publish(payload, transaction=True)
            store.publish("mena", payload, codec="bytes")
            cold = Cold(store, bench.ground.url, bench.ground.namespace)
            ways = [
                Way("two-step read", six.read),
                Way(OURS, partial(_first_read, cold), before=cold.renew),
            ]
            found = compared(measure(ways, rounds=bench.rounds))
        yield Target(f"read_latest {size}, cold", "two-step read", 1.05, found)


def _first_read(cold: Cold) -> object:
    return cold.now.read_latest("mena")


def stale_reads(bench: Bench) -> Iterator[Target]:
    """Reads that may be of some age."""
    payload, key = payloads.payload(payloads.SIZES["1 KB"]), f"{bench.ground.namespace}:get"
    with redis.Redis.from_url(bench.ground.url) as client, bench.ground.store() as store:
        client.set(key, payload)
        store.publish("mena", payload, codec="bytes")
        store.read_latest("mena")
        ways = [
            Way("GET", partial(client.get, key)),
            Way(OURS, partial(store.read_latest, "mena", max_staleness=3600)),
        ]
        found = compared(measure(ways, rounds=3 * bench.rounds))
    yield Target("read_latest 1 KB within max_staleness", "GET", 0.05, found)


def with_asyncio(bench: Bench) -> Iterator[Target]:
    """A program that runs an event loop."""
    payload, namespace = payloads.payload(payloads.SIZES["1 KB"]), bench.ground.namespace
    with publishing.with_asyncio(bench.ground.url, namespace, payload) as ways:
        found = compared(measure(ways, rounds=3 * bench.rounds))
    yield Target("publish 1 KB, asyncio", f"{SIX}, redis.asyncio", 1.2, found)
    loop, key = asyncio.new_event_loop(), f"{namespace}:get"
    bench.ground.client.set(key, payload)
    client = redis.asyncio.Redis.from_url(bench.ground.url)
    store = swapstore.aio.connect(bench.ground.url, namespace=namespace)
    try:
        loop.run_until_complete(store.read_latest("asyncio"))
        ways = [
            Way("GET", lambda: client.get(key), clock=in_loop(loop)),
            Way(OURS, lambda: store.read_latest("asyncio"), clock=in_loop(loop)),
        ]
        found = compared(measure(ways, rounds=3 * bench.rounds))
    finally:
        loop.run_until_complete(store.close())
        loop.run_until_complete(client.aclose())
        loop.close()
    yield Target("read_latest 1 KB, asyncio, nothing new", "GET, redis.asyncio", 1.2, found)


def verifying(bench: Bench) -> Iterator[Target]:
    """A whole dataset, beside reading the id and ts records of its rows, and doing nothing with them."""
    rows = FEW if bench.quick else VERIFIED
    with redis.Redis.from_url(bench.ground.url) as client, bench.ground.store() as store:
        bulk.extend(store, "rows", to=rows)
        keys = store._context.keys
        names = [key for each in range(1, rows + 1) for key in keys.records("rows", bulk.made(each))]
        ways = [
            Way("MGET", partial(_read_all, client, names)),
            Way(OURS, lambda: list(store.verify())),
        ]
        found = compared(measure(ways, rounds=5))
    yield Target(f"verify of {rows:,} rows", f"their records with MGET by {BY_HUNDRED}", 2.0, found)


def _read_all(client: Any, names: Sequence[str]) -> None:
    for begin in range(0, len(names), BY_HUNDRED):
        client.mget(names[begin : begin + BY_HUNDRED])


# --- what a process takes, and a deep dataset ------------------------------------------------------


def starts(bench: Bench) -> Iterator[Target]:
    """Imports, and the command."""
    samples = starting.imports(bench, starting.QUICK_ROUNDS if bench.quick else starting.ROUNDS)
    ours, redis_py, command = (
        [ns / 1e6 for ns in samples[name].taken_ns]
        for name in (starting.OURS, starting.REDIS, starting.COMMAND)
    )
    beyond = median([a - b for a, b in zip(ours, redis_py, strict=True)])
    yield Target("import swapstore, ms", "beyond redis-py", 60, beyond, unit=" ms")
    yield Target(f"{starting.COMMAND}, ms", "", 300, median(command), unit=" ms")


def deep(bench: Bench) -> Iterator[Target]:
    """A dataset of millions of versions, made in bulk on a server of its own: all pages, no old records."""
    versions = FEW if bench.quick else DEEPEST
    with depth.bed("valkey") as bed:
        bulk.extend(bed.store, DEEP, to=versions, recorded=False)
        samples = depth_timing.Timing(bench, "valkey").published(bed, versions)
    found = ratio(samples[depth_timing.AT_DEPTH], samples[depth_timing.AT_SHALLOW])
    yield Target(f"publish 1 KB at {versions:,} versions", "at 100 versions", 1.1, found)
