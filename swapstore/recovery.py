"""Recovery: what to send again because the store has certainly not carried it out. It does no I/O itself.

A server that is not the primary any more, or cannot serve yet, refuses commands one by one (`Failed` with
`again`). One that is down, or whose address nobody knows, gets nothing (`Unavailable` with `again`), and a
lost reply to what only reads is as good as that. The driver drops its connections to that server, so the next
one may lead to the new primary: the same address, or a sentinel, leads elsewhere after a failover.

What was carried out is not sent a second time. But a demoted server may have answered other commands of the
batch from its own old data: reads, and a commit that it compared with its old manifest. These are sent again
too, which is harmless: a commit swaps only the manifest that it was built on, once.

`Patience` bounds it. Each outage has all of it: a call whose batches get through in between makes progress.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Generator, Sequence
from typing import Any

from swapstore.commands import AwaitReplicas, Command, Committed, Failed, ReadCommand, Swap
from swapstore.errors import ReplyLost, SwapstoreError, Unavailable
from swapstore.structs import Struct

LOG = logging.getLogger("swapstore")

FIRST_PAUSE_S = 0.05  # after a first attempt at once; doubled each time
LONGEST_PAUSE_S = 0.5
LOGGED_AFTER_S = 1.0  # a person at a terminal wants to know by then


class Patience:
    """How long a client goes on trying, in seconds; 0: it does not. All calls of a store share one.

    It logs that they wait, once for all of them.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._logged_at = float("-inf")

    def note(self, error: SwapstoreError, waited_s: float, most_s: float) -> None:
        """Log what a call waits for, if it has waited for some time and no other call has logged it.

        `most_s`: how long the call may wait in all.
        """
        now = time.monotonic()
        if waited_s >= LOGGED_AFTER_S and now - self._logged_at > max(self.seconds, LOGGED_AFTER_S):
            self._logged_at = now
            LOG.warning("%s Trying for up to %g s", _sentence(error), min(self.seconds, most_s))


class Again(Struct, frozen=True):
    """Wait, then send these commands. The answer is the list of their replies."""

    pause_s: float
    commands: tuple[Command[Any], ...]


class _Effort:
    """How long this outage has lasted. The waits count by themselves: a test may have frozen the clock.

    It begins when the first attempt, of `first_s` seconds, has failed. `most_s`: see `Patience.note`.
    """

    def __init__(self, patience: Patience, first_s: float, most_s: float) -> None:
        self._patience = patience
        self._first_s = first_s
        self._most_s = most_s
        self._attempts = 1
        self._waited_s = 0.0
        self._began = time.monotonic()

    def affords(self, pause_s: float, cause: SwapstoreError) -> bool:
        """Count a wait and the attempt after it, and say whether there is patience for them."""
        elapsed_s = self._elapsed_s()
        if not self._patience.seconds or elapsed_s + pause_s > self._patience.seconds:
            return False
        self._patience.note(cause, elapsed_s, self._most_s)
        self._waited_s += pause_s
        self._attempts += 1
        return True

    def _elapsed_s(self) -> float:
        return max(self._waited_s, time.monotonic() - self._began)

    def told(self, error: SwapstoreError, seen: SwapstoreError | None = None) -> SwapstoreError:
        """Return an error that also says what was tried. `seen`: the one before; None: patience is over."""
        if self._attempts == 1 or not isinstance(error, Unavailable):
            return error
        tried = f"Tried {self._attempts} times in {self._first_s + self._elapsed_s():.1f} s"
        if self._first_s >= LOGGED_AFTER_S:  # a server that does not answer: patience begins after that
            tried += f", the first for {self._first_s:.1f} s"
        if seen is None:
            text = f"{_sentence(error)} {tried} (patience: {self._patience.seconds:g} s)"
        else:
            text = f"{_sentence(error)} {tried}; before that: {seen.args[0]}"
        told = Unavailable(text) if isinstance(error, ReplyLost) else copy.copy(error)
        told.args = (text,)
        return told


def _sentence(error: SwapstoreError) -> str:
    text: str = error.args[0]
    return text if text.endswith((".", "?", "!")) else f"{text}."


def recover(
    commands: Sequence[Command[Any]],
    outcome: Sequence[Any] | Unavailable,
    patience: Patience,
    *,
    first_s: float = 0.0,
    most_s: float = float("inf"),
) -> Generator[Again, list[Any], list[Any]]:
    """Yield what to send again until nothing is refused or the patience is over. Returns all replies.

    `outcome`: the replies to the batch, or the error because of which there are none. `first_s`: how long
    that took. `most_s`: how long the call may take in all. Raises `ReplyLost` when a reply is lost and
    something may have been applied. Raises any other error only if nothing of the batch was carried out;
    else it becomes the refusal of each command that is still to be sent.
    """
    raised: SwapstoreError | None = outcome if isinstance(outcome, Unavailable) else None
    found: list[Any] = [
        *([Failed(outcome, again=True)] * len(commands) if isinstance(outcome, Unavailable) else outcome)
    ]
    effort = _Effort(patience, first_s, most_s)
    pause_s, next_pause_s = 0.0, FIRST_PAUSE_S
    while (refusal := _refusal(commands, found)) is not None:
        if not effort.affords(pause_s, refusal.error):
            return _given_up(commands, found, effort.told(refusal.error), raised)
        wanted = [i for i in range(len(found)) if not _is_done(commands, found, i)]
        try:
            answers, raised = (yield Again(pause_s, tuple(commands[i] for i in wanted))), None
        except SwapstoreError as error:
            raised = error
        if raised is not None:
            if not (isinstance(raised, Unavailable) and raised.again):
                if isinstance(raised, ReplyLost):
                    raise raised
                return _given_up(commands, found, effort.told(raised, refusal.error), raised)
            failed = Failed(raised, again=True)
            answers = [failed if isinstance(found[i], Failed) else found[i] for i in wanted]
        for i, answer in zip(wanted, answers, strict=True):
            found[i] = answer
        pause_s, next_pause_s = next_pause_s, min(2 * next_pause_s, LONGEST_PAUSE_S)
    return found


def _refusal(commands: Sequence[Command[Any]], replies: Sequence[Any]) -> Failed | None:
    """Return the first refusal of a command that may succeed on another connection."""
    for i, reply in enumerate(replies):
        if type(reply) is Failed and reply.again and not _is_done(commands, replies, i):
            return reply
    return None


def _given_up(
    commands: Sequence[Command[Any]],
    replies: list[Any],
    error: SwapstoreError,
    raised: SwapstoreError | None,
) -> list[Any]:
    """Return the replies when nothing more is sent: a commit that was not carried out was refused, too.

    Raises the error instead if nothing was carried out, and the last attempt brought no replies.
    """
    done = [_is_done(commands, replies, i) for i in range(len(replies))]
    if raised is not None and not any(done):
        raise error from raised.__cause__
    refused = Failed(error, again=True)
    return [
        reply if is_done or not (isinstance(reply, Failed) or isinstance(command, Swap)) else refused
        for command, reply, is_done in zip(commands, replies, done, strict=True)
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
