"""Forks: what holds locks renews them in the child, and what no child may inherit is closed before.

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


class Preparing(Forkable, Protocol):
    """An object that holds what a child must not inherit."""

    def before_fork(self) -> None:
        """Give it up. Called in the parent, by the thread that forks."""

    def forked(self) -> None:
        """Go on. Called in the parent, by the same thread, also if the fork failed."""


_registered: weakref.WeakSet[Forkable] = weakref.WeakSet()
_preparing: weakref.WeakSet[Preparing] = weakref.WeakSet()


def survive_forks(holder: Forkable) -> None:
    """Call `holder.after_fork()` in every child process, as long as `holder` exists."""
    _registered.add(holder)


def prepare_for_forks(holder: Preparing) -> None:
    """Call `holder.before_fork()` and `holder.forked()` at every fork, and see `survive_forks`.

    Some programs fork in C and tell Python only in the child: then only `after_fork` is called.
    """
    _preparing.add(holder)
    survive_forks(holder)


def _before() -> None:
    for holder in list(_preparing):
        holder.before_fork()


def _in_parent() -> None:
    for holder in list(_preparing):
        holder.forked()


def _in_child() -> None:
    for holder in list(_registered):
        holder.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
