"""The exploration of retention and repair: prunes, repairs, producers and readers on one dataset.

Pages hold two rows, so that a few snapshots have pages of pages. A damaged dataset is repaired while other
clients go on; `Judge` says what must hold then.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from swapstore import Repair, Retention
from swapstore.commands import Failed, ReadCommand, Register, Swap
from swapstore.errors import Damaged, StoreFull, SwapstoreError
from swapstore.format import manifest, records
from swapstore.fsck.repair import repair
from swapstore.models import Commit, Row, Snapshot
from swapstore.protocol.operation import Batch
from swapstore.protocol.pointers import pin, unpin
from swapstore.protocol.prune import prune
from swapstore.protocol.read import read_id
from tests.exploration.contents import Contents, contents_of
from tests.exploration.scenarios import MANIFEST, NO_CUT, ONE, TWO, Client, D, producer, reader, with_history
from tests.support.explore import KEYS, Explorer, Faults, Next, Outcome, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation
    from swapstore.testing import Keyspace


def keeping(client: Client, count: int) -> Client:
    """The same client, with a retention."""
    return lambda context: client(msgspec.structs.replace(context, retention=Retention(max_count=count)))


def in_full_store(client: Client) -> Client:
    """The same client, whose store refuses what needs memory, unless the swap makes up for it."""

    def run(context: Context) -> Operation[Any]:
        steps = client(context)
        step = next(steps)
        while True:
            try:
                reply = yield from _refusing(step) if isinstance(step, Batch) else _passing(step)
            except SwapstoreError as error:
                send: Callable[[], Any] = partial(steps.throw, error)
            else:
                send = partial(steps.send, reply)
            try:
                step = send()
            except StopIteration as stop:
                return stop.value

    return run


def _passing(step: Any) -> Operation[Any]:
    return (yield step)


def _refusing(batch: Batch) -> Operation[list[Any]]:
    """Send what a full store carries out, and answer the rest with a refusal."""
    fits = any(isinstance(command, Swap) and command.even_if_full for command in batch.commands)
    sent = tuple(command for command in batch.commands if fits or isinstance(command, ReadCommand))
    replies = iter((yield Batch(sent)) if sent else ())
    return [next(replies) if command in sent else Failed(StoreFull("full")) for command in batch.commands]


def pruner(context: Context) -> Operation[Any]:
    """Unlinks all but the newest."""
    return prune(context, D, Retention(max_count=1))


def pinner(context: Context) -> Operation[Any]:
    """Pins the oldest snapshot, then unpins."""
    yield from pin(context, D, "old-0")
    return (yield from unpin(context, D))


def repairer(context: Context) -> Operation[Repair]:
    """Repairs the dataset."""
    return repair(context, D, apply=True)


def old_reader(context: Context) -> Operation[Snapshot | None]:
    """A reader of a snapshot that retention may be about to unlink."""
    return read_id(context, D, "old-1")


# --- damage ----------------------------------------------------------------------------------------


def healthy(_: Keyspace) -> None:
    """Nothing is wrong."""


def without_manifest(keyspace: Keyspace) -> None:
    """The manifest was evicted."""
    del keyspace.values[MANIFEST]


def damaged_manifest(keyspace: Keyspace) -> None:
    """The manifest was overwritten with something else."""
    keyspace.values[MANIFEST] = attrs.evolve(keyspace.values[MANIFEST], data=b"{}")


def without_page(keyspace: Keyspace) -> None:
    """The oldest page was evicted."""
    del keyspace.values[next(key for key in keyspace.values if ":page:" in key)]


def without_payload(keyspace: Keyspace) -> None:
    """The id record of a snapshot in a page was evicted."""
    del keyspace.values[KEYS.id(D, "old-1")]


def expiring(keyspace: Keyspace) -> None:
    """Committed keys were given a TTL."""
    for key in (KEYS.id(D, "old-1"), KEYS.ts(D, 2, "old-2")):
        keyspace.values[key] = attrs.evolve(keyspace.values[key], expires_at=10**15)


def without_ts(keyspace: Keyspace) -> None:
    """The ts record of a snapshot in a page was evicted."""
    del keyspace.values[KEYS.ts(D, 1, "old-1")]


def without_ts_and_page(keyspace: Keyspace) -> None:
    """So was the page."""
    without_ts(keyspace)
    without_page(keyspace)


def without_ts_and_manifest(keyspace: Keyspace) -> None:
    """So was the manifest."""
    without_ts(keyspace)
    without_manifest(keyspace)


def altered_ts(keyspace: Keyspace) -> None:
    """A ts record was altered."""
    key = KEYS.ts(D, 1, "old-1")
    keyspace.values[key] = attrs.evolve(keyspace.values[key], data=b"{}\n")


def leaked(keyspace: Keyspace) -> None:
    """A commit was cut off before its swap: its records are permanent, and nothing names them."""
    body = b"leaked"
    row = Row(
        id="leaked",
        ts=99,
        size=len(body),
        sha256=records.digest(body),
        codec="bytes",
        labels={},
        version=5,  # the next, as a cut commit leaves it
        committed_at=0,
    )
    permanent = keyspace.values[MANIFEST]
    keyspace.values[KEYS.id(D, "leaked")] = attrs.evolve(permanent, data=records.id_header(row, None) + body)
    keyspace.values[KEYS.ts(D, 99, "leaked")] = attrs.evolve(permanent, data=records.pack_ts(row, "e" * 12))


# --- what is explored ------------------------------------------------------------------------------


@attrs.frozen
class Scenario:
    """Some clients, on this many snapshots in pages of two rows, after some damage.

    Where a repair and a producer both take many steps, other scenarios cover some of the faults.
    """

    clients: tuple[Client, ...]
    damage: Callable[[Keyspace], None] = healthy
    history: int = 4
    budgets: tuple[str, ...] = ("none", "one crash", "one lost reply", "one late command", "one key expires")


FEW = ("none", "one crash")
RETRY = producer(b"1", id="old-1", ts=1)  # of a publish that was acknowledged long ago
SCENARIOS = {
    "two producers with retention and a pruner": Scenario(
        (keeping(ONE, 1), keeping(TWO, 1), pruner), history=5
    ),
    "a producer with retention, a pruner and readers": Scenario(
        (keeping(ONE, 2), pruner, reader, old_reader), history=5
    ),
    "a producer with retention and readers in a full store": Scenario(
        (in_full_store(keeping(ONE, 2)), reader, old_reader), history=5
    ),
    "a producer with retention and a pruner in a full store": Scenario(
        (in_full_store(keeping(ONE, 1)), in_full_store(pruner)), history=5
    ),
    "two producers with retention in a full store": Scenario(
        (in_full_store(keeping(ONE, 1)), in_full_store(keeping(TWO, 1))), history=3
    ),
    "a pinner and a pruner in a full store": Scenario((in_full_store(pruner), in_full_store(pinner))),
    "two pruners and a producer": Scenario((pruner, pruner, ONE), budgets=FEW),
    "a pruner and a pinner": Scenario((pruner, pinner)),
    "a repairer and a pruner, nothing wrong": Scenario((repairer, pruner)),
    "a repairer of a lost manifest, and a producer": Scenario(
        (repairer, ONE), without_manifest, budgets=(*FEW, "one lost reply")
    ),
    "a repairer of a lost manifest, and a reader": Scenario((repairer, reader), without_manifest),
    "a repairer of a damaged manifest, and a producer": Scenario(
        (repairer, ONE), damaged_manifest, budgets=(*FEW, "one lost reply", "one key expires")
    ),
    "a repairer of a lost page, and a producer": Scenario((repairer, ONE), without_page, budgets=FEW),
    "a repairer of a lost page, and a pruner": Scenario((repairer, pruner), without_page),
    "a repairer of a lost payload, and a producer": Scenario((repairer, ONE), without_payload, budgets=FEW),
    "a repairer of expiring keys, and a pruner": Scenario(
        (repairer, pruner), expiring, budgets=(*FEW, "one lost reply")
    ),
    "a repairer of an altered ts record, and a producer": Scenario(
        (repairer, ONE), altered_ts, budgets=("none",)
    ),
    "a repairer of a lost ts record, and a retry": Scenario(
        (repairer, RETRY), without_ts, budgets=(*FEW, "one lost reply", "one key expires")
    ),
    "a repairer of a lost ts record and page, and a retry": Scenario(
        (repairer, RETRY), without_ts_and_page, budgets=(*FEW, "one key expires")
    ),
    "a repairer of a lost ts record and manifest, and a retry": Scenario(
        (repairer, RETRY), without_ts_and_manifest, budgets=(*FEW, "one key expires")
    ),
    "a repairer of a leak, and a producer": Scenario((repairer, ONE), leaked, budgets=FEW),
    "two repairers of a lost manifest": Scenario(
        (repairer, repairer), without_manifest, history=2, budgets=("none",)
    ),
    "two repairers of a lost page": Scenario((repairer, repairer), without_page, budgets=("none",)),
}
BUDGETS = NO_CUT


def explore(scenario: Scenario, faults: Faults) -> Outcome:
    """Visit every state of a scenario under a budget of faults. A read that is lost is only repeated."""
    with pages_of_two():
        start = with_history(scenario.history)
        start.apply(Register(KEYS.datasets(), D), 0)
        whole = contents_of(start)
        scenario.damage(start)
        explorer = Explorer(
            list(scenario.clients),
            start=start,
            faults=faults,
            judge=Judge(start, whole, damaged=scenario.damage is not healthy),
            lost_reads=False,
        )
        return explorer.run()


@contextmanager
def pages_of_two() -> Iterator[None]:
    """Pages of two rows, and of two references; every page can leave the log."""
    usual = manifest.F, manifest.G, manifest.RECENT
    manifest.F, manifest.G, manifest.RECENT = 2, 2, 1
    try:
        yield
    finally:
        manifest.F, manifest.G, manifest.RECENT = usual


# --- what must hold --------------------------------------------------------------------------------


class Judge:
    """Checks every state as far as it is not damaged, and all of it once a repair is done."""

    def __init__(self, start: Keyspace, whole: Contents, *, damaged: bool) -> None:
        self._damaged = damaged
        self._known: dict[Any, Contents] = {}
        self._published = {"new-1", "new-2"}
        self._committed = {row.id for row in whole.rows}
        self._intact = {
            row.id
            for row in whole.rows
            if KEYS.id(D, row.id) in start.values and start.values[KEYS.id(D, row.id)].expires_at is None
        }

    def __call__(self, keyspace: Keyspace, steps: list[Next | None], state: State) -> None:
        mark = keyspace.fingerprint()
        if mark not in self._known:
            self._known[mark] = contents_of(keyspace)
        found = self._known[mark]
        done = [step.result for step in steps if step and step.batch is None]
        repaired = any(isinstance(result, Repair) and not result.left for result in done)
        if not self._damaged or repaired:
            assert found.problems == [], found.problems
        assert {row.id for row in found.rows} <= self._committed | self._published, "uncommitted, and visible"
        if found.head is not None and not found.holes:
            self._check_nothing_lost(keyspace, found, done, repaired=repaired or not self._damaged)
        for step, client in zip(steps, state.clients, strict=True):
            if step is not None and step.batch is None:
                self._check_answer(step, found, began=client.began or 0)

    def _check_nothing_lost(
        self, keyspace: Keyspace, found: Contents, done: list[Any], *, repaired: bool
    ) -> None:
        """What was committed is named, or hidden by retention; and its record stays permanent."""
        assert found.head is not None
        named = {row.id for row in found.rows}
        acknowledged = {result.id for result in done if isinstance(result, Commit)}
        for id in acknowledged | (self._intact if repaired else set()):  # noqa: A001
            hidden = found.head.first_version > 1
            assert id in named or hidden, f"{id} is lost"
            value = keyspace.values.get(KEYS.id(D, id))
            if id in named:
                assert value is not None
                assert value.expires_at is None, f"{id} may expire"

    def _check_answer(self, step: Next, found: Contents, *, began: int) -> None:
        if step.error is not None:
            assert isinstance(step.error, SwapstoreError)
            assert self._damaged or not isinstance(step.error, Damaged), step.error
        elif isinstance(step.result, Snapshot):
            assert step.result.id in self._committed | self._published
            if not self._damaged:
                assert int(step.result.etag.split(".")[1]) >= began, "a read missed what was there"
