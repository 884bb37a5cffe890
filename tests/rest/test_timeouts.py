"""Every phase of a request has a time-out, and its error says what is known about the batch."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from swapstore import ReplyLost, SwapstoreError, Timeout, Unavailable
from swapstore.commands import Get, Put
from swapstore.drivers.base import LEFT_S
from swapstore.drivers.rest import transport
from tests.rest.support import FACES, QUICK, driver_of, endpoint, request_of
from tests.support.rest import RestServer

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"


def trickle(connection: socket.socket, data: bytes) -> None:
    """Send one byte at a time, each well within the time-out between bytes."""
    for byte in data:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("command", [Get("a"), Put("a", b"x", 1000)])
def test_an_endpoint_that_does_not_answer(face: str, rest: RestServer, command: Get | Put) -> None:
    """A producer hangs forever, or is told that nothing was sent."""
    with driver_of(face, rest.url, rest.token, timeout=QUICK) as driver:
        rest.switches.delay_after(10)
        began = time.monotonic()
        with pytest.raises(ReplyLost, match="did not answer in time"):
            driver.execute([command])
        assert 0.15 < time.monotonic() - began < 5
        assert driver.execute([Put("a", b"y", 1000), Get("a")]) == [None, b"y"]


@pytest.mark.parametrize("face", FACES)
def test_a_call_whose_time_is_over_sends_nothing(face: str, rest: RestServer) -> None:
    """A call lasts its own time-out, and then as long again as a single request may last."""
    with driver_of(face, rest.url, rest.token) as driver:
        over = LEFT_S.set(0.0)
        try:
            with pytest.raises(Unavailable) as caught:
                driver.execute([Put("a", b"x", 1000)])
        finally:
            LEFT_S.reset(over)
        assert type(caught.value) is Unavailable
        assert rest.requests == []
        assert driver.execute([Get("a")]) == [None]


@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize("part", ["headers", "body"])
def test_an_answer_that_trickles(face: str, part: str) -> None:
    """A response that comes byte by byte keeps a producer for hours."""

    def serve(connection: socket.socket) -> None:
        request_of(connection)
        if part == "body":
            connection.sendall(HEAD)
        trickle(connection, HEAD + b" " * 1000)

    with endpoint(serve) as url, driver_of(face, url, timeout=QUICK) as driver:
        began = time.monotonic()
        with pytest.raises(ReplyLost, match="in time"):
            driver.execute([Put("a", b"x", 1000)])
        assert 0.4 < time.monotonic() - began < 5


def wait(over: threading.Event) -> None:
    over.wait(20)


@pytest.mark.parametrize("face", FACES)
def test_an_endpoint_that_does_not_take_the_request(face: str) -> None:
    """A producer hangs while it sends a large payload into a stuck connection."""
    over = threading.Event()
    with endpoint(lambda _: wait(over)) as url, driver_of(face, url, timeout=QUICK) as driver:
        began = time.monotonic()
        with pytest.raises(ReplyLost, match="did not take the request in time|did not answer in time"):
            driver.execute([Put("a", b"x" * 9_000_000, 1000)])
        assert time.monotonic() - began < 5
        over.set()


@pytest.mark.parametrize("face", FACES)
def test_an_endpoint_that_takes_the_request_too_slowly(face: str) -> None:
    """A request that is sent byte by byte keeps a producer for hours."""
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        while connection.recv(4096) and not over.is_set():
            time.sleep(0.01)

    with endpoint(serve) as url, driver_of(face, url, timeout=QUICK) as driver:
        began = time.monotonic()
        with pytest.raises(ReplyLost, match="in time"):
            driver.execute([Put("a", b"x" * 9_000_000, 1000)])
        assert time.monotonic() - began < 5
        over.set()


@pytest.mark.parametrize("face", FACES)
def test_an_upload_whose_waits_are_longer_than_the_call(face: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow endpoint takes each piece in time, and the whole request in any time."""
    monkeypatch.setattr(transport, "SLOWEST", float("inf"))  # all of the time counts as waiting
    over = threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        while connection.recv(64 * 1024) and not over.is_set():
            time.sleep(0.05)

    timeout = Timeout(connect=5, reply=5, total=0.5)
    with endpoint(serve) as url, driver_of(face, url, timeout=timeout) as driver:
        with pytest.raises(ReplyLost, match="did not take the request in time"):
            driver.execute([Put("a", b"x" * 9_000_000, 1000)])
        over.set()


@pytest.mark.parametrize("face", FACES)
def test_an_endpoint_that_cannot_be_reached_in_time(face: str) -> None:
    """The error does not say that nothing was sent, and that it is safe to retry."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        port = deaf.getsockname()[1]
        waiting = [socket.socket() for _ in range(4)]  # they fill the queue, and nothing accepts them
        for each in waiting:
            each.settimeout(0)
            each.connect_ex(("127.0.0.1", port))
        time.sleep(0.05)
        quick = Timeout(connect=0.2, reply=0.2, total=5)
        with (
            driver_of(face, f"http://127.0.0.1:{port}", timeout=quick) as driver,
            pytest.raises(SwapstoreError, match="in time") as caught,
        ):
            driver.execute([Put("a", b"x", 1000)])
        for each in waiting:
            each.close()
    assert type(caught.value) is Unavailable


@pytest.mark.parametrize("face", FACES)
def test_all_connections_in_use(face: str, rest: RestServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that waited for a connection is reported with an unknown outcome, though it was not sent."""
    monkeypatch.setattr("swapstore.drivers.rest.transport.MAX_CONNECTIONS", 1)
    times = Timeout(connect=0.1, reply=5, total=5)
    with driver_of(face, rest.url, rest.token, timeout=times) as driver:
        rest.switches.delay_before(1)
        busy = threading.Thread(target=driver.execute, args=([Get("a")],))
        busy.start()
        while not rest.requests:
            time.sleep(0.001)
        with pytest.raises(Unavailable, match="are in use") as caught:
            driver.execute([Put("a", b"x", 1000)])
        assert type(caught.value) is Unavailable
        busy.join()
        assert driver.execute([Get("a")]) == [None]
