"""`Item`: options of its own for each dataset of a `publish_many`, still in one round trip."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest

from swapstore import Commit, Conflict, InvalidInput, Item, Outcomes, Rejected, Store
from swapstore.events import CallFailed, Event
from tests.batching.test_batching import REGIONS
from tests.support import invariants
from tests.support.drivers import another, meddled

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def committed(outcomes: Outcomes) -> dict[str, Commit]:
    outcomes.raise_for_failures()
    return {name: outcome for name, outcome in outcomes.items() if isinstance(outcome, Commit)}


@pytest.mark.every_store
def test_eight_ids_take_one_round_trip(store: Store) -> None:
    """A job whose regions have ids of their own waits for eight round trips, or they are mixed up."""
    client, meddler = meddled(store)
    for number in range(2):
        trips = len(meddler.batches)
        items = {
            name: Item({"n": number}, id=f"{name}-{number}", ts=NOON, labels={"region": name})
            for name in REGIONS
        }
        commits = committed(client.publish_many(items))
        assert len(meddler.batches) - trips == (1 if number else 2)
        assert {name: commit.id for name, commit in commits.items()} == {n: f"{n}-{number}" for n in REGIONS}
    for name in REGIONS:
        newest = invariants.check(store, name)[-1]
        assert (newest.id, newest.when, newest.labels) == (f"{name}-1", NOON, {"region": name})
    again = client.publish_many(
        {name: Item({"n": 1}, id=f"{name}-1", labels={"region": name}) for name in REGIONS}
    )
    assert not any(commit.created for commit in committed(again).values())


def test_an_item_takes_what_publish_takes_for_one_dataset() -> None:
    """An option of `publish` cannot be given for one dataset of several."""
    of_publish = inspect.signature(Store.publish).parameters.keys() - {"self", "dataset", "durability"}
    assert {field.name for field in attrs.fields(Item)} == of_publish


def test_an_items_options_override_those_of_the_call(store: Store) -> None:
    """What holds for all datasets replaces what one of them asks for, or is lost beside it."""

    def strict(candidate: Any, _: Any) -> str | None:
        return f"{candidate.value} is too small" if candidate.value < 5 else None

    outcomes = store.publish_many(
        {
            "plain": 7,
            "own": Item(8, id="own", ts=NOON, labels={"b": "2"}, dedupe_key="k-own"),
            "cleared": Item(9, labels={}),
            "raw": Item(b"\x00", codec="bytes", validate=lambda *_: None),
            "small": 4,
        },
        id="run",
        labels={"a": "1"},
        dedupe_key="k",
        validate=strict,
    )
    assert {name: type(error) for name, error in outcomes.failures.items()} == {"small": Rejected}
    rows = {name: next(iter(store.history(name))) for name in ("plain", "own", "cleared", "raw")}
    found = {name: (row.id, row.labels, row.dedupe_key, row.codec) for name, row in rows.items()}
    assert found == {
        "plain": ("run", {"a": "1"}, "k", "json"),
        "own": ("own", {"b": "2"}, "k-own", "json"),
        "cleared": ("run", {}, "k", "json"),
        "raw": ("run", {"a": "1"}, "k", "bytes"),
    }
    assert rows["own"].when == NOON


def test_each_item_has_its_own_lock(store: Store) -> None:
    """Two producers that read, compute and publish several datasets overwrite each other's."""
    seen = committed(store.publish_many({"mena": 1, "europe": 1}))
    another(store).publish("europe", "rival")
    items = {name: Item(2, expected_version=commit.version) for name, commit in seen.items()}
    outcomes = store.publish_many(items)
    assert isinstance(outcomes["mena"], Commit)
    assert isinstance(outcomes["europe"], Conflict)


@pytest.mark.parametrize(
    "options",
    [
        {"id": "a b"},
        {"ts": 7},
        {"ts": datetime(2026, 1, 1)},  # noqa: DTZ001 - a naive one, on purpose
        {"ts": datetime(2999, 1, 1, tzinfo=UTC)},
        {"labels": {"a": 1}},
        {"dedupe_key": 3},
        {"expected_version": -1},
        {"validate": "no function"},
        {"codec": "pickle"},
        {"codec": ["json"]},
    ],
    ids=" ".join,
)
def test_an_item_that_cannot_be_used_is_refused_before_anything_is_written(
    store: Store, options: dict[str, Any]
) -> None:
    """Seven regions are published before the eighth is refused, or nobody learns which one it was."""
    events: list[Event] = []
    client, meddler = meddled(store, hook=events.append)
    with pytest.raises(InvalidInput, match="dataset 'europe': .*Nothing was published") as caught:
        client.publish_many({"mena": 1, "europe": Item(2, **options), "asia": 3})
    assert (caught.value.dataset, caught.value.published) == ("europe", False)
    assert meddler.batches == []
    (failed,) = events
    assert isinstance(failed, CallFailed)
    assert (failed.call, failed.error) == ("publish_many", "InvalidInput")


@pytest.mark.parametrize(
    "options", [{"id": "a b"}, {"labels": 3}, {"codec": "pickle"}, {"durability": 1}], ids=" ".join
)
def test_an_option_for_all_that_cannot_be_used_is_refused_at_once(
    store: Store, options: dict[str, Any]
) -> None:
    """A mistake in the call looks like the failure of each dataset."""
    with pytest.raises(InvalidInput, match="Nothing was published") as caught:
        store.publish_many({"mena": 1, "europe": 2}, **options)
    assert caught.value.dataset is None
    assert store.datasets() == []


@pytest.mark.parametrize("value", [{1, 2}, Item(1), float("nan")], ids=str)
def test_a_value_that_cannot_be_published_fails_alone_in_an_item_too(store: Store, value: Any) -> None:
    """One bad value keeps the other regions from being published when it has options."""
    outcomes = store.publish_many({"mena": Item(value, id="x"), "europe": Item(2, id="x")})
    assert [(name, type(error)) for name, error in outcomes.failures.items()] == [("mena", InvalidInput)]
    assert store.datasets() == ["europe"]


def test_an_item_is_no_value(store: Store) -> None:
    """`publish` stores the options of an item as if they were data."""
    with pytest.raises(InvalidInput, match=r"for publish_many.*Nothing was published"):
        store.publish("mena", Item({"n": 1}, id="x"))
    assert store.datasets() == []


def test_an_item_shows_no_payload() -> None:
    """The payload is in a log, because an item is."""
    assert "secret" not in repr(Item("secret", id="x"))
