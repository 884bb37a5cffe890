"""The exploration of commits with bases: producers that bring one, or differ from the one in force.

Payloads take a few hundred bytes, so that each is worth a base. Pages hold two rows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from swapstore.cache import Cache
from swapstore.commands import CompareAndSet, Register, Write
from swapstore.errors import Corrupt, Damaged
from swapstore.format.keys import base_name
from swapstore.format.records import digest
from swapstore.models import Commit, Snapshot
from swapstore.protocol.context import Context
from swapstore.protocol.operation import Batch
from swapstore.protocol.pointers import pin, unpin
from swapstore.protocol.read import read_id
from swapstore.testing import Keyspace, VirtualClock
from tests.exploration.contents import Contents, contents_of
from tests.exploration.maintenance import keeping, pages_of_two, pruner
from tests.exploration.scenarios import MANIFEST, ONE_FAULT, Client, D, producer, reader
from tests.exploration.scriptless import by
from tests.support.bases import like, strange
from tests.support.committers import Way
from tests.support.explore import KEYS, POLICY, Explorer, Next, Outcome, State

if TYPE_CHECKING:
    from swapstore.protocol.operation import Operation


def stored_as(compression: Any, client: Client) -> Client:
    """The same client, with a setting of how it stores payloads."""
    return lambda context: client(
        msgspec.structs.replace(
            context, policy=msgspec.structs.replace(context.policy, compression=compression)
        )
    )


def one_after_the_other(*clients: Client) -> Client:
    """A client that does several things, and remembers in each what it saw before."""

    def operation(context: Context) -> Operation[Any]:
        for client in clients[:-1]:
            yield from client(context)
        return (yield from clients[-1](context))

    return operation


def reader_of(id: str) -> Client:  # noqa: A002
    """A reader of one snapshot."""
    return lambda context: read_id(context, D, id)


def pinner_of(id: str) -> Client:  # noqa: A002
    """Pins a snapshot, then unpins."""

    def operation(context: Context) -> Operation[Any]:
        yield from pin(context, D, id)
        return (yield from unpin(context, D))

    return operation


# --- what is published before ------------------------------------------------------------------------

OLD = {
    "old-0": strange(0),  # brings a base
    "old-1": like(0, 1),
    "old-2": like(0, 2),
    "old-3": strange(3),  # like nothing before it, so the next one of that kind brings a base
    "old-4": strange(4),
    "old-5": like(4, 5),
}
COMMITTED = tuple(KEYS.base(D, base_name(version, digest(OLD[f"old-{version - 1}"]))) for version in (1, 5))


def with_deltas(count: int, plain: int = 0) -> Keyspace:
    """So many of `OLD` are published, and some that are like nothing before, and stored as they are."""
    keyspace = Keyspace()
    keyspace.apply(Register(KEYS.datasets(), D), 0)
    for number, (id, payload) in enumerate(list(OLD.items())[:count]):  # noqa: A001
        carry_out(keyspace, stored_as("delta", producer(payload, id=id, ts=number)))
    for number in range(plain):
        how = "none" if number else "delta"  # the next one of that kind brings a base
        carry_out(keyspace, stored_as(how, producer(strange(50 + number), id=f"plain-{number}", ts=count)))
    return keyspace


def carry_out(keyspace: Keyspace, client: Client, *, until: Callable[[Any], bool] = lambda _: False) -> None:
    """Run a client alone, until it would send a command of some kind."""
    operation = client(
        Context(
            keys=KEYS, cache=Cache(1 << 20), policy=POLICY, clock=VirtualClock(0), random=random.Random(0)
        )
    )
    step = next(operation)
    try:
        while True:
            assert isinstance(step, Batch)
            if any(map(until, step.commands)):
                return
            step = operation.send([keyspace.apply(command, 0) for command in step.commands])
    except StopIteration:
        return


def is_swap(command: Any) -> bool:
    """Whether a command without a script sets the manifest."""
    return command.key == MANIFEST and isinstance(command, CompareAndSet | Write)


# --- what is explored ------------------------------------------------------------------------------

NEW = {"new-1": strange(91), "new-2": strange(92), "near": like(0, 93), "next": like(0, 94), "x": strange(95)}


def publishing(id: str, compression: str = "delta", **options: Any) -> Client:  # noqa: A002
    """A producer of one of `NEW`."""
    return stored_as(compression, producer(NEW[id], id=id, **options))


BRINGS, BRINGS_TOO = publishing("new-1", ts=11), publishing("new-2", ts=12)
DIFFERS, NEXT = publishing("near", ts=20), publishing("next", ts=21)
TWICE = one_after_the_other(DIFFERS, NEXT)
SAME, SAME_PLAIN = publishing("x", ts=30), publishing("x", "none", ts=30)
BACKFILLS = publishing("new-2", ts=1)
TIMELESS, TIMELESS_BRINGS = publishing("near"), publishing("new-1")

ALL = (None, Way.COMPARE, Way.LEASE)
BUDGETS = ONE_FAULT
# Without scripts a commit is many commands, none of which can be cut. What expires is a lease, which
# `scriptless.py` explores.
WITHOUT: dict[Way | None, tuple[str, ...]] = {
    Way.COMPARE: ("one key expires", "a commit is cut"),
    Way.LEASE: ("one lost reply", "one late command", "one key expires", "a commit is cut"),
}
BRIEFLY = dict.fromkeys(WITHOUT, WITHOUT[Way.LEASE])


@attrs.frozen
class Scenario:
    """Some clients, on so many snapshots of `OLD`; `others` commit by the script in any case.

    `plain`: so many were stored as they are after those. `cut`: a client without scripts that died right
    before its swap.
    """

    clients: tuple[Client, ...]
    history: int = 2
    others: tuple[Client, ...] = ()
    ways: tuple[Way | None, ...] = ALL
    cut: Client | None = None
    plain: int = 0
    left_out: Mapping[Way | None, tuple[str, ...]] = attrs.field(factory=lambda: WITHOUT)


SCENARIOS = {
    "two producers that bring the first base": Scenario((BRINGS, BRINGS_TOO), 0),
    "a producer that brings a base, and one that differs from the one before": Scenario((BRINGS, DIFFERS), 4),
    "two producers that bring a base": Scenario((BRINGS, BRINGS_TOO), 4),
    "two producers that differ from one base": Scenario((DIFFERS, BRINGS), 2),
    "the same id and content, each with a base": Scenario((SAME, SAME), 4, left_out=BRIEFLY),
    "the same id and content, with a base and plain": Scenario((SAME, SAME_PLAIN), 4, left_out=BRIEFLY),
    "three settings": Scenario(
        (BRINGS, publishing("near", "zstd", ts=20), publishing("x", "none", ts=30)),
        4,
        ways=(None,),
        left_out={None: ("one lost reply", "one late command")},
    ),
    "a producer that knows the base before": Scenario(
        (TWICE, BRINGS), 4, ways=(None, Way.COMPARE), left_out=BRIEFLY
    ),
    "a producer that leaves the time to the library, and one that brings a base": Scenario(
        (TIMELESS, BRINGS), 4, left_out=BRIEFLY
    ),
    "a retry of a producer that was cut short, and one that brings a base": Scenario(
        (TIMELESS, BACKFILLS), 4, ways=(Way.COMPARE,), cut=TIMELESS, left_out=BRIEFLY
    ),
    "a retry of a producer that was cut short, and one that drops the base": Scenario(
        (TIMELESS, keeping(BACKFILLS, 1)),
        1,
        ways=(Way.COMPARE, Way.LEASE),
        cut=TIMELESS,
        plain=3,
        left_out=BRIEFLY,
    ),
    "a retry of a producer that was cut short and brings a base": Scenario(
        (TIMELESS_BRINGS, DIFFERS), 4, ways=(Way.COMPARE,), cut=TIMELESS_BRINGS, left_out=BRIEFLY
    ),
    "a producer that brings a base and leaves the time to the library, twice": Scenario(
        (TIMELESS_BRINGS, TIMELESS_BRINGS), 4, left_out=BRIEFLY
    ),
    "a producer that brings a base, and a reader": Scenario((BRINGS,), 4, (reader,)),
    "a producer that drops a base, and readers": Scenario(
        (keeping(BRINGS, 1),), 5, (reader, reader_of("old-1"))
    ),
    "a producer that drops a base, and a pruner": Scenario((keeping(BRINGS, 1), pruner), 5, left_out=BRIEFLY),
    "a pruner that drops a base, and one that pins a difference from it": Scenario(
        (pruner, pinner_of("old-1")), 6, ways=(None, Way.COMPARE), left_out=BRIEFLY
    ),
}
SEARCHES = [
    (way, name, budget)
    for name, scenario in SCENARIOS.items()
    for way in scenario.ways
    for budget in BUDGETS
    if budget not in scenario.left_out.get(way, ())
]


def named(way: Way | None, scenario: str) -> str:
    """What the pinned numbers call a scenario."""
    return f"{'script' if way is None else way.name.lower()}: {scenario}"


def explore(way: Way | None, scenario: Scenario, budget: str) -> Outcome:
    """Visit every state of a scenario under a budget of faults."""
    clients = [client if way is None else by(way, client, 4) for client in scenario.clients]
    with pages_of_two():
        start = with_deltas(scenario.history, scenario.plain)
        if scenario.cut is not None and way is not None:
            carry_out(start, by(way, scenario.cut, 4), until=is_swap)
            start.values.pop(KEYS.lease(D), None)  # it has run out
        return Explorer(
            [*clients, *scenario.others],
            start=start,
            faults=BUDGETS[budget],
            judge=Judge(way, budget),
            lost_reads=False,
        ).run()


# --- what must hold --------------------------------------------------------------------------------


class Judge:
    """Checks every state: each payload can be decoded, no base that is needed may expire, none leaks.

    Without scripts, a publish that is cut short or loses the race leaks its own base, as it does its records.
    """

    def __init__(self, way: Way | None, budget: str) -> None:
        self._may_leak = way is not None or budget == "a commit is cut"
        self._undisturbed = budget == "none"
        self._binds_ids = budget == "a commit is cut"  # to what it left; verify finds that
        self._known: dict[Any, Contents] = {}

    def __call__(self, keyspace: Keyspace, steps: list[Next | None], state: State) -> None:
        mark = keyspace.fingerprint()
        if mark not in self._known:
            self._known[mark] = contents_of(keyspace)
        found = self._known[mark]
        ended = [step for step in steps if step is not None and step.batch is None]
        leaks = [each for each in found.problems if each.endswith(" leaks")]
        if self._may_leak:
            assert found.head is None or found.problems == leaks, found.problems
            if self._undisturbed and len(ended) == len(steps):
                assert not [each for each in leaks if each.startswith(COMMITTED)], "unlinked, and leaks"
        elif found.head is not None or found.problems[1:]:
            assert found.problems == [], found.problems
        created = [step.result.version for step in ended if getattr(step.result, "created", False)]
        assert len(created) == len(set(created)), "two producers were told that they created one version"
        named = {row.id for row in found.rows}
        for step, client in zip(steps, state.clients, strict=True):
            if step is not None and step.batch is None:
                self._check(step, named, found, client.began or 0)

    def _check(self, step: Next, named: set[str], found: Contents, began: int) -> None:
        bound = self._binds_ids and isinstance(step.error, Corrupt) and ":id:" in str(step.error.key)
        assert bound or not isinstance(step.error, Damaged), step.error
        if isinstance(step.result, Snapshot):
            assert step.result.raw == (OLD | NEW)[step.result.id]
            assert int(step.result.etag.split(".")[1]) >= began, "a read missed what was there"
        elif isinstance(step.result, Commit):
            assert found.head is not None
            assert step.result.id in named or found.head.first_version > step.result.version, "lost"
