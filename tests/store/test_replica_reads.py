"""What a client reads that may ask a replica first: the replica lags, and readers never learn less for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import attrs
import msgspec
import pytest

from swapstore import Snapshot, Store
from swapstore.cache import Cache
from swapstore.commands import Command, Failed, Get
from swapstore.drivers.redis.reading import REST_S, AsyncReplicaDriver, ReplicaDriver
from swapstore.engine import run
from swapstore.errors import ReplyLost, SwapstoreError, Unavailable
from swapstore.protocol import read
from swapstore.protocol.context import Context
from swapstore.protocol.operation import Batch, Operation
from swapstore.protocol.publish import Publication, publish, published
from swapstore.testing import Keyspace, SimulatedStore
from tests.support.times import at


class Replicated:
    """A client of a primary and of replicas, which take turns. `replicas`: what each shows."""

    def __init__(self) -> None:
        self.sim = SimulatedStore()
        self.producer: Store = self.sim.connect()
        self.replicas: list[Keyspace] = []
        self.asked: list[str] = []
        self.failure: Failed | SwapstoreError | None = (
            None  # what a replica answers each command with, or raises
        )
        store = self.sim.connect()
        policy = msgspec.structs.replace(store._context.policy, reads_replicas=True)
        self.ctx: Context = msgspec.structs.replace(store._context, policy=policy, cache=Cache(1 << 20))
        self._primary = store._driver

    def lag(self) -> None:
        """Have one more replica, which shows what is stored now for ever."""
        self.replicas.append(self.sim.keyspace.copy())

    def publish(self, *numbers: int) -> None:
        for number in numbers:
            self.producer.publish("mena", number, id=f"mena-{number}", ts=at(number))

    def run(self, operation: Operation[Any]) -> Any:
        """Run an operation whose batches go where they may."""

        def routed() -> Operation[Any]:
            try:
                step = next(operation)
                while True:
                    if isinstance(step, Batch) and step.anywhere:
                        step = self._at_a_replica(operation, step.commands)
                    else:
                        if isinstance(step, Batch):
                            self.asked.append("primary")
                        step = operation.send((yield step))
            except StopIteration as stop:
                return stop.value

        self.asked.clear()
        return run(routed(), self._primary, self.sim.clock.sleep)

    def _at_a_replica(self, operation: Operation[Any], commands: Sequence[Command[Any]]) -> Any:
        self.asked.append("replica")
        if isinstance(self.failure, SwapstoreError):
            return operation.throw(self.failure)
        if self.failure is not None:
            return operation.send([self.failure] * len(commands))
        self.replicas.append(replica := self.replicas.pop(0))
        return operation.send([replica.apply(command, self.sim.clock.now_ms()) for command in commands])

    def latest(self, **options: Any) -> Snapshot | None:
        found: Snapshot | None = self.run(read.read_latest(self.ctx, "mena", **options))
        return found


Asking = Callable[[Context], Operation[Snapshot | None]]


@pytest.mark.parametrize(
    "asking",
    [
        lambda ctx: read.read_id(ctx, "mena", "mena-2"),
        lambda ctx: read.read_version(ctx, "mena", 2),
    ],
    ids=["id", "version"],
)
def test_what_a_replica_does_not_show_yet_is_there(asking: Asking) -> None:
    """A consumer is told of a commit, asks for it, and reads that there is no such snapshot."""
    both = Replicated()
    both.publish(1)
    both.lag()
    both.publish(2)
    found = both.run(asking(both.ctx))
    assert found is not None
    assert (found.id, found.version) == ("mena-2", 2)
    assert both.asked[0] == "replica"


def test_latest_never_goes_back_among_replicas_that_lag() -> None:
    """A reader is given version 3, and then version 2 or 1, as the replicas take turns."""
    both = Replicated()
    both.publish(1)
    both.lag()
    both.publish(2)
    both.lag()
    both.publish(3)
    both.lag()
    versions = [both.latest().version for _ in range(9)]  # type: ignore[union-attr]
    assert versions == sorted(versions)
    assert versions[-1] == 3


def test_the_wanted_version_is_the_primarys_to_show() -> None:
    """A reader that waits for its own publish is given what a replica still shows, or an error."""
    both = Replicated()
    both.publish(1)
    both.lag()
    both.publish(2)
    found = both.latest(min_version=2)
    assert found is not None
    assert found.version == 2
    assert both.latest().version == 2  # type: ignore[union-attr]


def test_whether_a_run_is_published_is_the_primarys_to_say() -> None:
    """A job computes what is published, because a replica does not show it yet."""
    both = Replicated()
    both.publish(1)
    both.lag()
    commit = both.producer.publish("mena", 2, dedupe_key="hour-2")
    for _ in range(2):
        found = both.run(published(both.ctx, "mena", "hour-2"))
        assert found.id == commit.id
        assert both.asked == ["primary"]


def test_a_new_epoch_is_the_primarys_to_show() -> None:
    """After a flush and a new start a reader goes back and forth between the old line and the new one."""
    both = Replicated()
    both.publish(1, 2, 3)
    both.lag()
    assert both.latest().id == "mena-3"  # type: ignore[union-attr]
    both.sim.keyspace.values.clear()
    both.sim.keyspace.sets.clear()
    both.producer = both.sim.connect()
    both.publish(7)
    both.lag()
    both.lag()
    found = [both.latest() for _ in range(12)]
    ids = [each.id for each in found if each is not None]
    assert len(ids) == 12
    assert ids == sorted(ids, key=lambda each: each == "mena-7"), "it goes back to the old line"
    assert ids[-1] == "mena-7"


def test_a_replica_without_anything_is_not_a_store_without_anything() -> None:
    """A replica that is new says that nothing is published, and a reader believes it."""
    both = Replicated()
    both.lag()
    both.publish(1)
    assert both.latest().version == 1  # type: ignore[union-attr]
    assert both.run(read.read_as_of(both.ctx, "mena", 5)).version == 1


def test_a_replica_that_has_the_manifest_and_not_the_record() -> None:
    """A record that has not come to a replica is told as lost."""
    both = Replicated()
    both.publish(1)
    both.lag()
    del both.replicas[0].values["swapstore:id:{mena}:mena-1"]
    for asking in (read.read_latest(both.ctx, "mena"), read.read_id(both.ctx, "mena", "mena-1")):
        assert both.run(asking).id == "mena-1"


@pytest.mark.parametrize(
    "failure", [Failed(Unavailable("loading"), again=True), ReplyLost("cut"), Unavailable("down")], ids=repr
)
@pytest.mark.parametrize("has_read", [False, True])
def test_a_replica_that_fails_costs_one_attempt(failure: Failed | SwapstoreError, *, has_read: bool) -> None:
    """A reader fails because a replica is down, although the primary is up; or asks it again and again."""
    both = Replicated()
    both.publish(1)
    both.lag()
    if has_read:
        both.latest()
    both.publish(2)
    both.failure = failure
    assert both.latest().version == 2  # type: ignore[union-attr]
    assert both.asked[0] == "replica"
    assert both.asked.count("replica") == 1
    assert both.run(read.read_id(both.ctx, "mena", "mena-1")).version == 1


@attrs.define(slots=False)
class Failing:
    """A driver for replicas that raises `failure` until a test takes it away, and counts the batches."""

    failure: SwapstoreError | None
    asked: int = 0
    where: str = "replicas"
    kind: str = "redis"
    binary_safe: bool = True

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        self.asked += 1
        if self.failure is not None:
            raise self.failure
        return [None] * len(commands)

    def close(self) -> None:
        self.asked = 0


@pytest.mark.parametrize("face", ["blocking", "asyncio"])
def test_replicas_that_failed_rest_for_a_moment(face: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each read waits for the time-out of a replica first, or no replica is ever read again."""
    now = [100.0]
    monkeypatch.setattr("swapstore.drivers.redis.reading.time.monotonic", lambda: now[0])
    behind = Failing(Unavailable("down"))

    def ask() -> list[Any]:
        if face == "blocking":
            return blocking.execute([Get("a")])
        return asyncio.run(reading.execute([Get("a")]))

    async def execute(commands: Sequence[Command[Any]]) -> list[Any]:
        return behind.execute(commands)

    blocking, reading = ReplicaDriver(behind), AsyncReplicaDriver(attrs.evolve(behind))  # type: ignore[arg-type]
    reading._driver.execute = execute  # type: ignore[method-assign]
    for name in ("mena", "asia", "europe"):
        with pytest.raises(Unavailable) as caught:
            ask()
        assert caught.value.dataset is None, "what a read notes on its error is told by the next"
        caught.value.dataset = name
    assert behind.asked == 1
    behind.failure = None
    now[0] += REST_S
    assert ask() == [None]
    assert ask() == [None]
    assert behind.asked == 3


