"""Addresses that lead to the wrong thing, and limits of servers: each has an error that says what to do."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import redis

import swapstore
import swapstore.aio
from swapstore import PayloadTooLarge, Store, Timeout, Unscripted
from swapstore.commands import Get
from swapstore.drivers.redis.driver import RedisDriver
from swapstore.drivers.redis.errors import CutOff
from swapstore.errors import InvalidInput, SwapstoreError, Unavailable, Unsupported
from tests.rest.test_tls import CERTIFICATE
from tests.support.deployment import Switch, cluster, cluster_node, compares, kinds, sentinel
from tests.support.valkey import Server


def failures(url: str, *, dataset: str = "asia", patience: float = 0, **options: Any) -> list[SwapstoreError]:
    """What publishing there raises, blocking and in asyncio."""
    options["patience"] = patience

    async def main() -> None:
        async with swapstore.aio.connect(url, **options) as store:
            await store.publish(dataset, 1)

    found = []
    with pytest.raises(SwapstoreError) as caught, swapstore.connect(url, **options) as store:
        store.publish(dataset, 1)
    found.append(caught.value)
    with pytest.raises(SwapstoreError) as caught:
        asyncio.run(main())
    return [*found, caught.value]


def all_are(found: list[SwapstoreError], kind: type[SwapstoreError], *words: str) -> None:
    for error in found:
        assert isinstance(error, kind), repr(error)
        assert all(word in str(error) for word in words), str(error)


@pytest.mark.server
def test_a_sentinel(tmp_path: Path, valkey: Server) -> None:
    """The address of a sentinel is told as a missing command."""
    with sentinel(tmp_path, kinds()["valkey"], valkey) as watching:
        all_are(failures(watching.url), Unsupported, "Is it a sentinel?", "redis+sentinel://")


@pytest.mark.server
def test_a_node_of_a_cluster(tmp_path: Path) -> None:
    """Half of the datasets fail with an error that does not name the cluster."""
    node = cluster_node(tmp_path, kinds()["valkey"])
    try:
        all_are(failures(node.url), Unavailable, "node of a cluster")
    finally:
        node.stop()


@pytest.mark.server
@pytest.mark.parametrize("kind", sorted(kinds()))
def test_a_renamed_script_command(tmp_path: Path, kind: str) -> None:
    """A server without EVALSHA publishes once, and then fails with what names no command."""
    with (
        Server(tmp_path, "--rename-command", "EVALSHA", "hidden", binary=kinds()[kind]) as server,
        swapstore.connect(server.url) as store,
    ):
        store.publish("mena", 0)
        with pytest.raises(Unscripted, match="EVALSHA.*rename-command.*Nothing was published"):
            store.publish("mena", 1)
        snap = store.read_latest("mena")
        assert snap is not None
        assert snap.value == 0


@pytest.mark.server
@pytest.mark.parametrize("kind", sorted(kinds()))
def test_a_server_without_eval_publishes_or_cannot(tmp_path: Path, kind: str) -> None:
    """An old server without EVAL says to try again later, because it does not know PEXPIRE with XX."""
    with (
        Server(tmp_path, "--rename-command", "EVAL", "hidden", binary=kinds()[kind]) as server,
        swapstore.connect(server.url) as store,
    ):
        if not compares(server):
            lacks = "PEXPIRE" if kind == "redis" else "compare-and-set"
            with pytest.raises(Unsupported, match=f"EVAL.*{lacks}.*Nothing was published"):
                store.publish("mena", 0)
        else:
            assert [store.publish("mena", value).version for value in range(2)] == [1, 2]


@pytest.mark.server
def test_a_database_that_is_not_there(valkey: Server) -> None:
    """A wrong number looks like an outage that passes."""
    all_are(failures(f"redis://127.0.0.1:{valkey.port}/99"), InvalidInput, "no database of this number")


@pytest.mark.server
def test_tls_to_a_plain_port(valkey: Server) -> None:
    """`rediss://` to a plain port asks whether the server is overloaded."""
    began = time.monotonic()
    found = failures(f"rediss://127.0.0.1:{valkey.port}/0", timeout=Timeout(connect=0.3))
    all_are(found, Unavailable, "does it speak TLS", "redis://")
    assert time.monotonic() - began < 8, "less than the time-out for a reply"


def test_a_server_that_hangs_up_in_the_handshake_is_away() -> None:
    """A TLS server that is stopped just then is told as one that does not speak TLS, and not waited for."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    listener.accept()[0].close()

        threading.Thread(target=serve, daemon=True).start()
        all_are(failures(f"rediss://127.0.0.1:{listener.getsockname()[1]}/0"), Unavailable, "cannot connect")


