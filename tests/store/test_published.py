"""`published`: whether a run is committed already, asked before it computes."""

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest

import swapstore
from swapstore import InvalidInput, Retention, Store
from swapstore.commands import Get, Peek
from swapstore.testing import SimulatedStore
from tests.support import invariants
from tests.support.drivers import another, lose, meddled
from tests.support.times import at


@pytest.mark.every_store
def test_a_dedupe_key_is_published_once_its_commit_is(store: Store) -> None:
    """A job computes what is published already, or skips what is not."""
    assert store.published("mena", dedupe_key="hour-1") is None
    commit = store.publish("mena", 1, dedupe_key="hour-1", labels={"trigger": "hourly"})
    for client in (store, another(store)):
        assert client.published("mena", dedupe_key="hour-1") == attrs.evolve(commit, created=False)
        assert client.published("mena", dedupe_key="hour-2") is None
        assert client.published("europe", dedupe_key="hour-1") is None
    last = another(store).publish("mena", 2, dedupe_key="hour-2")
    found = store.published("mena", dedupe_key="hour-1")
    assert found is not None
    assert (found.version, found.is_latest, found.etag) == (1, False, last.etag)


@pytest.mark.every_store
def test_it_answers_as_a_publish_would(store: Store) -> None:
    """A key is found less far back than `publish` finds it, in the tail, in a page, or after a retention."""
    client, _ = meddled(store, retention=Retention(max_count=2))
    for number in range(60):
        client.publish("mena", number, dedupe_key=f"k-{number}")
    found = {number: another(store).published("mena", dedupe_key=f"k-{number}") for number in range(60)}
    assert all(found[number] is not None for number in range(28, 60)), "the last 32 commits"
    for number in (27, 28, 40, 59, *range(3)):
        commit = another(store).publish("mena", "again", dedupe_key=f"k-{number}")
        expected = found[number]
        if expected is None:
            assert commit.created
        else:
            assert (commit.id, commit.version, commit.created) == (expected.id, expected.version, False)


def test_it_writes_nothing_and_reads_no_payload(store: Store) -> None:
    """To ask costs as much as to publish: the payload, or several round trips."""
    for number in range(40):
        store.publish("mena", number, dedupe_key=f"k-{number}")
    before = invariants.contents(store)
    client, meddler = meddled(store)
    for key in ("k-39", "k-39", "new"):
        client.published("mena", dedupe_key=key)
    assert [[type(command) for command in batch] for batch in meddler.batches] == [[Get], [Peek], [Peek]]
    assert client.published("mena", dedupe_key="k-15") is not None
    assert [getattr(each, "key", "").rpartition(".")[2] for each in meddler.batches[-1]] == ["9-16"]
    assert invariants.contents(store) == before
    trips = len(meddler.batches)
    assert client.publish("mena", "computed", dedupe_key="new").created
    assert len(meddler.batches) == trips + 1, "the publish that follows is a warm one"


def test_what_others_published_since_is_seen(store: Store) -> None:
    """A job relies on what it remembers, and computes what another one has published."""
    client, _ = meddled(store)
    client.publish("mena", 1)
    assert client.published("mena", dedupe_key="hour-1") is None
    another(store).publish("mena", 2, dedupe_key="hour-1")
    assert client.published("mena", dedupe_key="hour-1") is not None


def test_a_lost_reply_is_asked_for_again(store: Store) -> None:
    """A job computes again because its question had no answer."""
    store.publish("mena", 1, dedupe_key="hour-1")
    client, meddler = meddled(store)
    meddler.after(0, lose)
    assert client.published("mena", dedupe_key="hour-1") is not None


def test_the_newest_of_two_commits_with_one_key_counts() -> None:
    """In a copy, where a key can come twice, a run is answered with an older one."""
    source, target = SimulatedStore().connect(), SimulatedStore().connect()
    source.publish("mena", 1, id="first", dedupe_key="k")
    for number in range(80):
        source.publish("mena", "backfilled", ts=at(number), dedupe_key=f"k-{number}")
    assert source.publish("mena", 2, id="second", dedupe_key="k").created
    source.prune("mena", retention=Retention(max_age=timedelta(days=1)))
    swapstore.copy(source, target)
    assert [row.id for row in target.history("mena")] == ["second", "first"]
    for number in range(20):
        found = target.published("mena", dedupe_key="k")
        assert found is not None
        assert found.id == "second"
        target.publish("mena", number)
    assert target.publish("mena", 3, dedupe_key="k").id == "second"


def test_a_key_that_is_not_allowed_is_refused(store: Store) -> None:
    """A key that no publish can have looks like a run that is not published yet, for ever."""
    for wrong in ("a b", "", 7, None):
        with pytest.raises(InvalidInput, match="dataset 'mena': dedupe_key"):
            store.published("mena", dedupe_key=wrong)  # type: ignore[arg-type]
