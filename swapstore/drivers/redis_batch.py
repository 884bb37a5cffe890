"""A commit on Redis stages the records of its batch itself: one command instead of three or four.

The script replies and stores what the commands would, one after the other; a test compares the two. This
halves the server's work, and saves encoding the commands and reading their replies.

A server that does not know the script runs nothing of a bundle. The text of the script and the records are
then sent after the rest of the batch, so no later command of a batch may depend on them. None does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from swapstore.commands import Command, Failed, Stage, Swap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.errors import SwapstoreError

LARGEST = 16 * 1024  # bytes of a record: Lua copies each, and at 32 KB that costs what the bundle saves


@attrs.frozen
class Bundle(Command[list[Any]]):
    """Some records to stage, and the commit right after them that depends on them."""

    stages: tuple[Stage, ...]
    commit: Swap

    @property
    def brought(self) -> list[Stage]:
        """The records in the order of the commit, in which the script answers."""
        stages = {stage.key: stage for stage in self.stages}
        return [stages[staged.key] for staged in self.commit.staged if staged.key in stages]

    def refused(self, error: SwapstoreError) -> list[Failed]:
        """Return a refusal for each command: none of them had an effect."""
        return [Failed(error)] * (len(self.stages) + 1)


def bundled(commands: Sequence[Command[Any]]) -> list[Command[Any]]:
    """Return the same commands, with each commit bundled with the records that it can stage."""
    units: list[Command[Any]] = []
    for command in commands:
        count = _brought_along(command, units) if type(command) is Swap else 0
        if count:
            units[-count:] = [Bundle(tuple(units[-count:]), command)]  # type: ignore[arg-type]
        else:
            units.append(command)
    return units


def _brought_along(commit: Swap, before: list[Command[Any]]) -> int:
    """Return how many of the commands right before a commit it can stage itself."""
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
