"""`health`: one report on many datasets, which an outage does not prevent."""

from __future__ import annotations

import signal
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest

import swapstore
from swapstore import (
    Bound,
    DatasetHealth,
    InvalidInput,
    Item,
    Rejected,
    Store,
    StoreClosed,
    Timeout,
    validators,
)
from swapstore.drivers.base import Driver
from swapstore.errors import ReplyLost, SwapstoreError, Unavailable
from swapstore.events import CallFailed, Event, Hook
from swapstore.testing import SimulatedStore
from tests.store.test_damage import MANIFEST, alter
from tests.support.drivers import meddled
from tests.support.outage import breakable
from tests.support.times import at
from tests.support.traffic import FACES
from tests.support.valkey import Server, free_port

HOUR_MS = 3_600_000


@pytest.fixture
def world() -> SimulatedStore:
    return SimulatedStore()


def states(store: Any, bounds: Any = None, **options: Any) -> dict[str, str]:
    return {name: each.state for name, each in store.health(bounds, **options).datasets.items()}


@pytest.mark.every_store
def test_one_report_says_all_of_each_dataset(store: Store) -> None:
    """A monitor makes a call for each dataset, or does not learn which of them is wrong, and why."""
    store.publish("mena", [1, 2], count=128, ts=at(1000))
    store.publish("europe", {"a": 1})
    found = store.health({"mena": "12h", "europe": timedelta(hours=6), "nowhere": None})
    assert not found.ok
    assert found.state == "missing"
    assert {name: each.state for name, each in found.datasets.items()} == {
        "mena": "fresh",
        "europe": "fresh",
        "nowhere": "missing",
    }
    mena, status = found.datasets["mena"], store.status("mena")
    assert status is not None
    assert mena.ok
    assert (mena.version, mena.count, mena.size, mena.pinned) == (status.version, 128, 5, False)
    assert mena.bound == Bound(max_age=timedelta(hours=12))
    assert mena.age_ms is not None
    assert mena.age_ms > 50 * 365 * 24 * HOUR_MS > 60_000 > (mena.confirmed_age_ms or 0) >= 0
    assert found.datasets["nowhere"].version is None
    assert store.health({"mena": "12h"}).ok


def test_any_number_of_datasets_is_one_round_trip(store: Store) -> None:
    """A probe of 300 datasets takes 300 round trips, once a second."""
    names = [f"d/{number}" for number in range(60)]
    store.publish_many(dict.fromkeys(names, 1)).raise_for_failures()
    for client, meddler in (meddled(store), meddled(store)):
        for trips in (1, 2):  # a first look, and a later one
            assert client.health(dict.fromkeys(names, "1h")).ok
            assert len(meddler.batches) == trips


def test_fresh_means_that_a_producer_published_or_confirmed(world: SimulatedStore) -> None:
    """Data that has not changed is stale although its producer runs, or a dead producer looks fresh."""
    store = world.connect()
    store.publish("mena", 1, ts=at(1000))
    bounds = {"mena": Bound(max_age="1h")}
    world.clock.advance(HOUR_MS)
    assert states(store, bounds) == {"mena": "fresh"}
    world.clock.advance(1)
    assert states(store, bounds) == {"mena": "stale"}
    assert states(store, {"mena": None}) == {"mena": "fresh"}
    store.pin("mena", version=1)
    assert states(store, bounds) == {"mena": "stale"}
    store.confirm("mena")
    found = store.health(bounds)
    assert (found.state, found.datasets["mena"].pinned) == ("fresh", True)


def test_a_producer_whose_clock_is_ahead_is_not_fresh(world: SimulatedStore) -> None:
    """A dead producer counts as fresh for as long as its clock was ahead."""
    store = world.connect()
    store.publish("mena", 1)
    world.clock.advance(-10_000)
    assert states(store, {"mena": "1h"}) == {"mena": "fresh"}
    world.clock.advance(-1)
    assert states(store, {"mena": "1h"}) == {"mena": "stale"}


