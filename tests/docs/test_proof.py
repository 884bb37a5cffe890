"""The figures in the explanation are those of the search."""

from __future__ import annotations

import json
from pathlib import Path

from tests.exploration import upkeep
from tests.exploration.scenarios import BUDGETS, SCENARIOS

ROOT = Path(__file__).parents[2]


def test_the_table_of_states_is_that_of_the_search() -> None:
    """A reader of the explanation would be told of a search that is not made."""
    page = (ROOT / "docs/explanation/proof.md").read_text("utf-8")
    pinned = json.loads((ROOT / "tests/exploration/states.json").read_text("utf-8"))
    for scenario in SCENARIOS:
        counts = [f"{pinned[scenario][budget]['states']:,}" for budget in BUDGETS]
        assert f"| {scenario} | {' | '.join(counts)} | " in page


def test_the_table_of_retention_and_repair_is_that_of_the_search() -> None:
    """The same, for what prunes and repairs."""
    page = (ROOT / "docs/explanation/proof.md").read_text("utf-8")
    pinned = json.loads((ROOT / "tests/exploration/states_upkeep.json").read_text("utf-8"))
    for scenario in upkeep.SCENARIOS:
        found = [pinned[scenario].get(budget) for budget in upkeep.BUDGETS]
        counts = ["–" if each is None else f"{each['states']:,}" for each in found]
        assert f"| {scenario} | {' | '.join(counts)} |" in page
