"""The shape of an operation: a generator that yields what it wants done, and is sent what became of it."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol, TypeVar

import attrs

from swapstore.commands import Command

T = TypeVar("T")


@attrs.frozen
class Batch:
    """Commands to send together; the answer is the list of their replies.

    After `until` (monotonic seconds, as `time.monotonic` counts them) they are not sent any more.
    """

    commands: tuple[Command[Any], ...]
    until: float | None = None


@attrs.frozen
class Wait:
    """Time to let pass; the answer is an empty list."""

    seconds: float


@attrs.frozen
class Listen(Wait):
    """Time to let pass, or less of it if a hint comes on a channel.

    The first one also begins to listen, and then may take no time: what was hinted at before was not heard,
    so whoever waits for something must look once more. A hint may be lost, and a wait may end without one.
    """

    channel: str


Operation = Generator[Batch | Wait, list[Any], T]


class Steps(Protocol[T]):
    """What is iterated over: some items a step, each step an operation."""

    def step(self) -> Operation[list[T] | None]:
        """Return the next items, perhaps none yet; None: that was all."""
