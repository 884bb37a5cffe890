"""A commit whose reply is lost: its outcome is resolved from what the store holds, or is unknown."""

from __future__ import annotations

import pytest

from swapstore import Retention, Store
from swapstore.commands import Swap
from swapstore.errors import (
    OutcomeUnknown,
    ReplyLost,
    Unavailable,
)
from swapstore.format.append import Stamp, repoint
from tests.store.test_damage import delete
from tests.support import invariants
from tests.support.deterministic import TickingClock
from tests.support.drivers import another, lose, meddled
from tests.support.rivals import PATIENT, known_to, put_in_place, warm
from tests.support.times import at, soon


@pytest.mark.parametrize("others", [1, 40])
def test_a_lost_commit_that_a_pin_overtook_is_rebuilt(store: Store, others: int) -> None:
    """A publish gives up, or counts as done, when a pin took the version it would have got."""
    for number in range(70):
        store.publish("mena", number, id=f"id-{number}")
    client, meddler, batch = warm(store)

    def overtake() -> None:
        other = another(store)
        other.pin("mena", id="id-3")
        for number in range(others):
            other.publish("mena", "rival", id=f"rival-{number}")
        lose()

    meddler.before(batch, overtake)
    commit = client.publish("mena", "mine", id="mine")
    assert (commit.version, commit.created) == (72 + others, True)
    assert [row.id for row in invariants.check(store)][-2:] == [f"rival-{others - 1}", "mine"]


@pytest.mark.every_store
@pytest.mark.parametrize("others", [2, 3, 31, 70])
def test_a_lost_commit_that_several_overtook_is_rebuilt(store: Store, others: int) -> None:
    """A publish counts as done although the version it would have got is another's."""
    store.publish("mena", 0, id="before")
    client, meddler, batch = warm(store)

    def overtake() -> None:
        for number in range(others):
            store.publish("mena", number)
        lose()

    meddler.before(batch, overtake)
    commit = client.publish("mena", "mine", id="mine")
    assert (commit.version, commit.created) == (others + 2, True)
    assert [row.id for row in invariants.check(store)][-1] == "mine"


def test_a_server_that_hangs_up_after_a_lost_reply_has_refused_nothing(store: Store) -> None:
    """A publish that may be committed is told to be too large, and that nothing was published."""
    store.publish("mena", 0, id="before")
    client, meddler, batch = warm(store)

    def hang_up() -> None:
        raise ReplyLost("the server hung up", cut_off=True)

    meddler.before(batch, lose)
    meddler.before(batch + 2, hang_up)  # each loss is followed by a look at the manifest
    meddler.before(batch + 4, hang_up)
    assert client.publish("mena", "mine", id="mine").created
    assert len([each for each in meddler.batches[batch:] if isinstance(each[-1], Swap)]) == 4
    assert [row.id for row in invariants.check(store)] == ["before", "mine"]


@pytest.mark.every_store
def test_a_lost_first_publish_is_sent_again_with_the_same_bytes(store: Store) -> None:
    """On an empty dataset two different first commits can both arrive."""
    client, meddler = meddled(store, policy=PATIENT)
    meddler.before(1, lose)
    commit = client.publish("mena", "mine", id="mine")
    assert (commit.version, commit.created) == (1, True)
    first, second = (c for batch in meddler.batches for c in batch if isinstance(c, Swap))
    assert first == second


@pytest.mark.parametrize(("losses", "waits"), [(1, 0), (2, 1), (3, 2)])
def test_the_first_retry_of_a_lost_commit_does_not_wait(store: Store, losses: int, waits: int) -> None:
    """One lost reply costs a pause, or a store that loses many is retried without pauses."""
    waited: list[float] = []

    class Watched(TickingClock):
        def sleep(self, seconds: float) -> None:
            waited.append(seconds)

    store.publish("mena", 0, id="before")
    client, meddler = meddled(store, clock=Watched(1_790_000_000_000))
    list(client.history("mena", limit=1))  # a producer that knows the manifest
    batch = len(meddler.batches)
    for loss in range(losses):
        meddler.before(batch + 2 * loss, lose)
    assert client.publish("mena", "mine", id="mine").created
    assert len(waited) == waits


