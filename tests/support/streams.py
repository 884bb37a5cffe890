"""Clients of event streams, and of servers that have to bear bad ones: raw sockets and threads."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self
from urllib.parse import quote

import attrs

TIMEOUT_S = 30


@attrs.frozen
class Event:
    """One server-sent event."""

    kind: str
    id: str | None
    data: Any

    @property
    def version(self) -> Any:
        return self.data.get("version")


class Stream:
    """A stream of events of a dataset. `status` and `headers` are those of the response."""

    def __init__(self, port: int, dataset: str, *, mount: str = "", **headers: str) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        headers = {"Host": "localhost", **headers}
        lines = [f"{name.replace('_', '-')}: {text}" for name, text in headers.items()]
        path = f"{mount}/api/datasets/{quote(dataset, safe='')}/events"
        head = "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""])
        self.socket.sendall(head.encode())
        self._file = self.socket.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        self.headers: dict[str, str] = {}
        while line := self._file.readline().decode().strip():
            name, _, text = line.partition(":")
            self.headers[name.lower()] = text.strip()
        self._rest = b""
        self.comments = 0
        self.retry_ms: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Event:
        """Return the next event. `StopIteration`: the server has ended the stream, in order."""
        while True:
            while b"\n\n" in self._rest:
                block, _, self._rest = self._rest.partition(b"\n\n")
                found = self._parsed(block.decode())
                if found is not None:
                    return found
            line = self._file.readline()
            if not line:
                raise ConnectionResetError("the stream was cut off")
            size = int(line, 16)
            self._rest += self._file.read(size)
            self._file.readline()
            if not size:
                raise StopIteration

    def next(self, kind: str | None = None) -> Event:
        """Return the next event; of a kind, if one is given."""
        return next(each for each in self if kind in {None, each.kind})

    def _parsed(self, block: str) -> Event | None:
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        self.comments += block.startswith(":")
        if "retry" in fields:
            self.retry_ms = int(fields["retry"])
        if "event" not in fields:
            return None
        return Event(fields["event"], fields.get("id"), json.loads(fields["data"]))


@contextmanager
def idle_connections(port: int, count: int, first: bytes = b"") -> Iterator[list[socket.socket]]:
    """Open many connections that send `first`, and nothing else."""
    opened: list[socket.socket] = []
    try:
        for _ in range(count):
            opened.append(socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S))
            if first:
                opened[-1].sendall(first)
        yield opened
    finally:
        for each in opened:
            each.close()


def is_closed(connection: socket.socket) -> bool:
    """Wait until the server has closed a connection. False: it did not in time."""
    connection.settimeout(TIMEOUT_S)
    try:
        while connection.recv(65_536):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass  # reset
    return True
