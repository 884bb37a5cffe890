"""Groups: members that are published together are seen together, on every kind of store."""

from __future__ import annotations

import asyncio
import itertools
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

import swapstore
import swapstore.aio
from swapstore import Group, Retention, Store
from swapstore.commands import Swap
from swapstore.errors import (
    Conflict,
    Corrupt,
    IdConflict,
    InvalidInput,
    NotFound,
    PayloadMissing,
    PayloadTooLarge,
    Rejected,
    Unavailable,
)
from swapstore.format import records
from swapstore.models import Candidate, Row, Snapshot
from swapstore.protocol import members as reading
from tests.store.test_damage import alter, delete
from tests.support import invariants
from tests.support.drivers import Meddler, another, cold_trips, lose, meddled
from tests.support.times import at
from tests.support.valkey import Server

every_store = pytest.mark.every_store
COMPRESSIONS = ("none", "zstd", "delta")
COUNTRIES = ("EG", "SG", "MA")


def values(number: int) -> dict[str, Any]:
    """Three members that tell from which publish they are."""
    return {name: {"country": name, "of": number} for name in COUNTRIES}


def long_values(count: int, changed: int = 0, number: int = 0) -> dict[str, Any]:
    """Members of 2 KB, of which the first ones tell a number."""
    made: dict[str, Any] = {}
    for index in range(count):
        rows = [random.Random(index * 1000 + row).random() for row in range(100)]
        made[f"c{index:02d}"] = [*rows, number if index < changed else 0]
    return made


def member_key(store: Store, id: str, name: str) -> str:  # noqa: A002
    """The key of a member of a committed group."""
    (row,) = [row for row in store.history("mena", limit=None) if row.id == id]
    return f"swapstore:member:{{mena}}:{id}:{row.sha256[:8]}:{name}"


def stored_as(store: Store, compression: Any, **changes: Any) -> tuple[Store, Meddler]:
    """Another client, which stores payloads so, and what passes between it and the store."""
    policy = msgspec.structs.replace(store._context.policy, compression=compression)
    return meddled(store, policy=policy, **changes)


def group_of(snapshot: Snapshot | None) -> Group:
    assert isinstance(snapshot, Group)
    return snapshot


# --- publish and read ------------------------------------------------------------------------------


@every_store
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_is_published_together_is_read_together(store: Store, compression: str) -> None:
    """A member is missing, is another's, or does not come back as it was published."""
    producer, _ = stored_as(store, compression)
    for number in (1, 2, 3):
        commit = producer.publish_group("mena", values(number), id=f"g{number}", labels={"run": str(number)})
        assert (commit.version, commit.created, commit.is_latest) == (number, True, True)
        group = another(store).read_group("mena")
        assert group is not None
        assert (group.version, group.id, group.etag, group.ts) == (
            number,
            f"g{number}",
            commit.etag,
            commit.ts,
        )
        assert group.labels == {"run": str(number)}
        assert (group.value, list(group), len(group)) == (values(number), sorted(COUNTRIES), 3)
        for name in COUNTRIES:
            payload = msgspec.json.encode(values(number)[name])
            assert (group[name].raw, group[name].size, group[name].name) == (payload, len(payload), name)
            assert group[name].sha256 == records.digest(payload)
        assert (
            (group.sha256, group.size)
            == (records.digest(group.raw), len(group.raw))
            == (
                commit.sha256,
                commit.size,
            )
        )
    invariants.check(store)
    assert not list(store.verify())


@every_store
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_some_members_are_read_without_the_others(store: Store, compression: str) -> None:
    """To read one country takes all of them, or brings that of another."""
    stored_as(store, compression)[0].publish_group("mena", values(1), id="g1")
    reader, meddler = meddled(store)
    group = reader.read_group("mena", members=["SG", "EG"])
    assert group is not None
    assert (group.value, group.raw) == ({name: values(1)[name] for name in ("SG", "EG")}, b"")
    asked = {key for batch in meddler.batches for command in batch for key in [getattr(command, "key", "")]}
    assert member_key(store, "g1", "MA") not in asked
    none = reader.read_group("mena", members=[])
    assert none is not None
    assert len(none) == 0


