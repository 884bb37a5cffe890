"""Verify and repair: look at a dataset, and mend what is wrong, until nothing is.

Repair commits through the same compare-and-set as every other swap. It can be cut anywhere and run again:
what it has staged expires, what it has committed is found in order. When producers move the dataset on
under its hands it drafts anew; when somebody else repairs or resets it, it looks anew.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from swapstore.commands import Register
from swapstore.errors import Contended, Damaged, OutcomeUnknown, ReplyLost, Unsupported, UnsupportedFormat
from swapstore.format.rebuild import in_order
from swapstore.fsck.findings import Finding, Problem, Repair
from swapstore.fsck.redraft import Mender
from swapstore.fsck.unreachable import Sweep
from swapstore.fsck.walk import Survey
from swapstore.protocol.commit import Moved, Record, Staging, Swapped, swap
from swapstore.protocol.load import load_manifest, value_of
from swapstore.protocol.operation import Batch, Operation, Wait

if TYPE_CHECKING:
    from swapstore.fsck.redraft import Mended
    from swapstore.protocol.context import Context

LOOKS = 5  # how often a repair looks anew at a dataset that somebody else resets or repairs
STAGED_BYTES = 1024 * 1024  # how much is staged together


def look(ctx: Context, dataset: str) -> Operation[tuple[Survey, list[Finding]]]:
    """Look at all of one dataset; return what is wrong with it."""
    survey = Survey(ctx, dataset)
    found = yield from survey.begin()
    while survey.pending:
        found += yield from survey.step()
    sweep = Sweep(ctx, {dataset: survey}, dataset)
    while sweep.pending:
        found += [finding for finding in (yield from sweep.step()) if finding.wrong]
    return survey, found


def repair(ctx: Context, dataset: str, *, apply: bool) -> Operation[Repair]:
    """Mend a dataset, or (without `apply`) say what that would do.

    It looks again after each swap that mends: what it reports as left is what it then still finds.
    """
    report = _Report(dataset, applied=apply)
    for attempt in range(LOOKS):
        try:
            survey, found = yield from look(ctx, dataset)
            report.note(survey, found)
            if not found:
                break
            mends = yield from _mend(ctx, survey, apply=apply)
            if not apply or not mends:
                report.left = () if mends else tuple(found)
                break
            report.done(survey)
        except UnsupportedFormat:
            raise
        except (Contended, OutcomeUnknown, ReplyLost, Damaged):  # damaged, that is, since it was looked at
            if attempt == LOOKS - 1:
                raise
            yield Wait(ctx.backoff(attempt))
    else:
        _, found = yield from look(ctx, dataset)
        report.left = tuple(found)
    try:
        current = yield from load_manifest(ctx, dataset)
    except Damaged:
        current = None
    return report.made(current.version if current else None)


def _mend(ctx: Context, survey: Survey, *, apply: bool) -> Operation[bool]:
    """Mend what one survey found. Returns whether there was anything that could be done."""
    mender, staging = Mender(ctx, survey), Staging()
    if survey.over is not None and ctx.encoding(survey.over) is not None:
        raise Unsupported(
            "what stands in the manifest's place is not text, so REST cannot replace exactly that; repair "
            "through the Redis protocol (rediss://)"
        )
    listed = survey.damage.unlisted and apply
    if listed:
        yield from _list(ctx, survey.dataset)
    for attempt in range(ctx.policy.commit_attempts):
        current = (yield from load_manifest(ctx, survey.dataset)) if survey.over is None else None
        before = survey.manifest
        if (current and current.epoch) != (before and before.epoch):
            raise Contended("the dataset was reset or repaired while it was being repaired")
        mended = yield from (mender.rebuilt() if current is None else mender.mended(current))
        if mended is None or not apply:
            return mended is not None or survey.damage.unlisted
        if ctx.strategy.scripted:
            yield from _stage(ctx, mended, staging)
        match (yield from swap(ctx, mended.draft, mended.needed, staging)):
            case Swapped():
                return True
            case Moved() if survey.over is None:
                yield Wait(ctx.backoff(attempt))
            case _:
                raise Contended("others repaired or changed the dataset while it was being repaired")
    raise Contended(
        f"producers committed first, {ctx.policy.commit_attempts} times in a row; nothing was repaired. "
        "Run it again, or when fewer producers publish"
    )


def _list(ctx: Context, dataset: str) -> Operation[None]:
    (reply,) = yield Batch((Register(ctx.keys.datasets(), dataset),))
    value_of(reply)


def _stage(ctx: Context, mended: Mended, staging: Staging) -> Operation[None]:
    """Stage in bounded batches what would be too much for one; what is lost on the way, the swap sends."""
    batch: list[Record] = []
    size = 0
    for record in mended.needed:
        batch.append(record)
        size += len(record.data)
        if size >= STAGED_BYTES:
            commands = staging.commands(ctx, batch)
            with suppress(ReplyLost):
                staging.note(commands, (yield Batch(tuple(commands))))
            batch, size = [], 0


class _Report:
    """Collects what a repair, which may look several times, has to tell."""

    def __init__(self, dataset: str, *, applied: bool) -> None:
        self._dataset = dataset
        self._applied = applied
        self._found: dict[tuple[Problem, str], Finding] = {}
        self._dropped: dict[str, None] = {}
        self._restored: dict[str, None] = {}
        self.left: tuple[Finding, ...] = ()

    def note(self, survey: Survey, found: list[Finding]) -> None:
        """Take note of a look."""
        self._found.update({(finding.problem, finding.key): finding for finding in found})
        if not self._applied:
            self.done(survey)

    def done(self, survey: Survey) -> None:
        """Take note that what a look found was mended, or would be."""
        self._dropped.update(dict.fromkeys(row.id for row in survey.damage.gone.values()))
        self._restored.update(dict.fromkeys(c.entry.id for c in in_order(survey.damage.candidates)))

    def made(self, version: int | None) -> Repair:
        """Return the report."""
        return Repair(
            dataset=self._dataset,
            applied=self._applied and bool(self._found),
            findings=tuple(self._found.values()),
            dropped=tuple(self._dropped),
            restored=tuple(self._restored),
            left=self.left,
            version=version,
        )
