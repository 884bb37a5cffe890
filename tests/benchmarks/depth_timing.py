"""What depth costs: counted (see depth.py), and timed at each depth beside a shallow dataset.

It has its own servers, whatever `--url` says: a million versions are some 300 MB.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import attrs
import redis

import swapstore.aio
from swapstore import Store
from swapstore.aio import AsyncStore
from swapstore.format.manifest import F
from tests.benchmarks import depth, six_commands
from tests.benchmarks.bench import Bench
from tests.benchmarks.costs import DATASET, Bed
from tests.benchmarks.ground import fresh
from tests.benchmarks.rounds import WARM_UP, Sample, Way, in_loop, measure
from tests.support import bulk
from tests.support.meter import Meter

SECTION = "depth"
DEPTHS = [100, 1_000, 10_000, 100_000, depth.TARGET, depth.WIDEST]
QUICK_DEPTHS = [100, 2_000]
READ_DEPTH = 2_000
SHALLOW = "shallow"
SHALLOW_VERSIONS = 100

AT_SHALLOW = "publish 1 KB at 100 versions"
AT_DEPTH = "publish 1 KB at this depth"
SIX = "the six in MULTI/EXEC, an index of this depth"


def run(bench: Bench) -> None:
    """Count and time on both kinds of store."""
    depths = QUICK_DEPTHS if bench.quick else sorted({*DEPTHS, READ_DEPTH})
    bench.report.note("depth is measured on servers of the bench's own")
    for kind in depth.STORES:
        timing = Timing(bench, kind)
        found = depth.count(kind, depths, timing)
        bench.report.console.print(depth.table(found))
        for line in depth.summary(found):
            bench.report.console.print(line, highlight=False)
        bench.report.facts[f"depth, {kind}"] = attrs.asdict(found)
        for show in timing.shows:
            show()


def titled(kind: str, versions: int) -> str:
    """Name a block; targets and plots find it by this name."""
    return f"publish at {versions:,} versions, {kind}"


@attrs.define
class Timing:
    """Times at each depth, while the dataset exists. Figures are shown when counting has ended."""

    bench: Bench
    kind: str
    shows: list[Callable[[], None]] = attrs.field(factory=list)

    def __call__(self, bed: Bed, versions: int) -> None:
        """Publish and read; then take back what was published."""
        self._show(titled(self.kind, versions), self.published(bed, versions), AT_SHALLOW)
        if versions == READ_DEPTH:
            self._reads(bed, versions)

    def published(self, bed: Bed, versions: int) -> dict[str, Sample]:
        """Publish beside a shallow dataset, and take it back."""
        driver = Meter(bed.store._driver)  # remembers what was staged
        deep, shallow = (Store(driver, fresh(bed.store, _anywhere(bed))._context) for _ in range(2))
        before = {
            DATASET: bed.manifest(),
            SHALLOW: bulk.extend(bed.store, SHALLOW, to=SHALLOW_VERSIONS, recorded=False),
        }
        payload = b"%0*d" % (bulk.PAYLOAD_BYTES, versions)
        ways = [
            Way(AT_SHALLOW, lambda: shallow.publish(SHALLOW, payload, codec="bytes")),
            Way(AT_DEPTH, lambda: deep.publish(DATASET, payload, codec="bytes")),
        ]
        with ExitStack() as stack:
            if bed.url is not None:
                client = stack.enter_context(redis.Redis.from_url(bed.url))
                region = f"deep-{versions}"
                six_commands.fill_index(client, "bench", region, versions)
                old_way = six_commands.Six(client, "bench", region, begin=versions)
                ways.append(Way(SIX, lambda: old_way.publish(payload, transaction=True)))
            # Whole cycles of F: the tail of the manifest has had every length, on both sides.
            samples = measure(ways, rounds=F * max(1, self.bench.rounds // (2 * F)))
        assert bed.manifest().version > versions, "it was not published at this depth"
        for manifest in before.values():
            bulk.take_back(bed.store, manifest, driver.staged)
        return samples

    def _reads(self, bed: Bed, versions: int) -> None:
        """Read old versions, each a different one: neither its record nor its page is cached."""
        choice = random.Random(versions)
        rounds = min(100, self.bench.rounds)
        client = _Renewed(bed)
        old = choice.sample(range(1, versions - 2 * F), 8 * (rounds + WARM_UP))
        bulk.record(bed.store, DATASET, old)
        versions_left = iter(old)
        acts: dict[str, Callable[[Store, int], Any]] = {
            "read(as_of)": lambda store, v: store.read(DATASET, as_of=bulk.moment(v) + 1),
            "read(id)": lambda store, v: store.read(DATASET, id=bulk.made(v).id),
            "read(version)": lambda store, v: store.read(DATASET, version=v),
        }

        def read(act: Callable[[Store, int], Any]) -> None:
            assert act(client.now, next(versions_left)) is not None, "there was nothing to read"

        ways = [
            Way("read_latest, cold", lambda: client.now.read_latest(DATASET), before=client.renew),
            *(
                Way(f"{name}, {how}", partial(read, act), before=prepare)
                for how, prepare in (("cold", client.renew), ("warm", client.warm))
                for name, act in acts.items()
            ),
        ]
        with ExitStack() as stack:
            if bed.url is not None:
                ways += stack.enter_context(_with_asyncio(bed.url, versions_left))
            samples = measure(ways, rounds=rounds)
        self._show(f"reads at {versions:,} versions, {self.kind}", samples, ways[0].name)

    def _show(self, title: str, samples: Any, base: str) -> None:
        self.shows.append(lambda: self.bench.report.add_timed(SECTION, title, samples, base))


class _Renewed:
    """A client for each read, on the connections of the bed."""

    def __init__(self, bed: Bed) -> None:
        self._bed = bed
        self.renew()

    def renew(self) -> None:
        self.now = fresh(self._bed.store, _anywhere(self._bed))

    def warm(self) -> None:
        self.renew()
        self.now.read_latest(DATASET)


@contextmanager
def _with_asyncio(url: str, versions: Iterator[int]) -> Iterator[list[Way]]:
    """Yield the reads of a program that runs an event loop; the client is new each time."""
    loop = asyncio.new_event_loop()
    store = swapstore.aio.connect(url)
    now = [store]

    def renew() -> None:
        now[0] = AsyncStore(store._driver, swapstore.aio.connect(url)._context)

    async def by_id() -> None:
        assert await now[0].read(DATASET, id=bulk.made(next(versions)).id), "there was nothing to read"

    async def as_of() -> None:
        assert await now[0].read(DATASET, as_of=bulk.moment(next(versions)) + 1), "there was nothing to read"

    try:
        yield [
            Way("read(as_of), cold, asyncio", as_of, before=renew, clock=in_loop(loop)),
            Way("read(id), cold, asyncio", by_id, before=renew, clock=in_loop(loop)),
        ]
    finally:
        loop.run_until_complete(store.close())
        loop.close()


def _anywhere(bed: Bed) -> str:
    """Return an address of the kind of the bed's store; `fresh` connects to nothing."""
    return bed.url or "sqlite:///unused.db"
