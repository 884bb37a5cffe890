"""The exploration of commits without scripts: two writers that swap with plain commands.

With compare-and-set every promise holds but one: a publish that is cut off leaves permanent records that
nothing names. Under a lease the same holds unless a command arrives after its lease has expired. `WINDOW`
allows that, to show what it breaks: an acknowledged publish may be taken back, and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from swapstore import Repair
from swapstore.commands import Expire, Keep, Register, Write
from swapstore.errors import SwapstoreError
from swapstore.format import records
from swapstore.models import Commit, Row, Snapshot
from swapstore.protocol.context import Capabilities
from swapstore.protocol.scriptless.adoption import reclaim_leaked
from tests.exploration.contents import Contents, contents_of
from tests.exploration.maintenance import healthy, keeping, pages_of_two, pruner, repairer
from tests.exploration.scenarios import (
    MANIFEST,
    ONE,
    OTHER,
    SAME,
    TIMELESS_ONE,
    TIMELESS_TWO,
    TWO,
    Client,
    D,
    producer,
    reader,
    with_history,
)
from tests.support.committers import Way
from tests.support.explore import KEYS, Explorer, Faults, Next, Outcome, State

if TYPE_CHECKING:
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation
    from swapstore.testing import Keyspace

LOST = "an acknowledged publish is lost"
SPOILED = "a record of a committed snapshot is replaced, or may expire"


def by(way: Way, client: Client, attempts: int) -> Client:
    """The same client, on a store that runs no scripts. A lease lasts for two looks at it."""

    def operation(context: Context) -> Operation[Any]:
        policy = msgspec.structs.replace(
            context.policy, commit_attempts=attempts, lease_ttl_ms=2, lease_margin_ms=0, lease_poll_ms=1
        )
        found = Capabilities(committer=way.committer(), reads_many=False)
        return client(msgspec.structs.replace(context, capabilities=found, policy=policy))

    return operation


def republisher(context: Context) -> Operation[Any]:
    """Publishes again, unchanged, what retention unlinks at the same time."""
    return producer(b"0", id="old-0", ts=0)(context)


def reclaimer(context: Context) -> Operation[Any]:
    """Deletes what a publish of `cut` has left, as a repair does."""
    return reclaim_leaked(context, D, [KEYS.id(D, "cut"), KEYS.ts(D, 99, "cut")], apply=True)


def left_by_a_lost_race(keyspace: Keyspace) -> None:
    """A publish lost the race, and its process died."""
    left_by_a_cut_publish(keyspace, version=1)


def and_a_deletion_that_was_cut(keyspace: Keyspace) -> None:
    """The same, and the client that deleted its records died before it deleted the id record."""
    left_by_a_cut_publish(keyspace, version=0)


def still_pending(keyspace: Keyspace) -> None:
    """The oldest snapshot's commit was cut after its swap: its ts record still says that it is pending."""
    key = KEYS.ts(D, 0, "old-0")
    origin = records.origin_in(keyspace.values[key].data)
    assert origin is not None
    pending = msgspec.structs.replace(origin, pending=True, attempt="0" * 12)
    keyspace.apply(Write(key, pending.record), 0)


def left_by_a_cut_publish(keyspace: Keyspace, version: int = 2) -> None:
    """A publish was cut off before its swap; without scripts its records are permanent."""
    row = Row(
        id="cut",
        ts=99,
        size=3,
        sha256=records.digest(b"cut"),
        codec="bytes",
        labels={},
        version=version,
        committed_at=0,
    )
    pending = b"".join(records.pending_ts(row, "e" * 12, "0" * 12))
    keyspace.apply(Keep(KEYS.ts(D, 99, "cut"), pending), 0)
    keyspace.apply(Keep(KEYS.id(D, "cut"), records.id_header(row, None) + b"cut"), 0)


def and_no_manifest(keyspace: Keyspace) -> None:
    """The same, and the manifest was evicted."""
    left_by_a_cut_publish(keyspace)
    del keyspace.values[MANIFEST]


def an_expiring_record(keyspace: Keyspace) -> None:
    """A committed record was given a TTL."""
    keyspace.apply(Expire(KEYS.id(D, "old-0"), 10**15), 0)


CUT = producer(b"cut", id="cut", ts=99)
LATER = producer(b"cut", id="cut", ts=100)


