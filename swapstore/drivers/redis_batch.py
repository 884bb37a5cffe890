"""A commit on Redis brings along what its batch stages for it: one command instead of three or four.

The script leaves and answers what the commands would, one after the other; a test compares the two. It spares
the server half of what it does for them, and this side as many commands to write and replies to read.

A server that does not know the script runs nothing of a bundle. The text is sent once the rest of the batch
is done, records and all, so nothing later in a batch may rest on them. No operation sends such a batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

from swapstore.commands import Command, Failed, Stage, Swap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.errors import SwapstoreError

LARGEST = 16 * 1024  # bytes of a record: a script's interpreter copies each, and at 32 KB that costs as much


@attrs.frozen
class Bundle(Command[list[Any]]):
    """Some records to stage, and the commit right behind them that relies on them."""

    stages: tuple[Stage, ...]
    commit: Swap

    @property
    def brought(self) -> list[Stage]:
        """The records in the order of the commit, which is that of the script's answers."""
        stages = {stage.key: stage for stage in self.stages}
        return [stages[staged.key] for staged in self.commit.staged if staged.key in stages]

    def refused(self, error: SwapstoreError) -> list[Failed]:
        """Return a reply for each command: none of them had an effect."""
        return [Failed(error)] * (len(self.stages) + 1)


def bundled(commands: Sequence[Command[Any]]) -> list[Command[Any]]:
    """Return the same commands, each commit with what it can bring along."""
    units: list[Command[Any]] = []
    for command in commands:
        count = _brought_along(command, units) if type(command) is Swap else 0
        if count:
            units[-count:] = [Bundle(tuple(units[-count:]), command)]  # type: ignore[arg-type]
        else:
            units.append(command)
    return units


def _brought_along(commit: Swap, before: list[Command[Any]]) -> int:
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
