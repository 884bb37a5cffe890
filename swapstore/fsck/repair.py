"""Repair: verify a dataset, commit a draft that repairs what is wrong, and repeat until nothing is.

A repair commits through the same compare-and-set as every other swap. It can be cut short at any command and
run again: what it has staged expires, and what it has committed is whole. If producers commit concurrently,
it drafts again on their manifest. If the dataset is reset or repaired concurrently, it verifies again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.commands import Register
from swapstore.errors import Contended, Damaged, OutcomeUnknown, ReplyLost, Unsupported, UnsupportedFormat
from swapstore.events import Repaired
from swapstore.format import encodings
from swapstore.format.append import repoint
from swapstore.format.keys import base_version
from swapstore.format.rebuild import in_order
from swapstore.fsck.findings import Finding, Problem, Repair
from swapstore.fsck.redraft import Redrafter
from swapstore.fsck.unreachable import KeyScan
from swapstore.fsck.walk import Walk
from swapstore.protocol.commit import Moved, Staging, Swapped, commit
from swapstore.protocol.load import load_manifest, value_of
from swapstore.protocol.operation import Batch, Operation, Wait

if TYPE_CHECKING:
    from swapstore.protocol.context import Context

ATTEMPTS = 5  # how often a repair verifies a dataset that is reset or repaired concurrently


def repair(ctx: Context, dataset: str, *, apply: bool) -> Operation[Repair]:
    """Repair a dataset, or (without `apply`) report what that would do.

    It verifies again after each swap. What it reports as left is what it still finds then. Raises
    `Contended` if the dataset is reset or repaired concurrently each time, or if producers always commit
    first.
    """
    began = ctx.clock.monotonic()
    report = _Report(dataset, applied=apply)
    for attempt in range(ATTEMPTS):
        try:
            walk, found = yield from _verify(ctx, dataset)
            report.note(walk, found)
            if not found:
                break
            repairs = yield from _repair(ctx, walk, apply=apply)
            if not apply or not repairs:
                report.left = () if repairs else tuple(found)
                break
            report.done(walk)
        except UnsupportedFormat:
            raise
        except (Contended, OutcomeUnknown, ReplyLost, Damaged):  # `Damaged`: since it was verified
            if attempt == ATTEMPTS - 1:
                raise
            yield Wait(ctx.backoff(attempt))
    else:
        _, found = yield from _verify(ctx, dataset)
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


def _verify(ctx: Context, dataset: str) -> Operation[tuple[Walk, list[Finding]]]:
    """Verify one dataset. Returns the walk, and the findings that are wrong."""
    walk = Walk(ctx, dataset)
    found = yield from walk.begin()
    while walk.pending:
        found += yield from walk.step()
    scan = KeyScan(ctx, {dataset: walk}, dataset)
    while scan.pending:
        found += [finding for finding in (yield from scan.step()) if finding.wrong]
    return walk, found


def _repair(ctx: Context, walk: Walk, *, apply: bool) -> Operation[bool]:
    """Commit a draft that repairs what one walk found. Returns whether there was anything to repair."""
    redrafter, staging = Redrafter(ctx, walk), Staging()
    if walk.over is not None and encodings.plain(walk.over, text_only=ctx.policy.text_only).encoding:
        raise Unsupported(
            "the value that is stored instead of the manifest is not text, so REST cannot compare and "
            "replace it. Nothing was repaired; repair through the Redis protocol (rediss://)"
        )
    listed = walk.damage.unlisted and apply
    if listed:
        yield from _list(ctx, walk.dataset)
    for attempt in range(ctx.policy.commit_attempts):
        current = (yield from load_manifest(ctx, walk.dataset)) if walk.over is None else None
        before = walk.manifest
        if (current and current.epoch) != (before and before.epoch):
            raise Contended("the dataset was reset or repaired while it was being repaired; run repair again")
        made = yield from (redrafter.rebuilt() if current is None else redrafter.repaired(current))
        if made is None or not apply:
            found = made is not None or walk.damage.unlisted
            return (yield from _reclaim(ctx, walk, apply=apply)) or found
        yield from ctx.capabilities.committer.stage_ahead(ctx, made.needed, staging)
        match (yield from commit(ctx, made.draft, made.needed, staging)):
            case Swapped():
                return True
            case Moved() if walk.over is None:
                yield Wait(ctx.backoff(attempt))
            case _:
                raise Contended(
                    "the dataset was repaired or changed while it was being repaired; run repair again"
                )
    raise Contended(
        f"producers committed first, {ctx.policy.commit_attempts} times in a row; nothing was repaired. "
        "Run repair again, or run it when fewer producers publish"
    )


def _reclaim(ctx: Context, walk: Walk, *, apply: bool) -> Operation[bool]:
    """Delete leaked records that no swap of this client can unlink. Returns whether there were any."""
    committer, leaked = ctx.capabilities.committer, walk.damage.leaked
    if walk.manifest is None:
        return False
    if apply and not committer.expires_leaks:
        yield from _pass_by(ctx, walk)
    return (yield from committer.reclaim(ctx, walk.dataset, leaked, apply=apply))


def _pass_by(ctx: Context, walk: Walk) -> Operation[None]:
    """Swap the manifest without a change if a base of the very next version has leaked.

    A publish under way that brings it then has to look again, and brings another. If it has left id and ts
    records too, these are reclaimed first, when they are old.
    """
    names = [name for key in walk.damage.leaked if (name := ctx.keys.parse(key)) is not None]
    current = yield from load_manifest(ctx, walk.dataset)
    if current is None or any(name.kind in {"id", "ts"} for name in names):
        return
    if any(name.kind == "base" and base_version(name.rest) == current.version + 1 for name in names):
        yield from commit(ctx, repoint(current, stamp=ctx.stamp()), [], Staging())


def _list(ctx: Context, dataset: str) -> Operation[None]:
    (reply,) = yield Batch((Register(ctx.keys.datasets(), dataset),))
    value_of(reply)


class _Report:
    """What a repair has found and done so far, over all of its walks."""

    def __init__(self, dataset: str, *, applied: bool) -> None:
        self._dataset = dataset
        self._applied = applied
        self._found: dict[tuple[Problem, str], Finding] = {}
        self._dropped: dict[str, None] = {}
        self._restored: dict[str, None] = {}
        self._pin_unknown = False
        self.left: tuple[Finding, ...] = ()

    def note(self, walk: Walk, found: list[Finding]) -> None:
        """Add what one walk found."""
        self._found.update({(finding.problem, finding.key): finding for finding in found})
        if not self._applied:
            self.done(walk)

    def done(self, walk: Walk) -> None:
        """Add what was repaired, or would be, of what one walk found."""
        self._dropped.update(dict.fromkeys(row.id for row in walk.damage.gone.values()))
        self._restored.update(dict.fromkeys(c.entry.id for c in in_order(walk.damage.candidates)))
        self._pin_unknown |= walk.head is None and bool(walk.damage.candidates)

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
            pin_unknown=self._pin_unknown,
        )