@pytest.mark.server
def test_no_more_clients(tmp_path: Path) -> None:
    """A server without room for a connection is told as a lost reply."""
    with Server(tmp_path) as server, server.client() as admin:
        admin.config_set("maxclients", 1)
        found = failures(server.url)
        all_are(found, Unavailable, "accepts no more connections", "maxclients")
        assert {type(error) for error in found} == {Unavailable}


@pytest.mark.server
def test_a_busy_script_is_waited_for(tmp_path: Path) -> None:
    """A slow script of another client fails every publish at once."""
    with Server(tmp_path, "--lua-time-limit", "5") as server, swapstore.connect(server.url) as store:
        store.publish("mena", 0)

        def hog() -> None:
            with server.client() as client:
                client.eval(
                    "local t = redis.call('TIME') repeat local n = redis.call('TIME') until "
                    "(n[1] - t[1]) * 1000000 + n[2] - t[2] > 600000 return 1",
                    0,
                )

        thread = threading.Thread(target=hog)
        thread.start()
        try:
            time.sleep(0.2)
            assert store.publish("mena", 1).version == 2
        finally:
            thread.join(10)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("MOVED 5474 127.0.0.1:7001", Unsupported, "cluster"),
        ("ASK 5474 127.0.0.1:7001", Unsupported, "cluster"),
        ("CROSSSLOT Keys in request don't hash to the same slot", Unsupported, "cluster"),
        ("CLUSTERDOWN The cluster is down", Unavailable, "cluster"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", Unavailable, "cluster"),
        ("MASTERDOWN Link with MASTER is down", Unavailable, "lost its primary"),
        ("BUSY Redis is busy running a script", Unavailable, "busy"),
    ],
)
def test_what_a_server_replies_is_named(text: str, kind: type[SwapstoreError], words: str) -> None:
    """A redirection of a cluster says to try again later, which never helps."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(f"-{text}\r\n".encode())
                connection.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        driver = RedisDriver.from_url(f"redis://127.0.0.1:{listener.getsockname()[1]}")
        (answer,) = driver.execute([Get("a")])
        driver.close()
        thread.join(10)
    assert type(answer.error) is kind
    assert answer.again == (kind is Unavailable), "and is sent again if that can help"
    assert words in str(answer.error)


@pytest.mark.parametrize(
    "options",
    [
        "retry_on_error=x",
        "retry=x",
        "parser_class=x",
        "redis_connect_func=x",
        "credential_provider=x",
        "socket_keepalive_options=x",
        "connection_class=x",
        "max_connections=0",
        "max_connections=-1",
        "socket_timeout=nan",
        "socket_timeout=-1",
        "socket_timeout=1e400",
        "socket_read_size=0",
        "timeout=-1",
        "health_check_interval=x",
        "protocol=9",
        "ssl_cert_reqs=CERT_NONE",
        "ssl_ca_certs=/no/such/file",
        "ssl_min_version=x",
    ],
)
@pytest.mark.parametrize("connect", [swapstore.connect, swapstore.aio.connect])
def test_an_option_that_cannot_be_used_is_refused_at_once(options: str, connect: Callable[..., Any]) -> None:
    """A mistake in a URL raises what is none of ours at the first publish, or looks like an outage."""
    with pytest.raises(InvalidInput, match="URL"):
        connect(f"rediss://:secret@localhost:1/0?{options}")


def test_a_certificate_that_is_not_trusted() -> None:
    """A wrong authority or host name looks like an outage that passes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE / "cert.pem", CERTIFICATE / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with suppress(OSError), context.wrap_socket(connection, server_side=True) as secured:
                        secured.recv(1)

        threading.Thread(target=serve, daemon=True).start()
        found = failures(f"rediss://127.0.0.1:{listener.getsockname()[1]}/0")
        listener.shutdown(socket.SHUT_RDWR)
    all_are(found, InvalidInput, "certificate", "ssl_ca_certs")


