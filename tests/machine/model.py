"""What a dataset must look like, in the plainest terms, and the comparison with what it does look like."""

from __future__ import annotations

from typing import Any

import attrs

from swapstore import Store, manifest
from swapstore.models import Row
from swapstore.records import digest
from tests.support import invariants


@attrs.define
class Attempt:
    """A publish that may have been applied, or may be yet: its client died or lost the reply."""

    id: str
    payload: bytes
    late: bool = False


@attrs.define
class Model:
    """One dataset: the rows that are committed, what is served, and what may still turn up."""

    dataset: str
    rows: list[Row] = attrs.field(factory=list)
    payloads: dict[str, bytes] = attrs.field(factory=dict)
    attempts: list[Attempt] = attrs.field(factory=list)
    latest: int = 0  # versions of rows; 0: none
    pinned: int = 0
    version: int = 0
    etag: str = ""

    def row(self, version: int) -> Row:
        return next(row for row in self.rows if row.version == version)

    @property
    def serving(self) -> Row | None:
        return self.row(self.pinned or self.latest) if self.rows else None

    def as_of(self, ts: int) -> Row | None:
        upto = [row for row in self.rows if row.ts <= ts]
        return max(upto, key=lambda row: (row.ts, row.version), default=None)

    def observe(self, store: Store, *, steered: bool = False) -> None:
        """Compare with the store, which may hold attempts that have turned up, and follow it.

        `steered`: an operator's swap may have changed what is served; its own checks tell whether rightly.
        """
        actual = invariants.check(store, self.dataset)
        known = len(self.rows)
        assert actual[:known] == self.rows, "a committed row was lost or changed"
        for row in actual[known:]:
            self._turned_up(row)
        self.rows = actual
        head = self._head(store)
        if head is None:
            assert not self.rows
            return
        assert head.version >= self.version, "versions go up"
        assert head.version >= (actual[-1].version if actual else 0)
        if not steered:
            assert (head.latest.version, head.pinned.version if head.pinned else 0) == (
                self.latest,
                self.pinned,
            )
        self.latest = head.latest.version
        self.pinned = head.pinned.version if head.pinned else 0
        self.version, self.etag = head.version, head.etag

    def _turned_up(self, row: Row) -> None:
        matching = [attempt for attempt in self.attempts if attempt.id == row.id]
        assert matching, f"nobody published {row.id}"
        assert row.size in {len(attempt.payload) for attempt in matching}
        payload = next(a.payload for a in matching if digest(a.payload) == row.sha256)
        self.payloads[row.id] = payload
        self.attempts = [attempt for attempt in self.attempts if attempt.id != row.id or attempt.late]
        if not self.latest or row.ts >= self.row_or_new(self.latest, row).ts:
            self.latest = row.version

    def row_or_new(self, version: int, new: Row) -> Row:
        return new if version == new.version else next((r for r in self.rows if r.version == version), new)

    def _head(self, store: Store) -> manifest.Head | None:
        key = store._context.keys.manifest(self.dataset)
        found: Any = invariants.contents(store).get(key)
        return None if found is None else manifest.parse(found[0], self.dataset, key).head
