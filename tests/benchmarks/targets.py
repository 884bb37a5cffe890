"""The targets, computed from the figures of the same run: met, missed, or not measured. Nothing fails."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs

from tests.benchmarks import (
    batching,
    compression,
    contention,
    depth,
    depth_timing,
    groups,
    history,
    memory,
    peers,
    publishing,
    reading,
)
from tests.benchmarks.bench import Bench, titled
from tests.benchmarks.report import Report, Row, Sheet
from tests.benchmarks.rounds import ratio

PUBLISH_MOST = {"1 KB": 1.1, "10 KB": 1.1, "100 KB": 0.8, "1 MB": 0.7}
COLD_MOST, STALE_MOST, WARM_MOST = 1.05, 0.05, 1.0
MANY_MOST, DEPTH_MOST, MEMORY_MOST, SQLITE_MOST = 1.2, 1.2, 0.55, 1.5
DELTA_MOST, SLOW_MOST = 0.8, 0.5
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
class Target:
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
    """Show every target that this run has figures for."""
    rows = [row for target in timed(bench.report) if (row := target.row(bench.report))]
    rows += counted(bench.report)
    if not rows:
        return
    missed = sum(row["verdict"] != "met" for row in rows)
    sheet = Sheet("targets", f"targets: {len(rows) - missed} of {len(rows)} met", rows)
    sheet.notes.append("low and high: 95 %, round by round. Times of a busy machine decide nothing")
    bench.report.add(sheet)


def judged(name: str, value: float, most: float) -> Row:
    """Say whether a figure is within its bound."""
    verdict = "met" if value <= most else "MISSED"
    return {"figure": name, "measured": value, "at most": most, "verdict": verdict}


def timed(report: Report) -> Iterator[Target]:
    """List the targets that are ratios of times."""
    on, read = publishing, reading
    for size, most in PUBLISH_MOST.items():
        yield Target(
            f"publish {size}, warm / the six in MULTI/EXEC",
            most,
            titled(on.SECTION, size, 0),
            on.WARM,
            on.SIX,
        )
    eight = titled("eight datasets", batching.SIZE, 50)
    yield Target(
        "publish_many(8) at 50 ms / one round trip", MANY_MOST, eight, batching.PUBLISH_MANY, batching.PING
    )
    for size in PUBLISH_MOST:
        block = titled(read.SECTION, size, 0)
        yield Target(f"read_latest {size}, cold / two-step read", COLD_MOST, block, read.COLD, read.TWO_STEP)
    block = titled(read.SECTION, "100 KB", 0)
    yield Target("read_latest 100 KB, warm / GET of the payload", WARM_MOST, block, read.WARM, read.GET)
    for size in PUBLISH_MOST:
        block = titled(read.SECTION, size, 0)
        yield Target(
            f"read_latest {size} within max_staleness / GET", STALE_MOST, block, read.STALE, read.GET
        )
    for kind in depth.STORES:
        block = depth_timing.titled(kind, depth.TARGET)
        name = f"publish at 1,000,000 versions / at 100, {kind}, timed"
        yield Target(name, DEPTH_MOST, block, depth_timing.AT_DEPTH, depth_timing.AT_SHALLOW)
    yield from compressed()
    yield from grouped()
    block = titled(on.ON_SQLITE, "10 KB", 0)
    yield Target("publish 10 KB to SQLite / plain INSERT", SQLITE_MOST, block, on.WARM, on.PLAIN)
    for versions in peers.DEPTHS:
        for peer, most in PEERS_MOST.items():
            cut = report.facts.get(peers.cut_at(versions), {}).get(peer)
            depth_of_peer = f" ({cut:,} of its own: it was cut)" if cut else ""
            name = f"publish 10 KB to SQLite / {peer}, at {versions:,} versions{depth_of_peer}"
            yield Target(name, most, peers.titled("publish", versions), peers.OURS, peer)


def compressed() -> Iterator[Target]:
    """List the targets for publishing as differences, and for reading what was."""
    way, slow = compression.ours("delta"), (compression.SLOW_SIZE, compression.SLOW_DELAY_MS)
    for size in compression.SIZES:
        block = titled(compression.SECTION, size, 0)
        name = f"publish versions of {size}, delta / the six in MULTI/EXEC"
        yield Target(name, DELTA_MOST, block, way, compression.SIX)
    for section, base in (
        (compression.SLOW_PUBLISH, compression.SIX),
        (compression.SLOW_READ, compression.TWO_STEP),
    ):
        name = f"{section}, {slow[0]}, delta / {base}"
        yield Target(name, SLOW_MOST, titled(section, *slow), way, base)


def grouped() -> Iterator[Target]:
    """List the targets for groups."""
    slow = groups.DELAYS_MS[-1]
    block = titled(groups.PUBLISH, groups.SIZE, slow)
    name = f"publish a group of {groups.SIZE} at {slow} ms, delta / {groups.SETS}"
    yield Target(name, GROUP_TIME_MOST, block, groups.ours("delta"), groups.SETS)
    for delay_ms in groups.DELAYS_MS:
        block = titled(groups.READ, "2 KB", delay_ms)
        for way in (groups.COLD, groups.FRESH):
            name = f"read one member at {delay_ms} ms, {way} / {groups.PAIR}"
            yield Target(name, MEMBER_MOST, block, way, groups.PAIR)


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
