"""Runs an operation on a driver."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from swapstore.errors import SwapstoreError
from swapstore.operations.steps import Listen, Operation, Wait

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from swapstore.drivers.base import AsyncDriver, Driver

T = TypeVar("T")


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
                    replies = driver.execute(step.commands)
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
                    replies = await driver.execute(step.commands)
            except SwapstoreError as error:
                step = operation.throw(error)
            else:
                step = operation.send(replies)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        operation.close()
