"""What the demo publishes: invented snapshots, shaped and sized like those of an intelligence producer.

Equal seeds give equal snapshots. All actors and events are made up; the regions are only names.
"""

from __future__ import annotations

import random
from typing import Any

import msgspec

REGIONS = (
    "mena",
    "east-asia",
    "europe",
    "north-america",
    "south-asia",
    "latam",
    "sub-saharan-africa",
    "global",
)
SIZE_BYTES = 26_000
START_MS = 1_767_225_600_000  # 2026-01-01T00:00Z: content depends on the seed, not on the clock

_AXES = ("pressure", "cohesion", "energy", "trade", "shipping", "markets", "information")
_REGIMES = ("calm", "watchful", "strained", "escalating", "fragmented")
_ROLES = ("power", "mediator", "supplier", "spoiler", "carrier", "creditor")
_NAMES = ("Áster", "Borealis", "Cinder", "Dovre", "Ebony", "Fjord", "Garnet", "Halcyon", "Ibis", "Juniper")
_KINDS = ("Accord", "League", "Authority", "Line", "Council", "Guild")
_WHAT = ("port calls", "convoy movements", "grid load", "bond spreads", "grain tenders", "border crossings")
_HOW = ("fell short of", "ran ahead of", "matched", "diverged from", "lagged behind")
_WHY = ("the seasonal norm", "last week's guidance", "the insurers' estimate", "the announced schedule")
_SOURCES = ("wire", "satellite", "transponder", "filing", "market", "field report")


def snapshot_of(region: str, seed: int) -> dict[str, Any]:
    """Return one snapshot of about 26 KB as JSON."""
    dice = random.Random(f"{region}/{seed}")  # noqa: S311 - content for a demo, no secret
    actors = [_actor(dice, number) for number in range(10)]
    snapshot: dict[str, Any] = {
        "schema": 1,
        "region": region,
        "generated_at": START_MS + seed * 21_600_000,
        "balance": {axis: round(dice.uniform(-1, 1), 4) for axis in _AXES},
        "regime": {
            "label": dice.choice(_REGIMES),
            "previous": dice.choice(_REGIMES),
            "confidence": round(dice.uniform(0.4, 0.95), 3),
            "drivers": dice.sample(_AXES, 3),
        },
        "actors": actors,
        "scenario_sets": [_scenarios(dice, horizon) for horizon in ("24h", "7d", "30d")],
        "triggers": [_trigger(dice, number) for number in range(12)],
        "narrative": {
            part: " ".join(_sentence(dice) for _ in range(8))
            for part in ("situation", "assessment", "outlook", "watch")
        },
        "evidence": [],
    }
    size = len(msgspec.json.encode(snapshot))
    while size < SIZE_BYTES:
        item = _evidence(dice, len(snapshot["evidence"]), actors)
        snapshot["evidence"].append(item)
        size += len(msgspec.json.encode(item)) + 1
    return snapshot


def _actor(dice: random.Random, number: int) -> dict[str, Any]:
    return {
        "id": f"actor-{number}",
        "name": f"{_NAMES[number]} {dice.choice(_KINDS)}",
        "role": dice.choice(_ROLES),
        "leverage": round(dice.random(), 4),
        "change": round(dice.uniform(-0.2, 0.2), 4),
        "note": _sentence(dice),
    }


def _scenarios(dice: random.Random, horizon: str) -> dict[str, Any]:
    weights = [dice.random() for _ in range(4)]
    lanes = zip(("base", "escalation", "containment", "fracture"), weights, strict=True)
    return {
        "horizon": horizon,
        "lanes": [
            {
                "name": name,
                "probability": round(weight / sum(weights), 4),
                "description": f"{_sentence(dice)} {_sentence(dice)}",
                "consequences": [_sentence(dice) for _ in range(3)],
            }
            for name, weight in lanes
        ],
    }


def _trigger(dice: random.Random, number: int) -> dict[str, Any]:
    return {
        "id": f"trigger-{number}",
        "state": dice.choice(("active", "watching", "dormant")),
        "axis": dice.choice(_AXES),
        "threshold": round(dice.uniform(0.5, 0.9), 2),
        "observed": round(dice.random(), 4),
        "description": _sentence(dice),
    }


def _evidence(dice: random.Random, number: int, actors: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": f"evidence-{number}",
        "source": dice.choice(_SOURCES),
        "observed_at": START_MS - dice.randrange(7 * 86_400_000),
        "confidence": round(dice.uniform(0.3, 0.99), 3),
        "actors": [actor["id"] for actor in dice.sample(actors, 2)],
        "axis": dice.choice(_AXES),
        "summary": _sentence(dice),
    }


def _sentence(dice: random.Random) -> str:
    who = f"{dice.choice(_NAMES)} {dice.choice(_KINDS)}"
    change = f"{dice.uniform(0.5, 30):.1f} %"
    return f"{who}: {dice.choice(_WHAT)} {dice.choice(_HOW)} {dice.choice(_WHY)} by {change}."
