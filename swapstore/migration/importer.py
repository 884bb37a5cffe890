"""Publishes the snapshots of the old layout in order, and reports facts.

Each snapshot is published with its own id and time, so a repeated import changes nothing: after a crash, or
while the old producer continues, a new run adds what is missing. A fault of one snapshot does not stop the
others. Only an unavailable server ends an import.
"""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

import attrs
import msgspec

from swapstore import arguments
from swapstore.errors import Corrupt, InvalidInput, NotFound, Refused
from swapstore.migration.plan import (
    ByTime,
    Fact,
    FaultKind,
    FromIndex,
    Leftovers,
    OldSnapshot,
    Planned,
    RegionDone,
    SourceFault,
    Tried,
    from_index,
)
from swapstore.migration.source import Seen, Source, fields_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from swapstore.codecs import Codec
    from swapstore.models import Commit
    from swapstore.store import Store


def import_snapshots(
    source: Source, store: Store, *, codec: Codec = "json", regions: Collection[str] = ()
) -> Iterator[Fact]:
    """Import regions, each into the dataset of its name, and yield facts as they happen.

    `regions`: default: all. With the codec `json` the text of a payload is published unchanged, and a payload
    that is not JSON is left out; `bytes` accepts every payload. Raises `NotFound` if the source holds no key
    of the layout, or not a named region, and `Unavailable` if the source or the store cannot be reached.
    """
    plan = _Plan(source, store)
    found = plan.make()
    wanted = sorted(regions or found)
    for region in wanted:
        if region not in found:
            raise NotFound(f"{source.where} has no region {region!r}; there are: {', '.join(sorted(found))}")
    yield Planned(sum(len(found[region]) for region in wanted))
    for finding in plan.findings:
        if not regions or finding.dataset in {None, *regions}:
            yield finding
    for region in wanted:
        yield from _Region(source, store, codec, region).run(found[region])


# --- the plan --------------------------------------------------------------------------------------


class _Plan:
    """Reads everything that must be known before the first snapshot is published."""

    def __init__(self, source: Source, store: Store) -> None:
        self._source = source
        self._store = store
        self.findings: list[SourceFault] = []

    def make(self) -> dict[str, list[OldSnapshot]]:
        """Return the snapshots of each region, the oldest first."""
        source, layout = self._source, self._source.layout
        catalog = source.catalog()
        if not catalog.regions and not catalog.ids:
            raise NotFound(
                f"{source.where} has no keys of this layout (none matches {layout.glob()}): are the prefix "
                "and the database right?"
            )
        unindexed, pointers = set(catalog.ids), {}
        whole = FromIndex([], [], [])
        for region in sorted(catalog.regions):
            members = self._members(region)
            part = from_index(layout, catalog, region, members)
            whole.snapshots.extend(part.snapshots)
            whole.by_time.extend(part.by_time)
            whole.findings.extend(part.findings)
            unindexed.difference_update(members)
            pointers[self._pointer(region)] = region
        self.findings += whole.findings
        rest = self._leftovers(
            catalog.regions, whole, sorted(unindexed), {i: r for i, r in pointers.items() if i}
        )
        snapshots: dict[str, list[OldSnapshot]] = {region: [] for region in catalog.regions}
        for snapshot in sorted([*whole.snapshots, *rest], key=attrgetter("ts", "id")):
            snapshots.setdefault(snapshot.dataset, []).append(snapshot)
        return {region: own for region, own in snapshots.items() if self._is_dataset(region, len(own))}

    def _members(self, region: str) -> dict[str, float]:
        try:
            return self._source.members(region)
        except Corrupt as error:
            key = self._source.layout.index(region)
            self._unreadable(key, f"{error}, where the index should be", dataset=region)
            return {}

    def _pointer(self, region: str) -> str | None:
        try:
            return self._source.pointer(region)
        except Corrupt:
            return None  # reported at the end of the region

    def _leftovers(
        self, regions: set[str], whole: FromIndex, unindexed: list[str], pointers: dict[str, str]
    ) -> list[OldSnapshot]:
        by_time: list[tuple[ByTime, Seen | None]] = []
        for record in whole.by_time:
            try:
                by_time.append((record, self._source.look_at(record.key)))
            except Corrupt:
                by_time.append((record, None))  # reported when its import is tried

        def in_store(name: str, digest: bytes) -> tuple[str, int] | None:
            return self._in_store(regions, name, digest)

        leftovers = Leftovers(self._source.layout, by_time, whole.snapshots, pointers, in_store)
        for name in unindexed:
            key = self._source.layout.by_id(name)
            try:
                seen = self._source.look_at(key)
            except Corrupt as error:
                self._unreadable(key, str(error), dataset=pointers.get(name), id=name)
                continue
            if seen is not None:  # it may have expired since it was listed
                leftovers.place(name, seen)
        leftovers.name_the_rest()
        self.findings += leftovers.findings
        return leftovers.snapshots

    def _in_store(self, regions: set[str], name: str, digest: bytes) -> tuple[str, int] | None:
        """Look for an id with this content in the datasets of the regions."""
        for region in sorted(regions):
            try:
                there = self._store.read(region, id=name)
            except InvalidInput:
                continue  # an invalid name of a dataset, or an invalid id: reported elsewhere
            if there is not None and there.sha256 == digest.hex():
                return region, there.ts
        return None

    def _is_dataset(self, region: str, count: int) -> bool:
        try:
            arguments.dataset(region)
        except InvalidInput as error:
            key = self._source.layout.index(region)
            self._unreadable(key, f"its {count} snapshots are left out: {error}", dataset=region)
            return False
        return True

    def _unreadable(
        self,
        key: str,
        detail: str,
        *,
        dataset: str | None = None,
        id: str | None = None,  # noqa: A002
    ) -> None:
        self.findings.append(
            SourceFault(kind=FaultKind.UNREADABLE, dataset=dataset, id=id, key=key, detail=detail)
        )


