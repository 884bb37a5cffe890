"""Verify and repair: look at a dataset, and mend what is wrong, until nothing is.

Repair commits through the same compare-and-set as every other swap. It can be cut anywhere and run again:
what it has staged expires, what it has committed is found in order. When producers move the dataset on
under its hands it drafts anew; when somebody else repairs or resets it, it looks anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.commands import Register
from swapstore.errors import Contended, Damaged, OutcomeUnknown, ReplyLost, Unsupported, UnsupportedFormat
from swapstore.events import Repaired
from swapstore.format.rebuild import in_order
from swapstore.fsck.findings import Finding, Problem, Repair
from swapstore.fsck.redraft import Mender
from swapstore.fsck.unreachable import Sweep
from swapstore.fsck.walk import Survey
from swapstore.protocol.commit import Moved, Staging, Swapped, commit
from swapstore.protocol.load import load_manifest, value_of
from swapstore.protocol.operation import Batch, Operation, Wait

if TYPE_CHECKING:
    from swapstore.protocol.context import Context

LOOKS = 5  # how often a repair looks anew at a dataset that somebody else resets or repairs


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
    began = ctx.clock.monotonic()
    report = _Progress(dataset, applied=apply)
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
    made = report.made(current.version if current else None)
    if made.applied and ctx.hook is not None:
        _emit(ctx, made, began)
    return made


def _emit(ctx: Context, made: Repair, began: float) -> None:
    ctx.emit(
        Repaired(
            dataset=made.dataset,
            version=made.version,
            found=len(made.findings),
            left=len(made.left),
            dropped=len(made.dropped),
            restored=len(made.restored),
            elapsed_s=ctx.clock.monotonic() - began,
        )
    )


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
        yield from ctx.capabilities.committer.stage_ahead(ctx, mended.needed, staging)
        match (yield from commit(ctx, mended.draft, mended.needed, staging)):
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


class _Progress:
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
