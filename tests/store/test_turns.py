"""Publishes of one dataset queue within a client: in order, and nobody waits for what never comes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from swapstore import Retention, Store, turns
from swapstore.events import Event, Hook, Published, Retried
from swapstore.protocol.operation import Turn
from swapstore.turns import Place, Turns
from tests.support.drivers import meddled
from tests.support.interrupts import Threads, interrupted_at

MENA = Turn(("mena",))


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def is_queued(queues: Turns, count: int) -> bool:
    return queued(queues) == count


def queued(queues: Turns) -> int:
    return len(queues.queues.get("mena", ()))


def listening(store: Store, **changes: Any) -> tuple[Store, list[Event]]:
    told: list[Event] = []
    return meddled(store, hook=Hook(told.append), **changes)[0], told


def retries(told: list[Event]) -> int:
    return sum(isinstance(event, Retried) for event in told)


SWAPS: dict[str, Callable[[Store], Any]] = {
    "publish": lambda store: store.publish("mena", 1),
    "publish_many": lambda store: store.publish_many({"europe": 1, "mena": 1}).raise_for_failures(),
    "confirm": lambda store: store.confirm("mena"),
    "pin": lambda store: store.pin("mena", id="first"),
    "unpin": lambda store: store.unpin("mena"),
    "rollback": lambda store: store.rollback("mena", id="first"),
    "prune": lambda store: store.prune("mena", retention=Retention(max_count=1)),
}


@pytest.mark.every_store
def test_threads_that_publish_to_one_dataset_lose_no_races(store: Store) -> None:
    """Thirty threads that publish to one dataset draft the same version, and all but one draft it in vain."""
    store.publish("mena", 0, id="first")
    client, told = listening(store)
    threads = Threads()
    for number in range(30):
        threads.start(client.publish, "mena", number)
    assert sorted(commit.version for commit in threads.join()) == list(range(2, 32))
    assert retries(told) == 0
    assert client._turns.queues == {}


@pytest.mark.parametrize("swap", SWAPS)
def test_every_swap_takes_its_turn(store: Store, swap: str) -> None:
    """Pins and prunes race with the publishes of the same process, and lose."""
    store.publish("mena", 0, id="first")
    client, _ = listening(store)
    place = Place(client._turns)
    place.wait(MENA)
    threads = Threads()
    threads.start(lambda: SWAPS[swap](client))
    until(lambda: queued(client._turns) == 2)
    place.leave()
    assert not [error for error in threads.join() if isinstance(error, Exception)]
    assert client._turns.queues == {}


def test_turns_are_taken_in_the_order_of_arrival(store: Store) -> None:
    """A producer that came first publishes last, and its older data is served."""
    client, _ = listening(store)
    place = Place(client._turns)
    place.wait(MENA)
    threads = Threads()
    for number in range(8):
        threads.start(client.publish, "mena", number)
        until(partial(is_queued, client._turns, number + 2))
    place.leave()
    threads.join()
    rows = list(client.history("mena"))
    assert [client.read("mena", id=row.id).value for row in rows] == list(range(8))[::-1]  # type: ignore[union-attr]


def test_a_value_is_encoded_when_the_call_is_made(store: Store) -> None:
    """A dict that its owner goes on changing is published as it is when its turn comes."""
    client, _ = listening(store)
    place = Place(client._turns)
    place.wait(MENA)
    value, threads = {"n": 1}, Threads()
    threads.start(lambda: client.publish("mena", value))
    until(lambda: queued(client._turns) == 2)
    value["n"] = 2
    place.leave()
    threads.join()
    assert client.read_latest("mena").value == {"n": 1}  # type: ignore[union-attr]


def test_datasets_do_not_wait_for_each_other(store: Store) -> None:
    """A slow publish of one dataset holds up all others."""
    client, _ = listening(store)
    place = Place(client._turns)
    place.wait(MENA)
    threads = Threads()
    threads.start(lambda: client.publish("europe", 1))
    assert threads.join()[0].version == 1
    place.leave()


def test_batches_that_share_datasets_do_not_wait_for_each_other_in_a_circle(store: Store) -> None:
    """Two calls of publish_many name two datasets in another order, and each has the turn of one."""
    client, told = listening(store)
    threads = Threads()
    both = {"mena": 1, "europe": 2}

    def publish_both(values: dict[str, int]) -> None:
        client.publish_many(values).raise_for_failures()

    began = time.monotonic()
    for number in range(20):
        values = both if number % 2 else dict(reversed(both.items()))
        threads.start(publish_both, values)
    assert threads.join() == [None] * 20
    assert time.monotonic() - began < turns.PATIENCE_S
    assert retries(told) == 0


@pytest.mark.parametrize("swap", SWAPS)
def test_a_validator_may_swap_the_same_dataset(store: Store, swap: str) -> None:
    """A validator that publishes to the dataset that it validates waits for its own publish."""
    store.publish("mena", 0, id="first")
    store.pin("mena", id="first")
    client, _ = listening(store)
    done: list[Any] = []

    def validate(*_: object) -> None:
        if not done:
            done.append(True)
            SWAPS[swap](client)

    began = time.monotonic()
    commit = client.publish("mena", 2, validate=validate)
    assert commit.created
    assert done
    assert time.monotonic() - began < turns.PATIENCE_S / 2
    assert client._turns.queues == {}
    assert not turns.busy.threads


def test_listeners_may_publish_crosswise(store: Store) -> None:
    """Listeners that publish to each other's dataset, in two threads, wait for each other."""
    both = threading.Barrier(2, timeout=30)
    client: list[Store] = []

    def listen(event: Event) -> None:
        if isinstance(event, Published) and not both.broken:
            both.wait()
            client[0].publish("europe" if event.dataset == "mena" else "mena", "crosswise")
            both.abort()

    client.append(meddled(store, hook=Hook(listen))[0])
    threads = Threads()
    began = time.monotonic()
    for name in ("mena", "europe"):
        threads.start(client[0].publish, name, 1)
    assert [commit.version for commit in threads.join()] == [1, 1]
    assert time.monotonic() - began < turns.PATIENCE_S / 2


