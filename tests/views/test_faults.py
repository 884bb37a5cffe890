"""Views when something beside the store goes wrong: a start, `on_change`, a fork, other programs."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

import fakeredis
import pytest

import swapstore
from swapstore import Corrupt, InvalidInput, Store, StoreClosed, Unavailable
from swapstore.commands import Failed
from swapstore.drivers.redis import subscription
from swapstore.drivers.redis.subscription import AsyncRedisListener, RedisListener
from swapstore.protocol.view import Viewing
from swapstore.testing import SimulatedStore
from swapstore.views import View
from tests.support.damage import Damage
from tests.support.drivers import another, meddled
from tests.support.valkey import Server
from tests.views.test_outages import subscribed, until
from tests.views.test_processes import in_a_child
from tests.views.test_view import QUICK, value
from tests.views.watched import WITHIN_S, eventually

LONG = 60.0  # a poll that no test waits for


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise error

    return fail


# --- the start -----------------------------------------------------------------------------------------


def test_a_start_that_is_tried_again_calls_on_change_with_all(store: Store) -> None:
    """A service that tries `start` again has no index of the datasets that the first attempt had read."""
    producer = another(store)
    producer.publish("a", 1)
    producer.publish("b", 1)
    client, meddler = meddled(store, cache_bytes=0)
    meddler.replies(0, lambda replies: [*replies[:-1], Failed(Unavailable("dark"))])
    seen: list[Any] = []
    view = client.view(["a", "b"], on_change=seen.append)
    with pytest.raises(Unavailable):
        view.start()
    with view:
        assert [sorted(changed) for changed in seen] == [["a", "b"]]


def test_a_start_that_is_interrupted_leaves_no_view_that_nobody_keeps(store: Store) -> None:
    """After Ctrl-C in a notebook the view goes on to serve, and never learns of a change."""
    another(store).publish("a", 1)
    view = store.view(["a"], on_change=raising(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        view.start()
    with pytest.raises(StoreClosed):
        view["a"]


def test_a_store_that_is_closed_while_a_view_waits_for_its_first_load(store: Store) -> None:
    """A service that is stopped while its store is down hangs for the whole `wait_ready`."""
    client, meddler = meddled(store)

    def fail(_: object) -> list[Any]:
        raise Unavailable("dark")

    meddler.execute = fail  # type: ignore[assignment, method-assign]
    view = client.view(["a"], wait_ready=LONG, poll=QUICK)
    thread = threading.Thread(target=view.start)
    thread.start()
    eventually(lambda: view._thread is not None)
    client.close()
    thread.join(WITHIN_S)
    assert not thread.is_alive()


def test_a_thread_that_cannot_be_started(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container at its limit of threads the view serves the first load for ever, or cannot be closed."""
    view = store.view(["a"])
    monkeypatch.setattr(threading.Thread, "start", raising(RuntimeError("can't start new thread")))
    with pytest.raises(RuntimeError, match="new thread"):
        view.start()
    view.close()
    with pytest.raises(StoreClosed):
        view["a"]


@pytest.mark.parametrize("closing", ["view", "store"])
def test_on_change_closes_at_the_first_load(store: Store, closing: str) -> None:
    """A view that was closed goes on to serve what nobody keeps up to date."""
    another(store).publish("a", 1)
    client = another(store)
    view: View = client.view(["a"], on_change=lambda _: view.close() if closing == "view" else client.close())
    view.start()
    with pytest.raises(StoreClosed):
        view["a"]


def test_views_that_could_not_start_are_forgotten(store: Store) -> None:
    """A service that tries for a night to make a view keeps every one of them in its memory."""
    client, meddler = meddled(store)

    def fail() -> None:
        raise Unavailable("dark")

    meddler.before(0, fail)
    view = client.view(["a"])
    with pytest.raises(Unavailable):
        view.start()
    gone = weakref.ref(view)
    del view
    gc.collect()
    assert gone() is None


