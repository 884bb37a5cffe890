"""What no other test noticed when it was broken on purpose: see docs/explanation/mutants.md."""

from __future__ import annotations

import attrs
import pytest

from swapstore import Retention, Store
from swapstore.commands import Commit
from swapstore.errors import (
    Corrupt,
    OutcomeUnknown,
    ReplyLost,
)
from swapstore.growth import Stamp, repoint
from tests.store.test_damage import MANIFEST, delete
from tests.support import invariants
from tests.support.crowd import PATIENT, known_to, put_in_place, warm
from tests.support.drivers import another, lose, meddled


def test_a_lost_commit_that_a_pin_overtook_is_rebuilt(store: Store) -> None:
    """Version n+1 is a pin, no publish: nothing was applied, and the publish goes on instead of giving up."""
    for number in range(70):
        store.publish("mena", number, id=f"id-{number}")
    client, meddler, batch = warm(store)

    def overtake() -> None:
        other = another(store)
        other.pin("mena", id="id-3")
        other.publish("mena", "rival", id="rival")
        lose()

    meddler.before(batch, overtake)
    commit = client.publish("mena", "mine", id="mine")
    assert (commit.version, commit.created) == (73, True)
    assert [row.id for row in invariants.check(store)][-2:] == ["rival", "mine"]


def test_a_row_that_retention_hides_in_a_page_is_still_found(store: Store) -> None:
    """Sealed and hidden, not yet unlinked: the row tells that the lost commit was applied."""
    store.publish("mena", 0, id="before", ts=1)
    client, meddler, batch = warm(store)

    def seal_and_hide() -> None:
        other = another(store)
        for number in range(70):
            other.publish("mena", number, ts=number + 3)
        other.publish("mena", "newer", ts=10**14)
        hidden = repoint(
            known_to(other),
            stamp=Stamp(now_ms=1, nonce="f" * 16, new_epoch="", keys=other._context.keys),
            floor=10**14,
        ).manifest
        put_in_place(store, hidden)
        lose()

    meddler.after(batch, seal_and_hide)
    assert client.publish("mena", "mine", id="mine", ts=2).created
    assert meddler.commits() == 1


def test_a_damaged_page_after_a_lost_reply_is_outcome_unknown(store: Store) -> None:
    """Whether the commit was applied stands in a page that is gone: the producer is told how to settle it."""
    store.publish("mena", 0, id="before")
    client, meddler, batch = warm(store)

    def seal_and_damage() -> None:
        other = another(store)
        for number in range(70):
            other.publish("mena", number)
        epoch = known_to(other).epoch
        delete(store, f"swapstore:page:{{mena}}:{epoch}.1-32")
        lose()

    meddler.after(batch, seal_and_damage)
    with pytest.raises(OutcomeUnknown, match="version 2 .*publish again with id='mine'") as caught:
        client.publish("mena", "mine", id="mine")
    assert caught.value.id == "mine"
    assert isinstance(caught.value.__cause__, ReplyLost), "the traceback shows what began it"


def test_a_log_that_was_let_go_of_after_a_lost_reply_is_outcome_unknown(store: Store) -> None:
    """No row is left to tell whose version n+1 was: nothing is guessed, and nothing crashes."""
    store.publish("mena", 0, id="before")
    client, meddler, batch = warm(store)

    def let_go() -> None:
        other = another(store)
        keeping_one = attrs.evolve(other._context, retention=Retention(max_count=1))
        other = Store(other._driver, keeping_one)
        for number in range(40):
            other.publish("mena", number)
        assert 2 not in {row.version for row in known_to(other).log.rows}
        lose()

    meddler.after(batch, let_go)
    with pytest.raises(OutcomeUnknown):
        client.publish("mena", "mine", id="mine")


def test_an_unknown_outcome_names_the_size_of_what_was_sent(store: Store) -> None:
    """The hint about the server's limit would name the manifest's few bytes, not the payload's many."""
    store.publish("mena", 0)
    client, meddler, batch = warm(store)
    for number in range(batch, batch + 400, 2):
        meddler.before(number, lose)
    with pytest.raises(OutcomeUnknown, match="requests of 1,0[0-9]{2},[0-9]{3} bytes"):
        client.publish("mena", "x" * 1_000_000, id="large")


@pytest.mark.every_store
@pytest.mark.parametrize("others", [2, 3, 31, 70])
def test_a_lost_commit_that_several_overtook_is_rebuilt(store: Store, others: int) -> None:
    """The version it would have been is another's: it must be published, not reported as done."""
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


def test_a_conflict_reads_no_pages(store: Store) -> None:
    """The reply of a conflict says all: a producer that lost to many others asks nothing more."""
    store.publish("mena", 0, id="before")
    client, meddler, batch = warm(store)

    def overtake() -> None:
        for number in range(70):
            store.publish("mena", number)

    meddler.before(batch, overtake)
    assert client.publish("mena", "mine", id="mine").version == 72
    assert len(meddler.batches) == batch + 2


@pytest.mark.every_store
def test_a_lost_first_publish_is_sent_again_with_the_same_bytes(store: Store) -> None:
    """Of an empty dataset too: two different first commits could both be on their way."""
    client, meddler = meddled(store, policy=PATIENT)
    meddler.before(1, lose)
    commit = client.publish("mena", "mine", id="mine")
    assert (commit.version, commit.created) == (1, True)
    first, second = (c for batch in meddler.batches for c in batch if isinstance(c, Commit))
    assert first == second


def test_an_id_of_a_lost_line_of_versions_is_refused_with_its_key(store: Store) -> None:
    """After a lost manifest others publish on: a retry of an old id must end in a clear error, not crash."""
    store.publish("mena", 1, id="old")
    delete(store, MANIFEST)
    another(store).publish("mena", 2, id="new")
    with pytest.raises(Corrupt, match="old is permanent but no version names it") as caught:
        another(store).publish("mena", 1, id="old")
    assert caught.value.key == "swapstore:id:{mena}:old"
