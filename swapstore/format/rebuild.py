"""Rebuild a log, as pure code: where committed snapshots that no manifest references belong in it.

The origins in their ts records state in which order they were committed: an origin has the version that
committed the snapshot. A repair may have given the row a greater one since. So the order within one epoch can
be trusted, and a snapshot belongs in the first hole that does not end before its version.

A version that a client has stored must not come to name another snapshot: a follower that goes on after it
would skip one of the two. So a snapshot without an origin gets a version of a hole only if no other fits, or
if nobody is shown that part of the history. Otherwise it gets a new version.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING

import attrs

from swapstore.format.records import Origin
from swapstore.models import Entry, Row

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from swapstore.models import Ref


@attrs.frozen(kw_only=True)
class Unnamed:
    """A committed, undamaged snapshot that no manifest references.

    `has_ts`: its ts key exists. `base`: the base that its id record names. `is_proved`: a record shows that
    it was committed. `is_served`: the header names it, so that it stays readable without a row in the log.
    """

    entry: Entry
    origin: Origin | None
    has_ts: bool
    base: str | None = None
    is_proved: bool = True
    is_served: bool = False

    @classmethod
    def of(cls, row: Row, epoch: str) -> Unnamed:
        """Convert a row that the header holds, and whose page cannot be read."""
        fields = attrs.asdict(row, recurse=False)
        base = fields.pop("base")
        for name in ("version", "committed_at", "dedupe_key"):
            del fields[name]
        origin = Origin.of(row, epoch)
        return cls(entry=Entry(**fields), origin=origin, has_ts=True, base=base, is_served=True)

    @property
    def version(self) -> int:
        """The version that committed it, or an earlier one; 0 if that is not known."""
        return self.origin.version if self.origin else 0

    def row(self, version: int) -> Row:
        """Return its row with this version. Without an origin, `ts` stands in for the time of the commit."""
        return Row(
            **attrs.asdict(self.entry, recurse=False),
            version=version,
            committed_at=self.origin.committed_at if self.origin else self.entry.ts,
            dedupe_key=self.origin.dedupe_key if self.origin else None,
            base=self.base,
        )


def in_order(candidates: Iterable[Unnamed]) -> list[Unnamed]:
    """Sort in the order of their commits: by version, or first by the earliest commit of their epochs.

    A repair begins a new epoch and goes on with the versions. So epochs matter only if two snapshots have the
    same version: then a history was lost, and another one began.
    """
    began: dict[str, int] = {}
    candidates = list(candidates)
    versions = [candidate.version for candidate in candidates if candidate.origin]
    is_one_line = len(set(versions)) == len(versions)
    for candidate in candidates:
        if candidate.origin and not is_one_line:
            epoch, moment = candidate.origin.epoch, candidate.origin.committed_at
            began[epoch] = min(moment, began.get(epoch, moment))

    def place(candidate: Unnamed) -> tuple[int, str, int, int, str]:
        epoch = candidate.origin.epoch if candidate.origin and began else ""
        return began.get(epoch, 0), epoch, candidate.version, candidate.entry.ts, candidate.entry.id

    return sorted(candidates, key=place)


def versioned(candidates: Iterable[Unnamed], *, after: int) -> list[Row]:
    """Give each its own version if that is free: all above `after`, each above the one before.

    Those without an origin get the next versions, in the order of their times.
    """
    dated, undated = _by_origin(candidates)
    rows: list[Row] = []
    for candidate in (*dated, *undated):
        after = max(after + 1, candidate.version)
        rows.append(candidate.row(after))
    return rows


def placed(
    candidates: Sequence[Unnamed], holes: Iterable[Ref], *, first_version: int
) -> tuple[dict[str, list[Row]], list[Unnamed]]:
    """Fill the holes of lost pages in the log. Returns the rows by page key, and the snapshots left over.

    The history does not show versions below `first_version`.
    """
    dated, undated = ({c.entry.id: c for c in some} for some in _by_origin(candidates))
    filled: dict[str, list[Row]] = {}
    holes = sorted(holes, key=lambda ref: ref.first_version)
    for hole in holes:
        fitting = _taken(
            dated,
            hole.count,
            (c for c in dated.values() if c.version <= hole.last_version),
            epoch=hole.key.rpartition(":")[2].partition(".")[0],
        )
        filled[hole.key] = _within(fitting, hole)
    for hole in holes:
        rows = filled[hole.key]
        of_that_time = [c for c in undated.values() if hole.min_ts <= c.entry.ts <= hole.max_ts]
        versions = hole.last_version - hole.first_version + 1 - len(rows)
        if versions == 1 == len(of_that_time) or hole.last_version < first_version:
            fitting = _taken(undated, hole.count - len(rows), of_that_time)
            filled[hole.key], _ = _filled(rows, fitting, hole.first_version, hole.last_version)
    return filled, [c for c in (*dated.values(), *undated.values()) if not c.is_served]


def _taken(
    left: dict[str, Unnamed], most: int, fitting: Iterable[Unnamed], *, epoch: str = ""
) -> list[Unnamed]:
    """Remove up to `most` of the fitting candidates from those that are left, and return them.

    Those of the page's epoch come first: others may be of a history that was lost before, and have the same
    versions. What the header serves comes last: it can be read without a place in the log.
    """
    fitting = list(fitting)

    def place(candidate: Unnamed) -> tuple[bool, bool]:
        is_of_page = candidate.origin is not None and candidate.origin.epoch == epoch
        return candidate.is_served, not is_of_page

    taken = {c.entry.id for c in sorted(fitting, key=place)[:most]}
    for name in taken:
        del left[name]
    return [candidate for candidate in fitting if candidate.entry.id in taken]


def _by_origin(candidates: Iterable[Unnamed]) -> tuple[list[Unnamed], list[Unnamed]]:
    """Split into those with an origin, in the given order, and those without one, in the order of time."""
    candidates = list(candidates)
    undated = [candidate for candidate in candidates if candidate.origin is None]
    undated.sort(key=lambda candidate: (candidate.entry.ts, candidate.entry.id))
    return [candidate for candidate in candidates if candidate.origin is not None], undated


def _within(candidates: Sequence[Unnamed], hole: Ref) -> list[Row]:
    """Give each a version in the hole: ascending, and as near to its own version as possible."""
    rows: list[Row] = []
    version = hole.first_version - 1
    for index, candidate in enumerate(candidates):
        room = hole.last_version - (len(candidates) - 1 - index)
        version = min(max(version + 1, candidate.version), room)
        rows.append(candidate.row(version))
    return rows


def _filled(
    rows: Sequence[Row], candidates: Sequence[Unnamed], first: int, last: int
) -> tuple[list[Row], list[Unnamed]]:
    """Give candidates the versions from `first` to `last` that no row has. Returns all rows, and who is left.

    Each gets the first free version that is followed by a row with a later `ts`. It gets an earlier one if
    the candidates after it would not have enough versions left otherwise.
    """
    free: list[tuple[int, int, int]] = []  # the first and last version, and the ts of the row after them
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
