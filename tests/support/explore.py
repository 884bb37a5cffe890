"""Exhaustive exploration of the real operations: every interleaving of their commands, with every fault.

An operation is deterministic given its replies, so a client's state **is** the history of its replies: it is
rebuilt by replaying them. A state of the whole is the content of the store, each client's history with the
replies of its unfinished batch, the packets still in flight, and the faults that may still happen. Every
state is visited once, so the search is complete, and its size can be pinned.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import attrs

from swapstore.cache import Cache
from swapstore.commands import Command, ReadCommand, Swap
from swapstore.errors import ReplyLost, SwapstoreError
from swapstore.format.keys import Keys
from swapstore.protocol.context import Context, Policy
from swapstore.protocol.operation import Batch, Operation, Turn, Wait, Within
from swapstore.testing import Keyspace, VirtualClock

KEYS = Keys("x")
POLICY = Policy(commit_attempts=4, read_attempts=3)
LOST = "lost"

History = tuple[Any, ...]
Check = Callable[[Keyspace], Any]


@attrs.frozen
class Faults:
    """How many of each fault may still happen."""

    crash: int = 0
    lost: int = 0
    late: int = 0
    expire: int = 0
    torn: int = 0


NONE = Faults()


@attrs.frozen(cache_hash=True)
class Client:
    """A client's past: the replies of each batch, and those of the batch in flight."""

    history: History = ()
    replies: tuple[Any, ...] = ()
    dead: bool = False
    began: int | None = None  # the manifest's version when its first command was carried out


@attrs.frozen
class Next:
    """What a client does next: send a batch, or end with a result or an error."""

    batch: tuple[Command[Any], ...] | None = None
    result: Any = None
    error: SwapstoreError | None = None


@attrs.frozen(cache_hash=True)
class State:
    """Everything that decides what can happen next."""

    clients: tuple[Client, ...]
    late: tuple[tuple[Command[Any], ...], ...]
    faults: Faults


@attrs.define
class Outcome:
    """What a search found."""

    states: int = 0
    ends: Counter[tuple[str, ...]] = attrs.field(factory=Counter)


