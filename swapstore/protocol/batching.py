"""Batching: run many operations concurrently, and send what they have to send at the same time in one batch.

The operations stay independent. A refused command concerns the operation that sent it. When a batch could
not be sent, or its replies were lost, that concerns every operation in it. From then on each of them sends
its own batches, so that a request which the store cannot take (too large, for example) fails one operation
alone. The smallest is sent first: if even that fails as a whole, the store is not to be had, and the others
fail with it instead of waiting for a time-out each.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from swapstore.commands import Command, CompareAndSet, Keep, Put, ReadCommand, Replace, Stage, Swap, Write
from swapstore.errors import ReplyLost, SwapstoreError, Throttled, Unavailable
from swapstore.protocol.operation import Batch, Emit, Operation, Tally, Turn, Wait, Within

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from swapstore.protocol.context import Context

T = TypeVar("T")
E = TypeVar("E", bound=SwapstoreError)


class _Member(Generic[T]):
    """One of the operations: what it yielded last (`wants`), or its `outcome`.

    `alone`: it shares no batch any more.
    """

    def __init__(self, operation: Operation[T], tally: Tally | None) -> None:
        self._operation = operation
        self._tally = tally
        self.wants: Batch | Wait | Turn | Within | None = None
        self.outcome: T | SwapstoreError | None = None
        self.alone = False
        self.answer([])

    def answer(self, replies: list[Any] | SwapstoreError) -> None:
        """Send it the replies, or throw the failure into it, and run it up to its next batch or wait."""
        try:
            if isinstance(replies, SwapstoreError):
                step = self._operation.throw(replies)
            elif self.wants is None:
                step = next(self._operation)
            else:
                step = self._operation.send(replies)
            while isinstance(step, Emit):
                if self._tally is not None:
                    step.emit(self._tally)
                step = self._operation.send([])
            if self._tally is not None and isinstance(step, Batch):
                self._tally.note(step)
            self.wants = step
        except StopIteration as stop:
            self.wants, self.outcome = None, stop.value
        except SwapstoreError as error:
            self.wants, self.outcome = None, error

    def close(self) -> None:
        self._operation.close()


def batched(ctx: Context, operations: Mapping[str, Operation[T]]) -> Operation[dict[str, T | SwapstoreError]]:
    """Run all operations to their ends. Returns the outcome of each: its result, or the error it raised."""
    members: dict[str, _Member[T]] = {}
    try:
        for name, operation in operations.items():
            members[name] = _Member(operation, ctx.tally())
        while running := [member for member in members.values() if member.wants is not None]:
            sending = [member for member in running if isinstance(member.wants, Batch)]
            turns = {member: member.wants for member in running if isinstance(member.wants, Turn)}
            if turns:  # all of them in one order, so that two batches do not wait for each other
                yield Turn(tuple(sorted({name for turn in turns.values() for name in turn.datasets})))
                for member in turns:
                    member.answer([])
            elif sending:
                alone = [member for member in sending if member.alone]
                together = [member for member in sending if not member.alone]
                yield from _send_together(_groups(together, ctx.policy.max_batch_bytes))
                yield from _send_alone(alone)
            else:
                waits = [member.wants.seconds for member in running if isinstance(member.wants, Wait)]
                yield Wait(max(waits, default=0.0))
                for member in running:
                    member.answer([])
        return {name: member.outcome for name, member in members.items()}  # type: ignore[misc]
    finally:
        for member in members.values():
            member.close()


def _send_together(groups: Iterable[list[_Member[T]]]) -> Operation[None]:
    """Send what each group wants. Once the store cannot be reached, the rest does not wait for it again."""
    failure: Unavailable | None = None
    for group in groups:
        if failure is None:
            failure = yield from _send(group)
            failure = failure if failure is not None and failure.again else None
        else:
            for member in group:
                member.answer(_unsent(member, failure))


def _send(group: list[_Member[T]]) -> Operation[Unavailable | None]:
    """Send what a group wants in one batch. Returns the error if the store was not to be had."""
    batches = [member.wants for member in group if isinstance(member.wants, Batch)]
    wanted = [batch.commands for batch in batches]
    bounds = [batch.until for batch in batches if batch.until is not None]
    anywhere = all(batch.anywhere for batch in batches)
    try:
        replies = yield Batch(
            tuple(command for commands in wanted for command in commands),
            until=min(bounds, default=None),
            anywhere=anywhere,
        )
    except SwapstoreError as error:
        lost = isinstance(error, ReplyLost) and not all(map(_only_reads, group))
        if isinstance(error, ReplyLost) and len(group) > 1:
            error.cut_off = False  # that holds for the last of them alone
        for member in group:
            member.alone = not anywhere
            waited = isinstance(error, Throttled) or (isinstance(error, Unavailable) and error.again)
            if anywhere or len(group) == 1 or lost or waited:
                member.answer(_copied(error))
        # Otherwise the batch had no effect: each member sends its own part again.
        return error if isinstance(error, Unavailable) and not anywhere else None
    start = 0
    for member, commands in zip(group, wanted, strict=True):
        member.answer(replies[start : start + len(commands)])
        start += len(commands)
    return None


def _send_alone(members: list[_Member[T]]) -> Operation[None]:
    """Send what each of them wants, the smallest first, until the store is not to be had."""
    failure: Unavailable | None = None
    for member in sorted(members, key=lambda each: _size(each.wants)):
        if failure is None:
            failure = yield from _send([member])
        else:
            member.answer(_unsent(member, failure))


def _unsent(member: _Member[T], failure: Unavailable) -> Unavailable:
    """Return the error of a member that was not sent, because another one failed: its reply is not lost."""
    if isinstance(failure, ReplyLost) and not _only_reads(member):
        return Unavailable(f"not sent, because the request before it had no answer: {failure}")
    return _copied(failure)


def _copied(error: E) -> E:
    """Return an error for one of the members, which gives it the name of its own dataset."""
    copied = copy.copy(error)
    copied.__cause__ = error.__cause__  # and a traceback does not show `error`, which says the same
    return copied


def _only_reads(member: _Member[T]) -> bool:
    return isinstance(member.wants, Batch) and all(
        isinstance(command, ReadCommand) for command in member.wants.commands
    )


def _groups(sending: Iterable[_Member[T]], batch_bytes: int) -> list[list[_Member[T]]]:
    """Group the members whose batches fit into one. No member's own batch is split."""
    groups: list[list[_Member[T]]] = []
    room = 0
    for member in sending:
        size = _size(member.wants)
        if not groups or size > room:
            groups.append([])
            room = batch_bytes
        groups[-1].append(member)
        room -= size
    return groups


def _size(wants: object) -> int:
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
        case Swap():
            return len(command.manifest)
    return 0