def test_members_of_bytes(store: Store) -> None:
    """Binary members come back as something else, or are taken for JSON."""
    for compression in COMPRESSIONS:
        given = {"a": b"", "b": b"\xff\x00" * 300, "c": b"x" * 300}
        stored_as(store, compression)[0].publish_group("mena", given, codec="bytes")
        group = another(store).read_group("mena")
        assert group is not None
        assert group.value == given
        assert {member.codec for member in group.members.values()} == {"bytes"}
    invariants.check(store)


def test_nothing_published_is_none(store: Store) -> None:
    """A reader that is early fails."""
    assert store.read_group("mena") is None
    assert store.read_group("mena", members=["EG"]) is None


@every_store
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_an_unknown_member_is_not_found(store: Store, compression: str) -> None:
    """A typing mistake is reported as damage, or as nothing at all."""
    stored_as(store, compression)[0].publish_group("mena", values(1))
    with pytest.raises(NotFound, match=r"version 1 has no member 'XX'.*3"):
        another(store).read_group("mena", members=["EG", "XX"])
    warm = another(store)
    warm.read_group("mena")
    with pytest.raises(NotFound, match="'XX'"):
        warm.read_group("mena", members=["XX"], max_staleness=60)


def test_a_single_snapshot_is_no_group_and_a_group_is_a_snapshot(store: Store) -> None:
    """A reader of a group gets a snapshot that has no members, or one of snapshots gets a table."""
    store.publish("mena", {"EG": 1})
    for staleness in (0, 60):
        with pytest.raises(InvalidInput, match=r"version 1 is a single snapshot.*read_latest"):
            store.read_group("mena", max_staleness=staleness)
    store.publish_group("mena", values(2))
    for reader in (store, another(store)):
        for staleness in (0, 60):
            assert group_of(reader.read_latest("mena", max_staleness=staleness)).value == values(2)
        assert group_of(reader.read_latest_many(["mena"])["mena"]).value == values(2)
    single = store.read("mena", version=1)
    assert single is not None
    assert (single.members, isinstance(single, Group)) == ({}, False)


@every_store
def test_a_thousand_members(store: Store) -> None:
    """A large group loses members, or its records outgrow a request."""
    given = {f"member/{number:04d}": number for number in range(1000)}
    store.publish_group("mena", given)
    group = another(store).read_group("mena")
    assert group is not None
    assert group.value == given
    assert another(store).read_group("mena", members=["member/0999"]).value == {"member/0999": 999}  # type: ignore[union-attr]


