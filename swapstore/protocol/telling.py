"""Telling events: what an operation did, counted while it runs. Without a hook nothing of this is run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from swapstore import commands as commands_of
from swapstore import events
from swapstore.errors import Rejected
from swapstore.protocol.operation import Batch, Operation, Wait

if TYPE_CHECKING:
    from swapstore.commands import Command
    from swapstore.format.append import Draft
    from swapstore.fsck.findings import Repair
    from swapstore.models import Commit, Snapshot
    from swapstore.protocol.context import Context
    from swapstore.protocol.publish import Publication

T = TypeVar("T")


@attrs.define
class Tally:
    """What an operation has cost so far."""

    began: float
    round_trips: int = 0
    drafts: set[bytes] = attrs.field(factory=set)
    served: bool = False
    asked_for: set[str] = attrs.field(factory=set)

    def note(self, commands: tuple[Command[Any], ...]) -> None:
        """Count a batch."""
        self.round_trips += 1
        for command in commands:
            if isinstance(command, commands_of.Get):
                self.asked_for.add(command.key)
            elif isinstance(command, commands_of.GetServed):
                self.served = True
            elif isinstance(command, commands_of.Commit):
                self.drafts.add(command.prefix)


def counted(operation: Operation[T], tally: Tally) -> Operation[T]:
    """Run an operation as it is, and count its batches."""
    try:
        step: Batch | Wait = next(operation)
        while True:
            if isinstance(step, Batch):
                tally.note(step.commands)
            try:
                replies = yield step
            except Exception as error:  # noqa: BLE001 - whatever is thrown in is thrown on
                step = operation.throw(error)
            else:
                step = operation.send(replies)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        operation.close()


def read(ctx: Context, reading: Operation[Snapshot | None]) -> Operation[Snapshot | None]:
    """Run a read, and tell whether its payload had to be fetched. Nothing found: nothing is told."""
    if ctx.hook is None:
        return (yield from reading)
    tally = Tally(ctx.clock.monotonic())
    found = yield from counted(reading, tally)
    if found is not None:
        fetched = tally.served or ctx.keys.id(found.dataset, found.id) in tally.asked_for
        _tell_read(ctx, found, tally, events.ReadMiss if fetched else events.ReadHit)
    return found


def remembered(ctx: Context, found: Snapshot) -> None:
    """Tell of a read that did not ask the store."""
    _tell_read(ctx, found, Tally(ctx.clock.monotonic()), events.ReadHit)


def _tell_read(
    ctx: Context, found: Snapshot, tally: Tally, kind: type[events.ReadHit | events.ReadMiss]
) -> None:
    ctx.emit(
        kind(
            dataset=found.dataset,
            version=found.version,
            id=found.id,
            size=found.size,
            round_trips=tally.round_trips,
            elapsed_s=ctx.clock.monotonic() - tally.began,
        )
    )


def publish(ctx: Context, wanted: Publication, publishing: Operation[Commit]) -> Operation[Commit]:
    """Run a publish, and tell how it ended: in a commit, or refused by a validator."""
    if ctx.hook is None:
        return (yield from publishing)
    tally = Tally(ctx.clock.monotonic())
    try:
        commit = yield from counted(publishing, tally)
    except Rejected as error:
        name, size = wanted.dataset, len(wanted.payload)
        ctx.emit(events.PublishRejected(dataset=name, id=error.id or "", size=size, reason=error.reason))
        raise
    ctx.emit(
        events.Published(
            dataset=commit.dataset,
            version=commit.version,
            id=commit.id,
            ts=commit.ts,
            size=commit.size,
            created=commit.created,
            is_latest=commit.is_latest,
            attempts=len(tally.drafts),
            round_trips=tally.round_trips,
            elapsed_s=ctx.clock.monotonic() - tally.began,
        )
    )
    return commit


def retried(ctx: Context, draft: Draft) -> None:
    """Tell that another commit came first."""
    if ctx.hook is not None:
        head, row = draft.manifest.head, draft.row
        ctx.emit(
            events.Retried(dataset=head.dataset, version=head.version, id=None if row is None else row.id)
        )


def repair(ctx: Context, repairing: Operation[Repair]) -> Operation[Repair]:
    """Run a repair, and tell of one that was applied."""
    if ctx.hook is None:
        return (yield from repairing)
    began = ctx.clock.monotonic()
    report = yield from repairing
    if report.applied:
        ctx.emit(
            events.Repaired(
                dataset=report.dataset,
                version=report.version,
                found=len(report.findings),
                left=len(report.left),
                dropped=len(report.dropped),
                restored=len(report.restored),
                elapsed_s=ctx.clock.monotonic() - began,
            )
        )
    return report
