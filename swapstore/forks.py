"""Forks: renew locks in the child process.

A lock that another thread of the parent held during the fork would stay locked in the child permanently.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """An object that holds locks."""

    def after_fork(self) -> None:
        """Renew every lock. Called in the child, while it has only one thread."""


_registered: weakref.WeakSet[Forkable] = weakref.WeakSet()


def survive_forks(holder: Forkable) -> None:
    """Call `holder.after_fork()` in every child process, as long as `holder` exists."""
    _registered.add(holder)


def _in_child() -> None:
    for holder in list(_registered):
        holder.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
