"""What no other test noticed when it was broken on purpose: see docs/explanation/mutants.md."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from swapstore import Store
from swapstore.commands import Commit, Get, Stage, Unstaged
from swapstore.errors import (
    Conflict,
    Contended,
    InvalidInput,
    OutcomeUnknown,
    ReplyLost,
    Unavailable,
)
from swapstore.models import Candidate
from tests.store.test_damage import MANIFEST, alter
from tests.support.crowd import PATIENT, Crowd, known_to, warm
from tests.support.drivers import another, lose, meddled
from tests.support.fixed import TickingClock


@pytest.mark.parametrize("rivals", [1, 2, 3])
def test_a_producer_gets_through_a_crowd(store: Store, rivals: int) -> None:
    """Each lost race costs one commit and, after the first, a fresh look: crowds do not feed themselves."""
    store.publish("mena", 0, id="before")
    client, meddler, batch = warm(store)
    Crowd(store, meddler, rivals)
    commit = client.publish("mena", "mine", id="mine")
    assert (commit.version, commit.created) == (rivals + 2, True)
    assert meddler.commits() == 1 + rivals
    assert len(meddler.batches) - batch == 1 + rivals + (rivals - 1)


@pytest.mark.every_store
def test_a_cold_producer_reads_the_manifest_once(store: Store) -> None:
    """What was read just now is not memory: a retry by another process needs no second look."""
    store.publish("mena", 1, id="job", ts=1)
    client, meddler = meddled(store)
    assert client.publish("mena", 1, id="job", ts=1).created is False
    assert [command for batch in meddler.batches for command in batch].count(Get(MANIFEST)) == 1


def test_a_payload_of_several_lines_is_not_sent_again(store: Store) -> None:
    """The header ends at the first newline; taken for more, each conflict would send the payload again."""
    store.publish("mena", b"0", id="before", codec="bytes")
    client, meddler, batch = warm(store)
    Crowd(store, meddler, 1)
    client.publish("mena", b"a\nb\nc\n", id="mine", ts=5, codec="bytes")
    assert [type(command) for command in meddler.batches[batch + 1]] == [Commit]
    snap = another(store).read("mena", id="mine")
    assert snap is not None
    assert snap.raw == b"a\nb\nc\n"


def test_a_retry_on_an_empty_dataset_is_a_conflict(store: Store) -> None:
    """`expected_version` and an id of one's own on a flushed store: a clear refusal, not a crash."""
    with pytest.raises(
        Conflict, match=r"expected_version=5 does not hold: .* version 0 \(nothing is published\); read"
    ) as caught:
        store.publish("mena", 1, id="mine", expected_version=5)
    assert caught.value.current_version == 0
    store.publish("mena", 1)
    with pytest.raises(Conflict, match="expected_version=5 does not hold: .* is version 1; read it again"):
        store.publish("mena", 1, id="mine", expected_version=5)


def test_validate_sees_the_dataset_and_the_time_that_will_be_published(store: Store) -> None:
    """A validator that compares times would judge another time than the one readers get."""
    store.publish("mena", 1, ts=10**14)
    seen: list[Candidate] = []
    commit = store.publish("mena", 2, validate=lambda candidate, _: seen.append(candidate))
    assert [(each.dataset, each.ts) for each in seen] == [("mena", commit.ts)]
    assert commit.ts == 10**14


def test_validate_that_answers_with_something_else_is_told_what_it_said(store: Store) -> None:
    """A validator that returns True for `fine` is a mistake that its author must recognise."""
    with pytest.raises(InvalidInput, match="validate returned bool; return None to accept"):
        store.publish("mena", 1, validate=lambda *_: True)  # type: ignore[arg-type]


