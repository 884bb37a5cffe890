"""The exploration of recompress: history that is stored anew beside producers, pruners and readers.

Pages hold two rows, and a swap two or three snapshots, so a few snapshots take several swaps.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from swapstore import Retention
from swapstore.errors import Damaged
from swapstore.models import Commit, Row, Snapshot
from swapstore.protocol import recompress
from swapstore.protocol.pointers import pin, unpin
from swapstore.protocol.prune import prune
from swapstore.protocol.publish import Publication, publish
from swapstore.protocol.read import History, read_id, read_latest
from swapstore.reports import Recompressed
from swapstore.testing import SimulatedStore
from tests.exploration.maintenance import pages_of_two
from tests.exploration.scenarios import Client, D
from tests.recompress.model import check, document
from tests.support.explore import KEYS, Explorer, Faults, Next, Outcome, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swapstore.models import Compression
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation
    from swapstore.testing import Keyspace


def storing(compression: Compression, client: Client) -> Client:
    """The same client, with a compression."""

    def run(context: Context) -> Operation[Any]:
        policy = msgspec.structs.replace(context.policy, compression=compression)
        return client(msgspec.structs.replace(context, policy=policy))

    return run


def recompressor(compression: Compression) -> Client:
    """Stores the history anew."""
    return lambda context: recompress.recompress(context, D, compression, limit=None)


def producer(number: int, compression: Compression) -> Client:
    """Publishes one more."""
    payload = document(0, changed=100 + number, size=SIZE)
    wanted = Publication(dataset=D, payload=payload, codec="bytes", id=f"new-{number}")
    return storing(compression, lambda context: publish(context, wanted))


def pruner(context: Context) -> Operation[Any]:
    """Unlinks all but the newest."""
    return prune(context, D, Retention(max_count=1))


def pinner(context: Context) -> Operation[Any]:
    """Pins the oldest snapshot, then unpins."""
    yield from pin(context, D, "old-0")
    return (yield from unpin(context, D))


def reader(context: Context) -> Operation[Snapshot | None]:
    """A reader of the latest snapshot."""
    return read_latest(context, D)


def old_reader(context: Context) -> Operation[Snapshot | None]:
    """A reader of the oldest snapshot."""
    return read_id(context, D, "old-0")


def historian(context: Context) -> Operation[tuple[Row, ...]]:
    """A reader of the whole history, who may be slower than the swaps."""
    history, rows = History(context, D, limit=None, before=None), list[Row]()
    while (found := (yield from history.step())) is not None:
        rows += found
    return tuple(rows)


# --- what is explored ------------------------------------------------------------------------------

SIZE = 400
MIXED: tuple[Compression, ...] = ("none", "none", "delta", "zstd", "none")


@attrs.frozen
class Scenario:
    """Some clients, on a history of snapshots that were stored in these ways. `pinned`: the oldest is."""

    clients: tuple[Client, ...]
    history: tuple[Compression, ...]
    budgets: tuple[str, ...] = ("none", "one crash", "one lost reply")
    pinned: bool = False


PLAIN: tuple[Compression, ...] = ("none",) * 4
DELTA: tuple[Compression, ...] = ("delta",) * 4
LATE = ("none", "one crash", "one lost reply", "one late command")
ALL = (*LATE, "one torn script")
SCENARIOS = {
    "to delta, and readers": Scenario((recompressor("delta"), reader, old_reader), PLAIN, ALL),
    "to delta, and a reader of the history": Scenario((recompressor("delta"), historian), PLAIN, ALL),
    "to delta, and a producer of deltas": Scenario((recompressor("delta"), producer(1, "delta")), PLAIN),
    "to delta of a mixed history, and a plain producer": Scenario(
        (recompressor("delta"), producer(1, "none")), MIXED
    ),
    "to plain, and readers": Scenario((recompressor("none"), reader, old_reader), DELTA, ALL),
    "to zstd of a mixed history, and a producer of deltas": Scenario(
        (recompressor("zstd"), producer(1, "delta")), MIXED
    ),
    "to plain, and a producer of deltas": Scenario((recompressor("none"), producer(1, "delta")), DELTA),
    "to delta, and a pruner": Scenario((recompressor("delta"), pruner), PLAIN, LATE),
    "to plain of a pinned history, and a pruner": Scenario(
        (recompressor("none"), pruner), DELTA, LATE, pinned=True
    ),
    "to plain, and a pinner": Scenario((recompressor("none"), pinner), DELTA),
    "to delta and to plain": Scenario((recompressor("delta"), recompressor("none")), MIXED),
    "to delta twice": Scenario((recompressor("delta"), recompressor("delta")), PLAIN),
}
BUDGETS = {
    "none": Faults(),
    "one crash": Faults(crash=1),
    "one lost reply": Faults(lost=1),
    "one late command": Faults(late=1),
    "one torn script": Faults(torn=1),
}


def explore(scenario: Scenario, faults: Faults) -> Outcome:
    """Visit every state of a scenario under a budget of faults. A read that is lost is only repeated."""
    with pages_of_two(), few_rows_a_swap():
        start, payloads = with_history(scenario)
        explorer = Explorer(
            list(scenario.clients),
            start=start,
            faults=faults,
            judge=Judge(payloads, leaks=bool(faults.torn)),
            lost_reads=False,
        )
        return explorer.run()


@contextmanager
def few_rows_a_swap() -> Iterator[None]:
    usual = recompress.ROWS_A_SWAP
    recompress.ROWS_A_SWAP = 2
    try:
        yield
    finally:
        recompress.ROWS_A_SWAP = usual


def with_history(scenario: Scenario) -> tuple[Keyspace, dict[str, bytes]]:
    """A keyspace with a history, and the payloads by id, those that are still to come included."""
    simulated = SimulatedStore()
    observer = simulated.connect(namespace=KEYS.namespace)
    payloads = {"new-1": document(0, changed=101, size=SIZE)}
    for number, compression in enumerate(scenario.history):
        simulated.clock.ms = number + 1
        context = observer._context
        policy = msgspec.structs.replace(context.policy, compression=compression)
        client = type(observer)(observer._driver, msgspec.structs.replace(context, policy=policy))
        payloads[f"old-{number}"] = payload = document(0, changed=number, size=SIZE)
        client.publish(D, payload, id=f"old-{number}", codec="bytes")
    if scenario.pinned:
        observer.pin(D, id="old-0")
    simulated.keyspace.expire_all()
    return simulated.keyspace, payloads


class Judge:
    """In every state, every snapshot that is named can be read, and nothing is kept that nobody needs."""

    def __init__(self, payloads: dict[str, bytes], *, leaks: bool) -> None:
        self._payloads = payloads
        self._leaks = leaks
        self._known: dict[Any, set[str]] = {}

    def __call__(self, keyspace: Keyspace, steps: list[Next | None], state: State) -> None:
        mark = keyspace.fingerprint()
        if mark not in self._known:
            values = {key: (each.data, each.expires_at is not None) for key, each in keyspace.values.items()}
            found = check(values, KEYS, D, leaks=self._leaks)
            self._known[mark] = {row.id for row in (*found.rows, *found.manifest.head.kept)}
        named = self._known[mark]
        assert {"old-3"} <= named, "the newest is lost"
        for step in steps:
            if step is not None and step.batch is None:
                self._check_answer(step, named)

    def _check_answer(self, step: Next, named: set[str]) -> None:
        assert not isinstance(step.error, Damaged), step.error
        match step.result:
            case Snapshot() as snapshot:
                assert snapshot.raw == self._payloads[snapshot.id]
            case Commit() as commit:
                assert commit.id in named, "an acknowledged publish is lost"
            case Recompressed() as done:
                assert done.unreadable == done.left == 0
