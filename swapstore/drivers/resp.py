"""Commands as bytes on the wire (RESP), in as few pieces as pay.

redis-py has the same, and sends what is longer than 6,000 bytes in pieces of its own: each is a system call,
which takes longer than the copying that it saves until values have tens of kilobytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from swapstore.drivers.redis_wire import Frame

MANY = 512
_SIZES = [b"$%d\r\n" % size for size in range(MANY)]  # most words are short: their sizes are written
LARGE = 256 * 1024  # bytes from which on an argument is sent as it is, without being copied


def packed(frames: Iterable[Frame]) -> list[bytes]:
    """Return some commands as pieces to send one after the other."""
    pieces: list[bytes] = []
    small: list[bytes] = []
    for frame in frames:
        small.append(b"*%d\r\n" % len(frame))
        for word in frame:
            kind = type(word)
            if kind is tuple:  # a value in two parts
                first, rest = word
                size = len(first) + len(rest)
                if size < LARGE:
                    small += (b"$%d\r\n" % size, first, rest, b"\r\n")
                else:
                    small += (b"$%d\r\n" % size, first)
                    pieces += (b"".join(small), rest)
                    small = [b"\r\n"]
            else:
                data = word if kind is bytes else word.encode() if kind is str else b"%d" % word
                size = len(data)
                small += (_SIZES[size] if size < MANY else b"$%d\r\n" % size, data, b"\r\n")
    pieces.append(b"".join(small))
    return pieces
