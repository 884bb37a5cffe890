"""Every interleaving of real operations, with every fault: the promises hold in each state.

The number of states is pinned, so that a search that shrinks by mistake fails. To accept new numbers on
purpose, delete the file and run this once: it writes the file anew and fails. Searches that are known to be
large have the marker `nightly`, but the smallest one of each scenario runs each time unless it is huge.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.exploration import (
    batching,
    deltas,
    durable,
    erasing,
    maintenance,
    recompressing,
    scriptless,
    scriptless_groups,
    viewing,
)
from tests.exploration.contents import contents_of
from tests.exploration.maintenance import SCENARIOS as MAINTENANCE
from tests.exploration.maintenance import pages_of_two, pruner
from tests.exploration.scenarios import BUDGETS, SCENARIOS, explore, with_history
from tests.support.committers import Way
from tests.support.explore import Explorer, Faults, Outcome

HERE = Path(__file__).parent
# States of searches that run each time: of any, and of the smallest one of its scenario.
QUICK = (6_000, 20_000)
QUICK_WITH_ZSTD = (1_500, 3_000)  # payloads are compressed in each state


def pinned_in(file: str) -> dict[str, dict[str, Any]]:
    """What is written down, by scenario and budget."""
    path = HERE / file
    return json.loads(path.read_text()) if path.exists() else {}


def search(file: str, scenario: str, *arguments: Any, quick: tuple[int, int] = QUICK) -> Any:
    """Arguments of a test that searches; the last is the budget. A large search is left to the night."""
    states = {budget: known["states"] for budget, known in pinned_in(file).get(scenario, {}).items()}
    size, smallest = states.get(arguments[-1], 0), min(states.values(), default=0)
    is_large = size > quick[size == smallest]
    return pytest.param(*arguments, marks=[pytest.mark.nightly] if is_large else [])


def check_pinned(file: str, scenario: str, budget: str, outcome: Outcome) -> None:
    """Compare what a search found with the pinned numbers."""
    path = HERE / file
    ends = sorted({end for clients in outcome.ends for end in clients})
    found = {"states": outcome.states, "ends": ends}
    pinned = pinned_in(file)
    known = pinned.setdefault(scenario, {}).setdefault(budget, found)
    if not path.exists() or known is found:
        path.write_text(json.dumps(pinned, indent=1, sort_keys=False) + "\n")
        pytest.fail("the number of states was written anew: look at it, then run the tests again")
    assert found == known


@pytest.mark.parametrize(
    ("scenario", "budget"),
    [search("states.json", name, name, budget) for name in SCENARIOS for budget in BUDGETS],
)
def test_every_state_keeps_the_promises(scenario: str, budget: str) -> None:
    """In some order of commands and faults a reader sees a mix, a publish is lost or a key leaks."""
    check_pinned("states.json", scenario, budget, explore(SCENARIOS[scenario], BUDGETS[budget]))


@pytest.mark.parametrize(
    ("scenario", "budget"),
    [
        search("states_maintenance.json", name, name, budget)
        for name, each in MAINTENANCE.items()
        for budget in each.budgets
    ],
)
def test_every_state_of_retention_and_repair_keeps_the_promises(scenario: str, budget: str) -> None:
    """In some order of commands and faults a prune or a repair loses a snapshot, or shows a false one."""
    outcome = maintenance.explore(MAINTENANCE[scenario], maintenance.BUDGETS[budget])
    check_pinned("states_maintenance.json", scenario, budget, outcome)


@pytest.mark.parametrize(
    ("scenario", "budget"),
    [
        search("states_batching.json", name, name, budget)
        for name, each in batching.SCENARIOS.items()
        for budget in each.budgets
    ],
)
def test_every_state_of_several_datasets_keeps_the_promises(scenario: str, budget: str) -> None:
    """In some order of commands and faults a batch mixes up its datasets, or one fails another."""
    outcome = batching.explore(batching.SCENARIOS[scenario], batching.BUDGETS[budget])
    check_pinned("states_batching.json", scenario, budget, outcome)


@pytest.mark.parametrize(
    "history",
    {
        **{name: each.history for name, each in MAINTENANCE.items() if pruner in each.clients},
        **{name: each.history for name, each in scriptless.SCENARIOS.items() if pruner in each.writers},
    }.items(),
    ids=lambda each: each[0],
)
def test_a_pruner_has_something_to_unlink(history: tuple[str, int]) -> None:
    """A search beside a pruner finds nothing, because the history is too short to lose a page."""
    counts: list[int] = []
    with pages_of_two():
        explorer = Explorer(
            [pruner],
            start=with_history(history[1]),
            faults=Faults(),
            judge=lambda keyspace, *_: counts.append(len(contents_of(keyspace).rows)),
            lost_reads=False,
        )
        explorer.run()
    assert counts[0] == history[1]
    assert min(counts) < history[1]


@pytest.mark.parametrize(
    ("way", "scenario", "budget"),
    [
        search("states_scriptless.json", f"{way.name.lower()}: {name}", way, name, budget)
        for way, name, budget in scriptless.SEARCHES
    ],
)
def test_every_state_without_scripts_keeps_the_promises(way: Way, scenario: str, budget: str) -> None:
    """In some order of plain commands and faults more breaks than the page about it says."""
    outcome = scriptless.explore(way, scriptless.SCENARIOS[scenario], budget)
    check_pinned("states_scriptless.json", f"{way.name.lower()}: {scenario}", budget, outcome)


@pytest.mark.parametrize(
    ("way", "scenario", "budget"),
    [
        search(
            "states_scriptless_groups.json",
            scriptless_groups.named(way, name),
            way,
            name,
            budget,
            quick=(5000, 5000),
        )
        for way, name, budget in scriptless_groups.SEARCHES
    ],
)
def test_every_state_of_groups_without_scripts_keeps_the_promises(
    way: Way, scenario: str, budget: str
) -> None:
    """In some order of commands and faults a group is committed with a member of another, or without one."""
    outcome = scriptless.explore(way, scriptless_groups.SCENARIOS[scenario], budget)
    check_pinned("states_scriptless_groups.json", scriptless_groups.named(way, scenario), budget, outcome)


@pytest.mark.parametrize(
    ("way", "scenario", "budget"),
    [
        search("states_deltas.json", deltas.named(way, name), way, name, budget, quick=QUICK_WITH_ZSTD)
        for way, name, budget in deltas.SEARCHES
    ],
)
def test_every_state_of_commits_with_bases_keeps_the_promises(
    way: Way | None, scenario: str, budget: str
) -> None:
    """In some order of commands and faults a base is unlinked that a snapshot needs, or never."""
    outcome = deltas.explore(way, deltas.SCENARIOS[scenario], budget)
    check_pinned("states_deltas.json", deltas.named(way, scenario), budget, outcome)


def test_only_a_lease_that_runs_out_early_takes_a_publish_back() -> None:
    """The page about leases names a window that does not exist, or omits one that does."""
    breaking = {
        (search.split(":")[0], budget)
        for search, budgets in pinned_in("states_scriptless.json").items()
        for budget, found in budgets.items()
        if {scriptless.LOST, scriptless.SPOILED} & set(found["ends"])
    }
    assert breaking == {("lease", "one key expires")}


@pytest.mark.parametrize(
    "budget",
    ["none", "one crash", "one lost reply", pytest.param("one late command", marks=pytest.mark.nightly)],
)
def test_producers_of_different_ids_all_succeed(budget: str) -> None:
    """A producer that is not killed ends without a commit of its own."""
    for scenario in (
        "two producers, different ids",
        "two producers that seal a page",
        "three producers, different ids",
    ):
        outcome = explore(SCENARIOS[scenario], BUDGETS[budget])
        assert {end for clients in outcome.ends for end in clients} <= {"created=True", "dead"}


@pytest.mark.parametrize(
    ("scenario", "budget"),
    [search("states_durable.json", name, name, budget) for name in durable.SCENARIOS for budget in BUDGETS],
)
def test_every_state_of_publishes_that_wait_keeps_the_promises(scenario: str, budget: str) -> None:
    """In some order of commands and faults a publish is acknowledged that was not waited for."""
    outcome = durable.explore(durable.SCENARIOS[scenario], BUDGETS[budget])
    check_pinned("states_durable.json", scenario, budget, outcome)


@pytest.mark.parametrize(
    ("scenario", "budget"),
    [
        search("states_recompressing.json", name, name, budget, quick=QUICK_WITH_ZSTD)
        for name, each in recompressing.SCENARIOS.items()
        for budget in each.budgets
    ],
)
def test_every_state_of_history_that_is_stored_anew_keeps_the_promises(scenario: str, budget: str) -> None:
    """In some order of commands and faults a snapshot cannot be read, or a base is unlinked too early."""
    outcome = recompressing.explore(recompressing.SCENARIOS[scenario], recompressing.BUDGETS[budget])
    check_pinned("states_recompressing.json", scenario, budget, outcome)


@pytest.mark.parametrize(
    ("scenario", "budget"),
    [
        search("states_erasing.json", name, name, budget, quick=QUICK_WITH_ZSTD)
        for name, each in erasing.SCENARIOS.items()
        for budget in each.budgets
    ],
)
def test_every_state_of_erase_and_drop_keeps_the_promises(scenario: str, budget: str) -> None:
    """In some order of commands and faults what was erased is still there, or something else is lost."""
    outcome = erasing.explore(erasing.SCENARIOS[scenario], erasing.BUDGETS[budget])
    check_pinned("states_erasing.json", scenario, budget, outcome)


def test_one_id_is_created_once() -> None:
    """Two producers with the same id and content are both told that they created it, or neither."""
    for budget in ("none", "one lost reply", "one late command", "one key expires"):
        outcome = explore(SCENARIOS["two producers, the same id and content"], BUDGETS[budget])
        assert {tuple(sorted(clients)) for clients in outcome.ends} == {("created=False", "created=True")}


def test_the_same_search_twice_is_the_same() -> None:
    """The search depends on more than its input, so a failure cannot be repeated."""
    scenario, faults = SCENARIOS["two producers and a reader"], BUDGETS["one lost reply"]
    assert explore(scenario, faults) == explore(scenario, faults)


@pytest.mark.parametrize(
    ("scenario", "budget"),
    [
        search("states_viewing.json", name, name, budget)
        for name in viewing.SCENARIOS
        for budget in viewing.BUDGETS
    ],
)
def test_every_state_of_a_view_keeps_the_promises(scenario: str, budget: str) -> None:
    """In some order of commands and faults a view shows what is not committed, or goes back."""
    outcome = viewing.explore(viewing.SCENARIOS[scenario], viewing.BUDGETS[budget])
    check_pinned("states_viewing.json", scenario, budget, outcome)
