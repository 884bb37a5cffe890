"""Many tasks, threads and processes on one server: each acknowledged publish is there, once."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from tests.benchmarks.load import ON_ONE_SERVER, Load, Size, processes
from tests.support import invariants
from tests.support.valkey import Server

pytestmark = [pytest.mark.server, pytest.mark.slow]
SIZE = Size(each=3)
IDS = ("tasks", "tasks, one dataset", "threads", "threads, one dataset", "processes, one dataset")
LOADS = [
    # test_processes.py has processes each day.
    pytest.param(begin, id=name, marks=[pytest.mark.nightly] if begin is processes else [])
    for begin, name in zip(ON_ONE_SERVER, IDS, strict=True)
]


@pytest.mark.parametrize("begin", LOADS)
def test_nothing_is_lost_under_load(
    valkey: Server, begin: Callable[[str, str, Size], AbstractContextManager[Load]]
) -> None:
    """Many publish at once on one store: a commit overwrites another, or is reported to the wrong caller."""
    with begin(valkey.url, "swapstore", SIZE) as load:
        way = load.ways[1]
        way.clock(way.act)
        check(load)


def check(load: Load) -> None:
    known: dict[str, Any] = load.acknowledged.versions
    assert sum(map(len, known.values())) == load.publishes, "an id, or a version, was acknowledged twice"
    with load.connect() as store:
        rows = invariants.check_all(store, known)
    stored = {dataset: {row.id: row.version for row in each} for dataset, each in rows.items()}
    assert stored == known
