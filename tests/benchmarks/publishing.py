"""Publishing, beside what a user would otherwise write: one SET, the six commands, an INSERT."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import redis
import redis.asyncio

import swapstore
import swapstore.aio
from tests.benchmarks import payloads, rest
from tests.benchmarks.bench import Bench, titled
from tests.benchmarks.ground import Cold, filesystem
from tests.benchmarks.rounds import Way, in_loop, measure
from tests.benchmarks.six_commands import Six

SECTION = "publish"
ON_SQLITE = "publish to SQLite"
FROM_VALUES = "publish a Python value"
OVER_HTTP = "publish over HTTP (REST)"

SET = "SET of the payload (raw)"
SIX_PIPED = "the six, pipelined"
SIX = "the six in MULTI/EXEC"
SIX_AIO = "the six in MULTI/EXEC, asyncio"
WARM = "swapstore, warm"
COLD = "swapstore, cold"
AIO = "swapstore, asyncio, warm"
PLAIN = "plain sqlite3: INSERT, WAL, synchronous=FULL"


def run(bench: Bench) -> None:
    """Measure every payload at every delay, then Python values, SQLite, and REST."""
    for delay, url in bench.delays():
        for name, payload in bench.payloads(delay).items():
            rounds = bench.rounds_for(delay, len(payload))
            samples = measure_with(url, bench, payload, rounds)
            bench.report.add_timed(SECTION, titled(SECTION, name, delay), samples, SIX)
            bench.ground.clear()
    for name, size in payloads.SIZES.items():
        with from_values(bench, payloads.value(size)) as ways:
            samples = measure(ways, rounds=bench.rounds_for(0, size), wire=bench.ground.wire)
        bench.report.add_timed(SECTION, titled(FROM_VALUES, name, 0), samples, ways[0].name)
        bench.ground.clear()
    kind = filesystem(bench.ground.directory)
    for name, payload in bench.payloads(0).items():
        with on_sqlite(bench.ground.directory, payload) as ways:
            samples = measure(ways, rounds=bench.rounds_for(0, len(payload)))
        note = f"the files are on {kind}; both are on disk when the call returns"
        bench.report.add_timed(SECTION, titled(ON_SQLITE, name, 0), samples, PLAIN, note)
    over_http(bench)


def measure_with(url: str, bench: Bench, payload: bytes, rounds: int) -> dict[str, Any]:
    """Measure all ways of publishing one payload on one address."""
    namespace = bench.ground.namespace
    with ExitStack() as stack:
        client = stack.enter_context(redis.Redis.from_url(url))
        store = stack.enter_context(bench.ground.store(url))
        by_set, piped, atomic = count(), Six(client, namespace, "piped"), Six(client, namespace, "atomic")
        store.publish("cold", payload, codec="bytes")
        cold = Cold(store, url, namespace)
        ways = [
            Way(SET, lambda: client.set(f"{namespace}:set:{next(by_set)}", payload)),
            Way(SIX_PIPED, lambda: piped.publish(payload, transaction=False)),
            Way(SIX, lambda: atomic.publish(payload, transaction=True)),
            Way(WARM, lambda: store.publish("warm", payload, codec="bytes")),
            Way(COLD, lambda: cold.now.publish("cold", payload, codec="bytes"), before=cold.renew),
            *stack.enter_context(with_asyncio(url, namespace, payload)),
        ]
        return measure(ways, rounds=rounds, wire=bench.ground.wire)


@contextmanager
def with_asyncio(url: str, namespace: str, payload: bytes) -> Iterator[list[Way]]:
    """Yield the ways of a program that runs an event loop."""
    loop = asyncio.new_event_loop()
    client = redis.asyncio.Redis.from_url(url)
    store = swapstore.aio.connect(url, namespace=namespace)
    six = Six(client, namespace, "asyncio")
    try:
        yield [
            Way(SIX_AIO, lambda: six.apublish(payload), clock=in_loop(loop)),
            Way(AIO, lambda: store.publish("asyncio", payload, codec="bytes"), clock=in_loop(loop)),
        ]
    finally:
        loop.run_until_complete(store.close())
        loop.run_until_complete(client.aclose())
        loop.close()


@contextmanager
def from_values(bench: Bench, value: Any) -> Iterator[list[Way]]:
    """Yield the ways that start from the same Python value: the encoding counts."""
    url, namespace = bench.ground.url, bench.ground.namespace
    with redis.Redis.from_url(url) as client, bench.ground.store() as store:
        six = Six(client, namespace, "values")
        yield [
            Way(
                "json.dumps, the six in MULTI/EXEC", lambda: six.publish(json.dumps(value), transaction=True)
            ),
            Way("swapstore, codec json, warm", lambda: store.publish("values", value)),
        ]


@contextmanager
def on_sqlite(directory: Path, payload: bytes) -> Iterator[list[Way]]:
    """Yield the ways of publishing to a file."""
    plain_file, file = (directory / f"{name}-{len(payload)}.db" for name in ("plain", "store"))
    url = f"sqlite:///{file}"
    loop = asyncio.new_event_loop()
    with closing(sqlite3.connect(plain_file, isolation_level=None)) as plain, swapstore.connect(url) as store:
        prepare(plain)
        numbers = count()
        store.publish("cold", payload, codec="bytes")
        cold = Cold(store, url)
        astore = swapstore.aio.connect(url)
        try:
            yield [
                Way(PLAIN, lambda: insert(plain, next(numbers), payload)),
                Way(WARM, lambda: store.publish("warm", payload, codec="bytes")),
                Way(COLD, lambda: cold.now.publish("cold", payload, codec="bytes"), before=cold.renew),
                Way(AIO, lambda: astore.publish("asyncio", payload, codec="bytes"), clock=in_loop(loop)),
            ]
        finally:
            loop.run_until_complete(astore.close())
            loop.close()
    for path in (plain_file, file):
        path.unlink()


def prepare(connection: sqlite3.Connection) -> None:
    """Make the table that a user would write, with the same sync setting as swapstore."""
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE snapshots (id TEXT PRIMARY KEY, dataset TEXT, ts INTEGER, payload BLOB)")
    connection.execute("CREATE INDEX snapshots_by_ts ON snapshots (dataset, ts)")


def insert(connection: sqlite3.Connection, number: int, payload: bytes) -> None:
    """Publish a row: one statement, one transaction."""
    name = f"018f2f7e-0000-7000-8000-{number:012x}"
    connection.execute("INSERT INTO snapshots VALUES (?, 'mena', ?, ?)", (name, number, payload))


def over_http(bench: Bench) -> None:
    """Measure REST, beside the same without HTTP, where this version can do it."""
    with rest.store(bench) as (store, why):
        if store is None:
            bench.report.note(f"REST was not measured: {why}")
            return
        for name, size in payloads.SIZES.items():
            payload = payloads.payload(size)
            with bench.ground.store() as direct:
                ways = [
                    Way(WARM, partial(direct.publish, "direct", payload, codec="bytes")),
                    Way("swapstore over REST, warm", partial(store.publish, "rest", payload, codec="bytes")),
                ]
                samples = measure(ways, rounds=bench.rounds_for(1, size))
            bench.report.add_timed(SECTION, titled(OVER_HTTP, name, 0), samples, WARM, rest.NOTE)
            bench.ground.clear()
