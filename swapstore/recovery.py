"""Recovery: what to send again because the store has certainly not carried it out. It does no I/O itself.

A server that is not the primary any more, or has lost its replicas, refuses commands one by one (`Failed`
with `again`). The driver drops its connections to that server, so the next one may lead to the new primary:
the same address, or a sentinel, leads elsewhere after a failover.

What was carried out is not sent a second time. But a demoted server may have answered other commands of the
batch from its own old data: reads, and a commit that it compared with its old manifest. These are sent again
too, which is harmless: a commit swaps only the manifest that it was built on, once.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from typing import Any

import attrs

from swapstore.commands import AwaitReplicas, Command, Committed, Failed, ReadCommand, Swap
from swapstore.errors import ReplyLost, SwapstoreError, Unavailable

FIRST_PAUSE_S = 0.05  # after a first attempt at once; doubled each time
LONGEST_PAUSE_S = 0.5


@attrs.frozen
class Again:
    """Wait, then send these commands. The answer is the list of their replies."""

    pause_s: float
    commands: tuple[Command[Any], ...]


def recover(
    commands: Sequence[Command[Any]], replies: Sequence[Any], patience_s: float
) -> Generator[Again, list[Any], list[Any]]:
    """Yield what to send again until nothing is refused or `patience_s` is over. Returns all replies.

    Raises `ReplyLost` when one of these replies is lost. Another error becomes the refusal of each command
    that is still to be sent: the rest of the batch may have been carried out, the commit too. That the store
    cannot be reached in between is part of a failover. What no new attempt cures ends the attempts.
    """
    found = list(replies)
    pause_s, next_pause_s = 0.0, FIRST_PAUSE_S
    waited_s, began = 0.0, time.monotonic()
    while (refusal := _refusal(commands, found)) is not None:
        waited_s += pause_s
        if waited_s > patience_s or time.monotonic() - began > patience_s:
            return _given_up(commands, found, refusal)
        wanted = [i for i in range(len(found)) if not _is_done(commands, found, i)]
        try:
            answers = yield Again(pause_s, tuple(commands[i] for i in wanted))
        except ReplyLost:
            raise
        except SwapstoreError as error:
            refusal = Failed(error, again=isinstance(error, Unavailable))
            answers = [refusal if isinstance(found[i], Failed) else found[i] for i in wanted]
        for i, answer in zip(wanted, answers, strict=True):
            found[i] = answer
        if not refusal.again:  # no new attempt gets better
            return _given_up(commands, found, refusal)
        pause_s, next_pause_s = next_pause_s, min(2 * next_pause_s, LONGEST_PAUSE_S)
    return found


def _refusal(commands: Sequence[Command[Any]], replies: Sequence[Any]) -> Failed | None:
    """Return the first refusal of a command that may succeed on another connection."""
    for i, reply in enumerate(replies):
        if type(reply) is Failed and reply.again and not _is_done(commands, replies, i):
            return reply
    return None


def _given_up(commands: Sequence[Command[Any]], replies: list[Any], refusal: Failed) -> list[Any]:
    """Return the replies when nothing more is sent: a commit that was not carried out was refused, too."""
    return [
        refusal if isinstance(command, Swap) and not _is_done(commands, replies, i) else reply
        for i, (command, reply) in enumerate(zip(commands, replies, strict=True))
    ]


def _is_done(commands: Sequence[Command[Any]], replies: Sequence[Any], i: int) -> bool:
    """Say whether a reply stands: that of a write which was carried out, or refused for good.

    A wait for replicas is about the write before it, on its connection. On another one it would be about
    nothing, so it stands or is sent again with that write, refused or not.
    """
    command, reply = commands[i], replies[i]
    if isinstance(command, AwaitReplicas):
        return i > 0 and _is_done(commands, replies, i - 1)
    if isinstance(reply, Failed):
        return not reply.again
    if isinstance(command, Swap):
        return isinstance(reply, Committed)
    return not isinstance(command, ReadCommand)
