"""A published dataset on a store of each kind, for damage, and what every repair must end in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import pytest

from swapstore import Repair, Row, Snapshot, Store
from swapstore.format import manifest
from tests.support import invariants
from tests.support.damage import Damage
from tests.support.drivers import another
from tests.support.times import at

MANIFEST = "swapstore:manifest:{mena}"
DEEP = 70  # seven pages of 8 rows, and a tail


@attrs.frozen
class StoredDataset:
    """A store, what was published to it, and how to damage it."""

    store: Store
    damage: Damage
    rows: list[Row]  # oldest first

    def problems(self) -> list[str]:
        """What verify finds, as a new client."""
        return sorted({f.problem.value for f in another(self.store).verify("mena") if f.wrong})

    def repair(self) -> Repair:
        """Repair as a new client; afterwards nothing may be wrong, and another repair changes nothing."""
        (report,) = another(self.store).repair("mena", apply=True)
        assert self.problems() == []
        before = self.damage.get(MANIFEST)
        assert another(self.store).repair("mena", apply=True) == []
        assert self.damage.get(MANIFEST) == before, "a second repair swaps nothing"
        invariants.check(self.store)
        return report

    def page(self) -> str:
        """The key of the oldest page."""
        return invariants.manifest_of(self.store).log.pages[0].key

    def still_reads(self, *, but: tuple[str, ...] = ()) -> None:
        """Every snapshot can be read by id, with its payload, by a warm reader and by a new one."""
        reader = another(self.store)
        for row in self.rows:
            snapshot = reader.read("mena", id=row.id)
            if row.id in but:
                assert snapshot is None, f"{row.id} is gone, and no error"
            else:
                assert isinstance(snapshot, Snapshot)
                assert (snapshot.value, snapshot.ts) == ({"n": row.ts}, row.ts)
        ids = [row.id for row in reader.history("mena", limit=None)]
        assert sorted(ids) == sorted(row.id for row in self.rows if row.id not in but)
        latest = reader.read_latest("mena")
        best = max((row for row in self.rows if row.id not in but), key=lambda row: row.ts, default=None)
        assert (latest and latest.id) == (best and best.id)


@pytest.fixture
def published(store: Store) -> Callable[[int], StoredDataset]:
    """A function that publishes this many snapshots."""

    def make(count: int) -> StoredDataset:
        for number in range(1, count + 1):
            store.publish("mena", {"n": number}, id=f"id-{number}", ts=at(number), labels={"n": str(number)})
        rows = list(store.history("mena", limit=None))[::-1]
        made = StoredDataset(store, Damage(store), rows)
        assert made.problems() == []
        return made

    return make


@pytest.fixture
def tiny_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows or references in a page, so that a dozen publishes make a log of several levels."""
    monkeypatch.setattr(manifest, "F", 2)
    monkeypatch.setattr(manifest, "G", 2)


def key(kind: str, number: int) -> str:
    """The key of a record of the dataset."""
    return {"id": f"swapstore:id:{{mena}}:id-{number}", "ts": f"swapstore:ts:{{mena}}:{number}:id-{number}"}[
        kind
    ]


__all__: list[Any] = ["DEEP", "MANIFEST", "StoredDataset", "key", "published", "tiny_pages"]
