"""The simulated store and the fault plans with which users test their own producers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapstore import Store
from swapstore.commands import Command, Get, Put, Stage, Staged, Swap
from swapstore.errors import Damaged, StoreFull, SwapstoreError
from swapstore.format import manifest
from swapstore.protocol.context import Policy
from swapstore.testing import Crash, Fault, Keyspace, Kind, SimulatedStore, every_fault, failing_at, faulty
from tests.support import invariants
from tests.support.times import at


def history_of(seed: int) -> tuple[list[str], Any]:
    sim = SimulatedStore(seed=seed)
    ids = []
    for number in range(5):
        store = sim.connect(Fault(Kind.LOST_AFTER, 3))
        ids.append(store.publish("mena", number).id)
    return ids, sim.keyspace.fingerprint()


def test_equal_seeds_give_equal_bytes() -> None:
    """A failure in a producer's own tests cannot be repeated."""
    assert history_of(7) == history_of(7)
    assert history_of(7)[0] != history_of(8)[0]


@pytest.mark.parametrize("kind", Kind)
def test_each_fault_at_each_command_keeps_readers_whole(kind: Kind) -> None:
    """A fault at some command shows a reader a mix, or fails the next publish."""
    for number in range(9):
        sim = SimulatedStore()
        store = sim.connect()
        store.publish("mena", "before")
        client, driver = faulty(store, Fault(kind, number))
        with suppress(SwapstoreError, Crash):
            client.publish("mena", "after", id="after")
        snap = sim.connect().read_latest("mena")
        assert snap is not None
        assert snap.value in {"before", "after"}
        invariants.check(store)
        driver.deliver_late()
        invariants.check(store)
        assert sim.connect().publish("mena", "next").created


def test_a_producer_is_fuzzed_in_ten_lines() -> None:
    """The how-to is wrong: testing each failure point of a producer takes more than a few lines."""

    def produce(store: Store) -> None:
        store.publish("mena", {"regime": "calm"}, id="run-7")

    for fault in every_fault(6):
        sim = SimulatedStore()
        try:
            produce(sim.connect(fault))
        except (Crash, SwapstoreError):
            produce(sim.connect())
        snap = sim.connect().read_latest("mena")
        assert snap is not None
        assert [row.id for row in sim.connect().history("mena")] == ["run-7"]


def test_a_dead_client_stays_dead_and_others_live() -> None:
    """A killed process still sends its next command."""
    sim = SimulatedStore()
    dead = sim.connect(failing_at(0))
    for _ in range(2):
        with pytest.raises(Crash):
            dead.read_latest("mena")
    assert sim.connect().read_latest("mena") is None


def test_a_refused_write_is_store_full() -> None:
    """A producer under test does not get the error of a full store that a server would give."""
    sim = SimulatedStore()
    with pytest.raises(StoreFull):
        sim.connect(Fault(Kind.REFUSED, 2)).publish("mena", 1)


def test_time_passes_only_when_it_is_told_to() -> None:
    """Waits take real time, or orphans and live views do not expire."""
    sim = SimulatedStore(policy=Policy(staging_ttl_ms=1000))
    with pytest.raises(Crash):
        sim.connect(failing_at(4)).publish("mena", 1, id="orphan")
    assert len(sim.keyspace.values) == 2
    sim.clock.advance(1001)
    assert sim.connect().read_latest("mena") is None
    assert sim.keyspace.values == {}


@pytest.mark.slow
@given(st.integers(1, 40), st.data())
def test_an_evicted_key_is_never_read_as_something_else(count: int, data: st.DataObject) -> None:
    """An evicted key leads to a wrong result instead of an error."""
    usual, manifest.F = manifest.F, 2
    try:
        sim = SimulatedStore()
        for number in range(count):
            sim.connect().publish("mena", number, id=f"id-{number}", ts=at(number))
        key = data.draw(st.sampled_from(sorted(sim.keyspace.values)))
        sim.evict(key)
        reader = sim.connect()
        for number in range(count):
            for read in reads_of(reader, number):
                try:
                    snap = read()
                except Damaged:
                    continue
                assert snap is None or snap.value == number
        latest = data.draw(st.sampled_from([reader, sim.connect()]))
        try:
            snap = latest.read_latest("mena")
        except Damaged:
            return
        assert snap is None or snap.value == count - 1
        assert snap is not None or key == "swapstore:manifest:{mena}"
    finally:
        manifest.F = usual


def reads_of(reader: Store, number: int) -> Iterator[Callable[[], Any]]:
    yield lambda: reader.read("mena", id=f"id-{number}")
    yield lambda: reader.read("mena", version=number + 1)
    yield lambda: reader.read("mena", as_of=at(number))


def test_a_commit_can_be_cut_after_any_of_its_writes() -> None:
    """A commit that is cut off leaves a manifest that names what is not permanent."""
    staged = tuple(Staged(key, b"h\n") for key in ("id", "ts"))
    commit = Swap(
        key="m",
        expected=b"",
        prefix=b'{"etag":"e.1.a"',
        manifest=b'{"etag":"e.1.a"}\n',
        live_key="live",
        staged=staged,
        unlinked=("old",),
        staging_ttl_ms=9,
        grace_ms=5,
    )
    for writes in range(6):
        keyspace = Keyspace()
        for key in ("id", "ts", "old"):
            keyspace.apply(Stage(key, b"h\n", 100), 0)
        keyspace.apply(Put("live", b"v", 100), 0)
        keyspace.commit(commit, 0, writes=writes)
        swapped = keyspace.apply(Get("m"), 0) is not None
        permanent = {key for key, value in keyspace.values.items() if value.expires_at is None}
        assert swapped == (writes >= 3)
        assert not swapped or permanent == {"id", "ts", "m"}
        assert ("live" not in keyspace.values) == (writes == 5)


def test_unknown_commands_are_an_error() -> None:
    """A driver that ignores an unknown command makes its proofs worthless."""

    class Unknown(Command[None], frozen=True):
        pass

    with pytest.raises(TypeError, match="unknown command"):
        Keyspace().apply(Unknown(), 0)
