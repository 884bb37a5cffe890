"""A few rounds of chaos on each topology. `make chaos` has many, with other seeds."""

from __future__ import annotations

import pytest

from tests.chaos.rounds import TOPOLOGIES, Run

pytestmark = [pytest.mark.nightly, pytest.mark.server]


@pytest.mark.parametrize("topology", sorted(TOPOLOGIES))
def test_nothing_acknowledged_is_lost(topology: str) -> None:
    """With a durability of all replicas, a commit that was acknowledged is lost, or something is wrong."""
    run = Run(topology, "all", seed=1)
    run.play(2, 3)
    assert run.total.verdict.wrong(is_durable=True) == {}
    assert run.total.unexpected == []
    assert run.total.verdict.acknowledged > 0


def test_without_a_durability_it_can_be_lost() -> None:
    """The rounds lose nothing in any case, and prove nothing."""
    run = Run("pair", "none", seed=1)
    run.play(1, 3, only="promote one behind")
    assert run.total.verdict.wrong(is_durable=False) == {}
    assert run.total.verdict.lost
