"""A TCP proxy between a store and its server that delays requests and breaks connections at random."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import Self

from tests.linearizability.chaos import Chaos, Fault

HANDSHAKE = (b"CLIENT", b"HELLO")  # no faults here: they are drawn as `refused`, once for each connection
PAUSE_S = 0.0005  # a request that comes in several pieces has no longer pauses
ANSWER_S = 0.5


class ChaosProxy:
    """Relays connections to a port on this machine; what happens to each request is up to `chaos`.

    When the context ends, all accepted requests have reached the server: nothing arrives later.
    """

    def __init__(self, port: int, chaos: Chaos) -> None:
        self._target = ("127.0.0.1", port)
        self.chaos = chaos
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self._clients: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join()
        for client in self._clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.chaos.refuses():
                    client.close()
                    continue
                self._clients.append(client)
                self._threads.append(threading.Thread(target=self._serve, args=(client,)))
                self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(OSError):
                self._relay(client, server)
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_WR)
                while server.recv(1 << 16):  # the server closes after it has carried out everything
                    pass

    def _relay(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            ready, _, _ = select.select([client, server], [], [])
            if server in ready:
                reply = server.recv(1 << 20)
                self.chaos.delay()
                client.sendall(reply)
                if not reply:
                    return
            if client in ready:
                request = _whole(client)
                if not request:
                    return
                if any(word in request[:60] for word in HANDSHAKE):
                    server.sendall(request)
                    continue
                self.chaos.delay()
                fault = self.chaos.fault()
                if fault is not None:
                    self._break(fault, request, client, server)
                    return
                server.sendall(request)

    def _break(self, fault: Fault, request: bytes, client: socket.socket, server: socket.socket) -> None:
        match fault:
            case "torn":
                server.sendall(request[: len(request) // 2])
            case "late":
                client.close()
                self.chaos.delay(4)
                server.sendall(request)
            case "lost":
                server.sendall(request)
                select.select([server], [], [], ANSWER_S)
                self.chaos.delay()


def _whole(client: socket.socket) -> bytes:
    """Receive a request in any number of pieces; empty: the client closed the connection."""
    request = b""
    while piece := client.recv(1 << 20):
        request += piece
        if not select.select([client], [], [], PAUSE_S)[0]:
            break
    return request
