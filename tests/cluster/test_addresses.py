"""Addresses and clients of clusters: what is accepted, and what is refused before anything is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

import swapstore
import swapstore.aio
from swapstore import InvalidInput, Timeout, Unavailable, Unsupported
from swapstore.drivers.redis.cluster import AsyncClusterDriver, ClusterDriver
from swapstore.errors import AccessDenied, Misconfigured, SwapstoreError
from tests.real.test_wrong_addresses import all_are
from tests.support.cluster import Cluster, slot_of_key
from tests.support.deployment import cluster_node, kinds
from tests.support.valkey import Server, free_port

CONNECTS = [swapstore.connect, swapstore.aio.connect]


def failures(target: str, patience_s: float = 0.2, dataset: str = "mena") -> list[SwapstoreError]:
    """What publishing there raises, blocking and in asyncio."""
    with (
        swapstore.connect(target, patience=patience_s) as store,
        pytest.raises(SwapstoreError) as blocking,
    ):
        store.publish(dataset, 1)

    async def main() -> None:
        async with swapstore.aio.connect(target, patience=patience_s) as store:
            await store.publish(dataset, 1)

    with pytest.raises(SwapstoreError) as caught:
        asyncio.run(main())
    return [blocking.value, caught.value]


# --- URLs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connect", CONNECTS)
@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis+cluster://h1:7000/3", "database 0 only, not 3.*namespace"),
        ("redis+cluster://h1:7000?db=3", "database 0 only, not 3.*namespace"),
        ("redis+cluster://", "at least one of its nodes"),
        ("redis+cluster:///0", "at least one of its nodes"),
        ("redis+cluster://user:secret@/0", "at least one of its nodes"),
        ("redis+cluster://h1:7000,redis+cluster://h2:7000", "one scheme for all"),
        ("redis+cluster://h1:7000,rediss+cluster://h2:7000", "one scheme for all"),
        ("redis+cluster://h1:7000,redis://h2:7000", "one scheme for all"),
        ("redis+cluster://u:secret@h1:7000,u:secret@h2:7000", "one user and password"),
        ("redis+cluster://h1:port", "malformed"),
        ("redis+cluster://h1:99999", "malformed"),
        ("redis+cluster://h1:0", "malformed"),
        ("redis+cluster://u:sec/ret@h1:7000", "malformed"),
        ("redis+cluster://h1:7000?max_connection=3", "option that a URL cannot set"),
        ("redis+cluster://h1:7000?socket_timeout=-1", "socket_timeout"),
        ("redis+clusters://h1:7000", r"redis\+cluster://"),
    ],
)
def test_a_url_that_cannot_be_used(url: str, words: str, connect: Callable[..., Any]) -> None:
    """A mistake in an address is an outage at the first publish, or its password is in a log."""
    with pytest.raises(InvalidInput, match=words) as caught:
        connect(url)
    assert "sec" not in str(caught.value).replace("second", "")


@pytest.mark.parametrize("kind", [ClusterDriver, AsyncClusterDriver])
def test_what_a_url_says(kind: type[Any]) -> None:
    """A node is asked at another port, or without the password."""
    driver = kind.from_url(
        "valkeys+cluster://user:p%40ss@one.example:7000,[::1]:7001,two.example,one.example:7000/0"
        "?max_connections=3&socket_timeout=7&ssl_check_hostname=no",
        timeout=Timeout(connect=2),
    )
    place = driver._place
    assert place.seeds == (("one.example", 7000), ("::1", 7001), ("two.example", 6379))
    assert driver.where == "valkeys+cluster://one.example:7000,[::1]:7001,two.example:6379"
    assert (place.options["username"], place.options["password"]) == ("user", "p@ss")
    assert (place.size, place.options["socket_timeout"], place.options["socket_connect_timeout"]) == (3, 7, 2)
    assert "SSL" in place.kind.__name__
    assert "p@ss" not in repr(place)


# --- clients ---------------------------------------------------------------------------------------


@pytest.mark.server
@pytest.mark.slow
def test_a_client_lends_its_settings(cluster: Cluster) -> None:
    """A caller's client is refused, closed, or its credentials are not used."""
    cluster_user(cluster, *cluster.nodes)
    try:
        node = cluster.primaries[0]
        options: dict[str, Any] = {
            "host": "127.0.0.1",
            "port": node.port,
            "username": "app",
            "password": "pw",
        }
        with redis.RedisCluster(**options, decode_responses=True, retry=Retry(NoBackoff(), 3)) as client:
            with swapstore.connect(client) as store:
                store.publish("mena", "ü")
                assert store._driver._place.options["password"] == options["password"]  # type: ignore[attr-defined]
                assert "pw" not in store._driver.where
            assert client.get("nothing") is None, "it is not closed"

        async def main() -> None:
            client = redis.asyncio.RedisCluster(**options, decode_responses=True)
            async with client, swapstore.aio.connect(client) as store:
                snap = await store.read_latest("mena")
                assert snap is not None
                assert snap.value == "ü"
                await store.publish("mena", 2)

        asyncio.run(main())
    finally:
        for each in cluster.nodes:
            cluster.do(each, "ACL", "DELUSER", "app")


def cluster_user(cluster: Cluster, *nodes: Server) -> None:
    for node in nodes:
        cluster.do(node, "ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all")


