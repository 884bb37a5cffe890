"""Snapshots of every kind of store can be compared."""

from __future__ import annotations

import pytest

import swapstore
from swapstore import Change, Store


@pytest.mark.every_store
def test_versions_of_a_dataset_are_compared(store: Store) -> None:
    """Which fields a new version changed depends on the store that it is on."""
    store.publish("mena", {"ports": [{"id": "suez", "flow": 1}], "n": 2**60, "x": 1.0})
    store.publish("mena", {"ports": [{"id": "suez", "flow": 2}], "n": 2**60 + 1, "x": 1.0})
    found = swapstore.diff(store.read("mena", version=1), store.read_latest("mena"))
    assert found.changes == (
        Change(kind="changed", pointer="/ports/0/flow", item={"id": "suez"}, before=1, after=2),
        Change(kind="changed", pointer="/n", before=2**60, after=2**60 + 1),
    )
    assert not swapstore.diff(store.read("mena", version=2), store.read_latest("mena"))


def test_a_validator_sees_what_a_publish_would_change(store: Store) -> None:
    """A producer that must not remove rows has to compare them by itself."""

    def keeps_rows(candidate: swapstore.Candidate, latest: swapstore.Snapshot | None) -> str | None:
        removed = swapstore.diff(latest, candidate).counts["removed"] if latest else 0
        return f"{removed} removed" if removed else None

    store.publish("mena", [{"id": 1}, {"id": 2}], validate=keeps_rows)
    store.publish("mena", [{"id": 3}, {"id": 1}, {"id": 2}], validate=keeps_rows)
    with pytest.raises(swapstore.Rejected, match="1 removed"):
        store.publish("mena", [{"id": 3}, {"id": 2}], validate=keeps_rows)
