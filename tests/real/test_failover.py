"""What becomes of a store whose server is demoted, forgotten by the network, or hangs; on real servers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio

import swapstore
import swapstore.aio
from swapstore import Conflict, Gap, OutcomeUnknown, ReadOnly, Row, Store, Timeout, Unavailable
from tests.support import invariants
from tests.support.deployment import Pair, Switch, kinds, sentinel, until
from tests.support.times import at
from tests.support.valkey import Server

pytestmark = pytest.mark.server

LARGE = "x" * 40_000  # more than the commit stages itself


@pytest.fixture(params=sorted(kinds()))
def binary(request: pytest.FixtureRequest) -> str:
    """The server of each kind."""
    return kinds()[request.param]


@pytest.fixture
def pair(tmp_path: Path, binary: str) -> Iterator[Pair]:
    with Pair(tmp_path, binary) as made:
        yield made


def warm(store: Store, connections: int = 4) -> None:
    """Publish, and leave several idle connections in the store's pool."""
    store.publish("mena", 0, id="first")
    driver: Any = store._driver
    lent = [driver._pool.get_connection() for _ in range(connections)]
    for each in lent:
        each.send_command("PING")  # so that a switch in between knows the connection, too
        each.read_response()
        driver._pool.release(each)


@pytest.mark.parametrize("value", ["small", LARGE], ids=["one command", "several"])
def test_a_publish_survives_a_failover_behind_a_stable_address(pair: Pair, value: str) -> None:
    """After a failover every publish fails, or one is lost or doubled, until the producer is restarted."""
    with swapstore.connect(pair.url) as store:
        warm(store)
        for number in range(1, 4):
            pair.fail_over()
            assert store.publish("mena", [value, number], id=f"run-{number}").version == number + 1
            snap = store.read_latest("mena")
            assert snap is not None
            assert snap.value == [value, number]
            store.publish("other", number)
        with swapstore.connect(pair.primary.url) as fresh:
            assert [row.id for row in invariants.check(fresh)] == ["first", "run-1", "run-2", "run-3"]


def test_several_datasets_survive_a_failover(pair: Pair) -> None:
    """One dataset of a publish_many is published, and its neighbours are refused or published twice."""
    with swapstore.connect(pair.url) as store:
        warm(store)
        store.publish_many({"mena": 1, "asia": LARGE})
        pair.fail_over()
        store.publish_many({"mena": 2, "asia": LARGE + "2", "new": 1}).raise_for_failures()
        with swapstore.connect(pair.primary.url) as fresh:
            assert len(invariants.check(fresh)) == 3
            assert [len(invariants.check(fresh, name)) for name in ("asia", "new")] == [2, 1]
            assert fresh.datasets() == ["asia", "mena", "new"]


def test_reads_move_to_the_new_primary_with_the_first_publish(pair: Pair) -> None:
    """Idle connections to the demoted server go on to serve its readers."""
    with swapstore.connect(pair.url) as store:
        warm(store)
        pair.fail_over()
        store.publish("mena", 1)
        with pair.replica.client() as demoted:
            addresses = {each["addr"] for each in demoted.client_list()}
            until(
                lambda: not (addresses & {each["addr"] for each in demoted.client_list()} - own(demoted)), ""
            )


def own(client: redis.Redis) -> set[str]:
    """The connections that are not the store's: this client's, and those of replication."""
    return {
        each["addr"]
        for each in client.client_list()
        if each["cmd"] in {"client", "client|list"} or each["flags"] != "N"
    }


def test_an_outdated_expected_version_is_not_the_answer_of_a_demoted_server(pair: Pair) -> None:
    """A server that was demoted compares a commit with its own old data, and the caller is told Conflict."""
    with swapstore.connect(pair.url) as store:
        warm(store)
        pair.demote()
        with swapstore.connect(pair.primary.url) as other:
            other.publish("mena", "by another")
            known = other.publish("mena", "by another, again").version
        with pair.replica.client() as demoted:
            demoted.replicaof("127.0.0.1", 1)  # it falls behind
        pair.address.target = pair.primary.port
        with swapstore.connect(pair.primary.url) as fresh:
            fresh.publish("mena", "third")
        with pytest.raises(Conflict) as caught:
            store.publish("mena", "late", expected_version=known)
        assert caught.value.current_version == known + 1


