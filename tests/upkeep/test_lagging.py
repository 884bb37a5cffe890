"""Verify on a replica that lags for a moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from swapstore.commands import Get
from tests.support.drivers import meddled
from tests.upkeep.conftest import DEEP, Patient


@pytest.mark.every_store
def test_a_page_that_a_replica_shows_late_is_not_missing(patient: Callable[[int], Patient]) -> None:
    """One late page would be called lost, with its 32 snapshots, and repair would rewrite it."""
    well = patient(DEEP)
    client, meddler = meddled(well.store)
    execute, late = meddler.execute, [well.page()]

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