class Explorer:
    """Explores several operations on one store, from a given content."""

    def __init__(
        self,
        operations: list[Callable[[Context], Operation[Any]]],
        *,
        start: Keyspace,
        faults: Faults,
        judge: Callable[[Keyspace, list[Next | None], State], None],
        lost_reads: bool = True,
    ) -> None:
        self._lost_reads = lost_reads
        self._operations = operations
        self._start = start
        self._faults = faults
        self._judge = judge
        self._next: dict[tuple[int, History], Next] = {}

    def run(self) -> Outcome:
        """Visit every reachable state once, and judge each."""
        outcome = Outcome()
        first = State(tuple(Client() for _ in self._operations), (), self._faults)
        stack = [(self._start, first)]
        seen = {(self._start.fingerprint(), first)}
        while stack:
            keyspace, state = stack.pop()
            outcome.states += 1
            steps = [
                None if client.dead else self.next(index, client.history)
                for index, client in enumerate(state.clients)
            ]
            self._judge(keyspace, steps, state)
            if all(step is None or step.batch is None for step in steps):
                outcome.ends[tuple(_describe(step) for step in steps)] += 1
            for after in self._successors(keyspace, state, steps):
                mark = (after[0].fingerprint(), after[1])
                if mark not in seen:
                    seen.add(mark)
                    stack.append(after)
        return outcome

    def next(self, index: int, history: History) -> Next:
        """Replay a client's history and say what it does next."""
        known = self._next.get((index, history))
        if known is None:
            known = self._next[index, history] = self._replay(index, history)
        return known

    def _replay(self, index: int, history: History) -> Next:
        context = Context(
            keys=KEYS,
            cache=Cache(1 << 20),
            policy=POLICY,
            clock=VirtualClock(1_000_000 + index),
            random=random.Random(index),
        )
        operation = self._operations[index](context)
        replies = iter(history)
        try:
            step = next(operation)
            while True:
                if isinstance(step, Wait | Turn | Within):
                    step = operation.send([])
                    continue
                assert isinstance(step, Batch)  # there are no event listeners here
                reply = next(replies, None)
                if reply is None:
                    return Next(batch=step.commands)
                lost = reply == LOST
                step = operation.throw(ReplyLost("lost")) if lost else operation.send(list(reply))
        except StopIteration as stop:
            return Next(result=stop.value)
        except SwapstoreError as error:
            return Next(error=error)
        finally:
            operation.close()

    # --- the possible next steps ---------------------------------------------------------------------------

    def _successors(
        self, keyspace: Keyspace, state: State, steps: list[Next | None]
    ) -> Iterator[tuple[Keyspace, State]]:
        for index, step in enumerate(steps):
            if step is not None and step.batch is not None:
                yield from self._client_moves(keyspace, state, index, step.batch)
        for number, packet in enumerate(state.late):
            after = keyspace.copy()
            after.apply(packet[0], 0)
            rest = (packet[1:],) if len(packet) > 1 else ()
            late = (*state.late[:number], *rest, *state.late[number + 1 :])
            yield after, State(state.clients, late, state.faults)
        if state.faults.expire:
            faults = attrs.evolve(state.faults, expire=state.faults.expire - 1)
            for key, value in keyspace.values.items():
                if value.expires_at is not None:
                    after = keyspace.copy()
                    del after.values[key]
                    yield after, State(state.clients, state.late, faults)

    def _client_moves(
        self, keyspace: Keyspace, state: State, index: int, batch: tuple[Command[Any], ...]
    ) -> Iterator[tuple[Keyspace, State]]:
        client = state.clients[index]
        done = len(client.replies)
        began = version_of(keyspace) if client.began is None else client.began
        after = keyspace.copy()
        replies = (*client.replies, _frozen(after.apply(batch[done], 0)))
        if len(replies) < len(batch):
            yield after, _with(state, index, Client(client.history, replies, began=began))
        else:
            yield after, _with(state, index, Client((*client.history, replies), began=began))
        if state.faults != NONE:
            yield from self._faulty_moves(keyspace, after, state, index, batch)

    def _faulty_moves(
        self, before: Keyspace, after: Keyspace, state: State, index: int, batch: tuple[Command[Any], ...]
    ) -> Iterator[tuple[Keyspace, State]]:
        client, faults = state.clients[index], state.faults
        done = len(client.replies)
        began = version_of(before) if client.began is None else client.began
        lost = Client((*client.history, LOST), began=began)
        if faults.crash:
            fewer = attrs.evolve(state, faults=attrs.evolve(faults, crash=faults.crash - 1))
            yield before, _with(fewer, index, Client(dead=True))
        reads_only = all(isinstance(command, ReadCommand) for command in batch[done:])
        if faults.lost and (self._lost_reads or not reads_only):
            fewer = attrs.evolve(state, faults=attrs.evolve(faults, lost=faults.lost - 1))
            yield before, _with(fewer, index, lost)
            if done + 1 == len(batch):
                yield after, _with(fewer, index, lost)
        if faults.late and not reads_only:  # reads that arrive late change nothing: they are lost
            fewer = attrs.evolve(state, faults=attrs.evolve(faults, late=faults.late - 1))
            yield before, attrs.evolve(_with(fewer, index, lost), late=(*state.late, batch[done:]))
        command = batch[done]
        if faults.torn and isinstance(command, Swap):
            fewer = attrs.evolve(state, faults=attrs.evolve(faults, torn=faults.torn - 1))
            touched = len(command.staged) + len(command.rewritten) + len(command.unlinked)
            for writes in range(1, touched + 2):
                torn = before.copy()
                torn.commit(command, 0, writes=writes)
                yield torn, _with(fewer, index, lost)


def version_of(keyspace: Keyspace) -> int:
    """The version of the stored manifest, 0 without one."""
    value = keyspace.values.get(KEYS.manifest("d"))
    return int(value.data.split(b".", 2)[1]) if value and value.data.count(b".") > 1 else 0


def _with(state: State, index: int, client: Client) -> State:
    clients = (*state.clients[:index], client, *state.clients[index + 1 :])
    return State(clients, state.late, state.faults)


def _frozen(reply: Any) -> Any:
    return tuple(reply) if isinstance(reply, list) else reply


def _describe(step: Next | None) -> str:
    if step is None:
        return "dead"
    if step.error is not None:
        return type(step.error).__name__
    each = getattr(step.result, "each", None)
    if each is not None:
        return " ".join(sorted({_describe(Next(result=answer)) for _, answer in each}))
    created = getattr(step.result, "created", None)
    return type(step.result).__name__ if created is None else f"created={created}"