def test_a_minimum_is_compared_with_what_is_served(store: Store) -> None:
    """A producer that lost half of its rows is healthy, or one that never counted them is."""
    store.publish("mena", b"12345", codec="bytes", count=100)
    for bound, state in (
        (Bound(min_count=100), "fresh"),
        (Bound(min_count=101), "too_small"),
        (Bound(min_size=5), "fresh"),
        (Bound(min_size=6, min_count=1), "too_small"),
        (Bound(max_age="1h", min_count=101), "too_small"),
    ):
        assert states(store, {"mena": bound}) == {"mena": state}, bound
    store.publish("mena", [1] * 200)
    assert states(store, {"mena": Bound(min_count=1)}) == {"mena": "too_small"}
    store.publish("mena", [1], labels={"count": "many"})
    assert states(store, {"mena": Bound(min_count=0)}) == {"mena": "too_small"}
    store.pin("mena", version=1)
    assert store.health({"mena": Bound(min_count=100)}).datasets["mena"].count == 100


def test_without_names_all_datasets_are_looked_at(store: Store) -> None:
    """A damaged dataset is overlooked, or an empty store in the wrong namespace passes for healthy."""
    nothing = store.health()
    assert (nothing.ok, nothing.state, nothing.datasets) == (False, "missing", {})
    store.publish("mena", 1)
    store.publish("europe", 1)
    store.publish("gone", 1)
    store.drop("gone")
    assert (store.health().ok, states(store)) == (True, {"europe": "fresh", "mena": "fresh"})
    alter(store, MANIFEST, lambda _: b"x")
    found = store.health()
    assert {name: each.state for name, each in found.datasets.items()} == {
        "europe": "fresh",
        "mena": "damaged",
    }
    assert found.state == "damaged"
    assert isinstance(found.datasets["mena"].error, swapstore.Damaged)


@attrs.define
class Outage:
    """A driver that fails."""

    _driver: Driver
    error: SwapstoreError | None = None
    where: str = "redis://secret-host:6379/0"
    kind: str = "redis"
    binary_safe: bool = True

    def execute(self, commands: Any) -> list[Any]:
        if self.error is not None:
            raise self.error
        return self._driver.execute(commands)

    def close(self) -> None:
        """The driver belongs to another store."""


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (Unavailable("down at secret-host"), "unreachable"),
        (ReplyLost("silent at secret-host"), "unreachable"),
        (swapstore.Throttled("slow at secret-host", retry_after_s=60), "unreachable"),
        (swapstore.AccessDenied("a wrong password for secret-host"), "misconfigured"),
        (swapstore.Unsupported("no such command at secret-host"), "misconfigured"),
    ],
)
def test_an_outage_is_a_result(store: Store, error: SwapstoreError, state: str) -> None:
    """A probe fails with a traceback just when it matters, or prints an address to everybody."""
    store.publish("mena", 1)
    driver = Outage(store._driver)
    client = Store(driver, store._context)
    assert client.health({"mena": "1h"}).ok
    driver.error = error
    named, all_of_them = client.health({"mena": "1h", "europe": None}), client.health()
    assert {name: each.state for name, each in named.datasets.items()} == {"mena": state, "europe": state}
    assert (named.state, all_of_them.state, all_of_them.datasets) == (state, state, {})
    for each in (*(each.error for each in named.datasets.values()), all_of_them.error):
        assert "secret-host" in str(each), "a person learns what it is"
    for report in (named, all_of_them):
        assert "secret-host" not in msgspec.json.encode(report.as_dict()).decode()
    driver.error = None
    assert client.health({"mena": "1h"}).ok


@FACES
def test_an_outage_ends_the_report_in_time(connect: Any) -> None:
    """A probe waits for as long as a publish may, or for ever, while the server is down."""
    store = connect(f"redis://127.0.0.1:{free_port()}/0", patience=10)
    for bounds in ({"mena": "1h"}, None):
        began = time.monotonic()
        assert store.health(bounds, timeout=0.2).state == "unreachable"
        assert time.monotonic() - began < 8
    store.close()


@FACES
@pytest.mark.server
def test_a_silent_server_ends_the_report_in_time(connect: Any, tmp_path: Path) -> None:
    """A probe waits for a reply as long as a publish may; or later calls of that connection are cut short."""
    with Server(tmp_path) as server:
        store = connect(server.url, timeout=Timeout(reply=60))
        store.publish("mena", 1)
        process = server._process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        for bounds in ({"mena": "1h"}, None):
            began = time.monotonic()
            assert store.health(bounds, timeout=0.2).state == "unreachable"
            assert time.monotonic() - began < 30
        process.send_signal(signal.SIGCONT)
        assert store.health({"mena": "1h"}, timeout=30).ok
        if isinstance(store, Store):
            connection = store._driver._pool.get_connection()  # type: ignore[attr-defined]
            assert connection._sock.gettimeout() == 60
            store._driver._pool.release(connection)  # type: ignore[attr-defined]
        store.close()


