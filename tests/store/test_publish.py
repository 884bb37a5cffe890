"""Publishing, as a caller sees it, on every kind of store."""

from __future__ import annotations

import enum
from datetime import UTC, datetime
from typing import Any

import pytest

from swapstore import Candidate, Commit, Retention, Snapshot, Store
from swapstore.commands import Failed, Get, Register, Stage, Swap
from swapstore.errors import (
    Conflict,
    IdConflict,
    InvalidInput,
    PayloadMissing,
    PayloadTooLarge,
    Rejected,
    StoreFull,
)
from swapstore.protocol.context import Policy
from tests.store.test_damage import delete
from tests.support.drivers import Meddler, another, meddled, sqlite_connection
from tests.support.times import at, soon
from tests.support.valkey import client_of


def versions(store: Store, dataset: str = "mena") -> list[int]:
    return [row.version for row in store.history(dataset, limit=None)]


@pytest.mark.every_store
def test_a_published_value_is_read_back(store: Store) -> None:
    """Another client does not read the value and description that were published."""
    moment = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    commit = store.publish("mena", {"regime": "calm"}, id="r1", ts=moment, labels={"trigger": "cron"})
    snap = another(store).read_latest("mena")
    assert snap is not None
    assert snap.value == {"regime": "calm"}
    assert snap.raw == b'{"regime":"calm"}'
    assert (snap.id, snap.ts, snap.labels) == ("r1", 1_767_323_045_678, {"trigger": "cron"})
    assert (snap.version, snap.etag, snap.sha256) == (1, commit.etag, commit.sha256)
    assert commit == Commit(
        dataset="mena",
        version=1,
        etag=snap.etag,
        id="r1",
        ts=snap.ts,
        sha256=snap.sha256,
        size=17,
        created=True,
        is_latest=True,
    )


@pytest.mark.every_store
def test_versions_are_dense_and_history_is_complete(store: Store) -> None:
    """A publish has no row, or a version is missing, before or after pages are sealed."""
    for number in range(1, 101):
        assert store.publish("mena", number).version == number
    assert versions(another(store)) == list(range(100, 0, -1))
    status = store.status("mena")
    assert status is not None
    assert (status.count, status.version, status.latest.version) == (100, 100, 100)


def test_datasets_do_not_mix(store: Store) -> None:
    """Publishes to one dataset change another one whose name begins with the same letters."""
    for name in ("mena", "mena/2", "mena-2"):
        store.publish(name, name)
    for name in ("mena", "mena/2", "mena-2"):
        snap = another(store).read_latest(name)
        assert snap is not None
        assert (snap.value, snap.version) == (name, 1)
    assert store.datasets() == ["mena", "mena-2", "mena/2"]


def test_ids_are_made_in_the_order_of_time(store: Store) -> None:
    """Generated ids do not sort by their time, or one is generated twice."""
    ids = [store.publish("mena", 1).id for _ in range(5)]
    assert len(set(ids)) == 5
    assert all(identifier[14] == "7" for identifier in ids)
    assert [identifier[:13] for identifier in ids] == sorted(identifier[:13] for identifier in ids)


def test_an_older_snapshot_leaves_latest_alone(store: Store) -> None:
    """A slow producer that finishes last moves the latest back in time."""
    store.publish("mena", "new", ts=at(2000))
    late = store.publish("mena", "old", ts=at(1000))
    assert not late.is_latest
    snap = store.read_latest("mena")
    assert snap is not None
    assert snap.value == "new"
    assert versions(store) == [2, 1]
    assert store.publish("mena", "equal", ts=at(2000)).is_latest


def test_without_a_ts_the_last_publish_is_the_latest(store: Store) -> None:
    """Readers never see the publish of a producer whose clock is behind."""
    ahead = store.publish("mena", "ahead", ts=soon())
    commit = store.publish("mena", "now")
    assert commit.is_latest
    assert commit.ts == ahead.ts


