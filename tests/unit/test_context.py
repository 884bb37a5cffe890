"""The clock, ids and waits that operations use."""

from __future__ import annotations

import random
import time
import uuid

from swapstore.cache import Cache
from swapstore.format.keys import Keys
from swapstore.protocol.context import Context, Policy, SystemClock
from tests.support.deterministic import TickingClock

KEYS = Keys("ns")


class Loaded(random.Random):
    """Dice that always fall on the highest side."""

    def getrandbits(self, k: int, /) -> int:
        return (1 << k) - 1

    def uniform(self, a: float, b: float) -> float:
        assert a == 0, "full jitter begins at nothing"
        return b


def test_the_clock_is_that_of_the_machine() -> None:
    """Times are in other units, or drift, and the wrong snapshot becomes the latest."""
    before = time.time_ns() // 1_000_000
    assert before <= SystemClock().now_ms() <= time.time_ns() // 1_000_000


def test_an_id_is_a_uuid_of_version_seven_whatever_the_dice_say() -> None:
    """Some generated ids do not sort by their time."""
    clock = TickingClock()
    for dice in (Loaded(), random.Random(1)):
        ctx = Context(keys=KEYS, cache=Cache(0), clock=clock, random=dice)
        for step in range(2):
            clock.ms += step
            made = uuid.UUID(ctx.new_id())
            assert (made.version, made.variant) == (7, uuid.RFC_4122)
            assert made.int >> 80 == clock.ms
    assert (
        uuid.UUID(Context(keys=KEYS, cache=Cache(0), clock=clock, random=Loaded()).new_id()).int
        & ((1 << 62) - 1)
        == (1 << 62) - 1
    )


def test_waits_double_up_to_the_longest() -> None:
    """Racing producers overload the store with short waits, or crawl with long ones."""
    policy = Policy(first_wait_s=1, longest_wait_s=100)
    ctx = Context(keys=KEYS, cache=Cache(0), policy=policy, random=Loaded())
    assert [ctx.backoff(attempt) for attempt in (0, 1, 2, 3, 6, 7, 200)] == [1, 2, 4, 8, 64, 100, 100]
