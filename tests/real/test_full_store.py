"""A full server: what frees memory, or takes none, is done; what needs memory is refused whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import swapstore
from swapstore import Retention, Store
from swapstore.errors import StoreFull
from swapstore.format import manifest
from tests.support import invariants
from tests.support.valkey import Server

SIZES = [100, 40_000, 300_000]  # within one command of the commit, beside it, and sent without a copy


def value_of(size: int, number: int) -> Any:
    return ["x" * size, number]


def fill(store: Store, size: int, count: int = 40) -> None:
    for number in range(count):
        store.publish("mena", value_of(size, number), id=f"id-{number}")


class Full:
    """A real server whose memory is at its limit from `limit` on."""

    def __init__(self, server: Server) -> None:
        self._admin = server.client()
        self._admin.config_set("maxmemory-policy", "noeviction")
        self._admin.set("another program's", b"x" * 2_000_000)

    def limit(self) -> None:
        self._admin.config_set("maxmemory", 1_000_000)

    def lift(self) -> None:
        self._admin.config_set("maxmemory", 0)

    def used(self) -> int:
        return sum(self._admin.memory_usage(key, samples=0) or 0 for key in self._admin.scan_iter())

    def close(self) -> None:
        self.lift()
        self._admin.close()


@pytest.fixture
def full(valkey: Server) -> Iterator[Full]:
    made = Full(valkey)
    yield made
    made.close()


@pytest.mark.parametrize("client", ["the one that published", "a new one"])
def test_what_takes_no_memory_is_done(valkey: Server, full: Full, client: str) -> None:
    """The advice is to let old data go, and the server refuses just that."""
    with swapstore.connect(valkey.url) as first:
        fill(first, 1000)
        full.limit()
        store = swapstore.connect(valkey.url) if client == "a new one" else first
        with pytest.raises(StoreFull):
            store.publish("mena", "new", id="new")
        confirmed = store.confirm("mena").confirmed_at
        pinned, unpinned = store.pin("mena", id="id-20").pinned, store.unpin("mena").pinned
        assert pinned is not None
        assert (pinned.id, unpinned) == ("id-20", None)
        assert store.rollback("mena", id="id-25").latest.id == "id-25"
        status = store.status("mena")
        assert status is not None
        assert status.confirmed_at == confirmed
        assert store.prune("mena", retention=Retention(max_count=2)).first_version == 39
        found = store.read_latest("mena")
        assert found is not None
        assert found.id == "id-25"
        assert not [each for each in store.verify() if each.wrong]
        invariants.check(store)
        store.close()


@pytest.mark.parametrize(("size", "max_count"), [*((size, 3) for size in SIZES), (40_000, 100)])
def test_publishes_that_unlink_as_much_as_they_add(
    valkey: Server, full: Full, size: int, max_count: int
) -> None:
    """A store whose retention keeps it as large as it is stops for ever once it is full."""
    count = max(max_count, manifest.recent())
    keeps = Retention(max_count=max_count)
    with swapstore.connect(valkey.url) as unbounded, swapstore.connect(valkey.url, retention=keeps) as store:
        fill(unbounded, size, count)
        full.limit()
        before = full.used()
        for number in range(40):
            commit = store.publish("mena", value_of(size, number), id=f"more-{number}")
            assert commit.created
            assert commit.version == count + 1 + number
            if number >= 40 - manifest.F:  # rows leave by the page
                assert full.used() <= before + manifest.F * (1.3 * size + 2_000) + 10_000
        found = store.read_latest("mena")
        assert found is not None
        assert found.value == value_of(size, 39)
        assert len(list(store.history("mena", limit=None))) == max_count
        assert not [each for each in store.verify() if each.wrong]
        invariants.check(store)


def test_a_store_becomes_full_while_old_records_are_kept_for_readers(valkey: Server, full: Full) -> None:
    """For ten minutes, what was unlinked before takes memory, and every publish is refused."""
    size = 40_000
    with swapstore.connect(valkey.url, retention=Retention(max_count=3)) as store, valkey.client() as client:
        fill(store, size, manifest.recent() + 3 * manifest.F)
        full.limit()
        before = full.used()
        expiring = sum(client.pttl(key) > 0 for key in client.scan_iter())
        assert expiring > 2 * manifest.F
        for number in range(3 * manifest.F):
            assert store.publish("mena", value_of(size, number), id=f"more-{number}").created
        assert full.used() <= before + manifest.F * 1.3 * size
        assert sum(client.pttl(key) > 0 for key in client.scan_iter()) == expiring, "they go at once"
        invariants.check(store)


def test_growth_in_a_store_of_a_steady_size_is_refused(valkey: Server, full: Full) -> None:
    """Snapshots that become larger and larger pass the limit that an operator has set."""
    with swapstore.connect(valkey.url, retention=Retention(max_count=3)) as store, valkey.client() as client:
        fill(store, 1000, manifest.recent() + 2)
        full.limit()
        assert store.publish("mena", value_of(1900, 1), id="more").created
        before = sorted(client.scan_iter())
        with pytest.raises(StoreFull, match="maxmemory"):
            store.publish("mena", value_of(2100, 1), id="new")
        assert sorted(client.scan_iter()) == before
        assert store.publish("mena", value_of(1000, 1), id="like-before").created


@pytest.mark.parametrize("size", SIZES)
def test_a_publish_that_would_grow_the_store_is_refused_whole(valkey: Server, full: Full, size: int) -> None:
    """A limit that an operator has set is passed, or a refused publish leaves something behind."""
    with swapstore.connect(valkey.url, retention=Retention(max_count=3)) as store, valkey.client() as client:
        fill(store, size, 5)
        full.limit()
        before = sorted(client.scan_iter())
        for _ in range(2):
            with pytest.raises(StoreFull, match="maxmemory"):
                store.publish("mena", value_of(10 * size, 1), id="new")
        assert sorted(client.scan_iter()) == before
        full.lift()
        assert store.publish("mena", value_of(10 * size, 1), id="new").version == 6


def test_old_records_go_at_once_and_readers_follow(valkey: Server, full: Full) -> None:
    """A reader that is under way when its record is deleted gets an error, not the newer version."""
    with swapstore.connect(valkey.url) as unbounded, valkey.client() as client:
        fill(unbounded, 1000, manifest.recent() + manifest.F)
        reader = swapstore.connect(valkey.url, cache_bytes=0)
        old = reader.read("mena", version=1)
        assert old is not None
        full.limit()
        with swapstore.connect(valkey.url, retention=Retention(max_count=2)) as store:
            store.publish("mena", value_of(1000, 1), id="new")
        assert not [key for key in client.scan_iter() if key.endswith(b":id-0")], (
            "they take memory for longer"
        )
        assert reader.read("mena", version=1) is None
        assert next(iter(reader.history("mena"))).id == "new"
        reader.close()


def test_a_repair_that_frees_memory(valkey: Server, full: Full) -> None:
    """Leaked records fill the store, and nothing can be done about them because it is full."""
    with swapstore.connect(valkey.url) as store, valkey.client() as client:
        fill(store, 1000, 3)
        key = next(key for key in client.scan_iter() if b":id:" in key and key.endswith(b":id-1"))
        client.copy(key, key.replace(b":id-1", b":leaked"))
        full.limit()
        assert [finding.problem.value for finding in store.verify()] == ["leaked"]
        store.repair(apply=True)
        assert client.pttl(key.replace(b":id-1", b":leaked")) > 0
        assert client.pttl(key) == -1
