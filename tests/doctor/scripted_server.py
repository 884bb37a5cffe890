"""A server that answers the questions of `doctor` from a script, refusals included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from swapstore.cache import Cache
from swapstore.commands import Ask, Failed, Members, Time
from swapstore.doctor.check import Check
from swapstore.doctor.redis import NEEDED, diagnose
from swapstore.drivers.redis import wire
from swapstore.errors import AccessDenied, Unavailable
from swapstore.format.keys import Keys
from swapstore.models import Durability
from swapstore.protocol.context import Context, Policy
from swapstore.protocol.operation import Batch
from swapstore.testing import VirtualClock

NOW_MS = 1_800_000_000_000
DENIED = Failed(AccessDenied("does not allow what swapstore needs: NOPERM"))
UNKNOWN_COMMAND = Failed(Unavailable("refused a command: ERR unknown command"))
NO_CLUSTER = Failed(Unavailable("refused a command: ERR This instance has cluster support disabled"))

HEALTHY: dict[str, Any] = {
    "CONFIG GET save": [b"save", b"3600 1"],
    "CONFIG GET maxmemory-policy": [b"maxmemory-policy", b"noeviction"],
    "COMMAND INFO": [[word.lower().encode(), 2] for word in NEEDED],
    "CLUSTER INFO": NO_CLUSTER,
    "EVAL": 1,
    "ROLE": [b"master", 0, []],
    "CONFIG GET appendfsync": [b"appendfsync", b"everysec"],
    "CONFIG GET min-replicas-to-write": [b"min-replicas-to-write", b"0"],
    "WAIT": 0,
    "WAITAOF": [1, 0],
    "sentinels": None,
    "SENTINEL MASTER": [
        *(b"ip", b"10.0.0.1", b"port", b"6379", b"num-other-sentinels", b"2", b"quorum", b"2"),
        *(b"down-after-milliseconds", b"5000"),
    ],
    "SENTINEL REPLICAS": [],
    "SENTINEL CKQUORUM": b"OK 3 usable Sentinels.",
    "ACL WHOAMI": b"default",
    "ACL DRYRUN": b"OK",
    "TIME": [str(NOW_MS // 1000).encode(), b"0"],
}


class SlowClock(VirtualClock):
    """A clock that advances by one round trip at every look."""

    round_trip_ms = 0

    def now_ms(self) -> int:
        self.ms += self.round_trip_ms
        return self.ms


def examine(
    info: Any,
    changes: Mapping[str, Any] | None = None,
    *,
    round_trip_ms: int = 0,
    durability: Durability | None = None,
    diagnose: Any = diagnose,
) -> dict[str, Check]:
    """Run `doctor` on these replies: `INFO`, and changes to those of a healthy server.

    A change for one node of several has its address before the words: `10.0.0.1:6379 INFO`.
    """
    replies = {"INFO": info, **HEALTHY, **(changes or {})}
    clock = SlowClock(NOW_MS)
    clock.round_trip_ms = round_trip_ms
    policy = Policy(patience_s=10)
    context = Context(
        keys=Keys("swapstore"),
        cache=Cache(0),
        clock=clock,
        where="here",
        policy=policy,
        durability=durability,
    )
    checking = diagnose(context)
    step = next(checking)
    try:
        while True:
            assert isinstance(step, Batch)
            step = checking.send([said_to(command, replies) for command in step.commands])
    except StopIteration as stop:
        return {check.name: check for check in stop.value}


def said_to(command: Any, replies: dict[str, Any]) -> Any:
    """Find the reply by the first words of the question. What is published is not told."""
    if isinstance(command, Members):
        return DENIED
    if isinstance(command, Time):
        return wire.value(command, replies["TIME"])
    assert isinstance(command, Ask)
    for count in range(len(command.words), 0, -1):
        words = " ".join(command.words[:count])
        for said in (f"{command.node} {words}", words):
            if said in replies:
                return replies[said]
    raise AssertionError(f"nobody expected {command.words}")


def verdicts(checks: dict[str, Check]) -> dict[str, str]:
    return {name: str(check.verdict) for name, check in checks.items()}