def test_a_row_that_retention_hides_in_a_page_is_still_found(store: Store) -> None:
    """A lost commit that was sealed and hidden, but not yet unlinked, counts as not applied."""
    store.publish("mena", 0, id="before", ts=at(1))
    client, meddler, batch = warm(store)

    def seal_and_hide() -> None:
        other = another(store)
        for number in range(70):
            other.publish("mena", number, ts=at(number + 3))
        other.publish("mena", "newer", ts=soon())
        hidden = repoint(
            known_to(other),
            stamp=Stamp(now_ms=1, nonce="f" * 16, new_epoch="", keys=other._context.keys),
            floor=soon(),
        ).manifest
        put_in_place(store, hidden)
        lose()

    meddler.after(batch, seal_and_hide)
    assert client.publish("mena", "mine", id="mine", ts=at(2)).created
    assert meddler.commits() == 1


@pytest.mark.parametrize("others", [1, 7, 14, 15, 30, 31])
def test_a_lost_commit_among_the_last_32_is_found_whatever_retention_keeps(store: Store, others: int) -> None:
    """Retention unlinks a row so early that nobody can tell whether its publish succeeded."""
    store.publish("mena", 0, id="before")
    client, meddler, batch = warm(store)

    def overtake() -> None:
        keeping_one, _ = meddled(store, retention=Retention(max_count=1))
        for number in range(others):
            keeping_one.publish("mena", number)
        keeping_one.prune("mena")
        lose()

    meddler.after(batch, overtake)
    commit = client.publish("mena", "mine", id="mine")
    assert (commit.version, commit.created) == (2, True)
    assert meddler.commits() == 1
    assert [row.version for row in invariants.check(store)][-others - 1 :] == list(range(2, others + 3))


# --- unknown outcomes -------------------------------------------------------------------------------


def test_a_damaged_page_after_a_lost_reply_is_outcome_unknown(store: Store) -> None:
    """When the page that holds the answer is damaged, the producer is not told how to find out."""
    store.publish("mena", 0, id="before")
    client, meddler, batch = warm(store)

    def seal_and_damage() -> None:
        other = another(store)
        for number in range(70):
            other.publish("mena", number)
        epoch = known_to(other).epoch
        delete(store, f"swapstore:page:{{mena}}:{epoch}.1-8")
        lose()

    meddler.after(batch, seal_and_damage)
    with pytest.raises(OutcomeUnknown, match="version 2 .*publish again with id='mine'") as caught:
        client.publish("mena", "mine", id="mine")
    assert caught.value.id == "mine"
    assert isinstance(caught.value.__cause__, ReplyLost), "the traceback shows what began it"


def test_an_unknown_outcome_names_the_size_of_what_was_sent(store: Store) -> None:
    """The hint about a size limit names the bytes of the manifest instead of those of the payload."""
    store.publish("mena", 0)
    client, meddler, batch = warm(store)
    for number in range(batch, batch + 400, 2):
        meddler.before(number, lose)
    with pytest.raises(OutcomeUnknown, match="requests of 1,0[0-9]{2},[0-9]{3} bytes"):
        client.publish("mena", "x" * 1_000_000, id="large")


def test_an_outcome_unknown_shows_the_loss_that_began_it(store: Store) -> None:
    """The traceback shows only the second failure, and people look in the wrong place."""
    store.publish("mena", 0)
    client, meddler, batch = warm(store)

    def unreachable() -> None:
        raise Unavailable("cannot connect, on purpose")

    meddler.before(batch, lose)
    meddler.before(batch + 1, unreachable)
    with pytest.raises(OutcomeUnknown, match="cannot connect, on purpose") as caught:
        client.publish("mena", 1)
    assert isinstance(caught.value.__cause__, ReplyLost)
