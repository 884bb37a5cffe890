"""Reads from the replicas that sentinels know; on real servers."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

import swapstore
import swapstore.aio
from swapstore import InvalidInput
from tests.support.deployment import until
from tests.support.sentinels import Sentinels
from tests.support.traffic import FACES, Traffic
from tests.support.valkey import Server
from tests.views.watched import Watched, eventually, publish

pytestmark = [pytest.mark.server, pytest.mark.slow]


def reads_of(server: Server) -> int:
    """How many commands a server got that a read of a manifest or a record sends."""
    with server.client() as client:
        stats = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("get", "getrange"))


def pid_of(server: Server) -> int:
    assert server._process is not None
    return server._process.pid


def caught_up(sentinels: Sentinels) -> None:
    with sentinels.primary.client() as client:
        until(
            lambda: all(
                client.info("replication")["master_repl_offset"] == each.client().info()["slave_repl_offset"]
                for each in sentinels.replicas
            ),
            "the replicas are behind",
        )


def slowest_of(store: Any, reads: int = 30) -> float:
    """Read so often, and return how long the slowest read took, in seconds."""
    slowest = 0.0
    for _ in range(reads):
        began = time.monotonic()
        assert store.read_latest("mena").value == 1
        slowest = max(slowest, time.monotonic() - began)
    return slowest


@FACES
def test_reads_arrive_at_replicas(sentinels: Sentinels, connect: Callable[..., Any]) -> None:
    """The primary has the load of all readers although they read from replicas."""
    producer = connect(sentinels.url)
    version = producer.publish("mena", 1).version
    producer.publish("asia", 1)
    producer.close()
    caught_up(sentinels)
    before = reads_of(sentinels.primary)
    for _ in range(20):  # each chooses a replica at random
        store = connect(sentinels.url, read_from="replica")
        for _ in range(4):
            assert store.read_latest("mena").value == 1
            assert store.read_latest("mena", min_version=version).value == 1
            assert store.read_latest_many(["mena", "asia"])["asia"].value == 1
        assert store.status("mena").version == version
        store.close()
    assert reads_of(sentinels.primary) == before
    assert all(reads_of(each) for each in sentinels.replicas), "one replica has all the load"


def test_a_view_asks_replicas_whether_something_changed(sentinels: Sentinels) -> None:
    """The primary is asked by every view at each poll although they read from replicas."""
    names = ["mena", "asia"]
    with (
        swapstore.connect(sentinels.url) as producer,
        swapstore.connect(sentinels.url, read_from="replica") as store,
    ):
        publish(producer, names, 1)
        caught_up(sentinels)
        before, of_replicas = reads_of(sentinels.primary), sum(map(reads_of, sentinels.replicas))
        with store.view(names, poll=0.02) as view, Watched(view, names) as watched:
            eventually(lambda: sum(map(reads_of, sentinels.replicas)) > of_replicas + 20)
            assert reads_of(sentinels.primary) == before
            publish(producer, names, 2)
            watched.shows(2)


def test_a_view_beside_replicas_that_lag(sentinels: Sentinels) -> None:
    """A look at a replica that is behind takes a view back, in a forked process too: its cache is empty."""
    names = ["mena", "asia"]
    with (
        swapstore.connect(sentinels.url) as producer,
        swapstore.connect(sentinels.url, read_from="replica") as store,
    ):
        publish(producer, names, 1)
        with sentinels.primary.client() as client:
            old = {key: client.get(key) for key in map(store._context.keys.manifest, names)}
        publish(producer, names, 2)
        with store.view(prefix="", poll=0.02) as view, Watched(view, names) as watched:
            caught_up(sentinels)
            watched.shows(2)
            for replica in sentinels.replicas:
                with replica.client() as client:
                    client.config_set("replica-read-only", "no")
                    client.mset(old)
                    client.config_set("replica-read-only", "yes")
            store._context.cache.after_fork()
            looks = sum(map(reads_of, sentinels.replicas))
            eventually(lambda: sum(map(reads_of, sentinels.replicas)) > looks + 20)
            watched.shows(2)
            publish(producer, names, 3)
            watched.shows(3)


@FACES
def test_without_replicas_the_primary_answers(
    sentinels: Sentinels, connect: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Replicas that are stopped make reads fail, or each of them wait for a connection."""
    store = connect(sentinels.url, read_from="replica")
    store.publish("mena", 1)
    caught_up(sentinels)
    slowest_of(store)
    for replica in sentinels.replicas:
        replica.stop()
    began = time.monotonic()
    slowest_of(store, 300)
    assert time.monotonic() - began < 15, "each read waits"
    assert "no replica was read" in caplog.text
    store.close()


@FACES
def test_a_replica_that_hangs(sentinels: Sentinels, connect: Callable[..., Any]) -> None:
    """A replica that answers nothing holds up every read, not only one now and then."""
    store = connect(sentinels.url, read_from="replica")
    store.publish("mena", 1)
    caught_up(sentinels)
    slowest_of(store)
    hanging = sentinels.replicas
    for replica in hanging:
        os.kill(pid_of(replica), signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert slowest_of(store, 100) < 8
        assert time.monotonic() - began < 20, "each read waits"
    finally:
        for replica in hanging:
            os.kill(pid_of(replica), signal.SIGCONT)
    store.close()


@FACES
def test_replicas_that_are_cut_off(sentinels: Sentinels, connect: Callable[..., Any]) -> None:
    """A replica that has lost its primary, and refuses to answer from old data, makes reads fail."""
    store, producer = connect(sentinels.url, read_from="replica"), connect(sentinels.url)
    producer.publish("mena", 0)
    caught_up(sentinels)
    assert store.read_latest("mena").value == 0
    for replica in sentinels.replicas:
        with replica.client() as client:
            client.config_set("replica-serve-stale-data", "no")
            client.replicaof("127.0.0.1", 1)  # nobody is there
    producer.publish("mena", 1)
    try:
        slowest_of(store)
    finally:
        for replica in sentinels.replicas:
            with replica.client() as client:
                client.config_set("replica-serve-stale-data", "yes")
        store.close()
        producer.close()


@FACES
def test_failovers_under_load(sentinels: Sentinels, connect: Callable[..., Any]) -> None:
    """A failover makes a client that reads from replicas fail, or go back, or read what is torn."""
    store = connect(sentinels.url, patience=30, read_from="replica")
    with swapstore.connect(sentinels.url, patience=30) as fresh:
        with Traffic(store) as traffic:
            sentinels.fail_over()
            traffic.go_on()
            sentinels.kill_primary()
            traffic.go_on()
        traffic.check(fresh)
    store.close()


@pytest.mark.parametrize("connect", [swapstore.connect, swapstore.aio.connect])
def test_where_nobody_tells_the_replicas(connect: Callable[..., Any], valkey: Server) -> None:
    """It is ignored, and the primary has all the load; or a mistake is found at the first read."""
    for target in (valkey.url, "sqlite:///there-is-none.db", "https://example.com"):
        with pytest.raises(InvalidInput, match="open a second store on its address"):
            connect(target, read_from="replica", **({"token": "t"} if target.startswith("https") else {}))
    for value in ("replicas", "REPLICA", None, True, ["replica"]):
        with pytest.raises(InvalidInput, match="read_from must be 'primary' or 'replica'"):
            connect(valkey.url, read_from=value)