def test_publishing_an_id_again_is_idempotent(store: Store) -> None:
    """A cron job that retries after a crash with the same id publishes twice."""
    first = store.publish("mena", {"a": 1}, id="run-1")
    store.publish("mena", {"b": 1})
    for client in (store, another(store)):
        again = client.publish("mena", {"a": 1}, id="run-1")
        assert (again.version, again.id, again.ts, again.created) == (1, "run-1", first.ts, False)
        assert not again.is_latest
    assert versions(store) == [2, 1]


def test_publishing_an_id_again_is_idempotent_at_any_depth(store: Store) -> None:
    """An id whose row was sealed into a page long ago is published twice."""
    store.publish("mena", "first", id="run-1", ts=at(1))
    for number in range(100):
        store.publish("mena", number)
    again = another(store).publish("mena", "first", id="run-1")
    assert (again.version, again.created) == (1, False)
    with pytest.raises(IdConflict, match="run-1"):
        store.publish("mena", "other", id="run-1")
    assert len(versions(store)) == 101


@pytest.mark.every_store
@pytest.mark.parametrize("change", [{"value": 2}, {"labels": {"a": "b"}}, {"ts": at(7)}])
def test_an_id_keeps_its_content(store: Store, change: dict[str, Any]) -> None:
    """Another payload, time or label under a committed id replaces the first."""
    given: dict[str, Any] = {"value": 1, "labels": {}, "ts": at(5)}
    store.publish("mena", **given, id="x")
    for client in (store, another(store)):
        with pytest.raises(IdConflict, match=r"dataset 'mena': id 'x' is committed already \(version 1\)"):
            client.publish("mena", **{**given, **change}, id="x")
    assert versions(store) == [1]


def test_dedupe_returns_the_first_commit(store: Store) -> None:
    """Two schedulers that run for the same hour publish twice."""
    first = store.publish("mena", 1, dedupe_key="6h:100")
    second = store.publish("mena", 2, dedupe_key="6h:101")
    for client in (store, another(store)):
        again = client.publish("mena", "different", dedupe_key="6h:100")
        assert (again.version, again.id, again.created) == (1, first.id, False)
    assert (second.version, second.created) == (2, True)
    assert versions(store) == [2, 1]


def test_dedupe_reaches_at_least_the_last_32_commits(store: Store) -> None:
    """A dedupe key of the last 32 commits is not found, in the tail or in a page."""
    for number in range(1, 49):
        store.publish("mena", number, dedupe_key=f"k:{number}")
        oldest = max(1, number - 31)
        again = store.publish("mena", "again", dedupe_key=f"k:{oldest}")
        assert (again.version, again.created) == (oldest, False)
    for number in range(17, 49):
        for client in (store, another(store)):
            assert client.publish("mena", "again", dedupe_key=f"k:{number}").version == number
    assert len(versions(store)) == 48


def test_dedupe_reaches_as_far_among_commits_without_a_key(store: Store) -> None:
    """Only some commits have a dedupe key, or pins take versions, and a key is found less far back."""
    store.publish("mena", 0, id="first")
    first = store.publish("mena", 1, dedupe_key="6h:100")
    for number in range(31):
        if number % 5 == 0:
            store.pin("mena", id="first")
            store.unpin("mena")
        store.publish("mena", number)
    again = another(store).publish("mena", "again", dedupe_key="6h:100")
    assert (again.version, again.id, again.created) == (first.version, first.id, False)


def test_retention_takes_no_dedupe_key_and_no_id_of_the_last_32_commits(store: Store) -> None:
    """With a history of one snapshot, a job that runs again an hour later publishes twice."""
    client, _ = meddled(store, retention=Retention(max_count=1))
    for number in range(1, 61):
        client.publish("mena", number, id=f"run-{number}", dedupe_key=f"k:{number}")
    client.prune("mena")
    assert versions(store) == [60]
    for number in range(29, 61):
        for found in (
            client.publish("mena", "again", dedupe_key=f"k:{number}"),
            client.publish("mena", number, id=f"run-{number}"),
        ):
            assert (found.version, found.id, found.created) == (number, f"run-{number}", False)
        with pytest.raises(IdConflict):
            client.publish("mena", "other", id=f"run-{number}")


