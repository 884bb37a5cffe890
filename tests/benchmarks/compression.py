"""Publishing successive versions with each compression, timed: on loopback, and over a slow network."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import redis

from swapstore import Store
from swapstore.codecs import Codec
from swapstore.models import Compression
from tests.benchmarks import sequences
from tests.benchmarks.bench import LARGE_BYTES, Bench, titled
from tests.benchmarks.ground import Cold
from tests.benchmarks.history import WAYS
from tests.benchmarks.report import timed
from tests.benchmarks.rounds import UNTIMED, Sample, Way, measure
from tests.benchmarks.six_commands import Six

SECTION = "compression"
FROM_VALUES = "publish the versions as Python values"
SLOW_PUBLISH = "publish over 20 Mbit/s"
SLOW_READ = "read over 20 Mbit/s"
SIZES = ("100 KB", "1 MB")
SIX, TWO_STEP = "the six in MULTI/EXEC", "two-step read: pointer, payload"
SLOW_SIZE, SLOW_DELAY_MS = "100 KB", 20
ROUNDS_OF = {"100 KB": 0.5, "1 MB": 0.2}  # of the rounds
SLOW_ROUNDS = 0.1


def ours(way: str) -> str:
    """Name a way of ours."""
    return f"swapstore, compression={way}"


def run(bench: Bench) -> None:
    """Measure on loopback, from bytes and from values, then over the slow network."""
    for name, versions in chosen(bench).items():
        samples = published(bench, bench.ground.url, versions)
        show(bench, titled(SECTION, name, 0), samples, SIX)
    for size in SIZES:
        values = [json.loads(each) for each in sequences.generated(size, _rounds(bench, size) + UNTIMED)]
        samples = published(bench, bench.ground.url, values, encode=json.dumps, codec="json")
        show(bench, titled(FROM_VALUES, size, 0), samples, SIX)
    slow = bench.behind(SLOW_DELAY_MS)
    if slow is not None:
        over_slow_network(bench, slow)


def chosen(bench: Bench) -> dict[str, list[bytes]]:
    """Return the sequences to publish: the generated ones, and real ones of 100 KB and more."""
    rounds = {size: _rounds(bench, size) for size in SIZES}
    made = {size: sequences.generated(size, rounds[size] + UNTIMED) for size in SIZES}
    real = {} if bench.quick else sequences.real(bench.sequences, rounds[SIZES[0]] + UNTIMED)
    return made | {name: each for name, each in real.items() if len(each[0]) >= LARGE_BYTES}


def _rounds(bench: Bench, size: str) -> int:
    return max(5, round(bench.rounds * ROUNDS_OF[size]))


def published(
    bench: Bench,
    url: str,
    versions: Sequence[Any],
    *,
    encode: Callable[[Any], Any] = bytes,
    codec: Codec = "bytes",
    compressions: Sequence[Compression] = WAYS,
) -> dict[str, Sample]:
    """Publish the versions in order, each in all ways."""
    with ExitStack() as stack:
        six = Six(stack.enter_context(redis.Redis.from_url(url)), bench.ground.namespace, "versions")
        of_six = iter(versions)
        ways = [Way(SIX, lambda: six.publish(encode(next(of_six)), transaction=True))]
        for way in compressions:
            store = stack.enter_context(bench.ground.store(url, compression=way))
            ways.append(Way(ours(way), partial(_publish, store, dataset(way), iter(versions), codec)))
        return measure(ways, rounds=len(versions) - UNTIMED, wire=bench.ground.wire)


def _publish(store: Store, name: str, versions: Iterator[Any], codec: Codec) -> None:
    store.publish(name, next(versions), codec=codec)


def dataset(way: str) -> str:
    """Name the dataset that is published with a compression."""
    return f"versions-{way}"


def over_slow_network(bench: Bench, url: str) -> None:
    """Measure 100 KB: publishes, and reads by clients that have seen nothing."""
    rounds = max(5, round(bench.rounds * SLOW_ROUNDS))
    versions = sequences.generated(SLOW_SIZE, rounds + UNTIMED)
    namespace = bench.ground.namespace
    samples = published(bench, url, versions)
    with ExitStack() as stack:
        six = Six(stack.enter_context(redis.Redis.from_url(url)), namespace, "versions")
        ways = [Way(TWO_STEP, six.read)]
        for way in WAYS:
            store = stack.enter_context(bench.ground.store(url))
            assert store.read_latest(dataset(way)) is not None
            cold = Cold(store, url, namespace)
            ways.append(Way(ours(way), partial(_read, cold, dataset(way)), before=cold.renew))
        reads = measure(ways, rounds=rounds, wire=bench.ground.wire)
    show(bench, titled(SLOW_PUBLISH, SLOW_SIZE, SLOW_DELAY_MS), samples, SIX)
    show(bench, titled(SLOW_READ, SLOW_SIZE, SLOW_DELAY_MS), reads, TWO_STEP)


def _read(cold: Cold, dataset: str) -> object:
    return cold.now.read_latest(dataset)


def show(bench: Bench, title: str, samples: Mapping[str, Sample], base: str) -> None:
    """Show the samples, and what all rounds took together: some bring a base, which a median leaves out."""
    sheet = timed(SECTION, title, samples, base)
    total = {name: sum(sample.taken_ns) for name, sample in samples.items()}
    for row in sheet.rows:
        row["all rounds"] = total[row["way"]] / total[base]
    bench.report.samples |= {(title, name): sample for name, sample in samples.items()}
    bench.report.add(sheet)
    bench.ground.clear()
