"""What a publish with a `Durability` promises, on a simulated store; on real servers: tests/real."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import attrs
import msgspec
import pytest

import swapstore
from swapstore import (
    Commit,
    Durability,
    IdConflict,
    InvalidInput,
    OutcomeUnknown,
    Retention,
    SomeFailed,
    Store,
    UnderReplicated,
    Unsupported,
)
from swapstore.cache import Cache
from swapstore.commands import NOT_ON_DISK, AwaitReplicas, Command, Committed, Failed, Get, Put, Swap
from swapstore.errors import ReadOnly, ReplyLost, StoreFull
from swapstore.events import CallFailed, Hook, Published
from swapstore.protocol.context import Policy
from swapstore.testing import Crash, Keyspace, Kind, SimulatedStore, every_fault, faulty
from tests.support import invariants
from tests.support.drivers import Meddler, meddled
from tests.support.times import at

BOTH = Durability(replicas=2)


@attrs.define(slots=False)
class Watched:
    """A driver on a simulated store that notes what is waited for, as a server knows it.

    Each batch has a connection of its own. A server waits for what that connection has written; after reads
    alone it answers with the full number at once, as Valkey 9 does. `waited`: the manifest that was stored
    at each wait that counted.
    """

    driver: Any
    waited: list[bytes | None] = attrs.field(factory=list)
    trips: int = 0
    where: str = "watched"
    kind: str = "simulated"
    binary_safe: bool = True

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        self.trips += 1
        replies: list[Any] = []
        has_written = False
        for command in commands:
            (reply,) = self.driver.execute([command])
            replies.append(reply)
            has_written |= isinstance(command, Put) or isinstance(reply, Committed)
            if isinstance(command, AwaitReplicas) and has_written:
                (stored,) = self.driver.execute([Get(command.key)])
                self.waited.append(stored)
        return replies

    def close(self) -> None:
        """The driver belongs to another store."""


def watched(store: Store) -> tuple[Store, Watched]:
    """Another client of the same store, whose waits are noted."""
    driver = Watched(store._driver)
    return Store(driver, msgspec.structs.replace(store._context, cache=Cache(1 << 20))), driver


def is_in(commit: Commit, stored: bytes | None) -> bool:
    """Say whether a stored manifest, with a short history, names the snapshot of a commit."""
    return stored is not None and f'"{commit.id}"'.encode() in stored


# --- what is asked for, and what comes back ---------------------------------------------------------


def test_enough_replicas_in_the_same_round_trip() -> None:
    """A producer pays a round trip for a wait that could travel with the commit."""
    sim = SimulatedStore(replicas=2)
    store, driver = watched(sim.connect())
    assert store.publish("mena", 0, durability=BOTH).replicas == 2
    before = driver.trips
    commit = store.publish("mena", 1, durability=BOTH)
    assert (commit.replicas, commit.created, commit.version) == (2, True, 2)
    assert driver.trips - before == 1
    assert store.publish("mena", 2).replicas is None
    assert driver.trips - before == 2
    assert all(is_in(store.read("mena", version=n), driver.waited[n - 1]) for n in (1, 2))  # type: ignore[arg-type]


def test_too_few_replicas() -> None:
    """A commit that a failover would lose is acknowledged, or taken for one that was not published."""
    sim = SimulatedStore(replicas=1)
    told: list[Any] = []
    made = sim.connect()
    store = Store(made._driver, msgspec.structs.replace(made._context, hook=Hook(told.append)))
    with pytest.raises(
        UnderReplicated, match="version 1, id 'a', is published, but 1 of 2 replicas"
    ) as caught:
        store.publish("mena", {"n": 1}, id="a", durability=BOTH)
    error = caught.value
    assert (error.published, error.replicas, error.durability, error.dataset) == (True, 1, BOTH, "mena")
    assert (error.commit.id, error.commit.version, error.commit.created) == ("a", 1, True)
    assert "Nothing was published" not in str(error)
    published, failed = told
    assert isinstance(published, Published)
    assert (published.created, published.replicas) == (True, 1)
    assert isinstance(failed, CallFailed)
    assert failed.error == "UnderReplicated"
    assert store.read_latest("mena").value == {"n": 1}  # type: ignore[union-attr]
    with pytest.raises(UnderReplicated):
        store.publish("mena", {"n": 1}, id="a", durability=BOTH)
    sim.replicas = 2
    again = store.publish("mena", {"n": 1}, id="a", durability=BOTH)
    assert (again.created, again.version, again.replicas) == (False, 1, 2)
    for same in (copy.deepcopy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301 - our own bytes
        assert (same.commit, same.durability, str(same)) == (error.commit, BOTH, str(error))


def test_the_same_id_again_waits_for_what_was_committed_before() -> None:
    """Publishing again after `UnderReplicated` succeeds at once: the new connection has written nothing."""
    sim = SimulatedStore(replicas=2)
    store, driver = watched(sim.connect())
    first = store.publish("mena", 1, id="a", dedupe_key="k")
    driver.waited.clear()
    by_id = store.publish("mena", 1, id="a", durability=BOTH)
    by_key = store.publish("mena", 2, dedupe_key="k", durability=BOTH)
    assert (by_id.created, by_key.created, by_id.replicas, by_key.replicas) == (False, False, 2, 2)
    assert len(driver.waited) == 2
    assert all(is_in(first, stored) for stored in driver.waited)


def test_publish_many_waits_for_all_at_once_and_tells_each() -> None:
    """One dataset of many is on too few replicas, and nobody learns which, or that it is published."""
    sim = SimulatedStore(replicas=2)
    store, driver = watched(sim.connect())
    names = ("mena", "europe", "asia")
    store.publish_many(dict.fromkeys(names, 0), durability=BOTH).raise_for_failures()
    before = driver.trips
    outcomes = store.publish_many(dict.fromkeys(names, 1), durability=BOTH)
    assert driver.trips - before == 1
    assert [getattr(outcome, "replicas", None) for outcome in outcomes.values()] == [2, 2, 2]
    sim.replicas = 1
    outcomes = store.publish_many({**dict.fromkeys(names, 2), "mena": {1}}, durability=BOTH)
    with pytest.raises(
        SomeFailed, match="3 of 3 datasets were not published, or are on too few replicas"
    ) as some:
        outcomes.raise_for_failures()
    kinds = {name: type(error) for name, error in some.value.failures.items()}
    assert kinds == {"mena": InvalidInput, "europe": UnderReplicated, "asia": UnderReplicated}
    assert some.value.failures["europe"].published
    assert store.read_latest("europe").value == 2  # type: ignore[union-attr]


def test_the_store_has_a_durability_and_a_publish_its_own() -> None:
    """`connect(durability=…)` does nothing, or a publish cannot ask for more."""
    sim = SimulatedStore(replicas=1)
    made = sim.connect()
    store = Store(made._driver, msgspec.structs.replace(made._context, durability=Durability()))
    assert store.publish("mena", 1).replicas == 1
    with pytest.raises(UnderReplicated):
        store.publish("mena", 2, durability=BOTH)
    assert store.pin("mena", version=1).pinned is not None  # only publishes wait


# --- bad input, and what cannot be ----------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"replicas": 0},
        {"replicas": -1},
        {"replicas": 1.0},
        {"replicas": True},
        {"replicas": "1"},
        {"fsync": 1},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"timeout": "1"},
        {"timeout": True},
    ],
    ids=str,
)
def test_a_durability_that_cannot_be_meant(options: dict[str, Any]) -> None:
    """A producer believes that it waits, and does not, or waits without an end."""
    with pytest.raises(InvalidInput):
        Durability(**options)


def test_the_default_time_out_suits_what_is_waited_for() -> None:
    """`fsync` on replicas fails half of the time, because they report their disks once a second."""
    assert Durability().timeout == 1.0
    assert Durability(replicas=0, fsync=True).timeout == 1.0
    assert Durability(fsync=True).timeout == 3.0
    assert Durability(timeout=0.0001).timeout_ms == 1, "0 would be no bound"


@pytest.mark.parametrize("given", [1, True, {"replicas": 1}, "1"])
def test_something_else_than_a_durability(given: Any, tmp_path: Any) -> None:
    """A number is taken for no durability at all."""
    with pytest.raises(InvalidInput, match="must be a Durability"):
        swapstore.connect("redis://127.0.0.1:1", durability=given)
    store = SimulatedStore(replicas=1).connect()
    with pytest.raises(InvalidInput, match="must be a Durability"):
        store.publish("mena", 1, durability=given)
    assert store.read_latest("mena") is None


def test_a_wait_that_the_connection_would_not_survive() -> None:
    """The reply time-out ends the connection during the wait, and each commit is a lost reply."""
    for options in ({"timeout": 1.0}, {}):
        with pytest.raises(InvalidInput, match="shorter than that for a reply"):
            swapstore.connect("redis://127.0.0.1:1", durability=Durability(timeout=10), **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="shorter than that for a reply, 2 s"):
        swapstore.connect("redis://127.0.0.1:1?socket_timeout=2", durability=Durability(timeout=2))
    with (
        swapstore.connect("redis://127.0.0.1:1") as store,
        pytest.raises(InvalidInput, match="shorter than that for a reply, 10 s"),
    ):
        store.publish("mena", 1, durability=Durability(timeout=11))


def test_sqlite_says_what_it_does_instead(tmp_path: Any) -> None:
    """A producer on SQLite learns nothing, or believes that a file has replicas."""
    url = f"sqlite:///{tmp_path}/store.db"
    for asked in (Durability(), Durability(replicas=0, fsync=True)):
        with pytest.raises(Unsupported, match="synchronous=FULL"):
            swapstore.connect(url, durability=asked)
    with swapstore.connect(url) as store:
        with pytest.raises(Unsupported, match="no replicas"):
            store.publish("mena", 1, durability=Durability())
        assert store.read_latest("mena") is None


def test_a_server_that_lacks_the_command_is_told_before_anything_is_written() -> None:
    """A commit is published, and then its durability turns out to be impossible."""
    for refusal in (
        Unsupported("the server lacks a command that is needed: unknown command WAIT"),
        swapstore.AccessDenied("the server does not allow a command: NOPERM wait"),
    ):
        client, meddler = meddled(SimulatedStore().connect())
        _refuse_waits(meddler, refusal)
        with pytest.raises(Unsupported, match="so nothing was written. Allow it") as caught:
            client.publish("mena", 1, durability=Durability())
        assert caught.value.published is False
        assert client.read_latest("mena") is None


def _refuse_waits(meddler: Meddler, refusal: swapstore.SwapstoreError, times: int = 1000) -> None:
    execute = meddler.execute
    left = [times]

    def refusing(commands: Sequence[Command[Any]]) -> list[Any]:
        replies = execute(commands)
        for i, command in enumerate(commands):
            if isinstance(command, AwaitReplicas) and left[0]:
                left[0] -= 1
                replies[i] = Failed(refusal, again=isinstance(refusal, ReadOnly))
        return replies

    meddler.execute = refusing  # type: ignore[method-assign]


# --- what can go wrong around the wait -------------------------------------------------------------


def test_every_fault_at_every_command_of_a_publish() -> None:
    """An acknowledged publish was not waited for: after a lost reply, a new connection waits for nothing."""
    sim = SimulatedStore(replicas=2)
    sim.connect().publish("mena", 0, id="old", ts=at(1))
    store, driver = faulty(sim.connect())
    store.publish("mena", 1, id="new", ts=at(2), durability=BOTH)
    for fault in every_fault(len(driver.done)):
        sim = SimulatedStore(replicas=2)
        sim.connect().publish("mena", 0, id="old", ts=at(1))
        noting, notes = watched(sim.connect())
        faults, faulted = faulty(noting, fault)
        # A fault splits a batch into commands: they share the connection, unless it failed.
        notes.execute = _on_one_connection(notes)  # type: ignore[method-assign]
        commit: Commit | None = None
        with suppress(Crash, swapstore.SwapstoreError):
            commit = faults.publish("mena", 1, id="new", ts=at(2), durability=BOTH)
        faulted.deliver_late()
        if commit is not None:
            assert commit.replicas == 2, fault
            assert any(is_in(commit, stored) for stored in notes.waited), f"{fault}: not waited for"
        rows = invariants.check(sim.connect())
        assert [row.id for row in rows] in (["old"], ["old", "new"]), fault
        again = sim.connect().publish("mena", 1, id="new", ts=at(2), durability=BOTH)
        assert (again.version, again.replicas) == (2, 2), fault


def _on_one_connection(notes: Watched) -> Any:
    """Carry out single commands as `Watched` does whole batches; what was written is forgotten at a read."""
    written = [False]

    def execute(commands: Sequence[Command[Any]]) -> list[Any]:
        (command,) = commands
        (reply,) = notes.driver.execute([command])
        if isinstance(command, Get):
            written[0] = False  # a new batch
        written[0] |= isinstance(command, Put) or isinstance(reply, Committed)
        if isinstance(command, AwaitReplicas) and written[0]:
            notes.waited.extend(notes.driver.execute([Get(command.key)]))
        return [reply]

    return execute


def test_a_lost_reply_is_waited_for_anew() -> None:
    """A commit whose reply was lost is acknowledged without a wait."""
    for lost in (Kind.LOST_AFTER, Kind.LATE, Kind.LOST_BEFORE):
        sim = SimulatedStore(replicas=2)
        store, driver = watched(sim.connect())
        client, meddler = meddled(store)
        number = [0]
        execute = meddler.execute

        def losing(commands: Sequence[Command[Any]], lost: Kind = lost) -> list[Any]:
            if not any(isinstance(command, Swap) for command in commands) or number[0]:  # noqa: B023
                return execute(commands)  # noqa: B023
            number[0] += 1  # noqa: B023
            if lost is not Kind.LOST_BEFORE:
                execute(commands)  # noqa: B023
                driver.waited.clear()  # noqa: B023 - its answer is lost too
            raise ReplyLost("lost")

        meddler.execute = losing  # type: ignore[method-assign]
        commit = client.publish("mena", 1, id="a", durability=BOTH)
        assert (commit.created, commit.replicas) == (True, 2)
        assert any(is_in(commit, stored) for stored in driver.waited)


def test_a_demotion_during_the_wait_asks_the_successor() -> None:
    """The wait alone is sent to the new primary, which answers for a connection that has written nothing."""
    sim = SimulatedStore(replicas=2)
    store, driver = watched(sim.connect())
    client, meddler = meddled(store)
    client.publish("mena", 0, durability=BOTH)
    _refuse_waits(meddler, ReadOnly("not the primary any more"), times=1)
    before = len(meddler.batches)
    driver.waited.clear()
    commit = client.publish("mena", 1, durability=BOTH)
    assert commit.replicas == 2
    sent = [[type(command) for command in batch] for batch in meddler.batches[before:]]
    assert len(sent) == 2
    assert sent[0][-2:] == [Swap, AwaitReplicas]
    assert sent[1] == [Get, Put, AwaitReplicas]
    assert is_in(commit, driver.waited[-1])


def test_a_failover_that_undoes_the_commit_publishes_it_again() -> None:
    """A commit that a failover has undone is acknowledged, because its new primary has enough replicas."""
    sim = SimulatedStore(replicas=2)
    store, _ = watched(sim.connect())
    client, meddler = meddled(store)
    client.publish("mena", 0, id="old", ts=at(1), durability=BOTH)
    before = sim.keyspace.copy()
    execute = meddler.execute
    undone = [0]

    def undoing(commands: Sequence[Command[Any]]) -> list[Any]:
        replies = execute(commands)
        if any(isinstance(command, Swap) for command in commands) and not undone[0]:
            undone[0] += 1
            _restore(sim.keyspace, before)
            replies[-1] = Failed(ReadOnly("not the primary any more"), again=True)
        return replies

    meddler.execute = undoing  # type: ignore[method-assign]
    commit = client.publish("mena", 1, durability=BOTH)
    assert (commit.created, commit.replicas, undone) == (True, 2, [1])
    assert [row.id for row in invariants.check(sim.connect())] == ["old", commit.id]


def test_a_store_that_always_goes_back_ends_unknown() -> None:
    """Two primaries behind one address: the publish never ends, or claims a commit."""
    sim = SimulatedStore(replicas=2)
    client, meddler = meddled(sim.connect())
    before = sim.keyspace.copy()
    execute = meddler.execute

    def undoing(commands: Sequence[Command[Any]]) -> list[Any]:
        replies = execute(commands)
        if any(isinstance(command, Swap) for command in commands):
            _restore(sim.keyspace, before)
            replies[-1] = Failed(ReadOnly("not the primary any more"), again=True)
        return replies

    meddler.execute = undoing  # type: ignore[method-assign]
    with pytest.raises(OutcomeUnknown, match="more than one primary") as caught:
        client.publish("mena", 1, durability=BOTH)
    assert caught.value.id is not None
    assert caught.value.published is None


def _restore(keyspace: Keyspace, before: Keyspace) -> None:
    keyspace.values, keyspace.sets = before.values.copy(), before.sets.copy()


def test_a_store_that_is_gone_after_the_commit_does_not_unpublish_it() -> None:
    """The error of a wait that failed says that nothing was published."""
    sim = SimulatedStore(replicas=2)
    client, meddler = meddled(sim.connect(), policy=Policy(patience_s=0.0))
    client.publish("mena", 0, durability=BOTH)
    _refuse_waits(meddler, ReadOnly("not the primary any more"))
    with pytest.raises(UnderReplicated, match="could not be asked who has it: not the primary") as caught:
        client.publish("mena", 1, durability=BOTH)
    assert (caught.value.published, caught.value.replicas, caught.value.commit.version) == (True, 0, 2)


def test_a_conflict_is_waited_for_after_the_swap_that_succeeds() -> None:
    """The wait behind a refused swap counts for the next one."""
    sim = SimulatedStore(replicas=2)
    store, driver = watched(sim.connect())
    store.publish("mena", 0, durability=BOTH)
    sim.connect().publish("mena", 1)  # `store` remembers version 1
    driver.waited.clear()
    commit = store.publish("mena", 2, durability=BOTH)
    assert (commit.version, commit.replicas) == (3, 2)
    assert is_in(commit, driver.waited[-1])


def test_another_content_under_the_id_is_still_refused() -> None:
    """With a durability, an id names two contents."""
    store = SimulatedStore(replicas=2).connect()
    store.publish("mena", 1, id="a", durability=BOTH)
    with pytest.raises(IdConflict):
        store.publish("mena", 2, id="a", durability=BOTH)


def _meddling(meddler: Meddler, change: Callable[[Sequence[Command[Any]], list[Any]], None]) -> None:
    """Have a function look at each batch and change its replies."""
    execute = meddler.execute

    def changed(commands: Sequence[Command[Any]]) -> list[Any]:
        replies = execute(commands)
        change(commands, replies)
        return replies

    meddler.execute = changed  # type: ignore[method-assign]


def test_a_server_that_has_it_not_on_its_own_disk() -> None:
    """A publish that asks for the disk of the server alone is acknowledged before that has it."""
    client, meddler = meddled(SimulatedStore().connect())

    def not_on_disk(commands: Sequence[Command[Any]], replies: list[Any]) -> None:
        for i, command in enumerate(commands):
            if isinstance(command, AwaitReplicas):
                replies[i] = NOT_ON_DISK

    _meddling(meddler, not_on_disk)
    with pytest.raises(UnderReplicated, match="not have it on its own disk") as caught:
        client.publish("mena", 1, durability=Durability(replicas=0, fsync=True))
    assert caught.value.replicas == 0


def test_a_mark_that_is_refused_acknowledges_nothing() -> None:
    """A full server writes no mark, waits for nothing, and says that all replicas have it."""
    sim = SimulatedStore(replicas=2)
    sim.connect().publish("mena", 1, id="a")
    client, meddler = meddled(sim.connect())

    def refuse_marks(commands: Sequence[Command[Any]], replies: list[Any]) -> None:
        for i, command in enumerate(commands):
            if isinstance(command, Put):
                replies[i] = Failed(StoreFull("the server is full"))

    _meddling(meddler, refuse_marks)
    with pytest.raises(UnderReplicated, match="could not be asked who has it: the server is full"):
        client.publish("mena", 1, id="a", durability=BOTH)


def test_a_wait_whose_reply_is_lost_is_asked_again() -> None:
    """One cut connection, and a producer is told that its snapshot is on too few replicas."""
    sim = SimulatedStore(replicas=2)
    sim.connect().publish("mena", 1, id="a")
    client, meddler = meddled(sim.connect())
    lost: list[int] = []

    def lose_one(commands: Sequence[Command[Any]], _: list[Any]) -> None:
        if any(isinstance(command, Put) for command in commands) and not lost:
            lost.append(1)
            raise ReplyLost("lost")

    _meddling(meddler, lose_one)
    assert client.publish("mena", 1, id="a", durability=BOTH).replicas == 2
    assert lost


def test_a_commit_that_came_late_is_waited_for() -> None:
    """The second send finds its own commit there, and its connection has written nothing to wait for."""
    sim = SimulatedStore(replicas=2)
    store, driver = watched(sim.connect())
    client, meddler = meddled(store)
    client.publish("mena", 0, durability=BOTH)
    execute = meddler.execute
    late: list[Sequence[Command[Any]]] = []

    def delaying(commands: Sequence[Command[Any]]) -> list[Any]:
        if any(isinstance(command, Swap) for command in commands):
            late.append(commands)
            if len(late) == 1:
                raise ReplyLost("lost")
            execute(late[0])
            driver.waited.clear()  # that was another connection
        return execute(commands)

    meddler.execute = delaying  # type: ignore[method-assign]
    commit = client.publish("mena", 1, durability=BOTH)
    assert (commit.created, commit.replicas, len(late)) == (True, 2, 2)
    assert any(is_in(commit, stored) for stored in driver.waited), "nobody has waited for it"


def test_each_kind_of_durability_is_asked_for_by_itself() -> None:
    """A server that knows WAIT alone commits, and then turns out to sync nothing."""
    client, meddler = meddled(SimulatedStore(replicas=1).connect())

    def know_wait_alone(commands: Sequence[Command[Any]], replies: list[Any]) -> None:
        for i, command in enumerate(commands):
            if isinstance(command, AwaitReplicas) and command.fsync:
                replies[i] = Failed(Unsupported("unknown command WAITAOF"))

    _meddling(meddler, know_wait_alone)
    client.publish("mena", 1, durability=Durability())
    with pytest.raises(Unsupported, match="nothing was written"):
        client.publish("mena", 2, durability=Durability(fsync=True))
    assert client.read_latest("mena").value == 1  # type: ignore[union-attr]


def test_another_commit_in_the_place_of_one_that_was_undone() -> None:
    """A failover undoes a commit, another producer gets its version, and the first is acknowledged."""
    sim = SimulatedStore(replicas=2)
    client, meddler = meddled(sim.connect())
    client.publish("mena", 0, id="old", ts=at(1), durability=BOTH)
    before = sim.keyspace.copy()
    undone: list[int] = []

    def undo(commands: Sequence[Command[Any]], replies: list[Any]) -> None:
        if any(isinstance(command, Swap) for command in commands) and not undone:
            undone.append(1)
            _restore(sim.keyspace, before)
            sim.connect().publish("mena", "theirs", id="theirs", ts=at(2))
            replies[-1] = Failed(ReadOnly("not the primary any more"), again=True)

    _meddling(meddler, undo)
    commit = client.publish("mena", "ours", id="ours", ts=at(3), durability=BOTH)
    assert (commit.version, commit.replicas) == (3, 2)
    assert [row.id for row in invariants.check(sim.connect())] == ["old", "theirs", "ours"]


def test_a_commit_that_was_undone_before_retention_could_hide_it() -> None:
    """A failover undoes a commit that a prune after it would have hidden, and the publish is acknowledged."""
    sim = SimulatedStore(replicas=2)
    client, meddler = meddled(sim.connect())
    for number in (1, 2):
        client.publish("mena", number, id=f"old-{number}", ts=at(number), durability=BOTH)
    before = sim.keyspace.copy()
    undone: list[int] = []

    def undo(commands: Sequence[Command[Any]], replies: list[Any]) -> None:
        if any(isinstance(command, Swap) for command in commands) and not undone:
            undone.append(1)
            _restore(sim.keyspace, before)
            sim.connect().prune("mena", retention=Retention(max_age=timedelta(milliseconds=1)))
            replies[-1] = Failed(ReadOnly("not the primary any more"), again=True)

    _meddling(meddler, undo)
    commit = client.publish("mena", "ours", id="ours", ts=at(3), durability=BOTH)
    assert undone
    assert (commit.created, commit.replicas) == (True, 2)
    latest = sim.connect().read_latest("mena")
    assert latest is not None
    assert latest.id == "ours"


@pytest.mark.parametrize("retention", [Retention(max_count=1), Retention(max_age=timedelta(minutes=30))])
def test_a_commit_that_retention_has_unlinked_since_was_not_undone(retention: Retention) -> None:
    """A commit that others have outgrown during the wait is published a second time."""
    sim = SimulatedStore(replicas=2)
    client, meddler = meddled(sim.connect())
    others = sim.connect()
    outgrown: list[int] = []

    def outgrow(commands: Sequence[Command[Any]], replies: list[Any]) -> None:
        if any(isinstance(command, Swap) for command in commands) and not outgrown:
            outgrown.append(1)
            for number in range(100):
                others.publish("mena", number)
            sim.clock.advance(3_600_000)
            others.prune("mena", retention=retention)
            others.publish("mena", "last")
            sim.clock.advance(3_600_000)
            replies[-1] = Failed(ReadOnly("not the primary any more"), again=True)

    _meddling(meddler, outgrow)
    commit = client.publish("mena", "ours", id="ours", durability=BOTH)
    assert (commit.version, commit.created, commit.replicas) == (1, True, 2)
    latest = client.read_latest("mena")
    assert latest is not None
    assert latest.value == "last"
    assert others.read("mena", id="ours") is None