# --- one node of a cluster --------------------------------------------------------------------------


def names_in(server: Server, count: int = 1) -> list[str]:
    """Datasets whose keys belong to a node of a cluster."""
    found = []
    with server.client() as client:
        for number in range(1000):
            try:
                client.get(f"swapstore:manifest:{{set-{number}}}")
            except redis.ResponseError:
                continue
            found.append(f"set-{number}")
            if len(found) == count:
                return found
    raise AssertionError("no dataset belongs to this node")


@pytest.mark.server
@pytest.mark.slow
def test_the_nodes_of_a_cluster(tmp_path: Path) -> None:
    """A dataset is published to one node, and its name is refused there: nobody finds the dataset."""
    with cluster(tmp_path, kinds()["valkey"]) as nodes:
        lists, other = sorted(nodes, key=lambda node: not owns_the_list(node))
        here, more = names_in(lists, 2)
        (there,) = names_in(other)

        all_are(failures(other.url, dataset=there), Unsupported, "node of a cluster", "othing was published")
        all_are(failures(other.url, dataset=here), Unsupported, "node of a cluster", "othing was published")
        with other.client() as client:
            assert client.dbsize() == 0
        all_are(failures(lists.url, dataset=there), Unsupported, "node of a cluster", "othing was published")
        with swapstore.connect(lists.url) as store:
            store.publish(here, 1)
            outcomes = store.publish_many({more: 2, there: 2})
            assert isinstance(outcomes[there], Unsupported)
            for reading in (store.read_latest, store.status, lambda name: store.read_latest_many([name])):
                with pytest.raises(Unsupported, match="node of a cluster"):
                    reading(there)
            snaps = store.read_latest_many([here, more])
            assert [snap and snap.value for snap in snaps.values()] == [1, 2]
        with other.client() as client:
            assert client.dbsize() == 0
        with swapstore.connect(other.url) as store, pytest.raises(Unsupported, match="node of a cluster"):
            store.datasets()
        with lists.client() as one, other.client() as two:
            slot = one.execute_command("CLUSTER", "KEYSLOT", f"{{{more}-new}}")
            source, target = (one, two) if is_owner(one, f"{{{more}-new}}") else (two, one)
            name = target.execute_command("CLUSTER", "MYID")
            source.execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", name)
            moving = lists if source is one else other
        with swapstore.connect(moving.url) as store, pytest.raises(Unsupported, match="cluster.*ASK"):
            store.read_latest(f"{more}-new")


def owns_the_list(server: Server) -> bool:
    with server.client() as client:
        return is_owner(client, "swapstore:datasets")


def is_owner(client: Any, key: str) -> bool:
    try:
        client.exists(key)
    except redis.ResponseError:
        return False
    return True


# --- large transfers -------------------------------------------------------------------------------


@pytest.mark.server
@pytest.mark.slow
@pytest.mark.parametrize("face", ["blocking", "asyncio"])
def test_a_time_out_bounds_the_silence_and_not_the_transfer(tmp_path: Path, face: str) -> None:
    """On a slow line a large publish is sent four times, and a large payload cannot be read."""
    payload = b"x" * 14_000_000

    async def main(url: str) -> None:
        async with swapstore.aio.connect(url, timeout=3) as store:
            await store.publish("mena", payload, codec="bytes")
        async with swapstore.aio.connect(url, timeout=3) as store:
            snap = await store.read_latest("mena")
            assert snap is not None
            assert snap.raw == payload

    with Server(tmp_path) as server, Switch(server.port, rate=2_000_000) as address:
        if face == "asyncio":
            asyncio.run(main(address.url))
            return
        with swapstore.connect(address.url, timeout=3) as store:
            began = time.monotonic()
            store.publish("mena", payload, codec="bytes")
            assert time.monotonic() - began > 3, "longer than the time-out"
        with swapstore.connect(address.url, timeout=3) as store:
            snap = store.read_latest("mena")
            assert snap is not None
            assert snap.raw == payload


