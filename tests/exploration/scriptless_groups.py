"""The exploration of groups without scripts: writers of one id, what a cut has left, and late deletions.

Groups have two members. Two contents share a member, so that the same bytes may be written by two publishes.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from swapstore.cache import Cache
from swapstore.commands import Keep
from swapstore.format.keys import group_name
from swapstore.format.members import Part, table
from swapstore.format.records import digest
from swapstore.models import GROUP
from swapstore.protocol.context import Context
from swapstore.protocol.operation import Batch
from swapstore.protocol.publish import Publication, publish
from swapstore.protocol.scriptless.adoption import reclaim_leaked
from swapstore.testing import VirtualClock
from tests.exploration.deltas import is_swap
from tests.exploration.maintenance import keeping, repairer
from tests.exploration.scenarios import ONE, Client, D
from tests.exploration.scriptless import Scenario, by
from tests.support.committers import Way
from tests.support.explore import KEYS, POLICY

if TYPE_CHECKING:
    from swapstore.protocol.operation import Operation
    from swapstore.testing import Keyspace


def group(id: str = "cut", *, ts: int | None = 99, **values: bytes) -> Client:  # noqa: A002
    """A producer of a group."""
    parts = {name: Part(value, "bytes") for name, value in values.items()}
    wanted = Publication(dataset=D, payload=table(parts), codec=GROUP, id=id, ts=ts, parts=parts)
    return lambda context: publish(context, wanted)


def member_key(name: str) -> str:
    """The key of a member of the group that is cut."""
    cut = table({"x": Part(b"1", "bytes"), "y": Part(b"2", "bytes")})
    return KEYS.member(D, group_name("cut", digest(cut)), name)


MEMBERS = [member_key(name) for name in ("x", "y")]
CUT = group(x=b"1", y=b"2")
OTHER = group(x=b"1", z=b"3")  # the same `ts`
LATER = group(ts=100, x=b"1", y=b"4")
TIMELESS = group(ts=None, x=b"1", y=b"2")
OLD = group("old-0", ts=0, x=b"1", y=b"2")


def reclaimer(context: Context) -> Operation[Any]:
    """Deletes what a publish of `cut` has left, as a repair does."""
    return reclaim_leaked(context, D, [KEYS.id(D, "cut")], apply=True)


def sweeper(context: Context) -> Operation[Any]:
    """Deletes members of `cut` that nothing needs, as a repair does that has seen no other record of it."""
    return reclaim_leaked(context, D, MEMBERS, apply=True)


# --- damage ----------------------------------------------------------------------------------------


def run(keyspace: Keyspace, client: Client, *, way: Way = Way.COMPARE, until: Callable[[Any], bool]) -> None:
    """Run a client alone until it dies before it sends a command of some kind."""
    operation = by(way, client, 4)(
        Context(
            keys=KEYS, cache=Cache(1 << 20), policy=POLICY, clock=VirtualClock(0), random=random.Random(99)
        )
    )
    step = next(operation)
    while True:
        assert isinstance(step, Batch)
        replies = []
        for command in step.commands:
            if until(command):
                keyspace.values.pop(KEYS.lease(D), None)  # it has run out
                return
            replies.append(keyspace.apply(command, 0))
        try:
            step = operation.send(replies)
        except StopIteration:
            return


def writes(name: str) -> Callable[[Any], bool]:
    """Whether a command writes this member."""
    return lambda command: isinstance(command, Keep) and command.key == member_key(name)


def cut(keyspace: Keyspace) -> None:
    """A publish died right before its swap."""
    run(keyspace, CUT, until=is_swap)


def cut_by_lease(keyspace: Keyspace) -> None:
    """The same, of one with a lease."""
    run(keyspace, CUT, way=Way.LEASE, until=is_swap)


def cut_within(keyspace: Keyspace) -> None:
    """A publish died between its members."""
    run(keyspace, CUT, until=writes("y"))


def cut_and_overtaken(keyspace: Keyspace) -> None:
    """A publish died right before its swap, and another one was committed since."""
    cut(keyspace)
    run(keyspace, ONE, until=lambda _: False)


def cut_within_and_overtaken(keyspace: Keyspace) -> None:
    """A publish died between its members, and another one was committed since."""
    cut_within(keyspace)
    run(keyspace, ONE, until=lambda _: False)


def only_members(keyspace: Keyspace) -> None:
    """Members arrived when the other records of their publish had been deleted."""
    cut_and_overtaken(keyspace)
    del keyspace.values[KEYS.id(D, "cut")], keyspace.values[KEYS.ts(D, 99, "cut")]


def old_group(keyspace: Keyspace) -> None:
    """The oldest snapshots are a group and others, so that a page unlinks the group."""
    keyspace.values.clear()
    run(keyspace, OLD, until=lambda _: False)
    for number in range(1, 5):
        run(keyspace, group(f"old-{number}", ts=number, x=b"%d" % number), until=lambda _: False)


BY_COMPARE = (Way.COMPARE,)
SCENARIOS = {
    "two groups, the same id, other content": Scenario((CUT, OTHER), attempts=1),
    "two groups, the same id, another time": Scenario((CUT, LATER), attempts=1),
    "two groups, the same id and content": Scenario((CUT, CUT), attempts=1),
    "a retry of a group that was cut": Scenario((CUT,), damage=cut),
    "a retry of a group that was cut between its members": Scenario((CUT,), damage=cut_within),
    "a retry beside another producer": Scenario((CUT, ONE), damage=cut_within, ways=BY_COMPARE),
    "two retries of a group that was cut": Scenario((CUT, CUT), damage=cut_within, attempts=1),
    "a retry of a group that was cut and overtaken": Scenario((CUT,), damage=cut_and_overtaken),
    "two retries of a group that was cut and overtaken": Scenario(
        (CUT, CUT), damage=cut_and_overtaken, attempts=1, ways=BY_COMPARE
    ),
    "a retry without a time": Scenario((TIMELESS,), damage=cut_and_overtaken),
    "a retry under a lease": Scenario((CUT,), damage=cut_by_lease, ways=(Way.LEASE,)),
    "a deletion of a cut group, and its retry": Scenario(
        (reclaimer, CUT), damage=cut_within_and_overtaken, attempts=1, ways=BY_COMPARE
    ),
    "a deletion of a cut group, and other content": Scenario(
        (reclaimer, OTHER), damage=cut_within_and_overtaken, attempts=1, ways=BY_COMPARE
    ),
    "a deletion of a cut group, and another time": Scenario(
        (reclaimer, LATER), damage=cut_within_and_overtaken, attempts=1, ways=BY_COMPARE
    ),
    "a deletion of a cut group that may be under way": Scenario(
        (reclaimer, CUT), damage=cut_within, attempts=1, ways=BY_COMPARE
    ),
    "a deletion of members, and their retry": Scenario(
        (sweeper, CUT), damage=only_members, attempts=1, ways=BY_COMPARE
    ),
    "a deletion of members, and a retry": Scenario(
        (sweeper, CUT), damage=cut_within_and_overtaken, attempts=1, ways=BY_COMPARE
    ),
    "a deletion of members beside a publish": Scenario((sweeper, CUT), attempts=1, ways=BY_COMPARE),
    "other content over members": Scenario((OTHER, CUT), damage=only_members, attempts=1, ways=BY_COMPARE),
    "retention of a group, and one that publishes it again": Scenario(
        (keeping(ONE, 1), OLD), history=0, damage=old_group, attempts=1
    ),
    "a repair of a cut group": Scenario((repairer,), damage=cut_within_and_overtaken, unpublished=("cut",)),
}
# Searches of these show nothing new under other faults. Under a lease, few commands can be late at all.
LONG = {
    "a deletion of a cut group that may be under way",
    "two groups, the same id and content",
    "two retries of a group that was cut and overtaken",
}
BUDGETS = ("none", "one crash", "one lost reply", "one late command")
SEARCHES = [
    (way, name, budget)
    for name, scenario in SCENARIOS.items()
    for way in scenario.ways
    for budget in (BUDGETS if way is Way.COMPARE else BUDGETS[:2])
    if not (name in LONG and budget in BUDGETS[2:])
]


def named(way: Way, scenario: str) -> str:
    """What the pinned numbers call a scenario."""
    return f"{way.name.lower()}: {scenario}"
