"""Small times for tests that only need an order: `at(5)` is five milliseconds after the beginning of 1970."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import overload

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@overload
def at(ms: int) -> datetime: ...


@overload
def at(ms: int | None) -> datetime | None: ...


def at(ms: int | None) -> datetime | None:
    """Return the moment so many milliseconds after the epoch. An int that small is taken for seconds."""
    return None if ms is None else _EPOCH + timedelta(milliseconds=ms)


def soon() -> int:
    """Return a time an hour from now, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000 + 3_600_000
