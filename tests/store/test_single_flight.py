"""Threads that read concurrently share loads, get nothing that is too old, and never hang."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from swapstore import InvalidInput, Snapshot, Store, Unavailable
from swapstore.commands import Command, Peek
from swapstore.single_flight import SingleFlight
from tests.support.drivers import another, cold_trips, meddled


class Slow:
    """A driver whose reads take a moment, and are counted."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver
        self.where, self.kind = driver.where, driver.kind
        self.binary_safe = driver.binary_safe
        self.loads: list[type[Command[Any]]] = []

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        self.loads += [type(command) for command in commands if not isinstance(command, Peek)]
        time.sleep(0.02)
        replies: list[Any] = self._driver.execute(commands)
        return replies

    def close(self) -> None:
        pass


def at_once(count: int, work: Callable[[], Any]) -> list[Any]:
    barrier = threading.Barrier(count)

    def one() -> Any:
        barrier.wait()
        return work()

    with ThreadPoolExecutor(count) as pool:
        return [future.result() for future in [pool.submit(one) for _ in range(count)]]


@pytest.mark.every_store
def test_many_cold_readers_cause_one_load(store: Store) -> None:
    """A web server that has just started reads one payload a hundred times."""
    store.publish("mena", {"n": 1}, labels={"a": "b"})
    cold = cold_trips(store)
    slow = Slow(another(store)._driver)
    reader = Store(slow, another(store)._context)
    snapshots = at_once(100, lambda: reader.read_latest("mena"))
    assert {snapshot.value["n"] for snapshot in snapshots} == {1}
    assert len(slow.loads) == cold
    snapshots[0].labels["a"] = "changed"
    snapshots[0].value["n"] = 9
    assert snapshots[1].labels == {"a": "b"}
    assert snapshots[1].value == {"n": 1}, "each has its own"


def test_a_reader_is_not_answered_by_a_load_that_began_before_it(store: Store) -> None:
    """A read misses what was published before it began, because an older load was in flight."""
    store.publish("mena", 1)
    client, meddler = meddled(store)
    client.read_latest("mena")
    late: list[Any] = []
    threads: list[threading.Thread] = []

    def publish_and_read() -> None:
        store.publish("mena", 2)
        thread = threading.Thread(target=lambda: late.append(client.read_latest("mena")))
        thread.start()
        threads.append(thread)
        time.sleep(0.05)

    meddler.after(len(meddler.batches), publish_and_read)
    first = client.read_latest("mena")
    threads[0].join(5)
    assert first is not None
    assert isinstance(late[0], Snapshot)
    assert late[0].value == 2


def test_waiting_readers_share_an_error() -> None:
    """When the store is down, a hundred readers wait for a hundred time-outs in a row."""
    flights: SingleFlight[int] = SingleFlight()
    calls: list[int] = []

    def fail() -> int:
        calls.append(1)
        time.sleep(0.3)  # so that all threads come while one is at it
        raise Unavailable("down")

    def attempt() -> Unavailable:
        with pytest.raises(Unavailable, match="down") as caught:
            flights.share("key", fail)
        return caught.value

    errors = at_once(20, attempt)
    assert len({id(error) for error in errors}) == 20, "each has its own: raising one adds to its traceback"
    assert len(calls) <= 3
    assert flights.share("key", lambda: 5) == 5


def test_an_interrupted_reader_does_not_interrupt_the_others() -> None:
    """Ctrl-C in the thread that loads also fails the threads that wait for it."""
    flights: SingleFlight[int] = SingleFlight()
    begun = threading.Event()

    def interrupted() -> int:
        begun.set()
        time.sleep(0.05)
        raise KeyboardInterrupt

    def leader() -> None:
        with pytest.raises(KeyboardInterrupt):
            flights.share("key", interrupted)

    thread = threading.Thread(target=leader)
    thread.start()
    begun.wait(5)
    assert at_once(5, lambda: flights.share("key", lambda: 7)) == [7] * 5
    thread.join(5)


def test_reads_within_the_bound_do_not_wait(store: Store) -> None:
    """A read that the cache may serve waits behind one that asks the store."""
    store.publish("mena", 1)
    reader = another(store)
    reader.read_latest("mena")
    slow = Store(Slow(reader._driver), msgspec.structs.replace(reader._context))
    began = threading.Event()

    def ask() -> None:
        began.set()
        slow.read_latest("mena")

    thread = threading.Thread(target=ask)
    thread.start()
    began.wait(5)
    assert slow.read_latest("mena", max_staleness=60) is not None
    thread.join(5)


def test_a_strict_read_is_not_served_from_the_cache_of_a_lenient_one(store: Store) -> None:
    """A read that allows no staleness gets an older version, because another thread allows a minute."""
    store.publish("mena", 1)
    client, meddler = meddled(store)
    found: dict[str, Snapshot | None] = {}
    threads: list[threading.Thread] = []

    def read(name: str, **options: Any) -> None:
        def load() -> None:
            found[name] = client.read_latest("mena", **options)

        threads.append(threading.Thread(target=load))
        threads[-1].start()
        time.sleep(0.05)  # so that they come in this order

    def publish_and_read() -> None:
        store.publish("mena", 2)
        read("lenient", max_staleness=60)
        read("strict")

    meddler.after(0, publish_and_read)
    client.read_latest("mena")
    for thread in threads:
        thread.join(5)
    assert found["strict"] is not None
    assert found["strict"].value == 2


def test_a_bad_argument_is_only_its_callers_error(store: Store) -> None:
    """A correct read raises `InvalidInput` for the argument of another thread's read."""
    store.publish("mena", 1)
    client, meddler = meddled(store)
    threads: list[threading.Thread] = []
    errors: list[Exception] = []
    found: list[Snapshot | None] = []

    def wrong() -> None:
        try:
            client.read_latest("mena", max_staleness=-1)
        except InvalidInput as error:
            errors.append(error)

    def start(target: Callable[[], object]) -> None:
        threads.append(threading.Thread(target=target))
        threads[-1].start()
        time.sleep(0.05)

    def start_both() -> None:
        start(wrong)
        start(lambda: found.append(client.read_latest("mena")))

    meddler.after(0, start_both)
    client.read_latest("mena")
    for thread in threads:
        thread.join(5)
    assert [str(error)[:15] for error in errors] == ["dataset 'mena':"]
    assert [snapshot and snapshot.value for snapshot in found] == [1]


def test_an_interrupted_reader_does_not_interrupt_those_that_joined_it() -> None:
    """Ctrl-C in the thread that loads for others is raised in their threads."""
    flights: SingleFlight[int] = SingleFlight()
    release = threading.Event()
    found: list[int] = []

    def interrupted() -> int:
        raise KeyboardInterrupt

    def second() -> None:
        with pytest.raises(KeyboardInterrupt):
            flights.share("key", interrupted)

    targets: list[Callable[[], object]] = [
        lambda: flights.share("key", lambda: release.wait(5) or 1),
        second,
        lambda: found.append(flights.share("key", lambda: 7)),
    ]
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
        time.sleep(0.05)
    release.set()
    for thread in threads:
        thread.join(5)
    assert found == [7]
