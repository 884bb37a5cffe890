"""Payloads as zstd frames, for `Content-Encoding: zstd`.

A frame that a record holds is passed on as it is. If the payload is stored plain, as a delta, as a part of
JSON text, or for a text-only endpoint, it is compressed when the first client takes zstd, and the frame is
kept. What does not get smaller is noted as an empty frame, so that it is tried once.

The window of these frames is at most 8 MiB, as RFC 9659 asks for: level 3 uses 2 MiB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore import cache
from swapstore.cache import Cache
from swapstore.format import encodings
from swapstore.single_flight import SingleFlight

if TYPE_CHECKING:
    from collections.abc import Callable

KEPT_BYTES = 64 << 20
SMALLEST = 512  # bytes: a smaller payload fits in one packet anyway
QUICK_BYTES = 256 << 10  # compressed within a millisecond or two: an event loop can wait for that

_kept = cache.frames = Cache(KEPT_BYTES)
_flights: SingleFlight[tuple[bytes, int]] = SingleFlight()


def frame_of(name: str, size: int, payload: Callable[[], bytes]) -> tuple[bytes, int] | None:
    """Return the frame of the payload with this name, and its CRC-32. None: zstd does not make it smaller.

    Threads that need the same frame wait for the first one.
    """
    found = _kept.frame(name)
    if found is None:
        if size < SMALLEST:
            return None
        found = _flights.share(name, lambda: _kept.frame(name) or _compressed(name, payload()))
    return found if found[0] else None


def is_quick(name: str, size: int) -> bool:
    """Whether `frame_of` takes no time that an event loop would notice."""
    return size <= QUICK_BYTES or _kept.frame(name) is not None


def _compressed(name: str, payload: bytes) -> tuple[bytes, int]:
    frame = encodings.encoded_as(payload, "zstd", None).body
    return _kept.keep_frame(name, frame if len(frame) < len(payload) else b"")
