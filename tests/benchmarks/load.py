"""Many at once: tasks and threads on one store, processes on one dataset, a thousand datasets on a cluster.

Each load is measured beside the six commands in redis-py's own pipeline, sent by as many tasks, threads or
processes through redis-py's own clients. What was acknowledged is looked up afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import attrs
import redis
import redis.asyncio
from redis.cluster import RedisCluster

import swapstore
import swapstore.aio
from swapstore import Commit, Store
from tests.benchmarks import payloads, report
from tests.benchmarks.bench import Bench
from tests.benchmarks.load_processes import DATASET, PART, Processes
from tests.benchmarks.rounds import Sample, Way, in_loop, measure, told
from tests.benchmarks.six_commands import Six
from tests.support.cluster import Cluster
from tests.support.deployment import kinds

SECTION = "load"
PAYLOAD = payloads.payload(payloads.SIZES["1 KB"])
ROUNDS, QUICK_ROUNDS = 9, 5
SIX = "the six, pipelined"
SIX_TOGETHER = "the six of all datasets in one pipeline"
OURS = "publish"
MANY = "publish_many"


@attrs.frozen
class Size:
    """How many there are of each, and how often each of them publishes in a round."""

    tasks: int = 100
    threads: int = 50
    processes: int = 8
    datasets: int = 1_000
    each: int = 10


class Acknowledged:
    """Which commits were acknowledged, by dataset."""

    def __init__(self) -> None:
        self.versions: dict[str, dict[str, int]] = {}

    def add(self, dataset: str, commit: Commit) -> None:
        """Note a commit. Threads may call this at the same time."""
        self.versions.setdefault(dataset, {})[commit.id] = commit.version

    def missing(self, store: Store) -> tuple[int, int]:
        """Count what was acknowledged and is not in the history, and what is there and was not."""
        lost = more = 0
        for dataset, known in self.versions.items():
            stored = {row.id: row.version for row in store.history(dataset, limit=None)}
            lost += sum(stored.get(name) != version for name, version in known.items())
            more += len(stored.keys() - known.keys())
        return lost, more


@attrs.frozen
class Load:
    """One load: how many publishes a round has, and the ways to make them, the one compared with first."""

    title: str
    publishes: int
    ways: Sequence[Way]
    acknowledged: Acknowledged
    connect: Callable[[], Store]


def run(bench: Bench) -> None:
    """Measure every load, and look up what was acknowledged."""
    size = Size(tasks=20, threads=10, processes=2, datasets=100) if bench.quick else Size()
    rounds = QUICK_ROUNDS if bench.quick else ROUNDS
    found: list[report.Row] = []
    for on_server in ON_ONE_SERVER:
        with on_server(bench.ground.url, bench.ground.namespace, size) as load:
            found += measured(load, rounds)
        bench.ground.clear()
    with Cluster(bench.ground.directory / "cluster", kinds()["valkey"]) as cluster:
        for on_cluster in ON_A_CLUSTER:
            with on_cluster(cluster, bench.ground.namespace, size) as load:
                found += measured(load, rounds)
            cluster.flush()
    sheet = report.Sheet(SECTION, f"publish 1 KB, many at once; medians of {rounds} rounds", found)
    sheet.notes = [
        "ratio: of the time that the same number of publishes takes, to the six commands, round by round",
        "lost: acknowledged, and not in the history. wrong: findings of verify, and rows never acknowledged",
        "the cluster has three primaries, on loopback; the six of a dataset are in one slot",
    ]
    bench.report.add(sheet)


def measured(load: Load, rounds: int) -> Iterator[report.Row]:
    """Measure one load, and check what it left."""
    samples = measure(load.ways, rounds=rounds)
    with load.connect() as store:
        lost, more = load.acknowledged.missing(store)
        wrong = more + sum(finding.wrong for finding in store.verify())
    for row in report.timed(SECTION, load.title, samples, load.ways[0].name).rows:
        ours = row["way"] != load.ways[0].name
        yield {
            "load": load.title,
            "way": row["way"],
            "ratio": row["ratio"],
            "low": row["low"],
            "high": row["high"],
            "a second": a_second(samples[row["way"]], load.publishes),
            "lost": lost if ours else None,
            "wrong": wrong if ours else None,
        }


def a_second(sample: Sample, publishes: int) -> int:
    return round(publishes / (sample.median_us / 1e6))


def names(count: int, *, shared: bool) -> list[str]:
    """Name the dataset of each of so many producers."""
    return [DATASET] * count if shared else [f"set-{i}" for i in range(count)]


def of_datasets(count: int) -> str:
    return "one dataset" if count == 1 else "a dataset each"


@contextmanager
def tasks(url: str, namespace: str, size: Size, *, shared: bool) -> Iterator[Load]:
    """Asyncio tasks on one store."""
    loop = asyncio.new_event_loop()
    store, client = swapstore.aio.connect(url, namespace=namespace), redis.asyncio.Redis.from_url(url)
    datasets, acknowledged = names(size.tasks, shared=shared), Acknowledged()
    sixes = [Six(client, namespace, f"{name}-six", begin=i * PART) for i, name in enumerate(datasets)]

    async def publish(dataset: str) -> None:
        for _ in range(size.each):
            acknowledged.add(dataset, await store.publish(dataset, PAYLOAD, codec="bytes"))

    async def send(six: Six) -> None:
        for _ in range(size.each):
            await six.pipeline(PAYLOAD, transaction=False).execute()

    async def all_of(work: Callable[[Any], Any], given: Sequence[Any]) -> None:
        await asyncio.gather(*(work(each) for each in given))

    ways = [
        Way(SIX, lambda: all_of(send, sixes), clock=in_loop(loop)),
        Way(OURS, lambda: all_of(publish, datasets), clock=in_loop(loop)),
    ]
    title = f"{size.tasks} asyncio tasks on one store, {of_datasets(len(set(datasets)))}"
    try:
        yield Load(title, size.tasks * size.each, ways, acknowledged, _connecting(url, namespace))
    finally:
        loop.run_until_complete(store.close())
        loop.run_until_complete(client.aclose())
        loop.close()


@contextmanager
def threads(url: str, namespace: str, size: Size, *, shared: bool) -> Iterator[Load]:
    """Threads on one store."""
    datasets, acknowledged = names(size.threads, shared=shared), Acknowledged()
    with (
        ThreadPoolExecutor(size.threads) as pool,
        swapstore.connect(url, namespace=namespace) as store,
        redis.Redis.from_url(url) as client,
    ):
        sixes = [Six(client, namespace, f"{name}-six", begin=i * PART) for i, name in enumerate(datasets)]

        def publish(dataset: str) -> None:
            for _ in range(size.each):
                acknowledged.add(dataset, store.publish(dataset, PAYLOAD, codec="bytes"))

        def send(six: Six) -> None:
            for _ in range(size.each):
                six.publish(PAYLOAD, transaction=False)

        ways = [
            Way(SIX, lambda: list(pool.map(send, sixes))),
            Way(OURS, lambda: list(pool.map(publish, datasets))),
        ]
        title = f"{size.threads} threads on one store, {of_datasets(len(set(datasets)))}"
        yield Load(title, size.threads * size.each, ways, acknowledged, _connecting(url, namespace))


@contextmanager
def processes(url: str, namespace: str, size: Size) -> Iterator[Load]:
    """Processes on one dataset, each with a store of its own."""
    acknowledged = Acknowledged()
    with Processes(url, namespace, size.processes, size.each) as started:

        def publish() -> int:
            took_ns, commits = started.publish()
            acknowledged.versions.setdefault(DATASET, {}).update(commits)
            return took_ns

        ways = [Way(SIX, started.send, clock=told), Way(OURS, publish, clock=told)]
        title = f"{size.processes} processes, one dataset"
        yield Load(title, size.processes * size.each, ways, acknowledged, _connecting(url, namespace))


@contextmanager
def on_a_cluster(cluster: Cluster, namespace: str, size: Size) -> Iterator[tuple[Store, list[Six], Any]]:
    """Yield a store, the six of every dataset, and a client. The keys of each dataset are in one slot."""
    seed = cluster.primaries[0].url
    with RedisCluster.from_url(seed) as client, swapstore.connect(cluster.url, namespace=namespace) as store:
        yield store, [Six(client, namespace, f"{{six-{i}}}") for i in range(size.datasets)], client


@contextmanager
def one_by_one(cluster: Cluster, namespace: str, size: Size) -> Iterator[Load]:
    """One dataset after the other on a cluster."""
    datasets, acknowledged = names(size.datasets, shared=False), Acknowledged()
    with on_a_cluster(cluster, namespace, size) as (store, sixes, client):

        def send() -> None:
            for six in sixes:
                pipeline = client.pipeline()
                six.queue(pipeline, PAYLOAD)
                pipeline.execute()

        def publish() -> None:
            for dataset in datasets:
                acknowledged.add(dataset, store.publish(dataset, PAYLOAD, codec="bytes"))

        ways = [Way(SIX, send), Way(OURS, publish)]
        title = f"{size.datasets:,} datasets on a cluster, one by one"
        yield Load(title, size.datasets, ways, acknowledged, _connecting(cluster.url, namespace))


@contextmanager
def together(cluster: Cluster, namespace: str, size: Size) -> Iterator[Load]:
    """All datasets of a cluster at once."""
    values, acknowledged = dict.fromkeys(names(size.datasets, shared=False), PAYLOAD), Acknowledged()
    with on_a_cluster(cluster, namespace, size) as (store, sixes, client):

        def send() -> None:
            pipeline = client.pipeline()
            for six in sixes:
                six.queue(pipeline, PAYLOAD)
            pipeline.execute()

        def publish() -> None:
            outcomes = store.publish_many(values, codec="bytes")
            outcomes.raise_for_failures()
            for dataset, commit in outcomes.items():
                assert isinstance(commit, Commit)
                acknowledged.add(dataset, commit)

        ways = [Way(SIX_TOGETHER, send), Way(MANY, publish)]
        title = f"{size.datasets:,} datasets on a cluster, at once"
        yield Load(title, size.datasets, ways, acknowledged, _connecting(cluster.url, namespace))


ON_ONE_SERVER: Sequence[Callable[[str, str, Size], AbstractContextManager[Load]]] = (
    partial(tasks, shared=False),
    partial(tasks, shared=True),
    partial(threads, shared=False),
    partial(threads, shared=True),
    processes,
)
ON_A_CLUSTER: Sequence[Callable[[Cluster, str, Size], AbstractContextManager[Load]]] = (one_by_one, together)


def _connecting(url: str, namespace: str) -> Callable[[], Store]:
    return lambda: swapstore.connect(url, namespace=namespace)
