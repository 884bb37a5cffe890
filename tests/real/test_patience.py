"""What a call does while its server is down, loading, or replaced by another one; on real servers."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import swapstore
import swapstore.aio
from swapstore import InvalidInput, OutcomeUnknown, Store, Timeout, Unavailable
from tests.support import invariants
from tests.support.deployment import Pair, kinds, until
from tests.support.traffic import Blocking
from tests.support.valkey import Server, free_port

pytestmark = pytest.mark.server

LARGE = "x" * 700_000  # sent in several portions
LONG_S = 60.0
AOF = ("--appendonly", "yes", "--appendfsync", "always")


def blocking(url: str, **options: Any) -> Store:
    return swapstore.connect(url, **options)


faces = pytest.mark.parametrize("connect", [blocking, Blocking], ids=["blocking", "asyncio"])


@contextmanager
def under_way(*calls: Callable[[], Any]) -> Iterator[list[Future[Any]]]:
    """Calls in threads of their own. After the block all of them end, and none may fail."""
    with ThreadPoolExecutor(len(calls)) as pool:
        running = [pool.submit(call) for call in calls]
        yield running
        for each in running:
            each.result(LONG_S)


@faces
def test_a_restart_is_waited_for(tmp_path: Path, connect: Callable[..., Any]) -> None:
    """A restart of the server fails every call that begins during it."""
    with Server(tmp_path, *AOF) as server:
        store = connect(server.url, patience=LONG_S)
        store.publish("mena", 1)
        server.stop()
        calls = [
            lambda: store.publish("mena", 2, id="second"),
            lambda: store.publish("asia", LARGE),
            lambda: store.publish_many({"europe": 1, "africa": 1}).raise_for_failures(),
            lambda: store.read_latest("mena"),
            lambda: store.read_latest_many(["mena"]),
            lambda: next(iter(store.history("mena"))) if connect is blocking else store.status("mena"),
            store.datasets,
            lambda: store.pin("mena", version=1),
        ]
        with under_way(*calls) as running:
            time.sleep(0.3)
            assert not any(each.done() for each in running)
            server.start()
        with swapstore.connect(server.url) as fresh:
            for name, count in {"mena": 2, "asia": 1, "europe": 1, "africa": 1}.items():
                assert len(invariants.check(fresh, name)) == count
        store.close()


@pytest.mark.slow
@faces
@pytest.mark.parametrize("value", ["small", LARGE], ids=["small", "large"])
def test_an_address_that_leads_nowhere_for_a_while(
    tmp_path: Path, connect: Callable[..., Any], value: str
) -> None:
    """A proxy that accepts and hangs up, until there is a new primary, ends publishes and reads.

    A large payload is even said to be too large for the server.
    """
    with Pair(tmp_path, kinds()["valkey"]) as pair:
        store = connect(pair.url, patience=LONG_S)
        store.publish("mena", "first", id="first")
        pair.synchronise()
        pair.primary.stop()
        with under_way(
            lambda: store.publish("mena", [value], id="second"), lambda: store.read_latest("mena")
        ) as running:
            time.sleep(0.5)
            assert not any(each.done() for each in running)
            with pair.replica.client() as client:
                client.replicaof("NO", "ONE")
            pair.address.target = pair.replica.port
        with swapstore.connect(pair.replica.url) as fresh:
            assert [row.id for row in invariants.check(fresh)] == ["first", "second"]
        store.close()


@faces
def test_a_server_that_loads_its_data_is_waited_for(tmp_path: Path, connect: Callable[..., Any]) -> None:
    """A server that has just been started refuses everything, and every job fails."""
    slow = ("--enable-debug-command", "local", "--loading-process-events-interval-bytes", "1024")
    with Server(tmp_path, *slow) as server, server.client() as admin:
        store = connect(server.url, patience=LONG_S)
        store.publish("mena", 1)
        for number in range(500):
            admin.set(f"filler:{number}", "x" * 100)
        admin.config_set("key-load-delay", 2000)

        def reload() -> None:
            with server.client(socket_timeout=LONG_S) as reloading:
                reloading.execute_command("DEBUG", "RELOAD")

        thread = threading.Thread(target=reload)
        thread.start()
        until(lambda: is_loading(server), "it does not load")
        assert store.read_latest("mena").value == 1
        assert store.publish("mena", 2).version == 2
        thread.join(LONG_S)
        store.close()


def is_loading(server: Server) -> bool:
    with server.client() as client:
        return bool(client.info("persistence")["loading"])


@faces
def test_a_follower_gets_over_it(tmp_path: Path, connect: Callable[..., Any]) -> None:
    """The first step of a follower fails in a restart, or commits after it are not followed."""
    with Server(tmp_path, *AOF) as server:
        store = connect(server.url, patience=LONG_S)
        store.publish("mena", 1)
        server.stop()

        def follow() -> list[int]:
            follower = store.follow("mena", after=0, poll=0.1)
            found = [next(follower).version for _ in range(2)]
            if connect is blocking:
                follower.close()
            return found

        with under_way(follow) as running:
            time.sleep(0.2)
            server.start()
            store.publish("mena", 2)
        assert running[0].result() == [1, 2]
        store.close()


# --- no patience, or not enough --------------------------------------------------------------------


@faces
def test_without_patience_it_raises_at_once(connect: Callable[..., Any]) -> None:
    """A caller that has its own way to wait cannot turn ours off."""
    store = connect(f"redis://127.0.0.1:{free_port()}/0", patience=0)
    began = time.monotonic()
    with pytest.raises(Unavailable, match="cannot connect") as caught:
        store.read_latest("mena")
    assert time.monotonic() - began < 5
    assert "Tried" not in str(caught.value)
    store.close()


@faces
def test_the_error_says_what_was_tried(connect: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    """Nobody knows how long it waited, what for, and whether anything was published."""
    store = connect(f"redis://127.0.0.1:{free_port()}/0", patience=2)
    with pytest.raises(Unavailable) as caught:
        store.publish("mena", 1)
    assert re.search(
        r"cannot connect to redis://127.0.0.1.*Tried \d+ times in \d+\.\d s \(patience: 2 s\)\. "
        r"Nothing was published\.",
        str(caught.value),
    )
    said = [each.getMessage() for each in caplog.records if each.name == "swapstore"]
    assert len(said) == 1
    assert said[0].endswith("Trying for up to 2 s")
    store.close()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="POSIX signals")
def test_a_server_that_does_not_answer_is_told_with_all_the_time_it_took(tmp_path: Path) -> None:
    """A call takes twenty seconds, and its error says ten: patience begins when the first attempt is over."""
    timeout = Timeout(reply=1.2)
    with Server(tmp_path) as server, swapstore.connect(server.url, timeout=timeout, patience=0.5) as store:
        store.publish("mena", 1)
        assert server._process is not None
        server._process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        try:
            with pytest.raises(Unavailable) as caught:
                store.read_latest("mena")
        finally:
            took_s = time.monotonic() - began
            server._process.send_signal(signal.SIGCONT)
        found = re.search(r"in (.*) s, the first for (.*) s \(patience: 0.5 s\)", str(caught.value))
        assert found, str(caught.value)
        assert abs(float(found[1]) - took_s) < 0.3
        assert 1.1 < float(found[2]) < took_s - 1


def test_a_call_with_a_bound_of_its_own_does_not_announce_more(caplog: pytest.LogCaptureFixture) -> None:
    """An operator reads that it is tried for ten seconds, and it is given up after the two of the call."""
    with swapstore.connect(f"redis://127.0.0.1:{free_port()}/0") as store:
        found = store.health({"mena": None}, timeout=2)
    (said,) = [each.getMessage() for each in caplog.records if each.name == "swapstore"]
    assert said.endswith("Trying for up to 2 s")
    error = str(found.datasets["mena"].error)
    assert "within 2 s" in error
    assert "connect(" not in error, "an operator has no such argument"


def test_several_datasets_wait_once(tmp_path: Path) -> None:
    """Each of twenty datasets waits for a server that is down, one after the other."""
    with Server(tmp_path) as server, swapstore.connect(server.url, patience=0.5) as store:
        names = [f"set-{i}" for i in range(20)]
        store.publish_many(dict.fromkeys(names, 0)).raise_for_failures()
        server.stop()
        began = time.monotonic()
        outcomes = store.publish_many(dict.fromkeys(names, 1))
        with pytest.raises(Unavailable):
            store.read_latest_many(names)
        assert time.monotonic() - began < 20 * 0.5
        assert all(type(outcome) is Unavailable for outcome in outcomes.values())


def test_the_time_out_of_a_call_ends_its_patience() -> None:
    """`timeout` does not bound a call any more."""
    waits = Timeout(total=0.5)
    with swapstore.connect(f"redis://127.0.0.1:{free_port()}/0", timeout=waits, patience=LONG_S) as store:
        began = time.monotonic()
        with pytest.raises(Unavailable, match=r"within 0\.5 s.*before that: cannot connect"):
            store.publish("mena", 1)
        assert time.monotonic() - began < 10


def test_a_lost_commit_that_cannot_be_asked_for_is_unknown_in_the_end(tmp_path: Path) -> None:
    """A commit whose reply was lost, with a server that does not come back, is told as not published."""
    with Pair(tmp_path, kinds()["valkey"]) as pair, swapstore.connect(pair.url, patience=0.5) as store:
        store.publish("mena", 1)
        pair.primary.stop()
        with pytest.raises(OutcomeUnknown, match=r"Tried \d+ times"):
            store.publish("mena", 2, id="mine")


def test_a_wrong_password_is_not_waited_for(tmp_path: Path) -> None:
    """A typo in the configuration is found after ten seconds."""
    with Server(tmp_path, "--requirepass", "right") as server:
        url = f"redis://:wrong@127.0.0.1:{server.port}/0"
        began = time.monotonic()
        with swapstore.connect(url, patience=LONG_S) as store, pytest.raises(swapstore.AccessDenied):
            store.read_latest("mena")
        assert time.monotonic() - began < LONG_S / 2


@pytest.mark.parametrize("patience", [-1, float("nan"), float("inf"), True, "10", None, 1e9])
def test_what_patience_may_be(patience: Any) -> None:
    """A wrong value waits for ever, or fails at the first outage only."""
    for connect in (swapstore.connect, swapstore.aio.connect):
        with pytest.raises(InvalidInput, match="patience must be a number of seconds"):
            connect("redis://127.0.0.1:1/0", patience=patience)