def test_an_operation_that_is_stuck_is_not_waited_for_without_a_bound(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A validator that waits for another thread's publish of the same dataset hangs both."""
    monkeypatch.setattr(turns, "LOOK_S", 0.01)
    client, _ = listening(store)
    others = Threads()

    def validate(*_: object) -> None:
        if not others.results:
            others.start(lambda: client.publish("mena", "by another thread"))
            assert others.join()[0].version == 1

    assert client.publish("mena", 1, validate=validate).version == 2
    assert client._turns.queues == {}


def test_an_operation_that_is_stuck_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each operation behind one that is stuck waits for it anew, ten seconds each."""
    queues = Turns()
    stuck, waiting, later = Place(queues), Place(queues), Place(queues)
    stuck.wait(MENA)
    others = Threads()
    monkeypatch.setattr(turns, "LOOK_S", 0.01)
    others.start(waiting.wait, MENA)
    others.join()
    waiting.leave()
    monkeypatch.setattr(turns, "LOOK_S", 1000.0)
    others.start(later.wait, MENA)
    until(lambda: len(others.results) == 2)
    later.leave()
    stuck.leave()
    assert queues.queues == {}


def test_an_interrupt_at_any_line_leaves_nothing_in_the_queue() -> None:
    """Ctrl-C while a publish queues, or as it ends, holds up each later publish for ten seconds."""
    number = 0
    while interrupted_publish(number):
        number += 1
        assert number < 200
    assert number > 20


def interrupted_publish(number: int) -> bool:
    queues, threads = Turns(), Threads()
    held = threading.Event()

    def publish(then: Callable[[], object]) -> None:
        place = Place(queues)
        try:
            try:
                place.wait(MENA)
                then()
            finally:
                place.leave()
        finally:
            place.leave()

    threads.start(lambda: publish(lambda: held.wait(60)))
    until(lambda: queued(queues) == 1)
    threading.Timer(0.005, held.set).start()
    began = time.monotonic()
    more = interrupted_at(number, lambda: publish(int), "swapstore.turns")
    threads.start(lambda: publish(int))
    held.set()
    assert threads.join() == [None, None]
    assert time.monotonic() - began < turns.PATIENCE_S / 2, number
    assert queues.queues == {}
    assert not turns.busy.threads
    return more


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_process_that_is_forked_while_others_queue_publishes() -> None:
    """A worker that is forked while a thread publishes waits ten seconds for that thread."""
    queues, threads = Turns(), Threads()
    held = threading.Event()

    def hold() -> None:
        place = Place(queues)
        place.wait(MENA)
        held.wait(60)
        place.leave()

    def publish_in_child() -> int:
        child = os.fork()
        if not child:
            place = Place(queues)
            place.wait(MENA)
            first = queued(queues) == 1
            place.leave()
            os._exit(0 if first and not queued(queues) else 1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    threads.start(hold)
    until(lambda: queued(queues) == 1)
    began = time.monotonic()
    assert publish_in_child() == 0
    assert time.monotonic() - began < turns.PATIENCE_S / 2
    held.set()
    threads.join()
