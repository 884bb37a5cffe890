"""A process that uses a SQLite store forks: SQLite keeps locks and lists that no child may inherit."""

from __future__ import annotations

import gc
import multiprocessing
import sqlite3
import threading
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import swapstore
from swapstore import Store
from swapstore.commands import Get
from swapstore.drivers.sqlite.driver import SqliteDriver
from swapstore.errors import Misconfigured
from tests.support import invariants
from tests.support.drivers import sqlite_connection

FORKING = multiprocessing.get_context("fork")
BOUND_S = 20

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def _publish_between(store: Store, parent: Any, children: int) -> None:
    """In a child: publish before and after the parent has closed its connections; then in its children."""
    store.publish("mena", "before")
    parent.send("published")
    assert parent.poll(BOUND_S)
    parent.recv()
    for _ in range(2):
        store.publish("mena", "after")
    if children:
        child = FORKING.Process(target=_publish_between, args=(store, parent, children - 1))
        child.start()
        child.join(BOUND_S)
        store.publish("mena", "after its child")
    else:
        parent.send("done")


def test_a_child_goes_on_when_its_parent_has_closed_the_file(tmp_path: Path) -> None:
    """The parent deletes the log that its child writes, and what the child publishes is lost."""
    path = tmp_path / "s.db"
    ours, theirs = FORKING.Pipe()
    store = swapstore.connect(f"sqlite:///{path}")
    store.publish("mena", "parent")
    child = FORKING.Process(target=_publish_between, args=(store, theirs, 1), daemon=False)
    child.start()
    for _ in range(2):
        assert ours.poll(BOUND_S)
        assert ours.recv() == "published"
        store.close()
        with swapstore.connect(f"sqlite:///{path}") as other:
            other.publish("mena", "other")
            log = path.with_name("s.db-wal").stat().st_ino
        assert path.with_name("s.db-wal").stat().st_ino == log, "the log that another process has open"
        ours.send("closed")
    assert ours.poll(BOUND_S)
    assert ours.recv() == "done"
    child.join(BOUND_S)
    assert child.exitcode == 0
    with swapstore.connect(f"sqlite:///{path}") as store:
        assert len(invariants.check(store)) == 1 + 2 + 3 + 3 + 1
        assert not list(store.verify())


def _ask(driver: SqliteDriver, parent: Any) -> None:
    """In a child: say what becomes of a batch."""
    try:
        parent.send(driver.execute([Get("key")]))
    except Misconfigured as error:
        parent.send(str(error))


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_fork_waits_for_the_batches_of_other_threads(tmp_path: Path, goes_on: bool) -> None:  # noqa: FBT001
    """A child inherits a connection in the middle of a batch, takes no locks, and uses the file."""
    entered, leave = threading.Event(), threading.Event()

    def now_ms() -> int:
        if threading.current_thread() is thread:
            entered.set()
            leave.wait(BOUND_S)
        return 0

    driver = SqliteDriver(tmp_path / "s.db", now_ms=now_ms, timeout_s=BOUND_S if goes_on else 0.1)
    thread = threading.Thread(target=driver.execute, args=([Get("key")],))
    driver.execute([Get("key")])
    thread.start()
    assert entered.wait(BOUND_S)
    if goes_on:
        threading.Timer(0.2, leave.set).start()
    ours, theirs = FORKING.Pipe()
    child = FORKING.Process(target=_ask, args=(driver, theirs), daemon=True)
    child.start()
    assert leave.is_set() == goes_on
    assert ours.poll(BOUND_S)
    told = ours.recv()
    assert told == [None] if goes_on else "was in use during the fork" in told
    leave.set()
    thread.join()
    child.join(BOUND_S)
    assert driver.execute([Get("key")]) == [None], "the parent goes on"
    driver.close()


class _Connection(sqlite3.Connection):
    """A connection that weak references can refer to."""


def test_a_child_that_was_forked_in_c_has_connections_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that Python hears of only afterwards uses its parent's connections, or closes them."""
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=_Connection))
    driver = SqliteDriver(tmp_path / "s.db")
    with sqlite_connection(driver, writes=True) as connection:
        inherited = weakref.ref(connection)
    del connection
    driver.after_fork()
    with sqlite_connection(driver, writes=True) as own:
        assert own is not inherited()
    driver.close()
    gc.collect()
    kept = inherited()
    assert kept is not None, "collected, and so closed"
    assert kept.execute("SELECT 1").fetchone() == (1,), "closed"
    kept.close()
