"""An id names one content: payload, codec, labels and `ts`. A retry with the same content is that commit."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

import swapstore
from swapstore import IdConflict, Rejected, Retention, Store, TooOld
from swapstore.commands import Write
from swapstore.format import manifest
from tests.support.drivers import meddled
from tests.support.times import at, soon

GIVEN: dict[str, Any] = {"value": b"[1]", "codec": "bytes", "labels": {"a": "b", "c": "d"}, "ts": at(5000)}
OTHERS: dict[str, dict[str, Any]] = {
    "another payload of the same size": {"value": b"[2]"},
    "a longer payload": {"value": b"[1] "},
    "the same bytes under another codec": {"value": [1], "codec": "json"},
    "another label": {"labels": {"a": "b", "c": "x"}},
    "the same labels under other names": {"labels": {"a": "b", "x": "d"}},
    "a label fewer": {"labels": {"a": "b"}},
    "a label more": {"labels": {**GIVEN["labels"], "e": "f"}},
    "no labels": {"labels": None},
    "a later ts": {"ts": at(5001)},
    "an earlier ts": {"ts": at(4999)},
    "a ts of 0": {"ts": at(0)},
}
SAME: dict[str, dict[str, Any]] = {
    "exactly the same": {},
    "no ts": {"ts": None},
    "labels in another order": {"labels": {"c": "d", "a": "b"}},
    "a bytearray": {"value": bytearray(b"[1]")},
    "another dedupe key": {"dedupe_key": "other"},
    "expected_version of then": {"expected_version": 0},
    "a validator that refuses": {"validate": lambda *_: "no"},
}


def in_the_tail(store: Store) -> None:
    store.publish("mena", "later", ts=at(6000))


def in_a_page(store: Store, later: int = 70) -> None:
    for number in range(later):
        store.publish("mena", number, ts=at(6000 + number))


def hidden(store: Store) -> None:
    in_a_page(store, manifest.recent() - 2)  # it is one of those that never leave the log
    bounded = meddled(store, retention=Retention(max_count=10))[0]
    bounded.publish("mena", "hides", ts=at(7000))
    assert list(store.history("mena"))[-1].version > 1


def pinned(store: Store) -> None:
    store.pin("mena", id="x")
    in_a_page(store)
    meddled(store, retention=Retention(max_count=1))[0].prune("mena")


PLACES: list[Callable[[Store], None]] = [in_the_tail, in_a_page, hidden, pinned]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_other_content_under_a_committed_id_is_a_conflict(
    store: Store, place: Callable[[Store], None]
) -> None:
    """A retry with other content is acknowledged, and what it published is nowhere."""
    store.publish("mena", **GIVEN, id="x")
    place(store)
    for what, change in OTHERS.items():
        for client in (store, meddled(store)[0]):
            with pytest.raises(IdConflict, match="id 'x' is committed already"):
                pytest.fail(f"{what}: {client.publish('mena', **{**GIVEN, **change}, id='x')}")


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_the_same_content_under_a_committed_id_is_that_commit(
    store: Store, place: Callable[[Store], None]
) -> None:
    """A retry is refused, or published a second time."""
    first = store.publish("mena", **GIVEN, id="x")
    place(store)
    status = store.status("mena")
    for what, change in SAME.items():
        for client in (store, meddled(store)[0]):
            again = client.publish("mena", **{**GIVEN, **change}, id="x")
            assert not again.created, what
            assert not again.is_latest, what
            assert (again.version, again.id, again.ts, again.size, again.sha256) == (
                first.version, "x", 5000, first.size, first.sha256,
            ), what  # fmt: skip
            assert status is not None
            assert again.etag == status.etag, "the manifest that is stored now"
    assert store.status("mena") == status, "nothing was swapped"


def test_a_ts_of_zero_is_a_ts(store: Store) -> None:
    """A snapshot of 1970-01-01 gets the time of its publish."""
    commit = store.publish("mena", 1, id="x", ts=at(0))
    assert commit.ts == 0
    assert not store.publish("mena", 1, id="x", ts=at(0)).created
    with pytest.raises(IdConflict):
        store.publish("mena", 1, id="x", ts=at(1))


def test_a_default_ts_follows_the_latest_and_not_what_is_pinned(store: Store) -> None:
    """A publish without a ts, beside a pin, is not the latest."""
    store.publish("mena", 1, id="old", ts=at(1))
    far = soon()
    store.publish("mena", 2, ts=far)
    store.pin("mena", id="old")
    commit = store.publish("mena", 3)
    assert (commit.ts, commit.is_latest) == (far, True)


def test_the_last_commit_with_a_dedupe_key_is_returned_even_without_an_id(store: Store) -> None:
    """A dedupe key finds another commit than the one that has it, or its content is compared."""
    first = store.publish("mena", 1, dedupe_key="k", ts=at(1))
    others: Any = ((2, {}), (b"x", {"codec": "bytes"}), (1, {"labels": {"a": "b"}}), (1, {"ts": at(9)}))
    for value, given in others:
        again = store.publish("mena", value, dedupe_key="k", **given)
        assert (again.version, again.id, again.created) == (first.version, first.id, False)


def test_an_id_decides_before_a_dedupe_key(store: Store) -> None:
    """A publish of a committed id with other content passes, because another commit has its dedupe key."""
    store.publish("mena", 1, id="x")
    store.publish("mena", 2, dedupe_key="k")
    with pytest.raises(IdConflict):
        store.publish("mena", 3, id="x", dedupe_key="k")
    assert store.publish("mena", 1, id="x", dedupe_key="k").version == 1


def test_an_id_of_another_dataset_is_free(store: Store) -> None:
    """Two datasets that use the same run id cannot both be published."""
    store.publish("mena", 1, id="run")
    assert store.publish("europe", 2, id="run").created


def test_a_snapshot_that_retention_would_hide_is_still_its_own_retry(store: Store) -> None:
    """A retry of a committed snapshot is refused as too old."""
    old = Retention(max_count=1)
    client = meddled(store, retention=old)[0]
    client.publish("mena", 1, id="x", ts=at(10))
    client.publish("mena", 2, ts=at(20))
    assert client.publish("mena", 1, id="x", ts=at(10)).version == 1
    with pytest.raises((IdConflict, TooOld)):
        client.publish("mena", 3, id="x", ts=at(10))
    with pytest.raises(Rejected):
        client.publish("mena", 3, validate=lambda *_: "no")


def test_in_several_datasets_each_is_compared_with_its_own(store: Store) -> None:
    """One id for a whole run: the retry of a dataset is compared with the content of another."""
    store.publish_many({"mena": 1, "europe": 2}, id="run")
    again = store.publish_many({"mena": 1, "europe": 1, "asia": 3}, id="run")
    assert list(again.failures) == ["europe"]
    assert isinstance(again["europe"], IdConflict)
    assert [getattr(again[name], "created", None) for name in ("mena", "asia")] == [False, True]


def test_two_tasks_that_publish_one_id_agree(tmp_path: Any) -> None:
    """Two tasks of one store publish an id with two contents, and both are told that theirs is committed."""

    async def main() -> list[Any]:
        async with swapstore.aio.connect(f"sqlite:///{tmp_path}/a.db") as store:
            calls = [store.publish("mena", number // 2, id="x", ts=at(5)) for number in range(4)]
            found: list[Any] = await asyncio.gather(*calls, return_exceptions=True)
            return found

    first, second, third, fourth = asyncio.run(main())
    assert (first.created, second.created) == (True, False)
    assert isinstance(third, IdConflict)
    assert isinstance(fourth, IdConflict)


def test_what_a_validator_does_to_its_candidate_changes_nothing(store: Store) -> None:
    """A validator that removes a label for its own use publishes other labels than the caller gave."""

    def validate(candidate: swapstore.Candidate, _: swapstore.Snapshot | None) -> None:
        candidate.labels.clear()
        candidate.labels["by"] = "the validator"

    store.publish("mena", 1, id="x", labels={"a": "b"}, validate=validate)
    assert store.read("mena", id="x").labels == {"a": "b"}  # type: ignore[union-attr]
    assert not store.publish("mena", 1, id="x", labels={"a": "b"}).created


def test_a_conflict_tells_the_version_to_expect(store: Store) -> None:
    """A caller that decides again with the version of the error loses once more, after any pin."""
    first = store.publish("mena", 1)
    store.publish("mena", 2)
    store.pin("mena", id=first.id)
    with pytest.raises(swapstore.Conflict) as caught:
        store.publish("mena", 3, expected_version=1)
    assert caught.value.current_version == 2
    assert store.publish("mena", 3, expected_version=caught.value.current_version).created


def test_a_damaged_snapshot_is_not_acknowledged_again(store: Store) -> None:
    """A retry is told that its data is published, and nobody can read it."""
    store.publish("mena", 1, id="x")
    store._driver.execute([Write(store._context.keys.id("mena", "x"), b"damaged")])
    with pytest.raises(swapstore.Damaged):
        meddled(store)[0].publish("mena", 1, id="x")
