"""`publish_many` and `read_latest_many`: as few round trips as for one dataset, and separate failures."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

import swapstore
from swapstore import (
    Commit,
    IdConflict,
    InvalidInput,
    Outcomes,
    PayloadMissing,
    PayloadTooLarge,
    Rejected,
    SomeFailed,
    Store,
    StoreFull,
    Unavailable,
)
from swapstore.testing import Crash, Kind, SimulatedStore, every_fault, failing_at, faulty
from tests.support import invariants
from tests.support.damage import Damage
from tests.support.drivers import another, cold_trips, lose, meddled
from tests.support.times import at

REGIONS = ("mena", "europe", "asia", "africa", "oceania", "latam", "nordics", "us")


def values(number: int = 0) -> dict[str, Any]:
    return {name: {"region": name, "n": number} for name in REGIONS}


@pytest.mark.every_store
def test_eight_datasets_are_published_in_one_round_trip(store: Store) -> None:
    """A producer of eight datasets waits for more than two round trips when cold, or one when warm."""
    client, meddler = meddled(store)
    cold = client.publish_many(values())
    assert len(meddler.batches) == 2
    assert [commit.version for commit in cold.values() if isinstance(commit, Commit)] == [1] * 8
    assert list(cold) == list(REGIONS)
    cold.raise_for_failures()
    warm = client.publish_many(values(1))
    assert len(meddler.batches) == 3
    assert warm.failures == {}
    for name in REGIONS:
        assert len(invariants.check(store, name)) == 2


@pytest.mark.every_store
def test_eight_datasets_are_read_in_two_round_trips_or_one(store: Store) -> None:
    """A page that shows eight datasets waits eight times instead of once."""
    store.publish_many(values())
    cold = cold_trips(store)
    client, meddler = meddled(store)
    found = client.read_latest_many(REGIONS)
    assert len(meddler.batches) == cold
    assert {name: snap and snap.value for name, snap in found.items()} == values()
    client.read_latest_many(REGIONS)
    assert len(meddler.batches) == cold + 1
    client.read_latest_many(REGIONS, max_staleness=60)
    assert len(meddler.batches) == cold + 1
    store.publish_many(values(1))
    assert client.read_latest_many(REGIONS).keys() == values().keys()
    assert len(meddler.batches) == cold + 3, "new versions: two"
    assert client.read_latest_many(["nowhere", "mena"])["nowhere"] is None


@pytest.mark.every_store
def test_a_failure_of_one_dataset_does_not_stop_the_others(store: Store) -> None:
    """One conflict, rejected, invalid or too large value keeps the other datasets from being published."""
    client = Store(
        store._driver,
        msgspec.structs.replace(
            store._context, policy=msgspec.structs.replace(store._context.policy, max_payload_bytes=500)
        ),
    )
    store.publish("asia", "other", id="run")

    def validate(candidate: Any, previous: Any) -> str | None:
        return "no" if candidate.dataset == "africa" else None

    wanted = {**values(), "us": "x" * 600, "oceania": {1, 2}, "bad name": 1}
    outcomes = client.publish_many(wanted, id="run", validate=validate)
    kinds = {name: type(outcome) for name, outcome in outcomes.items() if not isinstance(outcome, Commit)}
    assert kinds == {
        "asia": IdConflict,
        "africa": Rejected,
        "us": PayloadTooLarge,
        "oceania": InvalidInput,
        "bad name": InvalidInput,
    }
    assert {name for name in REGIONS if store.status(name)} == {"mena", "europe", "latam", "nordics", "asia"}
    with pytest.raises(SomeFailed, match=r"5 of 9 datasets were not published: .*'asia'.*'africa'") as caught:
        outcomes.raise_for_failures()
    assert set(caught.value.failures) == set(kinds)
    with pytest.raises(IdConflict, match="asia"):
        client.publish_many({"asia": 1, "mena": values()["mena"]}, id="run").raise_for_failures()


def test_the_arguments_hold_for_each_dataset(store: Store) -> None:
    """A retry with the same dedupe key publishes eight datasets twice, or their labels are lost."""
    first = store.publish_many(values(), dedupe_key="run", labels={"by": "cron"}, ts=at(1))
    first.raise_for_failures()
    again = store.publish_many(values(1), dedupe_key="run")
    again.raise_for_failures()
    for name in REGIONS:
        commit, same = first[name], again[name]
        assert isinstance(commit, Commit)
        assert isinstance(same, Commit)
        assert (commit.created, same.created, same.version) == (True, False, 1)
        (row,) = store.history(name)
        assert (row.labels, row.ts) == ({"by": "cron"}, 1)


def test_each_failure_names_its_dataset(store: Store) -> None:
    """Eight errors in a log do not say which dataset each belongs to."""
    outcomes = store.publish_many({"mena": {1}, "asia": {2}})
    for name, error in outcomes.failures.items():
        assert f"dataset {name!r}" in str(error)


def test_a_lost_race_of_one_dataset_does_not_delay_the_others(store: Store) -> None:
    """A rival commit to one dataset makes the others publish again."""
    client, meddler = meddled(store)
    client.publish_many(values())
    batch = len(meddler.batches)
    meddler.before(batch, lambda: another(store).publish("europe", "rival"))
    outcomes = client.publish_many(values(1))
    outcomes.raise_for_failures()
    europe, mena = outcomes["europe"], outcomes["mena"]
    assert isinstance(europe, Commit)
    assert isinstance(mena, Commit)
    assert (europe.version, mena.version) == (3, 2)


@pytest.mark.every_store
@pytest.mark.parametrize("when", ["before", "after"])
def test_each_dataset_resolves_a_lost_reply(store: Store, when: str) -> None:
    """When the connection breaks under eight commits, one is committed twice or reported as failed."""
    client, meddler = meddled(store)
    client.publish_many(values())
    getattr(meddler, when)(len(meddler.batches), lose)
    outcomes = client.publish_many(values(1))
    outcomes.raise_for_failures()
    assert all(isinstance(commit, Commit) and commit.created for commit in outcomes.values())
    for name in REGIONS:
        assert len(invariants.check(store, name)) == 2


def test_an_unreachable_store_is_the_failure_of_each() -> None:
    """A dataset is reported as published although the store is unreachable."""
    store = swapstore.connect("redis://127.0.0.1:1/0", patience=0.1)
    outcomes = store.publish_many({"mena": 1, "asia": 2})
    assert {type(outcome) for outcome in outcomes.values()} == {Unavailable}
    assert [f"dataset {name!r}" in str(outcome) for name, outcome in outcomes.items()] == [True, True]
    with pytest.raises(Unavailable, match="cannot connect"):
        store.read_latest_many(["mena", "asia"])


def test_batches_are_bounded_by_bytes(store: Store) -> None:
    """Fifty large payloads are sent as one request that the server refuses."""
    client, meddler = meddled(store)
    context = msgspec.structs.replace(
        client._context, policy=msgspec.structs.replace(client._context.policy, max_batch_bytes=250_000)
    )
    client = Store(client._driver, context)
    client.publish_many({f"d{n}": b"x" * 100_000 for n in range(10)}, codec="bytes").raise_for_failures()
    sizes = [sum(len(getattr(c, "record", b"")) for c in batch) for batch in meddler.batches]
    assert max(sizes) < 250_000
    assert len(meddler.batches) == 1 + 5


@pytest.mark.every_store
def test_a_dataset_that_cannot_be_read_raises_its_error(store: Store) -> None:
    """A lost payload looks like `nothing published` among seven datasets that are fine."""
    store.publish_many(values())
    commit = store.publish("asia", 1, id="gone")
    assert commit.created
    Damage(store).delete("swapstore:id:{asia}:gone")
    with pytest.raises(PayloadMissing, match="asia"):
        another(store).read_latest_many(REGIONS)


def test_bad_arguments_are_refused(store: Store) -> None:
    """A list of values, or a wrong time, is found only after something was written."""
    with pytest.raises(InvalidInput, match="map datasets to values"):
        store.publish_many([("mena", 1)])  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="before 1970"):
        store.publish_many({"mena": 1}, ts=at(-1))
    with pytest.raises(InvalidInput):
        store.read_latest_many(["bad name"])
    assert store.publish_many({}) == Outcomes()
    assert store.read_latest_many([]) == {}
    assert store.datasets() == []


def test_a_single_name_is_one_dataset(store: Store) -> None:
    """`read_latest_many("mena")` reads the datasets m, e, n and a."""
    store.publish("mena", 1)
    assert list(store.read_latest_many("mena")) == ["mena"]


@pytest.mark.parametrize("fault", list(itertools.islice(every_fault(14), 14 * len(Kind))), ids=str)
def test_every_fault_leaves_each_dataset_whole(fault: Any) -> None:
    """A fault at some command leaves a dataset in between, or a retry does not complete it."""
    simulated = SimulatedStore()
    store = simulated.connect()
    names = ("a", "b", "c")
    store.publish_many(dict.fromkeys(names, 0), id="old").raise_for_failures()
    client, driver = faulty(simulated.connect(), fault)
    try:
        outcomes: Any = client.publish_many(dict.fromkeys(names, 1), id="new")
    except Crash:
        outcomes = {}
    driver.deliver_late()
    for name in names:
        rows = invariants.check(store, name)
        latest = simulated.connect().read_latest(name)
        assert latest is not None
        assert latest.value == len(rows) - 1
        if isinstance(outcomes.get(name), Commit):
            assert len(rows) == 2
    simulated.connect().publish_many(dict.fromkeys(names, 1), id="new").raise_for_failures()
    assert [len(invariants.check(store, name)) for name in names] == [2, 2, 2]


def test_a_refused_payload_is_refused_alone() -> None:
    """A store that has no room for one payload keeps the small ones from being published."""
    simulated = SimulatedStore()
    client, _ = faulty(simulated.connect(), failing_at(5, Kind.REFUSED))
    outcomes = client.publish_many({"a": 1, "b": 2, "c": 3})
    assert [type(outcome) for outcome in outcomes.values()].count(Commit) >= 2
    assert all(isinstance(outcome, Commit | StoreFull) for outcome in outcomes.values())


def test_expected_errors_do_not_leak_into_others(store: Store) -> None:
    """An exception of one dataset's `validate` fails the others, or skips their validators."""
    seen: list[str] = []

    def validate(candidate: Any, _: Any) -> None:
        seen.append(candidate.dataset)
        if candidate.dataset == "mena":
            raise ValueError("broken")

    outcomes = store.publish_many({"mena": 1, "asia": 2}, validate=validate)
    assert isinstance(outcomes["mena"], Rejected)
    assert isinstance(outcomes["asia"], Commit)
    assert seen == ["mena", "asia"]


