"""A TCP proxy between a client and a server that loses replies on request."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Self


class Relay:
    """Listens on a port, and carries what it accepts in threads, until the test ends."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()

    def _accept(self) -> None:
        """Accept clients until the listener is closed."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._spawn(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._close([self._listener])
        until = time.monotonic() + 5
        alive = True
        while alive and time.monotonic() < until:  # a client that was just accepted is still to be kept
            self._close_kept()
            for thread in list(self._threads):
                thread.join(0.05)
            alive = any(thread.is_alive() for thread in list(self._threads))
        self._close_kept()

    def _close_kept(self) -> None:
        with self._lock:
            kept, self._sockets[:] = self._sockets[:], []
        self._close(kept)

    @staticmethod
    def _close(sockets: list[socket.socket]) -> None:
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _spawn(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()


class Proxy(Relay):
    """Forwards bytes both ways and counts them; drops the connection instead of a reply.

    `lose_reply_of(marker)`: the next request that holds the marker is delivered to the server, its reply
    is read and thrown away, and the client's connection is closed.
    """

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        super().__init__()
        self._marker: bytes | None = None
        self.lost = 0
        self.sent = self.received = 0  # bytes, counted before they are passed on
        self.requests: list[bytes] = []

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def lose_reply_of(self, marker: bytes) -> None:
        self._marker = marker

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                for each in (client, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    self._sockets += [client, server]
                losing = threading.Event()
                self._spawn(self._upwards, client, server, losing)
                self._spawn(self._downwards, client, server, losing)

    def _upwards(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 20):
                self.sent += len(data)
                self.requests.append(data)
                if self._marker is not None and self._marker in data:
                    self._marker = None
                    losing.set()
                server.sendall(data)
            server.shutdown(socket.SHUT_RDWR)

    def _downwards(self, client: socket.socket, server: socket.socket, losing: threading.Event) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 20):
                if losing.is_set():
                    self.lost += 1
                    break
                self.received += len(data)
                client.sendall(data)
            client.shutdown(socket.SHUT_RDWR)
