"""Many leftovers of crashed producers, and a store that is emptied between two publishes."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

import swapstore
from swapstore import Store
from swapstore.format import manifest
from swapstore.fsck.findings import Problem
from tests.support import invariants
from tests.support.damage import Damage
from tests.support.drivers import another, sqlite_connection
from tests.support.valkey import Server, client_of

TTL_MS = 500_000


def orphans(count: int) -> Iterator[tuple[str, bytes]]:
    for number in range(count // 2):
        yield f"swapstore:id:{{mena}}:o-{number}", b"{}\n"
        yield f"swapstore:ts:{{mena}}:{number}:o-{number}", b"{}\n"


def plant(store: Store, count: int) -> None:
    """Write this many orphans without the library."""
    damage = Damage(store)
    driver: Any = store._driver
    if damage.has_types:
        client: Any = client_of(driver)
        pipeline = client.pipeline(transaction=False)
        for number, (name, value) in enumerate(orphans(count), start=1):
            pipeline.execute_command("SET", name, value, "PX", TTL_MS)
            if number % 5000 == 0:
                pipeline.execute()
        pipeline.execute()
        return
    expires = driver._now_ms() + TTL_MS
    with sqlite_connection(driver) as connection:
        connection.execute("BEGIN")
        connection.executemany(
            "INSERT INTO records (key, value, expires_at) VALUES (?, ?, ?)",
            ((name, value, expires) for name, value in orphans(count)),
        )
        connection.execute("COMMIT")


def check_orphans(store: Store, count: int) -> None:
    """Verify lists each with its age and nothing else, and a repair changes nothing."""
    for number in range(3):
        store.publish("mena", number, id=f"id-{number}")
    plant(store, count)
    seen = 0
    for finding in store.verify():
        assert finding.problem is Problem.ORPHAN
        assert finding.age_ms is not None
        assert finding.expires_in_ms is not None
        assert 600_000 - TTL_MS <= finding.age_ms <= 600_000 - TTL_MS + 120_000
        assert finding.age_ms + finding.expires_in_ms == 600_000
        seen += 1
    assert seen == count
    assert store.repair("mena", apply=True) == []
    assert invariants.manifest_of(store).version == 3


@pytest.mark.nightly
def test_many_orphans_on_a_server(valkey: Server) -> None:
    """Verify runs out of memory after a producer crashed every minute for months."""
    with swapstore.connect(valkey.url) as store:
        check_orphans(store, 10_000)
        tracemalloc.start()
        assert sum(1 for _ in store.verify()) == 10_000
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert peak < 1_500_000, "as much as 1000 of them take"


@pytest.mark.nightly
def test_many_orphans_in_a_file(tmp_path: Any) -> None:
    """Verify of a SQLite file with 100,000 orphans runs out of memory."""
    with swapstore.connect(f"sqlite:///{tmp_path}/store.db") as store:
        check_orphans(store, 100_000)


@pytest.mark.every_store
def test_a_store_that_is_emptied_between_two_publishes(store: Store) -> None:
    """After FLUSHALL a cron job fails, or leaves something wrong."""
    for number in range(2 * manifest.F + 3):
        store.publish("mena", number, id=f"id-{number}")
    store.read_latest("mena")
    Damage(store).flush()
    again = store.publish("mena", "anew", id="id-1")
    assert (again.version, again.created) == (1, True)
    assert list(another(store).verify()) == []
    assert another(store).repair(apply=True) == []
    assert another(store).datasets() == ["mena"]
    for number in range(2 * manifest.F + 3):
        store.publish("mena", number, id=f"new-{number}")
    assert [finding for finding in another(store).verify() if finding.wrong] == []
    assert len(invariants.check(store)) == 2 * manifest.F + 4


def test_a_store_that_is_emptied_again_and_again(store: Store) -> None:
    """Producers with a warm cache damage a store that loses everything now and then."""
    clients = [another(store) for _ in range(3)]
    for turn in range(6):
        for number, client in enumerate(clients):
            client.publish("mena", turn, id=f"{turn}-{number}")
        assert [finding for finding in another(store).verify() if finding.wrong] == []
        invariants.check(store)
        Damage(store).flush()
    with pytest.raises(swapstore.NotFound):
        clients[0].pin("mena", id="5-0")
    assert list(another(store).verify()) == []
