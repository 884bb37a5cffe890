"""`expected_version`, `validate` and `dedupe_key`, also after a lost race or the death of a producer."""

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
from tests.support.times import soon


def test_a_retry_on_an_empty_dataset_is_a_conflict(store: Store) -> None:
    """A retry with `expected_version` and an id on a flushed store crashes instead of a Conflict."""
    with pytest.raises(
        Conflict, match=r"expected_version=5 does not hold: .* version 0 \(nothing is published\); read"
    ) as caught:
        store.publish("mena", 1, id="mine", expected_version=5)
    assert caught.value.current_version == 0
    store.publish("mena", 1)
    with pytest.raises(Conflict, match="expected_version=5 does not hold: .* is version 1; read it again"):
        store.publish("mena", 1, id="mine", expected_version=5)


def test_validate_sees_the_dataset_and_the_time_that_will_be_published(store: Store) -> None:
    """A validator that compares times gets another time than the one that is published."""
    ts = soon()
    store.publish("mena", 1, ts=ts)
    seen: list[Candidate] = []
    commit = store.publish("mena", 2, validate=lambda candidate, _: seen.append(candidate))
    assert [(each.dataset, each.ts) for each in seen] == [("mena", commit.ts)]
    assert commit.ts == ts


def test_a_wrong_return_value_of_validate_is_named(store: Store) -> None:
    """The author of a validator that returns True for `fine` is not told of the mistake."""
    with pytest.raises(InvalidInput, match="validate returned bool; return None to accept"):
        store.publish("mena", 1, validate=lambda *_: True)  # type: ignore[arg-type]


# --- after a lost race ------------------------------------------------------------------------------


def overtaken(store: Store) -> Store:
    """A producer that knows version 1, whose next batch arrives after another's version 2."""
    store.publish("mena", 10, id="one")
    client, meddler = meddled(store)
    client.read_latest("mena")
    meddler.before(len(meddler.batches), lambda: store.publish("mena", 20, id="two"))
    return client


def test_expected_version_is_checked_again_after_a_lost_race(store: Store) -> None:
    """Of two concurrent read-modify-publish cycles, the second undoes the change of the first."""
    client = overtaken(store)
    with pytest.raises(Conflict) as caught:
        client.publish("mena", 11, id="mine", expected_version=1)
    assert caught.value.current_version == 2
    assert [row.id for row in invariants.check(store)] == ["one", "two"]


@pytest.mark.every_store
def test_validate_is_asked_again_after_a_lost_race(store: Store) -> None:
    """A candidate that was validated against version 1 is published after version 2."""
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
    """A retry with the same dedupe key cannot publish after the first attempt died."""
    store.publish("mena", "before")
    for cut in range(5):
        client, _ = faulty(store, failing_at(cut))
        with pytest.raises(Crash):
            client.publish("mena", cut, dedupe_key=f"hour:{cut}")
        assert another(store).publish("mena", cut, dedupe_key=f"hour:{cut}").created
    assert len(invariants.check(store)) == 6
