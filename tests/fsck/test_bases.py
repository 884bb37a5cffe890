"""Bases that are lost, altered, expiring, leaked or wrongly named: what that costs, and what repair does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import attrs
import msgspec
import pytest

from swapstore import Repair, Retention, Row, Store
from swapstore.commands import Get, Swap
from swapstore.errors import Damaged
from swapstore.format import encodings, manifest, records
from swapstore.format.keys import base_version
from swapstore.fsck.bases import KEPT, Bases
from tests.fsck.simulated import MANIFEST, SimulatedDataset, grown, key, opened, payload
from tests.support import invariants
from tests.support.damage import Damage
from tests.support.drivers import another, meddled
from tests.support.times import at

pytestmark = pytest.mark.usefixtures("tiny_pages")
COUNT = 15
Harm = Callable[[SimulatedDataset, str], None]


@pytest.fixture
def original() -> SimulatedDataset:
    """Fifteen snapshots with five bases, the last of which is in force."""
    return grown(COUNT, delta=True)


def delete(dataset: SimulatedDataset, name: str) -> None:
    dataset.delete(name)


def alter(dataset: SimulatedDataset, name: str) -> None:
    dataset.alter(name, lambda raw: raw[:-3] + bytes([raw[-3] ^ 1]) + raw[-2:])


def rename(dataset: SimulatedDataset, name: str) -> None:
    """The record of another base under this key."""
    other = next(each for each in dataset.bases() if each != name)
    dataset.put(name, dataset.sim.keyspace.values[other].data)


LOSSES = (delete, alter, rename)


def needing(dataset: SimulatedDataset, name: str) -> list[str]:
    """The ids of the snapshots that are stored as differences from a base, oldest first."""
    values = dataset.sim.keyspace.values
    held = [records.held_as(values[f"swapstore:id:{{mena}}:{row.id}"].data, "") for row in dataset.rows]
    return [each.row.id for each in held if each.base == name.rpartition(":")[2]]


def repaired(dataset: SimulatedDataset) -> Repair:
    (report,) = another(dataset.store).repair("mena", apply=True)
    dataset.repaired()
    return report


def test_nothing_is_wrong_with_differences_from_bases(original: SimulatedDataset) -> None:
    """A healthy store with bases is called damaged."""
    assert len(original.bases()) == 5
    assert original.problems() == set()
    assert another(original.store).repair("mena", apply=True) == []


# --- lost bases ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("lose", LOSSES, ids=lambda each: each.__name__)
def test_a_lost_base_costs_the_snapshots_that_need_it(
    original: SimulatedDataset, lose: Harm, number: int
) -> None:
    """A lost base is not found, or takes snapshots with it that do not need it, or their names."""
    name = original.bases()[number]
    needed = needing(original, name)
    assert needed
    lose(original, name)
    found = [finding for finding in another(original.store).verify("mena") if finding.wrong]
    assert [f.id for f in found if f.problem.value == "record-baseless"] == needed
    (base,) = [f for f in found if f.problem.value in {"base-missing", "base-damaged"}]
    assert base.key == name
    assert f"needed by {len(needed)} snapshots" in base.detail
    assert ("in-force-wrong" in {f.problem.value for f in found}) == (number == 4)
    report = repaired(original)
    assert (report.dropped, report.left) == (tuple(needed), ())
    assert [row.id for row in original.history()] == [r.id for r in original.rows if r.id not in needed]
    original.still_has({row.id for row in original.rows} - set(needed))
    value = original.sim.keyspace.values.get(name)
    assert value is None or value.expires_at is not None


def test_the_publish_after_a_lost_base_in_force_brings_another(original: SimulatedDataset) -> None:
    """After a repair, nothing is stored as a difference any more."""
    original.delete(original.bases()[-1])
    repaired(original)
    assert invariants.manifest_of(original.store).log.base is None
    producer = another(original.store)
    for number in (50, 51):
        producer.publish("mena", payload(number, delta=True, kind=9), id=f"id-{number}", ts=at(number))
    assert invariants.manifest_of(original.store).log.rows[-1].base == original.bases()[-1].rpartition(":")[2]
    invariants.check(original.store)


def test_what_is_stored_without_its_base_does_not_need_it(original: SimulatedDataset) -> None:
    """A snapshot is dropped for a base that its row names, and that its record does without."""
    name = original.bases()[1]
    for one in needing(original, name):
        row = next(row for row in original.rows if row.id == one)
        plain = original.payload(original.healthy()[one])
        original.put(f"swapstore:id:{{mena}}:{one}", records.id_header(row, None) + plain)
    original.delete(name)
    assert original.problems() == set()
    assert another(original.store).repair("mena", apply=True) == []


def test_a_dataset_whose_only_base_is_lost_waits_for_a_publish(original: SimulatedDataset) -> None:
    """A repair drops the last snapshot that could be served, or fails permanently."""
    dataset = grown(2, delta=True)
    dataset.put("swapstore:id:{mena}:id-1", b"")
    dataset.delete(*dataset.bases())
    (report,) = another(dataset.store).repair("mena", apply=True)
    assert {finding.problem.value for finding in report.left} >= {"record-baseless", "base-missing"}
    another(dataset.store).publish("mena", "next", id="next", ts=at(9))
    dataset.repaired()
    assert [row.id for row in dataset.history()] == ["next"]


# --- expiring, leaked, wrongly in force --------------------------------------------------------------


@pytest.mark.parametrize("number", range(5))
def test_a_base_with_a_ttl_is_made_permanent(original: SimulatedDataset, number: int) -> None:
    """Snapshots become unreadable a while after somebody ran EXPIRE on their base."""
    name = original.bases()[number]
    original.expire(name)
    assert original.problems() == {"base-expiring"}
    report = repaired(original)
    assert report.dropped == ()
    assert name in original.bases()
    original.sim.clock.advance(3_600_000)
    original.still_has({row.id for row in original.rows})


def test_a_base_in_force_that_no_row_names_is_made_permanent(original: SimulatedDataset) -> None:
    """The base in force expires unnoticed, once the rows that needed it have left the log."""
    context = original.store._context
    plain = Store(
        original.store._driver,
        msgspec.structs.replace(context, policy=msgspec.structs.replace(context.policy, compression="none")),
    )
    for number in range(40):
        plain.publish("mena", number, ts=at(100 + number))
    another(plain).prune("mena", retention=Retention(max_count=1))
    original.sim.keyspace.expire_all()
    original.rows[:] = original.history()
    (base,) = original.bases()
    assert {row.base for row in invariants.check(original.store)} == {None}
    original.expire(base)
    assert original.problems() == {"base-expiring"}
    repaired(original)
    assert original.bases() == [base]


def test_a_base_that_no_row_needs_gets_a_ttl(original: SimulatedDataset) -> None:
    """A base that a crashed commit has left stays permanently."""
    leaked = original.bases()[0].replace("{mena}:", "{mena}:9")
    original.put(leaked, b"{}\n")
    assert original.problems() == {"leaked"}
    repaired(original)
    assert leaked not in original.bases()
    assert original.history() == original.rows


def test_a_base_that_a_producer_brings_meanwhile_is_not_unlinked(original: SimulatedDataset) -> None:
    """A repair gives a TTL to what was a leftover when it looked, and is the base of a commit by now."""
    value = payload(COUNT + 1, delta=True, kind=77)
    ahead = original.copy()
    for number in (1, 2):
        ahead.store.publish("mena", {**value, "n": number}, ts=at(100 + number))
    (brought,) = set(ahead.bases()) - set(original.bases())
    producer = another(original.store)
    producer.publish("mena", {**value, "n": 1}, ts=at(101))
    original.put(brought, ahead.sim.keyspace.values[brought].data)  # a server died while it committed this
    client, meddler = meddled(original.store)
    client.repair("mena")
    used, reads = 0, len(meddler.batches)
    for number in range(0, reads + 1, 2):
        dataset = original.copy()
        client, meddler = meddled(dataset.store)
        at_work = partial(another(dataset.store).publish, "mena", {**value, "n": 2}, ts=at(102))
        meddler.before(number, at_work)
        client.repair("mena", apply=True)
        is_used = invariants.check(dataset.store)[-1].base == brought.rpartition(":")[2]
        assert is_used == (brought in dataset.bases()), number
        used += is_used
        dataset.rows[:] = dataset.history()
        dataset.repaired()
    assert used


WRONG_NUMBERS = {
    "small": lambda base: msgspec.structs.replace(base, size=base.size // 2 - 1),
    "large": lambda base: msgspec.structs.replace(base, size=2 * base.size + 1),
    "count": lambda base: msgspec.structs.replace(base, count=100),
    "last": lambda base: msgspec.structs.replace(base, last=base.sum + 1),
    "missing": lambda base: msgspec.structs.replace(base, name=f"{COUNT}.0123456789abcdef"),
}


@pytest.mark.parametrize("what", WRONG_NUMBERS)
def test_a_base_that_is_wrongly_in_force_is_taken_out(original: SimulatedDataset, what: str) -> None:
    """Every publish is stored at its full size, because the manifest says nonsense about the base."""
    current = invariants.manifest_of(original.store)
    assert current.log.base is not None
    wrong = msgspec.structs.replace(current.log, base=WRONG_NUMBERS[what](current.log.base))
    original.put(MANIFEST, manifest.build(current.head, wrong, original.store._context.keys).raw)
    assert original.problems() == {"in-force-wrong"}
    report = repaired(original)
    assert (report.dropped, report.left) == ((), ())
    assert invariants.manifest_of(original.store).log.base is None
    assert original.history() == original.rows


def test_a_base_that_producers_at_two_endpoints_bring_at_once_is_not_wrong() -> None:
    """Verify calls a dataset damaged: one producer tells the size of a base whose record is the other's."""
    dataset = opened(delta=True)
    policy = dataset.store._context.policy
    slow, meddler = meddled(dataset.store, policy=msgspec.structs.replace(policy, text_only=True))
    value = payload(1, delta=True)
    slow.publish("other", value)
    commands = len(meddler.batches[-1])
    meddler.between(len(meddler.batches) + 1, commands - 1, partial(dataset.store.publish, "mena", value))
    slow.publish("mena", value)
    (base,) = (key for key in dataset.bases() if "{mena}" in key)
    assert dataset.sim.keyspace.values[base].data.partition(b"\n")[2].isascii(), "it is that of the slow one"
    assert [row.version for row in dataset.history()] == [1, 2]
    assert dataset.problems() == set()


