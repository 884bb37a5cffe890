"""A model of retention: a list of rows, two limits, and what a reader must then see."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import attrs
import msgspec

from swapstore import Retention, Store
from swapstore.cache import Cache
from swapstore.errors import IdConflict, NotFound, TooOld
from swapstore.format import manifest
from swapstore.format.manifest import Manifest
from swapstore.models import Row
from swapstore.testing import SimulatedStore
from tests.support import invariants
from tests.support.times import at

WIDEST = 64


def keeping(store: Store, max_count: int | None = None, max_age: timedelta | None = None) -> Store:
    """Another client of a store, with its own retention."""
    retention = Retention(max_age=max_age, max_count=max_count)
    return Store(
        store._driver, msgspec.structs.replace(store._context, cache=Cache(1 << 20), retention=retention)
    )


def stored(store: Store, dataset: str = "mena") -> Manifest:
    """The stored manifest, read without the library."""
    key = store._context.keys.manifest(dataset)
    return manifest.parse(invariants.contents(store)[key][0], dataset, key)


def permanent(store: Store, kind: str) -> set[str]:
    """The keys of a kind (`id`, `ts`, `page`) that have no TTL."""
    return {
        key for key, (_, expires) in invariants.contents(store).items() if f":{kind}:" in key and not expires
    }


def expiring(store: Store) -> set[str]:
    """The keys that have a TTL."""
    return {key for key, (_, expires) in invariants.contents(store).items() if expires}


def fill(store: Store, count: int, begin: int = 0) -> None:
    """Publish this many numbers, each under an id that ends in it."""
    for number in range(begin, begin + count):
        store.publish("mena", number, id=f"id-{number}", ts=at(1000 + number))


def at_most(count: int) -> int:
    """How many rows the log holds at most, when it shows this many. The last rows never leave it."""
    return max(count, manifest.recent()) + 2 * manifest.F


def ids(store: Store) -> list[str]:
    """The ids that the history shows, newest first."""
    return [row.id for row in store.history("mena", limit=None)]


@attrs.define
class Model:
    """One dataset on a simulated store, and what it must look like after each step."""

    sim: SimulatedStore
    clients: list[Store]
    rows: list[Row] = attrs.field(factory=list)  # the log
    payloads: dict[int, bytes] = attrs.field(factory=dict)
    ids: set[str] = attrs.field(factory=set)
    latest: Row | None = None
    pinned: Row | None = None
    floor: int = 0
    first_version: int = 1
    version: int = 0

    @property
    def kept(self) -> list[Row]:
        return [row for row in (self.latest, self.pinned) if row is not None]

    def shows(self, row: Row) -> bool:
        return row.version >= self.first_version and row.ts >= self.floor

    def readable(self) -> dict[int, Row]:
        return {row.version: row for row in (*self.kept, *(row for row in self.rows if self.shows(row)))}

    def alive(self, id: str) -> Row | None:  # noqa: A002
        return next((row for row in (*self.kept, *self.rows) if row.id == id), None)

    def client(self, who: int) -> tuple[Store, Retention]:
        store = self.clients[who]
        return store, store._context.retention

    def floor_of(self, retention: Retention) -> int:
        age = retention.max_age_ms
        return self.floor if age is None else max(self.floor, self.sim.clock.ms - age)

    # --- steps -------------------------------------------------------------------------------------

    def publish(self, who: int, id: str, payload: bytes, ts: int | None) -> None:  # noqa: A002
        store, retention = self.client(who)
        self.ids.add(id)
        before, floor = self.alive(id), self.floor_of(retention)
        try:
            commit = store.publish("mena", payload, id=id, ts=at(ts), codec="bytes")
        except TooOld:
            assert before is None
            assert self.latest is not None
            assert ts is not None
            assert ts < min(floor, self.latest.ts)
            return
        except IdConflict:
            assert before is not None
            assert self.payloads[before.version] != payload or ts not in {None, before.ts}
            return
        if not commit.created:
            assert before is not None
            assert (commit.version, self.payloads[before.version]) == (before.version, payload)
            return
        assert before is None, "the same id is committed twice"
        assert commit.version == self.version + 1
        row = next(row for row in invariants.check(store) if row.version == commit.version)
        assert (row.id, row.ts) == (id, commit.ts)
        assert ts is None or not self.latest or ts >= min(floor, self.latest.ts), "it should be too old"
        self.payloads[row.version] = payload
        if self.latest is None or row.ts >= self.latest.ts:
            self.latest = row
        assert commit.is_latest == (self.latest == row)
        self.update(retention, swaps=1, new=row, floor=floor)

    def pin_or_roll_back(self, who: int, what: str, id: str) -> None:  # noqa: A002
        store, _ = self.client(who)
        target = self.alive(id)
        if target is not None and target.version not in self.readable():
            target = None
        try:
            getattr(store, what)("mena", id=id)
        except NotFound:
            assert target is None
            return
        assert target is not None
        was = (self.latest, self.pinned)
        if what == "pin":
            self.pinned = target
        else:
            self.latest = target
        self.update(Retention(), swaps=int(was != (self.latest, self.pinned)))

    def unpin_or_confirm(self, who: int, what: str) -> None:
        store, _ = self.client(who)
        try:
            getattr(store, what)("mena")
        except NotFound:
            assert not self.version
            return
        swaps = int(what == "confirm" or self.pinned is not None)
        if what == "unpin":
            self.pinned = None
        self.update(Retention(), swaps=swaps)

    def prune(self, who: int) -> None:
        store, retention = self.client(who)
        try:
            pruned = store.prune("mena")
        except NotFound:
            assert not self.version
            return
        ideal = self.ideal(retention, self.rows)
        log = self.rows
        self.update(retention, swaps=None)
        assert pruned.let_go == len(log) - len(self.rows)
        assert (pruned.version, pruned.count) == (self.version, len(self.rows))
        assert (pruned.floor, pruned.first_version) == (self.floor, self.first_version)
        # What the floor hides is hidden anyway: no swap is made to move `first_version` past it.
        more = sum(self.first_version <= row.version < ideal and row.ts >= self.floor for row in log)
        assert more < manifest.F, "max_count may keep a few more, less than a page"
        again = store.prune("mena")
        assert (again.version, again.let_go) == (self.version, 0)

    def ideal(self, retention: Retention, log: list[Row]) -> int:
        """The first version that `max_count` leaves."""
        newest = log[-retention.max_count :] if retention.max_count else log
        return max(self.first_version, newest[0].version if retention.max_count else 1)

    # --- what must hold ----------------------------------------------------------------------------

    def update(
        self, retention: Retention, *, swaps: int | None, new: Row | None = None, floor: int | None = None
    ) -> None:
        """Check that the log changed as the limits allow, and take over the change.

        `floor`: as it was when the step began. A publish may wait, to send a record again, and time goes on.
        """
        head, log = stored(self.clients[0]).head, invariants.check(self.clients[0])
        possible = [*self.rows, *([new] if new else [])]
        ideal = self.ideal(retention, possible)
        assert self.first_version <= head.first_version <= ideal
        if swaps != 0 and self.version:  # the first publish has nothing to hide
            floor = self.floor_of(retention) if floor is None else floor
            assert head.floor == floor or (swaps is None and head.floor == self.floor)
            if swaps is None and head.floor == self.floor != floor:
                assert not [row for row in possible if self.shows(row) and row.ts < floor]
        self.floor, self.first_version = head.floor, head.first_version
        assert head.version >= self.version if swaps is None else head.version == self.version + swaps
        self.version = head.version
        assert (head.latest, head.pinned) == (self.latest, self.pinned)
        assert log == [row for row in possible if row in log], "nothing comes back, nothing is reordered"
        assert not [row for row in possible if self.shows(row) and row not in log], "a shown row was lost"
        last = manifest.recent()
        assert log[-last:] == possible[-last:], "the last rows are never unlinked"
        self.rows = log
        assert len(stored(self.clients[0]).log.pages) <= WIDEST + 8 * manifest.G

    def check_reading(self, who: int) -> None:
        """History and each way of reading one snapshot agree with the model."""
        store, _ = self.client(who)
        shown = [row for row in self.rows if self.shows(row)]
        assert list(store.history("mena", limit=None)) == shown[::-1]
        readable = self.readable()
        for id in self.ids:  # noqa: A001
            row = next((row for row in readable.values() if row.id == id), None)
            self._check_snapshot(store.read("mena", id=id), row)
        for version in range(1, self.version + 1):
            self._check_snapshot(store.read("mena", version=version), readable.get(version))
        for ts in {moment for row in readable.values() for moment in (row.ts - 1, row.ts)}:
            upto = [row for row in readable.values() if row.ts <= ts]
            best = max(upto, key=lambda row: (row.ts, row.version), default=None)
            self._check_snapshot(store.read("mena", as_of=at(ts)), best)
        self._check_snapshot(store.read_latest("mena"), self.pinned or self.latest)

    def _check_snapshot(self, snapshot: Any, row: Row | None) -> None:
        if row is None:
            assert snapshot is None
        else:
            assert (snapshot.id, snapshot.ts, snapshot.version) == (row.id, row.ts, row.version)
            assert snapshot.raw == self.payloads[row.version]

    def check_the_end(self) -> None:
        """After the reader grace only what the manifest names is left."""
        self.sim.clock.advance(11 * 60_000)
        invariants.check(self.clients[0])
        assert not expiring(self.clients[0])
