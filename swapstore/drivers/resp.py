"""Encodes commands as RESP, in few pieces.

redis-py sends each value of more than 6,000 bytes as a piece of its own. Each piece is a system call, which
takes longer than the copy that it saves, up to tens of kilobytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from swapstore.drivers.redis_wire import Frame

MANY = 512
_SIZES = [b"$%d\r\n" % size for size in range(MANY)]  # most words are short: their prefixes are prepared
LARGE = 256 * 1024  # bytes: from this size on, a value is sent as it is, without a copy


def packed(frames: Iterable[Frame]) -> list[bytes]:
    """Return commands as pieces to send one after the other."""
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
