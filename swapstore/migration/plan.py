"""What an import tells, as it happens."""

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


class Kind(enum.StrEnum):
    """What can be found."""

    DANGLING = "dangling"  # something names a payload that is not there
    UNINDEXED = "unindexed"  # a payload that no index names
    UNREADABLE = "unreadable"  # not JSON, another type of value, or a name or time that cannot be
    REFUSED = "refused"  # the store holds something else under this id, or keeps nothing so old
    LATEST = "latest"  # the old pointer does not name the new latest


@attrs.frozen(kw_only=True)
class Finding:
    """Something in the source that is not as it should be, and whether its snapshot is imported.

    `key` is the key of the source that it is about. `dataset`, `id` and `ts` (ms since the Unix epoch) are
    None where they are not known.
    """

    step: str = "finding"
    kind: Kind
    dataset: str | None = None
    id: str | None = None
    ts: int | None = None
    key: str
    imported: bool = False
    detail: str

    @property
    def is_damage(self) -> bool:
        """Whether something of the source is lost, or did not come over."""
        return self.kind in {Kind.DANGLING, Kind.UNREADABLE} or (
            self.kind is Kind.UNINDEXED and not self.imported
        )


@attrs.frozen(kw_only=True)
class RegionDone:
    """A region is through.

    `created` snapshots were published, `already` were in the store, `left_out` could not be imported.
    `latest` is the id of the dataset's latest snapshot now, `old_latest` what the old pointer holds.
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
    """The source is read through, and so many snapshots are to be imported."""

    total: int


@attrs.frozen
class Tried:
    """One more snapshot of this dataset was imported, found there already, or left out."""

    dataset: str


Fact = Planned | Tried | Finding | RegionDone


# --- plan --------------------------------------------------------------------------------------
#
# Which snapshots the old keys amount to, as pure code.
#
# The index comes first. A member is an id, with its score as the time; or, when no by-id key has that name, a
# time, whose payload stands under the by-time key. What no index names comes after, as far as its region and
# time can be told. A by-time record at the time of an id is that snapshot's copy, not another one.


SECONDS_BELOW = 100_000_000_000  # as ms this is 1973, as seconds the year 5138


@attrs.frozen
class Moment:
    """A time in ms, and whether it was written in whole seconds."""

    ts: int
    coarse: bool

    def is_about(self, other: Moment) -> bool:
        """Say whether both can be the same moment."""
        if self.coarse or other.coarse:
            return self.ts // 1000 == other.ts // 1000
        return self.ts == other.ts


def moment(number: float) -> Moment | None:
    """Read a score, or a time in a key: in ms, or in seconds when it is too small for that."""
    if not math.isfinite(number) or number < 0:
        return None
    in_seconds = number < SECONDS_BELOW
    ts = round(number * 1000) if in_seconds else int(number)
    return Moment(ts, in_seconds and number == int(number)) if ts <= MAX_TS_MS else None


@attrs.frozen(kw_only=True)
class Snapshot:
    """One snapshot to import. `keys` are where its payload may be, the best first."""

    dataset: str
    id: str
    ts: int
    keys: tuple[str, ...]
    indexed: bool = True


@attrs.frozen
class Stamp:
    """A by-time record that is a snapshot of its own, until a by-id record turns out to be the same."""

    region: str
    ts: int
    key: str
    indexed: bool


@attrs.frozen
class FromIndex:
    """What one region's index amounts to; `stamps` have still to be looked at."""

    snapshots: list[Snapshot]
    stamps: list[Stamp]
    findings: list[Finding]


def from_index(layout: Layout, catalog: Catalog, region: str, members: Mapping[str, float]) -> FromIndex:
    """Resolve the members of a region's index, and set aside the by-time records that it leaves over."""
    found = FromIndex([], [], [])
    names: dict[str, Moment] = {}
    for name in sorted(catalog.stamps.get(region, ())):
        if at := moment(int(name)):
            names[name] = at
        else:
            found.findings.append(_no_time(region, layout.by_ts(region, name), f"{name} is no time"))
    times: dict[str, Moment] = {}
    for member, score in members.items():
        if member in names and member not in catalog.ids:
            at = names.pop(member)
            found.stamps.append(Stamp(region, at.ts, layout.by_ts(region, member), indexed=True))
        elif at_score := moment(score):
            times[member] = at_score
        else:
            detail = f"{member!r} has the score {score}, which is no time"
            found.findings.append(_no_time(region, layout.index(region), detail))
    copies = _copies(names, times)
    taken_by = Counter(name for own in copies.values() for name in own)
    for member, at in times.items():
        # A by-time record that several ids could have written stands in for none of them.
        own = [layout.by_ts(region, name) for name in copies[member] if taken_by[name] == 1]
        keys = (layout.by_id(member), *own)
        found.snapshots.append(Snapshot(dataset=region, id=member, ts=at.ts, keys=keys))
    over = sorted(name for name in names if name not in taken_by)
    found.stamps.extend(
        Stamp(region, names[name].ts, layout.by_ts(region, name), indexed=False) for name in over
    )
    return found


