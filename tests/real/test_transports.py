"""The Redis protocol over every kind of connection."""

from __future__ import annotations

import contextlib
import os
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import swapstore
from swapstore.commands import Ask
from swapstore.drivers.redis.driver import RedisDriver
from swapstore.errors import ReplyLost
from tests.rest.test_tls import CERTIFICATE
from tests.support import invariants
from tests.support.valkey import Server

PAYLOAD = os.urandom(700_000)


def works(url: str, server: str) -> None:
    """Publish and read, small and large; `server` is the plain URL of the same server.

    The invariants are checked there: redis-py takes a new TLS connection on which nothing was asked yet for
    one with a reply left on it, if the server's session tickets are slow.
    """
    with swapstore.connect(url) as store, swapstore.connect(url) as reader:
        for payload in (b"small", PAYLOAD, b""):
            store.publish("mena", payload, codec="bytes")
            found = reader.read_latest("mena")
            assert found is not None
            assert found.raw == payload
    with swapstore.connect(server) as plain:
        assert len(invariants.check(plain)) == 3


def test_a_socket_file(tmp_path: Path) -> None:
    """A server on the same machine cannot be reached through its socket file."""
    path = tmp_path / "s"
    with Server(tmp_path / "server", "--unixsocket", str(path)) as server:
        works(f"unix://{path}", server.url)


def test_tls(valkey: Server) -> None:
    """A hosted server cannot be reached through TLS, which buffers bytes that the socket has delivered."""
    with tls_in_front_of(valkey) as port:
        works(f"rediss://localhost:{port}?ssl_ca_certs={CERTIFICATE / 'cert.pem'}", valkey.url)


def test_the_time_out_of_a_reply_over_tls(valkey: Server) -> None:
    """A server that hangs is waited for as long as connecting may take."""
    with tls_in_front_of(valkey) as port:
        times = "&socket_connect_timeout=30&socket_timeout=0.05"
        url = f"rediss://localhost:{port}?ssl_ca_certs={CERTIFICATE / 'cert.pem'}"
        with closing(RedisDriver.from_url(url + times)) as quick, pytest.raises(ReplyLost):
            quick.execute([Ask(("BLPOP", "nothing", "9"))])


@contextlib.contextmanager
def tls_in_front_of(server: Server) -> Iterator[int]:
    """A TLS port that forwards to a server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE / "cert.pem", CERTIFICATE / "key.pem")
    threads: list[threading.Thread] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    threads.append(threading.Thread(target=forward, args=(connection,)))
                    threads[-1].start()

        def forward(connection: socket.socket) -> None:
            with (
                contextlib.suppress(OSError),
                context.wrap_socket(connection, server_side=True) as inside,
                socket.create_connection(("127.0.0.1", server.port)) as outside,
            ):
                pump(inside, outside)

        threads.append(threading.Thread(target=accept))
        threads[0].start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(10)


def pump(inside: ssl.SSLSocket, outside: socket.socket) -> None:
    """Forward bytes both ways until one side ends."""
    while True:
        ready = [inside] if inside.pending() else select.select([inside, outside], [], [])[0]
        for source in ready:
            data = source.recv(65536)
            if not data:
                return
            (outside if source is inside else inside).sendall(data)


@pytest.mark.parametrize("protocol", ["2", "3"])
def test_a_protocol_that_the_url_names(valkey: Server, protocol: str) -> None:
    """A message on RESP3 that is not a reply is taken for one."""
    works(f"{valkey.url}?protocol={protocol}", valkey.url)
