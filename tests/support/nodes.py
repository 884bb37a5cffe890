"""Nodes of a cluster, or sentinels, whose every answer a test decides. They listen on loopback.

They show what real servers show only while a network is divided, or for a moment.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Any, Self

Words = list[str]
Answer = Callable[[Words], Any]


class Refusal(str):
    """An error reply, with its code."""

    __slots__ = ()


def packed(value: Any) -> bytes:
    """A reply as bytes on the wire."""
    if isinstance(value, Refusal):
        return b"-%s\r\n" % value.encode()
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, list | tuple):
        return b"*%d\r\n%s" % (len(value), b"".join(map(packed, value)))
    data = value if isinstance(value, bytes) else value.encode()
    return b"$%d\r\n%s\r\n" % (len(data), data)


class Node:
    """A server that answers what `answer` returns for the words of a command; `asked` has all of them."""

    def __init__(self, answer: Answer | None = None, host: str = "127.0.0.1") -> None:
        self.answer: Answer = answer or (lambda _: "OK")
        self.asked: list[Words] = []
        self.open = 0  # connections
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listening = socket.create_server((host, 0), family=family)
        self._sockets: list[socket.socket] = []
        self.address: tuple[str, int] = (host, self._listening.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Close its connections, and accept no more."""
        for each in (self._listening, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def count(self, *words: str) -> int:
        """How often it was asked this."""
        return sum(each[: len(words)] == list(words) for each in list(self.asked))

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                self._sockets.append(client)
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        self.open += 1
        with contextlib.suppress(OSError), client, client.makefile("rb") as stream:
            while line := stream.readline():
                words = []
                for _ in range(int(line[1:])):
                    size = int(stream.readline()[1:])
                    words.append(stream.read(size + 2)[:-2].decode())
                self.asked.append(words)
                client.sendall(packed(self.answer(words)))
        self.open -= 1


def slots(*ranges: tuple[int, int, Node], host: str | None = "127.0.0.1") -> list[Any]:
    """A reply to `CLUSTER SLOTS`: each range of slots with its primary, whose host is told as `host`."""
    return [[first, last, [host, node.address[1], f"id-{node.address[1]}"]] for first, last, node in ranges]
