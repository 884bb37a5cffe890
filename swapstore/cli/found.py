"""What a look at a store found, in bounded room: a person reads some of each kind, and how many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from swapstore.fsck.findings import Problem

if TYPE_CHECKING:
    from swapstore.fsck.findings import Finding

KEPT = 50  # of each kind: more than a person is shown


@attrs.define
class Group:
    """Findings of one kind in one dataset: the first of them, and how many."""

    findings: list[Finding] = attrs.field(factory=list)
    count: int = 0


@attrs.define
class Found:
    """All that a look found. `rows` is the number of snapshots that were compared."""

    rows: int = 0
    wrong: int = 0
    groups: dict[tuple[str, Problem], Group] = attrs.field(factory=dict)
    orphans: int = 0
    oldest_ms: int = 0
    last_expires_in_ms: int = 0
    foreign: Group = attrs.field(factory=Group)

    @property
    def datasets(self) -> list[str]:
        """The names of the datasets in which something is wrong."""
        return sorted({dataset for dataset, _ in self.groups})

    def add(self, finding: Finding) -> None:
        """Take note of one finding."""
        if finding.problem is Problem.ORPHAN:
            self.orphans += 1
            self.oldest_ms = max(self.oldest_ms, finding.age_ms or 0)
            self.last_expires_in_ms = max(self.last_expires_in_ms, finding.expires_in_ms or 0)
            return
        group = self.foreign
        if finding.wrong:
            self.wrong += 1
            group = self.groups.setdefault((finding.dataset, finding.problem), Group())
        group.count += 1
        if len(group.findings) < KEPT:
            group.findings.append(finding)

    def chosen(self, most: int) -> list[Finding]:
        """Return at most so many of what is wrong, some of each kind: no kind hides the others."""
        chosen: list[Finding] = []
        groups = sorted(self.groups.values(), key=lambda group: group.count)
        for index, group in enumerate(groups):
            room = (most - len(chosen)) // (len(groups) - index)
            chosen += group.findings[: max(room, 1)]
        return sorted(chosen[:most], key=lambda finding: (finding.dataset, _ORDER[finding.problem]))


_ORDER = {problem: place for place, problem in enumerate(Problem)}
