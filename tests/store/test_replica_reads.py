"""What a client reads that may ask a replica first: the replica lags, and readers never learn less for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import pytest

from swapstore import Snapshot, Store
from swapstore.cache import Cache
from swapstore.commands import Command
from swapstore.engine import run
from swapstore.protocol import read
from swapstore.protocol.context import Context
from swapstore.protocol.operation import Batch, Operation
from swapstore.testing import Keyspace, SimulatedStore
from tests.support.times import at


class Replicated:
    """A client of a primary and of replicas, which take turns. `replicas`: what each shows."""

    def __init__(self) -> None:
        self.sim = SimulatedStore()
        self.producer: Store = self.sim.connect()
        self.replicas: list[Keyspace] = []
        self.asked: list[str] = []
        store = self.sim.connect()
        policy = attrs.evolve(store._context.policy, reads_replicas=True)
        self.ctx: Context = attrs.evolve(store._context, policy=policy, cache=Cache(1 << 20))
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
            step = next(operation)
            try:
                while True:
                    if isinstance(step, Batch) and step.anywhere:
                        step = operation.send(self._at_a_replica(step.commands))
                    else:
                        if isinstance(step, Batch):
                            self.asked.append("primary")
                        step = operation.send((yield step))
            except StopIteration as stop:
                return stop.value

        self.asked.clear()
        return run(routed(), self._primary, self.sim.clock.sleep)

    def _at_a_replica(self, commands: Sequence[Command[Any]]) -> list[Any]:
        self.asked.append("replica")
        self.replicas.append(replica := self.replicas.pop(0))
        return [replica.apply(command, self.sim.clock.now_ms()) for command in commands]

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
