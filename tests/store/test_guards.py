"""`expected_version`, `validate` and `dedupe_key`, also when a race is lost or a producer dies."""

from __future__ import annotations

import pytest

from swapstore import Store
from swapstore.errors import (
    Conflict,
    InvalidInput,
    Rejected,
)
from swapstore.models import Candidate
from swapstore.testing import Crash, failing_at, faulty
from tests.support import invariants
from tests.support.drivers import another, meddled


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


# --- after a lost race ------------------------------------------------------------------------------


def overtaken(store: Store) -> Store:
    """A producer that knows version 1, whose next batch arrives behind another's version 2."""
    store.publish("mena", 10, id="one")
    client, meddler = meddled(store)
    client.read_latest("mena")
    meddler.before(len(meddler.batches), lambda: store.publish("mena", 20, id="two"))
    return client


def test_expected_version_is_checked_again_after_a_lost_race(store: Store) -> None:
    """Read, modify, publish: two at once, and the second would undo what the first did."""
    client = overtaken(store)
    with pytest.raises(Conflict) as caught:
        client.publish("mena", 11, id="mine", expected_version=1)
    assert caught.value.current_version == 2
    assert [row.id for row in invariants.check(store)] == ["one", "two"]


@pytest.mark.every_store
def test_validate_is_asked_again_after_a_lost_race(store: Store) -> None:
    """A candidate that is good after version 1 is not published after a version 2 that nobody compared."""
    client = overtaken(store)
    with pytest.raises(Rejected, match="shrank"):
        client.publish(
            "mena",
            15,
            validate=lambda candidate, previous: (
                "shrank" if previous is not None and candidate.value < previous.value else None
            ),
        )
    assert [row.id for row in invariants.check(store)] == ["one", "two"]


def test_a_publish_that_died_does_not_block_its_dedupe_key(store: Store) -> None:
    """A cron job dies in the middle; its retry, with the same dedupe key, must publish."""
    store.publish("mena", "before")
    for cut in range(5):
        client, _ = faulty(store, failing_at(cut))
        with pytest.raises(Crash):
            client.publish("mena", cut, dedupe_key=f"hour:{cut}")
        assert another(store).publish("mena", cut, dedupe_key=f"hour:{cut}").created
    assert len(invariants.check(store)) == 6
