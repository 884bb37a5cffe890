"""The engine: runs an operation on a driver. `run` blocks, `arun` awaits; both do the same steps.

A batch that the store throttled (`Throttled`) was not carried out. So the engine waits as long as the store
asks and sends the batch again, a few times; operations do not notice.

Operations that swap a dataset take turns within one client (`Place`, `AsyncPlace`): a hundred producers that
all draft the same version would waste ninety-nine drafts.

A call waits in vain for so long at most (`Timeout.total`): for batches that fail, and between attempts. Then
it sends nothing more: the next batch or wait raises `Unavailable` inside the operation, which knows whether a
commit was sent, and ends with the right error.
"""

from __future__ import annotations

import random
import time
from collections import deque
from contextlib import suppress
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any, TypeVar

from swapstore.drivers.base import LEFT_S
from swapstore.errors import SwapstoreError, Throttled, Unavailable
from swapstore.forks import survive_forks
from swapstore.protocol.operation import Batch, Emit, Listen, Operation, Tally, Turn, Wait

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Awaitable, Callable, Hashable
    from contextvars import Token

    from swapstore.drivers.base import AsyncDriver, Driver

T = TypeVar("T")

THROTTLE_RETRIES = 3
LONGEST_PAUSE_S = 10.0
FIRST_PAUSE_S = 1.0  # if the store does not say how long; doubled each time
JITTER = 0.25  # of the pause, added at random: clients throttled together must not return together
PATIENCE_S = 10.0  # how long an operation waits behind one that makes no progress
LOOK_S = 0.5  # how often a waiting thread looks by itself, should nobody wake it
LOOKS = round(PATIENCE_S / LOOK_S)  # counted, so that a clock that stands still does not matter


def run(
    operation: Operation[T],
    driver: Driver,
    sleep: Callable[[float], None],
    *,
    listen: Callable[[Listen], None] | None = None,
    turn: Callable[[Turn], None] | None = None,
    tally: Tally | None = None,
    total_s: float | None = None,
) -> T:
    """Run an operation to its end: send its batches, perform its waits, throw errors into it.

    `listen` performs waits that a notification can cut short. `tally` counts the batches, for the events that
    the operation emits; without one it emits none. `turn` waits for the operation's turns; without it none is
    taken. The caller ends them. `total_s` bounds the time that is spent in vain.

    Returns the operation's result, or raises what it raises.
    """
    budget = _Budget(total_s)
    try:
        step = next(operation)
        while True:
            replies: list[Any] = []
            try:
                if isinstance(step, Batch):
                    if tally is not None:
                        tally.note(step)
                    replies = _executed(step, driver, sleep, budget)
                elif isinstance(step, Emit):
                    if tally is not None:
                        step.emit(tally)
                else:
                    _waited(step, sleep, listen, turn, budget)
            except SwapstoreError as error:
                step = operation.throw(error)
            else:
                step = operation.send(replies)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        operation.close()


async def arun(
    operation: Operation[T],
    driver: AsyncDriver,
    sleep: Callable[[float], Awaitable[None]],
    *,
    listen: Callable[[Listen], Awaitable[None]] | None = None,
    turn: Callable[[Turn], Awaitable[None]] | None = None,
    tally: Tally | None = None,
    total_s: float | None = None,
) -> T:
    """Run an operation to its end, like `run`, but await each step.

    If it is cancelled, it sends nothing more. The operation ends where it is, as if the client had died.
    """
    budget = _Budget(total_s)
    try:
        step = next(operation)
        while True:
            replies: list[Any] = []
            try:
                if isinstance(step, Batch):
                    if tally is not None:
                        tally.note(step)
                    replies = await _aexecuted(step, driver, sleep, budget)
                elif isinstance(step, Emit):
                    if tally is not None:
                        step.emit(tally)
                else:
                    await _awaited(step, sleep, listen, turn, budget)
            except SwapstoreError as error:
                step = operation.throw(error)
            else:
                step = operation.send(replies)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        operation.close()


def _waited(
    step: Wait,
    sleep: Callable[[float], None],
    listen: Callable[[Listen], None] | None,
    turn: Callable[[Turn], None] | None,
    budget: _Budget,
) -> None:
    if isinstance(step, Turn):
        if turn is not None:
            turn(step)
    elif isinstance(step, Listen) and listen is not None:
        listen(step)
    else:
        if not isinstance(step, Listen):
            budget.pause(step.seconds)
        sleep(step.seconds)


