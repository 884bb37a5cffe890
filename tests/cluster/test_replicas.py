"""Reads from the replicas of a cluster."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio
from redis.cluster import RedisCluster

import swapstore
import swapstore.aio
from tests.support.cluster import Cluster, slot_of
from tests.support.deployment import until
from tests.support.load import Load
from tests.support.traffic import FACES, Blocking
from tests.support.valkey import Server

pytestmark = [pytest.mark.server, pytest.mark.slow]


def reads_of(cluster: Cluster, node: Server) -> int:
    with node.client() as client:
        stats = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("get", "getrange"))


def names_everywhere(cluster: Cluster) -> list[str]:
    return [cluster.names(1, of=node)[0] for node in cluster.primaries]


def filled(cluster: Cluster) -> list[str]:
    """Publish to a dataset on each primary, and wait until the replicas have it."""
    names = names_everywhere(cluster)
    with swapstore.connect(cluster.url) as store:
        store.publish_many(dict.fromkeys(names, 1)).raise_for_failures()
    for node in cluster.primaries:
        with node.client() as client:
            until(lambda client=client: client.wait(1, 1000) >= 1, "a replica is behind")
    for node in cluster.nodes:
        with node.client() as client:
            client.config_resetstat()
    return names


@FACES
def test_reads_arrive_at_replicas(cluster: Cluster, connect: Callable[..., Any]) -> None:
    """The primaries have the load of all readers although they read from replicas."""
    names = filled(cluster)
    store = connect(cluster.url, read_from="replica")
    for _ in range(10):
        for name in names:
            assert store.read_latest(name, min_version=1).value == 1
        assert all(found.value == 1 for found in store.read_latest_many(names).values())
    store.close()
    assert [reads_of(cluster, node) for node in cluster.primaries] == [0, 0, 0]
    assert all(reads_of(cluster, node) for node in cluster.replicas)


def test_a_client_lends_its_replicas(cluster: Cluster) -> None:
    """A caller's `RedisCluster` is read at its primaries."""
    names = filled(cluster)
    host: Any = {"host": "127.0.0.1", "port": cluster.primaries[0].port}
    with RedisCluster(**host) as client, swapstore.connect(client, read_from="replica") as store:
        for _ in range(5):
            assert all(found and found.value == 1 for found in store.read_latest_many(names).values())
    assert all(reads_of(cluster, node) for node in cluster.replicas)
    made: Any = redis.asyncio.RedisCluster
    aclient = made(**host)
    astore = Blocking(aclient, read_from="replica")
    for _ in range(5):
        assert all(found.value == 1 for found in astore.read_latest_many(names).values())
    astore.close()
    assert [reads_of(cluster, node) for node in cluster.primaries] == [0, 0, 0]


@FACES
def test_a_replica_is_away(cluster: Cluster, connect: Callable[..., Any]) -> None:
    """Where a shard has no replica, reads fail; or the other shards are not read at theirs any more."""
    names = filled(cluster)
    store = connect(cluster.url, read_from="replica")
    assert all(found.value == 1 for found in store.read_latest_many(names).values())
    gone = cluster.replicas[0]
    gone.stop()
    try:
        for _ in range(50):
            assert all(found.value == 1 for found in store.read_latest_many(names).values())
            assert store.read_latest(names[0]).value == 1
        before = reads_of(cluster, cluster.primaries[1])
        until(lambda: store.read_latest(names[1]) and reads_of(cluster, cluster.primaries[1]) == before, "no")
    finally:
        store.close()
        cluster.restart(gone)
        until(lambda: b"master_link_status:up" in cluster.do(gone, "INFO", "replication"), "no replication")


def test_a_failover_and_a_move_under_load(cluster: Cluster) -> None:
    """A reader of replicas goes back or fails when a replica is promoted, or a slot moves."""
    names = names_everywhere(cluster)
    with Load(lambda: swapstore.connect(cluster.url, patience=30, read_from="replica"), names) as load:
        cluster.fail_over(cluster.replicas[0])
        load.progress()
        slot = slot_of(names[1])
        cluster.move_slot(slot, cluster.other(cluster.owner(slot)))
        load.progress()
    load.check()