def asked(meddler: Meddler, since: int) -> list[type[Any]]:
    """The commands that were sent, without those that write."""
    writes = (Stage, Swap, Register)
    sent = [command for batch in meddler.batches[since:] for command in batch]
    return [type(command) for command in sent if not isinstance(command, writes)]


def test_a_new_dedupe_key_reads_no_page(store: Store) -> None:
    """A publish with a new dedupe key looks for it in pages, and takes longer the deeper the log is."""
    for number in range(100):
        store.publish("mena", number, dedupe_key=f"k:{number}")
    client, meddler = meddled(store)
    assert client.publish("mena", "cold", dedupe_key="cold").created
    assert asked(meddler, 0) == [Get], "of the manifest"
    for number in range(20):
        batch = len(meddler.batches)
        assert client.publish("mena", number, dedupe_key=f"warm:{number}").created
        assert len(meddler.batches) == batch + 1
        assert asked(meddler, batch) == []


def test_a_dedupe_key_in_a_page_costs_one_page(store: Store) -> None:
    """A retry under the dedupe key of an older commit reads all pages until it finds the key."""
    for number in range(1, 101):
        store.publish("mena", number, dedupe_key=f"k:{number}")
    client, meddler = meddled(store)
    assert client.publish("mena", "again", dedupe_key="k:75").version == 75
    sent: list[Any] = [command for batch in meddler.batches for command in batch]
    assert [(type(each), each.key.rpartition(".")[2]) for each in sent] == [
        (Get, "swapstore:manifest:{mena}"),
        (Get, "73-80"),
    ]
    assert meddler.commits() == 0


def test_a_damaged_page_is_no_matter_to_a_new_dedupe_key(store: Store) -> None:
    """A producer with dedupe keys stands still because a page of the history is gone."""
    for number in range(1, 41):
        store.publish("mena", number, dedupe_key=f"k:{number}")
    status = store.status("mena")
    assert status is not None
    delete(store, f"swapstore:page:{{mena}}:{status.etag.split('.')[0]}.17-24")
    client = another(store)
    assert client.publish("mena", "new", dedupe_key="new").created
    with pytest.raises(PayloadMissing, match="page:.*17-24"):
        client.publish("mena", "again", dedupe_key="k:20")
    assert versions_from(store, 25) == list(range(41, 24, -1))


def versions_from(store: Store, first: int) -> list[int]:
    """The versions that can be read, down to one."""
    return [row.version for row in store.history("mena", limit=41 - first + 1)]


def test_dedupe_is_not_decided_from_the_cache(store: Store) -> None:
    """After the store was flushed, the next publish is taken for a duplicate."""
    client, meddler = meddled(store)
    client.publish("mena", 1, dedupe_key="k")
    wipe(store)
    assert client.publish("mena", 1, dedupe_key="k").created
    assert versions(store) == [1]
    assert meddler.commits() == 2


def wipe(store: Store) -> None:
    driver: Any = store._driver
    if hasattr(driver, "_pool"):
        with client_of(driver) as client:
            client.flushall()
        return
    with sqlite_connection(driver) as connection:
        connection.execute("DELETE FROM records")
        connection.execute("DELETE FROM members")


def test_after_a_flush_the_same_id_is_published_anew(store: Store) -> None:
    """A retry after a flush is reported as committed or missing, and not published."""
    store.publish("mena", 1, id="run-1")
    wipe(store)
    again = store.publish("mena", 1, id="run-1")
    assert (again.version, again.created) == (1, True)
    assert versions(store) == [1]


@pytest.mark.every_store
def test_after_a_flush_a_producer_goes_on(store: Store) -> None:
    """A producer with a warm cache cannot publish after FLUSHALL."""
    before = store.publish("mena", 1)
    store.publish("mena", 2)
    wipe(store)
    after = store.publish("mena", 3)
    assert after.version == 1
    assert after.etag.split(".")[0] != before.etag.split(".")[0]
    assert store.datasets() == ["mena"]
    snap = another(store).read_latest("mena")
    assert snap is not None
    assert snap.value == 3


