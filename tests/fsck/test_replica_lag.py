"""Verify and repair on a replica that lags for a moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from swapstore.commands import Command, Get, GetAll
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


def _without_ids(command: Command[Any], reply: Any) -> Any:
    """The reply of a replica that has no id record yet."""
    if isinstance(command, GetAll):
        return [None if ":id:" in key else each for key, each in zip(command.keys, reply, strict=True)]
    return None if isinstance(command, Get) and ":id:" in command.key else reply


@pytest.mark.usefixtures("tiny_pages")
@pytest.mark.parametrize("many", [True, False], ids=["many at once", "one by one"])
def test_a_record_that_a_replica_shows_late_is_not_dropped(*, many: bool) -> None:
    """A replica that lags makes a repair remove snapshots permanently."""
    original = grown(5)
    seen = meddled(original.store)
    seen[0]._context.capabilities.reads_many = many
    list(seen[0].verify("mena"))
    for number in range(len(seen[1].batches)):
        client, meddler = meddled(original.store)
        client._context.capabilities.reads_many = many

        def late(replies: list[Any], meddler: Any = meddler) -> list[Any]:
            asked = zip(meddler.batches[-1], replies, strict=True)
            return [_without_ids(each, reply) for each, reply in asked]

        meddler.replies(number, late)
        if many:  # the replica has not caught up when what is missing is asked for alone
            meddler.replies(number + 1, late)
        assert [finding for finding in client.verify("mena") if finding.wrong] == []
