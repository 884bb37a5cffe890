"""A sweep: every key of a dataset, or of all, that no survey has seen; on its way out, or forgotten.

What has a TTL goes away by itself. What has none was committed: perhaps since the survey, perhaps under a
manifest that is lost. Only what is proved to belong to no commit is called leaked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from swapstore.commands import ABSENT, PERMANENT, Scan, Ttl
from swapstore.findings import Finding, Problem
from swapstore.operations.compare import finding_of
from swapstore.operations.operation import Operation
from swapstore.operations.steps import ask, ask_all, value_of
from swapstore.operations.survey import Survey
from swapstore.operations.suspects import decide, judge, leaked, still_unknown

if TYPE_CHECKING:
    from swapstore.format.keys import Name
    from swapstore.operations.context import Context

SCAN_KEYS = 500


class Sweep:
    """Goes through the keys, in steps."""

    def __init__(self, ctx: Context, surveys: dict[str, Survey], dataset: str | None) -> None:
        self._ctx = ctx
        self._surveys = surveys
        self._pattern = ctx.keys.all(dataset)
        self._only = dataset
        self._cursor: str | None = ""
        self.keys = 0

    @property
    def pending(self) -> bool:
        """Whether there are more steps."""
        return self._cursor is not None

    def step(self) -> Operation[list[Finding]]:
        """Look at some more keys."""
        scanned = yield from ask(self._ctx, Scan(self._pattern, self._cursor or "", SCAN_KEYS))
        self._cursor = scanned.cursor
        self.keys += len(scanned.keys)
        found: list[Finding] = []
        names: list[Name] = []
        for key in dict.fromkeys(scanned.keys):
            name = self._ctx.keys.parse(key)
            if name is None:
                found += self._foreign(key)
            elif name.kind != "manifest" and self._only in {None, name.dataset}:
                names.append(name)
        ttls = yield from ask_all(self._ctx, [Ttl(name.key) for name in names])
        suspects: dict[str, list[Name]] = {}
        for name, reply in zip(names, ttls, strict=True):
            survey = yield from self._survey(name.dataset, found)
            ttl = value_of(reply)
            passing = name.kind in {"live", "lease"} and ttl != PERMANENT
            if name.key in survey.known or ttl == ABSENT or passing:
                continue
            if ttl == PERMANENT:
                suspects.setdefault(name.dataset, []).append(name)
            else:
                found.append(self._orphan(name, ttl))
        for dataset, suspected in suspects.items():
            found += yield from self._resolve(self._surveys[dataset], suspected)
        if not self.pending:
            for survey in self._surveys.values():
                found += decide(survey)
        return found

    def _survey(self, dataset: str, found: list[Finding]) -> Operation[Survey]:
        """Return the dataset's survey; make it when its keys are the first that is seen of it."""
        survey = self._surveys.get(dataset)
        if survey is None:
            survey = self._surveys[dataset] = Survey(self._ctx, dataset)
            found += yield from survey.begin()
            while survey.pending:
                found += yield from survey.step()
        return survey

    def _orphan(self, name: Name, ttl: int) -> Finding:
        began = self._ctx.policy.staging_ttl_ms
        finding = finding_of(name.dataset, Problem.ORPHAN, name.key, expires_in_ms=ttl)
        is_record = name.kind != "live" and ttl <= began
        return attrs.evolve(finding, age_ms=began - ttl if is_record else None)

    def _foreign(self, key: str) -> list[Finding]:
        if key == self._ctx.keys.datasets():
            return []
        return [finding_of(self._only or "", Problem.FOREIGN, key)]

    def _resolve(self, survey: Survey, suspects: list[Name]) -> Operation[list[Finding]]:
        found: list[Finding] = []
        for name in (yield from still_unknown(self._ctx, survey, suspects)):
            if name.kind in {"id", "ts"}:
                found += yield from judge(self._ctx, survey, name)
            else:
                found += leaked(survey, [name.key])
        return found
