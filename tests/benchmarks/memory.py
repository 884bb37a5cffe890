"""What a snapshot takes on the server, index included, beside the six commands, which store it twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import redis

import swapstore
from tests.benchmarks import payloads
from tests.benchmarks.bench import Bench
from tests.benchmarks.report import Sheet
from tests.benchmarks.six_commands import Six
from tests.support.valkey import Server

SECTION = "memory"
SNAPSHOTS = 256  # whole cycles: pages are sealed, and the manifest is at its mean
SIX, OURS = "the six", "swapstore"


def run(bench: Bench) -> None:
    """Measure by MEMORY USAGE on the server, and by `used_memory` on a server of the benchmark."""
    size = payloads.SIZES["10 KB"]
    documents = [payloads.payload(size, seed) for seed in range(SNAPSHOTS)]
    namespace = bench.ground.namespace
    found: dict[str, dict[str, float]] = {}
    try:
        bench.ground.client.memory_usage("none")
        found["MEMORY USAGE of all keys"] = {
            SIX: _usage(bench, lambda: _six(bench.ground.url, namespace, documents)),
            OURS: _usage(bench, lambda: _ours(bench.ground.url, namespace, documents)),
        }
    except redis.ResponseError as error:
        bench.report.note(f"MEMORY USAGE was refused: {error}")
    for how, first in (("from nothing", []), ("after a first publish", documents[:1])):
        found[f"used_memory of a new server, {how}"] = {
            SIX: _used(bench, _six, first, documents),
            OURS: _used(bench, _ours, first, documents),
        }
    rows = [
        {
            "figure": how,
            "ratio": taken[OURS] / taken[SIX],
            **{f"{who}, bytes a snapshot": round(taken[who] / SNAPSHOTS) for who in (OURS, SIX)},
        }
        for how, taken in found.items()
    ]
    bench.report.facts[SECTION] = {row["figure"]: row["ratio"] for row in rows}
    bench.report.add(Sheet(SECTION, f"memory of {SNAPSHOTS} snapshots of 10 KB, index included", rows))


def _six(url: str, namespace: str, documents: list[bytes]) -> None:
    with redis.Redis.from_url(url) as client:
        six = Six(client, namespace)
        for each in documents:
            six.publish(each, transaction=False)


def _ours(url: str, namespace: str, documents: list[bytes]) -> None:
    with swapstore.connect(url, namespace=namespace) as store:
        for each in documents:
            store.publish("mena", each, codec="bytes")


def _usage(bench: Bench, publish: Any) -> float:
    """Return what the keys of the namespace take, measured without sampling."""
    publish()
    client = bench.ground.client
    keys = client.scan_iter(match=f"{bench.ground.namespace}:*", count=1000)
    total = sum(client.memory_usage(key, samples=0) or 0 for key in keys)
    bench.ground.clear()
    return float(total)


def _used(
    bench: Bench,
    publish: Callable[[str, str, list[bytes]], None],
    first: list[bytes],
    documents: list[bytes],
) -> float:
    """Return by how much the memory of an otherwise idle server increases.

    A new server each time: what FLUSHALL removes is freed in the background, and would be counted. What the
    first publish takes once, for connections, tables and the script, belongs to the total, but to no
    snapshot: so the figure is given with it and without.
    """
    with Server(bench.ground.directory / "memory") as server, server.client() as client:
        publish(server.url, "first", first)
        before = stable_memory(client)
        publish(server.url, bench.ground.namespace, documents)
        grown = stable_memory(client) - before
    assert grown > 0, "a server with more data takes less memory"
    return grown


def stable_memory(client: Any) -> float:
    """Return `used_memory` after the allocator has returned what it can."""
    client.execute_command("MEMORY", "PURGE")
    return float(client.info("memory")["used_memory"])
