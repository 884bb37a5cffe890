"""Watch: look at some datasets again and again, at once after a hint, and at all of them every `poll`.

Followers and views are built on it. A hint says that a dataset has changed; it costs time if it is lost, and
nothing else, because of the looks at all. A watch subscribes before its last look at all, so that a commit
between that look and the wait ends the wait.

In an outage it looks again after pauses that double up to `poll`, and logs one warning.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from swapstore import arguments
from swapstore.commands import Failed, Members, Peek
from swapstore.errors import SwapstoreError
from swapstore.protocol.load import ask_all
from swapstore.protocol.operation import Listen, Operation, Within
from swapstore.structs import Struct

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from swapstore.commands import Command
    from swapstore.protocol.context import Context

T = TypeVar("T")

LOG = logging.getLogger("swapstore")
LOOK_S = 5.0  # what a look may wait in vain: a server that says nothing is an outage
NAMES_TOLD = 20
FIRST_WAIT_S = 0.05  # between two looks in an outage; doubles up to `poll`


class Looked(Struct, Generic[T], frozen=True):
    """What a look found. `again`: the datasets to look at once more before the next wait.

    `failure`: at least one dataset could not be looked at.
    """

    found: list[T]
    again: frozenset[str] = frozenset()
    failure: SwapstoreError | None = None


def of(names: Sequence[str], prefix: str | None) -> str:
    """Return what is watched, for a message."""
    if prefix is not None:
        return f"datasets {prefix}…"
    return f"dataset {names[0]!r}" if len(names) == 1 else f"{len(names)} datasets"


def warn_of_lost(ctx: Context, names: Sequence[str]) -> Operation[None]:
    """Log which of these datasets, of which something was published, are gone though nobody has dropped them.

    The list of names tells: the last step of a drop but one takes a name off it. An empty list is that of a
    store that was emptied, or whose last dataset was dropped.
    """
    if not names:
        return
    asked: list[Command[Any]] = [Peek(ctx.keys.manifest(name), 1) for name in names]
    with suppress(SwapstoreError):
        *manifests, listed = yield from ask_all(ctx, [*asked, Members(ctx.keys.datasets())])
        if isinstance(listed, Failed):
            return
        lost = [
            name
            for name, found in zip(names, manifests, strict=True)
            if found == b"" and (name in listed or not listed)
        ]
        if lost:
            LOG.warning(
                "%s: the store has nothing of it any more, and nobody has dropped it%s. "
                "Was the store emptied, or restarted without persistence?",
                of(lost, None) if len(lost) == 1 else f"datasets {', '.join(lost[:NAMES_TOLD])}",
                "" if listed else " (unless it was the last one)",
            )


class Watch(Generic[T]):
    """Iterate over what is found. Each step looks, or waits; it never ends.

    `prefix`: datasets of other names are watched too if they begin with it; None: there are none. `poll_s`:
    the longest time from one look at all to the next, in seconds.
    """

    _done = "watched"  # what is done with them, for the log

    def __init__(
        self, ctx: Context, names: Sequence[str], *, prefix: str | None = None, poll_s: float
    ) -> None:
        self._ctx = ctx
        self._what = of(names, prefix)
        self._poll_s = poll_s
        self._prefix = prefix
        self._before_name = ctx.keys.manifest("").removesuffix("}")
        self._channels = tuple(ctx.keys.manifest(name) for name in names)
        self._pattern = "" if prefix is None else f"{self._before_name}{prefix}*"
        self._due: frozenset[str] | None = None  # what to look at next; None: at all
        self._all_due_at = 0.0  # when to look at all, in monotonic seconds
        self._failures = 0

    def look(self, due: Collection[str] | None) -> Operation[Looked[T]]:
        """Look at these datasets. None: at all. An outage is no error, but the `failure` in the result."""
        raise NotImplementedError

    def step(self) -> Operation[list[T] | None]:
        """Return what was found, perhaps nothing."""
        began = self._ctx.clock.monotonic()
        if self._due is not None and began >= self._all_due_at:
            self._due = None
        due, self._due = self._due, None  # after an error, the next step looks at all
        yield Within(LOOK_S, patient=False)
        looked = yield from self.look(due)
        self._note(looked.failure, began, everywhere=due is None)
        if looked.found or looked.again:
            self._due = looked.again
            return looked.found
        seconds = max(0.0, self._all_due_at - self._ctx.clock.monotonic())
        hinted = yield Listen(seconds, self._channels, self._pattern)
        if hinted:
            self._due = frozenset(self._named(hinted))
        return []

    def _named(self, channels: Iterable[str]) -> Iterator[str]:
        """Return the datasets of these channels. Others may publish on channels that a pattern matches."""
        for channel in channels:
            name = channel[len(self._before_name) : -1]
            if self._ctx.keys.manifest(name) == channel and arguments.is_dataset(name):
                yield name

    def _note(self, failure: SwapstoreError | None, began: float, *, everywhere: bool) -> None:
        """Plan the next look at all. Log the beginning of an outage, because no caller gets an error."""
        if failure is not None:
            if not self._failures:
                LOG.warning(
                    "%s cannot be %s now: %s; retrying until it can be",
                    self._what,
                    self._done,
                    failure.args[0],
                )
            bound = min(self._poll_s, FIRST_WAIT_S * 2 ** min(self._failures, 30))
            asked_for = getattr(failure, "retry_after_s", None) or 0.0  # of `Throttled`
            self._failures += 1
            pause_s = max(asked_for, self._ctx.random.uniform(bound / 2, bound))
            self._all_due_at = self._ctx.clock.monotonic() + pause_s
        elif everywhere:
            if self._failures:
                self._failures = 0
                LOG.info("%s can be %s again", self._what, self._done)
            self._all_due_at = began + self._poll_s * self._ctx.random.uniform(0.5, 1)
