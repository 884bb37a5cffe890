"""A pin beside producers: it is made on top of their commits, or the operator is told that it was not."""

from __future__ import annotations

import attrs
import pytest

from swapstore import Store
from swapstore.errors import (
    Contended,
)
from tests.support.drivers import another, lose, meddled
from tests.support.rivals import PATIENT, Crowd, warm


@pytest.mark.parametrize("rivals", [1, 2, 3])
def test_a_pin_gets_through_a_crowd_of_producers(store: Store, rivals: int) -> None:
    """A pin that loses several races in a row would fail, or pin on a manifest that is no longer there."""
    commit = store.publish("mena", 0, id="good")
    client, meddler, batch = warm(store)
    Crowd(store, meddler, rivals)
    status = client.pin("mena", id=commit.id)
    assert (status.serving.id, status.count, status.version) == ("good", 1 + rivals, 2 + rivals)
    assert status == another(store).status("mena")
    # The first retry uses what the conflict returned; after that the manifest is read anew each time.
    assert meddler.commits() == 1 + rivals
    assert len(meddler.batches) - batch == 1 + 1 + rivals + (rivals - 1)


def test_an_operator_who_never_gets_a_turn_is_told_so(store: Store) -> None:
    """A pin that lost every race must not look as if it had been made."""
    commit = store.publish("mena", 0, id="good")
    client, meddler = meddled(store, policy=attrs.evolve(PATIENT, commit_attempts=3))
    client.read_latest("mena")
    for number in range(100):
        meddler.before(number, lambda: store.publish("mena", 1))
    with pytest.raises(Contended, match="dataset 'mena': other producers committed first, 3 times.*nothing"):
        client.pin("mena", id=commit.id)
    status = store.status("mena")
    assert status is not None
    assert status.pinned is None


@pytest.mark.parametrize("first", ["publish", "confirm"])
def test_a_pin_that_several_others_overtook_is_made_on_top(store: Store, first: str) -> None:
    """A conflict that says all is no lost reply: the operator would be told that nobody knows the outcome."""
    store.publish("mena", 0, id="good")
    client, meddler, batch = warm(store)

    def overtake() -> None:
        if first == "publish":
            store.publish("mena", 1)
        else:
            store.confirm("mena")
        store.publish("mena", 2)

    meddler.before(batch + 1, overtake)
    status = client.pin("mena", id="good")
    assert (status.serving.id, status.version) == ("good", 4)
    assert meddler.commits() == 2


@pytest.mark.parametrize("rival", ["publish", "confirm"])
def test_a_lost_pin_that_one_other_overtook_is_made_on_top(store: Store, rival: str) -> None:
    """Exactly one version came, and it is not the pin: so the pin was not applied, and can be repeated."""
    commit = store.publish("mena", 0, id="good")
    client, meddler, batch = warm(store)

    def overtake() -> None:
        if rival == "publish":
            store.publish("mena", 1)
        else:
            store.confirm("mena")
        lose()

    meddler.before(batch + 1, overtake)
    status = client.pin("mena", id=commit.id)
    assert (status.serving.id, status.version) == ("good", 3)
