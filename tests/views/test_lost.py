"""What was published and is gone is believed, and told, unless somebody has dropped it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from swapstore.protocol.follow import FollowMany
from swapstore.protocol.view import Viewing
from swapstore.testing import SimulatedStore

LOST = "the store has nothing of it any more, and nobody has dropped it"


@pytest.fixture
def sim() -> SimulatedStore:
    return SimulatedStore()


def empty(sim: SimulatedStore) -> None:
    sim.keyspace.values.clear()
    sim.keyspace.sets.clear()


def delete_manifest(sim: SimulatedStore) -> None:
    sim.keyspace.values.pop(sim.connect()._context.keys.manifest("mena"))


def drop(sim: SimulatedStore) -> None:
    sim.connect().drop("mena")


GOING = pytest.mark.parametrize(
    ("go", "told"),
    [(empty, 1), (delete_manifest, 1), (drop, 0)],
    ids=["emptied", "manifest deleted", "dropped"],
)


@GOING
@pytest.mark.parametrize("names", [["mena"], None], ids=["named", "by prefix"])
def test_a_view_of_what_is_gone(
    names: list[str] | None,
    go: Callable[[SimulatedStore], None],
    told: int,
    sim: SimulatedStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A web service answers 404 because a cache was flushed, and its log has no line; or each drop alarms."""
    sim.connect().publish("mena", 1)
    sim.connect().publish("other", 1)
    reader = sim.connect()
    view = Viewing(reader._context, names or (), prefix=None if names else "me", poll_s=1)
    reader._run(view.begin())
    assert view.held["mena"] is not None
    go(sim)
    for _ in range(3):
        reader._run(view.look(None))
    assert view.held.get("mena") is None
    assert [LOST in record.message for record in caplog.records] == [True] * told


@GOING
def test_a_follower_of_what_is_gone(
    go: Callable[[SimulatedStore], None],
    told: int,
    sim: SimulatedStore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A consumer waits for ever for commits of a dataset that somebody has flushed, and no log says so."""
    sim.connect().publish("mena", 1)
    sim.connect().publish("other", 1)
    reader = sim.connect()
    follower = FollowMany(reader._context, {"mena": 0, "other": 0}, poll_s=1)
    reader._run(follower.step())
    assert len(reader._run(follower.look(None)).found) == 2
    go(sim)
    for _ in range(3):
        assert reader._run(follower.look(None)).found == []
    assert [LOST in record.message for record in caplog.records] == [True] * told


def test_what_comes_back_and_goes_again_is_told_again(
    sim: SimulatedStore, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the first of two losses is in the log."""
    reader = sim.connect()
    view = Viewing(reader._context, ["mena"], prefix=None, poll_s=1)
    follower = FollowMany(reader._context, {"mena": 0}, poll_s=1)
    for number in range(2):
        sim.connect().publish("mena", number)
        if number == 0:
            reader._run(view.begin())
            reader._run(follower.step())
        reader._run(view.look(None))
        reader._run(follower.look(None))
        empty(sim)
        reader._run(view.look(None))
        reader._run(follower.look(None))
        assert len(caplog.records) == 2 * (number + 1)
