"""Unlinked records leave the disk, and a commit never unlinks what it stages."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from swapstore import Retention, Store
from swapstore.commands import Swap
from swapstore.drivers.sqlite.driver import EXPIRED_REMOVED, SqliteDriver
from swapstore.testing import SimulatedStore
from tests.retention.model import expiring, fill, permanent
from tests.support import invariants
from tests.support.drivers import meddled, sqlite_connection

pytestmark = pytest.mark.usefixtures("small_pages")


def test_sqlite_removes_what_expired_a_few_rows_at_a_time(tmp_path: Path) -> None:
    """The file grows without end, or one publish waits for the removal of thousands of rows."""
    clock = SimulatedStore().clock
    driver = SqliteDriver(tmp_path / "store.db", now_ms=clock.now_ms)
    context = msgspec.structs.replace(SimulatedStore().connect()._context, clock=clock)
    with Store(driver, context) as store:
        fill(store, 60)
        store.prune("mena", retention=Retention(max_count=1))
        assert on_disk(driver) == 1 + 2 * 60 + len(permanent(store, "page")) + sum(
            ":page:" in key for key in expiring(store)
        )
        clock.advance(context.policy.reader_grace_ms + 1)
        before, counts = on_disk(driver), []
        for number in range(20):
            store.publish("mena", number, id=f"more-{number}")
            counts.append(on_disk(driver))
        removed = [one - two for one, two in zip([before, *counts], counts, strict=False)]
        assert max(removed) <= EXPIRED_REMOVED
        assert min(removed[:5]) >= EXPIRED_REMOVED - 4
        assert counts[-1] == len(invariants.contents(store)), "all that expired is off the disk"


def on_disk(driver: SqliteDriver) -> int:
    with sqlite_connection(driver) as connection:
        count: int = connection.execute("SELECT count(*) FROM records").fetchone()[0]
        return count


def test_a_commit_never_unlinks_what_it_stages() -> None:
    """A record that a commit makes permanent expires through the same commit."""
    sim = SimulatedStore()
    client, meddler = meddled(sim.connect(), retention=Retention(max_count=5))
    for number in range(200):
        sim.clock.advance(1)
        client.publish("mena", number, id=f"id-{number % 41}", ts=None)
    commits = [command for batch in meddler.batches for command in batch if isinstance(command, Swap)]
    assert len([commit for commit in commits if commit.unlinked]) > 50
    for commit in commits:
        assert not {staged.key for staged in commit.staged} & set(commit.unlinked)
        assert len(commit.unlinked) == len(set(commit.unlinked))
