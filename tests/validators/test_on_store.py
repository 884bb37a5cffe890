"""Validators of a store run at every publish to it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

import swapstore
from swapstore import Candidate, InvalidInput, Rejected, Snapshot, Store
from swapstore.commands import Get
from swapstore.validators import Validator, must_be_newer
from tests.support.drivers import Meddler, meddled
from tests.support.times import at


def guarded(store: Store, *validators: Validator) -> tuple[Store, Meddler]:
    """Return another client of the same store, with validators."""
    return meddled(store, validators=validators)


def test_validators_run_at_every_publish(store: Store) -> None:
    """A producer that omits `validate=` in one place publishes what the store must never hold."""

    def no_empty(candidate: Candidate, previous: Snapshot | None) -> str | None:
        return None if candidate.value else f"{candidate.dataset} is empty"

    client, _ = guarded(store, no_empty)
    client.publish("mena", [1])
    with pytest.raises(
        Rejected, match="a validator of the store refused the publish: mena is empty"
    ) as caught:
        client.publish("mena", [])
    assert caught.value.reason == "mena is empty"
    outcomes = client.publish_many({"mena": [2], "europe": []})
    assert outcomes["mena"].version == 2  # type: ignore[union-attr]
    assert isinstance(outcomes["europe"], Rejected)
    assert store.read_latest("mena").value == [2]  # type: ignore[union-attr]
    assert store.read_latest("europe") is None


def test_validators_run_in_order_and_before_that_of_the_publish(store: Store) -> None:
    """A validator that relies on the schema gets a value that the schema refuses."""
    asked: list[str] = []

    def named(name: str, verdict: str | None = None) -> Validator:
        def validate(candidate: Candidate, previous: Snapshot | None) -> str | None:
            asked.append(name)
            return verdict

        return validate

    client, _ = guarded(store, named("one"), named("two"))
    client.publish("mena", 1, validate=named("own"))
    assert asked == ["one", "two", "own"]
    asked.clear()
    refusing, _ = guarded(store, named("one", "no"), named("two"))
    with pytest.raises(Rejected):
        refusing.publish("mena", 2, validate=named("own"))
    assert set(asked) == {"one"}


def test_the_previous_snapshot_is_fetched_once_and_only_for_a_validator(store: Store) -> None:
    """A publish reads a payload of megabytes for nothing, or once for each validator."""
    seen: list[Snapshot | None] = []

    def note(candidate: Candidate, previous: Snapshot | None) -> None:
        seen.append(previous)

    store.publish("mena", "before", id="a")
    fetch = Get(store._context.keys.id("mena", "a"))
    for validators in ((note, note), ()):
        client, meddler = guarded(store, *validators)
        client.publish("mena", "after", ts=at(5))  # older than the latest, which stays
        sent = [command for batch in meddler.batches for command in batch]
        assert sent.count(fetch) == (1 if validators else 0)
    assert [found.value for found in seen if found] == ["before", "before"]


@pytest.mark.every_store
def test_validators_run_again_after_a_lost_race(store: Store) -> None:
    """A snapshot is published that is not newer than the one of the producer that won the race."""
    client, meddler = guarded(store, must_be_newer())
    client.publish("mena", 1, ts=at(100))
    meddler.before(len(meddler.batches), lambda: store.publish("mena", 2, ts=at(200)) and None)
    with pytest.raises(Rejected, match="150 is not newer than that of the latest, 200"):
        client.publish("mena", 3, ts=at(150))
    assert [row.ts for row in store.history("mena")] == [200, 100]


def test_a_validator_that_raises_refuses(store: Store) -> None:
    """A bug in a validator lets through what it should keep out."""

    def broken(candidate: Candidate, previous: Snapshot | None) -> str | None:
        raise KeyError("a key of the payload")

    def strict(candidate: Candidate, previous: Snapshot | None) -> str | None:
        raise Rejected("because")

    with pytest.raises(Rejected, match="a validator of the store refused the publish: KeyError") as caught:
        guarded(store, broken)[0].publish("mena", 1, id="x")
    assert (caught.value.reason, caught.value.id) == ("KeyError", "x")
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(Rejected, match="because") as caught:
        guarded(store, strict)[0].publish("mena", 1, id="x")
    assert (caught.value.reason, caught.value.id) == ("because", "x")
    with pytest.raises(InvalidInput, match="a validator of the store returned bool"):
        guarded(store, lambda *_: False)[0].publish("mena", 1)  # type: ignore[arg-type]
    assert store.datasets() == []


@pytest.mark.parametrize("wrong", [must_be_newer(), "must_be_newer", [None], {1}, 5], ids=type)
def test_an_invalid_list_of_validators_is_refused(wrong: Any) -> None:
    """A store is made without the validators that it was meant to have."""
    with pytest.raises(InvalidInput, match="validators"):
        swapstore.connect("sqlite:///never-made.db", validators=wrong)


def test_connect_takes_validators(tmp_path: Any) -> None:
    """`validators` is accepted and ignored."""
    url = f"sqlite:///{tmp_path}/store.db"
    with swapstore.connect(url, validators=[must_be_newer()]) as store:
        store.publish("mena", 1, ts=at(5))
        with pytest.raises(Rejected):
            store.publish("mena", 1, ts=at(5))
        store._context = msgspec.structs.replace(store._context)  # the validators belong to the context
        assert len(store._context.validators) == 1
