"""A view beside producers and pins, explored: what it shows is committed, and it never goes back.

The view looks four times: at all, after a hint, through an outage, and at all again. Its result is what it
showed after each look.
"""

from __future__ import annotations

from typing import Any

import attrs

from swapstore.errors import Unavailable
from swapstore.format import manifest
from swapstore.models import Snapshot
from swapstore.protocol.context import Context
from swapstore.protocol.operation import Batch, Operation
from swapstore.protocol.pointers import pin, unpin
from swapstore.protocol.view import Viewing
from swapstore.testing import Keyspace
from tests.exploration.scenarios import ONE, TWO, D, Judge, Scenario, with_history
from tests.support.explore import Explorer, Faults, Next, Outcome, State


@attrs.frozen
class Shown:
    """What a view showed after each look. None: it knows that nothing is published."""

    snapshots: tuple[Snapshot | None, ...]


def viewer(context: Context) -> Operation[Shown]:
    """A view of the dataset."""
    viewing = Viewing(context, [D], prefix=None, poll_s=1.0)
    shown: list[Snapshot | None] = []
    for due, dark in ((None, False), ({D}, False), (None, True), (None, False)):
        look = viewing.look(due)
        yield from _dark(look) if dark else look
        assert viewing.connected is not dark or viewing.errors
        if D in viewing.held:
            shown.append(viewing.held[D])
    return Shown(tuple(shown))


def _dark(operation: Operation[Any]) -> Operation[Any]:
    """Run an operation whose batches cannot be sent."""
    try:
        step = next(operation)
        while True:
            if isinstance(step, Batch):
                step = operation.throw(Unavailable("dark"))
            else:
                step = operation.send((yield step))
    except StopIteration as stop:
        return stop.value


def pinner(context: Context) -> Operation[Any]:
    """Pins the oldest snapshot, then unpins."""
    yield from pin(context, D, "old-0")
    return (yield from unpin(context, D))


SCENARIOS = {
    "a producer and a view": Scenario((ONE, viewer)),
    "the first producer and a view": Scenario((ONE, viewer), history=0),
    "two producers and a view": Scenario((ONE, TWO, viewer)),
    "a pin, an unpin and a view": Scenario((pinner, viewer), history=2),
}
BUDGETS = {
    "none": Faults(),
    "one crash": Faults(crash=1),
    "one lost reply": Faults(lost=1),
    "one late command": Faults(late=1),
    "one key expires": Faults(expire=1),
}


def explore(scenario: Scenario, faults: Faults) -> Outcome:
    """Visit every state, and judge each."""
    judge = _Judge(producers_only=pinner not in scenario.clients)
    usual, manifest.F = manifest.F, scenario.page_rows
    try:
        start = with_history(scenario.history)
        return Explorer(list(scenario.clients), start=start, faults=faults, judge=judge).run()
    finally:
        manifest.F = usual


class _Judge:
    """What must hold in every state: what `Judge` says of each shown snapshot, and that none is older."""

    def __init__(self, *, producers_only: bool) -> None:
        self._plain = Judge()
        self._producers_only = producers_only  # `Judge` knows no version without a row

    def __call__(self, keyspace: Keyspace, steps: list[Next | None], state: State) -> None:
        last: list[Next | None] = []
        for step in steps:
            shown = step.result if step else None
            if step is None or not isinstance(shown, Shown):
                last.append(step)
                continue
            seen = [snapshot and int(snapshot.etag.split(".")[1]) for snapshot in shown.snapshots]
            assert seen == sorted(seen, key=lambda version: version or 0), "the view went back"
            assert shown.snapshots, "it never learned anything"
            last.append(attrs.evolve(step, result=shown.snapshots[-1]))
        if self._producers_only:
            self._plain(keyspace, last, state)
