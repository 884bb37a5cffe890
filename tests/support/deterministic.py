"""A clock that ticks at each look, and seeded randomness: the same run, byte for byte."""

from __future__ import annotations

import random

import attrs

from swapstore.cache import Cache
from swapstore.format.keys import Keys
from swapstore.protocol.context import Context


@attrs.define
class TickingClock:
    """Every look at the clock is one second later."""

    ms: int = 1_800_000_000_000

    def now_ms(self) -> int:
        self.ms += 1000
        return self.ms

    def sleep(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)

    def monotonic(self) -> float:
        self.ms += 1000
        return self.ms / 1000


def fixed_context(seed: int = 7, namespace: str = "snapshot") -> Context:
    """A context in which everything is deterministic."""
    return Context(
        keys=Keys(namespace), cache=Cache(1 << 20), clock=TickingClock(), random=random.Random(seed)
    )
