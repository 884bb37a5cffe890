"""Newer formats, other datasets, other namespaces, foreign keys, and no keys at all."""

from __future__ import annotations

import pytest

from swapstore import InvalidInput, Store
from swapstore.errors import UnsupportedFormat
from swapstore.format.keys import Keys
from swapstore.fsck.findings import Problem, Progress
from tests.fsck.damage_kinds import ts_deleted
from tests.fsck.simulated import MANIFEST, grown
from tests.support import invariants
from tests.support.damage import Damage
from tests.support.drivers import another, meddled
from tests.support.times import at


@pytest.mark.usefixtures("tiny_pages")
@pytest.mark.parametrize("where", ["manifest", "page"])
def test_a_newer_format_is_left_alone(where: str) -> None:
    """An old client repairs what a new one wrote, and destroys it."""
    original = grown(9)
    ts_deleted(original)
    name = MANIFEST if where == "manifest" else original.pages()[0]
    original.alter(name, lambda raw: raw.replace(b'"format":1', b'"format":2', 1))
    before = original.sim.keyspace.fingerprint()
    for dataset in (None, "mena"):
        with pytest.raises(UnsupportedFormat, match="upgrade"):
            list(another(original.store).verify(dataset))
        with pytest.raises(UnsupportedFormat, match="upgrade"):
            another(original.store).repair(dataset, apply=True)
    assert original.sim.keyspace.fingerprint() == before


def names_of(store: Store) -> list[str]:
    names = ["mena", "me", "mena/x", "mena.x", "m"]
    for name in names:
        for number in range(1, 4):
            store.publish(name, {"n": number}, id=f"id-{number}", ts=at(number))
    return names


def test_datasets_whose_names_begin_alike(store: Store) -> None:
    """A repair of `mena` changes `mena/x` or `me`."""
    names = names_of(store)
    damage = Damage(store)
    for name in names:
        damage.delete(f"swapstore:ts:{{{name}}}:2:id-2")
    damage.delete("swapstore:manifest:{me}")
    for name in names:
        found = [finding for finding in another(store).verify(name) if finding.wrong]
        assert {finding.dataset for finding in found} == {name}
    before = invariants.contents(store)
    another(store).repair("mena", apply=True)
    after = invariants.contents(store)
    assert {key for key in after if before.get(key) != after[key]} == {
        "swapstore:manifest:{mena}",
        "swapstore:ts:{mena}:2:id-2",
    }
    assert {f.dataset for f in another(store).verify() if f.wrong} == {"me", "mena/x", "mena.x", "m"}
    reports = another(store).repair(apply=True)
    assert [report.dataset for report in reports] == ["m", "me", "mena.x", "mena/x"]
    assert [finding for finding in another(store).verify() if finding.wrong] == []
    for name in names:
        invariants.check(store, name)
        assert len(list(another(store).history(name))) == 3


@pytest.mark.every_store
def test_an_unlisted_dataset_is_found_and_listed(store: Store) -> None:
    """Verify of everything misses a dataset whose name was lost from the list."""
    names_of(store)
    damage = Damage(store)
    damage.unlist()
    damage.delete("swapstore:manifest:{m}")
    found = {(f.dataset, f.problem) for f in another(store).verify() if f.wrong}
    assert {dataset for dataset, problem in found if problem is Problem.NAME_MISSING} == {
        "me",
        "mena",
        "mena/x",
        "mena.x",
    }
    assert ("m", Problem.MANIFEST_MISSING) in found
    another(store).repair(apply=True)
    assert sorted(another(store).datasets()) == ["m", "me", "mena", "mena.x", "mena/x"]
    assert [finding for finding in another(store).verify() if finding.wrong] == []


@pytest.mark.every_store
def test_other_namespaces_and_foreign_keys_are_not_touched(store: Store) -> None:
    """Repair changes a namespace that begins like another, or keys of other programs."""
    store.publish("mena", 1, id="id-1", ts=at(1))
    for namespace in ("swapstore2", "swapstore:x", "sw"):
        context = another(store)._context.__class__(keys=Keys(namespace), cache=another(store)._context.cache)
        other = Store(store._driver, context)
        other.publish("mena", namespace, id="id-1", ts=at(1))
    damage = Damage(store)
    damage.put("swapstore:ts:{mena}:x", b"not ours")
    damage.put("swapstore:hello", b"not ours")
    damage.put("swapstore:page:{mena}:nonsense", b"not ours")
    damage.put("unrelated", b"not ours")
    damage.delete("swapstore:id:{mena}:id-1")
    store.publish("mena", 2, id="id-2", ts=at(2))
    found = list(another(store).verify())
    foreign = {finding.key for finding in found if finding.problem is Problem.FOREIGN}
    assert {"swapstore:ts:{mena}:x", "swapstore:hello", "swapstore:page:{mena}:nonsense"} <= foreign
    assert all(key.startswith("swapstore:") for key in foreign)
    before = invariants.contents(store)
    (report,) = another(store).repair(apply=True)
    assert report.dropped == ("id-1",)
    after = invariants.contents(store)
    touched = {key for key in before if before[key] != after.get(key)}
    assert touched == {"swapstore:manifest:{mena}", "swapstore:ts:{mena}:1:id-1"}


@pytest.mark.every_store
def test_values_of_other_types_among_the_records(store: Store) -> None:
    """A list under the key of a record is not called damage."""
    damage = Damage(store)
    if not damage.has_types:
        return
    for number in range(1, 5):
        store.publish("mena", number, id=f"id-{number}", ts=at(number))
    for name in ("swapstore:ts:{mena}:1:id-1", "swapstore:id:{mena}:id-2"):
        damage.delete(name)
        damage.client.rpush(name, "x")
    damage.client.rpush("swapstore:id:{mena}:other", "x")
    (report,) = another(store).repair(apply=True)
    assert (report.dropped, report.left) == (("id-2",), ())
    assert [finding for finding in another(store).verify() if finding.wrong] == []
    assert [row.id for row in another(store).history("mena")] == ["id-4", "id-3", "id-1"]


def test_an_empty_store(store: Store) -> None:
    """Verify of an empty store reports something, or repair writes to it."""
    assert list(store.verify()) == []
    assert list(store.verify("mena")) == []
    assert store.repair(apply=True) == []
    assert store.repair("mena", apply=True) == []
    assert invariants.contents(store) == {}


def test_a_closed_store(store: Store) -> None:
    """Verify of a closed store ends without an error."""
    client = another(store)
    client.close()
    for dataset in (None, "mena"):
        with pytest.raises(InvalidInput):
            list(client.verify(dataset))
        with pytest.raises(InvalidInput):
            client.repair(dataset, apply=True)


def test_progress_is_reported(store: Store) -> None:
    """A verify of an hour looks as if it hung."""
    names_of(store)
    seen: list[Progress] = []
    client, meddler = meddled(store)
    assert list(client.verify(on_progress=seen.append)) == []
    assert len(seen) >= 10
    assert len(meddler.batches) >= len(seen)
    assert [(p.rows, p.keys) for p in seen] == sorted((p.rows, p.keys) for p in seen)
    assert (seen[-1].rows, seen[-1].total) == (15, 15)
    assert seen[-1].keys >= 35
    assert {progress.dataset for progress in seen} >= {"mena", "me", "mena/x", "mena.x", "m"}