# --- rows and records that disagree ------------------------------------------------------------------


def store_against(dataset: SimulatedDataset, row: Row, name: str) -> None:
    """Store a snapshot as a difference from another base than its row names."""
    base = dataset.base(name.rpartition(":")[2])
    body = encodings.encoded_as(dataset.payload(dataset.healthy()[row.id]), "zstd", base).body
    dataset.put(f"swapstore:id:{{mena}}:{row.id}", records.id_header(row, "zstd", base.name) + body)


@pytest.mark.parametrize("number", [2, 5, COUNT])
def test_a_row_that_names_another_base_than_its_record_is_corrected(
    original: SimulatedDataset, number: int
) -> None:
    """A base is unlinked although a record needs it, because its row names another."""
    row = original.rows[number - 1]
    other = original.bases()[3 if number < COUNT else 2]
    store_against(original, row, other)
    assert original.problems() == {"row-damaged"}
    report = repaired(original)
    assert (report.dropped, report.left) == ((), ())
    assert [each.base for each in invariants.check(original.store)][number - 1] == other.rpartition(":")[2]
    assert original.history() == original.rows


def test_a_header_that_names_another_base_than_the_log_is_corrected(original: SimulatedDataset) -> None:
    """A copy of a row protects the wrong base when the row leaves the log."""
    current = invariants.manifest_of(original.store)
    head = msgspec.structs.replace(current.head, latest=attrs.evolve(current.head.latest, base=None))
    original.put(MANIFEST, manifest.build(head, current.log, original.store._context.keys).raw)
    assert original.problems() == {"latest-wrong"}
    repaired(original)
    assert invariants.manifest_of(original.store).head.latest.base is not None


