"""A commit on Redis brings along what its batch stages for it: one command instead of three or four.

The script leaves and answers what the commands would, one after the other; a test compares the two. It spares
the server half of what it does for them, and this side as many commands to write and replies to read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from swapstore.commands import Command, Commit, CommitReply, Failed, Stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.errors import SwapstoreError

LARGEST = 16 * 1024  # bytes of a record: a script's interpreter copies each, and at 32 KB that costs as much


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
        keys = {stage.key for stage in self.stages}
        brought = (staged.key for staged in self.commit.staged if staged.key in keys)
        found = dict(zip(brought, placed, strict=True))
        return [*(found[stage.key] for stage in self.stages), outcome]

    def refused(self, error: SwapstoreError) -> list[Failed]:
        """Return a reply for each command: none of them had an effect."""
        return [Failed(error)] * (len(self.stages) + 1)


def bundled(commands: Sequence[Command[Any]]) -> list[Command[Any]]:
    """Return the same commands, each commit with what it can bring along."""
    units: list[Command[Any]] = []
    for command in commands:
        count = _brought_along(command, units) if type(command) is Commit else 0
        if count:
            units[-count:] = [Bundle(tuple(units[-count:]), command)]  # type: ignore[arg-type]
        else:
            units.append(command)
    return units


def _brought_along(commit: Commit, before: list[Command[Any]]) -> int:
    """Return how many of the last commands before a commit it can bring along."""
    headers = {staged.key: staged.header for staged in commit.staged}
    count = 0
    while count < len(before) and len(headers) == len(commit.staged) - count:
        stage = before[-1 - count]
        if (
            type(stage) is not Stage
            or headers.pop(stage.key, None) != stage.record
            or stage.record.find(b"\n") != len(stage.record) - 1
            or stage.ttl_ms != commit.staging_ttl_ms
            or len(stage.record) + len(stage.body) > LARGEST
        ):
            break
        count += 1
    return count
