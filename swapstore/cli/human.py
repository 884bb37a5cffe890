"""Times, ages, sizes and foreign text as a person reads them."""

from __future__ import annotations

import time
from datetime import UTC, datetime

_UNITS = (("day", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))


def instant(ts_ms: int, separator: str = "T") -> str:
    """Return a time in ISO form, UTC, to the millisecond: what `--ts` and `--as-of` take back.

    With a space as the separator a narrow column breaks it between date and time.
    """
    moment = datetime.fromtimestamp(ts_ms // 1000, tz=UTC)
    fraction = f".{ts_ms % 1000:03d}" if ts_ms % 1000 else ""
    return f"{moment:%Y-%m-%d}{separator}{moment:%H:%M:%S}{fraction}Z"


def age(ts_ms: int, now_ms: int | None = None) -> str:
    """Return how long ago a time was, in its two largest units."""
    elapsed = (time.time_ns() // 1_000_000 if now_ms is None else now_ms) - ts_ms
    if abs(elapsed) < _UNITS[-1][1]:
        return "just now"
    return f"{duration(elapsed)} ago" if elapsed > 0 else f"in {duration(-elapsed)}"


def duration(length_ms: int) -> str:
    """Return how long a time is, in its two largest units; of a second or more."""
    words, rest = [], length_ms
    for unit, length in _UNITS:
        count, rest = divmod(rest, length)
        if count:
            words.append(f"{count} {unit}{'s' if unit == 'day' and count > 1 else ''}")
        if words and (len(words) == 2 or not count):  # noqa: PLR2004 - two units say enough
            break
    return " ".join(words)


def size(count: int) -> str:
    """Return a number of bytes, rounded."""
    for unit, length in (("MB", 1_000_000), ("KB", 1_000)):
        if count >= length:
            return f"{count / length:.{1 if count < 100 * length else 0}f} {unit}"
    return f"{count} B"


def labels(pairs: dict[str, str]) -> str:
    """Return labels the way `--label` takes them."""
    return ", ".join(f"{key}={value}" for key, value in pairs.items())


def printable(text: str) -> str:
    """Escape what could steer the terminal: foreign text must not move the cursor or set a title."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
