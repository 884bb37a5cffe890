"""What happens to producers, readers and followers while a cluster changes under them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, slot_of, slot_of_key
from tests.support.deployment import kinds, until
from tests.support.load import Load, connecting

pytestmark = [pytest.mark.server, pytest.mark.slow]


def names_everywhere(cluster: Cluster, each: int = 1) -> list[str]:
    """Datasets on every primary. The list of names is moved like one of them."""
    return [name for node in cluster.primaries for name in cluster.names(each, of=node)]


def test_slots_moved_by_hand(cluster: Cluster) -> None:
    """A commit goes to the node that had the slot, or a reader finds nothing where its keys were."""
    names = names_everywhere(cluster)
    with Load(connecting(cluster.url), names) as load:
        for name in [*names, "swapstore:datasets"]:
            slot = slot_of(name) if name in names else slot_of_key(name)
            cluster.move_slot(slot, cluster.other(cluster.owner(slot)))
            load.progress()
    load.check()


def test_a_slot_half_moved(cluster: Cluster) -> None:
    """A reader is told that what is still on the old node does not exist, or a commit is split in two."""
    names = names_everywhere(cluster)
    with Load(connecting(cluster.url, 20), names) as load:
        for name in names[:2]:
            slot = slot_of(name)
            source = cluster.owner(slot)
            target = cluster.other(source)
            cluster.open_slot(slot, source, target)
            cluster.move_keys(slot, source, target, most=3)
            time.sleep(0.5)  # readers go on, and producers wait
            load.raise_failures()
            cluster.move_keys(slot, source, target)
            cluster.close_slot(slot, target)
            load.progress()
    load.check()


def test_slots_moved_in_one_step(cluster: Cluster) -> None:
    """Valkey moves whole ranges at once, with writes paused for a moment: one of them is lost or doubled."""
    names = names_everywhere(cluster)
    with Load(connecting(cluster.url), names) as load:
        for name in names:
            slot = slot_of(name)
            cluster.move_atomically(slot, slot, cluster.other(cluster.owner(slot)))
            load.progress()
    load.check()


def test_a_shard_fails_over_as_planned(cluster: Cluster) -> None:
    """After CLUSTER FAILOVER producers write to a replica, or what was acknowledged is gone."""
    names = names_everywhere(cluster)
    with Load(connecting(cluster.url), names) as load:
        for replica in list(cluster.replicas[:2]):
            cluster.fail_over(replica)
            load.progress()
    load.check()


def test_a_primary_is_killed(cluster: Cluster) -> None:
    """Producers hang on a node that is gone, or its datasets stay unavailable after a replica took over."""
    names = names_everywhere(cluster)
    with Load(connecting(cluster.url, 30), names) as load:
        victim = cluster.owner(slot_of(names[0]))
        with load.calm():  # what a replica does not have yet when its primary dies is lost, by whomever
            time.sleep(0.5)
            replica = cluster.replicas[cluster.primaries.index(victim)]
            until(lambda: offset(cluster, replica) >= offset(cluster, victim), "the replica is behind")
            victim.stop()
        cluster.kill(victim)
        load.progress()
        cluster.restart(victim)
        load.progress()
    load.check()


def offset(cluster: Cluster, node: object) -> int:
    said = cluster.do(node, "INFO", "replication").decode()  # type: ignore[arg-type]
    fields = dict(line.split(":", 1) for line in said.split() if ":" in line)
    return int(fields["slave_repl_offset" if fields["role"] == "slave" else "master_repl_offset"])


@pytest.mark.nightly
@pytest.mark.parametrize("kind", sorted(kinds()))
def test_nodes_join_and_leave(tmp_path: Path, kind: str) -> None:
    """A node that joined is not found, or one that left goes on to be asked."""
    with Cluster(tmp_path, kinds()[kind], primaries=2) as cluster:
        names = names_everywhere(cluster, 2)
        with Load(connecting(cluster.url, 20), names) as load:
            added = cluster.add()
            for name in names[:3]:
                cluster.move_slot(slot_of(name), added)
                load.progress()
            leaving = cluster.primaries[0]
            cluster.empty(leaving, added)
            load.progress()
            cluster.remove(leaving)
            load.progress()
        load.check()


@pytest.mark.nightly
def test_redis_6(tmp_path: Path) -> None:
    """The oldest server that is tested answers otherwise than Valkey 9 does."""
    if "redis" not in kinds():
        pytest.skip("there is no wheel of Redis 6.2 for this platform")
    with Cluster(tmp_path, kinds()["redis"], primaries=3, replicas=1) as cluster:
        names = names_everywhere(cluster)
        with Load(connecting(cluster.url, 20), names) as load:
            slot = slot_of(names[0])
            cluster.move_slot(slot, cluster.other(cluster.owner(slot)))
            load.progress()
            cluster.fail_over(cluster.replicas[0])
            load.progress()
        load.check()
