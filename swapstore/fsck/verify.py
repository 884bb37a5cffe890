"""Verify: walk one dataset or all of them, then scan their keys, one step at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.commands import Members
from swapstore.fsck.findings import Finding, Progress
from swapstore.fsck.unreachable import KeyScan
from swapstore.fsck.walk import Walk
from swapstore.protocol.load import ask
from swapstore.protocol.operation import Operation

if TYPE_CHECKING:
    from collections.abc import Callable

    from swapstore.protocol.context import Context


class Inspection:
    """One run of verify. `dataset`: the one to verify; None: all on the list of names, and all with keys."""

    def __init__(
        self,
        ctx: Context,
        dataset: str | None,
        *,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._ctx = ctx
        self._on_progress = on_progress
        self._walks: dict[str, Walk] = {}
        self._names: list[str] | None = None if dataset is None else [dataset]
        self._current: Walk | None = None
        self._scan = KeyScan(ctx, self._walks, dataset)

    @property
    def progress(self) -> Progress:
        """How far this run has come."""
        done = self._walks.values()
        return Progress(
            dataset=self._current.dataset if self._current else "",
            rows=sum(walk.rows for walk in done),
            total=sum(walk.total for walk in done),
            keys=self._scan.keys,
        )

    def step(self) -> Operation[list[Finding] | None]:
        """Verify a little more, and return what was found. None: that was all."""
        if not self._scan.pending:
            return None
        found = yield from self._next()
        if self._on_progress is not None:
            self._on_progress(self.progress)
        return found

    def _next(self) -> Operation[list[Finding]]:
        if self._names is None:
            names = yield from ask(self._ctx, Members(self._ctx.keys.datasets()))
            self._names = sorted(names, reverse=True)
            return []
        if self._current is not None and self._current.pending:
            return (yield from self._current.step())
        if self._names:
            self._current = Walk(self._ctx, self._names.pop())
            self._walks[self._current.dataset] = self._current
            return (yield from self._current.begin())
        self._current = None
        return (yield from self._scan.step())
