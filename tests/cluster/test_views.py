"""A view of datasets on every primary of a cluster, while the cluster changes under it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import swapstore
from tests.cluster.test_under_load import names_everywhere, offset
from tests.support.cluster import Cluster, slot_of, slot_of_key
from tests.support.deployment import until
from tests.support.valkey import Server
from tests.views.watched import Watched, eventually, publish

pytestmark = [pytest.mark.server, pytest.mark.slow]

QUICK = 0.2
LONG = 60.0


def subscribers(cluster: Cluster) -> int:
    """How many connections listen, on all nodes."""
    return sum(
        int(each["sub"]) + int(each["psub"]) > 0
        for node in cluster.nodes
        if node.is_running
        for each in node.client().client_list()
    )


@contextmanager
def stopped(node: Server) -> Iterator[None]:
    """Let a node hang: it accepts connections, and does not answer."""
    assert node._process is not None
    os.kill(node._process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(node._process.pid, signal.SIGCONT)


@pytest.mark.parametrize("by_prefix", [False, True], ids=["names", "prefix"])
def test_a_change_on_any_node_comes_at_once(cluster: Cluster, by_prefix: bool) -> None:  # noqa: FBT001
    """One subscription, on one node, hears of the datasets of that node only."""
    names = names_everywhere(cluster, 2)
    with swapstore.connect(cluster.url) as store, swapstore.connect(cluster.url) as producer:
        publish(producer, names, 1)
        view = store.view(prefix="set-", poll=LONG) if by_prefix else store.view(names, poll=LONG)
        with view, Watched(view, names) as watched:
            eventually(lambda: subscribers(cluster) == 1)
            publish(producer, names, 2)
            watched.shows(2)


def test_slots_move(cluster: Cluster) -> None:
    """A view asks the node that had the slot, and takes what is not there any more for dropped."""
    names = names_everywhere(cluster)
    with swapstore.connect(cluster.url) as store, swapstore.connect(cluster.url) as producer:
        publish(producer, names, 1)
        with store.view(prefix="set-", poll=QUICK) as view, Watched(view, names) as watched:
            for name in [*names, "swapstore:datasets"]:
                slot = slot_of(name) if name in names else slot_of_key(name)
                source = cluster.owner(slot)
                target = cluster.other(source)
                cluster.open_slot(slot, source, target)
                cluster.move_keys(slot, source, target, most=2)
                time.sleep(2 * QUICK)  # some looks find half of the keys
                cluster.move_keys(slot, source, target)
                cluster.close_slot(slot, target)
                watched.goes_on()
            publish(producer, names, 2)
            watched.shows(2)


def test_a_primary_is_killed(cluster: Cluster) -> None:
    """A view stays with a node that is gone, and its datasets are old until the service is restarted."""
    names = names_everywhere(cluster)
    with swapstore.connect(cluster.url) as store, swapstore.connect(cluster.url, patience=30) as producer:
        publish(producer, names, 1)
        victim = cluster.owner(slot_of(names[0]))
        replica = cluster.replicas[cluster.primaries.index(victim)]
        with store.view(names, poll=QUICK) as view, Watched(view, names) as watched:
            until(lambda: offset(cluster, replica) >= offset(cluster, victim), "the replica is behind")
            victim.stop()
            eventually(lambda: names[0] in view.health().behind)
            cluster.kill(victim)
            publish(producer, names, 2)
            watched.shows(2)
            eventually(lambda: view.health().connected and not view.health().behind)
            eventually(lambda: subscribers(cluster) == 1)
        cluster.restart(victim)


def test_a_node_that_hangs_takes_nothing_from_the_others(cluster: Cluster) -> None:
    """One node hangs, and every dataset of a view is old, or those of that node after a replica took over."""
    names = names_everywhere(cluster)
    with (
        swapstore.connect(cluster.url, timeout=0.5) as store,
        swapstore.connect(cluster.url, patience=30) as producer,
    ):
        publish(producer, names, 1)
        victim = cluster.owner(slot_of(names[0]))
        replica = cluster.replicas[cluster.primaries.index(victim)]
        lost = [name for name in names if cluster.owner(slot_of(name)) is victim]
        rest = [name for name in names if name not in lost]
        with store.view(names, poll=QUICK) as view, Watched(view, names) as watched:
            until(lambda: offset(cluster, replica) >= offset(cluster, victim), "the replica is behind")
            with stopped(victim):
                eventually(lambda: set(view.health().behind) == set(lost))
                publish(producer, rest, 2)
                watched.shows(2, names=rest)
                until(lambda: b"role:master" in cluster.do(replica, "INFO", "replication"), "no failover")
                cluster._exchange_roles(replica)
                alive = f"redis+cluster://127.0.0.1:{replica.port}"
                with swapstore.connect(alive, patience=30) as elsewhere:
                    publish(elsewhere, lost, 2)
                watched.shows(2)
            eventually(lambda: view.health().connected and not view.health().behind)
        cluster.agree()
