"""Many operations as one: what they want to send at the same time goes in one batch.

Each takes its own way. A refusal is an answer to one of them. A batch that was not sent, or whose replies
were lost, concerns all that were in it; from then on each of them sends for itself, so that what one of them
wants (a request that is too large for the store, say) is its own trouble alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from swapstore.commands import Command, Commit, CompareAndSet, Keep, Put, Replace, Stage, Write
from swapstore.errors import ReplyLost, SwapstoreError, Throttled
from swapstore.protocol.operation import Batch, Operation, Wait

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

T = TypeVar("T")


class _Member(Generic[T]):
    """One of the operations: what it wants next, or how it ended."""

    def __init__(self, operation: Operation[T]) -> None:
        self._operation = operation
        self.wants: Batch | Wait | None = None
        self.outcome: T | SwapstoreError | None = None
        self.alone = False
        self.answer([])

    def answer(self, replies: list[Any] | SwapstoreError) -> None:
        """Go on, with replies or a failure, to what it wants next."""
        try:
            if isinstance(replies, SwapstoreError):
                self.wants = self._operation.throw(replies)
            elif self.wants is None:
                self.wants = next(self._operation)
            else:
                self.wants = self._operation.send(replies)
        except StopIteration as stop:
            self.wants, self.outcome = None, stop.value
        except SwapstoreError as error:
            self.wants, self.outcome = None, error

    def close(self) -> None:
        self._operation.close()


def together(
    operations: Mapping[str, Operation[T]], *, batch_bytes: int
) -> Operation[dict[str, T | SwapstoreError]]:
    """Run all to their ends. Returns the outcome of each: its result, or what it raised."""
    members: dict[str, _Member[T]] = {}
    try:
        for name, operation in operations.items():
            members[name] = _Member(operation)
        while running := [member for member in members.values() if member.wants is not None]:
            sending = [member for member in running if isinstance(member.wants, Batch)]
            if sending:
                for group in _groups(sending, batch_bytes):
                    yield from _send(group)
            else:
                yield Wait(max(member.wants.seconds for member in running if isinstance(member.wants, Wait)))
                for member in running:
                    member.answer([])
        return {name: member.outcome for name, member in members.items()}  # type: ignore[misc]
    finally:
        for member in members.values():
            member.close()


def _send(group: list[_Member[T]]) -> Operation[None]:
    batches = [member.wants for member in group if isinstance(member.wants, Batch)]
    wanted = [batch.commands for batch in batches]
    bounds = [batch.until for batch in batches if batch.until is not None]
    try:
        replies = yield Batch(
            tuple(command for commands in wanted for command in commands), until=min(bounds, default=None)
        )
    except SwapstoreError as error:
        for member in group:
            member.alone = True
            if len(group) == 1 or isinstance(error, ReplyLost | Throttled):
                member.answer(error)
        return  # what was refused as a whole did nothing: each sends its own part again, unless told to wait
    start = 0
    for member, commands in zip(group, wanted, strict=True):
        member.answer(replies[start : start + len(commands)])
        start += len(commands)


def _groups(sending: Iterable[_Member[T]], batch_bytes: int) -> list[list[_Member[T]]]:
    """Put together what fits into one batch. No member's own batch is split."""
    groups: list[list[_Member[T]]] = []
    room = 0
    for member in sending:
        size = _size(member.wants)
        if not groups or member.alone or groups[-1][0].alone or size > room:
            groups.append([])
            room = batch_bytes
        groups[-1].append(member)
        room -= size
    return groups


def _size(wants: Batch | Wait | None) -> int:
    return sum(map(_bytes_of, wants.commands)) if isinstance(wants, Batch) else 0


def _bytes_of(command: Command[Any]) -> int:
    match command:
        case Stage(_, record, _, body):
            return len(record) + len(body)
        case Replace(_, record):
            return len(record)
        case Put(_, value) | Write(_, value) | Keep(_, value):
            return len(value)
        case CompareAndSet():
            return len(command.expected) + len(command.value)
        case Commit():
            return len(command.manifest)
    return 0