def test_an_address_that_leads_to_a_replica_for_good_is_read_only_soon(pair: Pair) -> None:
    """A producer on a replica waits for a failover that never comes."""
    with swapstore.connect(pair.url, patience=1) as store:
        warm(store)
        pair.demote()
        began = time.monotonic()
        with pytest.raises(ReadOnly, match="dataset 'mena': .*replica; connect to the primary"):
            store.publish("mena", 1)
        assert time.monotonic() - began < 10
        assert store.read_latest("mena") is not None


def test_a_primary_that_finds_its_replicas_again(pair: Pair) -> None:
    """NOREPLICAS of a moment fails a publish, or is told as something unknown."""
    with swapstore.connect(pair.url, patience=1) as store, pair.primary.client() as admin:
        warm(store)
        admin.config_set("min-replicas-to-write", 2)
        with pytest.raises(ReadOnly, match="too few replicas"):  # Redis 6.2 does not refuse scripts
            store.publish("mena", LARGE)
        admin.config_set("min-replicas-to-write", 1)
        assert store.publish("mena", LARGE).version == 2


def test_a_replica_that_lost_its_primary_sends_readers_elsewhere(pair: Pair) -> None:
    """MASTERDOWN on an old connection fails every read, although the address leads to another server."""
    with swapstore.connect(pair.url) as store:
        warm(store)
        pair.fail_over()
        with pair.replica.client() as demoted:
            demoted.config_set("replica-serve-stale-data", "no")
            demoted.replicaof("127.0.0.1", 1)
            until(lambda: demoted.info("replication")["master_link_status"] == "down", "still linked")
        snap = store.read_latest("mena")
        assert snap is not None


def test_asyncio_survives_a_failover(pair: Pair) -> None:
    """The asyncio store, or a caller's client in it, publishes nothing after a failover."""

    async def main(target: Any, name: str) -> None:
        async with swapstore.aio.connect(target) as store:
            await asyncio.gather(*(store.publish(f"{name}-{i}", 0) for i in range(4)))
            pair.fail_over()
            await asyncio.gather(*(store.publish(f"{name}-{i}", [LARGE, i]) for i in range(4)))
            pool: Any = store._driver._pool  # type: ignore[attr-defined]
            assert not pool._in_use_connections
            for i in range(4):
                assert len(await asyncio.to_thread(rows, f"{name}-{i}")) == 2

    def rows(name: str) -> list[Any]:
        with swapstore.connect(pair.primary.url) as fresh:
            return invariants.check(fresh, name)

    async def borrowed() -> None:
        async with redis.asyncio.Redis(host="127.0.0.1", port=pair.address.port) as client:
            await main(client, "borrowed")
            assert await client.ping()

    asyncio.run(main(pair.url, "own"))
    asyncio.run(borrowed())


@pytest.mark.parametrize("kind", [redis.ConnectionPool, redis.BlockingConnectionPool])
def test_a_borrowed_client_survives_a_failover(pair: Pair, kind: Any) -> None:
    """A caller's client keeps its connections to the demoted server, and every publish fails."""
    with (
        redis.Redis(connection_pool=kind(host="127.0.0.1", port=pair.address.port)) as client,
        swapstore.connect(client) as store,
    ):
        warm(store)
        for number in range(1, 3):
            pair.fail_over()
            assert store.publish("mena", number).version == number + 1
        assert client.ping()


