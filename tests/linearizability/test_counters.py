"""Read, add one, publish with `expected_version`: no increment is lost, and none is counted twice."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier

import pytest

import swapstore
from swapstore import Store
from swapstore.errors import Conflict, Unavailable
from tests.linearizability import recorder
from tests.linearizability.chaos import Chaos
from tests.linearizability.chaos_proxy import ChaosProxy
from tests.support.valkey import Server

pytestmark = pytest.mark.every_store

DATASET = "counter"
CLIENTS = 4
ATTEMPTS = 1000


def increment(store: Store, name: str) -> int:
    """Add one to the counter exactly once, with any losses; return the version that did it."""
    for attempt in range(ATTEMPTS):
        identifier = f"{name}.{attempt}"
        try:
            found = store.read_latest(DATASET)
        except Unavailable:
            continue
        value, version = (found.value + 1, found.version) if found else (1, 0)
        for _ in range(ATTEMPTS):
            try:
                return store.publish(DATASET, value, id=identifier, expected_version=version).version
            except Conflict:
                break  # another was faster: this value was not published and never will be
            except Unavailable:
                continue  # as `OutcomeUnknown` says: the same id again
    raise AssertionError("never got through")


def count_up(stores: list[Store], times: int) -> list[int]:
    """Let each store's client count up `times` times concurrently; return the versions they made."""
    barrier = Barrier(len(stores), timeout=30)

    def work(client: int) -> list[int]:
        barrier.wait()
        return [increment(stores[client], f"c{client}-{number}") for number in range(times)]

    with ThreadPoolExecutor(len(stores)) as pool:
        return sorted(version for made in pool.map(work, range(len(stores))) for version in made)


def check(url: str, versions: list[int], total: int) -> None:
    """The n-th increment made version n and wrote n, for every n."""
    assert versions == list(range(1, total + 1))
    with swapstore.connect(url) as store:
        rows = list(store.history(DATASET, limit=None))
        assert [row.version for row in rows] == list(range(total, 0, -1))
        for version in versions:
            snapshot = store.read(DATASET, version=version)
            assert snapshot is not None
            assert snapshot.value == version
        latest = store.read_latest(DATASET)
        assert latest is not None
        assert latest.value == total


@pytest.mark.parametrize("shared", [True, False], ids=["one store", "a store each"])
def test_increments_of_several_threads_all_count(real_url: str, *, shared: bool) -> None:
    """Two producers that build on the same version overwrite each other's change silently."""
    with ExitStack() as stack:
        stores = [
            stack.enter_context(swapstore.connect(real_url)) for _ in range(1 if shared else CLIENTS)
        ] * (CLIENTS if shared else 1)
        versions = count_up(stores, 25)
    check(real_url, versions, 25 * CLIENTS)


@pytest.mark.parametrize("seed", [21, 22])
def test_increments_on_a_bad_network_count_once(valkey: Server, seed: int) -> None:
    """A change is counted twice or not at all after a lost reply and a retry with the same id."""
    with ExitStack() as ways:
        proxies = [
            ways.enter_context(ChaosProxy(valkey.port, Chaos(100 * seed + number)))
            for number in range(CLIENTS)
        ]
        with ExitStack() as stack:
            stores = [
                recorder.impatient(stack.enter_context(swapstore.connect(proxy.url))) for proxy in proxies
            ]
            versions = count_up(stores, 10)
    check(valkey.url, versions, 10 * CLIENTS)
