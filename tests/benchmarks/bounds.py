"""Bounds on the figures of the other sections of a run: met, missed, or not measured. Nothing fails.

The table of targets measures its own figures, see `targets.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from tests.benchmarks import (
    compression,
    contention,
    depth,
    depth_timing,
    groups,
    history,
    memory,
    peers,
    reading,
)
from tests.benchmarks.bench import Bench, titled
from tests.benchmarks.report import Report, Row, Sheet
from tests.benchmarks.rounds import ratio

WARM_MOST, DEPTH_MOST, MEMORY_MOST, SLOW_MOST = 1.0, 1.2, 0.55, 0.5
GROUP_TIME_MOST, GROUP_BYTES_MOST, MEMBER_MOST = 1.1, 0.2, 1.1
# Of documents below and above some 64 KB, beside the six; a new version is beside a GET of the payload.
HISTORY_MOST = {
    "MEMORY USAGE of all keys": (0.05, 0.03),
    "publish, sent": (0.15, 0.10),
    "a new version, received": (0.15, 0.15),
}
SMALL_MOST = {"publish, sent": 2.0, "cold read, received": 2.0}
GIT_MOST = 1.5
PEERS_MOST = {"ArcticDB": 0.5, "Icechunk": 0.3, "delta-rs": 0.05, "PyIceberg": 0.01}


@attrs.frozen
class Bound:
    """A bound on the ratio of one way to another in a block of the run."""

    name: str
    most: float
    block: str
    way: str
    base: str

    def row(self, report: Report) -> Row | None:
        """Return the measured figure, if it was measured."""
        one, other = (report.samples.get((self.block, way)) for way in (self.way, self.base))
        if one is None or other is None:
            return None
        found = ratio(one, other)
        return {**judged(self.name, found.value, self.most), "low": found.low, "high": found.high}


def run(bench: Bench) -> None:
    """Show every bound that this run has figures for."""
    rows = [row for bound in timed(bench.report) if (row := bound.row(bench.report))]
    rows += counted(bench.report)
    if not rows:
        return
    missed = sum(row["verdict"] != "met" for row in rows)
    sheet = Sheet("bounds", f"bounds: {len(rows) - missed} of {len(rows)} met", rows)
    sheet.notes.append("low and high: 95 %, round by round. Times of a busy machine decide nothing")
    bench.report.add(sheet)


def judged(name: str, value: float, most: float) -> Row:
    """Say whether a figure is within its bound."""
    verdict = "met" if value <= most else "MISSED"
    return {"figure": name, "measured": value, "at most": most, "verdict": verdict}


def timed(report: Report) -> Iterator[Bound]:
    """List the bounds on ratios of times."""
    block = titled(reading.SECTION, "100 KB", 0)
    name = "read_latest 100 KB, warm / GET of the payload"
    yield Bound(name, WARM_MOST, block, reading.WARM, reading.GET)
    for kind in depth.STORES:
        block = depth_timing.titled(kind, depth.TARGET)
        name = f"publish at 1,000,000 versions / at 100, {kind}, timed"
        yield Bound(name, DEPTH_MOST, block, depth_timing.AT_DEPTH, depth_timing.AT_SHALLOW)
    yield from compressed()
    yield from grouped()
    for versions in peers.DEPTHS:
        for peer, most in PEERS_MOST.items():
            cut = report.facts.get(peers.cut_at(versions), {}).get(peer)
            depth_of_peer = f" ({cut:,} of its own: it was cut)" if cut else ""
            name = f"publish 10 KB to SQLite / {peer}, at {versions:,} versions{depth_of_peer}"
            yield Bound(name, most, peers.titled("publish", versions), peers.OURS, peer)


def compressed() -> Iterator[Bound]:
    """List the bound for reading what was published as differences."""
    block = titled(compression.SLOW_READ, compression.SLOW_SIZE, compression.SLOW_DELAY_MS)
    name = f"{compression.SLOW_READ}, {compression.SLOW_SIZE}, delta / {compression.TWO_STEP}"
    yield Bound(name, SLOW_MOST, block, compression.ours("delta"), compression.TWO_STEP)


def grouped() -> Iterator[Bound]:
    """List the bounds for groups."""
    slow = groups.DELAYS_MS[-1]
    block = titled(groups.PUBLISH, groups.SIZE, slow)
    name = f"publish a group of {groups.SIZE} at {slow} ms, delta / {groups.SETS}"
    yield Bound(name, GROUP_TIME_MOST, block, groups.ours("delta"), groups.SETS)
    for delay_ms in groups.DELAYS_MS:
        block = titled(groups.READ, "2 KB", delay_ms)
        for way in (groups.COLD, groups.FRESH):
            name = f"read one member at {delay_ms} ms, {way} / {groups.PAIR}"
            yield Bound(name, MEMBER_MOST, block, way, groups.PAIR)


def counted(report: Report) -> Iterator[Row]:
    """Judge what is not a time: bytes, memory, losses."""
    for kind in depth.STORES:
        costs = report.facts.get(f"depth, {kind}", {}).get("costs", {})
        if depth.TARGET in costs:
            base, deepest = (_bytes(costs[each]["publish 1 KB, warm"]) for each in (depth.BASE, depth.TARGET))
            yield judged(f"publish at 1,000,000 versions / at 100, {kind}, bytes", deepest / base, DEPTH_MOST)
    for how, value in report.facts.get(memory.SECTION, {}).items():
        yield judged(f"memory of a 10 KB snapshot / the six, {how}", value, MEMORY_MOST)
    yield from of_history(report.facts.get(history.SECTION, {}))
    sent = report.facts.get(groups.PUBLISH, {})
    if sent:
        name = f"publish a group of {groups.SIZE}, delta: bytes / {groups.SETS}"
        yield judged(name, sent[groups.ours("delta")] / sent[groups.SETS], GROUP_BYTES_MOST)
    for store, lost in report.facts.get(contention.SECTION, {}).items():
        yield judged(f"lost acknowledged publishes, {store}", lost, 0)


def of_history(sequences: dict[str, Any]) -> Iterator[Row]:
    """Judge what many versions of a document take."""
    for name, found in sequences.items():
        is_small = name == history.SMALL
        way = "none" if is_small else "delta"
        bounds = SMALL_MOST if is_small else {k: v[history.is_large(found)] for k, v in HISTORY_MOST.items()}
        for figure, most in bounds.items():
            value = found["server"][way][figure] / found["server"][history.SIX][figure]
            yield judged(f"{name}, {way}: {figure} / {history.BESIDE[figure]}", value, most)
        files = found.get("files", {})
        if "git" in files:
            yield judged(
                f"{name}, delta: SQLite file / git, packed", files["SQLite"] / files["git"], GIT_MOST
            )


def _bytes(cost: dict[str, Any]) -> float:
    return float(cost["rest"]["sent"] + cost["rest"]["received"])