# --- rebuilt logs ------------------------------------------------------------------------------------


def test_a_rebuilt_manifest_has_the_bases_of_its_records(original: SimulatedDataset) -> None:
    """After a manifest was lost, a repair lets all bases expire."""
    bases = original.bases()
    named = [row.base for row in invariants.check(original.store)]
    original.expire(bases[0])
    original.delete(MANIFEST)
    report = repaired(original)
    assert len(report.restored) == COUNT
    assert report.version == COUNT + 1, "one swap does all of it"
    assert original.bases() == bases
    rebuilt = [row.base for row in invariants.check(original.store)]
    assert all(base in {None, was} for base, was in zip(rebuilt, named, strict=True))
    original.sim.clock.advance(3_600_000)
    assert another(original.store).read("mena", id="id-2") is not None


def test_what_needs_a_lost_base_is_not_restored(original: SimulatedDataset) -> None:
    """A snapshot that nobody can read is put back into the log, or it disappears without a word."""
    name = original.bases()[2]
    needed = needing(original, name)
    original.delete(MANIFEST, name)
    found = list(another(original.store).verify("mena"))
    told = [f.key for f in found if f.problem.value == "leaked" and "cannot be put back" in f.detail]
    assert {f"swapstore:id:{{mena}}:{one}" for one in needed} <= set(told)
    report = repaired(original)
    assert set(report.restored) == {row.id for row in original.rows} - set(needed)
    original.still_has(set(report.restored))


