"""Successive versions of one document, as they are published: for what depends on how data changes.

The generated sequences are the same on every machine. Real ones are read from files, if there are any: one
document a line, in files named `*.jsonl` or `*.jsonl.xz`.
"""

from __future__ import annotations

import lzma
import os
import random
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tests.benchmarks.payloads import DOCUMENTS, encoded

VARIABLE = "SWAPSTORE_BENCH_SEQUENCES"
VERSIONS = 400
ROWS = {"15 KB": 78, "100 KB": 525, "1 MB": 5_370}  # of a generated document
STATES = ("open", "assigned", "in progress", "resolved")
WORDS = (
    "north",
    "south",
    "east",
    "west",
    "river",
    "valley",
    "station",
    "harbour",
    "bridge",
    "upper",
    "lower",
)


def directory(chosen: Path | None = None) -> Path:
    """Return where real sequences are: as chosen, or in the environment, or beside the repository."""
    return chosen or Path(os.environ.get(VARIABLE) or DOCUMENTS / "sequences")


def real(folder: Path, versions: int = VERSIONS) -> dict[str, list[bytes]]:
    """Read the real sequences of a folder, by name; none if it does not exist."""
    found = {}
    for path in sorted(folder.glob("*.jsonl*")):
        read = lzma.open if path.suffix == ".xz" else open
        with read(path, "rb") as lines:
            found[path.name.partition(".")[0]] = [line.rstrip(b"\n") for line in islice(lines, versions)]
    return found


def generated(size: str, versions: int = VERSIONS, seed: int = 0) -> list[bytes]:
    """Make the versions of a list of events, each a little different from the one before.

    From one version to the next, one row in twenty gets another state, count and time. Now and then a row
    ends, and a new one begins.
    """
    return list(islice(_versions(ROWS[size], seed), versions))


def _versions(rows: int, seed: int) -> Iterator[bytes]:
    choice = random.Random(seed)
    now = 1_790_000_000
    events = [_event(choice, number, now) for number in range(rows)]
    begun = rows
    while True:
        yield encoded({"generated_at": now, "count": len(events), "events": events})
        now += choice.randint(300, 900)
        for event in choice.sample(events, max(1, len(events) // 20)):
            event |= {"state": choice.choice(STATES), "affected": choice.randint(1, 5_000), "updated_at": now}
        for _ in range(choice.choice((0, 0, 1, 1, 1, 2))):
            del events[choice.randrange(len(events))]
            events.append(_event(choice, begun, now))
            begun += 1


def _event(choice: random.Random, number: int, now: int) -> dict[str, Any]:
    return {
        "id": f"{choice.getrandbits(32):08x}-{number:06}",
        "title": " ".join(choice.choices(WORDS, k=5)),
        "position": [round(choice.uniform(-90, 90), 5), round(choice.uniform(-180, 180), 5)],
        "state": choice.choice(STATES),
        "affected": choice.randint(1, 5_000),
        "score": round(choice.random(), 6),
        "began_at": now - choice.randint(0, 100_000),
        "updated_at": now,
    }
