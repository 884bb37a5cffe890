"""`doctor` on a real cluster: the table, slots that move or are not served, and a replica that is stopped."""

from __future__ import annotations

from typing import Any

import pytest

import swapstore
from swapstore import Check
from swapstore.commands import Ask, Failed
from tests.support.cluster import Cluster
from tests.support.deployment import until

pytestmark = [pytest.mark.server, pytest.mark.slow]


def examine(cluster: Cluster) -> dict[str, Check]:
    with swapstore.connect(cluster.url) as store:
        return {check.name: check for check in store.doctor()}


def test_the_table_and_a_slot_that_moves(cluster: Cluster) -> None:
    """A node is missing in the table, or a migration that is stuck is not named."""
    source, target = cluster.primaries[:2]
    slot = next(slot for slot in range(16_384) if cluster.owner(slot) is source)
    cluster.open_slot(slot, source, target)
    try:
        checks = examine(cluster)
    finally:
        for node in (source, target):
            cluster.do(node, "CLUSTER", "SETSLOT", slot, "STABLE")
    nodes = checks["replicas"].nodes
    assert nodes is not None
    assert {node.address for node in nodes} == {f"127.0.0.1:{node.port}" for node in cluster.nodes}
    assert [node.role for node in nodes] == ["primary", "replica"] * 3
    assert sum(node.slots or 0 for node in nodes) == 16_384
    assert None not in {node.version for node in nodes}
    moving = f"{slot} from 127.0.0.1:{source.port} to 127.0.0.1:{target.port}"
    assert (checks["migration"].verdict, moving in checks["migration"].found) == ("warning", True)
    assert checks["durability"].found.startswith("at most replicas=1")
    assert examine(cluster)["migration"].verdict == "ok"


def test_a_slot_that_nobody_serves(cluster: Cluster) -> None:
    """Nobody says which slot is not served, or doctor waits until its patience is over, and says nothing."""
    primary = cluster.primaries[0]
    slot = next(slot for slot in range(16_384) if cluster.owner(slot) is primary)
    for node in cluster.nodes:
        cluster.do(node, "CLUSTER", "DELSLOTS", slot)
    try:
        check = examine(cluster)["cluster"]
    finally:
        for node in cluster.primaries:
            cluster.do(node, "CLUSTER", *(("ADDSLOTS", slot) if node is primary else ("INFO",)))
        cluster.agree()
    assert (check.verdict, f"16,383 of 16,384 slots served, not {slot}" in check.found) == ("problem", True)


def test_a_replica_that_is_stopped(cluster: Cluster) -> None:
    """A primary has lost its only replica, and nothing warned of it."""
    replica, primary = cluster.replicas[2], cluster.primaries[2]
    with swapstore.connect(cluster.url) as store:
        driver: Any = store._driver
        driver.execute([Ask(("nodes",))])
        replica.stop()
        for node in (f"127.0.0.1:{replica.port}", "127.0.0.1:1"):
            (reply,) = driver.execute([Ask(("INFO",), node)])
            assert isinstance(reply, Failed)
            assert not reply.again, "nobody else can answer, so asking again is a waste of patience"
    try:
        down = f"127.0.0.1:{replica.port} (the cluster calls it down)"
        until(lambda: down in examine(cluster)["replicas"].found, "it is not noticed")
        checks = examine(cluster)
        assert f"127.0.0.1:{primary.port} has no replica" in checks["replicas"].found
        assert checks["coverage"].verdict == "warning"
    finally:
        cluster.restart(replica)
        until(lambda: examine(cluster)["replicas"].verdict == "ok", "the replica is not back")
