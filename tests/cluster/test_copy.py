"""Copies to a cluster and from it, with reads from its replicas."""

from __future__ import annotations

from pathlib import Path

import pytest

import swapstore
from tests.copying.histories import assert_same
from tests.support.cluster import Cluster
from tests.support.times import at

pytestmark = [pytest.mark.server, pytest.mark.slow]


def test_round_trip_over_several_nodes(cluster: Cluster, tmp_path: Path) -> None:
    """A backup of a cluster lacks the datasets of a node; or a replica that lags makes it incomplete."""
    names = [name for node in cluster.primaries for name in cluster.names(1, of=node)]
    with (
        swapstore.connect(f"sqlite:///{tmp_path}/a.db") as first,
        swapstore.connect(cluster.url, compression="delta") as second,
        swapstore.connect(cluster.url, read_from="replica") as reading,
        swapstore.connect(f"sqlite:///{tmp_path}/b.db") as last,
    ):
        for name in names:
            for number in range(20):
                first.publish(name, [name, number, "x" * 200], id=f"id-{number}", ts=at(number))
            first.publish_group(name, {"EG": 1, "SG": name}, id="group", ts=at(50))
        for source, target in ((first, second), (reading, last)):
            assert all(done.copied == 21 for done in swapstore.copy(source, target))
        for name in names:
            assert_same(first, second, name)
            assert_same(first, last, name)
        assert not list(second.verify())
