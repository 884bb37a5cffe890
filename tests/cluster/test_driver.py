"""What the drivers for a cluster do with each of a node's answers, and with nodes that are gone."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

import swapstore
import swapstore.aio
from swapstore import AccessDenied, ReplyLost, StoreClosed, Unavailable
from swapstore.commands import AwaitReplicas, Failed, Get, GetServed, Put, Scan, Served, Time
from swapstore.drivers.base import Driver
from swapstore.drivers.redis.cluster import AsyncClusterDriver, ClusterDriver
from swapstore.drivers.redis.driver import RedisDriver
from swapstore.testing.contract import scan_all
from tests.aio.support import Blocking, InThread
from tests.support import invariants
from tests.support.cluster import Cluster, slot_of
from tests.support.deployment import kinds
from tests.support.load import connecting

pytestmark = [pytest.mark.server, pytest.mark.slow]

LONG_MS = 60_000


@pytest.fixture(params=["blocking", "asyncio"])
def driver(request: pytest.FixtureRequest, cluster: Cluster) -> Iterator[Driver]:
    """Each of the two drivers."""
    if request.param == "blocking":
        made = ClusterDriver.from_url(cluster.url)
        yield made
        made.close()
        return

    async def opened() -> AsyncClusterDriver:
        await asyncio.sleep(0)
        return AsyncClusterDriver.from_url(cluster.url)

    with InThread() as home:
        other = home.run(opened())
        yield Blocking(other, home)
        home.run(other.close())


def inner(driver: Driver) -> Any:
    return getattr(driver, "_async", driver)


@contextmanager
def half_moved(cluster: Cluster, name: str, keys: int) -> Iterator[None]:
    """A block in which the slot of a dataset is moving, and so many of its keys have moved."""
    slot = slot_of(name)
    source = cluster.owner(slot)
    target = cluster.other(source)
    cluster.open_slot(slot, source, target)
    try:
        assert cluster.move_keys(slot, source, target, most=keys) == keys
        yield
    finally:
        cluster.move_keys(slot, source, target)
        cluster.close_slot(slot, target)


def sent_again(driver: Driver, commands: list[Any], times: int = 3) -> list[Any]:
    """The replies after all reads were sent again until none is refused, as the engine does."""
    for _ in range(times):
        replies = driver.execute(commands)
        if not any(isinstance(reply, Failed) for reply in replies):
            break
    return replies


def test_what_has_not_moved_yet_is_not_missing(driver: Driver, cluster: Cluster) -> None:
    """The node that a slot moves to says that a key does not exist which is still on the other one."""
    keys = [f"k{number}:{{mena}}" for number in range(6)]
    driver.execute([Put(key, key.encode(), LONG_MS) for key in keys])
    wanted = [key.encode() for key in keys]
    with half_moved(cluster, "mena", 3):
        first = driver.execute([Get(key) for key in keys])
        refused = [reply for reply in first if isinstance(reply, Failed)]
        assert len(refused) == 3
        assert all(reply.again for reply in refused)
        assert sent_again(driver, [Get(key) for key in keys]) == wanted
        assert sent_again(driver, [Get("new:{mena}")]) == [None]
        assert sent_again(driver, [Put("new:{mena}", b"there", LONG_MS)]) == [None]
        assert sent_again(driver, [Get("new:{mena}")]) == [b"there"]
    assert sent_again(driver, [Get(key) for key in [*keys, "new:{mena}"]]) == [*wanted, b"there"]


def test_a_wait_goes_where_the_write_before_it_went(driver: Driver, cluster: Cluster) -> None:
    """A node on whose connection nothing was written acknowledges a commit: the mark went to another one."""
    manifest, mark = "t:manifest:{mena}", "t:mark:{mena}"
    driver.execute([Put(manifest, b"1", LONG_MS)])
    wait = AwaitReplicas(manifest, 1, False, 2000)  # noqa: FBT003
    with half_moved(cluster, "mena", 0):
        first = driver.execute([Get(manifest), Put(mark, b"", LONG_MS), wait])
        assert isinstance(first[1], Failed)
        shown, marked, waited = driver.execute([Get(manifest), Put(mark, b"", LONG_MS), wait])
        assert (shown, marked) == (b"1", None)
        assert isinstance(waited, Failed)
        assert "is moving" in str(waited.error)
    assert sent_again(driver, [Get(manifest), Put(mark, b"", LONG_MS), wait]) == [b"1", None, 1]


def test_a_user_who_may_not_ask(cluster: Cluster) -> None:
    """A right that only a migration needs is told as a slot that goes back and forth."""
    for node in cluster.nodes:
        cluster.do(node, "ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-asking")
    driver = ClusterDriver.from_url(cluster.url.replace("://", "://app:pw@"))
    try:
        driver.execute([Put("k:{mena}", b"1", LONG_MS)])
        with half_moved(cluster, "mena", 1):
            driver.execute([Get("k:{mena}")])
            (reply,) = driver.execute([Get("k:{mena}")])
        assert isinstance(reply.error, AccessDenied)
        assert "asking" in str(reply.error)
    finally:
        driver.close()
        for node in cluster.nodes:
            cluster.do(node, "ACL", "DELUSER", "app")


def test_a_served_record_that_has_moved_is_left_out_for_this_read(driver: Driver, cluster: Cluster) -> None:
    """A reader that began during a migration reads in two round trips for ever, or gets an error."""
    header = b'{"latest":{"id":"a","size":1},"pinned":null}\n'
    driver.execute([Put("t:manifest:{mena}", header, LONG_MS), Put("t:id:{mena}:a", b"record", LONG_MS)])
    ask = GetServed("t:manifest:{mena}", "t:id:{mena}:", "t:base:{mena}:", 10)
    assert driver.execute([ask]) == [Served(header, b"record")]
    with half_moved(cluster, "mena", 1):
        assert sent_again(driver, [ask])[0] in (Served(header), Served(header, b"record"))
    assert sent_again(driver, [ask]) == [Served(header, b"record")]


def test_the_table_is_read_once_after_many_slots_have_moved(driver: Driver, cluster: Cluster) -> None:
    """Each command that meets a moved slot asks for the whole table: a storm, when thousands do."""
    names = cluster.names(6)
    driver.execute([Put(f"k:{{{name}}}", b"1", LONG_MS) for name in names])
    for name in names:
        cluster.move_slot(slot_of(name), cluster.other(cluster.owner(slot_of(name))))
    asked = count_refreshes(driver)
    replies = driver.execute([Get(f"k:{{{name}}}") for name in names])
    assert all(isinstance(reply, Failed) and reply.again for reply in replies)
    for _ in range(5):
        assert driver.execute([Get(f"k:{{{name}}}") for name in names]) == [b"1"] * 6
    assert len(asked) <= 1


def count_refreshes(driver: Driver) -> list[object]:
    made: Any = inner(driver)
    asked: list[object] = []
    refreshing = made._refreshing

    def counted() -> Any:
        asked.append(None)
        return refreshing()

    made._refreshing = counted
    return asked


def test_a_scan_finds_keys_whose_slot_moves_meanwhile(driver: Driver, cluster: Cluster) -> None:
    """Repair loses a committed snapshot, because its keys were always on the node that was not looked at."""
    first, *_, last = cluster_order(driver)
    (name,) = cluster.names(1, of=cluster.node(last[1]))
    keys = {f"k{number}:{{{name}}}" for number in range(300)}
    driver.execute([Put(key, b"1", LONG_MS) for key in keys])
    (reply,) = driver.execute([Scan("k*", "", 1000)])
    found = set(reply.keys)
    cluster.move_slot(slot_of(name), cluster.node(first[1]))
    while reply.cursor is not None:
        (reply,) = driver.execute([Scan("k*", reply.cursor, 1000)])
        found.update(reply.keys)
    assert found == keys


def test_a_scan_during_a_migration_that_does_not_end(driver: Driver, cluster: Cluster) -> None:
    """The keys of a slot that moves are on two nodes, and one of them was looked at too early."""
    first, *_, last = cluster_order(driver)
    (name,) = cluster.names(1, of=cluster.node(last[1]))
    keys = {f"k{number}:{{{name}}}" for number in range(50)}
    driver.execute([Put(key, b"1", LONG_MS) for key in keys])
    slot, source, target = slot_of(name), cluster.node(last[1]), cluster.node(first[1])
    cluster.open_slot(slot, source, target)
    (reply,) = driver.execute([Scan("k*", "", 1000)])
    found = set(reply.keys)
    cluster.move_keys(slot, source, target, most=25)
    while reply.cursor is not None:
        (reply,) = driver.execute([Scan("k*", reply.cursor, 1000)])
        found.update(reply.keys)
    cluster.move_keys(slot, source, target)
    cluster.close_slot(slot, target)
    assert found == keys
    assert scan_all(driver, "k*", 100)[0] == keys


def cluster_order(driver: Driver) -> list[tuple[str, int]]:
    driver.execute([Time()])
    primaries: list[tuple[str, int]] = inner(driver)._table.primaries
    return primaries


def test_a_cursor_of_a_node_that_is_gone_begins_anew(driver: Driver, cluster: Cluster) -> None:
    """After a failover in the middle of a scan, another server is asked with a cursor that is not its own."""
    keys = {f"k{number}:{{{name}}}" for number in range(40) for name in cluster.names(6)}
    driver.execute([Put(key, b"1", LONG_MS) for key in keys])
    (reply,) = driver.execute([Scan("k*", "", 10)])
    number, state, host, _, _ = reply.cursor.split(" ")
    assert scan_from(driver, f"{number} {state} {host} 1 77") == keys


def scan_from(driver: Driver, cursor: str | None) -> set[str]:
    found: set[str] = set()
    while cursor is not None:
        (reply,) = driver.execute([Scan("k*", cursor, 100)])
        found.update(reply.keys)
        cursor = reply.cursor
    return found


# --- nodes that are gone ---------------------------------------------------------------------------


def test_a_group_whose_reply_is_lost(driver: Driver, cluster: Cluster) -> None:
    """A write that may have been applied is told as refused, and sent again."""
    one, two = (cluster.names(1, of=node)[0] for node in cluster.primaries[:2])
    batch = [Put(f"k:{{{one}}}", b"1", LONG_MS), Put(f"k:{{{two}}}", b"1", LONG_MS)]
    driver.execute(batch)
    cut_off(driver, cluster.primaries[1].port)
    with pytest.raises(ReplyLost, match=str(cluster.primaries[1].port)):
        driver.execute(batch)
    assert driver.execute(batch) == [None, None]
    cut_off(driver, cluster.primaries[1].port)
    replies = driver.execute([batch[0], Get(f"k:{{{two}}}")])
    assert replies[0] is None
    assert isinstance(replies[1], Failed), "it only reads"
    assert replies[1].again
    assert driver.execute([batch[0], Get(f"k:{{{two}}}")]) == [None, b"1"]


def cut_off(driver: Driver, port: int) -> None:
    """Let the next batch to a node be sent, and its replies be lost."""
    made = inner(driver)._nodes["127.0.0.1", port]
    name = "_read" if isinstance(made, RedisDriver) else "_exchange"

    if name == "_read":

        def lost(*_: Any, **__: Any) -> Any:
            made.__dict__.pop(name)
            raise redis.ConnectionError("cut off")

        setattr(made, name, lost)
    else:

        async def alost(*_: Any, **__: Any) -> Any:
            await asyncio.sleep(0)
            made.__dict__.pop(name)
            raise redis.ConnectionError("cut off")

        setattr(made, name, alost)


def test_all_are_sent_before_any_is_read(cluster: Cluster) -> None:
    """A batch for three nodes takes three round trips one after the other."""
    driver = ClusterDriver.from_url(cluster.url)
    names = [cluster.names(1, of=node)[0] for node in cluster.primaries]
    batch = [Get(f"k:{{{name}}}") for name in names]
    driver.execute(batch)
    steps: list[str] = []
    for made in driver._nodes.values():
        watch(made, "send", steps)
        watch(made, "receive", steps)
    driver.execute(batch)
    assert steps == ["send"] * 3 + ["receive"] * 3
    driver.close()


def watch(made: Any, name: str, steps: list[str]) -> None:
    method = getattr(made, name)

    def watched(*args: Any, **options: Any) -> Any:
        steps.append(name)
        return method(*args, **options)

    setattr(made, name, watched)


def test_an_interrupt_between_sending_and_reading(cluster: Cluster) -> None:
    """After Ctrl-C the reply to one batch is taken for that to the next."""
    driver: Any = ClusterDriver.from_url(cluster.url)
    names = [cluster.names(1, of=node)[0] for node in cluster.primaries]
    batch = [Put(f"k:{{{name}}}", name.encode(), LONG_MS) for name in names]
    driver.execute(batch)
    first = driver._nodes["127.0.0.1", cluster.primaries[0].port]
    receive = first.receive

    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt

    for _ in range(3):
        first.receive = interrupted
        with pytest.raises(KeyboardInterrupt):
            driver.execute([Get(f"k:{{{name}}}") for name in reversed(names)])
        first.receive = receive
        assert driver.execute([Get(f"k:{{{name}}}") for name in names]) == [name.encode() for name in names]
    assert all(len(made._pool._made) <= 1 for made in driver._nodes.values())
    driver.close()


def test_a_node_that_left_is_forgotten(driver: Driver, cluster: Cluster) -> None:
    """Connections to nodes that are gone stay open for ever."""
    driver.execute([Time()])
    made = inner(driver)
    gone = ("127.0.0.1", 1)
    made._node(gone)
    made._stale = True
    made._refreshed_at = float("-inf")
    driver.execute([Time()])
    assert gone not in made._nodes


def test_a_cluster_that_restarts_as_a_whole(tmp_path: Path) -> None:
    """A publish fails at once when no node answers, although the cluster is back in a moment."""
    options = ("--appendonly", "yes", "--appendfsync", "always")
    with (
        Cluster(tmp_path, kinds()["valkey"], *options, primaries=1) as small,
        connecting(small.url, 0)() as store,
    ):
        store.publish("mena", 1)
        (node,) = small.primaries
        node.stop()
        timer = threading.Timer(0.7, node.start)
        timer.start()
        try:
            with pytest.raises(Unavailable):
                store.publish("mena", 2, id="two")
            with swapstore.connect(small.url, patience=20) as patient:
                assert patient.publish("mena", 2, id="two").version == 2
        finally:
            timer.join()
        assert len(invariants.check(store)) == 2


def test_a_closed_store(driver: Driver) -> None:
    """A call after close opens connections that nobody closes."""
    driver.execute([Time()])
    driver.close()
    with pytest.raises(StoreClosed):
        driver.execute([Time()])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork(cluster: Cluster) -> None:
    """A child reads the replies to its parent's commands."""
    with swapstore.connect(cluster.url) as store:
        store.publish("mena", "before")
        child = os.fork()
        if not child:
            status = 1
            try:
                store.publish("asia", "child")
                snap = store.read_latest("mena")
                status = 0 if snap is not None and snap.value in {"before", *range(20)} else 2
            finally:
                os._exit(status)
        for number in range(20):
            store.publish("mena", number)
        assert os.waitpid(child, 0)[1] == 0
        assert store.datasets() == ["asia", "mena"]
