"""Ctrl-C and SIGTERM end a run in an orderly way: servers are stopped, and the namespace is removed."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_asked = threading.Event()


@contextmanager
def stoppable() -> Iterator[None]:
    """Raise `KeyboardInterrupt` at the first signal; later ones must not interrupt the clean-up."""
    before = {each: signal.signal(each, _stop) for each in SIGNALS}
    _asked.clear()
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def check() -> None:
    """Stop if it was asked for: an exception that a signal raises within a `__del__` is lost."""
    if is_asked():
        raise KeyboardInterrupt


def is_asked() -> bool:
    """Say whether the run is to end."""
    return _asked.is_set()


def _stop(_: int, __: FrameType | None) -> None:
    if not is_asked():
        _asked.set()
        raise KeyboardInterrupt
