"""The engine: runs an operation on a driver. `run` blocks, `arun` awaits; both do the same steps.

A batch that the store throttled (`Throttled`) was not carried out. So the engine waits as long as the store
asks and sends the batch again, a few times; operations do not notice. Nor do they notice an outage that ends
within the client's patience: see `recovery.py`.

A call waits in vain for so long at most (`Timeout.total`): for batches that fail, and between attempts. Then
it sends nothing more: the next batch or wait raises `Unavailable` inside the operation, which knows whether a
commit was sent, and ends with the right error.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, TypeVar

from swapstore.commands import Failed
from swapstore.drivers.base import LEFT_S
from swapstore.errors import SwapstoreError, Throttled, Unavailable
from swapstore.protocol.operation import Batch, Emit, Listen, Operation, Tally, Turn, Wait, Within
from swapstore.recovery import Patience, recover
from swapstore.turns import AsyncPlace, Place

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from contextvars import Token

    from swapstore.drivers.base import AsyncDriver, Driver
    from swapstore.recovery import Again
    from swapstore.turns import Turns

T = TypeVar("T")

THROTTLE_RETRIES = 3
LONGEST_PAUSE_S = 10.0
UNBOUNDED_S = float("inf")
_NONE = Patience(0.0)
FIRST_PAUSE_S = 1.0  # if the store does not say how long; doubled each time
JITTER = 0.25  # of the pause, added at random: clients throttled together must not return together


def run(
    operation: Operation[T],
    driver: Driver,
    sleep: Callable[[float], None],
    *,
    listen: Callable[[Listen], list[str]] | None = None,
    turns: Turns | None = None,
    tally: Tally | None = None,
    total_s: float | None = None,
    patience: Patience | None = None,
    replicas: Driver | None = None,
) -> T:
    """Run an operation to its end: send its batches, perform its waits, throw errors into it.

    `listen` performs waits that a notification can cut short. `tally` counts the batches, for the events that
    the operation emits; without one it emits none. `turns`: where it queues for its turns; without it, it
    takes none. `total_s` bounds the time that is spent in vain. `patience`: how long to go on sending
    what the store has certainly not carried out, because it cannot be reached or is not the primary.
    `replicas`: answers, once, the batches that a replica may answer; None: the primary does.

    Returns the operation's result, or raises what it raises.
    """
    budget = _Budget(total_s, patience or _NONE)
    place: Place | None = None
    try:
        try:
            step = next(operation)
            while True:
                replies: list[Any] = []
                try:
                    if isinstance(step, Batch):
                        if tally is not None:
                            tally.note(step)
                        replies = _executed(step, driver, replicas, sleep, budget)
                    elif isinstance(step, Turn):
                        if turns is not None:
                            place = Place(turns) if place is None else place
                            place.wait(step)
                    else:
                        replies = _waited(step, sleep, listen, budget, tally)
                except SwapstoreError as error:
                    step = operation.throw(error)
                else:
                    step = operation.send(replies)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            operation.close()
            _leave(place)
    finally:
        _leave(place)  # twice: an interrupt may come during the first


async def arun(
    operation: Operation[T],
    driver: AsyncDriver,
    sleep: Callable[[float], Awaitable[None]],
    *,
    listen: Callable[[Listen], Awaitable[list[str]]] | None = None,
    turns: Turns | None = None,
    tally: Tally | None = None,
    total_s: float | None = None,
    patience: Patience | None = None,
    replicas: AsyncDriver | None = None,
) -> T:
    """Run an operation to its end, like `run`, but await each step.

    If it is cancelled, it sends nothing more. The operation ends where it is, as if the client had died.
    """
    budget = _Budget(total_s, patience or _NONE)
    place: AsyncPlace | None = None
    try:
        try:
            step = next(operation)
            while True:
                replies: list[Any] = []
                try:
                    if isinstance(step, Batch):
                        if tally is not None:
                            tally.note(step)
                        replies = await _aexecuted(step, driver, replicas, sleep, budget)
                    elif isinstance(step, Turn):
                        if turns is not None:
                            place = AsyncPlace(turns) if place is None else place
                            await place.wait(step)
                    else:
                        replies = await _awaited(step, sleep, listen, budget, tally)
                except SwapstoreError as error:
                    step = operation.throw(error)
                else:
                    step = operation.send(replies)
        except StopIteration as stop:
            result: T = stop.value
            return result
        finally:
            operation.close()
            _leave(place)
    finally:
        _leave(place)  # twice: an interrupt may come during the first


def _leave(place: Place | AsyncPlace | None) -> None:
    if place is not None:
        place.leave()


def _waited(
    step: Wait | Within | Emit,
    sleep: Callable[[float], None],
    listen: Callable[[Listen], list[str]] | None,
    budget: _Budget,
    tally: Tally | None,
) -> list[str]:
    if isinstance(step, Emit):
        if tally is not None:
            step.emit(tally)
    elif isinstance(step, Within):
        budget.tighten(step.total_s, patient=step.patient)
    elif isinstance(step, Listen) and listen is not None:
        return listen(step)
    else:
        if not isinstance(step, Listen):
            budget.pause(step.seconds)
        sleep(step.seconds)
    return []


async def _awaited(
    step: Wait | Within | Emit,
    sleep: Callable[[float], Awaitable[None]],
    listen: Callable[[Listen], Awaitable[list[str]]] | None,
    budget: _Budget,
    tally: Tally | None,
) -> list[str]:
    if isinstance(step, Emit):
        if tally is not None:
            step.emit(tally)
    elif isinstance(step, Within):
        budget.tighten(step.total_s, patient=step.patient)
    elif isinstance(step, Listen) and listen is not None:
        return await listen(step)
    else:
        if not isinstance(step, Listen):
            budget.pause(step.seconds)
        await sleep(step.seconds)
    return []


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

    def __init__(self, total_s: float | None, patience: Patience) -> None:
        self.patience = patience
        self.hurries = False
        self._total_s = total_s
        self._left_s = UNBOUNDED_S if total_s is None else total_s
        self._began = 0.0
        self._failure: SwapstoreError | None = None

    def begin(self) -> Token[float] | None:
        """Tell the driver how much is left. Raises `Unavailable` if nothing is. None: there is no bound."""
        self._began = time.monotonic()
        if self._total_s is None:
            return None
        if self._left_s <= 0:
            raise self._over(self._failure)
        return LEFT_S.set(self._left_s)

    def tighten(self, total_s: float | None, *, patient: bool) -> None:
        """Allow no more than this from now on, and patience only if it is asked for."""
        if not patient:
            self.patience = _NONE
        if total_s is None:
            return
        self.hurries = not patient
        self._total_s = total_s if self._total_s is None else min(self._total_s, total_s)
        self._left_s = min(self._left_s, total_s)

    def spend(self, failure: SwapstoreError | None = None) -> None:
        """Count the time since the last batch began: it failed."""
        self._failure = failure or self._failure
        self._left_s -= time.monotonic() - self._began

    def affords(self, seconds: float) -> bool:
        """Count a wait that is about to begin, and say whether there is time for it."""
        self._left_s -= seconds
        return self._left_s > 0

    def pause(self, seconds: float) -> None:
        """Count a wait that is about to begin. Raises `Unavailable` if there is no time for it."""
        if not self.affords(seconds):
            raise self._over()

    def recover(
        self, batch: Batch, outcome: list[Any] | Unavailable
    ) -> Generator[Again, list[Any], list[Any]]:
        """Recover from the first attempt, which has just failed."""
        first_s = time.monotonic() - self._began
        most_s = UNBOUNDED_S if self._total_s is None else self._total_s
        return recover(batch.commands, outcome, self.patience, first_s=first_s, most_s=most_s)

    def _over(self, failure: SwapstoreError | None = None) -> Unavailable:
        before = "" if failure is None else f". Before that: {failure.args[0]}"
        return Unavailable(
            f"the store did not do it within {self._total_s:g} s, the time-out of a call, so nothing more "
            f"was sent. Try again, or with a longer time-out{before}"
        )


def _asked(batch: Batch, replicas: Driver, budget: _Budget) -> list[Any]:
    """Ask a replica, once and without patience: if it fails, the operation asks the primary."""
    token = budget.begin()
    try:
        return replicas.execute(batch.commands)
    except SwapstoreError:
        budget.spend()
        raise
    finally:
        if token is not None:
            LEFT_S.reset(token)


async def _aasked(batch: Batch, replicas: AsyncDriver, budget: _Budget) -> list[Any]:
    token = budget.begin()
    try:
        return await replicas.execute(batch.commands)
    except SwapstoreError:
        budget.spend()
        raise
    finally:
        if token is not None:
            LEFT_S.reset(token)


def _executed(
    batch: Batch,
    driver: Driver,
    replicas: Driver | None,
    sleep: Callable[[float], None],
    budget: _Budget,
) -> list[Any]:
    """Send a batch, and send again what was certainly not carried out, while there is patience."""
    if replicas is not None and batch.anywhere:
        return _asked(batch, replicas, budget)
    try:
        outcome: list[Any] | Unavailable = _sent(batch, driver, sleep, budget)
    except Unavailable as error:
        if not error.again or not budget.patience.seconds:
            raise
        outcome = error
    if isinstance(outcome, Unavailable) or _is_refused(outcome):
        return _recovered(batch, outcome, driver, sleep, budget)
    return outcome


async def _aexecuted(
    batch: Batch,
    driver: AsyncDriver,
    replicas: AsyncDriver | None,
    sleep: Callable[[float], Awaitable[None]],
    budget: _Budget,
) -> list[Any]:
    """Send a batch; see `_executed`."""
    if replicas is not None and batch.anywhere:
        return await _aasked(batch, replicas, budget)
    try:
        outcome: list[Any] | Unavailable = await _asent(batch, driver, sleep, budget)
    except Unavailable as error:
        if not error.again or not budget.patience.seconds:
            raise
        outcome = error
    if isinstance(outcome, Unavailable) or _is_refused(outcome):
        return await _arecovered(batch, outcome, driver, sleep, budget)
    return outcome


def _sent(batch: Batch, driver: Driver, sleep: Callable[[float], None], budget: _Budget) -> list[Any]:
    backoff = None
    while True:
        _refuse_if_late(batch)
        token = budget.begin()
        try:
            return driver.execute(batch.commands)
        except Throttled as error:
            budget.spend(error)
            backoff = backoff or _Backoff()
            pause_s = None if budget.hurries else backoff.pause_s(error)
            if pause_s is None or not budget.affords(pause_s):
                raise
        except Unavailable as error:
            budget.spend(error)
            raise
        finally:
            if token is not None:
                LEFT_S.reset(token)
        sleep(pause_s)


async def _asent(
    batch: Batch, driver: AsyncDriver, sleep: Callable[[float], Awaitable[None]], budget: _Budget
) -> list[Any]:
    backoff = None
    while True:
        _refuse_if_late(batch)
        token = budget.begin()
        try:
            return await driver.execute(batch.commands)
        except Throttled as error:
            budget.spend(error)
            backoff = backoff or _Backoff()
            pause_s = None if budget.hurries else backoff.pause_s(error)
            if pause_s is None or not budget.affords(pause_s):
                raise
        except Unavailable as error:
            budget.spend(error)
            raise
        finally:
            if token is not None:
                LEFT_S.reset(token)
        await sleep(pause_s)


def _is_refused(replies: list[Any]) -> bool:
    """Say whether a command was refused that may succeed on another connection."""
    for reply in replies:  # noqa: SIM110 - a loop is quicker, and each batch comes here
        if type(reply) is Failed and reply.again:
            return True
    return False


def _recovered(
    batch: Batch,
    outcome: list[Any] | Unavailable,
    driver: Driver,
    sleep: Callable[[float], None],
    budget: _Budget,
) -> list[Any]:
    """Send again what was refused, while `recover` says so, and return the replies to the whole batch."""
    if not isinstance(outcome, Unavailable):
        budget.spend()
    steps = budget.recover(batch, outcome)
    try:
        step = next(steps)
        while True:
            try:
                budget.pause(step.pause_s)
                sleep(step.pause_s)
                answers = _sent(Batch(step.commands, batch.until), driver, sleep, budget)
                if _is_refused(answers):
                    budget.spend()
            except SwapstoreError as error:
                step = steps.throw(error)
            else:
                step = steps.send(answers)
    except StopIteration as stop:
        found: list[Any] = stop.value
        return found


async def _arecovered(
    batch: Batch,
    outcome: list[Any] | Unavailable,
    driver: AsyncDriver,
    sleep: Callable[[float], Awaitable[None]],
    budget: _Budget,
) -> list[Any]:
    if not isinstance(outcome, Unavailable):
        budget.spend()
    steps = budget.recover(batch, outcome)
    try:
        step = next(steps)
        while True:
            try:
                budget.pause(step.pause_s)
                await sleep(step.pause_s)
                answers = await _asent(Batch(step.commands, batch.until), driver, sleep, budget)
                if _is_refused(answers):
                    budget.spend()
            except SwapstoreError as error:
                step = steps.throw(error)
            else:
                step = steps.send(answers)
    except StopIteration as stop:
        found: list[Any] = stop.value
        return found
