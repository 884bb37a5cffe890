"""Which objects pass for a client of Redis."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis
import redis.asyncio

import swapstore
from swapstore import InvalidInput, Timeout
from swapstore.drivers.redis.address import CONNECT_TIMEOUT_S, REPLY_TIMEOUT_S
from swapstore.drivers.redis.aio import AsyncRedisDriver
from swapstore.drivers.redis.cluster import AsyncClusterDriver, ClusterDriver
from swapstore.drivers.redis.driver import RedisDriver


@pytest.mark.parametrize("transaction", [True, False])
@pytest.mark.parametrize(
    ("connect", "client"), [(swapstore.connect, redis.Redis), (swapstore.aio.connect, redis.asyncio.Redis)]
)
def test_a_pipeline_is_not_a_client(connect: Any, client: Any, transaction: bool) -> None:  # noqa: FBT001
    """A pipeline is accepted, and what is sent through it goes past the commands that it has queued."""
    made = client(port=1)
    with pytest.raises(InvalidInput, match="pass the client that it was made from"):
        connect(made.pipeline(transaction=transaction))
    assert "localhost:1" in connect(made).where


@pytest.mark.parametrize("connect", [swapstore.connect, swapstore.aio.connect])
def test_a_client_of_valkey_py_is_told_what_to_pass(connect: Any) -> None:
    """A client of another package fails at its first call, or the error does not say what to do."""
    valkey = pytest.importorskip("valkey", reason="it comes with some versions of fakeredis")
    with pytest.raises(InvalidInput, match="pass its address, valkey://host:6379/0"):
        connect(valkey.Valkey(port=1))


# --- clients of clusters ---------------------------------------------------------------------------


@pytest.fixture(params=["blocking", "asyncio"])
def cluster_place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return a function that makes a client of a cluster, and returns the address that a store reads from it.

    The blocking client asks its nodes while it is made. Here it asks nobody.
    """
    if request.param == "asyncio":
        return lambda **options: AsyncClusterDriver.from_client(redis.asyncio.RedisCluster(**options))._place
    monkeypatch.setattr(redis.cluster.NodesManager, "initialize", lambda *_, **__: None)
    monkeypatch.setattr(redis.cluster, "CommandsParser", lambda *_: None)
    return lambda **options: ClusterDriver.from_client(redis.RedisCluster(**options))._place


def test_a_client_of_a_cluster_lends_its_settings(cluster_place: Callable[..., Any]) -> None:
    """A store does not reach the nodes through the caller's tunnel, or waits longer than the caller does."""

    def remapped(address: tuple[str, int]) -> tuple[str, int]:
        return "tunnel", address[1]

    place = cluster_place(
        host="h", port=7000, username="app", address_remap=remapped, max_connections=7, socket_timeout=3
    )
    assert place.seeds == (("h", 7000),)
    assert place.remap(("h", 1)) == ("tunnel", 1)
    assert (place.size, place.options["socket_timeout"], place.options["username"]) == (7, 3, "app")
    assert "SSL" not in place.kind.__name__


def test_a_client_of_a_cluster_without_time_outs_lends_none(cluster_place: Callable[..., Any]) -> None:
    """A store waits for a node that does not answer until the process ends."""
    place = cluster_place(host="h", port=7000, socket_timeout=None, socket_connect_timeout=None)
    assert place.options["socket_timeout"] == REPLY_TIMEOUT_S
    assert place.options["socket_connect_timeout"] == CONNECT_TIMEOUT_S


@pytest.mark.parametrize("secure", [True, False])
def test_a_client_of_a_cluster_lends_its_encryption(
    cluster_place: Callable[..., Any],
    secure: bool,  # noqa: FBT001
) -> None:
    """A store sends the password unencrypted, or trusts another authority than the caller does."""
    place = cluster_place(host="h", port=7000, ssl=secure, ssl_ca_certs="/ca.pem" if secure else None)
    assert ("SSL" in place.kind.__name__, place.options.get("ssl_ca_certs")) == (
        (True, "/ca.pem") if secure else (False, None)
    )
    assert place.where == f"{'rediss' if secure else 'redis'}+cluster://h:7000"
    place.kind(**place.options)  # no option is one that such a connection does not take


def test_a_client_of_a_cluster_lends_all_nodes_that_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A store cannot connect after the node that the client was made with has left the cluster."""
    monkeypatch.setattr(redis.cluster.NodesManager, "initialize", lambda *_, **__: None)
    monkeypatch.setattr(redis.cluster, "CommandsParser", lambda *_: None)
    client = redis.RedisCluster(host="h", port=7000)
    node: Any = redis.cluster.ClusterNode
    client.nodes_manager.nodes_cache = {"later:7001": node("later", 7001), "h:7000": node("h", 7000)}
    assert ClusterDriver.from_client(client)._place.seeds == (("h", 7000), ("later", 7001))


# --- URLs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("connect", [swapstore.connect, swapstore.aio.connect])
@pytest.mark.parametrize(
    "url",
    [
        "redis://:pa?s3cret@host:6379/0",
        "redis://user:pa#s3cret@host:6379/0",
        "redis://host:6379/0#s3cret",
        "redis://:pa/s3cret@host:6379/0",
    ],
)
def test_a_password_that_is_not_encoded_is_in_no_message(url: str, connect: Any) -> None:
    """A part of the password is taken for an option, and the error shows it."""
    with pytest.raises(InvalidInput, match="percent-encoded") as caught:
        connect(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("connect", [swapstore.connect, swapstore.aio.connect])
@pytest.mark.parametrize(
    "option",
    [
        *("socket_connect_timeout=0", "socket_connect_timeout=-1", "socket_timeout=0", "timeout=0"),
        *("socket_timeout=40000000", "socket_connect_timeout=1e18", "timeout=1e18", "max_connections="),
    ],
)
def test_a_number_that_no_connection_can_use_is_refused_at_once(option: str, connect: Any) -> None:
    """A time-out of 0 looks like an outage, and one of 10^18 s raises what is none of ours."""
    with pytest.raises(InvalidInput, match=option.partition("=")[0]):
        connect(f"redis://localhost:1/0?{option}")


@pytest.mark.parametrize("connect", [swapstore.connect, swapstore.aio.connect])
@pytest.mark.parametrize("name", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
def test_a_file_that_is_not_there_is_named_at_once(name: str, connect: Any) -> None:
    """A mistyped path of a key looks like an outage at the first publish."""
    with pytest.raises(InvalidInput, match=f"{name} that is not there: /no/such/file"):
        connect(f"rediss://localhost:1/0?{name}=/no/such/file")


@pytest.mark.parametrize("kind", [RedisDriver, AsyncRedisDriver])
def test_a_time_out_of_the_store_is_that_of_its_connections(kind: Any) -> None:
    """A store waits for a reply only as long as for a connection."""
    driver = kind.from_url("redis://localhost:1/0", timeout=Timeout(connect=2, reply=7))
    assert driver.reply_s == 7


@pytest.mark.parametrize(("timeout", "wait_s"), [(Timeout(connect=2), 2), (None, 10)])
def test_a_free_connection_is_waited_for_as_long_as_a_new_one(timeout: Timeout | None, wait_s: int) -> None:
    """A store whose connections are all in use waits ten seconds, whatever its time-out is."""
    for kind in (RedisDriver, AsyncRedisDriver):
        driver: Any = kind.from_url("redis://localhost:1/0", timeout=timeout)
        assert driver._pool.timeout == wait_s
    driver = ClusterDriver.from_url("redis+cluster://localhost:1", timeout=timeout)
    assert driver._place.wait_s == wait_s
