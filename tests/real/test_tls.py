"""TLS to a server, to sentinels and to a cluster: real ones, behind doors that end it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import pytest
import redis

import swapstore
from swapstore import SwapstoreError
from tests.support.cluster import Cluster
from tests.support.deployment import Sentinel, kinds, until
from tests.support.doors import CERTIFICATE, Door, Guarded
from tests.support.sentinels import NAME, Sentinels
from tests.support.traffic import FACES
from tests.support.valkey import Server, free_port

pytestmark = [pytest.mark.server, pytest.mark.slow]

TRUSTED = f"ssl_ca_certs={CERTIFICATE / 'cert.pem'}"


class GuardedSentinels(Sentinels):
    """Sentinels, and servers, that clients reach over TLS."""

    def __init__(self, directory: Path) -> None:
        self._doors: list[Door] = []
        super().__init__(directory, kinds()["valkey"], make=Guarded)

    def _sentinel(self, directory: Path, binary: str) -> Sentinel:
        made = super()._sentinel(directory, binary)
        door = Door(made.port)
        self._doors.append(door)
        with (directory / "sentinel.conf").open("a") as config:
            config.write(f"sentinel announce-ip 127.0.0.1\nsentinel announce-port {door.port}\n")
        return made

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            for door in self._doors:
                stack.enter_context(door)
            super().__enter__()
            stack.push(super().__exit__)
            self._opened = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @property
    def url(self) -> str:
        hosts = ",".join(f"localhost:{door.port}" for door in self._doors)
        return f"rediss+sentinel://{hosts}/{NAME}/0?{TRUSTED}&ssl_check_hostname=false"

    def secure(self) -> int:
        return sum(door.secure for door in self._doors)


class GuardedCluster(Cluster):
    """A cluster that clients reach over TLS; its nodes call themselves `localhost`."""

    def _server(self, name: str) -> Server:
        node = Guarded(self.directory / name, binary=self.binary)
        node.options = (
            *(*self.options, "--cluster-announce-port", str(node.port)),
            *("--cluster-announce-hostname", "localhost", "--cluster-preferred-endpoint-type", "hostname"),
            *("--cluster-port", str(free_port())),
        )
        return node

    @property
    def url(self) -> str:
        hosts = ",".join(f"localhost:{node.port}" for node in self.nodes)
        return f"rediss+cluster://{hosts}?{TRUSTED}"


@pytest.fixture(scope="module")
def sentinels(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedSentinels]:
    with GuardedSentinels(tmp_path_factory.mktemp("sentinels")) as made:
        yield made


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GuardedCluster]:
    with GuardedCluster(tmp_path_factory.mktemp("cluster"), kinds()["valkey"], replicas=3) as made:
        yield made


@FACES
def test_sentinels_and_their_servers(sentinels: GuardedSentinels, connect: Callable[..., Any]) -> None:
    """`rediss+sentinel` asks sentinels without TLS, or reaches no new primary after a failover."""
    before = sentinels.secure()
    primary = sentinels.primary
    assert isinstance(primary, Guarded)
    with closing(connect(sentinels.url, patience=30)) as store:
        first = store.publish("mena", 1)
        assert (sentinels.secure() > before, primary.door.secure > 0) == (True, True)
        demoted = sentinels.fail_over()
        until(lambda: sentinels.role(demoted) == "slave", "not demoted")  # what it took before would be lost
        second = store.publish("mena", 2)
        assert second.version == first.version + 1
        assert store.read_latest("mena").value == 2
    sentinels.settle()


@FACES
def test_reads_from_replicas(sentinels: GuardedSentinels, connect: Callable[..., Any]) -> None:
    """Replicas are reached without TLS, so not at all."""
    with closing(connect(sentinels.url, read_from="replica", patience=30)) as store:
        commit = store.publish("replicas", {"a": 1})
        before = secure_connections(sentinels.replicas)

        def is_replica_read() -> bool:
            assert store.read_latest("replicas", min_version=commit.version).value == {"a": 1}
            return secure_connections(sentinels.replicas) != before

        # Only every ten seconds a sentinel asks a replica whether it is connected. Until an answer says so,
        # the primary is read, and the first two may come too early.
        until(is_replica_read, "no replica was read over TLS", within_s=45)


def secure_connections(servers: list[Server]) -> list[int]:
    return [each.door.secure for each in servers if isinstance(each, Guarded)]


@FACES
def test_a_cluster(cluster: GuardedCluster, connect: Callable[..., Any]) -> None:
    """`rediss+cluster` reaches the nodes that it learns of without TLS, or by a name of no certificate."""
    names = [f"name-{number}" for number in range(12)]
    with closing(connect(cluster.url)) as store:
        outcomes = store.publish_many({name: [name] for name in names})
        outcomes.raise_for_failures()
        assert {name: found.value for name, found in store.read_latest_many(names).items()} == {
            name: [name] for name in names
        }
        assert all(isinstance(node, Guarded) and node.door.secure for node in cluster.primaries)


@FACES
def test_a_certificate_that_is_not_trusted(
    cluster: GuardedCluster, sentinels: GuardedSentinels, connect: Callable[..., Any]
) -> None:
    """A program that trusts nobody hangs, or talks to anybody."""
    for url in (cluster.url, sentinels.url):
        with closing(connect(url.replace(TRUSTED, "").replace("?&", "?"), patience=0)) as store:
            with pytest.raises(SwapstoreError, match="certificate") as caught:
                store.publish("mena", 1)
            assert "Nothing was published" in str(caught.value)


def test_a_session_ticket_is_no_reply(sentinels: GuardedSentinels, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine no sentinel can be asked over TLS: "Connection not ready"."""
    connect: Any = redis.SSLConnection.connect

    def connect_slowly(connection: Any, *args: Any, **options: Any) -> None:
        connect(connection, *args, **options)
        time.sleep(0.05)  # until the server has sent what it sends after the handshake

    monkeypatch.setattr(redis.SSLConnection, "connect", connect_slowly)
    with closing(swapstore.connect(sentinels.url, patience=0)) as store:
        assert store.publish("tickets", 1).version == 1


def test_a_subscription_waits_for_its_confirmation(tmp_path: Path) -> None:
    """Followers over TLS are told of no commit, and find it only when they look."""
    with Guarded(tmp_path, binary=kinds()["valkey"]) as server, server.client() as other:
        url = f"rediss://localhost:{server.port}/0?{TRUSTED}&protocol=2"
        with contextlib.ExitStack() as stack:
            store = stack.enter_context(swapstore.connect(url))
            listener: Any = store._driver.listen(["channel"])  # type: ignore[attr-defined]
            stack.enter_context(closing(listener))
            for _ in range(3):
                listener.wait(0.1)
                other.publish("channel", "1")
                assert listener.wait(5) == ["channel"]


@FACES
def test_sentinels_without_tls(sentinels: GuardedSentinels, connect: Callable[..., Any]) -> None:
    """`rediss` for plain sentinels is told as an outage, with no word on what to change."""
    url = f"rediss+sentinel://{sentinels.hosts}/{NAME}/0?{TRUSTED}&ssl_check_hostname=false"
    with (
        closing(connect(url, patience=0)) as store,
        pytest.raises(SwapstoreError, match="Do they speak TLS"),
    ):
        store.publish("mena", 1)