def test_a_retry_of_an_old_id_is_a_success_whatever_else_was_asked(store: Store) -> None:
    """A retry of a committed id fails because of expected_version or validate."""
    store.publish("mena", 1, id="old", expected_version=0)
    for number in range(70):
        store.publish("mena", number)
    again = another(store).publish("mena", 1, id="old", expected_version=0, validate=lambda _c, _p: "no")
    assert (again.version, again.created) == (1, False)
    with pytest.raises(IdConflict):
        another(store).publish("mena", 2, id="old", expected_version=0)


def test_a_pinned_dataset_says_why_expected_version_fails(store: Store) -> None:
    """The error does not say that a pin is the reason, and the caller retries in vain."""
    first = store.publish("mena", 1)
    store.publish("mena", 2)
    store.pin("mena", id=first.id)
    with pytest.raises(Conflict, match="readers are served version 1, which is pinned"):
        store.publish("mena", 3, expected_version=1)


class Name(str, enum.Enum):  # noqa: UP042 - the older way is what is tested
    MENA = "mena"
    RUN = "run-1"


def test_names_that_are_members_of_an_enum_are_plain_names(store: Store) -> None:
    """`Region.MENA` and "mena" are two datasets."""
    store.publish(Name.MENA, 1, id=Name.RUN, labels={Name.RUN: Name.MENA}, dedupe_key=Name.RUN)
    snap = another(store).read_latest("mena")
    assert snap is not None
    assert (snap.id, snap.labels) == ("run-1", {"run-1": "mena"})
    assert store.datasets() == ["mena"]
    assert store.publish("mena", 2, dedupe_key="run-1").created is False


def test_a_name_that_could_not_be_listed_is_listed_by_the_next_publish(store: Store) -> None:
    """A refused update of the list fails the publish, or the name is never listed."""
    client, meddler = meddled(store)
    refused = Failed(StoreFull("no room for the name"))
    meddler.replies(1, lambda replies: [refused, *replies[1:]])
    client.publish("mena", 1)
    client.publish("mena", 2)
    client.publish("mena", 3)
    listed = [any(isinstance(command, Register) for command in batch) for batch in meddler.batches]
    assert listed == [False, True, True, False]


def test_expected_version_holds_or_conflicts(store: Store) -> None:
    """A second writer that did not see the first one's version overwrites its change."""
    with pytest.raises(Conflict, match="nothing is published"):
        store.publish("mena", 1, expected_version=1)
    first = store.publish("mena", 1, expected_version=0)
    rival = another(store)
    rival.read_latest("mena")
    second = store.publish("mena", 2, expected_version=first.version)
    for client in (rival, store):
        for stale in (0, first.version, 99):
            with pytest.raises(Conflict, match="dataset 'mena': expected_version") as caught:
                client.publish("mena", 3, expected_version=stale)
            assert caught.value.current_version == second.version
    assert versions(store) == [2, 1]


def test_expected_version_survives_what_does_not_move_the_data(store: Store) -> None:
    """A confirmation or a backfill is a conflict, or a rollback is none."""
    first = store.publish("mena", 1, ts=at(1000))
    store.confirm("mena")
    second = store.publish("mena", 2, ts=at(2000), expected_version=first.version)
    backfill = store.publish("mena", 0, ts=at(500))
    assert not backfill.is_latest
    assert store.publish("mena", 3, ts=at(1500), expected_version=backfill.version).version == 5
    store.rollback("mena", id=first.id)
    with pytest.raises(Conflict):
        store.publish("mena", 4, expected_version=second.version)
    assert store.publish("mena", 4, expected_version=first.version).is_latest


def test_validate_sees_candidate_and_previous(store: Store) -> None:
    """A validator cannot compare the candidate with the last good version."""
    seen: list[tuple[Candidate, Snapshot | None]] = []

    def validate(candidate: Candidate, previous: Snapshot | None) -> None:
        seen.append((candidate, previous))

    store.publish("mena", [1], validate=validate, id="a", labels={"x": "y"})
    store.publish("mena", [1, 2], validate=validate)
    (first, nothing), (second, previous) = seen
    assert (first.id, first.value, first.labels, nothing) == ("a", [1], {"x": "y"}, None)
    assert previous is not None
    assert (second.value, previous.value, previous.version) == ([1, 2], [1], 1)


