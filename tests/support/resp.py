"""A connection that speaks the Redis protocol and keeps every part of a reply.

redis-py drops the code of an error (`ERR`, `NOSCRIPT`) and makes one type of a status and a string. The REST
server must pass on both unchanged.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import Any

import attrs

TIMEOUT_S = 30.0


class Status(bytes):
    """A simple string: `OK`, `PONG`."""

    __slots__ = ()


@attrs.frozen
class Failure:
    """An error reply, with its code."""

    text: str


class Wire:
    """One connection. A reply is a Status, bytes, an int, None, a Failure or a list of these."""

    def __init__(self, port: int, *, database: int = 0) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._file = self._socket.makefile("rb")
        if database:
            self.ask("SELECT", database)

    def ask(self, *command: bytes | str | int) -> Any:
        """Send a command and wait for its reply. Nothing is ever sent twice."""
        return self.ask_all([command])[0]

    def ask_all(self, commands: Sequence[Sequence[bytes | str | int]]) -> list[Any]:
        """Send several commands in one batch."""
        self._socket.sendall(b"".join(map(_packed, commands)))
        return [self._read() for _ in commands]

    def close(self) -> None:
        self._file.close()
        self._socket.close()

    def _read(self) -> Any:
        line = self._file.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionError("the server closed the connection")
        kind, rest = line[:1], line[1:-2]
        match kind:
            case b"+":
                return Status(rest)
            case b"-":
                return Failure(rest.decode("utf-8", "replace"))
            case b":":
                return int(rest)
            case b"$":
                return None if rest == b"-1" else self._exactly(int(rest) + 2)[:-2]
            case b"*":
                return None if rest == b"-1" else [self._read() for _ in range(int(rest))]
            case _:
                raise ValueError(f"not a reply: {line[:80]!r}")

    def _exactly(self, size: int) -> bytes:
        data = self._file.read(size)
        if len(data) < size:
            raise ConnectionError("the server closed the connection")
        return data


def _packed(command: Sequence[bytes | str | int]) -> bytes:
    parts = [b"*%d\r\n" % len(command)]
    for each in command:
        argument = each if isinstance(each, bytes) else str(each).encode()
        parts += [b"$%d\r\n" % len(argument), argument, b"\r\n"]
    return b"".join(parts)
