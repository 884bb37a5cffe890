"""Timing ways of doing one thing, side by side: interleaved rounds, medians, p99, and paired ratios.

Beside the time of each call stand the CPU time of this process, and the bytes that it sends and receives. The
bytes are counted in rounds of their own, after those that are timed.

Machines drift: one way measured for a minute and then another compares two minutes. So every round takes each
way once, and a ratio is taken within each round. The order is drawn anew for each round, from a seed: a way
that always followed a similar one would find the processor's caches full of what it needs.
"""

from __future__ import annotations

import asyncio
import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

from tests.benchmarks import signals

Act = Callable[[], Any]
Taken = tuple[int, int | None]  # ns of time, and of CPU; None: another process spends it
Clock = Callable[[Act], Taken]
Wire = Callable[[], tuple[int, int]]  # bytes that a server has received and sent so far

WARM_UP = 3
FEWEST = 5  # rounds, whatever the time that they take
Z = 1.96  # of a 95 % interval
SEED = 7
COUNTED = 8  # rounds whose bytes are counted: a whole cycle, one publish of which seals a page
UNTIMED = WARM_UP + COUNTED  # at most so many rounds are run besides those that are timed


def by_wall(act: Act) -> Taken:
    """The duration of a call, and the CPU time that all threads of this process spent in it."""
    cpu, began = time.process_time_ns(), time.perf_counter_ns()
    act()
    return time.perf_counter_ns() - began, time.process_time_ns() - cpu


def in_loop(loop: asyncio.AbstractEventLoop) -> Clock:
    """Time a coroutine within the loop: entering and leaving the loop is no part of it."""

    async def timed(act: Callable[[], Coroutine[Any, Any, object]]) -> Taken:
        cpu, began = time.process_time_ns(), time.perf_counter_ns()
        await act()
        return time.perf_counter_ns() - began, time.process_time_ns() - cpu

    return lambda act: loop.run_until_complete(timed(act))


def told(act: Act) -> Taken:
    """Let the call itself return its duration in ns: it ran in another process."""
    return int(act()), None


def itself(act: Act) -> Taken:
    """Let the call itself return its duration and its CPU time."""
    took: Taken = act()
    return took


@attrs.frozen
class Way:
    """One way of doing it. `before` prepares each round, and is not timed."""

    name: str
    act: Act
    before: Act | None = None
    clock: Clock = by_wall


@attrs.frozen
class Sample:
    """The durations of one way, round by round; where known, its CPU time and its bytes in a mean round."""

    taken_ns: tuple[int, ...]
    cpu_ns: tuple[int, ...] = ()
    sent: float | None = None
    received: float | None = None

    @property
    def median_us(self) -> float:
        return statistics.median(self.taken_ns) / 1000

    @property
    def p99_us(self) -> float:
        """The nearest rank: with fewer than a hundred rounds, the slowest."""
        return sorted(self.taken_ns)[math.ceil(0.99 * len(self.taken_ns)) - 1] / 1000

    @property
    def cpu_us(self) -> float | None:
        return statistics.median(self.cpu_ns) / 1000 if self.cpu_ns else None


@attrs.frozen
class Ratio:
    """A median over the rounds, mostly of how many times as long, and its 95 % interval."""

    value: float
    low: float
    high: float


def ratio(one: Sample, other: Sample) -> Ratio:
    """Compare two ways round by round."""
    pairs = zip(one.taken_ns, other.taken_ns, strict=False)  # one may have run out of time
    return median([a / max(b, 1) for a, b in pairs])


def median(figures: Sequence[float]) -> Ratio:
    """Return the median of figures; its interval is that of the order statistics."""
    each = sorted(figures)
    reach = Z * math.sqrt(len(each)) / 2
    low = max(0, math.floor(len(each) / 2 - reach))
    high = min(len(each) - 1, math.ceil(len(each) / 2 + reach))
    return Ratio(statistics.median(each), each[low], each[high])


def measure(
    ways: Sequence[Way], *, rounds: int, seconds: float | None = None, wire: Wire | None = None
) -> dict[str, Sample]:
    """Measure this many rounds; fewer, but at least five, when they take longer than `seconds`.

    `wire`: counts the bytes of a few more rounds, which are not timed.
    """
    taken: dict[str, list[Taken]] = {way.name: [] for way in ways}
    began = time.monotonic()
    order, draw = list(ways), random.Random(SEED)
    with _uncollected():
        for number in range(-min(WARM_UP, 1 + rounds // 10), rounds):
            if number >= FEWEST and seconds is not None and time.monotonic() - began > seconds:
                break
            signals.check()
            draw.shuffle(order)
            for way in order:
                if way.before is not None:
                    way.before()
                took = way.clock(way.act)
                if number >= 0:
                    taken[way.name].append(took)
        counted = {} if wire is None else _counted(ways, min(COUNTED, rounds), wire)
    return {name: _sample(each, counted.get(name, (None, None))) for name, each in taken.items()}


def _sample(taken: Sequence[Taken], counted: tuple[float | None, float | None]) -> Sample:
    cpu = tuple(ns for _, ns in taken if ns is not None)
    return Sample(tuple(ns for ns, _ in taken), cpu, *counted)


def _counted(ways: Sequence[Way], rounds: int, wire: Wire) -> dict[str, tuple[float, float]]:
    """Count the bytes that each way sends and receives: means over some rounds."""
    totals = {way.name: [0, 0] for way in ways}
    for _ in range(rounds):
        for way in ways:
            signals.check()
            if way.before is not None:
                way.before()
            before = wire()
            way.clock(way.act)
            for place, (now, then) in enumerate(zip(wire(), before, strict=True)):
                totals[way.name][place] += now - then
    return {name: (sent / rounds, received / rounds) for name, (sent, received) in totals.items()}


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keep one way from paying for the garbage of another."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
