"""A thousand datasets on a cluster, one by one and at once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest

from tests.benchmarks.load import ON_A_CLUSTER, Load, Size
from tests.support import invariants
from tests.support.cluster import Cluster

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.mark.parametrize("begin", ON_A_CLUSTER, ids=["one by one", "at once"])
def test_a_thousand_datasets(
    cluster: Cluster, begin: Callable[[Cluster, str, Size], AbstractContextManager[Load]]
) -> None:
    """A pipeline of thousands of commands for each node mixes up replies, or loses some of the datasets."""
    with begin(cluster, "swapstore", Size()) as load:
        way = load.ways[1]
        way.act()
        way.act()  # once more, with everything known
        known = load.acknowledged.versions
        with load.connect() as store:
            assert len(store.datasets()) == load.publishes
            rows = invariants.check_all(store, known)
    stored = {dataset: {row.id: row.version for row in each} for dataset, each in rows.items()}
    assert stored == known
    assert {len(each) for each in known.values()} == {2}
