"""One cluster for the tests of this folder: three primaries, each with a replica.

Tests may change who serves what, and leave it so, as long as every slot is served in the end.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.cluster import Cluster
from tests.support.deployment import kinds


@pytest.fixture(scope="session")
def _running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("cluster")
    with Cluster(directory, kinds()["valkey"], primaries=3, replicas=3, timeout_ms=1500) as running:
        yield running


@pytest.fixture
def cluster(_running: Cluster) -> Cluster:
    """An empty cluster."""
    _running.flush()
    return _running
