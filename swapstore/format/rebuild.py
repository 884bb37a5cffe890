"""Where committed snapshots that no manifest names belong in a log, as pure code.

Their origins tell in which order they were committed. A version in an origin is never later than the one
under which the snapshot was committed, so within one line of versions the order can be trusted, and a
snapshot belongs into the first hole that does not end before it.
"""

from __future__ import annotations

import sys
from collections import deque
from itertools import islice
from typing import TYPE_CHECKING

import attrs

from swapstore.format.records import Origin
from swapstore.models import Entry, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from swapstore.models import Ref


@attrs.frozen(kw_only=True)
class Candidate:
    """A committed snapshot that no manifest names, whole. `has_ts`: the key of its ts record is taken."""

    entry: Entry
    origin: Origin | None
    has_ts: bool

    @classmethod
    def of(cls, row: Row, epoch: str) -> Candidate:
        """A row that the header names, and that was in a page that cannot be read."""
        fields = attrs.asdict(row, recurse=False)
        told = {name: fields.pop(name) for name in ("version", "committed_at", "dedupe_key")}
        return cls(entry=Entry(**fields), origin=Origin(epoch=epoch, **told), has_ts=True)

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


def versioned(candidates: Iterable[Candidate], *, after: int) -> list[Row]:
    """Give each its version back where it can have it: above `after`, and each above the one before.

    Those without an origin take the versions that nobody has, by their times, or the next.
    """
    told, untold = _told(candidates)
    first, rows = after + 1, list[Row]()
    for candidate in told:
        after = max(after + 1, candidate.version)
        rows.append(candidate.row(after))
    rows, left = _filled(rows, untold, first, after)
    return [*rows, *(candidate.row(after + 1 + index) for index, candidate in enumerate(left))]


def placed(
    candidates: Sequence[Candidate], holes: Iterable[Ref]
) -> tuple[dict[str, list[Row]], list[Candidate]]:
    """Fill holes in the log, named by the keys of their pages. Returns the rows of each, and who is left."""
    told, untold = ({c.entry.id: c for c in some} for some in _told(candidates))
    filled: dict[str, list[Row]] = {}
    holes = sorted(holes, key=lambda ref: ref.first_version)
    for hole in holes:
        fitting = _taken(told, hole.count, (c for c in told.values() if c.version <= hole.last_version))
        filled[hole.key] = _within(fitting, hole)
    for hole in holes:
        rows = filled[hole.key]
        of_then = (c for c in untold.values() if hole.min_ts <= c.entry.ts <= hole.max_ts)
        fitting = _taken(untold, hole.count - len(rows), of_then)
        filled[hole.key], _ = _filled(rows, fitting, hole.first_version, hole.last_version)
    return filled, [*told.values(), *untold.values()]


def _taken(left: dict[str, Candidate], most: int, fitting: Iterable[Candidate]) -> list[Candidate]:
    """Take so many of those that fit out of those that are left."""
    found = list(islice(fitting, most))
    for candidate in found:
        del left[candidate.entry.id]
    return found


def _told(candidates: Iterable[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    """Those with an origin, as they come, and those without, by their times."""
    candidates = list(candidates)
    untold = [candidate for candidate in candidates if candidate.origin is None]
    untold.sort(key=lambda candidate: (candidate.entry.ts, candidate.entry.id))
    return [candidate for candidate in candidates if candidate.origin is not None], untold


def _within(candidates: Sequence[Candidate], hole: Ref) -> list[Row]:
    """Give each a version in the hole, ascending, as near to its own as there is room."""
    rows: list[Row] = []
    version = hole.first_version - 1
    for index, candidate in enumerate(candidates):
        room = hole.last_version - (len(candidates) - 1 - index)
        version = min(max(version + 1, candidate.version), room)
        rows.append(candidate.row(version))
    return rows


def _filled(
    rows: Sequence[Row], candidates: Sequence[Candidate], first: int, last: int
) -> tuple[list[Row], list[Candidate]]:
    """Give candidates versions between `first` and `last` that no row has. Returns all rows, and who is left.

    Each takes the first that is free before a later row, but leaves enough for those that come after it.
    """
    free: list[tuple[int, int, int]] = []  # versions from, up to, and the time of the row behind them
    for row in rows:
        if first < row.version:
            free.append((first, row.version - 1, row.ts))
        first = row.version + 1
    if first <= last:
        free.append((first, last, sys.maxsize))
    room = sum(end - start + 1 for start, end, _ in free)
    found, left = list(rows), deque(candidates)
    for start, end, behind in free:
        version = start
        while left and version <= end and (left[0].entry.ts <= behind or room <= len(left)):
            found.append(left.popleft().row(version))
            version, room = version + 1, room - 1
        room -= end - version + 1
    return sorted(found, key=lambda row: row.version), list(left)
