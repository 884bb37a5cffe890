"""Another user, to whom permissions apply: they do not apply to root."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from typing import Any

NOBODY = 65_534


def as_nobody(work: Callable[..., Any], *args: Any) -> Any:
    """Run in a process of the user nobody, or of this user where nobody else may be impersonated."""
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    child = context.Process(target=_work, args=(work, args, results), daemon=True)
    child.start()
    found = results.get(timeout=30)
    child.join(30)
    assert child.exitcode == 0
    return found


def _work(work: Callable[..., Any], args: tuple[Any, ...], results: Any) -> None:
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    try:
        results.put(work(*args))
    except Exception as error:  # noqa: BLE001 - the test looks at it
        results.put(error)
    results.close()
    results.join_thread()
