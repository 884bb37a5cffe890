"""Figures as text: times, ages, sizes and counts, for people."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime

_UNITS = (("day", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))


def instant(ts_ms: int, separator: str = "T") -> str:
    """Return a time in ISO form, UTC, to the millisecond, as `--ts` and `--as-of` accept it.

    With a space as the separator, a narrow column wraps between date and time.
    """
    moment = datetime.fromtimestamp(ts_ms // 1000, tz=UTC)
    fraction = f".{ts_ms % 1000:03d}" if ts_ms % 1000 else ""
    return f"{moment:%Y-%m-%d}{separator}{moment:%H:%M:%S}{fraction}Z"


def age(ts_ms: int, now_ms: int | None = None) -> str:
    """Return how long ago a time was, in its two largest units."""
    elapsed_ms = (time.time_ns() // 1_000_000 if now_ms is None else now_ms) - ts_ms
    if abs(elapsed_ms) < _UNITS[-1][1]:
        return "just now"
    return f"{duration(elapsed_ms)} ago" if elapsed_ms > 0 else f"in {duration(-elapsed_ms)}"


def duration(length_ms: int) -> str:
    """Return a duration of a second or more, in its two largest units."""
    words, rest_ms = [], length_ms
    for unit, unit_ms in _UNITS:
        number, rest_ms = divmod(rest_ms, unit_ms)
        if number:
            words.append(f"{number} {unit}{'s' if unit == 'day' and number > 1 else ''}")
        if words and (len(words) == 2 or not number):  # noqa: PLR2004 - two units are precise enough
            break
    return " ".join(words)


def interval(length_ms: int) -> str:
    """Return the time between two moments, however short. It is negative if the clocks disagree."""
    if abs(length_ms) < _UNITS[-1][1]:
        return f"{length_ms} ms"
    return f"{'-' if length_ms < 0 else ''}{duration(abs(length_ms))}"


def size(size_bytes: int) -> str:
    """Return a number of bytes, rounded."""
    for unit, unit_bytes in (("MB", 1_000_000), ("KB", 1_000)):
        if size_bytes >= unit_bytes:
            return f"{size_bytes / unit_bytes:.{1 if size_bytes < 100 * unit_bytes else 0}f} {unit}"
    return f"{size_bytes} B"


def labels(pairs: Mapping[str, str]) -> str:
    """Return labels as `--label` takes them, separated by commas."""
    return ", ".join(f"{key}={value}" for key, value in pairs.items())


def count(number: int, noun: str) -> str:
    """Return a number and its noun, in the plural where it must be."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
