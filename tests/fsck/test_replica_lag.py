"""Verify and repair on a replica that lags for a moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from swapstore.commands import Get
from tests.fsck.conftest import DEEP, StoredDataset
from tests.fsck.simulated import grown
from tests.support.drivers import meddled


@pytest.mark.every_store
def test_a_page_that_a_replica_shows_late_is_not_missing(published: Callable[[int], StoredDataset]) -> None:
    """One late page is called lost, and repair rewrites its snapshots."""
    original = published(DEEP)
    client, meddler = meddled(original.store)
    execute, late = meddler.execute, [original.page()]

    def lagging(commands: Any) -> list[Any]:
        replies = execute(commands)
        for index, command in enumerate(commands):
            if isinstance(command, Get) and command.key in late:
                late.remove(command.key)
                replies[index] = None
        return replies

    meddler.execute = lagging  # type: ignore[method-assign]
    assert [finding for finding in client.verify("mena") if finding.wrong] == []
    assert late == []


@pytest.mark.usefixtures("tiny_pages")
def test_a_record_that_a_replica_shows_late_is_not_dropped() -> None:
    """A replica that lags makes a repair remove snapshots permanently."""
    original = grown(5)
    seen = meddled(original.store)
    list(seen[0].verify("mena"))
    for number in range(len(seen[1].batches)):
        client, meddler = meddled(original.store)

        def late(replies: list[Any], meddler: Any = meddler) -> list[Any]:
            asked = zip(meddler.batches[-1], replies, strict=True)
            return [None if isinstance(each, Get) and ":id:" in each.key else reply for each, reply in asked]

        meddler.replies(number, late)
        assert [finding for finding in client.verify("mena") if finding.wrong] == []
