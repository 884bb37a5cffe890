"""The server of `swapstore serve`, and clients that are slow, idle, many, or not clients at all."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import attrs
import pytest

import swapstore
import swapstore.aio
import swapstore.http
from swapstore.errors import InvalidInput
from swapstore.serve.connections import Connection, Connections, Limits
from swapstore.serve.server import LOOPBACK_NAMES, Server, listen, url_of
from tests.serve.test_events import until
from tests.support.streams import Stream, idle_connections, is_closed
from tests.support.web import START_S, Site

LARGE = b"x" * 6_000_000


@attrs.frozen
class Running:
    site: Site
    server: Server
    thread: threading.Thread

    @property
    def connections(self) -> Connections:
        found: Connections = self.server.config.http.args[0]  # type: ignore[union-attr]
        return found

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(START_S)
        assert not self.thread.is_alive()


@pytest.fixture
def running(real_url: str, store: swapstore.Store) -> Callable[..., Any]:
    """Run the server in a thread."""

    @contextmanager
    def run(**limits: Any) -> Iterator[Running]:
        ready = threading.Event()
        served = swapstore.aio.connect(real_url, patience=0)
        app = swapstore.http.app(served)
        server = Server(app, hosts=LOOPBACK_NAMES, limits=Limits(**limits), started=ready.set)

        async def serve() -> None:
            async with served:
                await server.serve([listening])

        with listen("127.0.0.1", 0) as listening:
            thread = threading.Thread(target=asyncio.run, args=(serve(),))
            thread.start()
            made = Running(Site(listening.getsockname()[1]), server, thread)
            try:
                assert ready.wait(START_S)
                yield made
            finally:
                made.stop()

    return run


Run = Callable[..., Any]


def sent(port: int, data: bytes) -> bytes:
    """Return all that a server answers to some bytes, until it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(data)
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
        return answer


GET = b"GET /api/datasets/mena/latest HTTP/1.1\r\nHost: localhost\r\n"


def test_a_head_that_does_not_end_is_not_waited_for(running: Run, store: swapstore.Store) -> None:
    """Clients that send a byte now and then hold as many connections as they like."""
    store.publish("mena", 1)
    with running(head_s=0.3) as server, idle_connections(server.site.port, 3) as (silent, slow, second):
        slow.sendall(GET)
        second.sendall(GET + b"\r\n")
        assert second.recv(65_536).startswith(b"HTTP/1.1 200")
        second.sendall(GET)
        assert is_closed(silent)
        assert is_closed(slow)
        assert is_closed(second)
        assert server.site.get("/api/datasets/mena/latest").json == 1
        with Stream(server.site.port, "mena") as stream:
            stream.next("current")
            with idle_connections(server.site.port, 1) as (later,):
                assert is_closed(later)
            store.publish("mena", 2)
            assert stream.next().version == 2, "a response may take longer than a head"


def test_a_head_that_is_too_large_is_refused(running: Run, store: swapstore.Store) -> None:
    """Headers without an end take memory without an end."""
    store.publish("mena", 1)
    with running(head_bytes=16_384) as server:
        answer = sent(server.site.port, GET + b"X-Large: " + b"x" * 16_384)
        assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
        assert sent(server.site.port, b"\x16\x03\x01 is no HTTP\r\n\r\n").startswith(b"HTTP/1.1 400 ")
        answer = server.site.get("/api/datasets/mena/latest", X_Large="x" * 8000)
        assert (answer.status, answer.headers["Server"]) == (200, None)


def test_idle_connections_make_room(running: Run, store: swapstore.Store) -> None:
    """A few thousand idle connections lock everybody else out."""
    store.publish("mena", 1)
    with running(connections=100) as server, Stream(server.site.port, "mena") as stream:
        stream.next("current")
        with idle_connections(server.site.port, 300) as idle:
            assert server.site.get("/api/datasets/mena/latest").json == 1
            assert all(map(is_closed, idle[:200])), "the oldest"
            assert len(server.connections.idle) + len(server.connections.busy) <= 100
            store.publish("mena", 2)
            assert stream.next().version == 2, "one that is in use is not closed for them"
        until(lambda: not server.connections.idle)
        assert len(server.connections.busy) == 1


def test_the_oldest_request_makes_room_if_no_connection_is_idle(running: Run, store: swapstore.Store) -> None:
    """Somebody who opens as many streams as there may be locks everybody else out."""
    store.publish("mena", 1)
    streams: list[Stream] = []
    with running(connections=64) as server:
        try:
            for _ in range(64):
                streams.append(Stream(server.site.port, "mena"))
                streams[-1].next()
            assert server.site.get("/api/datasets/mena/latest").json == 1
            assert is_closed(streams[0].socket)
            streams[1].next("current")
        finally:
            for stream in streams:
                stream.close()
        until(lambda: not server.connections.busy)


