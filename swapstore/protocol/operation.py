"""What an operation is: a generator that yields what the engine has to do, and is sent the results."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any, Protocol, TypeVar

import msgspec

from swapstore.commands import Command, Get, GetServed, Replace, Stage, Swap
from swapstore.structs import Struct

T = TypeVar("T")


def portions(
    items: Iterable[T], size_of: Callable[[T], int], *, room: int, most: int | None = None
) -> list[list[T]]:
    """Split items, in their order, into portions of at most `room` bytes and `most` items.

    An item that is larger than `room` goes alone.
    """
    found: list[list[T]] = []
    left = 0
    for item in items:
        size = size_of(item)
        if not found or size > left or len(found[-1]) == most:
            found.append([])
            left = room
        found[-1].append(item)
        left -= size
    return found


class Batch(Struct, frozen=True):
    """Commands to send in one batch. The answer is the list of their replies.

    `until` (monotonic seconds, as `time.monotonic` counts them): they are not sent later than that.
    `anywhere`: they only read, and a replica may answer them, if the client has one. They are sent once.
    """

    commands: tuple[Command[Any], ...]
    until: float | None = None
    anywhere: bool = False


class Wait(Struct, frozen=True):
    """Wait for some seconds. The answer is an empty list."""

    seconds: float


class Listen(Wait, frozen=True):
    """Wait for some seconds, or until a hint comes on one of these channels, or on one that `pattern` fits.

    The answer is a list of the channels that had hints. The first wait also subscribes, and may then return
    at once without a hint: earlier ones were missed, so the operation must look everywhere before it waits
    again. A hint may be lost, and a wait may end early without one.
    """

    channels: tuple[str, ...]
    pattern: str = ""


class Turn(Struct, frozen=True):
    """Wait until no other operation of this client swaps these datasets. The answer is an empty list.

    The turn ends with the operation, or when it asks for another one. Nothing relies on it: the commit
    decides. It spares the producers of one process the race for each version.
    """

    datasets: tuple[str, ...]


class Within(Struct, frozen=True):
    """Spend at most so many seconds in vain from now on; see `Timeout.total`. The answer is an empty list.

    None: as many as before. `patient`: an outage within that time may be waited for. False: the caller has
    something better to do.
    """

    total_s: float | None
    patient: bool = True


class Tally(msgspec.Struct):
    """What an operation has cost so far. The engine counts it if the client has a hook for events.

    `began` is in monotonic seconds. `drafts`: the prefixes of the manifests that were sent to be committed.
    `asked_for`: the keys that were read. `served`: a manifest was read along with the record that it serves.
    `staged`: the sizes of the records that were sent, by key.
    """

    began: float
    round_trips: int = 0
    drafts: set[bytes] = msgspec.field(default_factory=set)
    asked_for: set[str] = msgspec.field(default_factory=set)
    served: bool = False
    staged: dict[str, int] = msgspec.field(default_factory=dict)

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
            elif isinstance(command, Stage):
                self.staged[command.key] = len(command.record) + len(command.body)
            elif isinstance(command, Replace):
                self.staged[command.key] = len(command.record)


class Emit(Struct, frozen=True):
    """Call `emit` with the tally of the operation. The answer is an empty list."""

    emit: Callable[[Tally], None]


Operation = Generator[Batch | Wait | Turn | Within | Emit, list[Any], T]


class Steps(Protocol[T]):
    """Something to iterate over: each step is an operation that returns some items."""

    def step(self) -> Operation[list[T] | None]:
        """Return the next items, perhaps none yet. None: that was all."""
