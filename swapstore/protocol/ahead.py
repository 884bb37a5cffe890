"""Records that are staged before their commit is sent, because they are too much for one request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.errors import PayloadTooLarge, ReplyLost, Unavailable
from swapstore.format.records import to_json
from swapstore.protocol.operation import Batch, Operation, Wait, portions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.format.append import Draft
    from swapstore.protocol.commit import Record, Staging
    from swapstore.protocol.context import Context

AHEAD_BYTES = 1024 * 1024  # of records that a repair stages in one batch
SCRIPT_BYTES = 8 * 1024  # of the script, and of what is around its arguments


def staged_in(wanted: Sequence[Record], room: int) -> list[list[Record]]:
    """Split records into those that are staged in one batch of at most so many bytes."""
    return portions(wanted, lambda each: len(each.key) + len(each.header) + len(each.body), room=room)


def stage_group(ctx: Context, draft: Draft, needed: list[Record], staging: Staging) -> Operation[None]:
    """Stage the records of a group in several batches, if they are too much for one.

    Raises `PayloadTooLarge` before anything is written if the commit itself is too large, what the store
    refuses, and `Unavailable` if a batch is lost again and again. In each case nothing was published.
    """
    _check_size(ctx, draft, needed)
    split = staged_in(staging.unstaged(needed), ctx.policy.max_batch_bytes)
    for portion in split if len(split) > 1 else []:
        for attempt in range(1, ctx.policy.lost_attempts + 1):
            commands = staging.commands(ctx, portion)
            try:
                replies = yield Batch(tuple(commands))
            except ReplyLost as error:
                if attempt == ctx.policy.lost_attempts:
                    raise Unavailable(
                        f"{error.args[0]} Only members were sent, which no reader sees: nothing was "
                        "published. Try again"
                    ) from error
                yield Wait(ctx.backoff(attempt))
                continue
            if (refusal := staging.note(commands, replies)) is not None:
                raise refusal
            break


def _check_size(ctx: Context, draft: Draft, needed: list[Record]) -> None:
    """Raise `PayloadTooLarge` if the commit of a group is too large for one request of the endpoint."""
    limit = ctx.policy.max_request_bytes
    if limit is None:
        return
    size = len(to_json(draft.manifest.raw.decode("utf-8", "replace"))) + SCRIPT_BYTES
    size += sum(len(to_json(each.key)) + len(to_json(each.header.decode())) + 8 for each in needed)
    size += sum(len(to_json(key)) + 1 for key in draft.unlinked)
    if size > limit:
        members = sum(each.key.startswith(ctx.keys.members(draft.manifest.head.dataset)) for each in needed)
        raise PayloadTooLarge(
            f"the commit of {members:,} members and {len(draft.unlinked):,} unlinked records takes about "
            f"{size:,} bytes in one request, and max_request is {limit:,}. Nothing was written. Publish "
            "fewer members at once, or raise max_request= if the endpoint accepts more",
            size_bytes=size,
            limit_bytes=limit,
        )
