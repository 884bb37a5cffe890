"""A reader depends on no other reader: not on one that is interrupted, and not on itself."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import swapstore
from swapstore import Store, Unavailable, single_flight, turns
from swapstore.events import Event, Hook
from swapstore.single_flight import SingleFlight
from tests.support.drivers import another, meddled
from tests.support.interrupts import Threads, interrupted_at

ENOUGH = 200  # lines: more than a shared load has


@pytest.mark.parametrize("role", ["leads", "leads the next", "joins"])
def test_an_interrupt_at_any_line_leaves_nobody_waiting(role: str) -> None:
    """After one Ctrl-C, or one soft time limit, every later read of that dataset hangs in every thread."""
    number = unshared = 0
    while interrupted_share(role, number):
        unshared += bool(turns.busy.threads)
        turns.busy.threads.clear()
        number += 1
        assert number < ENOUGH
    assert number > 10
    assert unshared <= 1, "a thread that reads nothing any more shares none of its later loads"


def interrupted_share(role: str, number: int) -> bool:
    """Interrupt a reader at its n-th line, among others that read. False: it has fewer lines."""
    flights: SingleFlight[int] = SingleFlight()
    release, threads = threading.Event(), Threads()
    if role != "leads":
        threads.start(lambda: flights.share("mena", lambda: release.wait(60) or 1))
        until(lambda: bool(flights._flights))
    if role == "joins":
        threads.start(lambda: flights.share("mena", lambda: 2))
        until(lambda: bool(flights._flights["mena"].next))

    def load() -> int:
        threads.start(lambda: flights.share("mena", lambda: 3))
        until(lambda: bool(flights._flights["mena"].next))
        return 4

    threading.Timer(0.01, release.set).start()
    began = time.monotonic()
    more = interrupted_at(number, lambda: flights.share("mena", load), "swapstore.single_flight")
    release.set()
    threads.start(lambda: flights.share("mena", lambda: 5))
    assert all(isinstance(result, int) for result in threads.join())
    assert flights.share("mena", lambda: 6) == 6
    assert time.monotonic() - began < turns.PATIENCE_S / 2, number
    return more


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_load_that_never_ends_is_not_waited_for_without_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread that is stuck blocks all others that read the same dataset."""
    monkeypatch.setattr(single_flight, "LOOK_S", 0.01)
    flights: SingleFlight[int] = SingleFlight()
    release, threads = threading.Event(), Threads()
    threads.start(lambda: flights.share("mena", lambda: release.wait(60) or 1))
    until(lambda: bool(flights._flights))
    readers = Threads()
    for _ in range(3):
        readers.start(lambda: flights.share("mena", lambda: 2))
    assert readers.join() == [2, 2, 2]
    release.set()
    threads.join()
    assert flights.share("mena", lambda: 3) == 3


@pytest.mark.parametrize("error", [ValueError("its own"), MemoryError(), KeyError("x")])
def test_only_errors_of_the_library_are_shared(error: Exception) -> None:
    """A soft time limit of one task is raised in the threads of others."""
    flights: SingleFlight[int] = SingleFlight()
    release, threads = threading.Event(), Threads()
    threads.start(lambda: flights.share("mena", lambda: release.wait(60) or 1))
    until(lambda: bool(flights._flights))

    def fail() -> int:
        raise error

    failing = threads.start(lambda: flights.share("mena", fail))
    until(lambda: bool(flights._flights["mena"].next))
    assert failing.is_alive()
    joined = Threads()
    for _ in range(3):
        joined.start(lambda: flights.share("mena", lambda: 7))
    time.sleep(0.05)  # so that they have joined
    release.set()
    assert joined.join() == [7, 7, 7]
    assert [result for result in threads.join() if isinstance(result, Exception)] == [error]


def reading(store: Store, also: Callable[[Store, Event], Any]) -> Store:
    """Return a client that does something more in each of its events."""
    client: list[Store] = []

    def listen(event: Event) -> None:
        also(client[0], event)

    client.append(meddled(store, hook=Hook(listen))[0])
    return client[0]


def test_a_listener_for_events_may_read(store: Store) -> None:
    """A listener that reads the same dataset waits for the read that it listens to."""
    store.publish("mena", 1)
    found: list[Any] = []

    def read(client: Store, event: Event) -> None:
        if len(found) < 3:
            found.append(None)
            found.append(client.read_latest("mena"))

    client = reading(store, read)
    threads = Threads()
    for _ in range(8):
        threads.start(lambda: client.read_latest("mena"))
    assert {snapshot.value for snapshot in threads.join()} == {1}
    assert found[-1].value == 1


def test_listeners_of_two_stores_may_read_from_each_other(store: Store) -> None:
    """Two threads, each in a listener of its read, wait for each other."""
    store.publish("mena", 1)
    store.publish("europe", 2)
    both = threading.Barrier(2, timeout=30)
    crossed: set[int] = set()  # threads
    clients: list[Store] = []

    def crossing(number: int, other: str) -> Store:
        def read(_: Store, event: Event) -> None:
            if event.dataset != other and threading.get_ident() not in crossed:
                crossed.add(threading.get_ident())
                both.wait()
                clients[1 - number].read_latest(other)

        return reading(store, read)

    clients += [crossing(0, "europe"), crossing(1, "mena")]
    threads = Threads()
    threads.start(lambda: clients[0].read_latest("mena"))
    threads.start(lambda: clients[1].read_latest("europe"))
    began = time.monotonic()
    assert {snapshot.value for snapshot in threads.join()} == {1, 2}
    assert time.monotonic() - began < turns.PATIENCE_S / 2


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs signals")
@pytest.mark.every_store
def test_a_signal_handler_may_read(real_url: str) -> None:
    """A handler that reads, in the thread whose read it interrupts, waits for that read permanently."""
    client = swapstore.connect(real_url)
    client.publish("mena", 1)
    found: list[Any] = []

    def handle(*_: object) -> None:
        found.append(client.read_latest("mena"))
        if not stop.is_set():
            signal.setitimer(signal.ITIMER_REAL, 0.002)

    threads = Threads()
    stop = threading.Event()

    def read_on() -> None:
        while not stop.is_set():
            client.read_latest("mena")

    before = signal.signal(signal.SIGALRM, handle)
    threads.start(read_on)
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    try:
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline or not found:
            assert client.read_latest("mena") is not None
    finally:
        stop.set()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert threads.join() == [None]
    assert {snapshot.value for snapshot in found} == {1}
    client.close()