def test_a_record_that_is_altered_at_a_replica_alone() -> None:
    """A damaged replica makes a sound store unreadable."""
    both = Replicated()
    both.publish(1)
    both.lag()
    key = "swapstore:id:{mena}:mena-1"
    value = both.replicas[0].values[key]
    both.replicas[0].values[key] = attrs.evolve(value, data=value.data[:-1] + b"x")
    assert both.latest().value == 1  # type: ignore[union-attr]
    assert both.run(read.read_version(both.ctx, "mena", 1)).value == 1


def test_a_page_that_is_altered_at_a_replica_alone() -> None:
    """A damaged replica ends the history of a sound store in the middle."""
    both = Replicated()
    both.publish(*range(1, 100))
    both.lag()
    for key, value in both.replicas[0].values.items():
        if ":page:" in key:
            both.replicas[0].values[key] = attrs.evolve(value, data=value.data[:-1] + b"x")
    history = read.History(both.ctx, "mena", limit=None, before=None)
    versions: list[int] = []
    while (rows := both.run(history.step())) is not None:
        versions += [row.version for row in rows]
    assert versions == [*range(99, 0, -1)]
    assert both.run(read.read_version(both.ctx, "mena", 1)).value == 1


def test_what_is_remembered_is_no_answer_for_who_wants_a_later_version() -> None:
    """A reader that allows staleness, and has just published version 2, is given version 1."""
    both = Replicated()
    both.publish(1)
    both.lag()
    assert both.latest().version == 1  # type: ignore[union-attr]
    both.publish(2)
    assert both.latest(max_staleness_s=60.0).version == 1  # type: ignore[union-attr]
    assert both.latest(max_staleness_s=60.0, min_version=2).version == 2  # type: ignore[union-attr]


def test_a_publish_asks_no_replica() -> None:
    """After a read, a client drafts its publishes on what a replica shows."""
    both = Replicated()
    both.publish(1)
    both.lag()
    both.latest()
    both.publish(2)
    wanted = Publication(dataset="mena", payload=b"3", codec="json", id="mena-3", expected_version=2)
    assert both.run(publish(both.ctx, wanted)).version == 3
    assert "replica" not in both.asked