@attrs.frozen
class Scenario:
    """Some writers with one kind of commit, and others, on this many snapshots."""

    writers: tuple[Client, ...]
    others: tuple[Client, ...] = ()
    history: int = 1
    damage: Callable[[Keyspace], None] = healthy
    attempts: int = 4  # of a commit, before its client gives up
    unpublished: tuple[str, ...] = ()  # ids that nobody must ever see
    ways: tuple[Way, ...] = (Way.COMPARE, Way.LEASE)
    # Combinations that take long and show nothing new.
    left_out: Mapping[Way, tuple[str, ...]] = attrs.field(factory=dict)


LONG = ("one late command", "one key expires")
SHORT = {Way.COMPARE: ("one lost reply", *LONG)}
NOT_BY_LEASE = {Way.LEASE: LONG}
# What retention unlinks would expire before the same request unlinks the next key, so within milliseconds.
WITHIN_A_REQUEST = {Way.COMPARE: ("one key expires",)}
SCENARIOS = {
    "two producers, different ids": Scenario((ONE, TWO)),
    "two producers, nothing published": Scenario((ONE, TWO), history=0, left_out=NOT_BY_LEASE),
    "two producers, the same id and content": Scenario((SAME, SAME), left_out=NOT_BY_LEASE),
    "two producers, the same id, other content": Scenario((SAME, OTHER), attempts=2, left_out=NOT_BY_LEASE),
    "two producers that leave the time to the library": Scenario(
        (TIMELESS_ONE, TIMELESS_TWO), left_out=NOT_BY_LEASE
    ),
    "two producers that seal a page": Scenario(
        (ONE, TWO), history=3, left_out={**NOT_BY_LEASE, Way.COMPARE: ("one late command",)}
    ),
    "a producer and a reader": Scenario((ONE,), (reader,)),
    "a producer, and one that commits with the script": Scenario((ONE,), (TWO,), ways=(Way.COMPARE,)),
    "the same id and content, by plain commands and by the script": Scenario(
        (SAME,), (SAME,), ways=(Way.COMPARE,), left_out={Way.COMPARE: ("one lost reply", *LONG)}
    ),
    "a producer with retention, and one that publishes again": Scenario(
        (keeping(ONE, 1), republisher), history=5, left_out={**NOT_BY_LEASE, **WITHIN_A_REQUEST}
    ),
    "a deletion of what a cut publish left, and a producer": Scenario(
        (reclaimer, ONE),
        damage=left_by_a_cut_publish,
        attempts=2,
        unpublished=("cut",),
        ways=(Way.COMPARE,),
        left_out=SHORT,
    ),
    "a deletion of what a cut publish left, and one that goes on with it": Scenario(
        (reclaimer, CUT), damage=left_by_a_cut_publish, attempts=2, ways=(Way.COMPARE,), left_out=SHORT
    ),
    "a deletion of what a lost race left, and one that goes on with it": Scenario(
        (reclaimer, CUT), damage=left_by_a_lost_race, attempts=2, ways=(Way.COMPARE,), left_out=SHORT
    ),
    "a deletion of what a lost race left, and one attempt to go on with it": Scenario(
        (reclaimer, CUT), damage=left_by_a_lost_race, attempts=1, ways=(Way.COMPARE,)
    ),
    "a deletion of what a lost race left, and one that needs the id": Scenario(
        (reclaimer, LATER), damage=left_by_a_lost_race, attempts=2, ways=(Way.COMPARE,), left_out=SHORT
    ),
    "a deletion of what a lost race left, and one attempt to use the id": Scenario(
        (reclaimer, LATER), damage=left_by_a_lost_race, attempts=1, ways=(Way.COMPARE,)
    ),
    "two that need the id of a lost race": Scenario(
        (CUT, LATER), damage=left_by_a_lost_race, attempts=1, ways=(Way.COMPARE,)
    ),
    "a deletion that goes on with one that was cut, and a producer of the id": Scenario(
        (reclaimer, CUT), damage=and_a_deletion_that_was_cut, attempts=1, ways=(Way.COMPARE,)
    ),
    "a repairer of what a lost race left": Scenario(
        (repairer,), (reader,), damage=left_by_a_lost_race, unpublished=("cut",), ways=(Way.COMPARE,)
    ),
    "retention of a snapshot that is still pending, and one that publishes it again": Scenario(
        (keeping(ONE, 1), republisher),
        history=5,
        damage=still_pending,
        ways=(Way.COMPARE,),
        left_out={Way.COMPARE: LONG},
    ),
    "a repairer of a lost manifest beside what a cut publish left": Scenario(
        (repairer, reader), damage=and_no_manifest, unpublished=("cut",), left_out=NOT_BY_LEASE
    ),
    "a repairer of an expiring record": Scenario(
        (repairer,),
        (reader,),
        damage=an_expiring_record,
        ways=(Way.COMPARE,),
        left_out={Way.COMPARE: ("one lost reply", *LONG)},
    ),
    "a pruner and a producer": Scenario(
        (pruner, ONE), history=4, left_out={Way.LEASE: ("one late command",)}
    ),
}
HOLDS = {
    "none": Faults(),
    "one crash": Faults(crash=1),
    "one lost reply": Faults(lost=1),
    "one late command": Faults(late=1),
}
WINDOW = {"one key expires": Faults(expire=1)}
BUDGETS = HOLDS | WINDOW


