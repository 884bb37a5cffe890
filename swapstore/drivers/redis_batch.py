"""A commit on Redis brings along what its batch stages for it: one command instead of three or four.

The script leaves and answers what the commands would, one after the other; a test compares the two. It spares
the server half of what it does for them, and this side as many commands to write and replies to read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from swapstore.commands import Command, Commit, CommitReply, Failed, Stage

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from swapstore.errors import SwapstoreError

LARGEST = (
    32 * 1024
)  # bytes of a record; the interpreter of scripts copies each, so a larger one goes by itself


@attrs.frozen
class Bundle(Command[list[Any]]):
    """Some records to stage, and the commit right behind them that relies on them."""

    stages: tuple[Stage, ...]
    commit: Commit

    @property
    def key(self) -> str:
        """The manifest's."""
        return self.commit.key

    def replies(self, outcome: CommitReply, placed: Sequence[bool | Failed]) -> list[Any]:
        """Return a reply for each command; the script gives those of the records in the commit's order."""
        brought = {stage.key for stage in self.stages}
        found = dict(
            zip((each.key for each in self.commit.staged if each.key in brought), placed, strict=True)
        )
        return [*(found[stage.key] for stage in self.stages), outcome]

    def refused(self, error: SwapstoreError) -> list[Failed]:
        """Return a reply for each command: none of them had an effect."""
        return [Failed(error)] * (len(self.stages) + 1)


def bundled(commands: Sequence[Command[Any]]) -> Sequence[Command[Any]]:
    """Return the same commands, each commit with what it can bring along."""
    if not any(type(command) is Commit for command in commands):
        return commands
    units: list[Command[Any]] = []
    for command in commands:
        if type(command) is Commit:
            stages = list(_brought_along(command, units))[::-1]
            if stages:
                units[-len(stages) :] = [Bundle(tuple(stages), command)]
                continue
        units.append(command)
    return units


def _brought_along(commit: Commit, before: Sequence[Command[Any]]) -> Iterator[Stage]:
    """Yield what is staged right before a commit, for it, the last one first."""
    headers = {staged.key: staged.header for staged in commit.staged}
    if len(headers) < len(commit.staged):
        return
    for stage in reversed(before):
        if (
            type(stage) is not Stage
            or headers.pop(stage.key, None) != stage.record
            or stage.record.find(b"\n") != len(stage.record) - 1
            or stage.ttl_ms != commit.staging_ttl_ms
            or len(stage.record) + len(stage.body) > LARGEST
        ):
            return
        yield stage
