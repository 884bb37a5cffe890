"""Views: what a web service reads from memory is what `read_latest` serves, and it learns of each change."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Mapping
from typing import Any

import attrs
import fakeredis
import pytest

import swapstore
from swapstore import (
    Corrupt,
    InvalidInput,
    PayloadMissing,
    Snapshot,
    Store,
    StoreClosed,
    Unavailable,
)
from swapstore.commands import Get, GetServed, Peek
from swapstore.testing import SimulatedStore
from swapstore.views import View
from tests.support.damage import Damage
from tests.support.drivers import another, meddled
from tests.views.watched import WITHIN_S, eventually

QUICK = 0.02


def value(snapshot: Snapshot | None) -> Any:
    assert snapshot is not None
    return snapshot.value


def waiting(view: View) -> int:
    """How many threads wait for a change."""
    return len(view._more._waiters)  # type: ignore[attr-defined]


def test_it_serves_what_read_latest_serves(store: Store) -> None:
    """A service that reads a view serves other data than one that reads the store."""
    producer = another(store)
    producer.publish("mena", {"a": 1}, labels={"by": "cron"})
    producer.publish_group("groups", {"EG": 1, "JO": 2})
    with store.view(["mena", "groups", "europe"], poll=QUICK) as view:
        assert view["mena"] == store.read_latest("mena")
        assert view["groups"] == store.read_latest("groups")
        assert view["europe"] is None
        producer.publish("europe", 1)
        assert view.wait(WITHIN_S) == ["europe"]
        assert view["europe"] == store.read_latest("europe")


def test_it_is_a_mapping_of_the_names_that_were_given(store: Store) -> None:
    """A loop over a view leaves out a dataset that is not published yet, or a typing error reads None."""
    another(store).publish("mena", 1)
    with store.view(["mena", "europe"]) as view:
        assert list(view) == ["mena", "europe"]
        assert len(view) == 2
        assert "europe" in view
        assert "asia" not in view
        assert {name for name, snapshot in view.items() if snapshot} == {"mena"}
        with pytest.raises(KeyError, match="'asia' is not in <a view of 2 datasets in "):
            view["asia"]


@pytest.mark.every_store
def test_a_pin_a_rollback_and_an_erase_are_changes(store: Store) -> None:
    """An operator pins the last good version, and services that follow commits go on with the bad one."""
    producer = another(store)
    producer.publish("mena", "good", id="good")
    producer.publish("mena", "bad")
    with store.view(["mena"], poll=QUICK) as view:
        assert value(view["mena"]) == "bad"
        producer.pin("mena", id="good")
        assert view.wait(WITHIN_S) == ["mena"]
        assert value(view["mena"]) == "good"
        producer.unpin("mena")
        assert view.wait(WITHIN_S) == ["mena"]
        assert value(view["mena"]) == "bad"
        producer.rollback("mena", id="good")
        assert view.wait(WITHIN_S) == ["mena"]
        assert value(view["mena"]) == "good"
        producer.drop("mena")
        assert view.wait(WITHIN_S) == ["mena"]
        assert view["mena"] is None
        producer.publish("mena", "new")
        assert view.wait(WITHIN_S) == ["mena"]
        assert value(view["mena"]) == "new"


def test_a_confirmation_is_no_change_and_decodes_nothing_again(store: Store) -> None:
    """A producer that confirms every minute makes each reader build its index anew."""
    producer = another(store)
    producer.publish("mena", {"a": [1]})
    with store.view(["mena"], poll=QUICK) as view:
        first = view["mena"]
        assert first is not None
        decoded = value(first)
        status = producer.confirm("mena")
        eventually(lambda: view["mena"] is not first)
        assert value(view["mena"]) is decoded
        now = view["mena"]
        assert now == attrs.evolve(first, etag=status.etag)
        assert now.confirmed_at == status.confirmed_at
        assert view.wait(0) == []


def test_wait_tells_of_each_change_once(store: Store) -> None:
    """A change that comes between two waits is lost, or comes twice."""
    producer = another(store)
    with store.view(["a", "b"], poll=QUICK) as view:
        assert view.wait(0) == []
        producer.publish("a", 1)
        eventually(lambda: view["a"] is not None)
        producer.publish("b", 1)
        eventually(lambda: view["b"] is not None)
        found: list[str] = []
        while len(found) < 2:
            found += view.wait(WITHIN_S)
        assert sorted(found) == ["a", "b"]
        assert view.wait(0.05) == []


def test_wait_for_asyncio_tells_of_each_change_once() -> None:
    """A change that comes before a task waits is lost, or comes twice."""

    async def scenario() -> None:
        async with (
            fakeredis.FakeAsyncRedis() as client,
            swapstore.aio.connect(client) as store,
            store.view(["a", "b"], poll=QUICK) as view,
        ):
            await store.publish("a", 1)
            async with asyncio.timeout(WITHIN_S):
                while view._number == 0:  # noqa: ASYNC110 - nothing would set an event
                    await asyncio.sleep(0.01)
                assert await view.wait() == ["a"]
            first, second = asyncio.ensure_future(view.wait()), asyncio.ensure_future(view.wait())
            await asyncio.sleep(0)
            await store.publish("b", 1)
            assert [await first, await second] == [["b"], ["b"]]
            assert await view.wait(0.05) == []

    asyncio.run(scenario())


def test_threads_that_wait_at_the_same_time_all_learn_of_a_change(store: Store) -> None:
    """One of two threads that wait takes the change away from the other."""
    found: list[list[str]] = []
    with store.view(["a"], poll=QUICK) as view:
        threads = [threading.Thread(target=lambda: found.append(view.wait(WITHIN_S))) for _ in range(4)]
        for thread in threads:
            thread.start()
        eventually(lambda: waiting(view) == 4)
        another(store).publish("a", 1)
        for thread in threads:
            thread.join()
    assert found == [["a"]] * 4


def test_on_change_gets_the_first_load_and_each_change(store: Store) -> None:
    """A service builds its index in `on_change`, and has none until the first publish after its start."""
    producer = another(store)
    producer.publish("a", 1)
    seen: list[dict[str, Any]] = []

    def note(changed: Mapping[str, Snapshot | None]) -> None:
        seen.append({name: snapshot and snapshot.value for name, snapshot in changed.items()})

    with store.view(["a", "b"], poll=QUICK, on_change=note) as view:
        assert seen == [{"a": 1}]
        producer.publish("b", 2)
        view.wait(WITHIN_S)
    assert seen == [{"a": 1}, {"b": 2}]


def test_an_on_change_that_raises_is_logged_and_the_view_goes_on(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """One snapshot that a service cannot use stops all updates, silently."""

    def fail(changed: Mapping[str, Snapshot | None]) -> None:
        raise ZeroDivisionError(sorted(changed))

    producer = another(store)
    producer.publish("a", 0)
    with caplog.at_level(logging.ERROR, "swapstore"), store.view(["a"], poll=QUICK, on_change=fail) as view:
        for number in range(1, 3):
            producer.publish("a", number)
            eventually(lambda number=number: value(view["a"]) == number)  # type: ignore[misc]
        eventually(lambda: len(caplog.records) == 3)
        assert view.wait(WITHIN_S) == ["a"]
    said = {record.message for record in caplog.records}
    assert said == {f"on_change of {view!r} failed; the view goes on"}


def test_a_prefix_takes_in_what_is_published_later(store: Store) -> None:
    """A region that is added is not served until every reader is restarted."""
    producer = another(store)
    producer.publish("region/mena", 1)
    producer.publish("other", 1)
    with store.view(prefix="region/", poll=QUICK) as view:
        assert list(view) == ["region/mena"]
        assert view["region/asia"] is None
        producer.publish("region/asia", 2)
        assert view.wait(WITHIN_S) == ["region/asia"]
        assert dict(view) == {name: store.read_latest(name) for name in ("region/mena", "region/asia")}
        producer.drop("region/mena")
        assert view.wait(WITHIN_S) == ["region/mena"]
        assert list(view) == ["region/asia"]
        assert view["region/mena"] is None
        with pytest.raises(KeyError):
            view["other"]


def test_all_datasets_by_the_empty_prefix(store: Store) -> None:
    """A page of all datasets has to list them first."""
    producer = another(store)
    producer.publish("a", 1)
    producer.publish("b", 1)
    with store.view(prefix="") as view:
        assert sorted(view) == ["a", "b"]


def test_a_view_that_is_not_started_or_closed_says_so(store: Store) -> None:
    """A view that nobody keeps up to date serves old data for ever."""
    view = store.view(["a"])
    with pytest.raises(InvalidInput, match="not started"):
        view["a"]
    with view:
        assert view["a"] is None
        with pytest.raises(InvalidInput, match="started already"):
            view.start()
    for use in (lambda: view["a"], lambda: view.wait(0), lambda: view.age("a"), view.health, view.start):
        with pytest.raises(StoreClosed, match="the view is closed"):
            use()
    view.close()


def test_closing_the_store_closes_its_views(store: Store) -> None:
    """A thread goes on asking a closed store, or a program does not end."""
    other = another(store)
    view = other.view(["a"], poll=60).start()
    thread = threading.Thread(target=view.wait)
    thread.start()
    eventually(lambda: waiting(view) == 1)
    other.close()
    thread.join(WITHIN_S)
    assert not thread.is_alive()
    assert view._thread is not None
    view._thread.join(WITHIN_S)
    assert not view._thread.is_alive()
    with pytest.raises(StoreClosed):
        view["a"]
    assert not other._views


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either names of datasets, or prefix="),
        ({"datasets": ["a"], "prefix": "b"}, "either names of datasets, or prefix="),
        ({"datasets": 7}, "must be names of datasets, not a int"),
        ({"datasets": ["no spaces"]}, "dataset name"),
        ({"prefix": "{"}, "dataset name"),
        ({"datasets": ["a"], "poll": 0}, "poll must be between"),
        ({"datasets": ["a"], "wait_ready": -1}, "wait_ready must be 0 or more seconds"),
        ({"datasets": ["a"], "on_change": "print"}, "on_change must be a function, not 'print'"),
    ],
)
def test_arguments_that_cannot_be_used(store: Store, arguments: dict[str, Any], message: str) -> None:
    """A typing error in a start-up script is found at the first request."""
    with pytest.raises(InvalidInput, match=message):
        store.view(**arguments)


def test_a_look_asks_only_whether_something_changed() -> None:
    """A view of a thousand datasets reads a thousand manifests every two seconds."""
    sim = SimulatedStore()
    producer, store = sim.connect(), sim.connect()
    names = [f"d{number}" for number in range(20)]
    for name in names:
        producer.publish(name, 1)
    client, meddler = meddled(store)
    viewing = client.view(names)._viewing
    viewing.told(client._run(viewing.begin()))
    assert [type(command) for command in meddler.batches[0]] == [GetServed] * 20
    producer.publish("d7", 2)
    del meddler.batches[:]
    assert client._run(viewing.step()) == ["d7"]
    first, head, record = meddler.batches
    assert all(isinstance(command, Peek) and command.size < 60 for command in first)
    assert [len(first), len(head), len(record), type(record[0])] == [20, 1, 1, Get]


def test_damage_of_one_dataset_leaves_the_others(store: Store) -> None:
    """One lost payload takes a whole service down, which serves forty other datasets."""
    producer = another(store)
    for name in ("a", "b"):
        producer.publish(name, 1)
    lost = producer.publish("b", 2, id="lost")
    Damage(store).delete(store._context.keys.id("b", "lost"))
    with store.view(["a", "b"], poll=QUICK) as view:
        assert value(view["a"]) == 1
        with pytest.raises(PayloadMissing):
            view["b"]
        assert view.age("b") == math.inf, "no bound on the age holds"
        health = view.health()
        assert health.ready
        assert health.behind == ("b",)
        assert isinstance(health.datasets["b"].error, PayloadMissing)
        assert health.datasets["b"].version is None
        producer.publish("b", 3)
        eventually(lambda: view.health().behind == ())
        assert value(view["b"]) == 3
    assert lost.version == 2


def test_damage_that_comes_later_leaves_the_last_good_one(store: Store) -> None:
    """A service that has good data in its memory serves an error instead."""
    producer = another(store)
    producer.publish("b", 1)
    with store.view(["b"], poll=QUICK) as view:
        Damage(store).put(store._context.keys.manifest("b"), b"nonsense")
        eventually(lambda: view.health().behind == ("b",))
        assert isinstance(view.health().datasets["b"].error, Corrupt)
        assert value(view["b"]) == 1
        assert view.health().datasets["b"].version == 1


def test_a_store_that_is_down_at_the_start(tmp_path: Any) -> None:
    """A service cannot start while the store is down, or it takes what it could not read for nothing."""
    url = f"sqlite:///{tmp_path}/missing/store.db"
    with swapstore.connect(url, patience=0) as store:
        with pytest.raises(swapstore.SwapstoreError):
            store.view(["a"]).start()
        with store.view(["a"], wait_ready=0, poll=QUICK) as view:
            assert not view.health().ready
            with pytest.raises((Unavailable, swapstore.Misconfigured)):
                view["a"]
            (tmp_path / "missing").mkdir()
            with swapstore.connect(url) as producer:
                producer.publish("a", 1)
            assert view.wait(WITHIN_S) == ["a"]
            assert value(view["a"]) == 1
            eventually(lambda: view.health().ready)


def test_wait_ready_ends_as_soon_as_the_first_load(store: Store) -> None:
    """A service waits for the whole time although everything is there."""
    another(store).publish("a", 1)
    began = time.monotonic()
    with store.view(["a"], wait_ready=60) as view:
        assert value(view["a"]) == 1
    assert time.monotonic() - began < 30
