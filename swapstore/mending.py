"""Where committed snapshots that no manifest names belong in a log, as pure code.

Their origins tell in which order they were committed. A version in an origin is never later than the one
under which the snapshot was committed, so within one line of versions the order can be trusted, and a
snapshot belongs into the first hole that does not end before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from swapstore.models import Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from swapstore.models import Entry, Ref
    from swapstore.records import Origin


@attrs.frozen(kw_only=True)
class Candidate:
    """A committed snapshot that no manifest names, whole. `has_ts`: its ts record is there too."""

    entry: Entry
    origin: Origin | None
    has_ts: bool

    @property
    def version(self) -> int:
        """The version that it was committed under, or an earlier one."""
        return self.origin.version if self.origin else 0

    def row(self, version: int) -> Row:
        """Give it a version. Without an origin nothing tells when it was committed: its `ts` must do."""
        return Row(
            **attrs.asdict(self.entry, recurse=False),
            version=version,
            committed_at=self.origin.committed_at if self.origin else self.entry.ts,
            dedupe_key=self.origin.dedupe_key if self.origin else None,
        )


def in_order(candidates: Iterable[Candidate]) -> list[Candidate]:
    """Sort as they were committed: line of versions after line, by their earliest commit, then by version."""
    began: dict[str, int] = {}
    candidates = list(candidates)
    for candidate in candidates:
        if candidate.origin:
            epoch, moment = candidate.origin.epoch, candidate.origin.committed_at
            began[epoch] = min(moment, began.get(epoch, moment))

    def place(candidate: Candidate) -> tuple[int, str, int, int, str]:
        epoch = candidate.origin.epoch if candidate.origin else ""
        return began.get(epoch, 0), epoch, candidate.version, candidate.entry.ts, candidate.entry.id

    return sorted(candidates, key=place)


def versioned(candidates: Sequence[Candidate], *, after: int) -> list[Row]:
    """Give each its version back where it can have it: above `after`, and each above the one before."""
    rows: list[Row] = []
    for candidate in candidates:
        after = max(after + 1, candidate.version)
        rows.append(candidate.row(after))
    return rows


def placed(
    candidates: Sequence[Candidate], holes: Iterable[Ref]
) -> tuple[dict[str, list[Row]], list[Candidate]]:
    """Fill holes in the log, named by the keys of their pages. Returns the rows of each, and who is left."""
    left = list(candidates)
    filled: dict[str, list[Row]] = {}
    for hole in sorted(holes, key=lambda ref: ref.first_version):
        fitting = [candidate for candidate in left if candidate.version <= hole.last_version][: hole.count]
        filled[hole.key] = _within(fitting, hole)
        left = [candidate for candidate in left if candidate not in fitting]
    return filled, left


def _within(candidates: Sequence[Candidate], hole: Ref) -> list[Row]:
    """Give each a version in the hole, ascending, as near to its own as there is room."""
    rows: list[Row] = []
    version = hole.first_version - 1
    for index, candidate in enumerate(candidates):
        room = hole.last_version - (len(candidates) - 1 - index)
        version = min(max(version + 1, candidate.version), room)
        rows.append(candidate.row(version))
    return rows
