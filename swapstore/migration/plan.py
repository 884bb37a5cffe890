"""Which snapshots the old keys amount to, without I/O, and the facts that an import reports.

The index comes first. A member is an id, and its score is the time. If no by-id key has that name, the member
may be a time, whose payload is in the by-time record. Records that no index names come next, as far as their
region and time are known. A by-time record at the time of an id is a copy of that snapshot, not another one.
"""

from __future__ import annotations

import enum
import math
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

import attrs

from swapstore.arguments import MAX_TS_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from swapstore.migration.layout import Layout
    from swapstore.migration.source import Catalog, Seen


SECONDS_BELOW = 100_000_000_000  # as ms this is 1973, as seconds the year 5138


class FaultKind(enum.StrEnum):
    """What can be wrong in the source."""

    EXPIRED = "expired"  # the index names payloads older than any that is left: their time-to-live is over
    DANGLING = "dangling"  # the index or the pointer names a payload that does not exist
    UNINDEXED = "unindexed"  # a payload that no index names
    UNREADABLE = "unreadable"  # not JSON, another type of value, or an invalid name or time
    REFUSED = "refused"  # the store has other content under this id, or keeps nothing so old
    LATEST = "latest"  # the old pointer differs from the store's latest


@attrs.frozen(kw_only=True)
class SourceFault:
    """Something that is wrong in the source, and whether its snapshot was imported nevertheless.

    `key` is the key in the source. `dataset`, `id` and `ts` (ms since the Unix epoch) are None if they are
    unknown.
    """

    step: str = "finding"
    kind: FaultKind
    dataset: str | None = None
    id: str | None = None
    ts: int | None = None
    key: str
    imported: bool = False
    detail: str

    @property
    def is_damage(self) -> bool:
        """Whether a payload of the source is lost, or was not imported."""
        return self.kind in {FaultKind.DANGLING, FaultKind.UNREADABLE} or (
            self.kind is FaultKind.UNINDEXED and not self.imported
        )


@attrs.frozen(kw_only=True)
class RegionDone:
    """The import of a region is complete.

    `created` snapshots were published, `already` were in the store, `left_out` could not be imported.
    `latest` is the id of the dataset's latest snapshot now, `old_latest` the id in the old pointer.
    """

    step: str = "region"
    dataset: str
    created: int = 0
    already: int = 0
    left_out: int = 0
    latest: str | None = None
    old_latest: str | None = None


@attrs.frozen
class Planned:
    """The whole source has been listed, and so many snapshots are to be imported."""

    total: int


@attrs.frozen
class Tried:
    """One more snapshot of this dataset was imported, found in the store, or left out."""

    dataset: str


Fact = Planned | Tried | SourceFault | RegionDone


# --- what to import --------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class OldSnapshot:
    """A snapshot to import. `keys` are where its payload may be, the best first."""

    dataset: str
    id: str
    ts: int
    keys: tuple[str, ...]
    indexed: bool = True


@attrs.frozen
class ByTime:
    """A by-time record: a snapshot of its own, unless a by-id record turns out to be the same."""

    region: str
    ts: int
    key: str
    indexed: bool


@attrs.frozen
class FromIndex:
    """What one region's index amounts to. `by_time` are the records whose payloads must still be read."""

    snapshots: list[OldSnapshot]
    by_time: list[ByTime]
    findings: list[SourceFault]


def from_index(layout: Layout, catalog: Catalog, region: str, members: Mapping[str, float]) -> FromIndex:
    """Resolve the members of a region's index. Also return the by-time records that remain."""
    found = FromIndex([], [], [])
    names: dict[str, Moment] = {}
    for name in sorted(catalog.times.get(region, ())):
        if at := moment(int(name)):
            names[name] = at
        else:
            found.findings.append(_bad_time(region, layout.by_ts(region, name), f"{name} is not a time"))
    times: dict[str, Moment] = {}
    for member, score in members.items():
        if member in names and member not in catalog.ids:
            at = names.pop(member)
            found.by_time.append(ByTime(region, at.ts, layout.by_ts(region, member), indexed=True))
        elif at_score := moment(score):
            times[member] = at_score
        else:
            detail = f"{member!r} has the score {score}, which is not a time"
            found.findings.append(_bad_time(region, layout.index(region), detail))
    copies = _copies(names, times)
    taken_by = Counter(name for own in copies.values() for name in own)
    for member, at in times.items():
        # A by-time record at the time of several ids is used as a copy of none of them.
        own = [layout.by_ts(region, name) for name in copies[member] if taken_by[name] == 1]
        keys = (layout.by_id(member), *own)
        found.snapshots.append(OldSnapshot(dataset=region, id=member, ts=at.ts, keys=keys))
    rest = sorted(name for name in names if name not in taken_by)
    found.by_time.extend(
        ByTime(region, names[name].ts, layout.by_ts(region, name), indexed=False) for name in rest
    )
    return found


def _bad_time(region: str, key: str, detail: str) -> SourceFault:
    return SourceFault(kind=FaultKind.UNREADABLE, dataset=region, key=key, detail=detail)


