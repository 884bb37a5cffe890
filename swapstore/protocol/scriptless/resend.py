"""Requests that may be sent again when their reply is lost: carrying them out twice changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from swapstore.commands import Command, CompareAndSet, Keep, Peek, Write
from swapstore.errors import PayloadTooLarge, ReplyLost, SwapstoreError, Unavailable
from swapstore.protocol.operation import Batch, Operation, Wait, portions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.protocol.context import Context

LARGE_BYTES = 256 * 1024  # the size from which on a limit of the endpoint is suspected
OVERHEAD_BYTES = 64  # of a command in a request, beside its key and its value


def requests(ctx: Context, commands: Sequence[Command[Any]]) -> list[tuple[Command[Any], ...]]:
    """Split commands, in their order, into those that fit into one request. They need not be sent at once."""
    return [tuple(each) for each in portions(commands, _size, room=ctx.policy.max_batch_bytes)]


def _size(command: Command[Any]) -> int:
    """Return about how many bytes a command sends."""
    size = OVERHEAD_BYTES + len(getattr(command, "key", ""))
    if isinstance(command, CompareAndSet):
        return size + len(command.expected) + len(command.value)
    return size + len(command.value) if isinstance(command, Keep | Write) else size


def sent_again(ctx: Context, batch: Batch) -> Operation[list[Any]]:
    """Send what comes before a swap, and send it again, a few times, when the replies are lost.

    What is too much for one request goes in several, each after the reply to the one before.

    Raises `Unavailable` if they are lost each time, or `PayloadTooLarge` if only large requests are lost.
    Either way nothing was published.
    """
    replies: list[Any] = []
    for portion in requests(ctx, batch.commands):
        replies += yield from _sent_again(ctx, msgspec.structs.replace(batch, commands=portion))
    return replies


def _sent_again(ctx: Context, batch: Batch) -> Operation[list[Any]]:
    for attempt in range(1, ctx.policy.lost_attempts):
        try:
            return (yield batch)
        except ReplyLost:
            yield Wait(ctx.backoff(attempt))
    try:
        return (yield batch)
    except ReplyLost as error:
        lost = error
    size = sum(len(each.value) for each in batch.commands if isinstance(each, Keep | CompareAndSet))
    if size >= LARGE_BYTES:
        yield from _suspect_size(batch, size, lost)
    raise Unavailable(
        f"{lost.args[0]} Only records were sent, which no reader sees: nothing was published. Try again"
    ) from lost


def _suspect_size(batch: Batch, size: int, lost: ReplyLost) -> Operation[None]:
    """Raise `PayloadTooLarge` if the endpoint answers a small request, although it answered no large one."""
    key = next(each.key for each in batch.commands if isinstance(each, Keep | CompareAndSet))
    try:
        yield Batch((Peek(key, 1),))
    except SwapstoreError:
        return
    raise PayloadTooLarge(
        f"a request of about {size:,} bytes is lost each time, and a small one is answered: the endpoint "
        "probably has a lower limit (max_request= in connect() tells swapstore). Nothing was published. "
        "Publish less at once, or raise the limit of the endpoint",
        size_bytes=size,
        key=key,
    ) from lost