class Unreadable:
    """A mapping's value that raises when it is read."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise self._error


@pytest.mark.parametrize("error", [ValueError("x"), OSError("disk"), RuntimeError("changed"), MemoryError()])
def test_a_value_that_raises_fails_its_dataset_alone(store: Store, error: Exception) -> None:
    """One value that cannot be read keeps forty datasets from being published."""
    outcomes = store.publish_many({"mena": 1, "bad": {"x": [Unreadable(error)]}, "europe": 2})
    assert list(outcomes.failures) == ["bad"]
    with pytest.raises(swapstore.InvalidInput, match="dataset 'bad'") as caught:
        outcomes.raise_for_failures()
    assert caught.value.__cause__ is error
    assert store.datasets() == ["europe", "mena"]


@pytest.mark.parametrize("size", [10, 4000])
def test_a_request_that_is_too_large_fails_one_dataset_alone(size: int) -> None:
    """A payload that the store cannot take fails its neighbours, or they are not tried after it."""
    simulated = SimulatedStore()
    client, meddler = meddled(simulated.connect())
    execute = meddler.execute

    def limited(commands: Any) -> list[Any]:
        if sum(len(getattr(each, "body", b"")) for each in commands) > 3000:
            raise Unavailable("too large")
        return execute(commands)

    meddler.execute = limited  # type: ignore[method-assign]
    outcomes = client.publish_many({"a": "x" * 4000, "b": "x", "c": "x" * size, "d": "x" * 20})
    found = {name: type(outcome) for name, outcome in outcomes.items()}
    assert found == {"a": Unavailable, "b": Commit, "c": Commit if size == 10 else Unavailable, "d": Commit}
