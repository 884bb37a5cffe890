"""Interrupts at a chosen line, as Ctrl-C or a soft time limit may come, and threads that must not hang."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

HANGS_S = 60.0  # nothing that works takes that long


class Interrupted(BaseException):
    """What is raised in the thread at the chosen line."""


def interrupted_at(number: int, work: Callable[[], object], *modules: str) -> bool:
    """Run `work`; raise `Interrupted` before it runs its n-th line of these modules, counted from 0.

    False: it has fewer lines. Raises what `work` raises.
    """
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if frame.f_globals.get("__name__") not in modules:
            return None
        if event == "line":
            lines += 1
            if lines == number + 1:
                raise Interrupted
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except Interrupted:
        return True
    finally:
        sys.settrace(before)
    return False


class Threads:
    """Threads, each with its result. `join` fails if one hangs."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self.results: list[Any] = []

    def start(self, work: Callable[..., Any], *arguments: Any) -> threading.Thread:
        def run() -> None:
            try:
                self.results.append(work(*arguments))
            except BaseException as error:  # noqa: BLE001 - it is a result
                self.results.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self._threads.append(thread)
        return thread

    def join(self) -> list[Any]:
        for thread in self._threads:
            thread.join(HANGS_S)
            assert not thread.is_alive(), "it hangs"
        return self.results
