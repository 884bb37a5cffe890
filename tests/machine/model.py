"""What a dataset must look like, in the simplest terms, and the comparison with the stored one."""

from __future__ import annotations

from typing import Any

import attrs

from swapstore import Snapshot, Store
from swapstore.format import manifest
from swapstore.format.records import digest
from swapstore.models import Row
from tests.support import invariants


@attrs.define
class Attempt:
    """A publish that may have been applied, or may still be: its client died or lost the reply."""

    id: str
    payload: bytes
    late: bool = False


@attrs.define
class Model:
    """One dataset: its committed rows, what is served and shown, and what may still appear."""

    dataset: str
    unused_pages: bool = False
    rows: list[Row] = attrs.field(factory=list)  # the log, hidden ones included, dropped ones not
    dropped_rows: list[Row] = attrs.field(factory=list)  # those that have not left the log yet
    known: dict[int, Row] = attrs.field(factory=dict)  # every row that ever existed, by version
    payloads: dict[int, bytes] = attrs.field(factory=dict)  # likewise
    attempts: list[Attempt] = attrs.field(factory=list)
    erasing: set[int] = attrs.field(factory=set)  # versions that may be erased from now on
    erased: dict[int, int] = attrs.field(factory=dict)  # versions, and those of the manifests without them
    dropping: bool = False  # all of it may be dropped from now on
    dropped: int = 0  # rows up to this version were dropped
    epoch: str = ""
    lives: dict[str, dict[int, bytes]] = attrs.field(factory=dict)  # payloads before the manifest was deleted
    latest: int = 0  # versions of rows; 0: none
    pinned: int = 0
    version: int = 0
    etag: str = ""
    first_version: int = 1
    least_count: int | None = None  # the smallest max_count that anybody applied

    def row(self, version: int) -> Row:
        return self.known[version]

    @property
    def alive(self) -> list[Row]:
        """What has permanent records: the log, the latest and the pinned row."""
        versions = {self.latest, self.pinned, *(row.version for row in self.rows)} - {0}
        return [self.known[version] for version in sorted(versions)]

    @property
    def shown(self) -> list[Row]:
        """The history."""
        return [row for row in self.rows if row.version >= self.first_version]

    @property
    def readable(self) -> list[Row]:
        """Which snapshots can be read by id or version."""
        return [
            row
            for row in self.alive
            if row.version >= self.first_version or row.version in {self.latest, self.pinned}
        ]

    @property
    def serving(self) -> Row | None:
        return self.row(self.pinned or self.latest) if self.latest else None

    @property
    def recent(self) -> list[Row]:
        """Those of the last commits that are there. Commits that were erased count."""
        versions = sorted(version for version in self.known if version > self.dropped)[-manifest.recent() :]
        return [row for row in self.rows if row.version in versions]

    def without(self, row: Row) -> tuple[int, int]:
        """What is latest and pinned when a row is erased. No latest: it is the only snapshot."""
        pinned = 0 if row.version == self.pinned else self.pinned
        if row.version != self.latest:
            return self.latest, pinned
        left = [each for each in self.rows if each in self.readable and each != row]
        newest = max(left, key=lambda each: (each.ts, each.version), default=None)
        return (newest.version if newest else pinned), pinned

    def seen_in(self, snapshot: Snapshot) -> tuple[int, int]:
        """Check a snapshot that may be stale. Return the life of the dataset and the version it is from."""
        epoch, version, _ = snapshot.etag.split(".")
        lives = {**self.lives, self.epoch: self.payloads}
        assert snapshot.raw == lives[epoch][snapshot.version]
        seen = list(lives).index(epoch), int(version)
        if epoch == self.epoch:
            assert seen[1] <= self.version
            assert seen[1] < self.erased.get(snapshot.version, self.version + 1), "it was erased before"
        return seen

    def as_of(self, ts: int) -> Row | None:
        upto = [row for row in self.readable if row.ts <= ts]
        return max(upto, key=lambda row: (row.ts, row.version), default=None)

    def applying(self, max_count: int | None) -> None:
        """This bound may be applied from now on."""
        if max_count is not None:
            self.least_count = min(max_count, self.least_count or max_count)

    def observe(self, store: Store, *, steered: bool = False) -> None:
        """Compare with the store, in which attempts may have appeared, and take over its changes.

        `steered`: an operator's swap may have changed what is served; its own checks decide about it.
        """
        actual = invariants.check(store, self.dataset, unused_pages=self.unused_pages)
        head = self._head(store)
        if head is None:
            assert not actual
            assert self.dropping or not self.version, "the manifest is gone, and nobody dropped it"
            self._forget()
            return
        new = [row for row in actual if row.version > self.version]
        if head.dropped != self.dropped:
            assert self.dropping, "nobody dropped it"
            assert head.dropped > self.version
            self._drop(head)
        known = [*self.dropped_rows, *(row for row in new if row.version <= head.dropped)]
        self.dropped_rows = [row for row in actual if row.version <= head.dropped]
        assert self.dropped_rows == [row for row in known if row in self.dropped_rows], "a row came back"
        actual = actual[len(self.dropped_rows) :]
        self._take_erased(actual, head)
        new = [row for row in new if row.version > head.dropped]
        before = [*self.rows, *new]
        assert actual == [row for row in before if row in actual], "a row came back, or was changed"
        self._check_limits(head, [*known, *before])
        gone = [row for row in before if row not in actual]
        assert not [row for row in gone if head.shows(row)], "a row that is shown was lost"
        last = manifest.recent()
        assert before[-last:] == actual[-last:], "the last rows are never unlinked"
        for row in new:
            self._turned_up(row)
        self.rows = actual
        assert head.version >= self.version, "versions go up"
        assert head.version >= (actual[-1].version if actual else 0)
        latest = 0 if head.is_dropped else head.latest.version
        pinned = head.pinned.version if head.pinned else 0
        if not steered:
            assert (latest, pinned) == (self.latest, self.pinned)
        self.latest, self.pinned = latest, pinned
        self.version, self.etag, self.epoch = head.version, head.etag, head.etag.partition(".")[0]

    def _forget(self) -> None:
        """The manifest is gone: what is published next begins anew."""
        if self.epoch:
            self.lives[self.epoch] = self.payloads
        self.rows, self.dropped_rows, self.known, self.payloads, self.erased = [], [], {}, {}, {}
        self.latest = self.pinned = self.version = self.dropped = 0
        self.etag, self.epoch, self.first_version = "", "", 1

    def _drop(self, head: manifest.Head) -> None:
        """Nothing is published any more, but the rows leave the log one after the other."""
        self.dropped_rows, self.rows = [*self.dropped_rows, *self.rows], []
        self.latest = self.pinned = 0
        self.dropped, self.first_version = head.dropped, head.dropped + 1

    def _take_erased(self, actual: list[Row], head: manifest.Head) -> None:
        """Take over which rows were erased, and what is served without them."""
        there = {row.version for row in (*actual, *head.kept)}
        for row in self.alive:
            if row.version in self.erasing and row.version not in there:
                self.latest, self.pinned = self.without(row)
                self.rows = [each for each in self.rows if each != row]
                self.erased[row.version] = head.version

    def _check_limits(self, head: manifest.Head, rows: list[Row]) -> None:
        """Nothing is hidden that no bound hides, and what is hidden stays hidden."""
        assert head.floor == 0
        assert head.first_version >= self.first_version
        newest = rows[-self.least_count :] if self.least_count else rows
        bound = newest[0].version if self.least_count and len(newest) < len(rows) else 1
        assert head.first_version <= max(self.first_version, bound)
        self.first_version = head.first_version

    def _turned_up(self, row: Row) -> None:
        matching = [attempt for attempt in self.attempts if attempt.id == row.id]
        assert matching, f"nobody published {row.id}"
        assert row.size in {len(attempt.payload) for attempt in matching}
        payload = next(a.payload for a in matching if digest(a.payload) == row.sha256)
        self.known[row.version], self.payloads[row.version] = row, payload
        self.attempts = [attempt for attempt in self.attempts if attempt.id != row.id or attempt.late]
        if not self.latest or row.ts >= self.known[self.latest].ts:
            self.latest = row.version

    def _head(self, store: Store) -> manifest.Head | None:
        key = store._context.keys.manifest(self.dataset)
        found: Any = invariants.contents(store).get(key)
        return None if found is None else manifest.parse(found[0], self.dataset, key).head
