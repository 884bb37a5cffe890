"""What `Durability` waits for on real servers: a primary and two replicas, stopped, demoted and denied."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import fakeredis
import pytest

import swapstore
import swapstore.aio
from swapstore import Commit, Durability, SwapstoreError, Unavailable, UnderReplicated, Unsupported
from tests.support import invariants
from tests.support.deployment import Switch, compares, kinds, until
from tests.support.valkey import Server

pytestmark = [pytest.mark.server, pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="POSIX signals")]

ALL = Durability(replicas=2, timeout=8)
BRIEF = Durability(replicas=2, timeout=0.2)


class Group:
    """A primary, two replicas, and a stable address that leads to the primary."""

    def __init__(self, directory: Path, binary: str) -> None:
        self.servers = [Server(directory / name, binary=binary) for name in ("one", "two", "three")]
        self.primary = self.servers[0]
        self.address = Switch(self.primary.port)

    @property
    def url(self) -> str:
        return self.address.url

    @property
    def replicas(self) -> list[Server]:
        return [server for server in self.servers if server is not self.primary]

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for server in self.servers:
                stack.enter_context(server)
            stack.enter_context(self.address)
            for server in self.servers:
                with server.client() as client:
                    client.config_set("repl-ping-replica-period", 1)
            self.heal()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            self.resume(server)
        self._stack.close()

    def heal(self) -> None:
        """Let every server run, with the replicas up to date."""
        for server in self.servers:
            self.resume(server)
        for server in self.replicas:
            with server.client() as client:
                client.replicaof("127.0.0.1", self.primary.port)
        with self.primary.client() as client:
            until(lambda: client.set("swapstore-tests:sync", "") and client.wait(2, 1000) == 2, "behind")
            client.delete("swapstore-tests:sync")

    def empty(self) -> None:
        """Delete everything, and set what tests change to what it was."""
        self.heal()
        with self.primary.client() as client:
            client.flushall()
        for server in self.servers:
            with server.client() as client:
                client.config_set("appendonly", "no")

    def promote(self, server: Server) -> None:
        """Make a replica the primary, at once, and everything else its replica."""
        with server.client() as client:
            client.replicaof("NO", "ONE")
        self.primary = server
        for other in self.replicas:
            with other.client() as client:
                client.replicaof("127.0.0.1", server.port)
        self.address.target = server.port

    def stop(self, server: Server) -> None:
        """Stop a server as it is, with its connections open."""
        os.kill(_pid(server), signal.SIGSTOP)

    def resume(self, server: Server) -> None:
        os.kill(_pid(server), signal.SIGCONT)

    @property
    def version(self) -> str:
        """The version of Redis that the servers are, or claim to be compatible with."""
        with self.primary.client() as client:
            found: Any = client.info("server")
        return str(found["redis_version"])

    def calls(self, command: str) -> int:
        """How often the primary has carried out a command."""
        with self.primary.client() as client:
            found: Any = client.info("commandstats")
        return int(found.get(f"cmdstat_{command}", {"calls": 0})["calls"])


def _pid(server: Server) -> int:
    assert server._process is not None
    return server._process.pid


@pytest.fixture(scope="module", params=sorted(kinds()))
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    with Group(tmp_path_factory.mktemp(request.param), kinds()[request.param]) as group:
        yield group


@pytest.fixture
def group(started: Group) -> Group:
    """Three servers that run and replicate, without data."""
    started.empty()
    return started


# --- replicas --------------------------------------------------------------------------------------


def test_all_replicas_have_it_in_the_same_round_trip(group: Group) -> None:
    """A wait for replicas costs a round trip, or is not one."""
    told: list[Any] = []
    with swapstore.connect(group.url, durability=ALL, on_event=told.append) as store:
        assert store.publish("mena", 0).replicas == 2
        waits = group.calls("wait")
        assert store.publish("mena", "x" * 40_000).replicas == 2  # more than the script stages itself
        assert store.publish("mena", 2).replicas == 2
        assert [event.round_trips for event in told] == [2, 1, 1]
        assert group.calls("wait") - waits == 2
        for server in group.replicas:
            with server.client() as client:
                assert client.get("swapstore:manifest:{mena}") is not None
        outcomes = store.publish_many({f"set-{i}": i for i in range(8)})
        outcomes.raise_for_failures()
        assert {outcome.replicas for outcome in outcomes.values() if isinstance(outcome, Commit)} == {2}
        assert group.calls("wait") - waits == 3, "one wait for all eight"


def test_a_stopped_replica_and_the_same_id_again(group: Group) -> None:
    """A commit on too few replicas is acknowledged: at once, or when its id is published again."""
    with swapstore.connect(group.url) as store, swapstore.connect(group.url) as reader:
        store.publish("mena", 0, durability=ALL)
        group.stop(group.replicas[0])
        with pytest.raises(UnderReplicated, match="1 of 2 replicas had it within 0.2 s") as caught:
            store.publish("mena", 1, id="mine", durability=BRIEF)
        assert (caught.value.published, caught.value.replicas) == (True, 1)
        driver: Any = store._driver
        assert not driver._pool._idle, "an old primary may be at the other end"
        assert reader.read_latest("mena").value == 1  # type: ignore[union-attr]
        for client in (store, reader):  # on new connections, that have written nothing
            with pytest.raises(UnderReplicated):
                client.publish("mena", 1, id="mine", durability=BRIEF)
        group.resume(group.replicas[0])
        again = reader.publish("mena", 1, id="mine", durability=ALL)
        assert (again.created, again.version, again.replicas) == (False, 2, 2)
        assert [row.version for row in invariants.check(store)] == [1, 2]
        assert not [finding for finding in store.verify() if finding.wrong]


def test_too_few_in_asyncio(group: Group) -> None:
    """The same in asyncio."""

    async def main() -> None:
        async with swapstore.aio.connect(group.url, durability=BRIEF) as store:
            assert (await store.publish("mena", 0, durability=ALL)).replicas == 2
            group.stop(group.replicas[0])
            for _ in range(2):
                with pytest.raises(UnderReplicated):
                    await store.publish("mena", 1, id="mine")
            driver: Any = store._driver
            assert not any(each.is_connected for each in driver._pool._available_connections)
            group.resume(group.replicas[0])
            again = await store.publish("mena", 1, id="mine", durability=ALL)
            assert (again.created, again.version, again.replicas) == (False, 2, 2)

    asyncio.run(main())


def test_a_server_that_has_forgotten_the_script_waits_for_the_commit(group: Group) -> None:
    """The wait is carried out before the commit is, whose script had to be sent again."""
    with swapstore.connect(group.url) as store:
        store.publish("mena", 0, durability=ALL)
        group.stop(group.replicas[0])
        with group.primary.client() as client:
            client.script_flush()
        with pytest.raises(UnderReplicated):
            store.publish("mena", 1, durability=BRIEF)
        with group.primary.client() as client:
            client.script_flush()
        outcomes = store.publish_many({"asia": 1, "mena": 2}, durability=BRIEF)
        assert all(isinstance(outcome, UnderReplicated) for outcome in outcomes.values())


# --- disks -----------------------------------------------------------------------------------------


def test_fsync(group: Group) -> None:
    """A commit that is on no disk is acknowledged as if it were."""
    with group.primary.client() as client:
        client.config_set("appendonly", "yes")
        until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], "the file is written")
    if group.version < "7.2":
        with pytest.raises(Unsupported, match="needs WAITAOF, of Redis 7.2 or Valkey"):
            swapstore.connect(group.url, durability=Durability(replicas=0, fsync=True))
        return
    alone = Durability(replicas=0, fsync=True, timeout=8)
    with swapstore.connect(group.url, durability=alone) as store:
        assert store.publish("mena", 0).replicas == 0
        with pytest.raises(UnderReplicated, match="0 of 1 replicas had it on disk .* appendonly"):
            store.publish("mena", 1, id="mine", durability=Durability(fsync=True, timeout=0.3))
        with group.replicas[0].client() as client:
            client.config_set("appendonly", "yes")
        again = store.publish("mena", 1, id="mine", durability=Durability(fsync=True, timeout=8))
        assert (again.created, again.replicas) == (False, 1)


def test_fsync_without_an_append_only_file(group: Group) -> None:
    """A commit is published, and then it turns out that the server keeps no file."""
    asked = Durability(replicas=0, fsync=True)
    with pytest.raises(Unsupported, match="nothing was written"):
        swapstore.connect(group.url, durability=asked)
    with swapstore.connect(group.url) as store:
        with pytest.raises(Unsupported, match="nothing was written"):
            store.publish("mena", 1, durability=asked)
        assert store.read_latest("mena") is None


# --- what cannot be --------------------------------------------------------------------------------


def test_a_user_who_may_not_wait(group: Group) -> None:
    """A provider blocks WAIT, and the first publish is published although it cannot be waited for."""
    with group.primary.client() as client:
        client.acl_setuser(
            "nowait", enabled=True, passwords=["+pw"], keys=["*"], channels=["*"], commands=["+@all", "-wait"]
        )
    url = group.url.replace("redis://", "redis://nowait:pw@")
    with pytest.raises(Unsupported, match=r"needs WAIT, so nothing was written. Allow it .*\+wait"):
        swapstore.connect(url, durability=Durability())
    with swapstore.connect(url) as store:
        for _ in range(2):
            with pytest.raises(Unsupported, match="needs WAIT") as caught:
                store.publish("mena", 1, durability=Durability())
            assert caught.value.published is False
        assert store.read_latest("mena") is None
        assert store.publish("mena", 1).replicas is None


def test_a_server_that_is_down_at_connect_is_asked_by_the_first_publish(group: Group) -> None:
    """A producer that starts before its server cannot be made at all, or never asks."""
    with Switch(1) as nowhere, swapstore.connect(nowhere.url, durability=ALL) as store:
        with pytest.raises(Unavailable):
            store.publish("mena", 1)
        nowhere.target = group.primary.port
        assert store.publish("mena", 1).replicas == 2


def test_a_server_without_the_command() -> None:
    """fakeredis, in the tests of a producer, has no WAIT: it says so instead of acknowledging."""
    client = fakeredis.FakeRedis(server=fakeredis.FakeServer())
    with pytest.raises(Unsupported, match="needs WAIT"):
        swapstore.connect(client, durability=Durability())


def test_where_no_script_runs(group: Group) -> None:
    """A commit by plain commands is acknowledged without a wait."""
    with group.primary.client() as client:
        denied = ["+@all", "-eval", "-evalsha"]
        client.acl_setuser(
            "plain", enabled=True, passwords=["+pw"], keys=["*"], channels=["*"], commands=denied
        )
    url = group.url.replace("redis://", "redis://plain:pw@")
    with swapstore.connect(url) as store:
        if not compares(group.primary):  # without scripts, nothing commits there
            lacks = "PEXPIRE" if group.version < "7" else "compare-and-set"
            with pytest.raises(Unsupported, match=lacks):
                store.publish("mena", 0, durability=ALL)
            return
        assert store.publish("mena", 0, durability=ALL).replicas == 2
        group.stop(group.replicas[0])
        with pytest.raises(UnderReplicated):
            store.publish("mena", 1, id="mine", durability=BRIEF)
        assert store.read_latest("mena").value == 1  # type: ignore[union-attr]
        group.resume(group.replicas[0])
        again = store.publish("mena", 1, id="mine", durability=ALL)
        assert (again.created, again.version, again.replicas) == (False, 2, 2)


# --- failover --------------------------------------------------------------------------------------


def test_a_demotion_during_the_wait(group: Group) -> None:
    """The wait ends with the demotion, and its commit is acknowledged, or said to be unpublished."""
    found: list[Any] = []
    with swapstore.connect(group.url) as store:
        store.publish("mena", 0, durability=ALL)
        first, second = group.replicas
        group.stop(second)

        def publish() -> None:
            try:
                found.append(store.publish("mena", 1, id="mine", durability=ALL))
            except SwapstoreError as error:
                found.append(error)

        waits = _blocked(group)
        producer = threading.Thread(target=publish)
        producer.start()
        until(lambda: _blocked(group) > waits, "it waits")
        with first.client() as client:  # `second` is stopped, so not by `promote`
            client.replicaof("NO", "ONE")
        group.address.target = first.port
        with group.primary.client() as client:
            client.replicaof("127.0.0.1", first.port)
        group.primary = first
        group.resume(second)
        with second.client() as client:
            client.replicaof("127.0.0.1", first.port)
        producer.join(30)
        (outcome,) = found
        assert isinstance(outcome, Commit), outcome
        assert (outcome.version, outcome.replicas) == (2, 2)
        assert [row.id for row in invariants.check(store)][-1] == "mine"


def _blocked(group: Group) -> int:
    with group.primary.client() as client:
        return int(client.info("clients")["blocked_clients"])


@pytest.mark.slow
def test_failovers_under_load_lose_nothing_that_was_acknowledged(group: Group) -> None:
    """A planned failover loses thousands of commits that were acknowledged."""
    acknowledged: list[str] = []
    over = threading.Event()

    def produce() -> None:
        with swapstore.connect(group.url, durability=ALL) as store:
            number = 0
            while not over.is_set():
                with contextlib.suppress(Unavailable, UnderReplicated):
                    store.publish("mena", number, id=f"n-{number}")
                    acknowledged.append(f"n-{number}")
                    number += 1

    producer = threading.Thread(target=produce)
    producer.start()
    try:
        for number in range(4):
            count = len(acknowledged)
            until(lambda: len(acknowledged) > count + 20, "the producer goes on")  # noqa: B023
            group.promote(group.replicas[number % 2])  # at once: nothing waits for the replica
    finally:
        count = len(acknowledged)
        with contextlib.suppress(RuntimeError):
            until(lambda: len(acknowledged) > count + 20, "the producer goes on")
        over.set()
        producer.join(60)
    with swapstore.connect(group.url) as store:
        committed = [row.id for row in store.history("mena", limit=None)][::-1]
        assert len(acknowledged) > 100
        assert set(acknowledged) <= set(committed)
        assert len(set(committed)) == len(committed)