@pytest.mark.server
@pytest.mark.slow
def test_clients_that_cannot_be_used(cluster: Cluster) -> None:
    """A pipeline, a cache or a client of the other kind fails at the first call with what says nothing."""
    port = cluster.primaries[0].port
    with redis.RedisCluster(host="127.0.0.1", port=port) as client:
        with pytest.raises(InvalidInput, match="a pipeline is not a client"):
            swapstore.connect(client.pipeline())
        with pytest.raises(InvalidInput, match="RedisCluster of the same kind"):
            swapstore.aio.connect(client)
        client.nodes_manager._cache = object()
        with pytest.raises(InvalidInput, match="client-side cache"):
            swapstore.connect(client)
        client.nodes_manager._cache = None

    async def main() -> None:
        async with redis.asyncio.RedisCluster(host="127.0.0.1", port=port) as client:
            with pytest.raises(InvalidInput, match="RedisCluster of the same kind"):
                swapstore.connect(client)
            with pytest.raises(InvalidInput, match=r"ClusterPipeline|a pipeline"):
                swapstore.aio.connect(client.pipeline())

    asyncio.run(main())


# --- servers ---------------------------------------------------------------------------------------


@pytest.mark.server
def test_a_server_that_is_no_cluster(valkey: Server) -> None:
    """The error of a wrong scheme does not say which one is right."""
    found = failures(f"redis+cluster://127.0.0.1:{valkey.port}")
    all_are(found, Unsupported, f"write redis://127.0.0.1:{valkey.port}", "othing was published")


@pytest.mark.server
@pytest.mark.slow
def test_one_node_by_its_own_address(cluster: Cluster) -> None:
    """`redis://` to a node says to use another server, not how to use this one."""
    node = cluster.primaries[0]
    (name,) = cluster.names(1, of=cluster.primaries[1])
    all_are(failures(node.url, dataset=name), Unsupported, "write redis+cluster://", "othing was published")
    assert not any(cluster.do(each, "DBSIZE") for each in cluster.primaries)


@pytest.mark.server
@pytest.mark.slow
def test_a_list_that_moves_away_from_the_one_node(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    """Datasets are published to one node for months, and none of them is on the list."""
    slot = slot_of_key("swapstore:datasets")
    node = cluster.owner(slot)
    first, second, third = cluster.names(3, of=node)
    with swapstore.connect(node.url) as store:
        store.publish(first, 1)
        store.publish(second, 1)
        cluster.move_slot(slot, cluster.other(node))
        assert store.publish(first, 2).version == 2, "it is on the list"
        store.publish(third, 1)
        assert "redis+cluster://" in caplog.text
        with pytest.raises(Unsupported, match=r"redis\+cluster://.*othing was published"):
            store.publish(third, 2)
    with swapstore.connect(cluster.url) as store:
        assert store.publish(third, 2).version == 2
        assert store.datasets() == sorted([first, second, third])


@pytest.mark.server
def test_nobody_is_there() -> None:
    """The error names one of the nodes, or none."""
    ports = [free_port(), free_port()]
    found = failures(f"redis+cluster://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}")
    all_are(found, Unavailable, *(f"127.0.0.1:{port}" for port in ports), "othing was published")


@pytest.mark.server
@pytest.mark.slow
def test_slots_that_nobody_serves(tmp_path: Path) -> None:
    """The error of a cluster with a hole does not say which slots are missing."""
    node = cluster_node(tmp_path, kinds()["valkey"])
    try:
        url = f"redis+cluster://127.0.0.1:{node.port}"
        all_are(
            failures(url, dataset="asia"), Unavailable, "8,192 of 16,384 slots", "8192-16383", "othing was"
        )
        with node.client() as admin:
            assert admin.dbsize() == 0
            admin.config_set("cluster-require-full-coverage", "yes")
            admin.execute_command("CLUSTER DELSLOTS", 0)
            found = failures(url, dataset="asia")
            all_are(found, Unavailable, "8,193 of 16,384 slots", "0, 8192-16383", "othing was")
            admin.execute_command("CLUSTER RESET HARD")
            all_are(failures(url), Unavailable, "knows no slot that is served", "othing was published")
    finally:
        node.stop()


@pytest.mark.server
@pytest.mark.slow
def test_a_password_that_one_node_refuses(cluster: Cluster) -> None:
    """A node with another password looks like an outage, or the error does not say which node it is."""
    *known, odd = cluster.primaries
    cluster_user(cluster, *known)
    try:
        url = cluster.url.replace("://", "://app:pw@")
        (name,) = cluster.names(1, of=odd)
        found = failures(url, dataset=name)
        all_are(found, AccessDenied, f"127.0.0.1:{odd.port}", "othing was published")
        all_are(failures(url.replace("app:pw", "app:wrong")), AccessDenied, "refused the credentials")
        assert not any("wrong" in str(error) for error in found)
    finally:
        for each in known:
            cluster.do(each, "ACL", "DELUSER", "app")


@pytest.mark.server
@pytest.mark.slow
def test_a_user_who_may_not_ask_for_the_slots(cluster: Cluster) -> None:
    """The error of a missing right does not name the command."""
    for node in cluster.nodes:
        cluster.do(node, "ACL", "SETUSER", "app", "on", ">pw", "~*", "&*", "+@all", "-cluster|slots")
    try:
        found = failures(cluster.url.replace("://", "://app:pw@"))
        all_are(found, Misconfigured, "cluster|slots", "othing was published")
    finally:
        for node in cluster.nodes:
            cluster.do(node, "ACL", "DELUSER", "app")
