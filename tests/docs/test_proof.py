"""The figures on the pages about the proof are those of the searches and of the catalogue of mutants."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.exploration import batching, deltas, maintenance, recompressing, scriptless, viewing
from tests.exploration.scenarios import BUDGETS, SCENARIOS
from tests.mutants import catalogue

ROOT = Path(__file__).parents[2]


def test_the_table_of_states_is_that_of_the_search() -> None:
    """The page gives numbers of states that no search has."""
    page = (ROOT / "docs/explanation/proof.md").read_text("utf-8")
    pinned = json.loads((ROOT / "tests/exploration/states.json").read_text("utf-8"))
    for scenario in SCENARIOS:
        counts = [f"{pinned[scenario][budget]['states']:,}" for budget in BUDGETS]
        assert f"| {scenario} | {' | '.join(counts)} | " in page


@pytest.mark.parametrize(
    ("searched", "file"),
    [
        (maintenance, "states_maintenance.json"),
        (batching, "states_batching.json"),
        (recompressing, "states_recompressing.json"),
        (viewing, "states_viewing.json"),
    ],
)
def test_the_other_tables_are_those_of_the_search(searched: Any, file: str) -> None:
    """The page gives wrong numbers for retention and repair, for batching, or for recompress."""
    page = (ROOT / "docs/explanation/proof.md").read_text("utf-8")
    pinned = json.loads((ROOT / f"tests/exploration/{file}").read_text("utf-8"))
    for scenario in searched.SCENARIOS:
        found = [pinned[scenario].get(budget) for budget in searched.BUDGETS]
        counts = ["\N{EN DASH}" if each is None else f"{each['states']:,}" for each in found]
        assert f"| {scenario} | {' | '.join(counts)} |" in page


@pytest.mark.parametrize(
    ("searched", "file"), [(scriptless, "states_scriptless.json"), (deltas, "states_deltas.json")]
)
def test_the_tables_of_ways_to_commit_are_those_of_the_search(searched: Any, file: str) -> None:
    """The page gives wrong numbers for commits without scripts, or with bases."""
    page = (ROOT / "docs/explanation/proof.md").read_text("utf-8")
    pinned = json.loads((ROOT / f"tests/exploration/{file}").read_text("utf-8"))
    for name in dict.fromkeys(deltas.named(way, scenario) for way, scenario, _ in searched.SEARCHES):
        found = [pinned[name].get(budget) for budget in searched.BUDGETS]
        counts = ["\N{EN DASH}" if each is None else f"{each['states']:,}" for each in found]
        assert f"| {name} | {' | '.join(counts)} |" in page


def test_the_table_of_mutants_is_that_of_the_catalogue() -> None:
    """A page counts mistakes that nobody makes, or leaves out a file of them."""
    page = (ROOT / "docs/explanation/mutants.md").read_text("utf-8")
    proof = (ROOT / "docs/explanation/proof.md").read_text("utf-8")
    total = len(catalogue.MUTANTS)
    assert f"breaks the code in {total} ways" in page
    assert f"breaks the real code in {total} ways" in proof
    files = sorted(path.stem for path in (ROOT / "tests/mutants").glob("in_*.py"))
    counts = {name: len(import_module(f"tests.mutants.{name}").MUTANTS) for name in files}
    assert sum(counts.values()) == total
    for name, count in counts.items():
        assert f"| `{name}.py` | {count} |" in page
