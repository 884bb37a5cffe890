"""An inspection: surveys of one dataset or of all, then one sweep of their keys, a step at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.commands import Members
from swapstore.fsck.findings import Finding, Progress
from swapstore.fsck.unreachable import Sweep
from swapstore.fsck.walk import Survey
from swapstore.protocol.load import ask
from swapstore.protocol.operation import Operation

if TYPE_CHECKING:
    from collections.abc import Callable

    from swapstore.protocol.context import Context


class Inspection:
    """What `verify` runs, a step at a time."""

    def __init__(
        self,
        ctx: Context,
        dataset: str | None,
        *,
        on_progress: Callable[[Progress], None] | None = None,
    ) -> None:
        self._ctx = ctx
        self._on_progress = on_progress
        self._surveys: dict[str, Survey] = {}
        self._names: list[str] | None = None if dataset is None else [dataset]
        self._current: Survey | None = None
        self._sweep = Sweep(ctx, self._surveys, dataset)

    @property
    def progress(self) -> Progress:
        """How far it has come."""
        done = self._surveys.values()
        return Progress(
            dataset=self._current.dataset if self._current else "",
            rows=sum(survey.rows for survey in done),
            total=sum(survey.total for survey in done),
            keys=self._sweep.keys,
        )

    def step(self) -> Operation[list[Finding] | None]:
        """Look at a little more; None: that was all."""
        if not self._sweep.pending:
            return None
        found = yield from self._look()
        if self._on_progress is not None:
            self._on_progress(self.progress)
        return found

    def _look(self) -> Operation[list[Finding]]:
        if self._names is None:
            names = yield from ask(self._ctx, Members(self._ctx.keys.datasets()))
            self._names = sorted(names, reverse=True)
            return []
        if self._current is not None and self._current.pending:
            return (yield from self._current.step())
        if self._names:
            self._current = Survey(self._ctx, self._names.pop())
            self._surveys[self._current.dataset] = self._current
            return (yield from self._current.begin())
        self._current = None
        return (yield from self._sweep.step())
