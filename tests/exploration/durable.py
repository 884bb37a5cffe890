"""Publishes that wait for replicas, explored: what is acknowledged was waited for, after its swap.

A client's result carries every batch that it sent, with the replies. So a state shows whether the wait
counts: a server waits for what a connection has written, so only a wait behind a write of its batch does.
"""

from __future__ import annotations

from typing import Any

import attrs
import msgspec

from swapstore import Commit, Durability
from swapstore.commands import AwaitReplicas, Command, Committed, Get, Put, Swap
from swapstore.errors import SwapstoreError
from swapstore.format import manifest
from swapstore.protocol.context import Context
from swapstore.protocol.durability import publish_durably
from swapstore.protocol.operation import Batch, Operation
from swapstore.protocol.publish import Publication
from swapstore.testing import Keyspace
from tests.exploration.scenarios import Client, D, Judge, remembering, with_history
from tests.support.explore import Explorer, Faults, Next, Outcome, State

BOTH = Durability(replicas=2)

Sent = tuple[tuple[Command[Any], ...], tuple[Any, ...]]


@attrs.frozen
class Acknowledged:
    """A commit, and the batches that were answered on the way to it."""

    commit: Commit
    sent: tuple[Sent, ...]

    @property
    def created(self) -> bool:
        """Whether this publish has created it."""
        return self.commit.created


def durable(payload: bytes, **options: Any) -> Client:
    """A producer that asks for two replicas."""
    wanted = Publication(dataset=D, payload=payload, codec="bytes", **options)

    def operation(context: Context) -> Operation[Any]:
        sent: list[Sent] = []
        waiting = msgspec.structs.replace(context, durability=BOTH)
        commit = yield from _noting(publish_durably(waiting, wanted, BOTH), sent)
        return Acknowledged(commit, tuple(sent))

    return operation


def _noting(operation: Operation[Commit], sent: list[Sent]) -> Operation[Commit]:
    """Run an operation, and note each batch that was answered."""
    try:
        step = next(operation)
        while True:
            try:
                replies = yield step
            except SwapstoreError as error:
                step = operation.throw(error)
            else:
                if isinstance(step, Batch):
                    sent.append((step.commands, tuple(replies)))
                step = operation.send(replies)
    except StopIteration as stop:
        commit: Commit = stop.value
        return commit


ONE, TWO = (durable(b"%d" % n, id=f"new-{n}", ts=10 + n) for n in (1, 2))
SAME = durable(b"same", id="x", ts=5)
SCENARIOS: dict[str, tuple[Client, ...]] = {
    "one producer": (ONE,),
    "one producer that remembers": (remembering(ONE),),
    "two producers, different ids": (ONE, TWO),
    "two producers, the same id and content": (SAME, SAME),
}


def explore(clients: tuple[Client, ...], faults: Faults) -> Outcome:
    """Visit every state, and judge each."""
    start = with_history(1)
    start.replicas = BOTH.replicas
    judge = Judge(torn=faults.torn > 0)

    def judged(keyspace: Keyspace, steps: list[Next | None], state: State) -> None:
        results = [step and step.result for step in steps]
        for result in results:
            if isinstance(result, Acknowledged):
                assert result.commit.replicas == BOTH.replicas
                assert any(counts(each, result.commit) for each in result.sent), "it was not waited for"
        plain = [
            attrs.evolve(step, result=step.result.commit)
            if step and isinstance(result, Acknowledged)
            else step
            for step, result in zip(steps, results, strict=True)
        ]
        judge(keyspace, plain, state)

    return Explorer(list(clients), start=start, faults=faults, judge=judged).run()


def counts(sent: Sent, commit: Commit) -> bool:
    """Say whether a batch waited for a commit, after it, on a connection that had written."""
    commands, replies = sent
    if not isinstance(commands[-1], AwaitReplicas) or replies[-1] != BOTH.replicas:
        return False
    match commands:
        case [*_, Swap(prefix=prefix), _]:
            return replies[-2] == Committed() and prefix == manifest.prefix(commit.etag)
        case [Get(), Put(), _]:
            return f'"{commit.id}"'.encode() in replies[0]
    return False
