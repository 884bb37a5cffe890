"""What goes through a socket that redis-py has opened: bytes of commands one way, replies (RESP2) the other.

redis-py's own reader takes as long for a reply as the server does. This one does the same in fewer calls, of
Python's and of the kernel's, for it knows what it waits for: one reply a command, and nothing else.
"""

from __future__ import annotations

import select
from typing import TYPE_CHECKING, Any

from redis import exceptions as raised

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Sequence

END = len(b"\r\n")
AT_ONCE = 128 * 1024  # bytes to ask the kernel for: it has seldom more


class Link:
    """One socket, and what came through it and was not read yet."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self._arrivals = select.poll()
        self._arrivals.register(opened, select.POLLIN)
        self._decrypted: Callable[[], int] = getattr(opened, "pending", int)  # TLS holds some back
        self._data = b""
        self._at = 0

    def is_quiet(self) -> bool:
        """Say whether nothing came that nobody asked for. The end of the connection is such a thing."""
        return not (self.holds_more or self._arrivals.poll(0) or self._decrypted())

    @property
    def holds_more(self) -> bool:
        """Whether more came than was asked for: what comes next would be taken for another's reply."""
        return self._at != len(self._data)

    def exchange(self, pieces: Sequence[bytes], count: int) -> list[Any]:
        """Send `count` commands and read as many replies: values, or the errors that came as replies.

        Raises what the socket raises. Then it is not known what was carried out, and this link is of no use.
        """
        send = self._socket.sendall
        for piece in pieces:
            send(piece)
        try:
            return [self._reply() for _ in range(count)]
        except ValueError as error:
            raise _no_reply() from error

    def _reply(self) -> Any:
        line = self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"$":
            return None if rest == b"-1" else self._bytes(int(rest))
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        if kind == b"*":
            return None if rest == b"-1" else [self._reply() for _ in range(int(rest))]
        if kind == b"-":
            text = rest.decode("utf-8", "replace")
            return (raised.NoScriptError if text.startswith("NOSCRIPT") else raised.ResponseError)(text)
        raise _no_reply()

    def _line(self) -> bytes:
        while (end := self._data.find(b"\r\n", self._at)) < 0:
            self._data, self._at = self._data[self._at :] + self._more(AT_ONCE), 0
        line = self._data[self._at : end]
        self._at = end + END
        return line

    def _bytes(self, size: int) -> bytes:
        """Read a value, and the end of line behind it."""
        begin, end = self._at, self._at + size
        if end + END <= len(self._data):
            self._at = end + END
            return self._data[begin:end]
        parts = [self._data[begin:]]
        missing = end + END - len(self._data)
        while missing > 0:
            parts.append(self._more(min(missing, AT_ONCE)))
            missing -= len(parts[-1])
        self._data, self._at = b"", 0
        if len(parts[-1]) >= END:
            parts[-1] = parts[-1][:-END]
            return b"".join(parts)
        return b"".join(parts)[:-END]

    def _more(self, size: int) -> bytes:
        data = self._socket.recv(size)
        if not data:
            raise ConnectionResetError("the server closed the connection")
        return data


def _no_reply() -> raised.InvalidResponse:
    return raised.InvalidResponse("the server sent what is no reply")
