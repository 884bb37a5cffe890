"""The exploration of batching: producers that send the commands for two datasets in one batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from swapstore.models import Commit
from swapstore.protocol.batching import batched
from swapstore.protocol.publish import Publication, publish
from swapstore.protocol.read import read_latest
from swapstore.testing import Keyspace
from tests.exploration.contents import contents_of
from tests.exploration.scenarios import NO_CUT
from tests.support.explore import Explorer, Faults, Next, Outcome, State

if TYPE_CHECKING:
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation
    from tests.exploration.scenarios import Client

DATASETS = ("d", "e")


@attrs.frozen
class Answers:
    """What became of each dataset; a dict cannot be part of a state."""

    each: tuple[tuple[str, Any], ...]


def producer(number: int, *, together_bytes: int = 1 << 20) -> Client:
    """A producer of one snapshot for each dataset."""

    def operation(context: Context) -> Operation[Answers]:
        wanted = {
            name: publish(
                context,
                Publication(
                    dataset=name, payload=b"%d" % number, codec="bytes", id=f"new-{number}", ts=number
                ),
            )
            for name in DATASETS
        }
        bounded = msgspec.structs.replace(context.policy, max_batch_bytes=together_bytes)
        outcomes = yield from batched(msgspec.structs.replace(context, policy=bounded), wanted)
        return Answers(tuple(outcomes.items()))

    return operation


def reader(context: Context) -> Operation[Answers]:
    """A reader of both datasets."""
    found = yield from batched(context, {name: read_latest(context, name) for name in DATASETS})
    return Answers(tuple((name, getattr(snapshot, "id", snapshot)) for name, snapshot in found.items()))


@attrs.frozen
class Scenario:
    """Some clients, on an empty store."""

    clients: tuple[Client, ...]
    budgets: tuple[str, ...]


ALL = ("none", "one crash", "one lost reply", "one late command", "one key expires")
SCENARIOS = {
    "one producer of two datasets": Scenario((producer(1),), ALL),
    "one producer of two datasets, sent apart": Scenario((producer(1, together_bytes=1),), ALL),
    "a producer and a reader of two datasets": Scenario((producer(1), reader), ALL),
    "two producers of two datasets": Scenario((producer(1), producer(2)), ALL),
}
BUDGETS = NO_CUT


def explore(scenario: Scenario, faults: Faults) -> Outcome:
    """Visit every state of a scenario under a budget of faults."""
    return Explorer(list(scenario.clients), start=Keyspace(), faults=faults, judge=Judge()).run()


class Judge:
    """Each dataset is whole in each state, and holds what was acknowledged for it."""

    def __init__(self) -> None:
        self._known: dict[Any, dict[str, set[str]]] = {}

    def __call__(self, keyspace: Keyspace, steps: list[Next | None], _: State) -> None:
        mark = keyspace.fingerprint()
        if mark not in self._known:
            self._known[mark] = {name: self._ids(keyspace, name) for name in DATASETS}
        ids = self._known[mark]
        for step in steps:
            if step is None or step.batch is not None:
                continue
            assert step.error is None, "what fails for one dataset is an answer, not an end"
            for name, answer in step.result.each:
                if isinstance(answer, Commit):
                    assert answer.id in ids[name], f"acknowledged for {name}, and lost"
                    assert answer.dataset == name
                elif isinstance(answer, str):
                    assert answer in ids[name], f"read from {name}, and not committed"

    @staticmethod
    def _ids(keyspace: Keyspace, name: str) -> set[str]:
        found = contents_of(keyspace, name)
        if found.head is not None:
            assert found.problems == []
        return {row.id for row in found.rows}
