"""REST over TLS, with a certificate that only some clients trust."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import signal
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from swapstore import ReplyLost, Timeout, Unavailable
from swapstore.commands import Get, Put
from swapstore.drivers.rest import address
from swapstore.drivers.rest.aio import AsyncUpstashDriver
from tests.rest.support import FACES, QUICK, TOKEN, driver_of, endpoint, request_of

HELLO = b"\x16\x03\x03\x40\x00\x02\x00\x3f\xfc\x03\x03"  # a record of 16 KiB with a ServerHello begins
CERTIFICATE = (
    Path(__file__).parent / "tls"
)  # self-signed, for localhost and store.test; the key opens nothing


def over_tls(serve: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE / "cert.pem", CERTIFICATE / "key.pem")

    def wrapped(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as inside:
            serve(inside)

    return wrapped


def answer(connection: socket.socket) -> None:
    """Answer each command with null until there are no more requests."""
    while True:
        items = [{"result": None} for _ in json.loads(request_of(connection))]
        body = json.dumps(items).encode()
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def named(url: str) -> str:
    return url.replace("http://127.0.0.1", "https://localhost")


@pytest.mark.parametrize("face", FACES)
def test_a_certificate_that_is_trusted(face: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No endpoint can be reached in production."""
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE / "cert.pem"))
    with endpoint(over_tls(answer)) as url, driver_of(face, named(url)) as driver:
        assert driver.execute([Get("a"), Get("b")]) == [None, None]
        assert driver.execute([Get("a")]) == [None]


@pytest.mark.parametrize("face", FACES)
def test_a_certificate_that_is_not_trusted(face: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attacker between client and endpoint gets the token."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    seen: list[bytes] = []
    with (
        endpoint(over_tls(lambda connection: seen.append(request_of(connection)))) as url,
        driver_of(face, named(url)) as driver,
        pytest.raises(Unavailable, match="certificate") as caught,
    ):
        driver.execute([Get("a")])
    assert type(caught.value) is Unavailable
    assert seen == []


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("face", FACES)
def test_a_handshake_that_does_not_end(face: str) -> None:
    """A port that accepts connections and stays silent keeps a producer, or its socket, forever."""
    with (
        endpoint(_silent) as url,
        driver_of(face, named(url), timeout=QUICK) as driver,
        pytest.raises((Unavailable, ReplyLost)),
    ):
        driver.execute([Get("a")])
    gc.collect()  # a socket that was left open warns now


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("face", FACES)
@pytest.mark.parametrize(("connect", "total"), [(0.4, 30), (30, 0.4)])
def test_a_handshake_that_trickles(face: str, connect: float, total: float) -> None:
    """A server that sends its part of the handshake byte by byte keeps a producer for hours."""

    def drip(connection: socket.socket) -> None:
        connection.recv(65536)
        for byte in HELLO + b"\0" * 400:  # each well within the time-out for the next byte
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    timeout = Timeout(connect=connect, reply=30, total=total)
    with endpoint(drip) as url, driver_of(face, named(url), timeout=timeout) as driver:
        began = time.monotonic()
        with pytest.raises(Unavailable, match="in time") as caught:
            driver.execute([Put("a", b"x", 1000)])
        assert time.monotonic() - began < 10
    assert type(caught.value) is Unavailable  # nothing was sent
    gc.collect()


@contextlib.contextmanager
def mute() -> Iterator[tuple[str, threading.Event, threading.Event]]:
    """A port that never answers a handshake: its URL, when one has begun, and when its socket is closed."""
    begun, closed = threading.Event(), threading.Event()

    def serve(connection: socket.socket) -> None:
        connection.settimeout(20)
        while connection.recv(65536):
            begun.set()
        closed.set()

    with endpoint(serve) as url:
        yield named(url), begun, closed


def test_a_handshake_that_is_interrupted() -> None:
    """Ctrl-C during a handshake leaves its socket open for as long as anything keeps the traceback."""
    patient = Timeout(connect=60, reply=60, total=60)
    with mute() as (url, begun, closed), driver_of("blocking", url, timeout=patient) as driver:

        def interrupt() -> None:
            begun.wait(20)
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        before = signal.signal(
            signal.SIGINT, signal.default_int_handler
        )  # a job in the background ignores it
        try:
            other = threading.Thread(target=interrupt)
            other.start()
            with pytest.raises(KeyboardInterrupt) as caught:
                driver.execute([Get("a")])
            other.join()
        finally:
            signal.signal(signal.SIGINT, before)
        assert closed.wait(3)
        assert caught.value.__traceback__


def test_a_handshake_that_is_cancelled() -> None:
    """A task that is cancelled during a handshake leaves its socket open."""

    async def main(url: str, begun: threading.Event, closed: threading.Event) -> None:
        driver = AsyncUpstashDriver(address.parse(url, TOKEN, allow_http=False), max_request=10_000)
        task = asyncio.create_task(driver.execute([Get("a")]))
        assert await asyncio.to_thread(begun.wait, 20)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        assert await asyncio.to_thread(closed.wait, 3)
        assert caught.value.__traceback__
        await driver.close()

    with mute() as (url, begun, closed):
        asyncio.run(main(url, begun, closed))


def _silent(connection: socket.socket) -> None:
    connection.settimeout(3)
    while connection.recv(65536):
        pass


def pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("face", FACES)
def test_through_a_proxy(face: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is reached from behind a proxy, or the proxy sees the token."""
    seen: list[bytes] = []
    with endpoint(over_tls(answer)) as behind:
        port = int(behind.rpartition(":")[2])

        def tunnel(connection: socket.socket) -> None:
            seen.append(connection.recv(65536))
            with socket.create_connection(("127.0.0.1", port)) as onward:
                connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=pump, args=(onward, connection))
                back.start()
                pump(connection, onward)
                back.join()

        with endpoint(tunnel) as proxy:
            monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE / "cert.pem"))
            monkeypatch.setenv("HTTPS_PROXY", proxy.replace("://", "://m%40e:p%3Aw@"))
            monkeypatch.setenv("NO_PROXY", "")
            with driver_of(face, f"https://store.test:{port}") as driver:
                assert driver.execute([Get("a")]) == [None]
                assert driver.execute([Get("a")]) == [None]
    (asked,) = seen
    assert asked.startswith(b"CONNECT store.test:")
    assert b"Basic " + b64encode(b"m@e:p:w") in asked
    assert TOKEN.encode() not in asked


@pytest.mark.parametrize("face", FACES)
def test_a_proxy_that_refuses_the_connection(face: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error does not say that the proxy refused, and that nothing was sent."""

    def refuse(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")

    with endpoint(refuse) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy)
        monkeypatch.setenv("NO_PROXY", "")
        with driver_of(face, "https://store.test") as driver, pytest.raises(Unavailable, match="proxy"):
            driver.execute([Get("a")])