def test_members_that_are_read_in_several_batches(valkey: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first members of a large group are lost when it is read, published, verified or stored anew."""
    monkeypatch.setattr(reading, "BATCH_BYTES", 4000)  # two of them
    with swapstore.connect(valkey.url, compression="delta") as store:
        for number in range(3):
            client, meddler = stored_as(store, "delta")
            client.publish_group("mena", long_values(7, 7, number), id=f"g{number}")
            swap = meddler.batches[-1][-1]
            assert isinstance(swap, Swap)
            against = [each.key for each in swap.staged if ":base:" in each.key and each.key[-4:-2] == ":c"]
            assert len(against) == 7, "each member is stored as a difference"
            assert group_of(another(store).read("mena", id=f"g{number}")).value == long_values(7, 7, number)
        assert [finding for finding in another(store).verify() if finding.wrong] == []
        store.erase("mena", id="g0")
        for number in (1, 2):
            assert group_of(another(store).read("mena", id=f"g{number}")).value == long_values(7, 7, number)
        assert [finding for finding in another(store).verify() if finding.wrong] == []


# --- bad input -------------------------------------------------------------------------------------


class Twice(dict[Any, Any]):
    """A mapping with two keys that are one name."""

    def items(self) -> Any:
        return {Name("EG"): 1, Name("eg"): 2}.items()


class Name(str):
    """A string that is a name of its own to a dict, and the same as another to a store."""

    __slots__ = ()

    def __hash__(self) -> int:
        return hash(str(self))

    def __eq__(self, other: object) -> bool:
        return self is other

    def __str__(self) -> str:
        return self.upper()


BAD: dict[str, tuple[Any, str]] = {
    "none": ({}, "1 to 1,000 members, not 0"),
    "too many": ({str(number): 1 for number in range(1001)}, "1 to 1,000 members, not 1,001"),
    "a list": ([("EG", 1)], "members must map names to values, not be a list"),
    "a bad name": ({"EG": 1, "S G": 2}, "S G"),
    "a colon": ({"a:b": 1}, "a:b"),
    "an empty name": ({"": 1}, "member"),
    "a long name": ({"x" * 129: 1}, "member"),
    "a number": ({1: 1}, "member"),
    "no JSON": ({"EG": 1, "SG": {1, 2}.__iter__()}, "member 'SG'"),
    "NaN": ({"EG": 1, "MA": float("nan")}, "member 'MA'"),
    "no JSON text": ({"EG": msgspec.Raw(b"{")}, "member 'EG'"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_members_are_refused_before_anything_is_written(store: Store, case: str) -> None:
    """A group that cannot be read is published, or nobody knows which member is wrong."""
    producer, meddler = meddled(store)
    members, named = BAD[case]
    with pytest.raises(InvalidInput, match=named) as caught:
        producer.publish_group("mena", members)
    assert caught.value.published is False
    assert (caught.value.dataset, meddler.batches) == ("mena", [])


def test_a_member_that_is_too_large_is_refused_by_its_name(store: Store) -> None:
    """The largest of a thousand members has to be guessed."""
    policy = msgspec.structs.replace(store._context.policy, max_payload_bytes=100)
    producer, meddler = meddled(store, policy=policy)
    with pytest.raises(PayloadTooLarge, match="member 'SG'") as caught:
        producer.publish_group("mena", {"EG": "x" * 90, "SG": "x" * 100})
    assert (caught.value.limit_bytes, meddler.batches) == (100, [])
    producer.publish_group("mena", {"EG": "x" * 90, "SG": "x" * 90})  # each has a payload of its own


def test_bad_names_are_refused_when_members_are_read(store: Store) -> None:
    """A name that no member can have is reported as a missing member, or as damage."""
    store.publish_group("mena", values(1))
    for names in (["E G"], ["a:b"], [1], "E G", 7):
        with pytest.raises(InvalidInput):
            store.read_group("mena", members=names)  # type: ignore[arg-type]


# --- as for any dataset ----------------------------------------------------------------------------


@every_store
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_history_reads_a_group_by_version_id_and_moment(store: Store, compression: str) -> None:
    """An earlier group is read with the members of a later one, or as its table."""
    producer, _ = stored_as(store, compression)
    for number in range(1, 41):
        producer.publish_group("mena", values(number), id=f"g{number}", ts=at(number))
    reader = another(store)
    for number in (1, 7, 20, 40):
        for found in (
            reader.read("mena", version=number),
            reader.read("mena", id=f"g{number}"),
            reader.read("mena", as_of=at(number)),
        ):
            assert (group_of(found).value, group_of(found).version) == (values(number), number)
    rows = list(reader.history("mena", limit=None))
    assert [row.id for row in rows] == [f"g{number}" for number in range(40, 0, -1)]
    assert all(row.is_group for row in rows)
    invariants.check(store)


def test_pin_rollback_and_follow(store: Store) -> None:
    """Readers of members are served another group than the one that is pinned."""
    for number in (1, 2, 3):
        store.publish_group("mena", values(number), id=f"g{number}", ts=at(number))
    store.pin("mena", version=1)
    assert another(store).read_group("mena", members=["EG"]).value == {"EG": values(1)["EG"]}  # type: ignore[union-attr]
    assert group_of(store.read_latest("mena")).value == values(1)
    store.unpin("mena")
    store.rollback("mena", id="g2")
    group = another(store).read_group("mena")
    assert group is not None
    assert (group.id, group.value) == ("g2", values(2))
    commits = list(itertools.islice(store.follow("mena", after=0), 3))
    assert [each.id for each in commits if isinstance(each, Row)] == ["g1", "g2", "g3"]


def test_the_same_group_again_is_one_commit_and_another_is_refused(store: Store) -> None:
    """A retry publishes twice, or an id names two contents."""
    first = store.publish_group("mena", values(1), id="g1", dedupe_key="hourly")
    again = another(store).publish_group("mena", dict(reversed(values(1).items())), id="g1")
    assert (again.created, again.version, again.sha256) == (False, first.version, first.sha256)
    by_key = another(store).publish_group("mena", values(2), dedupe_key="hourly")
    assert (by_key.created, by_key.id) == (False, "g1")
    for other in ({**values(1), "EG": 0}, {"EG": values(1)["EG"]}, {**values(1), "ZZ": 1}):
        with pytest.raises(IdConflict):
            store.publish_group("mena", other, id="g1")
    table = group_of(store.read_latest("mena")).raw
    with pytest.raises(IdConflict):
        store.publish("mena", msgspec.Raw(table), id="g1")
    with pytest.raises(Conflict):
        store.publish_group("mena", values(2), expected_version=7)
    assert len(invariants.check(store)) == 1


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_groups_and_single_snapshots_take_turns(store: Store, compression: str) -> None:
    """What follows a snapshot of another kind is stored against what is no base of it."""
    producer, _ = stored_as(store, compression)
    for number in range(12):
        if number % 3 == 2:
            producer.publish("mena", long_values(3, 1, number))
        else:
            producer.publish_group("mena", long_values(3, 1, number))
    invariants.check(store)
    for number in range(12):
        found = another(store).read("mena", version=number + 1)
        assert found is not None
        assert found.value == long_values(3, 1, number)


@every_store
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_retention_unlinks_members_and_their_bases(store: Store, compression: str) -> None:
    """Members of groups that left the history take memory for ever, or leave while they can be read."""
    producer, _ = stored_as(store, compression, retention=Retention(max_count=2))
    for number in range(60):
        changed = long_values(3, 3, number * 1000) if number % 10 == 0 else long_values(3, 1, number)
        producer.publish_group("mena", changed, id=f"g{number}")
    invariants.check(store)  # a permanent key that no row names fails it
    assert not [finding for finding in store.verify() if finding.problem.name != "ORPHAN"]
    kept = sum(not expires for _, expires in invariants.contents(store).values())
    assert kept < 60 * 4
    store.publish("mena", 1)
    producer.prune("mena")
    invariants.check(store)


def test_a_base_of_groups_that_leaves_later_than_they_takes_its_members_along(store: Store) -> None:
    """What the members of old groups were stored against stays for ever when single snapshots follow them."""
    producer, _ = stored_as(store, "delta", retention=Retention(max_count=1))
    for number in range(3):
        producer.publish_group("mena", long_values(3, 1, number))
    for number in range(60):  # too small to bring a base, so that of the groups stays in force
        producer.publish("mena", number)
    assert invariants.manifest_of(store).log.base is not None
    for number in range(2):
        producer.publish("mena", long_values(3, 1, number))
    invariants.check(store)  # a permanent key that no row names fails it


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_a_group_that_left_may_be_published_again_under_its_id(store: Store, compression: str) -> None:
    """A group is made of members that wait for their end."""
    producer, _ = stored_as(store, compression, retention=Retention(max_count=1))
    producer.publish_group("mena", values(0), id="again")
    for number in range(1, 60):
        producer.publish_group("mena", values(number))
    assert producer.publish_group("mena", values(99), id="again").created
    assert group_of(another(store).read("mena", id="again")).value == values(99)
    invariants.check(store)


# --- what readers pay ------------------------------------------------------------------------------


@every_store
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_how_often_producers_and_readers_wait(store: Store, compression: str) -> None:
    """A group takes a round trip for each of its members."""
    producer, sent = stored_as(store, compression)
    producer.publish_group("mena", long_values(5, 1, 0))
    cold = cold_trips(store)
    begun = len(sent.batches)
    for number in (1, 2):
        producer.publish_group("mena", long_values(5, 1, number))
    assert len(sent.batches) - begun == 2, "one round trip a publish"
    reader, asked = meddled(store)
    reader.read_latest("nowhere")
    begun = len(asked.batches)
    group = reader.read_group("mena", members=["c00"])
    assert group is not None
    assert group.value == {"c00": long_values(5, 1, 2)["c00"]}
    assert len(asked.batches) - begun <= 2, "the manifest, then the member and its base"
    reader.read_group("mena", members=["c00"])
    assert len(asked.batches) - begun <= 3, "the manifest alone"
    reader.read_group("mena")
    for number in (3, 4):
        producer.publish_group("mena", long_values(5, 1, number))
        begun = len(asked.batches)
        reader.read_group("mena", members=["c00", "c03"])
        assert len(asked.batches) - begun <= 2
    whole, asked = meddled(store)
    whole.read_group("mena")
    assert len(asked.batches) <= cold + 2, "the manifest and the table, then the members and their bases"


def test_a_member_that_is_new_costs_each_publish_no_round_trip(store: Store) -> None:
    """After a member is added, each publish asks for a base of it that does not exist."""
    producer, sent = stored_as(store, "delta")
    producer.publish_group("mena", long_values(5))
    for number in (1, 2, 3):
        begun = len(sent.batches)
        producer.publish_group("mena", {**long_values(5), "new": {"of": number}})
        assert len(sent.batches) - begun == 1


def test_a_cached_group_is_served_without_io(store: Store) -> None:
    """Each request of a web service asks the store although it may serve what it has."""
    store.publish_group("mena", values(1))
    reader, asked = meddled(store)
    reader.read_group("mena", members=["EG"])
    begun = len(asked.batches)
    assert reader.read_group("mena", members=["EG"], max_staleness=60) is not None
    assert len(asked.batches) == begun
    reader.read_group("mena", members=["EG", "SG"], max_staleness=60)  # one of them is not there yet
    whole = reader.read_group("mena")
    begun = len(asked.batches)
    assert reader.read_group("mena", max_staleness=timedelta(minutes=1)) == whole
    assert reader.read_latest("mena", max_staleness=60) == whole
    assert len(asked.batches) == begun
    store.publish_group("mena", values(2))
    stale = reader.read_group("mena", max_staleness=60)
    assert stale is not None
    assert stale.version == 1
    fresh = reader.read_group("mena", max_staleness=60, min_version=2)
    assert fresh is not None
    assert fresh.value == values(2)
    with pytest.raises(Unavailable, match="version 9 is not there"):
        reader.read_group("mena", min_version=9)


def test_a_caller_that_changes_a_group_changes_it_for_nobody_else(store: Store) -> None:
    """One request of a web service changes what all others get."""
    store.publish_group("mena", values(1), labels={"run": "1"})
    first = store.read_group("mena")
    assert first is not None
    first["EG"].value["of"] = "changed"
    first.labels["run"] = "changed"
    for second in (store.read_group("mena", max_staleness=60), store.read_latest("mena", max_staleness=60)):
        assert group_of(second).value == values(1)
        assert group_of(second).labels == {"run": "1"}


# --- validators ------------------------------------------------------------------------------------


def test_validators_see_all_members_of_both_groups(store: Store) -> None:
    """What must hold between members cannot be checked before they are seen."""
    seen: list[tuple[Any, Any, Any]] = []

    def validate(candidate: Candidate, previous: Snapshot | None) -> str | None:
        before = None if previous is None else {name: each.value for name, each in previous.members.items()}
        seen.append(({name: each.value for name, each in candidate.members.items()}, candidate.value, before))
        return "MA is missing" if "MA" not in candidate.members else None

    store.publish_group("mena", values(1), validate=validate)
    store.publish_group("mena", values(2), validate=validate)
    with pytest.raises(Rejected, match="MA is missing") as caught:
        store.publish_group("mena", {"EG": 1}, validate=validate)
    assert caught.value.published is False
    assert seen[:2] + seen[-1:] == [  # a refusal is decided again on the stored manifest
        (values(1), values(1), None),
        (values(2), values(2), values(1)),
        ({"EG": 1}, {"EG": 1}, values(2)),
    ]
    assert group_of(store.read_latest("mena")).version == 2


# --- faults ----------------------------------------------------------------------------------------


@every_store
def test_a_publish_whose_reply_is_lost_is_committed_once(store: Store) -> None:
    """A group is committed twice, or its producer is told that it is not."""
    for number, lost in enumerate((0, 1)):
        producer, sent = meddled(store)
        sent.after(lost, lose)
        commit = producer.publish_group("mena", values(number), id=f"g{number}")
        assert commit.version == number + 1
    assert [row.id for row in invariants.check(store)] == ["g0", "g1"]


class Stopped(Exception):  # noqa: N818 - it is no error of swapstore
    """The producer dies."""


def stop() -> None:
    raise Stopped


@every_store
def test_what_a_cut_publish_left_is_taken_over(store: Store) -> None:
    """Members of a publish that died become part of the next one under its id."""
    dead = {**values(1), "GHOST": 1}
    for index in itertools.count():
        producer, sent = meddled(store)
        for batch in range(2):
            sent.between(batch, index, stop)
        with pytest.raises(Stopped):
            producer.publish_group("mena", dead, id="g")
        if isinstance(sent.batches[-1][index], Swap):
            break
    assert store.read_latest("mena") is None
    store.publish_group("mena", values(2), id="g")
    group = another(store).read_group("mena")
    assert group is not None
    assert group.value == values(2)
    with pytest.raises(NotFound):
        another(store).read_group("mena", members=["GHOST"])
    invariants.check(store)


@pytest.mark.parametrize("name", COUNTRIES)
def test_a_lost_member_is_damage_and_the_others_are_read(store: Store, name: str) -> None:
    """A group is read without one of its members, or none of them can be read any more."""
    store.publish_group("mena", values(1), id="g1")
    delete(store, member_key(store, "g1", name))
    for members in (None, [name]):
        with pytest.raises(
            PayloadMissing, match=f"the member '{name}' of version 1.*member:{{mena}}:g1:[0-9a-f]{{8}}:{name}"
        ):
            another(store).read_group("mena", members=members)
    rest = [each for each in COUNTRIES if each != name]
    assert another(store).read_group("mena", members=rest).value == {each: values(1)[each] for each in rest}  # type: ignore[union-attr]
    with pytest.raises(PayloadMissing):
        another(store).publish_group("mena", values(1), id="g1")


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_an_altered_member_is_corrupt(store: Store, compression: str) -> None:
    """An altered member is served."""
    producer, _ = stored_as(store, compression)
    producer.publish_group("mena", long_values(2), id="g1")
    producer.publish_group("mena", long_values(2, 1, 7), id="g2")
    key = member_key(store, "g2", "c00")
    alter(store, key, lambda record: record[:-3] + b"000")
    for members in (None, ["c00"]):
        with pytest.raises(Corrupt, match="member:{mena}:g2:[0-9a-f]{8}:c00"):
            another(store).read_group("mena", members=members)


def test_a_member_of_another_group_is_corrupt(store: Store) -> None:
    """A record that was copied to another key is served as part of a group that never had it."""
    store.publish_group("mena", values(1), id="g1")
    store.publish_group("mena", values(2), id="g2")
    other = invariants.contents(store)[member_key(store, "g1", "EG")][0]
    alter(store, member_key(store, "g2", "EG"), lambda _: other)
    with pytest.raises(Corrupt, match="member:{mena}:g2:[0-9a-f]{8}:EG"):
        another(store).read_group("mena")


@pytest.mark.parametrize("remembers", [True, False])
@pytest.mark.parametrize("damage", ["deleted", "another"])
@pytest.mark.parametrize("name", ["c00", "c01", ""])
def test_publishing_goes_on_when_the_base_of_a_member_is_lost(
    store: Store, name: str, damage: str, *, remembers: bool
) -> None:
    """Groups are acknowledged that nobody can ever read, or none is published any more."""
    producer, _ = stored_as(store, "delta")
    producer.publish_group("mena", long_values(3), id="g1")
    base = invariants.manifest_of(store).log.base
    assert base is not None
    key = f"swapstore:base:{{mena}}:{base.name}{f':{name}' if name else ''}"
    if damage == "deleted":
        delete(store, key)
    else:
        alter(store, key, lambda record: record.replace(b'{"base":"', b'{"base":"9', 1))
    for number in (2, 3):
        client = producer if remembers else stored_as(store, "delta")[0]
        client.publish_group("mena", long_values(3, 1, number), id=f"g{number}")
    for number in (2, 3):
        found = group_of(another(store).read("mena", id=f"g{number}"))
        assert found.value == long_values(3, 1, number)


def test_a_member_that_no_dictionary_can_be(store: Store) -> None:
    """A member that begins as a trained dictionary of zstd does cannot be published, or not be read."""
    producer, _ = stored_as(store, "delta")
    for number in range(3):
        given = {"a": bytes.fromhex("37a430ec") + b"x" * 300, "b": b"y" * 300 + bytes([number])}
        producer.publish_group("mena", given, codec="bytes")
        group = another(store).read_group("mena")
        assert group is not None
        assert group.value == given
    invariants.check(store)


# --- what an unchanged member costs ----------------------------------------------------------------


def test_an_unchanged_member_takes_next_to_nothing(valkey: Server) -> None:
    """A publish of ten changes among two hundred members costs as much as one of two hundred."""
    with swapstore.connect(valkey.url, compression="delta") as store, valkey.client() as admin:
        store.publish_group("portwatch", long_values(200))
        before = admin.info("stats")["total_net_input_bytes"]
        commit = store.publish_group("portwatch", long_values(200))
        sent = admin.info("stats")["total_net_input_bytes"] - before
        key = f"swapstore:member:{{portwatch}}:{commit.id}:{commit.sha256[:8]}:c07"
        assert admin.memory_usage(key, samples=0) <= 150
        assert (sent - 12_000 - 4_000) / 200 <= 300, sent
        store.publish_group("portwatch", {"c07": long_values(8)["c07"]})


# --- asyncio ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_groups_for_asyncio(tmp_path: Path, valkey: Server, compression: Any) -> None:
    """The asyncio store publishes or reads groups in another way."""

    async def main(url: str) -> None:
        async with swapstore.aio.connect(url, compression=compression) as store:
            for number in (1, 2, 3):
                await store.publish_group("mena", values(number), id=f"g{number}", ts=at(number))
            group = await store.read_group("mena", members=["EG"])
            assert group is not None
            assert group.value == {"EG": values(3)["EG"]}
            for found in (await store.read("mena", version=2), await store.read("mena", as_of=at(2))):
                assert group_of(found).value == values(2)
            await store.pin("mena", version=1)
            assert group_of(await store.read_latest("mena")).value == values(1)
            with pytest.raises(NotFound):
                await store.read_group("mena", members=["XX"])

    for url in (f"sqlite:///{tmp_path}/store.db", valkey.url):
        asyncio.run(main(url))
        with swapstore.connect(url) as store:
            invariants.check(store)