@FACES
@pytest.mark.server
def test_a_server_that_goes_and_comes_back(connect: Any, tmp_path: Path) -> None:
    """A store has to be made anew after an outage, or goes on to report it."""
    with Server(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as server:
        store = connect(server.url, patience=0)
        store.publish("mena", 1, count=3)
        assert store.health({"mena": Bound(max_age="1h", min_count=3)}).ok
        server.stop()
        assert states(store, {"mena": "1h", "europe": None}) == {
            "mena": "unreachable",
            "europe": "unreachable",
        }
        server.start()
        assert states(store, {"mena": "1h", "europe": None}) == {"mena": "fresh", "europe": "missing"}
        store.close()


def test_each_dataset_that_cannot_be_read_is_an_event(store: Store) -> None:
    """Metrics do not show that the probes have failed."""
    seen: list[Event] = []
    context = msgspec.structs.replace(store._context, hook=Hook(seen.append))
    down = Outage(store._driver, Unavailable("down"))
    Store(down, context).health({"mena": "1h", "europe": None})
    found = [(each.dataset, each.call, each.error) for each in seen if isinstance(each, CallFailed)]
    assert found == [("mena", "health", "Unavailable"), ("europe", "health", "Unavailable")]


def test_only_what_is_wrong_with_the_call_is_raised(store: Store) -> None:
    """A bound with a typo never alarms."""
    bounds: Any
    for bounds in ("mena", ["mena"], {"mena": 12}, {"mena": "12"}, {"mena": "0h"}, {"mena": timedelta(0)}):
        with pytest.raises(InvalidInput):
            store.health(bounds)
    with pytest.raises(InvalidInput, match="dataset 'mena': '12 h' is not a duration: 1 or more and d, h,"):
        store.health({"mena": "12 h"})
    with pytest.raises(InvalidInput, match="dataset name 'a b'"):
        store.health({"a b": None})
    for timeout in (0, -1, True, "1"):
        with pytest.raises(InvalidInput, match="timeout"):
            store.health(timeout=timeout)  # type: ignore[arg-type]
    for wrong in ({"min_count": -1}, {"min_size": 1.5}, {"max_age": "x"}, {"min_count": "1"}):
        with pytest.raises(InvalidInput):
            Bound(**wrong)
    store.close()
    with pytest.raises(StoreClosed):
        store.health()


# --- counts ------------------------------------------------------------------------------------------


@pytest.mark.every_store
def test_a_count_is_a_label(store: Store) -> None:
    """What the producer counted is not there for readers in other languages, in the history or in copies."""
    store.publish("mena", [1], count=128, labels={"run": "7"}, id="a")
    assert store.read_latest("mena").labels == {"count": "128", "run": "7"}  # type: ignore[union-attr]
    assert [row.id for row in store.history("mena", label={"count": "128"})] == ["a"]
    assert not store.publish("mena", [1], count=128, labels={"run": "7"}, id="a").created
    with pytest.raises(swapstore.IdConflict):
        store.publish("mena", [1], count=127, labels={"run": "7"}, id="a")
    store.publish_group("eu", {"a": 1, "b": 2}, count=2)
    store.publish_many({"x": Item(1, count=5), "y": 1}).raise_for_failures()
    counts = {name: each.count for name, each in store.health().datasets.items()}
    assert counts == {"mena": 128, "eu": 2, "x": 5, "y": None}


@pytest.mark.parametrize("count", [-1, 1.0, True, "5", 10**15])
def test_an_invalid_count_is_refused(store: Store, count: Any) -> None:
    """A count that no reader takes for one is published."""
    with pytest.raises(InvalidInput, match="count must be"):
        store.publish("mena", 1, count=count)
    with pytest.raises(InvalidInput, match="count must be"):
        store.publish_many({"mena": Item(1, count=count)})
    with pytest.raises(InvalidInput, match="the label 'count' is what count= sets"):
        store.publish("mena", 1, count=1, labels={"count": "1"})
    with pytest.raises(InvalidInput, match="the limit is 1024"):
        store.publish("mena", 1, count=1, labels={"a": "x" * 1010})
    assert store.datasets() == []


@pytest.fixture
def strict(store: Store) -> Store:
    """A store that refuses snapshots of fewer than three items."""
    context = msgspec.structs.replace(store._context, validators=(validators.at_least(3),))
    return Store(store._driver, context)


def test_at_least_holds_for_the_first_publish(strict: Store) -> None:
    """A new dataset begins with an empty list, and there is nothing that it could shrink from."""
    for value in ([1, 2], {}, {"rows": [1, 2, 3]}):
        with pytest.raises(Rejected, match="and 3 or more are required"):
            strict.publish("mena", value)
    with pytest.raises(Rejected, match="it has 2 items"):
        strict.publish_group("mena", {"a": 1, "b": 2})
    assert strict.datasets() == []
    strict.publish("mena", [1, 2, 3])
    strict.publish_group("eu", {"a": 1, "b": 2, "c": 3})


def test_at_least_takes_the_count_of_the_producer(strict: Store) -> None:
    """A table in one field, or in bytes, cannot be checked; or the check is about something else."""
    strict.publish("mena", {"rows": [1, 2, 3]}, count=3)
    with pytest.raises(Rejected, match="it has 2 items, and 3 or more"):
        strict.publish("mena", [1, 2, 3], count=2)
    with pytest.raises(Rejected, match="it has 0 items"):
        strict.publish("mena", [1, 2, 3], count=0)
    with pytest.raises(Rejected, match="cannot be counted: .* publish it with count="):
        strict.publish("mena", b"abcdef", codec="bytes")
    strict.publish("mena", b"abcdef", codec="bytes", count=3)
    shrinking = validators.must_not_shrink(percent=10, of="items")
    strict.publish("mena", b"abcdef", codec="bytes", count=9)
    with pytest.raises(Rejected, match="shrinks from 9 to 8 items"):
        strict.publish("mena", b"abcdef", codec="bytes", count=8, validate=shrinking)


def test_at_least_measures_bytes(store: Store) -> None:
    """An image that was cut off in transfer is published."""
    enough = validators.at_least(5, of="bytes")
    with pytest.raises(Rejected, match="it has 4 bytes, and 5 or more are required"):
        store.publish("tiles", b"1234", codec="bytes", validate=enough)
    store.publish("tiles", b"12345", codec="bytes", validate=enough)
    for wrong in (-1, 1.5, "3", True):
        with pytest.raises(InvalidInput, match="number must be"):
            validators.at_least(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="of must be"):
        validators.at_least(1, of="rows")  # type: ignore[arg-type]


def test_the_report_is_plain_json(store: Store) -> None:
    """A monitor cannot read the report, or does not learn the bound that was broken."""
    store.publish("mena", 1)
    found = store.health({"mena": Bound(max_age="1d", min_count=3, min_size=1)})
    told = msgspec.json.decode(msgspec.json.encode(found.as_dict()))
    assert (told["ok"], told["state"], told["error"]) == (False, "too_small", None)
    one = told["datasets"]["mena"]
    assert one.keys() == {field.name for field in attrs.fields(DatasetHealth)} - {"bound"} | {
        "max_age_ms",
        "min_count",
        "min_size",
    }
    assert (one["max_age_ms"], one["min_count"], one["version"]) == (24 * HOUR_MS, 3, 1)


@pytest.mark.parametrize("after", [1, 2])
def test_a_dataset_that_is_dropped_during_the_report_is_not_missing(
    after: int, world: SimulatedStore
) -> None:
    """An operator drops a dataset that nobody expects, and a probe takes the server out of service."""
    producer = world.connect()
    producer.publish("mena", 1)
    producer.publish("asia", 1)
    store, driver = breakable(producer)
    execute, batches = driver._driver.execute, 0

    def dropping(commands: Any) -> Any:
        nonlocal batches
        batches += 1
        if batches == after + 1:
            driver._driver.execute = execute  # type: ignore[method-assign]
            producer.drop("asia")
        return execute(commands)

    driver._driver.execute = dropping  # type: ignore[method-assign]
    report = store.health()
    assert (report.ok, list(report.datasets)) == (True, ["mena"])


def test_the_worst_that_holds_is_the_state(world: SimulatedStore) -> None:
    """A dataset that is late hides that it is almost empty."""
    with world.connect() as store:
        store.publish("mena", 1)
        world.clock.ms += 2 * HOUR_MS
        both = Bound(max_age=timedelta(hours=1), min_size=1000)
        assert states(store, {"mena": both}) == {"mena": "too_small"}
