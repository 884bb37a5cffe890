"""Groups on a cluster: all of a group is in one slot, whatever its members are called."""

from __future__ import annotations

import pytest

import swapstore
from tests.support.cluster import Cluster

pytestmark = [pytest.mark.server, pytest.mark.slow]


@pytest.mark.parametrize("compression", ["none", "delta"])
def test_groups_are_published_read_and_unlinked(cluster: Cluster, compression: str) -> None:
    """A member has its key in another slot than its group, so that no commit can be atomic."""
    keep = swapstore.Retention(max_count=2)
    with swapstore.connect(cluster.url, compression=compression, retention=keep) as store:  # type: ignore[arg-type]
        for number in range(45):
            values = {
                f"member-{each}": {"n": number // (1 + each), "text": "same " * 80} for each in range(20)
            }
            assert store.publish_group("mena", values, id=f"run-{number}").version == number + 1
        with swapstore.connect(cluster.url) as other:
            group = other.read_group("mena")
            assert group is not None
            assert {name: member.value for name, member in group.members.items()} == values
            assert [each for each in other.verify() if each.wrong] == []