LARGE = b"x" * 8_000_000


def sends(store: Store) -> list[int]:
    """How many commands each batch of a store has, from now on."""
    driver: Any = store._driver
    execute, found = driver.execute, []

    def counted(commands: Any) -> Any:
        found.append(len(commands))
        return execute(commands)

    driver.execute = counted
    return found


@pytest.mark.server
@pytest.mark.parametrize("kind", sorted(kinds()))
@pytest.mark.parametrize("limit", ["--proto-max-bulk-len", "--client-query-buffer-limit"])
def test_a_request_that_is_too_large_for_the_server(tmp_path: Path, kind: str, limit: str) -> None:
    """A payload above a limit of the server is sent four times, and ends in OutcomeUnknown."""

    async def main(url: str) -> None:
        async with swapstore.aio.connect(url) as store:
            with pytest.raises(PayloadTooLarge, match="nothing was published|Nothing was published"):
                await store.publish("mena", LARGE, codec="bytes")
            assert (await store.publish("mena", 3)).version == 3

    with Server(tmp_path, limit, "1048576", binary=kinds()[kind]) as server:
        with swapstore.connect(server.url) as store:
            store.publish("mena", 1)
            sent = sends(store)
            with pytest.raises(PayloadTooLarge, match="nothing was published|Nothing was published"):
                store.publish("mena", LARGE, codec="bytes")
            assert sum(commands > 1 for commands in sent) <= 2, "and a read in between"
            outcomes = store.publish_many({"mena": b"2", "asia": LARGE}, codec="bytes")
            assert isinstance(outcomes["asia"], PayloadTooLarge)
            assert outcomes["mena"].version == 2  # type: ignore[union-attr]
        asyncio.run(main(server.url))


@pytest.mark.server
def test_a_request_that_is_too_large_in_a_call_with_a_bound(tmp_path: Path) -> None:
    """A call that waits for less than a connection does ends in a traceback, when that is closed."""
    with (
        Server(tmp_path, "--proto-max-bulk-len", "1048576") as server,
        swapstore.connect(server.url, timeout=Timeout(reply=60, total=30)) as store,
    ):
        store.publish("mena", 1)
        with pytest.raises(PayloadTooLarge):
            store.publish("mena", LARGE, codec="bytes")
        assert store.publish("mena", 2).version == 2


def test_one_hang_up_during_a_large_request_is_no_limit(valkey: Server) -> None:
    """A connection that is cut during an upload fails the publish, as if the server had a limit."""
    with swapstore.connect(valkey.url) as store:
        store.publish("mena", 0)
        driver: Any = store._driver
        send = driver._send
        cuts: list[Any] = []

        def cut(request: Any, *options: Any) -> Any:
            if not cuts:
                cuts.append(request)
                raise CutOff("reset")
            return send(request, *options)

        driver._send = cut
        assert store.publish("mena", LARGE, codec="bytes").version == 2
        assert cuts


@pytest.mark.server
def test_a_request_is_not_continued_on_another_connection(valkey: Server) -> None:
    """A store is closed during an upload, and the server takes the rest of the payload for commands."""
    with valkey.client() as client:
        client.set("precious", 1)
    payload = b"\r\nDEL precious\r\n" * 200_000
    with swapstore.connect(valkey.url) as store:
        store.publish("mena", 0)
        driver: Any = store._driver
        kind = driver._pool.connection_class
        send = kind.send_packed_command
        driver._pool._idle[-1].__class__ = type(
            "Closed",
            (kind,),
            {"send_packed_command": lambda self, *a, **k: (send(self, *a, **k), self.disconnect())},
        )
        assert store.publish("mena", payload, codec="bytes").version == 2
    with valkey.client() as client:
        assert client.get("precious") == b"1"
