"""The exploration of erase and drop: beside producers, pruners, readers and each other.

Pages hold two rows, and a swap stores two snapshots anew, so a few snapshots take several swaps.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from swapstore import Retention
from swapstore.errors import Damaged
from swapstore.format import manifest, records
from swapstore.models import Commit, Snapshot
from swapstore.protocol import erase
from swapstore.protocol.drop import drop
from swapstore.protocol.prune import prune
from swapstore.protocol.publish import Publication, publish
from swapstore.protocol.read import read_id, read_latest
from swapstore.reports import Dropped, Erased
from swapstore.testing import SimulatedStore
from tests.erase.model import Traces, found_of, name_of, payload_of
from tests.exploration.maintenance import pages_of_two
from tests.exploration.recompressing import few_rows_a_swap, historian, recompressor, storing
from tests.exploration.scenarios import Client, D
from tests.recompress.model import check
from tests.support.explore import KEYS, Explorer, Faults, Next, Outcome, State

if TYPE_CHECKING:
    from swapstore.models import Compression
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation
    from swapstore.testing import Keyspace

COUNT = 5  # snapshots that are there; the first is the base of the others, where they have one


def eraser(number: int, *, force: bool = False) -> Client:
    """Erases one snapshot."""
    return lambda context: erase.erase(context, D, id=name_of(number), version=None, force=force)


def dropper(context: Context) -> Operation[Any]:
    """Drops the dataset."""
    return drop(context, D, on_progress=None)


def producer(number: int, compression: Compression = "none") -> Client:
    """Publishes one more, or one that is there already, with the same content."""
    wanted = Publication(dataset=D, payload=payload_of(number, 0), codec="bytes", id=name_of(number))
    return storing(compression, lambda context: publish(context, wanted))


def pruner(context: Context) -> Operation[Any]:
    """Unlinks all but the newest."""
    return prune(context, D, Retention(max_count=1))


def reader(context: Context) -> Operation[Snapshot | None]:
    """A reader of the latest snapshot."""
    return read_latest(context, D)


@cache
def reader_of(number: int) -> Client:
    """A reader of one snapshot."""
    return lambda context: read_id(context, D, name_of(number))


READERS = [reader, historian, *(reader_of(number) for number in range(COUNT))]


# --- what is explored ------------------------------------------------------------------------------


@attrs.frozen
class Scenario:
    """Some clients, on a history that was stored in one way. `gone`: what an eraser is to erase."""

    clients: tuple[Client, ...]
    history: Compression
    budgets: tuple[str, ...] = ("none", "one crash", "one lost reply")
    gone: int | None = None


LATE = ("none", "one crash", "one lost reply", "one late command")
ALL = (*LATE, "one torn script")
SCENARIOS = {
    "erase, and readers": Scenario((eraser(1), reader_of(1), reader_of(2)), "none", ALL, 1),
    "erase of a base, and readers": Scenario((eraser(0), reader_of(2), reader), "delta", ALL, 0),
    "erase, and a reader of the history": Scenario((eraser(1), historian), "none", LATE, 1),
    "erase of the latest, and a reader": Scenario((eraser(4, force=True), reader), "delta", ALL, 4),
    "erase, and a producer": Scenario((eraser(1), producer(7)), "none", LATE, 1),
    "erase of a base, and a producer of deltas": Scenario(
        (eraser(0), producer(7, "delta")), "delta", ("none", "one crash"), 0
    ),
    "erase, and a producer of the same id": Scenario((eraser(1), producer(1)), "none", LATE),
    "erase, and a pruner": Scenario((eraser(3), pruner), "none", LATE, 3),
    "erase of a base, and a pruner": Scenario((eraser(0), pruner), "delta", ("none", "one crash"), 0),
    "erase twice": Scenario((eraser(1), eraser(1)), "none", ("none", "one crash"), 1),
    "erase of a base, and recompress": Scenario((eraser(0), recompressor("none")), "delta", ("none",), 0),
    "drop, and readers": Scenario((dropper, reader, reader_of(2)), "none", ALL),
    "drop, and a reader of the history": Scenario((dropper, historian), "delta", LATE),
    "drop, and a producer": Scenario((dropper, producer(7)), "none", ("none", "one crash", "one lost reply")),
    "drop, and a producer of deltas": Scenario((dropper, producer(7, "delta")), "delta", ("none",)),
    "drop, and a producer of the same id": Scenario((dropper, producer(1)), "none", ("none", "one crash")),
    "drop, and a pruner": Scenario((dropper, pruner), "none", ("none", "one crash")),
    "drop twice": Scenario((dropper, dropper), "delta", ("none", "one crash")),
    "drop and erase": Scenario((dropper, eraser(1)), "none", ("none", "one crash"), 1),
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
    usual, erase.ROWS_A_SWAP = erase.ROWS_A_SWAP, 2
    try:
        with pages_of_two(), few_rows_a_swap():
            explorer = Explorer(
                list(scenario.clients),
                start=with_history(scenario.history),
                faults=faults,
                judge=Judge(
                    scenario.gone,
                    leaks=bool(faults.torn),
                    is_alone=not faults.late and all(each in READERS for each in scenario.clients[1:]),
                ),
                lost_reads=False,
            )
            return explorer.run()
    finally:
        erase.ROWS_A_SWAP = usual


def with_history(compression: Compression) -> Keyspace:
    """A keyspace with a history."""
    simulated = SimulatedStore()
    observer = simulated.connect(namespace=KEYS.namespace)
    for number in range(COUNT):
        simulated.clock.ms = number + 1
        policy = msgspec.structs.replace(observer._context.policy, compression=compression)
        client = type(observer)(observer._driver, msgspec.structs.replace(observer._context, policy=policy))
        client.publish(D, payload_of(number, 0), id=name_of(number), codec="bytes")
    simulated.keyspace.expire_all()
    return simulated.keyspace


class Judge:
    """In every state, what is named can be read, nothing is kept that nobody needs, and what is gone is gone.

    What has a TTL is let pass beside another writer: it may stage a page with a row that has just gone. So
    may a command that arrives late.
    """

    def __init__(self, gone: int | None, *, leaks: bool, is_alone: bool) -> None:
        self._leaks = leaks
        self._is_alone = is_alone
        self._gone = None
        if gone is not None:
            payload = payload_of(gone, 0)
            self._gone = Traces(name_of(gone), payload, records.digest(payload))
        self._known: dict[Any, set[str] | None] = {}
        self._clean: dict[Any, list[str]] = {}

    def __call__(self, keyspace: Keyspace, steps: list[Next | None], state: State) -> None:
        mark = keyspace.fingerprint()
        if mark not in self._known:
            self._known[mark] = self._named(keyspace)
        named = self._known[mark]
        for step in steps:
            if step is not None and step.batch is None:
                self._check_answer(step, named)
                if isinstance(step.result, Erased) and self._gone is not None:
                    if mark not in self._clean:
                        self._clean[mark] = self._traces(keyspace)
                    assert self._clean[mark] == [], "it is not gone"

    def _named(self, keyspace: Keyspace) -> set[str] | None:
        """Return the ids that are committed. None: nothing is published."""
        values = {key: (each.data, each.expires_at is not None) for key, each in keyspace.values.items()}
        raw = values.get(KEYS.manifest(D))
        if raw is None or raw[1]:
            assert self._leaks or all(expires for _, expires in values.values()), "keys that nobody names"
            return None
        found = check(values, KEYS, D, leaks=self._leaks)
        head = manifest.parse(raw[0], D, KEYS.manifest(D)).head
        if head.is_dropped:
            return None
        return {row.id for row in (*found.rows, *head.kept) if row.version > head.dropped}

    def _traces(self, keyspace: Keyspace) -> list[str]:
        assert self._gone is not None
        values = {
            key: each.data
            for key, each in keyspace.values.items()
            if each.data != records.DELETED
            and each.expires_at != 0  # the next command finds it gone
            and (self._is_alone or not each.expires_at)
        }
        return found_of(self._gone, values, KEYS, whose=D)

    def _check_answer(self, step: Next, named: set[str] | None) -> None:
        assert not isinstance(step.error, Damaged), step.error
        match step.result:
            case Snapshot() as snapshot:
                assert snapshot.raw == payload_of(int(snapshot.id[3:7]), 0)
            case Commit() as commit if named is not None and commit.id == name_of(7):
                assert commit.id in named, "an acknowledged publish is lost"
            case Dropped() as done:
                assert done.republished or named is None or named <= {name_of(7), name_of(1)}
