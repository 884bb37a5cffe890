"""A producer of a group is killed between any two commands, also where a group goes in several batches."""

from __future__ import annotations

import msgspec
import pytest

from swapstore import Store
from swapstore.commands import Stage, Swap
from swapstore.errors import Unavailable
from swapstore.testing import Crash, failing_at, faulty
from tests.support.drivers import Meddler, another, lose, meddled
from tests.support.times import at

pytestmark = pytest.mark.every_store

OLD = {"EG": b"old", "SG": b"old"}
NEW = {"EG": b"1" * 500, "SG": b"2" * 500, "index": b"3" * 500}


def in_small_batches(store: Store) -> Store:
    """The same store, of which a batch takes little more than one of these members."""
    policy = msgspec.structs.replace(store._context.policy, max_batch_bytes=700)
    return Store(store._driver, msgspec.structs.replace(store._context, policy=policy))


def values_of(store: Store) -> dict[str, bytes]:
    group = another(store).read_group("mena")
    assert group is not None
    return {name: member.raw for name, member in group.members.items()}


@pytest.mark.parametrize("small", [False, True], ids=["at once", "in several batches"])
def test_a_cut_group_is_never_seen_and_can_be_repeated(store: Store, *, small: bool) -> None:
    """A reader sees some of the new members, or what a cut has left binds the id."""
    store.publish_group("mena", OLD, id="old", ts=at(1), codec="bytes")
    for after in range(30):
        client, driver = faulty(in_small_batches(store) if small else store, failing_at(after))
        try:
            client.publish_group("mena", NEW, id="run-1", ts=at(2), codec="bytes")
        except Crash:
            assert not any(isinstance(command, Swap) for command in driver.done)
            assert values_of(store) == OLD
        else:
            break
    assert values_of(store) == NEW
    again = another(store).publish_group("mena", NEW, id="run-1", ts=at(2), codec="bytes")
    assert (again.created, again.version) == (False, 2)
    assert [each for each in another(store).verify() if each.wrong] == []


def staged_by(meddler: Meddler) -> list[int]:
    """How many bytes each batch has staged."""
    return [
        sum(len(each.record + each.body) for each in batch if isinstance(each, Stage))
        for batch in meddler.batches
    ]


def test_a_batch_of_members_whose_reply_is_lost_is_sent_again(store: Store) -> None:
    """What was lost is sent with the commit, in one request that is larger than a server takes."""
    client, meddler = meddled(in_small_batches(store))
    for batch in (1, 3):
        meddler.after(batch, lose)
    assert client.publish_group("mena", NEW, id="run-1", codec="bytes").created
    staged = staged_by(meddler)
    assert (max(staged) <= 700, staged[-1], meddler.commits()) == (True, 0, 1)
    assert values_of(store) == NEW


def test_batches_of_members_that_are_always_lost_are_no_publish(store: Store) -> None:
    """A producer is told that a group may be published of which not all members were sent."""
    client, meddler = meddled(in_small_batches(store))
    for batch in range(1, 30):
        meddler.after(batch, lose)
    with pytest.raises(Unavailable, match="nothing was published. Try again") as caught:
        client.publish_group("mena", NEW, id="run-1", codec="bytes")
    assert caught.value.published is False
    assert meddler.commits() == 0
    assert another(store).read_group("mena") is None


def test_a_large_group_goes_in_several_batches_before_its_commit(store: Store) -> None:
    """A group is sent with its commit, in one request that is larger than a server takes."""
    client, meddler = meddled(in_small_batches(store))
    client.publish_group("mena", NEW, id="run-1", codec="bytes")
    staged = staged_by(meddler)
    assert max(staged) <= 700
    assert [any(isinstance(each, Swap) for each in batch) for batch in meddler.batches][-1]
    assert staged[-1] == 0
    assert meddler.commits() == 1
    assert values_of(store) == NEW