def _no_time(region: str, key: str, detail: str) -> Finding:
    return Finding(kind=Kind.UNREADABLE, dataset=region, key=key, detail=detail)


def _copies(names: Mapping[str, Moment], times: Mapping[str, Moment]) -> dict[str, list[str]]:
    """Return the by-time records that stand at the time of each id."""
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

    A by-id record belongs to the by-time record that says its id, or holds the same bytes. Else it may be in
    the store already (a mirror writes no index). Else its region is that of the pointer that names it, or
    what the payload says; and its time what the payload says. A
    by-time record has the id that its payload says, unless others say the same; or else `<region>-<ts>`.
    """

    def __init__(
        self,
        layout: Layout,
        stamps: Sequence[tuple[Stamp, Seen | None]],
        taken: Iterable[Snapshot],
        pointers: Mapping[str, str],
        in_store: Callable[[str, bytes], tuple[str, int] | None],
    ) -> None:
        self._layout = layout
        self._stamps = sorted(stamps, key=lambda pair: (pair[0].ts, pair[0].key))
        self._taken = {(snapshot.dataset, snapshot.id) for snapshot in taken}
        self._pointers = pointers  # the region of each id that some `latest` names
        self._in_store = in_store  # the region and time of an id with this digest
        self._used: set[str] = set()
        said = Counter(seen.told.id for _, seen in self._stamps if seen)
        self._by_id: dict[str, Stamp] = {}
        self._by_digest: dict[bytes, list[Stamp]] = defaultdict(list)
        for stamp, seen in self._stamps:
            if seen is None:
                continue
            self._by_digest[seen.digest].append(stamp)
            if seen.told.id is not None and said[seen.told.id] == 1:
                self._by_id[seen.told.id] = stamp
        self.snapshots: list[Snapshot] = []
        self.findings: list[Finding] = []

    def place(self, id: str, seen: Seen) -> None:  # noqa: A002 - the design's term
        """Find the region and time of a by-id record."""
        says_so = [self._by_id[id]] if id in self._by_id else []
        twins = [*says_so, *self._by_digest.get(seen.digest, ())]
        twin = next((stamp for stamp in twins if stamp.key not in self._used), None)
        key = self._layout.by_id(id)
        if twin is not None:
            self._used.add(twin.key)
            self._add(
                Snapshot(dataset=twin.region, id=id, ts=twin.ts, keys=(key, twin.key), indexed=twin.indexed)
            )
            return
        if there := self._in_store(id, seen.digest):
            self._add(Snapshot(dataset=there[0], id=id, ts=there[1], keys=(key,), indexed=False))
            return
        region = self._pointers.get(id) or seen.told.region
        at = None if seen.told.ts is None else moment(seen.told.ts)
        if region is not None and at is not None:
            self._add(Snapshot(dataset=region, id=id, ts=at.ts, keys=(key,), indexed=False))
            return
        missing = "region" if region is None else "time"
        detail = f"no index names it, and neither a key nor the payload tells its {missing}"
        self.findings.append(Finding(kind=Kind.UNINDEXED, dataset=region, id=id, key=key, detail=detail))

    def name_the_rest(self) -> None:
        """Give the by-time records that belong to no by-id record an id. Call it last."""
        for stamp, seen in self._stamps:
            if stamp.key in self._used:
                continue
            told = seen.told.id if seen else None
            own = told if told is not None and self._by_id.get(told) == stamp else None
            if own is not None and (stamp.region, own) in self._taken:
                detail = f"its payload says id {own!r}, which is imported with another time"
                self.findings.append(
                    Finding(
                        kind=Kind.UNINDEXED,
                        dataset=stamp.region,
                        id=own,
                        ts=stamp.ts,
                        key=stamp.key,
                        detail=detail,
                    )
                )
                continue
            name = own or f"{stamp.region}-{stamp.ts}"
            keys = (stamp.key,)
            self._add(Snapshot(dataset=stamp.region, id=name, ts=stamp.ts, keys=keys, indexed=stamp.indexed))

    def _add(self, snapshot: Snapshot) -> None:
        self._taken.add((snapshot.dataset, snapshot.id))
        self.snapshots.append(snapshot)