@pytest.mark.slow
@pytest.mark.parametrize("faces", ["blocking", "asyncio"])
def test_sentinel_clients_follow_the_primary(tmp_path: Path, faces: str) -> None:
    """A client of sentinels keeps its connections to the demoted server, or a publish ends unknown."""
    binary = kinds()["valkey"]
    with Pair(tmp_path, binary) as pair, sentinel(tmp_path / "s", binary, pair.primary) as watching:
        address = [("127.0.0.1", watching.port)]
        knows = watching.client()
        until(lambda: len(knows.sentinel_slaves("mymaster")) == 1, "the sentinel knows no replica")

        def fail_over() -> None:
            before = knows.sentinel_get_master_addr_by_name("mymaster")
            pair.synchronise()
            demand: Any = knows.execute_command
            until(lambda: demand("SENTINEL", "FAILOVER", "mymaster"), "no good replica")
            until(lambda: knows.sentinel_get_master_addr_by_name("mymaster") != before, "no failover")
            with pair.primary.client() as demoted:
                until(lambda: demoted.info("replication")["role"] == "slave", "not demoted")

        async def main() -> None:
            make: Any = redis.asyncio.Sentinel
            asked = make(address)
            async with asked.master_for("mymaster") as client, swapstore.aio.connect(client) as store:
                await store.publish("mena", 0)
                await asyncio.to_thread(fail_over)
                assert (await store.publish("mena", LARGE)).version == 2
            for each in asked.sentinels:
                await each.aclose()

        if faces == "asyncio":
            asyncio.run(main())
        else:
            make: Any = redis.Sentinel
            with swapstore.connect(make(address).master_for("mymaster")) as store:
                warm(store)
                fail_over()
                assert store.publish("mena", LARGE).version == 2
        knows.close()


def test_a_follower_is_told_of_the_commits_that_a_failover_lost(pair: Pair) -> None:
    """It skips the commits that took the place of others, or processes a commit twice and is not told why."""
    with swapstore.connect(pair.url, patience=30) as store:

        def publish(*numbers: int) -> None:
            for number in numbers:
                store.publish("mena", number, id=f"run-{number}", ts=at(number))

        publish(0, 1, 2)
        pair.synchronise()
        with pair.replica.client() as replica:
            replica.replicaof("127.0.0.1", 1)
            publish(3, 4, 5)
            follower = store.follow("mena", after=0, poll=0.1)
            assert [next(follower).id for _ in range(6)] == [f"run-{i}" for i in range(6)]  # type: ignore[union-attr]
            pair.primary.stop()
            replica.replicaof("NO", "ONE")
        pair.address.target = pair.replica.port
        publish(6)
        gap, row = next(follower), next(follower)
        assert gap == Gap(dataset="mena", after=6, resumes_at=4, reason="reset")
        assert isinstance(row, Row)
        assert (row.id, row.version) == ("run-6", 4)
        publish(4, 1, 3)  # run-1 is there
        assert [next(follower).id for _ in range(2)] == ["run-4", "run-3"]  # type: ignore[union-attr]
        follower.close()


def test_a_replica_without_data_does_not_say_that_nothing_is_published(pair: Pair) -> None:
    """A replica that is not synchronised serves None, and a reader takes its data for deleted."""
    with swapstore.connect(pair.url) as warmed, swapstore.connect(pair.url) as cold:
        warm(warmed)
        with pair.primary.client() as emptied:
            emptied.flushall()
            emptied.replicaof("127.0.0.1", 1)
        for store in (warmed, cold, warmed):
            for ask in (store.read_latest, store.status, lambda _: store.datasets()):  # noqa: B023
                with pytest.raises(Unavailable, match="replica that is not connected"):
                    ask("mena")
        with pytest.raises(Unavailable, match="replica that is not connected"):
            cold.read_latest_many(["mena", "asia"])
        with pair.primary.client() as primary:
            primary.replicaof("NO", "ONE")
        assert cold.read_latest("mena") is None
        assert warmed.status("mena") is None


# --- connections that die silently ----------------------------------------------------------------


def test_a_silent_death_is_paid_once(tmp_path: Path) -> None:
    """With twelve connections that a firewall has forgotten, twelve calls each wait for the time-out."""
    with (
        Server(tmp_path) as server,
        Switch(server.port) as address,
        swapstore.connect(address.url, timeout=Timeout(reply=0.5)) as store,
    ):
        warm(store, 12)
        address.forget()
        began = time.monotonic()
        assert store.publish("mena", 1, id="mine").version == 2
        store.publish_many({f"set-{i}": i for i in range(12)}).raise_for_failures()
        assert time.monotonic() - began < 12 * 0.5, "one lost reply"
        assert [row.id for row in invariants.check(store)] == ["first", "mine"]


