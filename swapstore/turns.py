"""Turns: the operations of one client that swap the same dataset queue, in the order of arrival.

A hundred producers that all draft the same version would waste ninety-nine drafts. `Place` is for threads,
`AsyncPlace` for the tasks of an event loop.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any

from swapstore.forks import survive_forks

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Hashable

    from swapstore.protocol.operation import Turn

PATIENCE_S = 10.0  # how long an operation waits behind one that makes no progress
LOOK_S = 0.5  # how often a waiting thread looks by itself, should nobody wake it
LOOKS = round(PATIENCE_S / LOOK_S)  # counted, so that a clock that stands still does not matter


class _Busy:
    """The threads in which an operation waits for no other thread, because that one may wait for it.

    Such a thread has a turn, or loads for others. What it calls then (a validator, a listener for events, a
    signal handler, a finalizer) may call the store again.
    """

    def __init__(self) -> None:
        self.threads: set[int] = set()
        survive_forks(self)

    def after_fork(self) -> None:
        """Forget the other threads: they do not exist in the child."""
        self.threads &= {get_ident()}


busy = _Busy()


class Turns:
    """The queues of one client: the places of the operations that swap a dataset, in the order of arrival.

    Threads share it. Each change is one step of a dict or a deque, which is atomic: there is no lock that an
    interrupt could leave locked, or that a signal handler could find locked by its own thread.
    """

    def __init__(self) -> None:
        self.queues: dict[Hashable, deque[Any]] = {}
        survive_forks(self)

    def after_fork(self) -> None:
        """Start empty in a child process: the threads that wait do not exist there."""
        self.queues = {}


class _Standing:
    """The place of one operation in the queues of its datasets."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns
        self._joined: list[tuple[Hashable, deque[Any]]] = []

    def _join(self, name: Hashable) -> deque[Any]:
        queue = self._turns.queues.setdefault(name, deque())
        self._joined.append((name, queue))  # first: what is not in the queue yet can leave it
        queue.append(self)
        return queue

    def leave(self) -> None:
        """End the turns, and wake the operations that are next. Leaving twice does no harm."""
        while self._joined:
            name, queue = self._joined[-1]
            _remove(queue, self)
            if not queue:
                self._turns.queues.pop(name, None)
            self._joined.pop()

    def wake(self) -> None:
        """Let the operation look whether it is its turn."""


def _remove(queue: deque[Any], place: _Standing) -> None:
    if place in queue:
        with suppress(ValueError):
            queue.remove(place)
    if queue:
        with suppress(IndexError):  # another thread has emptied it
            queue[0].wake()


def _ahead_of(place: _Standing, queue: deque[Any]) -> Any:
    """Return the operation whose turn it is. None: it is this operation's, or nobody's."""
    first = queue[0] if place in queue else place
    return None if first is place else first


class Place(_Standing):
    """The place of an operation that a thread runs."""

    def __init__(self, turns: Turns) -> None:
        super().__init__(turns)
        self._thread: int | None = None
        self._woken: Lock | None = None

    def wait(self, turn: Turn) -> None:
        """Return when it is this operation's turn in each dataset.

        Returns at once in a thread that has a turn already, or loads for others.
        """
        if self._thread is not None:  # an operation may take turns twice
            self.leave()
        me = get_ident()
        if me in busy.threads:
            return
        self._thread = me
        busy.threads.add(me)
        for dataset in turn.datasets:
            queue = self._join(dataset)
            if queue[0] is not self:
                self._wait_in(queue)

    def _wait_in(self, queue: deque[Any]) -> None:
        woken = Lock()
        woken.acquire()
        self._woken = woken
        while (first := _ahead_of(self, queue)) is not None:
            for _ in range(LOOKS):
                woken.acquire(timeout=LOOK_S)
                if _ahead_of(self, queue) is not first:
                    break
            else:
                _remove(queue, first)  # it makes no progress: go on beside it

    def leave(self) -> None:
        """End the turns, and wake the operations that are next."""
        if self._joined:
            super().leave()
        if self._thread is not None:
            busy.threads.discard(self._thread)
            self._thread = None

    def wake(self) -> None:
        """Let the waiting thread look whether it is its turn."""
        if self._woken is not None:
            with suppress(RuntimeError):  # it is awake already
                self._woken.release()


class AsyncPlace(_Standing):
    """The place of an operation that a task runs. The tasks of one event loop queue with each other."""

    def __init__(self, turns: Turns) -> None:
        super().__init__(turns)
        self._woken: Future[None] | None = None

    async def wait(self, turn: Turn) -> None:
        """Return when it is this operation's turn in each dataset; see `Place.wait`."""
        from asyncio import get_running_loop  # noqa: PLC0415 - a blocking program does not need it

        self.leave()
        loop = get_running_loop()
        for dataset in turn.datasets:
            queue = self._join((dataset, loop))
            if queue[0] is not self:
                await self._wait_in(queue, loop)

    async def _wait_in(self, queue: deque[Any], loop: AbstractEventLoop) -> None:
        from asyncio import wait  # noqa: PLC0415

        while (first := _ahead_of(self, queue)) is not None:
            self._woken = loop.create_future()
            done, _ = await wait((self._woken,), timeout=PATIENCE_S)
            if not done and _ahead_of(self, queue) is first:
                _remove(queue, first)  # it makes no progress: go on beside it

    def wake(self) -> None:
        """Let the waiting task look whether it is its turn."""
        if self._woken is not None and not self._woken.done():
            with suppress(RuntimeError):  # the loop was closed while it waited
                self._woken.set_result(None)