def test_a_rejected_candidate_leaves_the_last_good_version(store: Store) -> None:
    """A half-empty result of a broken upstream is published or staged."""
    store.publish("mena", [1, 2, 3])
    client, meddler = meddled(store)

    def shrinks(candidate: Candidate, previous: Snapshot | None) -> str | None:
        return "shrank" if previous and len(candidate.value) < len(previous.value) else None

    def raises(candidate: Candidate, previous: Snapshot | None) -> None:
        raise ValueError("no regions")

    with pytest.raises(Rejected, match="dataset 'mena': .*shrank"):
        client.publish("mena", [], validate=shrinks)
    with pytest.raises(Rejected, match="ValueError: no regions"):
        client.publish("mena", [], validate=raises)
    with pytest.raises(InvalidInput, match="return None to accept"):
        client.publish("mena", [], validate=lambda _candidate, _previous: False)  # type: ignore[arg-type, return-value]
    assert meddler.commits() == 0
    assert versions(store) == [1]


def test_validate_is_not_held_against_a_stale_previous(store: Store) -> None:
    """A producer with an old cache refuses a candidate that is good after the current version."""
    store.publish("mena", 10)
    client = another(store)
    client.read_latest("mena")
    store.publish("mena", 1)

    def must_grow(candidate: Candidate, previous: Snapshot | None) -> str | None:
        return "shrank" if previous and candidate.value < previous.value else None

    assert client.publish("mena", 5, validate=must_grow).version == 3


@pytest.mark.every_store
def test_max_payload(store: Store) -> None:
    """A payload over the limit is sent, or the error lacks its size or the limit."""
    client, meddler = meddled(store, policy=Policy(max_payload_bytes=10))
    client.publish("mena", b"x" * 10, codec="bytes")
    sent = len(meddler.batches)
    with pytest.raises(PayloadTooLarge, match="dataset 'mena': .*11 bytes"):
        client.publish("mena", b"x" * 11, codec="bytes")
    assert len(meddler.batches) == sent


@pytest.mark.parametrize(
    "arguments",
    [
        {"dataset": "bad name"},
        {"dataset": ""},
        {"id": "bad id"},
        {"id": ""},
        {"ts": -1},
        {"ts": datetime(2026, 1, 1)},  # noqa: DTZ001 - naive on purpose
        {"labels": {"a": 1}},
        {"labels": {"a": "x" * 2000}},
        {"dedupe_key": "bad key"},
        {"expected_version": -1},
        {"expected_version": 10**5000 * -1},
        {"ts": 10**5000},
        {"labels": []},
        {"value": float("nan")},
        {"value": {1, 2}},
        {"value": b"bytes"},
        {"value": "\ud800"},
        {"codec": "pickle"},
        {"validate": "not a function"},
    ],
)
def test_bad_input_is_refused_before_anything_is_sent(store: Store, arguments: dict[str, Any]) -> None:
    """Bad input is found after something was staged, or cannot be caught as ValueError."""
    client, meddler = meddled(store)
    call: dict[str, Any] = {"dataset": "mena", "value": 1, **arguments}
    with pytest.raises(InvalidInput) as caught:
        client.publish(call.pop("dataset"), call.pop("value"), **call)
    assert isinstance(caught.value, ValueError)
    assert "dataset" in str(caught.value)
    assert meddler.batches == []


def test_changing_what_was_returned_changes_nothing(store: Store) -> None:
    """Labels or values that a caller alters change what is cached or published next."""
    labels = {"a": "1"}
    store.publish("mena", {"k": [1]}, labels=labels, id="x")
    labels["a"] = "changed"
    snap = store.read_latest("mena")
    status = store.status("mena")
    assert snap is not None
    assert status is not None
    for given in (snap.labels, next(store.history("mena")).labels, status.latest.labels):
        given["a"] = "changed"
    snap.value["k"].append(2)
    store.publish("mena", 2)
    again = another(store).read("mena", id="x")
    assert again is not None
    assert (again.labels, again.value) == ({"a": "1"}, {"k": [1]})
