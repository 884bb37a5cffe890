"""The shape of an operation: a generator that yields what it wants done, and is sent what became of it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Protocol, TypeVar

import attrs

from swapstore.commands import Command, Get, GetServed, Swap

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


@attrs.define
class Tally:
    """What an operation has cost so far. Whoever runs the operation keeps it, if somebody listens to events.

    `began` is in monotonic seconds. `drafts` are the prefixes of the manifests that were sent to be
    committed, `asked_for` the keys that were read; `served`: a manifest was read with what it serves.
    """

    began: float
    round_trips: int = 0
    drafts: set[bytes] = attrs.field(factory=set)
    asked_for: set[str] = attrs.field(factory=set)
    served: bool = False

    def note(self, batch: Batch) -> None:
        """Count a batch."""
        self.round_trips += 1
        for command in batch.commands:
            if isinstance(command, Get):
                self.asked_for.add(command.key)
            elif isinstance(command, GetServed):
                self.served = True
            elif isinstance(command, Swap):
                self.drafts.add(command.prefix)


@attrs.frozen
class Emit:
    """A call of `emit` with the tally of the operation; the answer is an empty list."""

    emit: Callable[[Tally], None]


Operation = Generator[Batch | Wait | Emit, list[Any], T]


class Steps(Protocol[T]):
    """What is iterated over: some items a step, each step an operation."""

    def step(self) -> Operation[list[T] | None]:
        """Return the next items, perhaps none yet; None: that was all."""