# --- one region ------------------------------------------------------------------------------------


@attrs.define
class _Region:
    """Imports the snapshots of one region."""

    source: Source
    store: Store
    codec: Codec
    dataset: str
    done: RegionDone = attrs.field(init=False)

    def run(self, snapshots: list[OldSnapshot]) -> Iterator[Fact]:
        self.done = RegionDone(dataset=self.dataset)
        is_oldest = True  # no payload was there so far: the index is older than the payloads' time-to-live
        for snapshot in snapshots:
            finding = self._import(snapshot)
            is_gone = finding is not None and finding.kind is FaultKind.DANGLING and not finding.imported
            is_oldest = is_oldest and is_gone and snapshot.indexed
            if finding is not None:
                yield attrs.evolve(finding, kind=FaultKind.EXPIRED) if is_oldest else finding
            yield Tried(self.dataset)
        status = self.store.status(self.dataset)
        latest = status.latest.id if status else None
        finding = self._compare_pointer(latest)
        if finding is not None:
            yield finding
        yield attrs.evolve(self.done, latest=latest)

    def _import(self, snapshot: OldSnapshot) -> SourceFault | None:
        """Publish a snapshot from the first of its keys that can be read. Return its first fault."""
        wrong: list[SourceFault] = []
        commit: Commit | None = None
        for key in snapshot.keys:
            outcome = self._try(snapshot, key, stands_in=bool(wrong))
            if isinstance(outcome, SourceFault):
                wrong.append(outcome)
                continue
            commit = outcome
            if commit is not None:
                break
        self._count(commit)
        if commit is not None and wrong:
            detail = f"{wrong[0].detail}; imported from {key} instead"
            return attrs.evolve(wrong[0], imported=True, detail=detail)
        if commit is not None and not snapshot.indexed:
            about = self._about(
                snapshot, key, FaultKind.UNINDEXED, "no index names it; imported nevertheless"
            )
            return attrs.evolve(about, imported=True)
        return wrong[0] if wrong else None

    def _try(self, snapshot: OldSnapshot, key: str, *, stands_in: bool) -> Commit | SourceFault | None:
        """Publish the payload of one key. None: the key `stands_in` for another, but is not its copy."""
        try:
            payload = self.source.payload(key)
            if payload is None:
                named = "the index names it" if snapshot.indexed else "it was there a moment ago"
                return self._about(snapshot, key, FaultKind.DANGLING, f"{named}, and there is no payload")
            if stands_in and fields_of(payload).id not in {None, snapshot.id}:
                return None
            return self._publish(snapshot, payload)
        except (Corrupt, InvalidInput) as error:
            return self._about(snapshot, key, FaultKind.UNREADABLE, error.args[0])
        except Refused as error:
            return self._about(snapshot, key, FaultKind.REFUSED, error.args[0])

    def _about(self, snapshot: OldSnapshot, key: str, kind: FaultKind, detail: str) -> SourceFault:
        return SourceFault(
            kind=kind, dataset=self.dataset, id=snapshot.id, ts=snapshot.ts, key=key, detail=detail
        )

    def _publish(self, snapshot: OldSnapshot, payload: bytes) -> Commit:
        value = msgspec.Raw(payload) if self.codec == "json" else payload
        return self.store.publish(self.dataset, value, id=snapshot.id, ts=snapshot.ts, codec=self.codec)

    def _count(self, commit: Commit | None) -> None:
        what = "left_out" if commit is None else "created" if commit.created else "already"
        self.done = attrs.evolve(self.done, **{what: getattr(self.done, what) + 1})

    def _compare_pointer(self, latest: str | None) -> SourceFault | None:
        """Return a finding if readers of the old pointer and of the store do not see the same snapshot."""
        key = self.source.layout.latest(self.dataset)
        about = SourceFault(kind=FaultKind.LATEST, dataset=self.dataset, key=key, detail="")
        try:
            old = self.source.pointer(self.dataset)
        except Corrupt as error:
            return attrs.evolve(about, kind=FaultKind.UNREADABLE, detail=str(error))
        self.done = attrs.evolve(self.done, old_latest=old)
        if old == latest:
            return None
        now = f"the latest is {latest!r} now" if latest else "nothing is imported"
        if old is None:
            return attrs.evolve(about, detail=f"there is no old latest; {now}")
        try:
            arguments.snapshot_id(old)
        except InvalidInput as error:
            return attrs.evolve(about, kind=FaultKind.UNREADABLE, detail=f"it does not hold an id: {error}")
        by_id = self.source.layout.by_id(old)
        if not self.source.holds(by_id):
            detail = f"it names id {old!r}, and there is no payload under {by_id}; {now}"
            return attrs.evolve(about, kind=FaultKind.DANGLING, id=old, detail=detail)
        return attrs.evolve(about, id=old, detail=f"it names id {old!r}; {now}")
