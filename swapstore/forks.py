"""After a fork, locks that another thread held in the parent would stay locked in the child for ever."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Forkable(Protocol):
    """Something with locks."""

    def after_fork(self) -> None:
        """Make every lock anew. Called in the child, which has one thread only."""


_known: weakref.WeakSet[Forkable] = weakref.WeakSet()


def survive_forks(one: Forkable) -> None:
    """Have `one.after_fork()` called in every child process, for as long as it lives."""
    _known.add(one)


def _in_child() -> None:
    for one in list(_known):
        one.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
