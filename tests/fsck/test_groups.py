"""Groups whose members, tables or bases are lost, altered or expiring: what verify finds, and repair does."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import pytest

from swapstore import Repair
from swapstore.commands import Swap
from swapstore.errors import Damaged
from swapstore.models import Group
from swapstore.protocol import members as reading
from tests.fsck.simulated import MANIFEST, SimulatedDataset, opened
from tests.support import invariants
from tests.support.drivers import another, meddled
from tests.support.times import at

pytestmark = pytest.mark.usefixtures("tiny_pages")
COUNT = 7
NAMES = ("EG", "SG", "MA")
Harm = Callable[[SimulatedDataset, str], None]


def members(number: int) -> dict[str, Any]:
    """Three members: one changes each time, one sometimes, and one is small and never changes."""
    text = partial(lambda kind: random.Random(kind).randbytes(300).hex())
    return {
        "EG": {"n": number, "text": text(1)},
        "SG": {"n": number // 3, "text": text(number // 3)},
        "MA": 7,
    }


def one_member(number: int) -> dict[str, Any]:
    """A member that changes each time: the table is stored as it is, and the member against a base."""
    return {"EG": members(number)["EG"]}


@cache
def _grown(kind: str) -> SimulatedDataset:
    dataset = opened(delta=kind != "plain")
    for number in range(1, COUNT + 1):
        dataset.sim.clock.advance(1)
        if kind == "mixed" and number % 3 == 0:
            dataset.store.publish("mena", members(number), id=f"id-{number}", ts=at(number))
        else:
            made = one_member(number) if kind == "one" else members(number)
            dataset.store.publish_group("mena", made, id=f"id-{number}", ts=at(number))
    dataset.rows.extend(dataset.history())
    return dataset


@pytest.fixture(
    params=["delta", "one", *(pytest.param(kind, marks=pytest.mark.nightly) for kind in ("plain", "mixed"))]
)
def original(request: pytest.FixtureRequest) -> SimulatedDataset:
    """Eight groups: stored against bases, or as they are; with single snapshots between, or of one member."""
    return _grown(request.param).copy()


@pytest.fixture
def differences() -> SimulatedDataset:
    """Eight groups that are stored against bases."""
    return _grown("delta").copy()


def permanent(dataset: SimulatedDataset, kind: str = "") -> list[str]:
    """The keys of the dataset that have no TTL."""
    found = sorted(key for key, value in dataset.sim.keyspace.values.items() if value.expires_at is None)
    return [key for key in found if key.startswith(f"swapstore:{kind}")]


def member_key(dataset: SimulatedDataset, number: int, name: str) -> str:
    (key,) = [
        key for key in permanent(dataset, "member") if f":id-{number}:" in key and key.endswith(f":{name}")
    ]
    return key


def delete(dataset: SimulatedDataset, name: str) -> None:
    dataset.delete(name)


def alter(dataset: SimulatedDataset, name: str) -> None:
    dataset.alter(name, lambda raw: raw[:-3] + bytes([raw[-3] ^ 1]) + raw[-2:])


def cut(dataset: SimulatedDataset, name: str) -> None:
    dataset.alter(name, lambda raw: raw[: len(raw) // 2])


def rename(dataset: SimulatedDataset, name: str) -> None:
    """The record of another key of this kind."""
    kind = name.split(":")[1]
    values = dataset.sim.keyspace.values
    others = [values[each].data for each in permanent(dataset, kind)]
    dataset.put(name, next((each for each in others if each != values[name].data), b""))


def expire(dataset: SimulatedDataset, name: str) -> None:
    dataset.expire(name)


HARMS = (delete, alter, pytest.param(cut, marks=pytest.mark.nightly), rename, expire)


def readable(dataset: SimulatedDataset) -> set[str]:
    """The ids that can be read; what is read is what was published."""
    found = set()
    reader = another(dataset.store)
    for row in dataset.rows:
        try:
            snapshot = reader.read("mena", id=row.id)
        except Damaged:
            continue
        if snapshot is None:
            continue
        assert snapshot.value in (members(row.ts), one_member(row.ts))
        assert isinstance(snapshot, Group) == row.is_group
        found.add(row.id)
    return found


def repaired(dataset: SimulatedDataset) -> Repair:
    (report,) = another(dataset.store).repair("mena", apply=True)
    dataset.repaired()
    return report


def test_nothing_is_wrong_with_groups(original: SimulatedDataset) -> None:
    """A healthy store with groups is called damaged."""
    assert original.problems() == set()
    assert another(original.store).repair("mena", apply=True) == []
    assert len(readable(original)) == COUNT


@pytest.mark.slow
@pytest.mark.parametrize("harm", HARMS, ids=lambda each: each.__name__)
def test_a_repair_costs_no_group_that_can_be_read(original: SimulatedDataset, harm: Harm) -> None:
    """Damage to one record is not found, or takes groups with it that are whole."""
    for key in permanent(original):
        dataset = original.copy()
        harm(dataset, key)
        if harm is alter and (":ts:" in key or key == MANIFEST):
            continue  # it depends on the byte whether it means anything else
        before = readable(dataset) if key != MANIFEST and "page" not in key else None
        if before == set():
            continue  # no snapshot is left to serve: a repair waits for the next publish
        assert dataset.problems(), key
        dataset.repaired()
        if before is None:
            before = {row.id for row in dataset.rows}
        after = readable(dataset)
        assert before <= after, (key, before - after)
        shown = {row.id for row in dataset.history()}
        assert shown == after, key
        dataset.sim.clock.advance(3_600_000)
        assert readable(dataset) == after, key
        assert not [each for each in another(dataset.store).verify("mena") if each.wrong]
        if permanent(dataset):
            another(dataset.store).publish_group("mena", members(50), id="id-50", ts=at(50))
            invariants.check(dataset.store)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("harm", [delete, alter, rename], ids=lambda each: each.__name__)
def test_a_lost_member_costs_its_group(original: SimulatedDataset, harm: Harm, name: str) -> None:
    """A group goes on without one of its members, or the finding does not say which one is lost."""
    if name not in another(original.store).read("mena", id="id-4").members:  # type: ignore[union-attr]
        return
    key = member_key(original, 4, name)
    harm(original, key)
    found = [finding for finding in another(original.store).verify("mena") if finding.wrong]
    (finding,) = [each for each in found if each.key == key]
    assert (finding.key, finding.id, finding.version) == (key, "id-4", 4)
    assert f"member '{name}'" in finding.detail
    is_lost = finding.problem.value == "record-missing"
    assert is_lost if harm is delete else finding.problem.value in {"record-damaged", "record-baseless"}
    assert repaired(original).dropped == ("id-4",)
    assert not [key for key in permanent(original) if ":id-4:" in key or key.endswith(":id-4")]


@pytest.mark.parametrize("lost", ["manifest", "manifest and page", "everything newer"])
def test_a_lost_manifest_is_rebuilt_with_its_groups(original: SimulatedDataset, lost: str) -> None:
    """Groups that can be read are lost with the manifest, or what they are stored against is."""
    if lost == "manifest and page":
        original.delete(original.pages()[0])
    original.delete(MANIFEST)
    if lost == "everything newer":
        producer = another(original.store)
        producer.publish_group("mena", members(50), id="id-50", ts=at(50))
    assert original.problems()
    original.repaired()
    assert len(readable(original)) == COUNT
    rows = [row for row in original.history() if row.id != "id-50"]
    assert [(row.id, row.is_group) for row in rows] == [(row.id, row.is_group) for row in original.rows]
    original.sim.clock.advance(3_600_000)
    assert len(readable(original)) == COUNT


def test_a_lost_manifest_and_a_lost_member(original: SimulatedDataset) -> None:
    """A manifest is rebuilt with a group that cannot be read."""
    original.delete(MANIFEST, member_key(original, 4, "EG"))
    original.repaired()
    assert len(readable(original)) == COUNT - 1
    assert "id-4" not in {row.id for row in original.history()}


def test_a_lost_manifest_and_members_that_will_expire(original: SimulatedDataset) -> None:
    """A manifest is rebuilt, and a group of it vanishes an hour later."""
    original.delete(MANIFEST)
    for key in permanent(original, "member"):
        if ":id-4:" in key:
            original.expire(key)
    original.repaired()
    original.sim.clock.advance(3_600_000)
    assert len(readable(original)) == COUNT


@pytest.mark.parametrize("name", ["id-4:01234567:EG", "id-99:01234567:EG", "never:01234567:a/b"])
def test_a_member_of_no_group_gets_a_ttl(original: SimulatedDataset, name: str) -> None:
    """Members of a commit that a dying server cut off stay for ever, under the id of a group or of none."""
    original.put(f"swapstore:member:{{mena}}:{name}", b'{"size":1,"sha256":"00"}\n1')
    assert original.problems() == {"leaked"}
    assert repaired(original).dropped == ()
    assert len(readable(original)) == COUNT
    assert not [key for key in permanent(original) if key.endswith(name)]


def test_a_member_that_never_was_in_a_base_gets_a_ttl(differences: SimulatedDataset) -> None:
    """Bases of members that nobody needs stay for ever."""
    key = permanent(differences, "base")[0]
    differences.put(f"{key}:XX", b"{}\n")
    assert differences.problems() == {"leaked"}
    repaired(differences)
    assert len(readable(differences)) == COUNT


@pytest.mark.parametrize("writes", range(8))
def test_what_a_server_leaves_that_dies_inside_a_commit(original: SimulatedDataset, writes: int) -> None:
    """Members of a commit that never was are served, or its id cannot be used any more."""
    client, meddler = meddled(original.store)

    def tear() -> None:
        for command in meddler.batches[-1]:
            if isinstance(command, Swap):
                original.sim.keyspace.commit(command, original.sim.clock.ms, writes=writes)
            else:
                original.sim.keyspace.apply(command, original.sim.clock.ms)
        raise KeyboardInterrupt

    meddler.before(1, tear)
    with pytest.raises(KeyboardInterrupt):
        client.publish_group("mena", members(60), id="torn", ts=at(60))
    if "torn" in {row.id for row in original.history()}:
        return  # it has been committed
    if original.problems():
        original.repaired()
    assert len(readable(original)) == COUNT
    original.sim.clock.advance(3_600_000)
    another(original.store).publish_group("mena", members(61), id="torn", ts=at(61))
    invariants.check(original.store)


@pytest.mark.parametrize("number", range(0, 30, 3))
def test_a_producer_of_groups_beside_a_repair(number: int) -> None:
    """A repair drops or unlinks members that a producer commits meanwhile."""
    dataset = _grown("delta").copy()
    dataset.delete(member_key(dataset, 4, "EG"))
    dataset.put("swapstore:member:{mena}:never:01234567:EG", b"{}\n")
    client, meddler = meddled(dataset.store)
    producer = another(dataset.store)
    meddler.before(number, lambda: producer.publish_group("mena", members(70), id="id-70", ts=at(70)))
    client.repair("mena", apply=True)
    dataset.repaired()
    if number < len(meddler.batches):
        found = another(dataset.store).read("mena", id="id-70")
        assert found is not None
        assert found.value == members(70)
    assert len(readable(dataset)) == COUNT - 1


def test_bases_of_members_that_are_read_in_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A repair of large groups keeps what their last members are stored against, and loses the first ones."""
    monkeypatch.setattr(reading, "BATCH_BYTES", 1)  # so that each member is read on its own
    dataset = opened(delta=True)
    for number in range(1, COUNT + 1):
        made = {name: [number, name, members(1)["EG"]] for name in ("EG", "SG", "US")}
        dataset.store.publish_group("mena", made, id=f"id-{number}", ts=at(number))
    (table,) = [key for key in permanent(dataset, "base") if key.endswith("g")]
    dataset.delete(table)  # it tells of these bases; only the group that brought it needs it
    dataset.repaired()
    left = dataset.history()
    assert [row.version for row in left] == list(range(2, COUNT + 1))
    dataset.sim.clock.advance(3_600_000)
    assert [finding for finding in another(dataset.store).verify("mena") if finding.wrong] == []
    for row in left:
        group = another(dataset.store).read("mena", id=row.id)
        assert isinstance(group, Group)
        assert [member.value[0] for member in group.members.values()] == [row.ts] * 3


def test_a_base_that_only_members_need_is_no_leftover() -> None:
    """A repair lets the base of all groups expire, because their tables are stored without it."""
    dataset = _grown("one").copy()
    first = [key for key in permanent(dataset) if ":id-1" in key]
    dataset.delete(MANIFEST, *first)
    leaked = [each.key for each in another(dataset.store).verify("mena") if each.problem.value == "leaked"]
    assert not [key for key in leaked if "page" not in key]
    dataset.repaired()
    assert len(readable(dataset)) == COUNT - 1
    assert {row.base is None for row in dataset.history()} == {False}