@pytest.mark.parametrize(("losses", "waits"), [(1, 0), (2, 1), (3, 2)])
def test_the_first_retry_of_a_lost_commit_does_not_wait(store: Store, losses: int, waits: int) -> None:
    """One lost reply costs no pause; a store that keeps losing them is given time."""
    waited: list[float] = []

    class Watched(TickingClock):
        def sleep(self, seconds: float) -> None:
            waited.append(seconds)

    store.publish("mena", 0, id="before")
    client, meddler = meddled(store, clock=Watched())
    client.read_latest("mena")
    batch = len(meddler.batches)
    for loss in range(losses):
        meddler.before(batch + 2 * loss, lose)
    assert client.publish("mena", "mine", id="mine").created
    assert len(waited) == waits


def test_an_outcome_unknown_shows_the_loss_that_began_it(store: Store) -> None:
    """A traceback with the second failure alone would send people looking in the wrong place."""
    store.publish("mena", 0)
    client, meddler, batch = warm(store)

    def unreachable() -> None:
        raise Unavailable("cannot connect, on purpose")

    meddler.before(batch, lose)
    meddler.before(batch + 1, unreachable)
    with pytest.raises(OutcomeUnknown, match="cannot connect, on purpose") as caught:
        client.publish("mena", 1)
    assert isinstance(caught.value.__cause__, ReplyLost)


@pytest.mark.every_store
def test_records_that_keep_being_taken_over_are_contended(store: Store) -> None:
    """Two producers that fight for one id: the one that gives up is told why and what to do."""
    store.publish("mena", 0)
    client, meddler = meddled(store, policy=attrs.evolve(PATIENT, commit_attempts=3))
    client.read_latest("mena")

    def take_over(replies: list[Any]) -> list[Any]:
        return [True] * (len(replies) - 1) + [Unstaged("swapstore:id:{mena}:shared", present=True)]

    for number in range(len(meddler.batches), 100):
        meddler.replies(number, take_over)
    with pytest.raises(Contended, match="taking over the staged records of version 2; let producers"):
        client.publish("mena", 1, id="shared")


def test_what_a_conflict_showed_is_remembered(store: Store) -> None:
    """A refused producer that reads on from memory must see what refused it, and must not crash."""
    commit = store.publish("mena", 1)
    client, meddler, batch = warm(store)
    meddler.before(batch, lambda: store.publish("mena", 2))
    with pytest.raises(Conflict):
        client.publish("mena", 3, expected_version=commit.version)
    assert known_to(client).version == 2
    snap = client.read_latest("mena", max_staleness=60)
    assert snap is not None
    assert snap.value == 2


def test_after_a_restore_a_producer_remembers_its_own_publish(store: Store) -> None:
    """The store went back to a backup: reading from memory must not show what the backup does not have."""
    store.publish("mena", 1)
    (backup,) = store._driver.execute([Get(MANIFEST)])
    for number in (2, 3, 4):
        store.publish("mena", number)
    client, _, _ = warm(store)
    alter(store, MANIFEST, lambda _: backup)
    assert client.publish("mena", "mine").version == 2
    snap = client.read_latest("mena", max_staleness=60)
    assert snap is not None
    assert (snap.value, snap.version) == ("mine", 2)


@pytest.mark.every_store
def test_a_commit_takes_the_live_view_away(store: Store) -> None:
    """An outdated view is hidden by its etag, but it would go on taking room for as long as its TTL."""
    store.publish("mena", 1)
    store.put_live("mena", "x" * 1000, ttl=3600)
    store.publish("mena", 2)
    assert store._driver.execute([Get("swapstore:live:{mena}")]) == [None]


def test_a_commit_carries_the_bounds_of_the_policy(store: Store) -> None:
    """A driver sets times to live by them: wrong ones would let records expire under readers."""
    policy = attrs.evolve(PATIENT, staging_ttl_ms=61_000, reader_grace_ms=62_000)
    client, meddler = meddled(store, policy=policy)
    client.publish("mena", 1)
    (commit,) = (c for batch in meddler.batches for c in batch if isinstance(c, Commit))
    assert (commit.staging_ttl_ms, commit.grace_ms) == (61_000, 62_000)
    assert {c.ttl_ms for batch in meddler.batches for c in batch if isinstance(c, Stage)} == {61_000}
