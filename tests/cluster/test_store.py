"""A store on a cluster: what users do with it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import swapstore
import swapstore.aio
from swapstore import Mirror, ReplyLost, Unavailable
from swapstore.commands import Peek, ReadCommand, Register, Write
from swapstore.connect import source_of
from swapstore.doctor.check import Verdict
from swapstore.migration.layout import Layout
from tests.follow.followers import Collected, versions
from tests.support import invariants
from tests.support.cluster import Cluster, slot_of, slot_of_key
from tests.support.deployment import until
from tests.support.load import connecting

pytestmark = [pytest.mark.server, pytest.mark.slow]

LARGE = "x" * 40_000  # more than the commit stages itself


def test_publish_and_read_over_several_nodes(cluster: Cluster) -> None:
    """A dataset on one node is published, and its neighbours on the others are not."""
    names = [name for node in cluster.primaries for name in cluster.names(2, of=node)]
    with swapstore.connect(cluster.url) as store:
        for number in range(3):
            store.publish_many({name: [number, name, LARGE] for name in names}).raise_for_failures()
            found = store.read_latest_many(names)
            assert {name: snap.value[:2] for name, snap in found.items() if snap} == {
                name: [number, name] for name in names
            }
        assert store.datasets() == sorted(names)
        assert all(len(invariants.check(store, name)) == 3 for name in names)
        assert not list(store.verify())

    async def main() -> None:
        async with swapstore.aio.connect(cluster.url) as store:
            await asyncio.gather(*(store.publish(name, LARGE + name) for name in names))
            snaps = await store.read_latest_many(names)
            assert [snap and snap.version for snap in snaps.values()] == [4] * len(names)
            assert await store.datasets() == sorted(names)

    asyncio.run(main())


def test_groups_on_several_nodes(cluster: Cluster) -> None:
    """The members of a group are on several nodes, so that no commit can verify them."""
    names = [cluster.names(1, of=node)[0] for node in cluster.primaries]
    members = {"EG": LARGE, "SG": 7, "region/MA": []}
    with swapstore.connect(cluster.url, compression="delta") as store:
        for name in names:
            for number in range(2):
                store.publish_group(name, {**members, "SG": number})
            assert store.read_group(name, members=["SG"]).value == {"SG": 1}  # type: ignore[union-attr]
            assert len(invariants.check(store, name)) == 2
    with swapstore.connect(cluster.url) as reader:
        for name in names:
            assert reader.read_group(name).value == {**members, "SG": 1}  # type: ignore[union-attr]
        assert not list(reader.verify())


def test_scripts_that_the_nodes_have_forgotten(cluster: Cluster) -> None:
    """After a restart of one node, each publish to it fails."""
    names = [cluster.names(1, of=node)[0] for node in cluster.primaries]
    with swapstore.connect(cluster.url) as store:
        store.publish_many(dict.fromkeys(names, 1)).raise_for_failures()
        for node in cluster.primaries[:2]:
            cluster.do(node, "SCRIPT", "FLUSH")
        store.publish_many(dict.fromkeys(names, 2)).raise_for_failures()
        assert all(len(invariants.check(store, name)) == 2 for name in names)


def test_a_commit_whose_neighbour_got_no_answer(cluster: Cluster) -> None:
    """A dataset is published and not on the list, because the node of the list died at that moment."""
    names = cluster.owner(slot_of_key("swapstore:datasets"))
    (name,) = cluster.names(1, of=cluster.other(names))
    with swapstore.connect(cluster.url) as store:
        store.publish_many(dict.fromkeys(cluster.names(9, namespace="warm"), 1))
        driver: Any = store._driver
        for port in (names.port, cluster.owner(slot_of(name)).port):
            node = driver._nodes["127.0.0.1", port]
            lose_a_write(node)
        assert store.publish(name, 1).version == 1
        assert name in store.datasets()


def lose_a_write(node: Any) -> None:
    """Lose the replies to the next batch that writes, and a write of another dataset's name with it."""
    send = node.send

    def losing(units: Any, **options: Any) -> Any:
        if all(isinstance(unit, ReadCommand) for unit in units):
            return send(units, **options)
        node.send = send
        if isinstance(units[0], Register):
            raise ReplyLost("cut off")
        node.receive(send(units, **options))
        raise ReplyLost("cut off")

    node.send = losing