async def _awaited(
    step: Wait,
    sleep: Callable[[float], Awaitable[None]],
    listen: Callable[[Listen], Awaitable[None]] | None,
    turn: Callable[[Turn], Awaitable[None]] | None,
    budget: _Budget,
) -> None:
    if isinstance(step, Turn):
        if turn is not None:
            await turn(step)
    elif isinstance(step, Listen) and listen is not None:
        await listen(step)
    else:
        if not isinstance(step, Listen):
            budget.pause(step.seconds)
        await sleep(step.seconds)


def _refuse_if_late(batch: Batch) -> None:
    """Raise `Unavailable` if the lease that protects this batch may have expired."""
    if batch.until is not None and time.monotonic() >= batch.until:
        raise Unavailable(
            "this took longer than the lease allows, so the next step was not sent; nothing was published. "
            "Try again, with smaller payloads or fewer datasets at once"
        )


class _Backoff:
    """How often a throttled batch is sent again, and how long to wait before."""

    def __init__(self) -> None:
        self._left = THROTTLE_RETRIES
        self._pause_s = FIRST_PAUSE_S

    def pause_s(self, error: Throttled) -> float | None:
        """Return how long to wait before sending the batch again. None: raise the error to the caller."""
        pause_s = self._pause_s if error.retry_after_s is None else error.retry_after_s
        if not self._left or pause_s > LONGEST_PAUSE_S:
            return None
        self._left -= 1
        self._pause_s *= 2
        return pause_s + random.SystemRandom().uniform(0, JITTER * max(pause_s, FIRST_PAUSE_S))


class _Budget:
    """The time that the rest of a call may spend in vain. None: without a bound."""

    def __init__(self, total_s: float | None) -> None:
        self._total_s = total_s
        self._left_s = float("inf") if total_s is None else total_s

    def begin(self) -> Token[float]:
        """Tell the driver how much is left. Raises `Unavailable` if nothing is."""
        if self._left_s <= 0:
            raise self._over()
        return LEFT_S.set(self._left_s)

    def spend(self, began: float) -> None:
        """Count the time since `began`, in which a batch failed."""
        self._left_s -= time.monotonic() - began

    def affords(self, seconds: float) -> bool:
        """Count a wait that is about to begin, and say whether there is time for it."""
        self._left_s -= seconds
        return self._left_s > 0

    def pause(self, seconds: float) -> None:
        """Count a wait that is about to begin. Raises `Unavailable` if there is no time for it."""
        if not self.affords(seconds):
            raise self._over()

    def _over(self) -> Unavailable:
        return Unavailable(
            f"the store did not do it within {self._total_s:g} s, the time-out of a call, so nothing more "
            "was sent. Try again, or wait longer with connect(timeout=…)"
        )


def _executed(batch: Batch, driver: Driver, sleep: Callable[[float], None], budget: _Budget) -> list[Any]:
    backoff = None
    while True:
        _refuse_if_late(batch)
        token, began = budget.begin(), time.monotonic()
        try:
            return driver.execute(batch.commands)
        except Throttled as error:
            backoff = backoff or _Backoff()
            pause_s = backoff.pause_s(error)
            if pause_s is None or not budget.affords(pause_s):
                raise
        except Unavailable:
            budget.spend(began)
            raise
        finally:
            LEFT_S.reset(token)
        sleep(pause_s)


async def _aexecuted(
    batch: Batch, driver: AsyncDriver, sleep: Callable[[float], Awaitable[None]], budget: _Budget
) -> list[Any]:
    backoff = None
    while True:
        _refuse_if_late(batch)
        token, began = budget.begin(), time.monotonic()
        try:
            return await driver.execute(batch.commands)
        except Throttled as error:
            backoff = backoff or _Backoff()
            pause_s = backoff.pause_s(error)
            if pause_s is None or not budget.affords(pause_s):
                raise
        except Unavailable:
            budget.spend(began)
            raise
        finally:
            LEFT_S.reset(token)
        await sleep(pause_s)


# --- turns -----------------------------------------------------------------------------------------


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
    with suppress(ValueError):
        queue.remove(place)
    with suppress(IndexError):
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
