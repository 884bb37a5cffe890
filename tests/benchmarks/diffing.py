"""What `swapstore.diff` takes for two documents of 2.5 MB, beside decoding them."""

from __future__ import annotations

import copy
import json
import statistics
from typing import Any

import swapstore
from tests.benchmarks import payloads
from tests.benchmarks.bench import Bench
from tests.benchmarks.rounds import Way, measure

SECTION = "diff"
SIZE_BYTES = 2_500_000
TARGET_MS = 1000
ROUNDS = 7
DECODE = "decoding both (json.loads)"
FEW, ALL, WITHOUT = "20 rows changed", "a number changed in every row", "20 rows changed, rows without an id"


def run(bench: Bench) -> None:
    """Measure, and say whether the target is met."""
    old = documents()
    ways = {FEW: changed(old, every=len(old["rows"]) // 20), ALL: changed(old, every=1)}
    bare_old, bare_new = without_ids(old), without_ids(ways[FEW])
    text = payloads.encoded(old)
    samples = measure(
        [
            Way(DECODE, lambda: (json.loads(text), json.loads(text))),
            *(Way(name, lambda new=new: swapstore.diff(old, new)) for name, new in ways.items()),  # type: ignore[misc]
            Way(WITHOUT, lambda: swapstore.diff(bare_old, bare_new)),
        ],
        rounds=ROUNDS,
    )
    bench.report.add_timed(SECTION, f"two documents of {len(text) / 1e6:.1f} MB", samples, DECODE)
    for name in (FEW, ALL, WITHOUT):
        taken_ms = statistics.median(samples[name].taken_ns) / 1e6
        verdict = "met" if taken_ms < TARGET_MS else "MISSED"
        bench.report.note(f"diff, {name}: {taken_ms:.0f} ms, target {TARGET_MS} ms: {verdict}")


def documents() -> dict[str, Any]:
    """Return a document of that size, whose rows have an id."""
    made = payloads.value(SIZE_BYTES * 4 // 5)
    return {**made, "rows": [{"id": f"row-{number}", **row} for number, row in enumerate(made["rows"])]}


def changed(document: dict[str, Any], *, every: int) -> dict[str, Any]:
    """Return the next version: some rows changed, one removed, one inserted in the middle."""
    new = copy.deepcopy(document)
    for row in new["rows"][::every]:
        row["score"] += 1
    del new["rows"][1]
    new["rows"].insert(len(new["rows"]) // 2, {"id": "new", "region": "mena", "at": 0, "score": 0.5})
    return new


def without_ids(document: dict[str, Any]) -> dict[str, Any]:
    return {**document, "rows": [{key: row[key] for key in row if key != "id"} for row in document["rows"]]}
