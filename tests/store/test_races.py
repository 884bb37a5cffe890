"""Producers that lose races: how often each one sends, what it is told, and what it caches."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from swapstore import Store
from swapstore.commands import Get, Replace, Stage, Swap, Unstaged
from swapstore.errors import (
    Conflict,
    Contended,
)
from swapstore.testing import SimulatedStore
from tests.store.test_damage import MANIFEST
from tests.support.drivers import another, meddled
from tests.support.rivals import PATIENT, Rivals, known_to, warm
from tests.support.times import at


@pytest.mark.parametrize("rivals", [1, 2, 3])
def test_a_producer_gets_through_many_rivals(store: Store, rivals: int) -> None:
    """Each lost race costs more than one commit and one look, so that crowds slow themselves down."""
    store.publish("mena", 0, id="before")
    client, meddler, batch = warm(store)
    Rivals(store, meddler, rivals)
    commit = client.publish("mena", "mine", id="mine")
    assert (commit.version, commit.created) == (rivals + 2, True)
    assert meddler.commits() == 1 + rivals
    assert len(meddler.batches) - batch == 1 + rivals + (rivals - 1)


def test_a_version_is_created_by_one_producer() -> None:
    """Two producers of one id and content in one millisecond are both told that they created the version."""
    simulated = SimulatedStore()
    slow, fast = simulated.connect(), simulated.connect()
    slow.publish("mena", 0, id="before")
    assert fast.publish("mena", 1, id="same").created
    fast.publish("mena", 2, id="after")
    late = slow.publish("mena", 1, id="same")
    assert (late.version, late.created) == (2, False)


@pytest.mark.every_store
def test_records_that_keep_being_taken_over_are_contended(store: Store) -> None:
    """Two producers that race for one id never end, or are not told why and what to do."""
    store.publish("mena", 0)
    client, meddler = meddled(store, policy=msgspec.structs.replace(PATIENT, commit_attempts=3))
    list(client.history("mena", limit=1))

    def take_over(replies: list[Any]) -> list[Any]:
        return [True] * (len(replies) - 1) + [Unstaged("swapstore:id:{mena}:shared", present=True)]

    for number in range(len(meddler.batches), 100):
        meddler.replies(number, take_over)
    with pytest.raises(
        Contended, match="taking over the staged records of version 2; nothing was published. Let"
    ):
        client.publish("mena", 1, id="shared")


def test_the_manifest_of_a_conflict_is_cached(store: Store) -> None:
    """A refused producer that reads from its cache does not see what refused it, or crashes."""
    commit = store.publish("mena", 1)
    client, meddler, batch = warm(store)
    meddler.before(batch, lambda: store.publish("mena", 2))
    with pytest.raises(Conflict):
        client.publish("mena", 3, expected_version=commit.version)
    assert known_to(client).version == 2
    snap = client.read_latest("mena", max_staleness=60)
    assert snap is not None
    assert snap.value == 2


def test_a_payload_of_several_lines_is_not_sent_again(store: Store) -> None:
    """A payload that contains newlines is sent again after each conflict."""
    store.publish("mena", b"0", id="before", codec="bytes")
    client, meddler, batch = warm(store)
    Rivals(store, meddler, 1)
    client.publish("mena", b"a\nb\nc\n", id="mine", ts=at(5), codec="bytes")
    anew, swap = meddler.batches[batch + 1]
    assert isinstance(swap, Swap)
    assert isinstance(anew, Replace)  # the ts record: it states the version that is committed
    assert ":ts:" in anew.key
    snap = another(store).read("mena", id="mine")
    assert snap is not None
    assert snap.raw == b"a\nb\nc\n"


def test_a_conflict_reads_no_pages(store: Store) -> None:
    """A producer that lost to many others reads pages, although the conflict tells it everything."""
    store.publish("mena", 0, id="before")
    client, meddler, batch = warm(store)

    def overtake() -> None:
        for number in range(70):
            store.publish("mena", number)

    meddler.before(batch, overtake)
    assert client.publish("mena", "mine", id="mine").version == 72
    assert len(meddler.batches) == batch + 2


@pytest.mark.every_store
def test_a_cold_producer_reads_the_manifest_once(store: Store) -> None:
    """A retry by a new process reads a manifest twice that it has just read."""
    store.publish("mena", 1, id="job", ts=at(1))
    client, meddler = meddled(store)
    assert client.publish("mena", 1, id="job", ts=at(1)).created is False
    assert [command for batch in meddler.batches for command in batch].count(Get(MANIFEST)) == 1


def test_a_commit_carries_the_ttls_of_the_policy(store: Store) -> None:
    """A driver sets wrong times to live, and records expire under readers."""
    policy = msgspec.structs.replace(PATIENT, staging_ttl_ms=61_000, reader_grace_ms=62_000)
    client, meddler = meddled(store, policy=policy)
    client.publish("mena", 1)
    (commit,) = (c for batch in meddler.batches for c in batch if isinstance(c, Swap))
    assert (commit.staging_ttl_ms, commit.grace_ms) == (61_000, 62_000)
    assert {c.ttl_ms for batch in meddler.batches for c in batch if isinstance(c, Stage)} == {61_000}