def test_verify_and_repair(cluster: Cluster) -> None:
    """A lost manifest is rebuilt without the snapshots that are found on another node only."""
    names = [cluster.names(1, of=node)[0] for node in cluster.primaries]
    with swapstore.connect(cluster.url) as store:
        for name in names:
            for number in range(3):
                store.publish(name, number, id=f"{name}-{number}")
        for name in names:
            with cluster.owner(slot_of(name)).client() as client:
                client.delete(f"swapstore:manifest:{{{name}}}")
        with cluster.owner(slot_of_key("swapstore:datasets")).client() as client:
            client.delete("swapstore:datasets")
    with swapstore.connect(cluster.url) as store:
        assert list(store.verify())
        for name in names:
            store.repair(name, apply=True)
        assert not list(store.verify())
        for name in names:
            assert [row.id for row in store.history(name)][::-1] == [f"{name}-{n}" for n in range(3)]
        assert store.datasets() == sorted(names)


def test_doctor(cluster: Cluster) -> None:
    """One node of three evicts what is committed, and doctor has looked at another one."""
    odd = cluster.primaries[1]
    with swapstore.connect(cluster.url) as store:
        store.publish("mena", 1)
        checks = {check.name: check for check in store.doctor()}
        assert checks["cluster"].verdict is Verdict.OK
        assert "3 primaries" in checks["cluster"].found
        assert checks["eviction"].verdict is Verdict.OK
        cluster.do(odd, "CONFIG SET", "maxmemory-policy", "allkeys-lru")
        try:
            check = {check.name: check for check in store.doctor()}["eviction"]
        finally:
            cluster.do(odd, "CONFIG SET", "maxmemory-policy", "noeviction")
        assert check.verdict is Verdict.PROBLEM
        assert str(odd.port) in check.found
        assert str(cluster.primaries[0].port) not in check.found


def test_a_mirror_whose_keys_are_on_another_node(cluster: Cluster) -> None:
    """The old keys are refused (CROSSSLOT), or an old value wins over a newer one."""
    names = [cluster.names(1, of=node)[0] for node in cluster.primaries]
    mirror = Mirror(prefix="intel")
    with swapstore.connect(cluster.url, mirror=mirror) as store:
        batches: list[list[Any]] = []
        driver: Any = store._driver
        execute = driver.execute

        def watched(commands: Any) -> Any:
            batches.append(list(commands))
            return execute(commands)

        driver.execute = watched
        for name in names:
            commit = store.publish(name, {"of": name})
            with cluster.owner(slot_of_key(mirror.latest(name))).client() as client:
                assert client.get(mirror.latest(name)) == commit.id.encode()
            with cluster.owner(slot_of_key(mirror.by_id(commit.id))).client() as client:
                assert client.get(mirror.by_id(commit.id))
        for batch in batches:
            kinds = {type(command) for command in batch}
            assert not {Write, Peek} <= kinds, "sent at once, they would be carried out in any order"


def test_an_import_from_a_cluster(cluster: Cluster) -> None:
    """The old layout's keys are on all nodes, and an import finds those of one."""
    layout = Layout()
    payloads = {f"id-{number}": b'{"n":%d}' % number for number in range(12)}
    for number, (name, payload) in enumerate(payloads.items()):
        at = 1_700_000_000_000 + number
        for key, value in ((layout.by_id(name), payload), (layout.by_ts("mena", str(at)), payload)):
            with cluster.owner(slot_of_key(key)).client() as client:
                client.set(key, value)
        with cluster.owner(slot_of_key(layout.index("mena"))).client() as client:
            client.zadd(layout.index("mena"), {name: at})
    with source_of(cluster.url, layout) as source:
        catalog = source.catalog()
        assert catalog.ids == set(payloads)
        assert len(catalog.times["mena"]) == len(payloads)
        assert set(source.members("mena")) == set(payloads)
        assert source.payload(layout.by_id("id-3")) == payloads["id-3"]


# --- following -------------------------------------------------------------------------------------


def test_a_hint_wakes_a_follower_whatever_node_it_listens_on(cluster: Cluster) -> None:
    """Hints are lost between the nodes, so every commit waits for the next poll."""
    with swapstore.connect(cluster.url) as store, swapstore.connect(cluster.url) as other:
        for name in [cluster.names(1, of=node)[0] for node in cluster.primaries]:
            store.publish(name, 0)
            collected = Collected(other.follow(name, after=0, poll=60))
            collected.until(1)
            until(lambda name=name: listens(cluster, name), "nobody listens")
            store.publish(name, 1)
            collected.until(2)
            slot = slot_of(name)
            cluster.move_slot(slot, cluster.other(cluster.owner(slot)))
            store.publish(name, 2)
            collected.until(3)
            assert versions(collected.found) == [1, 2, 3]


