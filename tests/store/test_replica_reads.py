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