SEARCHES = [
    (way, name, budget)
    for way in (Way.COMPARE, Way.LEASE)
    for name, scenario in SCENARIOS.items()
    if way in scenario.ways
    for budget in BUDGETS
    if budget not in scenario.left_out.get(way, ())
]


def explore(way: Way, scenario: Scenario, budget: str) -> Outcome:
    """Visit every state. A breach that a lease does not exclude is counted, and ends the path."""
    with pages_of_two():
        start = with_history(scenario.history)
        start.apply(Register(KEYS.datasets(), D), 0)
        scenario.damage(start)
        judge = Judge(
            scenario, window=way is Way.LEASE and budget in WINDOW, disturbed=BUDGETS[budget] != Faults()
        )
        explorer = Explorer(
            [*(by(way, client, scenario.attempts) for client in scenario.writers), *scenario.others],
            start=start,
            faults=BUDGETS[budget],
            judge=judge,
            lost_reads=False,
        )
        outcome = explorer.run()
        outcome.ends.update({(breach,): count for breach, count in judge.breaches.items()})
        return outcome


class Judge:
    """Checks every state: all promises, except that records which nothing names have a TTL."""

    def __init__(self, scenario: Scenario, *, window: bool, disturbed: bool) -> None:
        self._window = window
        self._disturbed = disturbed
        self._damaged = scenario.damage is not healthy
        self._unpublished = set(scenario.unpublished)
        self._known: dict[Any, Contents] = {}
        self.breaches: Counter[str] = Counter()

    def __call__(self, keyspace: Keyspace, steps: list[Next | None], state: State) -> None:
        mark = keyspace.fingerprint()
        if mark not in self._known:
            self._known[mark] = contents_of(keyspace)
        found = self._known[mark]
        problems = [each for each in found.problems if not each.endswith(" leaks")]
        ended = [step for step in steps if step is not None and step.batch is None]
        repaired = any(isinstance(step.result, Repair) for step in ended)
        damage = {f"{KEYS.id(D, 'old-0')} is committed and may expire"} if self._damaged else set()
        if found.head is not None and not set(problems) <= (set() if repaired else damage):
            self._breach(SPOILED, str(problems))
        assert not self._unpublished & {row.id for row in found.rows}, "uncommitted, and visible"
        for step, client in zip(steps, state.clients, strict=True):
            if step is not None and step.batch is None:
                self._check(step, found, client.began or 0)
        if len(ended) == len(steps) and not (self._disturbed or self._damaged):
            finals = [keyspace.values[KEYS.ts(D, row.ts, row.id)].data for row in found.rows]
            assert not [each for each in finals if b'"pending"' in each], "a commit is over, and pending"
        created = [step.result.version for step in ended if getattr(step.result, "created", False)]
        if len(created) != len(set(created)):
            self._breach(LOST)

    def _check(self, step: Next, found: Contents, began: int) -> None:
        if step.error is not None:
            assert isinstance(step.error, SwapstoreError)
        elif isinstance(step.result, Snapshot):
            assert int(step.result.etag.split(".")[1]) >= began, "a read missed what was there"
        elif isinstance(step.result, Commit):
            rows = [row for row in found.rows if row.version == step.result.version]
            hidden = found.head is not None and found.head.first_version > step.result.version
            if [row.id for row in rows] != [step.result.id] and not hidden:
                self._breach(LOST)

    def _breach(self, what: str, how: str = "") -> None:
        assert self._window, how or what
        self.breaches[what] += 1