def _copies(names: Mapping[str, Moment], times: Mapping[str, Moment]) -> dict[str, list[str]]:
    """Return the by-time records at the time of each id."""
    by_second: dict[int, list[str]] = defaultdict(list)
    for name in sorted(names):
        by_second[names[name].ts // 1000].append(name)
    return {
        member: [name for name in by_second.get(at.ts // 1000, ()) if names[name].is_about(at)]
        for member, at in times.items()
    }


# --- what no index names ---------------------------------------------------------------------------


class Leftovers:
    """Finds the region and time of by-id records that no index names, and the id of by-time records.

    A by-id record belongs to the by-time record whose payload states its id, or that holds the same bytes.
    Otherwise it may be in the store already (a mirror writes no index). Otherwise its region is that of the
    pointer that names it, or the one in its payload, and its time is the one in its payload. A by-time record
    has the id in its payload, unless other payloads state the same id; otherwise it gets `<region>-<ts>`.
    """

    def __init__(
        self,
        layout: Layout,
        by_time: Sequence[tuple[ByTime, Seen | None]],
        taken: Iterable[OldSnapshot],
        pointers: Mapping[str, str],
        in_store: Callable[[str, bytes], tuple[str, int] | None],
    ) -> None:
        self._layout = layout
        self._by_time = sorted(by_time, key=lambda pair: (pair[0].ts, pair[0].key))
        self._taken = {(snapshot.dataset, snapshot.id) for snapshot in taken}
        self._pointers = pointers  # the region of each id that a `latest` names
        self._in_store = in_store  # the region and time of an id with this digest, or None
        self._used: set[str] = set()
        uses = Counter(seen.fields.id for _, seen in self._by_time if seen)
        self._by_id: dict[str, ByTime] = {}
        self._by_digest: dict[bytes, list[ByTime]] = defaultdict(list)
        for record, seen in self._by_time:
            if seen is None:
                continue
            self._by_digest[seen.digest].append(record)
            if seen.fields.id is not None and uses[seen.fields.id] == 1:
                self._by_id[seen.fields.id] = record
        self.snapshots: list[OldSnapshot] = []
        self.findings: list[SourceFault] = []

    def place(self, id: str, seen: Seen) -> None:  # noqa: A002 - the term of the layout
        """Find the region and time of a by-id record."""
        same_id = [self._by_id[id]] if id in self._by_id else []
        twins = [*same_id, *self._by_digest.get(seen.digest, ())]
        twin = next((record for record in twins if record.key not in self._used), None)
        key = self._layout.by_id(id)
        if twin is not None:
            self._used.add(twin.key)
            self._add(
                OldSnapshot(
                    dataset=twin.region, id=id, ts=twin.ts, keys=(key, twin.key), indexed=twin.indexed
                )
            )
            return
        if there := self._in_store(id, seen.digest):
            self._add(OldSnapshot(dataset=there[0], id=id, ts=there[1], keys=(key,), indexed=False))
            return
        region = self._pointers.get(id) or seen.fields.region
        at = None if seen.fields.ts is None else moment(seen.fields.ts)
        if region is not None and at is not None:
            self._add(OldSnapshot(dataset=region, id=id, ts=at.ts, keys=(key,), indexed=False))
            return
        missing = "region" if region is None else "time"
        detail = f"no index names it, and neither a key nor the payload states its {missing}"
        self.findings.append(
            SourceFault(kind=FaultKind.UNINDEXED, dataset=region, id=id, key=key, detail=detail)
        )

    def name_the_rest(self) -> None:
        """Give an id to each by-time record that belongs to no by-id record. Call it last."""
        for record, seen in self._by_time:
            if record.key in self._used:
                continue
            stated = seen.fields.id if seen else None
            own = stated if stated is not None and self._by_id.get(stated) == record else None
            if own is not None and (record.region, own) in self._taken:
                detail = f"its payload states id {own!r}, which is imported with another time"
                self.findings.append(
                    SourceFault(
                        kind=FaultKind.UNINDEXED,
                        dataset=record.region,
                        id=own,
                        ts=record.ts,
                        key=record.key,
                        detail=detail,
                    )
                )
                continue
            name = own or f"{record.region}-{record.ts}"
            keys = (record.key,)
            self._add(
                OldSnapshot(dataset=record.region, id=name, ts=record.ts, keys=keys, indexed=record.indexed)
            )

    def _add(self, snapshot: OldSnapshot) -> None:
        self._taken.add((snapshot.dataset, snapshot.id))
        self.snapshots.append(snapshot)


# --- times -----------------------------------------------------------------------------------------


@attrs.frozen
class Moment:
    """A time in ms, and whether it was written in whole seconds."""

    ts: int
    coarse: bool

    def is_about(self, other: Moment) -> bool:
        """Return whether both can be the same time."""
        if self.coarse or other.coarse:
            return self.ts // 1000 == other.ts // 1000
        return self.ts == other.ts


def moment(number: float) -> Moment | None:
    """Read a score, or a time in a key: in ms, or in seconds if it is below `SECONDS_BELOW`."""
    if not math.isfinite(number) or number < 0:
        return None
    in_seconds = number < SECONDS_BELOW
    ts = round(number * 1000) if in_seconds else int(number)
    return Moment(ts, in_seconds and number == int(number)) if ts <= MAX_TS_MS else None