def test_a_silent_death_is_paid_once_in_asyncio(tmp_path: Path) -> None:
    """The same for asyncio."""

    async def main(address: Switch) -> None:
        async with swapstore.aio.connect(address.url, timeout=Timeout(reply=0.5)) as store:
            await asyncio.gather(*(store.publish(f"set-{i}", 0) for i in range(12)))
            address.forget()
            began = time.monotonic()
            for i in range(12):
                assert (await store.publish(f"set-{i}", 1)).version == 2
            assert time.monotonic() - began < 12 * 0.5, "one lost reply"

    with Server(tmp_path) as server, Switch(server.port) as address:
        asyncio.run(main(address))


def test_a_call_that_a_silent_death_has_used_up_does_not_spoil_the_next(tmp_path: Path) -> None:
    """With one number for every time-out, each of twelve forgotten connections costs a call."""
    with (
        Server(tmp_path) as server,
        Switch(server.port) as address,
        swapstore.connect(address.url, timeout=0.5) as store,
    ):
        warm(store, 12)
        address.forget()
        with pytest.raises(OutcomeUnknown, match="0.5 s, the time-out of a call"):
            store.publish("mena", 1, id="mine")
        assert store.publish("mena", 1, id="mine").version == 2
        assert [row.id for row in invariants.check(store)] == ["first", "mine"]


@pytest.mark.parametrize("borrowed", [False, True])
def test_the_health_check_of_a_url_or_a_client_is_made(tmp_path: Path, borrowed: bool) -> None:  # noqa: FBT001
    """`health_check_interval` does nothing: a commit is lost on a connection that died long ago."""
    with Server(tmp_path) as server, Switch(server.port) as address:
        url = f"{address.url}?health_check_interval=1&socket_timeout=1"
        client = redis.Redis.from_url(url)
        with swapstore.connect(client if borrowed else url) as store:
            warm(store)
            time.sleep(1.1)
            address.forget()
            lost: list[Any] = []
            driver: Any = store._driver
            read = driver._read

            def watched(*args: Any) -> Any:
                try:
                    return read(*args)
                except BaseException as error:
                    lost.append(error)
                    raise

            driver._read = watched
            assert store.publish("mena", 1).version == 2
            assert not lost, "the PING found out"
        client.close()


def test_keepalive_is_on(valkey: Server) -> None:
    """A connection that died silently is found by the commit, and not by the kernel before."""
    import socket  # noqa: PLC0415

    async def main() -> int:
        async with swapstore.aio.connect(valkey.url) as store:
            await store.publish("mena", 1)
            pool: Any = store._driver._pool  # type: ignore[attr-defined]
            (connection,) = pool._available_connections
            sock = connection._writer.get_extra_info("socket")
            return int(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))

    assert asyncio.run(main())
    with swapstore.connect(valkey.url) as store:
        store.publish("mena", 1)
        driver: Any = store._driver
        connection = driver._pool.get_connection()
        sock = connection._sock
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 30


def test_a_server_that_hangs_costs_several_datasets_a_few_time_outs(tmp_path: Path) -> None:
    """Against a server that hangs, publish_many and read_latest_many wait once for each dataset."""
    names = [f"set-{i}" for i in range(20)]
    with Server(tmp_path) as server, Switch(server.port) as address:
        with swapstore.connect(address.url, timeout=0.25) as store:
            store.publish_many(dict.fromkeys(names, 0)).raise_for_failures()
            address.hang()
            began = time.monotonic()
            with pytest.raises(Unavailable):
                store.read_latest_many(names)
            outcomes = store.publish_many(dict.fromkeys(names, 1))
            took = time.monotonic() - began
        assert all(isinstance(outcome, Unavailable) for outcome in outcomes.values())
        assert took < 20 * 0.25 * 2, took