def listens(cluster: Cluster, name: str) -> bool:
    channel = f"swapstore:manifest:{{{name}}}"
    return any(cluster.do(node, "PUBSUB NUMSUB", channel)[1] for node in cluster.nodes)


def test_a_listener_goes_to_another_node(cluster: Cluster) -> None:
    """A follower whose node has died polls from then on."""
    with swapstore.connect(cluster.url) as store:
        store.publish("mena", 0)
        driver: Any = store._driver
        owner = cluster.owner(slot_of("mena"))
        told = driver._subscribers(["swapstore:manifest:{mena}"])
        first, *others = [told() for _ in cluster.nodes]
        assert first == ("127.0.0.1", owner.port), "it publishes the hints"
        assert {port for _, port in [first, *others]} == {node.port for node in cluster.nodes}


# --- migrations that do not end --------------------------------------------------------------------


def test_a_migration_that_is_stuck(cluster: Cluster) -> None:
    """A publish hangs, or the error does not say which slot is moving, and from where to where."""
    slot = slot_of("mena")
    source = cluster.owner(slot)
    target = cluster.other(source)
    with connecting(cluster.url, 2.5)() as store:
        for number in range(3):
            store.publish("mena", number)
        cluster.open_slot(slot, source, target)
        try:
            cluster.move_keys(slot, source, target, most=2)
            with pytest.raises(Unavailable, match="stuck") as caught:
                store.publish("mena", "never")
            assert f"slot {slot}" in str(caught.value)
            assert f"from 127.0.0.1:{source.port} to 127.0.0.1:{target.port}" in str(caught.value)
            assert caught.value.published is False
            snap = store.read_latest("mena")
            assert snap is not None
            assert snap.value == 2
        finally:
            cluster.move_keys(slot, source, target)
            cluster.close_slot(slot, target)
        assert store.publish("mena", "at last").version == 4
        assert len(invariants.check(store)) == 4


def test_verify_reads_many_records_at_once(cluster: Cluster) -> None:
    """Commands about many keys are asked of nodes that have none of them, so that each key is asked for."""
    names = [cluster.names(1, of=node)[0] for node in cluster.primaries]
    with swapstore.connect(cluster.url) as store:
        for number in range(12):
            store.publish_many(dict.fromkeys(names, number)).raise_for_failures()
        with cluster.owner(slot_of(names[0])).client() as client:
            client.expire(f"swapstore:id:{{{names[0]}}}:{store.read_latest(names[0]).id}", 1000)  # type: ignore[union-attr]
        assert [each.problem.value for each in store.verify()] == ["record-expiring"]
        assert store._context.capabilities.reads_many


def test_verify_while_a_slot_moves(cluster: Cluster) -> None:
    """The records of a row are on two nodes, and verify fails or calls some of them missing."""
    slot = slot_of("mena")
    source = cluster.owner(slot)
    target = cluster.other(source)
    with swapstore.connect(cluster.url, patience=0.2) as store:
        for number in range(40):
            store.publish("mena", number)
        assert not list(store.verify("mena"))
        assert store._context.capabilities.reads_many
        cluster.open_slot(slot, source, target)
        try:
            cluster.move_keys(slot, source, target, most=30)
            assert not list(store.verify("mena"))
        finally:
            cluster.move_keys(slot, source, target)
            cluster.close_slot(slot, target)
        assert not list(store.verify("mena"))


def test_a_migration_that_was_cancelled(cluster: Cluster) -> None:
    """What was written to the other node is looked for where it is not."""
    slot = slot_of("mena")
    source = cluster.owner(slot)
    target = cluster.other(source)
    with connecting(cluster.url)() as store:
        store.publish("mena", 0)
        cluster.open_slot(slot, source, target)
        snap = store.read_latest("mena")
        assert snap is not None
        for node in (target, source):
            cluster.do(node, "CLUSTER", "SETSLOT", slot, "STABLE")
        assert store.publish("mena", 1).version == 2
        assert len(invariants.check(store)) == 2
