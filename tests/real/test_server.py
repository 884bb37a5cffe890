"""What only a real server does: run out of memory, refuse passwords, lose replies, restart, use memory."""

from __future__ import annotations

import json
import os
import random
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import redis

import swapstore
from swapstore import Store
from swapstore.drivers.redis import address
from swapstore.drivers.redis.pool import FOR_ANY_COMMAND
from swapstore.errors import (
    AccessDenied,
    InvalidInput,
    ReadOnly,
    StoreFull,
    SwapstoreError,
    Unavailable,
)
from tests.support import invariants
from tests.support.drivers import another
from tests.support.proxy import Proxy
from tests.support.valkey import Server, free_port

SECRET = "s3cr3t-Pa55"  # noqa: S105 - it must not turn up anywhere


def document(size: int, seed: int) -> bytes:
    return json.dumps({"noise": random.Random(seed).randbytes(size // 2).hex()}).encode()[:size]


def test_a_full_server_keeps_the_previous_version(tmp_path: Path) -> None:
    """A publish to a full server does not raise StoreFull, or damages the previous version."""
    with (
        Server(tmp_path, "--maxmemory-policy", "noeviction") as server,
        swapstore.connect(server.url) as store,
    ):
        store.publish("mena", document(50_000, 0), codec="bytes", id="good")
        with server.client() as admin:
            admin.config_set("maxmemory", admin.info("memory")["used_memory"] - 1)
            for client in (store, another(store)):
                with pytest.raises(StoreFull, match="dataset 'mena': redis://127.0.0.1.*maxmemory"):
                    client.publish("mena", document(50_000, 1), codec="bytes", id="refused")
            snap = another(store).read_latest("mena")
            assert snap is not None
            assert (snap.id, snap.raw) == ("good", document(50_000, 0))
            admin.config_set("maxmemory", 0)
        assert [row.id for row in invariants.check(store)] == ["good"]
        assert store.publish("mena", document(50_000, 1), codec="bytes", id="refused").created


def test_a_server_that_fills_up_never_leaks_or_dangles(tmp_path: Path) -> None:
    """A command refused for lack of memory leaves a key that nothing names and that never expires."""
    with (
        Server(tmp_path, "--maxmemory-policy", "noeviction") as server,
        swapstore.connect(server.url) as store,
    ):
        store.publish("mena", 0)
        with server.client() as admin:
            for number in range(60):
                admin.config_set("maxmemory", admin.info("memory")["used_memory"] + 200 * number)
                try:
                    another(store).publish("mena", document(4000, number), codec="bytes")
                except StoreFull:
                    pass
                finally:
                    admin.config_set("maxmemory", 0)
                invariants.check(store)


def test_a_reply_lost_on_the_wire_is_one_commit(valkey: Server) -> None:
    """A connection that breaks after the commit was applied leads to a second row, or to an error."""
    with Proxy(valkey.port) as proxy, swapstore.connect(proxy.url) as store:
        store.publish("mena", 1, id="before")
        proxy.lose_reply_of(b"EVAL")
        commit = store.publish("mena", 2, id="mine")
        assert proxy.lost == 1
        assert (commit.version, commit.created) == (2, True)
        assert [row.id for row in invariants.check(store)] == ["before", "mine"]


def test_round_trips_on_the_wire(valkey: Server) -> None:
    """A publish takes more than one round trip (two without the manifest), or a read more than one."""
    with Proxy(valkey.port) as proxy:
        with swapstore.connect(proxy.url) as warm_up:
            warm_up.publish("mena", "script and connection are known now")

        def packets(store: Store, act: Any) -> int:
            store.datasets()  # opens the connection
            before = len(proxy.requests)
            act()
            return len(proxy.requests) - before

        with swapstore.connect(proxy.url) as store:
            assert packets(store, lambda: store.publish("mena", 1)) == 2
            assert packets(store, lambda: store.publish("mena", 2)) == 1
        with swapstore.connect(proxy.url) as store:
            assert packets(store, lambda: store.read_latest("mena")) == 1
            assert packets(store, lambda: store.read_latest("mena")) == 1


def test_flushed_scripts_cost_one_round_trip_and_nothing_else(valkey: Server) -> None:
    """SCRIPT FLUSH or a restart between two publishes fails the second."""
    with swapstore.connect(valkey.url) as store, valkey.client() as admin:
        store.publish("mena", 1)
        admin.script_flush()
        assert store.publish("mena", 2).version == 2
        admin.script_flush()
        assert store.publish("mena", 3).version == 3
        assert len(invariants.check(store)) == 3


def test_a_restarted_server_is_found_again(tmp_path: Path) -> None:
    """During a restart a read returns None instead of raising Unavailable, or the store never recovers."""
    server = Server(tmp_path, "--appendonly", "yes", "--appendfsync", "always").start()
    try:
        with swapstore.connect(server.url, patience=0) as store:
            store.publish("mena", 1)
            server.stop()
            for use in (lambda: store.read_latest("mena"), lambda: store.publish("mena", 2), store.datasets):
                with pytest.raises(Unavailable, match=f"127.0.0.1:{server.port}"):
                    use()
            server.start()
            snap = store.read_latest("mena")
            assert snap is not None
            assert snap.value == 1
            assert store.publish("mena", 2).version == 2
    finally:
        server.stop()


def test_a_loading_server_is_unavailable(tmp_path: Path) -> None:
    """A server that answers LOADING looks like `nothing published`."""
    options = (
        "--enable-debug-command",
        "local",
        "--key-load-delay",
        "500",
        "--loading-process-events-interval-bytes",
        "1024",
    )
    with (
        Server(tmp_path, *options) as server,
        swapstore.connect(server.url, patience=0) as store,
        server.client() as admin,
    ):
        store.publish("mena", 1)
        for number in range(3000):
            admin.set(f"filler:{number}", "x" * 100)
        with server.client(socket_timeout=30) as reloading:
            connection = reloading.connection_pool.get_connection(*FOR_ANY_COMMAND)
            connection.send_command("DEBUG", "RELOAD")
            errors: list[SwapstoreError] = []
            deadline = time.monotonic() + 20
            while not errors and time.monotonic() < deadline:
                try:
                    another(store).read_latest("mena")
                except SwapstoreError as error:
                    errors.append(error)
            connection.disconnect()
        assert isinstance(errors[0], Unavailable)
        assert "loading" in str(errors[0])


def test_passwords_are_never_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Wrong or missing credentials put the password into an error message or a log."""
    with Server(tmp_path, "--requirepass", "right-" + SECRET) as server:
        host = f"127.0.0.1:{server.port}/0"
        with swapstore.connect(f"redis://:right-{SECRET}@{host}") as store:
            assert store.publish("mena", 1).created
            assert SECRET not in repr(store)
        for url in (f"redis://:{SECRET}@{host}", f"redis://{host}", f"redis://user:{SECRET}@{host}"):
            with swapstore.connect(url) as store:
                assert SECRET not in repr(store)
                with pytest.raises(AccessDenied, match="refused the credentials") as reading:
                    store.read_latest("mena")
                with pytest.raises(AccessDenied, match="refused the credentials") as publishing:
                    store.publish("mena", 1)
                assert SECRET not in everything_about(reading.value) + everything_about(publishing.value)
    assert SECRET not in caplog.text


def everything_about(error: BaseException | None) -> str:
    text = ""
    while error is not None:
        text += f"{error!r} {error} {vars(error)}"
        error = error.__cause__ or error.__context__
    return text


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{SECRET}/x@localhost:6379/0",
        f"redis://:a#{SECRET}@localhost",
        f"redis://user:{SECRET}@localhost:notaport/0",
        f"redis://user:{SECRET}@localhost/notadatabase",
        f"redis://:{SECRET}@/0",
        f"redis://default:123#{SECRET}@localhost/0",
        f"redis://default:123?{SECRET}@localhost/0",
        f"redis://default:123/{SECRET}@localhost/0",
        "sqlite:///:memory:",
        f"redis://:{SECRET}@[::1",
        f"mysql://user:{SECRET}@localhost",
        f"user:{SECRET}@localhost:6379",
        f"redis:/{SECRET}@localhost",
        "",
        "sqlite://",
        "sqlite:///",
        "sqlite:///a.db?mode=ro",
    ],
)
def test_bad_addresses_are_refused_without_their_password(url: str) -> None:
    """A typo in a URL prints its password into a log, or an unknown scheme is not named."""
    with pytest.raises(InvalidInput) as caught:
        swapstore.connect(url).datasets()
    assert SECRET not in everything_about(caught.value)


def test_an_option_that_redis_py_does_not_know_is_refused() -> None:
    """A misspelt option in the URL looks like an outage."""
    with pytest.raises(InvalidInput, match="no_such_option"):
        swapstore.connect(f"redis://localhost:{free_port()}/0?no_such_option=1")


def test_a_command_that_the_acl_forbids_is_access_denied(valkey: Server) -> None:
    """A user without the right to write or to run scripts is not told which right is missing."""
    with valkey.client() as admin, swapstore.connect(valkey.url) as owner:
        owner.publish("mena", 1)
        admin.acl_setuser(
            "reader", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-@write", "-@scripting"]
        )
        admin.acl_setuser(
            "mute", enabled=True, nopass=True, keys=["*"], commands=["+@all"], reset_channels=True
        )
        with swapstore.connect(f"redis://reader:x@127.0.0.1:{valkey.port}/0") as reader:
            snap = reader.read_latest("mena")
            assert snap is not None
            with pytest.raises(AccessDenied, match="dataset 'mena': .*does not allow"):
                reader.publish("mena", 2)
        with swapstore.connect(f"redis://mute:x@127.0.0.1:{valkey.port}/0") as mute:
            assert mute.publish("mena", 3).version == 2, "the hint on the channel is not part of the commit"
        assert [row.version for row in invariants.check(owner)] == [1, 2]
        admin.acl_deluser("reader", "mute")


def test_a_read_only_replica_says_so(tmp_path: Path, valkey: Server) -> None:
    """A producer on a replica is not told so, or its readers are not served."""
    with swapstore.connect(valkey.url) as primary:
        primary.publish("mena", 1)
        with (
            Server(tmp_path, "--replicaof", f"127.0.0.1 {valkey.port}") as replica,
            replica.client() as admin,
        ):
            deadline = time.monotonic() + 20
            while not admin.exists("swapstore:manifest:{mena}") and time.monotonic() < deadline:
                time.sleep(0.05)
            with swapstore.connect(replica.url) as store:
                snap = store.read_latest("mena")
                assert snap is not None
                assert snap.value == 1
                with pytest.raises(ReadOnly, match="dataset 'mena': .*replica; connect to the primary"):
                    store.publish("mena", 2)


def test_a_server_that_never_answers_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent address makes a read or publish wait longer than the time-out."""
    monkeypatch.setattr(address, "REPLY_TIMEOUT_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as hole:
        url = f"redis://127.0.0.1:{hole.getsockname()[1]}/0"
        with swapstore.connect(url, patience=0) as store, pytest.raises(Unavailable):
            store.read_latest("mena")


@pytest.mark.parametrize("decode", [False, True])
def test_a_borrowed_client_is_used_and_never_closed(valkey: Server, decode: bool) -> None:  # noqa: FBT001
    """A caller's client with its own settings does not work, or is closed with the store."""
    with valkey.client(decode_responses=decode) as client:
        with swapstore.connect(client) as store:
            store.publish("mena", b"\xff\x00", codec="bytes")
            snap = store.read_latest("mena")
            assert snap is not None
            assert snap.raw == b"\xff\x00"
            assert str(valkey.port) in repr(store)
        connections = len(client.client_list())
        assert client.ping()
        assert len(client.client_list()) == connections


def test_a_borrowed_client_with_retries_sends_a_commit_once(valkey: Server) -> None:
    """redis-py's default retries send a commit twice that the server has applied already."""
    with (
        Proxy(valkey.port) as proxy,
        redis.Redis(host="127.0.0.1", port=proxy.port) as client,
        swapstore.connect(client) as store,
    ):
        store.publish("mena", 1)
        before = sum(b"EVAL" in request for request in proxy.requests)
        proxy.lose_reply_of(b"EVAL")
        assert store.publish("mena", 2).version == 2
        assert sum(b"EVAL" in request for request in proxy.requests) == before + 1
        assert len(invariants.check(store)) == 2


def test_a_client_with_a_client_side_cache_is_refused(valkey: Server) -> None:
    """A client whose connections answer from a local cache serves stale data."""
    cache = pytest.importorskip("redis.cache", reason="redis-py has a client-side cache since 5.1")

    with (
        redis.Redis(
            host="127.0.0.1", port=valkey.port, protocol=3, cache_config=cache.CacheConfig()
        ) as client,
        pytest.raises(InvalidInput, match="client-side cache"),
    ):
        swapstore.connect(client)


def test_sentinels_that_know_no_server_do_not_show_their_password() -> None:
    """redis-py quotes the sentinels' options in its error, and the password reaches the log."""
    make: Any = redis.Sentinel
    sentinel = make([("127.0.0.1", free_port())], sentinel_kwargs={"password": SECRET})
    with swapstore.connect(sentinel.master_for("mymaster"), patience=0) as store:
        assert "mymaster" in repr(store)
        with pytest.raises(Unavailable, match="sentinels know no server for redis mymaster") as caught:
            store.read_latest("mena")
        assert SECRET not in everything_about(caught.value)


@pytest.mark.parametrize("thing", [42, object(), redis.asyncio.Redis])
def test_an_object_that_is_not_a_client_is_refused(thing: Any) -> None:
    """A wrong argument looks like an outage."""
    with pytest.raises(InvalidInput, match="pass a URL or a redis.Redis client"):
        swapstore.connect(thing)


def test_memory_against_the_six_command_layout(tmp_path: Path) -> None:
    """200 snapshots of 10 KB take more than 0.6 of the memory that storing each payload twice takes.

    It has its own server: the replication backlog of another test would be counted.
    """
    payloads = [document(10_000, seed) for seed in range(200)]
    with Server(tmp_path) as server, server.client() as admin:

        def used() -> int:
            admin.execute_command("MEMORY", "PURGE")
            return int(admin.info("memory")["used_memory"])

        empty = used()
        for number, payload in enumerate(payloads):
            pipe = admin.pipeline(transaction=False)
            pipe.set(f"snapshot:v1:mena:{number}", payload)
            pipe.set(f"snapshot-by-id:v1:{number:036d}", payload)
            pipe.set("snapshot:v1:mena:latest", f"{number:036d}")
            pipe.zadd("snapshot-index:v1:mena", {f"{number:036d}": number})
            pipe.zremrangebyscore("snapshot-index:v1:mena", "-inf", -1)
            pipe.delete("snapshot:v1:mena:live")
            pipe.execute()
        six = used() - empty
        admin.flushall()
        empty = used()
        with swapstore.connect(server.url) as store:
            for payload in payloads:
                store.publish("mena", payload, codec="bytes")
        ours = used() - empty
    assert ours <= 0.6 * six, f"{ours} of {six} bytes: {ours / six:.3f}"


def test_unix_sockets(tmp_path: Path) -> None:
    """A server on a socket file cannot be reached like one on a port."""
    path = Path(os.path.relpath(tmp_path / "s.sock"))
    if len(str(path.absolute())) > 100:
        path = Path(f"/tmp/swapstore-{os.getpid()}.sock")  # noqa: S108 - a socket path has room for 108 bytes
    with (
        Server(tmp_path, "--unixsocket", str(path.absolute())),
        swapstore.connect(f"unix://{path.absolute()}?db=0") as store,
    ):
        assert store.publish("mena", 1).version == 1
    path.unlink(missing_ok=True)
