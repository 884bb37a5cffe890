"""Last good through outages of real stores: servers that hang or come back with less, endpoints."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import swapstore
from swapstore import Misconfigured, Snapshot, Store, Unavailable
from tests.support.deployment import until
from tests.support.interrupts import Threads
from tests.support.rest import RestServer
from tests.support.traffic import Blocking
from tests.support.valkey import Server

HOUR = 3600
BOUND_S = 15.0  # for a read with a time-out of half a second, on a busy machine


def blocking(url: str, **options: Any) -> Store:
    return swapstore.connect(url, **options)


faces = pytest.mark.parametrize("connect", [blocking, Blocking], ids=["blocking", "asyncio"])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of this test's own, which is stopped as often as the test likes."""
    with Server(tmp_path / "server") as running:
        yield running


def publish(server: Server, *values: int) -> None:
    with swapstore.connect(server.url) as producer:
        for value in values:
            producer.publish("mena", value)


def read(store: Any, **options: Any) -> Snapshot:
    began = time.monotonic()
    found = store.read_latest("mena", stale_if_error=HOUR, **options)
    assert time.monotonic() - began < BOUND_S
    assert found is not None
    return found  # type: ignore[no-any-return]


@pytest.mark.server
@faces
def test_a_server_that_dies_and_comes_back_empty_or_older(
    server: Server, connect: Callable[..., Any]
) -> None:
    """Readers go dark with the server, or are served what it does not have any more once it is back."""
    publish(server, 1)
    with server.client() as look:
        backup = {key: look.dump(key) for key in look.keys()}  # noqa: SIM118
    publish(server, 2)
    store = connect(server.url, patience=0.2)
    fresh = read(store)
    assert (fresh.value, fresh.stale) == (2, False)
    server.stop()
    for _ in range(3):
        served = read(store)
        assert (served.value, served.stale) == (2, True)
        assert served.seen_at <= time.time() * 1000
        assert served.seen_at - fresh.seen_at < 1000
    server.start()
    assert store.read_latest("mena", stale_if_error=HOUR) is None
    server.stop()
    with pytest.raises(Unavailable):
        store.read_latest("mena", stale_if_error=HOUR)
    server.start()
    publish(server, 1, 2)
    assert not read(store).stale
    with server.client() as look:
        look.flushall()
        for key, value in backup.items():
            look.restore(key, 0, value)
    restored = read(store)
    assert (restored.value, restored.stale) == (1, False)
    server.stop()
    assert (read(store).value, read(store).stale) == (1, True)
    store.close()


@pytest.mark.server
@faces
def test_a_server_that_hangs(server: Server, connect: Callable[..., Any]) -> None:
    """Each reader hangs for its time-out and its patience, and a hundred threads hang with it."""
    publish(server, 1)
    store = connect(server.url, timeout=0.5, patience=60.0)
    read(store)
    assert server._process is not None
    os.kill(server._process.pid, signal.SIGSTOP)
    try:
        readers = Threads()
        for _ in range(20):
            readers.start(lambda: read(store).stale)
        assert all(readers.join())
        assert read(store).stale
    finally:
        os.kill(server._process.pid, signal.SIGCONT)
    until(lambda: not read(store).stale, "a fresh read")
    publish(server, 2)
    assert (read(store).value, read(store).stale) == (2, False)
    store.close()


@pytest.mark.server
@pytest.mark.parametrize("failure", ["500", "503", "silence", "gone"])
@faces
def test_a_rest_endpoint_that_fails(valkey: Server, connect: Callable[..., Any], failure: str) -> None:
    """Readers over REST go dark when their provider has an incident."""
    publish(valkey, 1)
    with RestServer(valkey) as rest:
        store = connect(rest.url, token=rest.token, timeout=0.5)
        read(store)
        match failure:
            case "silence":
                rest.switches.delay_before(1.0, times=100)
            case "gone":
                rest.switches.drop_before(times=100)
            case status:
                rest.switches.answer(int(status), "incident", times=100)
        for _ in range(2):
            assert read(store).stale
        with pytest.raises(Unavailable):
            store.read_latest("mena")
        rest.switches.reset()
        assert not read(store).stale
        store.close()


def test_a_sqlite_file_that_is_gone(tmp_path: Path) -> None:
    """A directory that does not exist is no outage: nobody knows whether it comes back by itself."""
    place = tmp_path / "mounted"
    place.mkdir()
    with swapstore.connect(f"sqlite:///{place}/s.db") as store:
        store.publish("mena", 1)
        read(store)
        place.rename(tmp_path / "elsewhere")
        with pytest.raises(Misconfigured):
            read(store)
        (tmp_path / "elsewhere").rename(place)
        assert not read(store).stale


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.server
def test_a_child_serves_what_its_parent_has_seen(server: Server) -> None:
    """A server reads before it forks, and the workers that start in an outage have nothing to serve."""
    publish(server, 1)
    with swapstore.connect(server.url, cache_bytes=0) as store:
        read(store)
        server.stop()
        assert read(store).stale
        child = os.fork()
        if child == 0:
            code = 1
            try:
                code = 0 if read(store).stale else 2
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
