"""Doors: a TLS endpoint before a server that speaks none, as a provider's proxy is.

A door ends the TLS of those who begin it. It passes on what others send as it is: the servers and sentinels
among themselves. So both know a server by the same address.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from pathlib import Path

import redis

from tests.support.valkey import Server, free_port

CERTIFICATE = Path(__file__).parent.parent / "rest" / "tls"  # self-signed, for localhost
HANDSHAKE = b"\x16"


class Door:
    """One address. Counts the connections with TLS, and those of clients without."""

    def __init__(self, port: int, target: int) -> None:
        self._target = target
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(CERTIFICATE / "cert.pem", CERTIFICATE / "key.pem")
        self._listening = socket.create_server(("127.0.0.1", port))
        self._open: set[socket.socket] = set()
        self.secure = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._carry, args=(connection,), daemon=True).start()

    def _carry(self, outside: socket.socket) -> None:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            stack.enter_context(outside)
            if outside.recv(1, socket.MSG_PEEK) == HANDSHAKE:
                outside = stack.enter_context(self._context.wrap_socket(outside, server_side=True))
                self.secure += 1
            inside = stack.enter_context(socket.create_connection(("127.0.0.1", self._target)))
            self._open |= {outside, inside}
            back = threading.Thread(target=_pass_on, args=(inside, outside), daemon=True)
            back.start()
            _pass_on(outside, inside)
            back.join()
            self._open -= {outside, inside}

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for each in list(self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def _pass_on(source: socket.socket, sink: socket.socket) -> None:
    """Pass on what comes until one side ends; then end both."""
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for each in (source, sink):
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


class Guarded(Server):
    """A server that is known by the address of its door. `client` goes around the door."""

    def __init__(self, directory: Path, *options: str, binary: str | None = None) -> None:
        super().__init__(directory, *options, binary=binary)
        self.own_port = free_port()
        self.door = Door(self.port, self.own_port)

    def command_line(self) -> list[str]:
        words = [*super().command_line(), "--replica-announce-port", str(self.port)]
        words[words.index("--port") + 1] = str(self.own_port)
        return words

    def client(self, **options: object) -> redis.Redis:
        return redis.Redis(host="127.0.0.1", port=self.own_port, **options)  # type: ignore[arg-type]
