"""A pin during publishes: it is applied on top of their commits, or the operator gets an error."""

from __future__ import annotations

import msgspec
import pytest

from swapstore import Store
from swapstore.errors import (
    Contended,
)
from tests.support.drivers import another, lose, meddled
from tests.support.rivals import PATIENT, Rivals, warm


@pytest.mark.parametrize("rivals", [1, 2, 3])
def test_a_pin_gets_through_many_producers(store: Store, rivals: int) -> None:
    """A pin that loses several races fails, or is based on a manifest that is gone."""
    commit = store.publish("mena", 0, id="good")
    client, meddler, batch = warm(store)
    Rivals(store, meddler, rivals)
    status = client.pin("mena", id=commit.id)
    assert (status.serving.id, status.count, status.version) == ("good", 1 + rivals, 2 + rivals)
    assert status == another(store).status("mena")
    # The first retry uses what the conflict returned; after that the manifest is read anew each time.
    assert meddler.commits() == 1 + rivals
    assert len(meddler.batches) - batch == 1 + 1 + rivals + (rivals - 1)


def test_a_pin_that_loses_every_race_is_an_error(store: Store) -> None:
    """A pin that lost every race looks as if it had been made."""
    commit = store.publish("mena", 0, id="good")
    client, meddler = meddled(store, policy=msgspec.structs.replace(PATIENT, commit_attempts=3))
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
    """A pin after several other commits is reported with an unknown outcome."""
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


@pytest.mark.every_store
@pytest.mark.parametrize("rival", ["publish", "confirm"])
def test_a_lost_pin_that_one_other_overtook_is_made_on_top(store: Store, rival: str) -> None:
    """A lost pin is not repeated although the one new version shows that it was not applied."""
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
