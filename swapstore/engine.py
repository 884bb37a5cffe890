"""Runs an operation on a driver.

A batch that the store was too busy to take (`Throttled`) was not carried out, so it is sent again when the
store says, a few times: operations need not know.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, TypeVar

from swapstore.errors import SwapstoreError, Throttled, Unavailable
from swapstore.protocol.operation import Batch, Listen, Operation, Wait

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from swapstore.drivers.base import AsyncDriver, Driver

T = TypeVar("T")

TIMES_PUT_OFF = 3
LONGEST_PAUSE_S = 10.0
FIRST_PAUSE_S = 1.0  # where the store does not say; doubled each time
JITTER = 0.25  # of the pause, on top: those who were sent away together do not come back together


def run(
    operation: Operation[T],
    driver: Driver,
    sleep: Callable[[float], None],
    listen: Callable[[Listen], None] | None = None,
) -> T:
    """Run an operation to its end: send its batches, let its waits pass, throw failures in.

    `listen` lets the waits pass that a hint may end.

    Returns the operation's result, or raises what it raises.
    """
    try:
        step = next(operation)
        while True:
            replies: list[Any] = []
            try:
                if isinstance(step, Listen) and listen is not None:
                    listen(step)
                elif isinstance(step, Wait):
                    sleep(step.seconds)
                else:
                    replies = _executed(step, driver, sleep)
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
    listen: Callable[[Listen], Awaitable[None]] | None = None,
) -> T:
    """Run an operation to its end, as `run` does, and await what `run` blocks for.

    Cancelled, it sends nothing more: the operation ends where it is, like that of a client that died.
    """
    try:
        step = next(operation)
        while True:
            replies: list[Any] = []
            try:
                if isinstance(step, Listen) and listen is not None:
                    await listen(step)
                elif isinstance(step, Wait):
                    await sleep(step.seconds)
                else:
                    replies = await _aexecuted(step, driver, sleep)
            except SwapstoreError as error:
                step = operation.throw(error)
            else:
                step = operation.send(replies)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        operation.close()


def _refuse_if_late(batch: Batch) -> None:
    if batch.until is not None and time.monotonic() >= batch.until:
        raise Unavailable(
            "this took longer than the lease allows, so the next step was not sent; nothing was published. "
            "Try again, with smaller payloads or fewer datasets at once"
        )


class _Patience:
    """How often, and for how long, one batch is put off."""

    def __init__(self) -> None:
        self._left = TIMES_PUT_OFF
        self._pause_s = FIRST_PAUSE_S

    def pause_s(self, error: Throttled) -> float | None:
        """Return how long to wait before the batch is sent again. None: that is the caller's to decide."""
        pause_s = self._pause_s if error.retry_after_s is None else error.retry_after_s
        if not self._left or pause_s > LONGEST_PAUSE_S:
            return None
        self._left -= 1
        self._pause_s *= 2
        return pause_s + random.SystemRandom().uniform(0, JITTER * max(pause_s, FIRST_PAUSE_S))


def _executed(batch: Batch, driver: Driver, sleep: Callable[[float], None]) -> list[Any]:
    patience = None
    while True:
        _refuse_if_late(batch)
        try:
            return driver.execute(batch.commands)
        except Throttled as error:
            patience = patience or _Patience()
            pause_s = patience.pause_s(error)
            if pause_s is None:
                raise
        sleep(pause_s)


async def _aexecuted(
    batch: Batch, driver: AsyncDriver, sleep: Callable[[float], Awaitable[None]]
) -> list[Any]:
    patience = None
    while True:
        _refuse_if_late(batch)
        try:
            return await driver.execute(batch.commands)
        except Throttled as error:
            patience = patience or _Patience()
            pause_s = patience.pause_s(error)
            if pause_s is None:
                raise
        await sleep(pause_s)