def test_a_view_whose_thread_has_ended(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps a view up to date is killed, as a greenlet can be, and the view is old for ever."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    client, meddler = meddled(store)
    meddler.before(10, raising(SystemExit()))
    view = client.view(["a"], poll=QUICK).start()
    assert view.wait(WITHIN_S) == []
    with pytest.raises(StoreClosed):
        view["a"]
    assert view._thread is not None
    view._thread.join(WITHIN_S)


def test_a_view_whose_event_loop_has_ended() -> None:
    """A program runs a view in one event loop, reads it in the next, and gets old data for ever."""
    views: list[Any] = []

    async def scenario() -> None:
        store = swapstore.aio.connect(fakeredis.FakeAsyncRedis())
        views.append(await store.view(["a"], poll=LONG).start())
        assert views[0]["a"] is None

    asyncio.run(scenario())
    with pytest.raises(StoreClosed, match="or its event loop"):
        views[0]["a"]


# --- on_change -----------------------------------------------------------------------------------------


def test_on_change_that_waits_is_refused(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """A view waits for itself, and nothing is up to date any more."""
    another(store).publish("a", 1)
    view: View = store.view(["a"], poll=QUICK, on_change=lambda _: view.wait())
    with view:
        another(store).publish("a", 2)
        assert view.wait(WITHIN_S) == ["a"]
    errors = [record.exc_info[1] for record in caplog.records if record.exc_info]
    assert [str(error) for error in errors] == [
        "on_change cannot wait: the view looks for changes when it has returned"
    ] * 2
    assert all(isinstance(error, InvalidInput) for error in errors)


def test_on_change_that_ends_its_thread(store: Store) -> None:
    """A call of sys.exit deep in `on_change` ends the thread, silently, and the view is old for ever."""
    with store.view(["a"], poll=QUICK, on_change=raising(SystemExit(1))) as view:
        for number in range(1, 3):
            another(store).publish("a", number)
            assert view.wait(WITHIN_S) == ["a"]


def test_nothing_is_called_after_close(store: Store) -> None:
    """A service frees its index, closes the view, and `on_change` builds into what is gone."""
    client, meddler = meddled(store)
    hangs, goes_on = threading.Event(), threading.Event()
    seen: list[Any] = []

    def hang() -> None:
        hangs.set()
        goes_on.wait(WITHIN_S)

    meddler.before(10, hang)
    view = client.view(["a"], poll=QUICK, on_change=seen.append).start()
    assert hangs.wait(WITHIN_S)
    another(store).publish("a", 1)
    thread = view._thread
    assert thread is not None
    view.close()
    goes_on.set()
    thread.join(WITHIN_S)
    assert not thread.is_alive()
    assert seen == []


def test_on_change_for_asyncio_that_awaits_what_was_cancelled() -> None:
    """`on_change` awaits a task that somebody cancels: the view ends, silently, and is old for ever."""

    async def cancelled(_: object) -> None:
        task = asyncio.ensure_future(asyncio.sleep(WITHIN_S))
        task.cancel()
        await task

    async def scenario() -> None:
        async with fakeredis.FakeAsyncRedis() as client, swapstore.aio.connect(client) as store:
            await store.publish("a", 0)
            async with store.view(["a"], poll=QUICK, on_change=cancelled) as view:
                for number in range(1, 3):
                    await store.publish("a", number)
                    assert await view.wait(WITHIN_S) == ["a"]

    asyncio.run(scenario())


@pytest.mark.parametrize("wait_ready", [None, WITHIN_S])
def test_a_start_for_asyncio_that_is_cancelled(
    wait_ready: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start with a time-out leaves a view that serves and is never updated, or a task that nobody ends."""

    async def scenario() -> None:
        async with fakeredis.FakeAsyncRedis() as client, swapstore.aio.connect(client) as store:
            await store.publish("a", 0)
            view = store.view(["a"], wait_ready=wait_ready, on_change=lambda _: asyncio.sleep(WITHIN_S))
            if wait_ready is not None:
                monkeypatch.setattr(Viewing, "_note_look", lambda *_, **__: None)  # it is never ready
            before = asyncio.all_tasks()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await view.start()
            with pytest.raises(StoreClosed):
                view["a"]
            assert asyncio.all_tasks() == before

    asyncio.run(scenario())


def test_on_change_for_asyncio_may_close_and_may_not_wait(caplog: pytest.LogCaptureFixture) -> None:
    """`on_change` waits for its own task, and nothing is up to date any more."""

    async def scenario() -> None:
        async def wait(_: object) -> None:
            await view.wait()

        async def close(_: object) -> None:
            await store.close()

        async with fakeredis.FakeAsyncRedis() as client, swapstore.aio.connect(client) as store:
            await store.publish("a", 0)
            view = store.view(["a"], poll=QUICK, on_change=wait)
            async with view:
                await store.publish("a", 1)
                assert await view.wait(WITHIN_S) == ["a"]
            view = store.view(["a", "b"], poll=QUICK, on_change=close)
            await view.start()
            with pytest.raises(StoreClosed):
                view["a"]

    asyncio.run(scenario())
    assert len(caplog.records) == 2
    assert all("on_change of" in record.message for record in caplog.records)


# --- prefixes ------------------------------------------------------------------------------------------


def test_what_is_not_published_has_an_age_too() -> None:
    """An alarm on the age of a dataset fails, or sounds for ever after it was dropped."""
    sim = SimulatedStore()
    producer, store = sim.connect(), sim.connect()
    producer.publish("region/mena", 1)
    view = store.view(prefix="region/", poll=1)
    viewing = view._viewing
    store._run(viewing.begin())
    view._started = True
    sim.clock.sleep(5)
    assert view.age("region/asia") == 5
    producer.drop("region/mena")
    store._run(viewing.look(None))
    sim.clock.sleep(3)
    store._run(viewing.look(None))
    assert view["region/mena"] is None
    assert view.age("region/mena") == 0
    assert view.age("region/asia") == 0
    sim.clock.sleep(2)
    producer.publish("region/mena", 2)
    store._run(viewing.look({"region/mena"}))
    assert view.age("region/mena") == 0
    assert view.age("region/asia") == 2


def test_a_damaged_dataset_under_a_prefix_until_it_is_dropped(store: Store) -> None:
    """A health check says that all is well, or the damage is raised for ever after it is gone."""
    producer = another(store)
    producer.publish("region/mena", 1)
    producer.publish("region/asia", 1)
    Damage(store).put(store._context.keys.manifest("region/asia"), b"nonsense")
    with store.view(prefix="region/", poll=QUICK) as view:
        assert list(view) == ["region/mena"]
        with pytest.raises(Corrupt):
            view["region/asia"]
        health = view.health()
        assert health.behind == ("region/asia",)
        assert health.datasets["region/asia"].version is None
        Damage(store).delete(store._context.keys.manifest("region/asia"))
        Damage(store).unlist()  # as a drop does
        eventually(lambda: view.health().behind == ())
        assert view["region/asia"] is None


def test_a_list_that_is_away_takes_nothing_from_its_datasets() -> None:
    """On a cluster one node is down, that with the list of names, and no dataset of a view is up to date."""
    sim = SimulatedStore()
    producer = sim.connect()
    producer.publish("region/mena", 1)
    client, meddler = meddled(sim.connect())
    viewing = client.view(prefix="region/")._viewing
    viewing.told(client._run(viewing.begin()))
    producer.publish("region/mena", 2)
    dark = Unavailable("dark")
    meddler.replies(len(meddler.batches), lambda _: [Failed(dark)])
    looked = client._run(viewing.look(None))
    assert looked.found == ["region/mena"]
    assert looked.failure is dark
    assert not viewing.connected


def test_a_dataset_that_is_refused_takes_nothing_from_the_others() -> None:
    """On a cluster one node is down, and all datasets are old, or those of that node seem to be fresh."""
    sim = SimulatedStore()
    producer = sim.connect()
    for name in ("a", "b"):
        producer.publish(name, 1)
    client, meddler = meddled(sim.connect())
    view = client.view(["a", "b"])
    view._started = True
    view._viewing.told(client._run(view._viewing.begin()))
    for name in ("a", "b"):
        producer.publish(name, 2)
    dark = Unavailable("dark")
    meddler.replies(len(meddler.batches), lambda replies: [Failed(dark), *replies[1:]])
    looked = client._run(view._viewing.look(None))
    assert looked.found == ["b"]
    assert looked.failure is dark
    assert [value(view["a"]), value(view["b"])] == [1, 2]
    assert view.health().behind == ("a",)
    assert view.health().datasets["a"].error is dark


# --- the store goes back -------------------------------------------------------------------------------


def test_the_same_id_published_again_after_the_store_went_back() -> None:
    """After a failover the producer publishes again, and readers keep the labels of the lost commit."""
    sim = SimulatedStore()
    producer, store = sim.connect(), sim.connect()
    producer.publish("a", 0)
    old = sim.keyspace.copy()
    lost = producer.publish("a", 1, id="one", labels={"by": "first"})
    viewing = store.view(["a"])._viewing
    viewing.told(store._run(viewing.begin()))
    sim.keyspace.values, sim.keyspace.sets = old.values, old.sets
    again = sim.connect().publish("a", 1, id="one", labels={"by": "second"})
    assert again.version == lost.version
    assert store._run(viewing.look(None)).found == ["a"]
    assert viewing.held["a"] == sim.connect().read_latest("a")


# --- hints ---------------------------------------------------------------------------------------------


class Flood:
    """A connection on which hints for one dataset never end."""

    def __init__(self) -> None:
        self.read = 0

    def can_read(self, timeout: float) -> bool:
        return True

    def read_response(self, **_: object) -> Any:
        self.read += 1
        assert self.read < 100_000, "the wait does not return"
        return [b"message", b"busy", b""]


class AsyncFlood(Flood):
    async def read_response(self, **_: object) -> Any:
        return super().read_response()


def test_hints_for_one_dataset_that_never_end() -> None:
    """A dataset that is published all the time, and the view of the others is old for ever."""
    listener = RedisListener(Flood, ["busy"])
    listener._connection, listener._pid = Flood(), os.getpid()
    assert listener.wait(LONG) == ["busy"]
    assert listener._connection.read == subscription.MOST_HINTS

    async def scenario() -> None:
        listener = AsyncRedisListener(AsyncFlood, ["busy"])
        listener._connection = AsyncFlood()
        assert await listener.wait(LONG) == ["busy"]
        assert listener._connection.read == subscription.MOST_HINTS

    asyncio.run(scenario())


class Confirming:
    """A connection whose server confirms so many channels."""

    def __init__(self, confirms: int) -> None:
        self._left = confirms

    def connect(self) -> None: ...

    def disconnect(self) -> None: ...

    def send_command(self, *_: object, **__: object) -> None: ...

    def can_read(self, timeout: float) -> bool:
        return self._left > 0

    def read_response(self, **_: object) -> Any:
        self._left -= 1
        return [b"subscribe", b"a", 1] if self._left >= 0 else None


class AsyncConfirming(Confirming):
    async def connect(self) -> None:  # type: ignore[override]
        ...

    async def send_command(self, *_: object, **__: object) -> None:  # type: ignore[override]
        ...

    async def read_response(self, **_: object) -> Any:
        return super().read_response()


def test_a_subscription_lasts_from_the_last_confirmation() -> None:
    """A view looks before the server has subscribed it to all channels, and misses the commits in between."""
    names = ["a", "b", "c"]
    for confirmed in range(4):
        listener = RedisListener(lambda confirmed=confirmed: Confirming(confirmed), names)  # type: ignore[misc]
        listener.wait(0)
        assert (listener._connection is not None) is (confirmed == 3)

    async def scenario() -> None:
        for confirmed in range(4):
            connect = lambda confirmed=confirmed: AsyncConfirming(confirmed)  # noqa: E731
            listener = AsyncRedisListener(connect, names)
            await listener.wait(0)
            assert (listener._connection is not None) is (confirmed == 3)

    asyncio.run(scenario())


STRANGE = [
    b"swapstore:manifest:{\xff\xfe}",
    b"swapstore:manifest:{}",
    b"swapstore:manifest:{a}b",
    b"swapstore:manifest:{a}}",
    b"swapstore:manifest:{" + b"a" * 1000 + b"}",
]


@pytest.mark.slow
@pytest.mark.parametrize("is_async", [False, True], ids=["blocking", "asyncio"])
def test_hints_that_others_publish(valkey: Server, caplog: pytest.LogCaptureFixture, is_async: bool) -> None:  # noqa: FBT001
    """Another program's message ends the subscription, or is looked up as if it were a dataset."""

    def disturb() -> None:
        with valkey.client() as client, client.pipeline(transaction=False) as pipe:
            for channel in STRANGE * 300:
                pipe.publish(channel, b"\xff")
            pipe.execute()

    with swapstore.connect(valkey.url) as producer:
        producer.publish("a", 0)
        if is_async:

            async def scenario() -> None:
                async with (
                    swapstore.aio.connect(valkey.url) as store,
                    store.view(prefix="", poll=LONG) as view,
                ):
                    await until(lambda: subscribed(valkey) == 1)
                    disturb()
                    await asyncio.to_thread(producer.publish, "a", 1)
                    assert await view.wait(WITHIN_S) == ["a"]
                    assert list(view) == ["a"]
                    assert set(view._viewing._marks) == {"a"}

            asyncio.run(scenario())
        else:
            with swapstore.connect(valkey.url) as store, store.view(prefix="", poll=LONG) as view:
                eventually(lambda: subscribed(valkey) == 1)
                disturb()
                producer.publish("a", 1)
                assert view.wait(WITHIN_S) == ["a"]
                assert list(view) == ["a"]
                assert set(view._viewing._marks) == {"a"}
    assert not caplog.records


@pytest.mark.slow
def test_hints_after_a_fault_of_our_own(valkey: Server) -> None:
    """After one unexpected error at its start a view never hears of a change again, and only polls."""
    with swapstore.connect(valkey.url) as origin, swapstore.connect(valkey.url) as producer:
        client, meddler = meddled(origin)
        meddler.before(0, raising(ZeroDivisionError("unexpected")))
        with client.view(["a"], poll=LONG, wait_ready=0) as view:
            eventually(lambda: view.health().ready and subscribed(valkey) == 1)
            assert view["a"] is None
            producer.publish("a", 1)
            assert view.wait(WITHIN_S) == ["a"]


@pytest.mark.slow
def test_a_hint_that_is_lost_with_the_wait_for_it(valkey: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait for hints fails unexpectedly, and what they announced is seen at the next poll only."""
    with (
        swapstore.connect(valkey.url) as store,
        swapstore.connect(valkey.url) as producer,
        store.view(["a"], poll=LONG) as view,
    ):
        eventually(lambda: subscribed(valkey) == 1)
        monkeypatch.setattr(subscription, "_hint", raising(ZeroDivisionError("unexpected")))
        producer.publish("a", 1)
        eventually(lambda: subscribed(valkey) == 0)
        monkeypatch.undo()
        assert view.wait(WITHIN_S) == ["a"]


@pytest.mark.slow
def test_the_store_is_closed_while_a_look_is_under_way(valkey: Server) -> None:
    """A look that ends after the store was closed leaves a connection open."""
    hangs, goes_on = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        goes_on.wait(WITHIN_S)

    with swapstore.connect(valkey.url) as origin, valkey.client() as client:
        store, meddler = meddled(origin)
        meddler.close = origin._driver.close  # type: ignore[method-assign]
        meddler.before(10, hang)
        view = store.view(["a"], poll=QUICK).start()
        assert hangs.wait(WITHIN_S)
        store.close()
        goes_on.set()
        assert view._thread is not None
        view._thread.join(WITHIN_S)
        eventually(lambda: len(client.client_list()) == 1)


# --- forks ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_while_on_change_runs(store: Store) -> None:
    """A worker that is forked while its parent builds an index has the old one until the next publish."""
    indexed: list[int] = []
    runs, goes_on = threading.Event(), threading.Event()
    parent = os.getpid()

    def index(changed: Any) -> None:
        if os.getpid() == parent:
            runs.set()
            goes_on.wait(WITHIN_S)
        indexed.append(changed["a"].value)

    with store.view(["a"], poll=QUICK, on_change=index) as view:
        another(store).publish("a", 1)
        assert runs.wait(WITHIN_S)

        def child() -> None:
            assert value(view["a"]) == 1
            assert view.wait(WITHIN_S) == ["a"]
            assert indexed == [1]

        try:
            in_a_child(child)
        finally:
            goes_on.set()
        assert view.wait(WITHIN_S) == ["a"]
    assert indexed == [1]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_while_another_thread_waits_or_tells(store: Store) -> None:
    """A worker that is forked at a bad moment hangs when it first reads its view."""
    holds, goes_on = threading.Event(), threading.Event()

    def hold() -> None:
        with view._more:
            holds.set()
            goes_on.wait(WITHIN_S)

    with store.view(["a"], poll=QUICK) as view:
        thread = threading.Thread(target=hold)
        thread.start()
        assert holds.wait(WITHIN_S)

        def child() -> None:
            assert view["a"] is None
            another(store).publish("a", 1)
            assert view.wait(WITHIN_S) == ["a"]

        try:
            in_a_child(child)
        finally:
            goes_on.set()
            thread.join()