def test_a_finalizer_may_read(store: Store) -> None:
    """An object whose finalizer reads, collected during a read, hangs the thread."""
    store.publish("mena", 1)
    found: list[Any] = []

    class Last:
        def __init__(self, client: Store) -> None:
            self.client = client
            self.cycle = self

        def __del__(self) -> None:
            found.append(self.client.read_latest("mena"))

    def collect(client: Store, event: Event) -> None:
        Last(another(store)), Last(client)
        gc.collect()

    client = reading(store, lambda client, event: None if found else collect(client, event))
    assert client.read_latest("mena") is not None
    assert [snapshot.value for snapshot in found] == [1, 1]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_process_that_is_forked_during_a_load_reads(store: Store) -> None:
    """A worker that was forked while another thread read waits for that thread, which it does not have."""
    store.publish("mena", 1)
    flights: SingleFlight[int] = SingleFlight()
    release, threads = threading.Event(), Threads()
    threads.start(lambda: flights.share("mena", lambda: release.wait(60) or 1))
    until(lambda: bool(flights._flights))

    def in_child() -> int:
        child = os.fork()
        if not child:
            others = turns.busy.threads - {threading.get_ident()}
            os._exit(0 if flights.share("mena", lambda: 2) == 2 and not others else 1)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    began = time.monotonic()
    assert in_child() == 0
    assert SingleFlight[int]().share("mena", in_child) == 0, "it was forked by the thread that loads"
    assert time.monotonic() - began < turns.PATIENCE_S / 2
    release.set()
    threads.join()


def test_a_strict_read_sees_what_was_acknowledged_before_it_began(store: Store) -> None:
    """One reader allows staleness and loads, another queues, and a strict one joins: it gets old data."""
    store.publish("mena", 1)
    client, meddler = meddled(store)
    assert client.read_latest("mena") is not None
    threads, strict = Threads(), Threads()

    def crowd() -> None:
        threads.start(lambda: client.read_latest("mena", max_staleness=1e-9))
        until(lambda: bool(client._flights._flights["mena"].next))
        store.publish("mena", 2)
        for _ in range(5):
            strict.start(lambda: client.read_latest("mena"))
        time.sleep(0.05)  # so that they have joined

    meddler.after(len(meddler.batches), crowd)
    assert client.read_latest("mena", max_staleness=1e-9) is not None
    assert [snapshot.value for snapshot in strict.join()] == [2] * 5
    threads.join()


def test_an_error_is_shared_with_its_cause() -> None:
    """Readers that share a failure cannot see what caused it, or each changes the error of the others."""
    flights: SingleFlight[int] = SingleFlight()
    release, threads = threading.Event(), Threads()
    threads.start(lambda: flights.share("mena", lambda: release.wait(60) or 1))
    until(lambda: bool(flights._flights))

    def fail() -> int:
        raise Unavailable("down", dataset="mena") from OSError("refused")

    for _ in range(3):
        threads.start(lambda: flights.share("mena", fail))
    time.sleep(0.05)
    release.set()
    errors = [result for result in threads.join() if isinstance(result, Exception)]
    assert {type(error) for error in errors} == {Unavailable}
    assert {str(error) for error in errors} == {"dataset 'mena': down"}
    assert {str(error.__cause__) for error in errors} == {"refused"}
    assert len({id(error) for error in errors}) == 3


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # it may hit a thread that puts a connection back
def test_exceptions_thrown_into_reading_threads_stop_nobody_else(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pool whose tasks have soft time limits reads less and less, until every thread hangs."""
    import ctypes  # noqa: PLC0415

    # It hits any function: finalizers, and pytest's own hook, which would then fail.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    store.publish("mena", 1)
    client = another(store)
    stop, threads = threading.Event(), Threads()

    class SoftLimit(Exception):  # noqa: N818 - it is not an error
        pass

    def read_on() -> int:
        reads = 0
        while not stop.is_set():
            try:
                client.read_latest("mena")
                reads += 1
            except SoftLimit:
                continue
        return reads

    def guarded() -> Any:
        while True:
            try:
                return read_on()
            except SoftLimit:
                continue

    victims = [threads.start(guarded) for _ in range(4)]
    deadline = time.monotonic() + 1
    while time.monotonic() < deadline:
        for victim in victims:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(victim.ident or 0), ctypes.py_object(SoftLimit)
            )
            time.sleep(0.002)
    began = time.monotonic()
    snapshot = client.read_latest("mena")
    assert snapshot is not None
    assert snapshot.value == 1
    assert time.monotonic() - began < turns.PATIENCE_S / 2
    stop.set()
    threads.join()
    gc.collect()  # what was lost is closed here, not in a later test
