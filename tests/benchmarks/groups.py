"""Groups: 200 members of 2 KB of which 10 change, beside 200 times `SET`; and one member, beside `GET`."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Literal

import redis

import swapstore
from swapstore import Store
from tests.benchmarks.bench import Bench, titled
from tests.benchmarks.ground import Cold
from tests.benchmarks.report import Row, Sheet
from tests.benchmarks.rounds import UNTIMED, Way, measure
from tests.support.proxy import Proxy
from tests.support.valkey import Server

PUBLISH, READ = "publish a group", "read a member"
MEMBERS, CHANGED, SIZE = 200, 10, "200 of 2 KB"
SETS, PAIR = "200 SET in MULTI/EXEC", "two-step read: pointer, payload"
COLD, FRESH = "swapstore, cold", "swapstore, a new version"
DELAYS_MS = (0, 20)
COUNTED = 40  # publishes whose bytes are counted: some of them bring a base
WAYS: tuple[Literal["none", "delta"], ...] = ("none", "delta")

Members = dict[str, dict[str, object]]


def ours(way: str) -> str:
    """Name a way of ours."""
    return f"swapstore, compression={way}"


def run(bench: Bench) -> None:
    """Time publishes and reads, with and without a delay, and count the bytes of a publish."""
    rounds = max(5, bench.rounds // 4)
    for delay_ms in DELAYS_MS:
        url = bench.behind(delay_ms)
        if url is not None:
            published(bench, url, delay_ms, rounds if not delay_ms else max(5, rounds // 4))
            read(bench, url, delay_ms, rounds if not delay_ms else max(5, rounds // 4))
    bench.report.facts[PUBLISH] = sent(bench)


def versions(count: int) -> list[Members]:
    """Make versions of a group of scores: in each, some members differ from the version before."""
    drawn = random.Random(7)
    current: Members = {f"{number:03}": _member(drawn, number) for number in range(MEMBERS)}
    made = [current]
    for _ in range(count - 1):
        current = dict(current)
        for number in drawn.sample(range(MEMBERS), CHANGED):
            current[f"{number:03}"] = _member(drawn, number)
        made.append(current)
    return made


def _member(drawn: random.Random, number: int) -> dict[str, object]:
    scores = {f"signal-{at:02}": round(drawn.random(), 4) for at in range(90)}
    return {"country": f"{number:03}", "score": round(drawn.random(), 4), "signals": scores}


def published(bench: Bench, url: str, delay_ms: int, rounds: int) -> None:
    """Publish versions in order, each in all ways."""
    made = versions(rounds + UNTIMED)
    with ExitStack() as stack:
        client = stack.enter_context(redis.Redis.from_url(url))
        sets = partial(_sets, client, f"{bench.ground.namespace}:plain", iter(made))
        ways = [Way(SETS, sets)]
        for way in WAYS:
            store = stack.enter_context(bench.ground.store(url, compression=way))
            ways.append(Way(ours(way), partial(_publish, store, f"group-{way}", iter(made))))
        samples = measure(ways, rounds=rounds, wire=bench.ground.wire)
    bench.report.add_timed(PUBLISH, titled(PUBLISH, SIZE, delay_ms), samples, SETS)


def read(bench: Bench, url: str, delay_ms: int, rounds: int) -> None:
    """Read one member: by a client that has seen nothing, and by one that has seen the version before."""
    made = versions(1 + rounds + UNTIMED)
    namespace = bench.ground.namespace
    with ExitStack() as stack:
        client = stack.enter_context(redis.Redis.from_url(url))
        client.set(f"{namespace}:latest", f"{namespace}:one")
        client.set(f"{namespace}:one", json.dumps(made[0]["007"]))
        producer = stack.enter_context(bench.ground.store(compression="delta"))
        store = stack.enter_context(bench.ground.store(url))
        producer.publish_group("group", made[0])
        store.read_group("group", members=["007"])
        cold, rest = Cold(store, url, namespace), iter(made[1:])
        ways = [
            Way(PAIR, partial(_two_step, client, f"{namespace}:latest")),
            Way(COLD, lambda: _value(cold.now), before=cold.renew),
            Way(FRESH, lambda: _value(store), before=lambda: producer.publish_group("group", next(rest))),
        ]
        samples = measure(ways, rounds=rounds, wire=bench.ground.wire)
    bench.report.add_timed(READ, titled(READ, "2 KB", delay_ms), samples, PAIR)
    bench.ground.clear()


def sent(bench: Bench) -> dict[str, float]:
    """Count the bytes that publishes send, beside those of 200 times `SET`."""
    made = versions(COUNTED)
    found: dict[str, float] = {}
    for name, way in {SETS: None, **{ours(way): way for way in WAYS}}.items():
        with ExitStack() as stack:
            server = stack.enter_context(Server(bench.ground.directory / PUBLISH))
            proxy = stack.enter_context(Proxy(server.port))
            if way is None:
                client = stack.enter_context(redis.Redis.from_url(proxy.url))
                act = partial(_sets, client, "plain", iter(made))
            else:
                store = stack.enter_context(swapstore.connect(proxy.url, compression=way))
                act = partial(_publish, store, "group", iter(made))
            act()
            before = proxy.sent
            for _ in made[1:]:
                act()
            found[name] = (proxy.sent - before) / (len(made) - 1)
    rows: list[Row] = [
        {"way": name, "bytes": size, "ratio": size / found[SETS]} for name, size in found.items()
    ]
    bench.report.add(Sheet(PUBLISH, f"{PUBLISH}, {SIZE}: bytes sent", rows))
    return found


def _sets(client: redis.Redis, prefix: str, rest: Iterator[Members]) -> None:
    with client.pipeline(transaction=True) as pipeline:
        for name, member in next(rest).items():
            pipeline.set(f"{prefix}:{name}", json.dumps(member))
        pipeline.execute()


def _publish(store: Store, dataset: str, rest: Iterator[Members]) -> None:
    store.publish_group(dataset, next(rest))


def _two_step(client: redis.Redis, pointer: str) -> object:
    key = client.get(pointer)
    assert isinstance(key, bytes)
    payload = client.get(key)
    assert isinstance(payload, bytes)
    return json.loads(payload)


def _value(store: Store) -> object:
    group = store.read_group("group", members=["007"])
    assert group is not None
    return group["007"].value
