"""Doors: a TLS endpoint before a server that speaks none, as a provider's proxy is.

A door ends the TLS of those who begin it. It passes on what others send as it is: the servers and sentinels
among themselves. So both know a server by the same address.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
from pathlib import Path
from typing import Self

import redis

from tests.support.deployment import Switch
from tests.support.valkey import Server

CERTIFICATE = Path(__file__).parent.parent / "rest" / "tls"  # self-signed, for localhost
HANDSHAKE = b"\x16"


class Door(Switch):
    """One address before a server. `secure`: how many connections began with TLS."""

    def __init__(self, target: int) -> None:
        super().__init__(target)
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(CERTIFICATE / "cert.pem", CERTIFICATE / "key.pem")
        self.secure = 0

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._spawn(self._carry, client)

    def _carry(self, client: socket.socket) -> None:
        self._keep(client)
        with contextlib.suppress(OSError):
            if client.recv(1, socket.MSG_PEEK) == HANDSHAKE:
                client = self._keep(self._context.wrap_socket(client, server_side=True))
                self.secure += 1
            server = self._keep(socket.create_connection(("127.0.0.1", self.target)))
            self._spawn(self._forward, client, server)
            self._forward(server, client)

    def _keep(self, connection: socket.socket) -> socket.socket:
        with self._lock:
            self._sockets.append(connection)
        return connection


class Guarded(Server):
    """A server that is known by the address of its door, and started once. `client` goes around the door."""

    def __init__(self, directory: Path, *options: str, binary: str | None = None) -> None:
        super().__init__(directory, *options, binary=binary)
        self.own_port = self.port
        self.door = Door(self.own_port)
        self.port = self.door.port

    def start(self, *, wait: bool = True) -> Self:
        self.door.__enter__()
        return super().start(wait=wait)

    def stop(self) -> None:
        super().stop()
        self.door.__exit__()

    def command_line(self) -> list[str]:
        words = [*super().command_line(), "--replica-announce-port", str(self.port)]
        words[words.index("--port") + 1] = str(self.own_port)
        return words

    def client(self, **options: object) -> redis.Redis:
        return redis.Redis(host="127.0.0.1", port=self.own_port, **options)  # type: ignore[arg-type]
