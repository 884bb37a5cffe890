"""What is published: deterministic text like JSON of four sizes, and real documents where they exist.

This uses only the standard library: the peers' processes, which have their own environment, import it too.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

KB = 1024
SIZES = {"1 KB": KB, "10 KB": 10 * KB, "100 KB": 100 * KB, "1 MB": 1024 * KB}
DOCUMENTS = Path(__file__).parents[3] / "shared" / "data"
REGIONS = ("mena", "europe", "asia", "africa", "oceania", "latam", "nordics", "us")


def value(size_bytes: int, seed: int = 0) -> dict[str, Any]:
    """Make a JSON value whose compact text has exactly this size."""
    choice = random.Random(seed)
    made: dict[str, Any] = {"id": f"{seed:012}", "pad": "", "rows": []}
    left = size_bytes - len(encoded(made))
    while True:
        row = {
            "region": choice.choice(REGIONS),
            "at": choice.randrange(10**12, 2 * 10**12),
            "score": round(choice.random(), 6),
            "trend": choice.choice(["rising", "falling", "steady"]),
        }
        took = len(encoded(row)) + 1
        if took > left:
            break
        left -= took
        made["rows"].append(row)
    left += bool(made["rows"])  # the first row has no comma before it
    made["pad"] = "".join(choices(choice, left))
    return made


def choices(choice: random.Random, count: int) -> list[str]:
    return choice.choices("abcdefghijklmnopqrstuvwxyz ", k=count)


def encoded(each: Any) -> bytes:
    """Encode a value as compact JSON."""
    return json.dumps(each, separators=(",", ":")).encode()


def payload(size_bytes: int, seed: int = 0) -> bytes:
    """Make a payload of exactly this size."""
    return encoded(value(size_bytes, seed))


def documents() -> dict[str, bytes]:
    """Read the real documents, smallest first; none if they are not there."""
    found = sorted(DOCUMENTS.glob("*.json"), key=lambda path: path.stat().st_size)
    return {path.stem: path.read_bytes() for path in found}