@pytest.fixture
def reordered(original: SimulatedDataset) -> SimulatedDataset:
    """A log that a repair has rebuilt in another order: rows of an early base behind those of later ones.

    Two rows without ts records, of a page that is lost, get new versions. An earlier row has their base.
    """
    original.delete(original.pages()[1], key("ts", 3), key("ts", 4))
    repaired(original)
    order = [base_version(row.base) for row in invariants.check(original.store) if row.base is not None]
    assert order != sorted(order)
    return original


def test_history_in_another_order_is_stored_anew(reordered: SimulatedDataset) -> None:
    """A base is unlinked when the first rows that need it are stored without it, and others need it still."""
    for _ in range(COUNT):
        another(reordered.store).recompress("mena", compression="none", limit=2)
        invariants.check(reordered.store)
    assert reordered.bases() == []
    reordered.still_has({row.id for row in reordered.rows})


def test_a_log_that_was_rebuilt_in_another_order_keeps_its_bases(reordered: SimulatedDataset) -> None:
    """A repair puts a row back behind rows with later bases, and its base is unlinked with an earlier row."""
    original = reordered
    producer = another(original.store)
    for number in range(50, 62):
        producer.publish("mena", payload(number, delta=True, kind=number // 3), ts=at(number))
    for left in range(COUNT + 12, 0, -1):
        another(original.store).prune("mena", retention=Retention(max_count=left))
        invariants.check(original.store)
    original.rows[:] = original.history()
    original.repaired()


# --- beside live clients, and in bounded memory --------------------------------------------------------


@pytest.mark.parametrize("expires", [False, True])
def test_a_base_that_is_unlinked_during_verify_is_no_damage(
    original: SimulatedDataset, *, expires: bool
) -> None:
    """Verify reports a base as lost, because retention has unlinked it after verify began."""
    client, meddler = meddled(original.copy().store)
    list(client.verify("mena"))
    for number in range(1, len(meddler.batches), 2):
        dataset = original.copy()
        client, meddler = meddled(dataset.store)

        def prune(dataset: SimulatedDataset = dataset) -> None:
            for each in range(9):
                value = payload(each, delta=True, kind=90 + each // 3)
                another(dataset.store).publish("mena", value, ts=at(100 + each))
            another(dataset.store).prune("mena", retention=Retention(max_count=2))
            dataset.sim.clock.advance(700_000 if expires else 0)

        meddler.before(number, prune)
        assert [finding for finding in client.verify("mena") if finding.wrong] == [], number


def test_each_base_is_read_once_and_few_are_kept(
    original: SimulatedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Verify reads a base of megabytes again for each of its snapshots, or holds all of them."""
    monkeypatch.setattr(manifest, "F", 8)
    dataset = grown(60, delta=True)
    client, meddler = meddled(dataset.store)
    most = 0
    keep = Bases._keep

    def watched(self: Bases, found: object) -> None:
        nonlocal most
        keep(self, found)  # type: ignore[arg-type]
        most = max(most, len(self._whole))

    monkeypatch.setattr(Bases, "_keep", watched)
    assert [finding for finding in client.verify("mena") if finding.wrong] == []
    read = [
        [each.key for each in batch if isinstance(each, Get) and ":base:" in each.key]
        for batch in meddler.batches
    ]
    every = [name for batch in read for name in batch]
    assert sorted(set(every)) == sorted(dataset.bases())
    assert len(every) <= len(dataset.bases()) + 2
    assert max(map(len, read)) > 1, "the bases of several rows are read in one batch"
    assert most <= KEPT


# --- on real stores ----------------------------------------------------------------------------------


@pytest.mark.every_store
def test_a_lost_base_on_a_real_store(store: Store) -> None:
    """A missing, an altered and an expiring base on a real server or in a file."""
    policy = msgspec.structs.replace(store._context.policy, compression="delta")
    producer = Store(store._driver, msgspec.structs.replace(store._context, policy=policy))
    for number in range(1, 16):
        value = payload(number, delta=True, kind=(number - 1) // 3)
        producer.publish("mena", value, id=f"id-{number}", ts=at(number))
    rows = invariants.check(store)
    bases = list(dict.fromkeys(row.base for row in rows if row.base is not None))
    missing, altered, expiring = (f"swapstore:base:{{mena}}:{name}" for name in bases[:3])
    damage = Damage(store)
    damage.delete(missing)
    damage.alter(altered, lambda raw: raw[:-1] + b"!")
    damage.expire(expiring)
    with pytest.raises(Damaged, match="base"):
        another(store).read("mena", id="id-2")
    found = [finding for finding in another(store).verify("mena") if finding.wrong]
    assert {f.problem.value for f in found} == {
        "record-baseless",
        "base-missing",
        "base-damaged",
        "base-expiring",
    }
    (report,) = another(store).repair("mena", apply=True)
    assert report.left == ()
    assert set(report.dropped) == {f.id for f in found if f.problem.value == "record-baseless"}
    left = invariants.check(store)
    assert {row.id for row in left} == {row.id for row in rows} - set(report.dropped)
    for row in left:
        snapshot = another(store).read("mena", id=row.id)
        assert snapshot is not None
        assert snapshot.value["n"] == row.ts
    another(store).prune("mena", retention=Retention(max_age=timedelta(days=1)))
    assert another(store).repair("mena", apply=True) == []


def test_a_repair_makes_no_snapshot_visible_that_lost_its_base_meanwhile(original: SimulatedDataset) -> None:
    """An expiring base is gone when the repair swaps, and the snapshots stay in the log all the same."""
    name = original.bases()[1]
    needed = needing(original, name)
    original.expire(name)
    client, meddler = meddled(original.store)
    carry_out = meddler.execute

    def execute(commands: object) -> list[object]:
        if any(isinstance(each, Swap) for each in commands):  # type: ignore[attr-defined]
            original.sim.keyspace.values.pop(name, None)
        return carry_out(commands)  # type: ignore[arg-type]

    meddler.execute = execute  # type: ignore[method-assign]
    (report,) = client.repair("mena", apply=True)
    assert report.dropped == tuple(needed)
    original.repaired()
