"""The cost of each operation on a dataset of some depth: shared by the benchmark and its test.

Every figure is the mean over one whole cycle of 8 publishes, each from the same manifest: so the tail has
had every length, and one publish has sealed. Readers look at every manifest of such a cycle.
"""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import attrs
import msgspec

from swapstore import Store
from swapstore.cache import Cache
from swapstore.format.manifest import F, Manifest
from tests.support import bulk
from tests.support.meter import Cost, Meter
from tests.support.proxy import Proxy

DATASET = "depth"
BOUND = 1.5  # the manifest of a deep dataset names twenty pages more, of some 45 bytes each

Costs = dict[str, Cost]


@attrs.frozen
class Read:
    """An operation of a reader, perhaps on an old version. A warm reader has read the latest before."""

    act: Callable[[Store, int], object]
    warm: bool = False


def _latest(store: Store, _: int) -> object:
    return store.read_latest(DATASET)


def _as_of(store: Store, old: int) -> object:
    return store.read(DATASET, as_of=bulk.moment(old) + 1)


def _id(store: Store, old: int) -> object:
    return store.read(DATASET, id=bulk.made(old).id)


def _version(store: Store, old: int) -> object:
    return store.read(DATASET, version=old)


def _history(store: Store, _: int) -> object:
    return list(store.history(DATASET, limit=50))


PUBLISHES = {
    "publish 1 KB, warm": (1024, False),
    "publish 10 KB, warm": (10 * 1024, False),
    "publish 1 KB, cold": (1024, True),
}
NEW_VERSION = "read_latest, a new version"
READS = {
    "read_latest, nothing new": Read(_latest, warm=True),
    "read_latest, cold": Read(_latest),
    "read(as_of), warm": Read(_as_of, warm=True),
    "read(as_of), cold": Read(_as_of),
    "read(id), warm": Read(_id, warm=True),
    "read(id), cold": Read(_id),
    "read(version), warm": Read(_version, warm=True),
    "read(version), cold": Read(_version),
    "history(limit=50), cold": Read(_history),
}
BOUNDED = [name for name in (*PUBLISHES, NEW_VERSION, *READS) if "history" not in name]


class Bed:
    """A store with one dataset that can be given any depth, and clients whose traffic is counted.

    `store` builds the dataset and is not counted; the clients share the connection of `metered`.
    """

    def __init__(
        self, store: Store, metered: Store, proxy: Proxy | None = None, url: str | None = None
    ) -> None:
        self.store = store
        self.url = url  # of the server, if there is one
        self.meter = Meter(metered._driver, proxy)

    def client(self) -> Store:
        """A client with an empty cache, on a connection that is open."""
        return _client(self.meter, self.store, cache_bytes=1 << 20)

    def producer(self) -> Store:
        """A client that has published before."""
        client = self.client()
        list(client.history(DATASET, limit=1))  # all of the manifest: a first read brings its first line
        client._context.cache.note_listed(client._context.keys.manifest(DATASET))
        return client

    def measure(self, versions: int) -> Costs:
        """Extend the dataset to this many versions, and return what each operation costs there."""
        choice = random.Random(versions)
        old = [choice.randint(1, versions - 2 * F + 1) for _ in range(F)]  # all of them lie in pages
        before = bulk.extend(self.store, DATASET, to=versions, recorded=False)
        bulk.record(self.store, DATASET, old)
        with self._undone(before):  # connect, and let the server have the script: a client sends it once
            _publish(self.client(), versions + 1, 1)
        costs: Costs = {}
        for name, (size, cold) in PUBLISHES.items():
            with self._undone(before):
                costs[name] = self._publishes(versions, size, cold=cold)
        with self._undone(before):
            costs |= self._reads(versions, old)
        return costs

    def manifest(self) -> Manifest:
        """The stored manifest."""
        return bulk.stored_manifest(self.store, DATASET)

    @contextmanager
    def _undone(self, before: Manifest) -> Iterator[None]:
        """Take back what is published inside."""
        self.meter.staged.clear()
        yield
        bulk.take_back(self.store, before, self.meter.staged)

    def _publishes(self, versions: int, size: int, *, cold: bool) -> Cost:
        total = Cost()
        producer = self.producer()
        for version in range(versions + 1, versions + F + 1):
            total += self._cost(_publish, self.client() if cold else producer, version, size)
        return total / F

    def _reads(self, versions: int, old: list[int]) -> Costs:
        totals = dict.fromkeys([NEW_VERSION, *READS], Cost())
        producer, follower = self.producer(), self.producer()
        for version, old_version in zip(range(versions + 1, versions + F + 1), old, strict=True):
            _publish(producer, version, bulk.PAYLOAD_BYTES)
            totals[NEW_VERSION] += self._cost(_latest, follower, 0)
            for name, read in READS.items():
                client = self.client()
                if read.warm:
                    client.read_latest(DATASET)
                totals[name] += self._cost(read.act, client, old_version)
        return {name: total / F for name, total in totals.items()}

    def _cost(self, act: Callable[..., object], *arguments: object) -> Cost:
        def checked() -> None:
            assert act(*arguments) is not None, "there was nothing to read"

        return self.meter.of(checked)


def _publish(client: Store, version: int, size: int) -> object:
    value = b"%0*d" % (size, version)
    return client.publish(DATASET, value, ts=bulk.moment(version), codec="bytes")


def _client(meter: Meter, store: Store, *, cache_bytes: int) -> Store:
    policy = msgspec.structs.replace(store._context.policy, max_ahead_ms=None)  # the rows were made long ago
    return Store(meter, msgspec.structs.replace(store._context, cache=Cache(cache_bytes), policy=policy))


def ratios(now: Cost, base: Cost) -> tuple[float, float]:
    """How many times the round trips and bytes of another cost, without page reads."""
    return now.rest.round_trips / base.rest.round_trips, now.rest.bytes / base.rest.bytes


@attrs.frozen
class Walk:
    """The cost of a walk through the history; `bytes` are those of the values that were read."""

    rows: int
    pages: int
    bytes: int
    peak_bytes: int


def walk(store: Store, *, rows: int | None) -> Walk:
    """Take some rows of the history (None: all), one after the other, with a client that caches no page."""
    meter = Meter(store._driver)
    history = _client(meter, store, cache_bytes=0).history(DATASET, limit=rows)
    tracemalloc.start()
    taken = sum(1 for _ in history)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    cost = meter.cost
    return Walk(taken, int(cost.pages.round_trips), int(cost.pages.bytes + cost.rest.bytes), peak)
