"""Reading, beside a GET of the payload and the two-step read of the six-command layout."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import redis
import redis.asyncio

import swapstore
import swapstore.aio
from tests.benchmarks import payloads, publishing, rest
from tests.benchmarks.bench import Bench, titled
from tests.benchmarks.ground import Cold
from tests.benchmarks.rounds import Sample, Way, in_loop, measure
from tests.benchmarks.six_commands import Six

SECTION = "read"
ON_SQLITE = "read from SQLite"
AS_VALUES = "read a Python value"
OVER_HTTP = "read over HTTP (REST)"

GET = "GET of the payload (raw)"
TWO_STEP = "two-step read: pointer, payload"
TWO_STEP_AIO = "two-step read, asyncio"
COLD = "read_latest, cold"
WARM = "read_latest, warm, nothing new"
NEW = "read_latest, warm, a new version"
STALE = "read_latest within max_staleness"
AIO = "read_latest, asyncio, warm, nothing new"
PLAIN = "plain sqlite3: SELECT … ORDER BY ts DESC LIMIT 1"


def run(bench: Bench) -> None:
    """Measure every payload at every delay, then Python values, SQLite, and REST."""
    for delay, url in bench.delays():
        for name, payload in bench.payloads(delay).items():
            samples = measure_with(url, bench, payload, bench.rounds_for(delay, len(payload)))
            bench.report.add_timed(SECTION, titled(SECTION, name, delay), samples, TWO_STEP)
            bench.ground.clear()
    for name, size in payloads.SIZES.items():
        samples = values(bench, payloads.value(size), bench.rounds_for(0, size))
        bench.report.add_timed(SECTION, titled(AS_VALUES, name, 0), samples, next(iter(samples)))
        bench.ground.clear()
    for name, payload in bench.payloads(0).items():
        with on_sqlite(bench.ground.directory, payload) as ways:
            samples = measure(ways, rounds=bench.rounds_for(0, len(payload)))
        bench.report.add_timed(SECTION, titled(ON_SQLITE, name, 0), samples, PLAIN)
    over_http(bench)


def measure_with(url: str, bench: Bench, payload: bytes, rounds: int) -> dict[str, Sample]:
    """Measure all ways of reading one payload on one address."""
    namespace = bench.ground.namespace
    with ExitStack() as stack:
        client = stack.enter_context(redis.Redis.from_url(url))
        store = stack.enter_context(bench.ground.store(url))
        six = Six(client, namespace)
        six.publish(payload, transaction=True)
        client.set(f"{namespace}:get", payload)
        assert client.get(f"{namespace}:get") == six.read() == payload
        ways = [
            Way(GET, lambda: client.get(f"{namespace}:get")),
            Way(TWO_STEP, six.read),
            *_ours(stack.enter_context(bench.ground.store(url)), store, (url, namespace), payload),
            *stack.enter_context(_with_asyncio(url, namespace)),
        ]
        return measure(ways, rounds=rounds, wire=bench.ground.wire)


def _ours(producer: swapstore.Store, reader: swapstore.Store, target: Any, payload: bytes) -> list[Way]:
    """Return the ways of `read_latest`. The one whose version changes has its own dataset."""

    def publish() -> None:
        producer.publish("moving", payload, codec="bytes")

    publish()
    producer.publish("still", payload, codec="bytes")
    for dataset in ("still", "moving"):
        found = reader.read_latest(dataset)
        assert found is not None
        assert found.raw == payload
    cold = Cold(reader, *target)
    return [
        Way(COLD, lambda: cold.now.read_latest("still"), before=cold.renew),
        Way(NEW, lambda: reader.read_latest("moving"), before=publish),
        Way(WARM, lambda: reader.read_latest("still")),
        Way(STALE, lambda: reader.read_latest("still", max_staleness=3600)),
    ]


@contextmanager
def _with_asyncio(url: str, namespace: str) -> Iterator[list[Way]]:
    loop = asyncio.new_event_loop()
    client = redis.asyncio.Redis.from_url(url)
    store = swapstore.aio.connect(url, namespace=namespace)
    six = Six(client, namespace)
    try:
        yield [
            Way(TWO_STEP_AIO, six.aread, clock=in_loop(loop)),
            Way(AIO, lambda: store.read_latest("still"), clock=in_loop(loop)),
        ]
    finally:
        loop.run_until_complete(store.close())
        loop.run_until_complete(client.aclose())
        loop.close()


def values(bench: Bench, value: Any, rounds: int) -> dict[str, Sample]:
    """Measure reads that end with a Python value: the decoding counts."""
    with redis.Redis.from_url(bench.ground.url) as client, bench.ground.store() as store:
        six = Six(client, bench.ground.namespace, "values")
        six.publish(json.dumps(value), transaction=True)
        store.publish("values", value)
        cold = Cold(store, bench.ground.url, bench.ground.namespace)
        ways = [
            Way("two-step read, json.loads", lambda: json.loads(six.read() or b"")),
            Way("read_latest, cold, .value", lambda: _value(cold.now), before=cold.renew),
            Way("read_latest, warm, nothing new, .value", lambda: _value(store)),
        ]
        return measure(ways, rounds=rounds, wire=bench.ground.wire)


def _value(store: swapstore.Store) -> Any:
    found = store.read_latest("values")
    assert found is not None
    return found.value


@contextmanager
def on_sqlite(directory: Path, payload: bytes) -> Iterator[list[Way]]:
    """Yield the ways of reading from a file."""
    plain_file, file = (directory / f"{name}-{len(payload)}.db" for name in ("plain-read", "store-read"))
    url = f"sqlite:///{file}"
    latest = "SELECT payload FROM snapshots WHERE dataset = 'mena' ORDER BY ts DESC LIMIT 1"
    with (
        closing(sqlite3.connect(plain_file, isolation_level=None)) as plain,
        swapstore.connect(url) as reader,
        swapstore.connect(url) as producer,
    ):
        publishing.prepare(plain)
        publishing.insert(plain, 1, payload)
        yield [
            Way(PLAIN, lambda: plain.execute(latest).fetchone()[0]),
            *_ours(producer, reader, (url,), payload),
        ]
    for path in (plain_file, file):
        path.unlink()


def over_http(bench: Bench) -> None:
    """Measure REST, beside a `GET` of the same payload without HTTP."""
    with rest.store(bench) as (store, why):
        if store is None:
            bench.report.note(f"REST was not measured: {why}")
            return
        key = f"{bench.ground.namespace}:get"
        for name, size in payloads.SIZES.items():
            payload = payloads.payload(size)
            bench.ground.client.set(key, payload)
            # `Cold` makes contexts for the connections of this store, so any address does.
            target = (bench.ground.url, bench.ground.namespace)
            ways = [Way(GET, lambda: bench.ground.client.get(key)), *_ours(store, store, target, payload)]
            samples = measure(ways, rounds=bench.rounds_for(1, size))
            bench.report.add_timed(SECTION, titled(OVER_HTTP, name, 0), samples, GET, rest.NOTE)
            bench.ground.clear()
