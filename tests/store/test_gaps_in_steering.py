"""What no other test noticed when it was broken on purpose: see docs/explanation/mutants.md."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from swapstore import Store
from swapstore.commands import Failed, Put
from swapstore.errors import (
    Contended,
    StoreFull,
)
from tests.support.crowd import PATIENT, Crowd, warm
from tests.support.drivers import another, lose, meddled
from tests.support.fixed import TickingClock


def test_confirm_moves_the_moment_of_the_last_look(store: Store) -> None:
    """An alarm on `confirmed_at` would ring for ever, however often the producer says that it ran."""
    client, _ = meddled(store, clock=TickingClock())
    client.publish("mena", 1)
    before = client.status("mena")
    assert before is not None
    after = client.confirm("mena")
    assert after.confirmed_at > before.confirmed_at
    assert after.committed_at > before.committed_at


def test_rolling_back_to_the_latest_changes_nothing(store: Store) -> None:
    """A repeated rollback would make a new version each time and end every live view."""
    commit = store.publish("mena", 1)
    before = store.status("mena")
    assert store.rollback("mena", id=commit.id) == before


@pytest.mark.parametrize("rivals", [1, 2, 3])
def test_an_operator_gets_through_a_crowd(store: Store, rivals: int) -> None:
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


@pytest.mark.every_store
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


def test_a_live_view_by_a_client_that_has_read_nothing(store: Store) -> None:
    """A worker that only computes live views would be told that nothing is published."""
    commit = store.publish("mena", 1)
    assert another(store).put_live("mena", 2, ttl=60) == commit.etag


def test_a_live_view_describes_itself(store: Store) -> None:
    """A reader that checks or forwards a view needs its dataset, size and digest."""
    commit = store.publish("mena", b"payload", codec="bytes")
    store.put_live("mena", b"payload", ttl=60, codec="bytes")
    view = store.read_live("mena")
    assert view is not None
    assert (view.dataset, view.size, view.codec) == ("mena", len(b"payload"), "bytes")
    assert view.sha256 == commit.sha256


@pytest.mark.every_store
def test_a_refused_live_view_is_an_error(store: Store) -> None:
    """A full store would swallow the view, and the worker would believe that it is shown."""
    store.publish("mena", 1)
    client, meddler = meddled(store)

    def refuse(replies: list[Any]) -> list[Any]:
        is_put = isinstance(meddler.batches[-1][-1], Put)
        return [Failed(StoreFull("full, on purpose"))] if is_put else replies

    for number in range(3):
        meddler.replies(number, refuse)
    with pytest.raises(StoreFull, match="on purpose"):
        client.put_live("mena", 2, ttl=60)