@pytest.mark.parametrize(
    ("soft", "hard", "connections", "files"), [(600, 600, 88, 600), (100, 900, 388, 900)]
)
def test_there_are_no_more_connections_than_files(soft: int, hard: int, connections: int, files: int) -> None:
    """A server that runs out of files takes no client, and no connection to its store."""
    code = f"""
import resource
from swapstore.serve.server import _affordable
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(_affordable(10_000), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(connections), str(files)]


def test_a_response_that_nobody_reads_is_given_up(running: Run, store: swapstore.Store) -> None:
    """Clients that ask for large documents and read none take the memory of the server."""
    store.publish("mena", LARGE, codec="bytes")
    with running(unread_s=0.2) as server:
        assert server.site.get("/api/datasets/mena/latest").body == LARGE
        with idle_connections(server.site.port, 5, GET + b"\r\n") as unread:
            until(lambda: server.connections.busy)
            until(lambda: not (server.connections.busy or server.connections.idle))
            assert all(map(is_closed, unread))


def test_a_slow_reader_is_not_given_up() -> None:
    """A download over a slow line is cut off after some time."""
    left, aborted = [900], []

    class Transport:
        def get_write_buffer_size(self) -> int:
            return left[0]

        def abort(self) -> None:
            aborted.append(left[0])

    class Loop:
        def call_later(self, _: float, *call: Any) -> tuple[Any, ...]:
            return call

    connection: Any = Connection.__new__(Connection)
    connection.transport, connection.loop = Transport(), Loop()
    connection._limits, connection._unread_timer = Limits(), None

    def time_passes(size: int) -> None:
        look, before = connection._unread_timer
        left[0] = size
        look(before)

    connection._watch_unread()
    for size in (800, 799, 1, 0):
        time_passes(size)
        assert not aborted
    assert connection._unread_timer is None
    left[0] = 5
    connection._watch_unread()
    time_passes(5)
    assert aborted == [5]


@pytest.mark.parametrize("rest", [b"zz\r\n", b"1\r\nab\r\n"])
def test_a_broken_body_is_no_error_of_the_server(
    running: Run, rest: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A client fills the log of the server with tracebacks."""
    with running() as server:
        head = b"PUT /api/datasets/mena HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        with idle_connections(server.site.port, 1, head + rest) as (broken,):
            assert is_closed(broken)
        assert server.site.get("/api/datasets").status == 200
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


def test_small_responses_are_not_held_back(running: Run) -> None:
    """A response of two small writes takes 40 ms: the second waits until the client confirms the first."""
    with running() as server, idle_connections(server.site.port, 1):
        until(lambda: server.connections.idle)
        (connection,) = server.connections.idle
        accepted = connection.transport.get_extra_info("socket")
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_requests_that_come_together_are_answered_in_order(running: Run, store: swapstore.Store) -> None:
    """A request that came while another one was answered waits for a time-out, or is taken for idle."""
    store.publish("mena", 1)
    with running(head_s=1) as server:
        closing = GET + b"Connection: close\r\n\r\n"
        answer = sent(server.site.port, (GET + b"\r\n") * 20 + closing)
        assert answer.count(b"HTTP/1.1 200 OK") == 21
        until(lambda: not (server.connections.busy or server.connections.idle))


def test_a_stream_that_was_asked_for_early_is_no_slow_head(running: Run, store: swapstore.Store) -> None:
    """A stream ends after some seconds if its request came before the response to another one."""
    store.publish("mena", 1)
    asked = b"GET /api/datasets/mena/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with (
        running(head_s=0.3) as server,
        idle_connections(server.site.port, 1, GET + b"\r\n" + asked) as (both,),
    ):
        until(lambda: b"event: current" in both.recv(65_536))
        with idle_connections(server.site.port, 1) as (later,):
            assert is_closed(later)
        store.publish("mena", 2)
        until(lambda: b"id: 2" in both.recv(65_536))


def test_streams_end_when_the_server_stops(
    running: Run, store: swapstore.Store, caplog: pytest.LogCaptureFixture
) -> None:
    """A server with a dashboard open does not stop, or leaves a traceback for each."""
    store.publish("mena", LARGE, codec="bytes")
    with running(shutdown_s=0.5) as server:
        streams = [Stream(server.site.port, "mena") for _ in range(5)]
        with idle_connections(server.site.port, 3, GET + b"\r\n"):  # nobody reads these
            until(lambda: len(server.connections.busy) == 8)
            server.stop()
        for stream in streams:
            assert [each.kind for each in stream] == ["served", "current"]
            stream.close()
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


def test_a_request_that_takes_too_long_does_not_keep_the_server(
    running: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server whose store hangs does not stop, or leaves a traceback."""

    async def hang(*_: Any, **__: Any) -> None:
        await asyncio.sleep(3600)

    monkeypatch.setattr(swapstore.aio.AsyncStore, "health", hang)
    request = b"GET /api/datasets HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with running(shutdown_s=0.1) as server, idle_connections(server.site.port, 1, request):
        until(lambda: server.connections.busy)
        server.stop()
    assert [each for each in caplog.records if each.levelno >= logging.ERROR] == []


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "localhost.evil.example", "", "[::2]"])
def test_other_names_of_this_machine_are_refused(running: Run, host: str) -> None:
    """A page of anybody reads what only this machine may, by a name that leads here."""
    with running() as server:
        answer = server.site.get("/api/datasets", Host=host)
        assert answer.status == 421
        assert "--allowed-host" in answer.json["detail"]
        for ours in ("localhost", "LOCALHOST:1", "127.0.0.1:80", "[::1]:8000"):
            assert json.loads(server.site.get("/api/datasets", Host=ours).body) == {"datasets": []}


def test_an_address_that_cannot_be_used_says_why() -> None:
    """A traceback, or a server that listens somewhere else."""
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert url_of(taken) == f"http://127.0.0.1:{port}"
        with pytest.raises(InvalidInput, match=f"port {port}: another process"):
            listen("127.0.0.1", port)
    for host, number in (("not a host", 0), ("", 70_000), ("192.0.2.1", 0)):
        with pytest.raises(InvalidInput):
            listen(host, number)
