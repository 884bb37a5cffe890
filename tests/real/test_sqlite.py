"""What only a SQLite file does: be locked, read-only, of another application, or on a full disk."""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

import swapstore
from swapstore import Store, Timeout
from swapstore.cache import Cache
from swapstore.commands import ABSENT, Committed, Get, Stage, Staged, Ttl
from swapstore.drivers.sqlite import reserve
from swapstore.drivers.sqlite.driver import SqliteDriver
from swapstore.errors import AccessDenied, Corrupt, Misconfigured, StoreFull, Unavailable, UnsupportedFormat
from swapstore.format.keys import Keys
from swapstore.protocol.context import Context
from tests.support import invariants
from tests.support.batches import commit
from tests.support.drivers import sqlite_connection


def open_store(path: Path, timeout_s: float = 10.0) -> Store:
    return Store(
        SqliteDriver(path, timeout_s=timeout_s), Context(keys=Keys("swapstore"), cache=Cache(1 << 20))
    )


def test_a_locked_file_waits_and_then_is_unavailable(tmp_path: Path) -> None:
    """A writer waits longer than its time-out for another transaction, or a reader waits at all."""
    path = tmp_path / "s.db"
    with swapstore.connect(f"sqlite:///{path}", timeout=Timeout(reply=0.2)) as store:
        store.publish("mena", 1)
        blocker = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        blocker.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="dataset 'mena': .*busy"):
            store.publish("mena", 2)
        snap = store.read_latest("mena")
        assert snap is not None
        assert snap.value == 1
        patient = open_store(path)
        release = threading.Timer(0.3, lambda: blocker.execute("ROLLBACK"))
        release.start()
        assert patient.publish("mena", 3).version == 2
        release.join()
        blocker.close()
        patient.close()


def test_how_long_a_lock_is_waited_for(tmp_path: Path) -> None:
    """A time-out that a user gave, or the one that is documented, is not the one of the file."""
    for timeout, ms in ((None, 10_000), (Timeout(reply=60), 60_000)):
        with swapstore.connect(f"sqlite:///{tmp_path}/s.db", timeout=timeout) as store:
            store.publish("mena", ms)
            with sqlite_connection(store._driver) as connection:
                assert connection.execute("PRAGMA busy_timeout").fetchone() == (ms,)


def test_a_new_file_that_is_locked_is_unavailable(tmp_path: Path) -> None:
    """A process that is stuck in a transaction on an empty file lets every publish hang for ever."""
    path = tmp_path / "s.db"
    stuck = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    stuck.execute("BEGIN IMMEDIATE")
    end = threading.Timer(30, lambda: stuck.execute("ROLLBACK"))
    end.start()
    with open_store(path, timeout_s=0.2) as store:
        with pytest.raises(Unavailable, match="busy"):
            store.publish("mena", 1)
        end.cancel()
        stuck.close()
        assert store.publish("mena", 1).version == 1


def test_a_file_that_is_made_by_another_during_a_look_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes open a new file, and one takes the tables of the other for a stranger's."""
    path, connect = tmp_path / "s.db", sqlite3.connect
    pending = [path]

    class Overtaken(sqlite3.Connection):
        def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
            if "sqlite_master" in statement and pending:
                with open_store(pending.pop(), timeout_s=0.1) as other, suppress(Unavailable):
                    other.publish("mena", "other")
            return super().execute(statement, *arguments)

    monkeypatch.setattr(sqlite3, "connect", partial(connect, factory=Overtaken))
    with open_store(path) as store:
        store.publish("mena", 1)
        assert not pending
        found = store.read_latest("mena")
        assert found is not None
        assert found.value == 1


def test_acknowledged_means_on_disk(tmp_path: Path) -> None:
    """A commit is acknowledged before it is synced: not in WAL mode with synchronous=FULL."""
    path = tmp_path / "s.db"
    with open_store(path) as store:
        store.publish("mena", 1)
        driver: Any = store._driver
        with sqlite_connection(driver) as connection:
            assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
            assert connection.execute("PRAGMA quick_check").fetchone() == ("ok",)


def test_a_full_disk_is_store_full(tmp_path: Path) -> None:
    """A file that cannot grow damages the previous version, or fails later publishes."""
    path = tmp_path / "s.db"
    with open_store(path) as store:
        store.publish("mena", 1)
        driver: Any = store._driver
        with sqlite_connection(driver) as connection:
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(StoreFull, match="dataset 'mena': .*full"):
            store.publish("mena", b"x" * 500_000, codec="bytes")
        snap = store.read_latest("mena")
        assert snap is not None
        assert snap.value == 1
    with open_store(path) as store:
        assert store.publish("mena", b"x" * 500_000, codec="bytes").version == 2
        invariants.check(store)


def test_files_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    """Another application's database, a text file or a newer schema is changed, or not named."""
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = foreign.read_bytes()
    with open_store(foreign) as store, pytest.raises(Corrupt, match="another application"):
        store.publish("mena", 1)
    assert foreign.read_bytes() == before
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to look at " * 50)
    with open_store(text) as store, pytest.raises(Corrupt, match="not a usable SQLite file"):
        store.read_latest("mena")
    newer = tmp_path / "newer.db"
    with open_store(newer) as store:
        store.publish("mena", 1)
    with sqlite3.connect(newer) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with open_store(newer) as store, pytest.raises(UnsupportedFormat, match="upgrade swapstore"):
        store.read_latest("mena")


def test_paths_that_cannot_be_opened(tmp_path: Path) -> None:
    """A missing directory, or a directory in place of the file, looks like an empty store."""
    for path in (tmp_path / "missing" / "s.db", tmp_path):
        with open_store(path) as store, pytest.raises(Misconfigured, match="cannot be opened"):
            store.read_latest("mena")


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000 + "s.db"])
def test_a_path_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    """A name that is too long raises an error of the system, `doctor` too."""
    with swapstore.connect(f"sqlite:///{tmp_path}/{name}") as store:
        for refused in (lambda: store.read_latest("mena"), lambda: store.publish("mena", 1)):
            with pytest.raises(Misconfigured, match="too long"):
                refused()
        assert any(check.verdict == "problem" and "too long" in check.found for check in store.doctor())


def test_a_program_that_changes_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that is relative to where a program began leads to another store after `chdir`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    with swapstore.connect("sqlite:///s.db") as store:
        store.publish("mena", 1)
        monkeypatch.chdir(tmp_path / "elsewhere")
        assert store.publish("mena", 2).version == 2
        assert not list((tmp_path / "elsewhere").iterdir())


def test_a_read_only_file_serves_readers_and_refuses_producers(tmp_path: Path) -> None:
    """A read-only file does not serve readers, or the error does not say what to check."""
    path = tmp_path / "s.db"
    with open_store(path) as store:
        store.publish("mena", 1)
        driver: Any = store._driver
        with sqlite_connection(driver) as connection:
            connection.execute("PRAGMA query_only = ON")
        with pytest.raises(AccessDenied, match="permissions"):
            store.publish("mena", 2)
        snap = store.read_latest("mena")
        assert snap is not None
        assert snap.value == 1


def test_a_file_that_was_deleted_or_replaced_is_opened_anew(tmp_path: Path) -> None:
    """A long-running producer acknowledges into a deleted file that no other process can see."""
    path = tmp_path / "s.db"
    with open_store(path) as store:
        store.publish("mena", 1)
        for file in tmp_path.glob("s.db*"):
            file.unlink()
        assert store.publish("mena", 2).version == 1
        with open_store(path) as other:
            snap = other.read_latest("mena")
            assert snap is not None
            assert snap.value == 2


def test_a_hand_edit_cannot_turn_bytes_into_text(tmp_path: Path) -> None:
    """A manual edit of the table turns a payload into text."""
    path = tmp_path / "s.db"
    with open_store(path) as store:
        store.publish("mena", 1)
        driver: Any = store._driver
        with (
            sqlite_connection(driver) as connection,
            pytest.raises(sqlite3.IntegrityError, match="constraint"),
        ):
            connection.execute("UPDATE records SET value = CAST(value AS TEXT)")


def _read_in_child(store: Store, results: Any) -> None:
    store.read_latest("mena")
    results.put("read")
    results.close()
    results.join_thread()


@pytest.mark.every_store
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_in_the_middle_of_other_threads_work_does_not_hang(real_url: str) -> None:
    """A child that was forked while threads read waits forever for a lock."""
    context = multiprocessing.get_context("fork")
    stop = threading.Event()
    with swapstore.connect(real_url) as store:
        store.publish("mena", 1)

        def busy() -> None:
            while not stop.is_set():
                store.read_latest("mena")

        threads = [threading.Thread(target=busy) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(8):
                results = context.Queue()
                child = context.Process(target=_read_in_child, args=(store, results), daemon=True)
                child.start()
                child.join(20)
                assert child.exitcode == 0, "the child hung or failed"
                assert results.get(timeout=5) == "read"
        finally:
            stop.set()
            for thread in threads:
                thread.join()


def test_expired_rows_are_removed_a_few_at_a_time(tmp_path: Path) -> None:
    """Leftovers of crashed publishes fill the disk, or one write removes all of them."""
    now = [1_000_000]
    driver = SqliteDriver(tmp_path / "s.db", now_ms=lambda: now[0])
    driver.execute([Stage(f"k{number}", b"x\n", 1000) for number in range(100)])
    now[0] += 5000
    assert driver.execute([Get("k0")]) == [None]
    counts = []
    for number in range(8):
        driver.execute([Stage(f"new{number}", b"x\n", 10**9)])
        with sqlite_connection(driver) as connection:
            counts.append(
                connection.execute("SELECT count(*) FROM records WHERE key LIKE 'k%'").fetchone()[0]
            )
    assert counts == [84, 68, 52, 36, 20, 4, 0, 0]
    driver.close()


def test_threads_share_a_store(tmp_path: Path) -> None:
    """A store used by eight threads loses a publish or mixes up replies."""
    with open_store(tmp_path / "s.db") as store:

        def work(name: int) -> None:
            for number in range(10):
                store.publish("mena", [name, number], id=f"{name}-{number}")
                snap = store.read_latest("mena")
                assert snap is not None
                assert snap.id == "-".join(map(str, snap.value))

        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(invariants.check(store)) == 80


def test_a_store_that_is_closed_during_a_call_leaves_no_file_open(tmp_path: Path) -> None:
    """The connection of that call is kept for a next one, which never comes, and with it the log."""
    path = tmp_path / "s.db"

    def now_ms() -> int:
        driver.close()
        return 0

    driver = SqliteDriver(path, now_ms=now_ms)
    assert driver.execute([Stage("key", b"x\n", 1000)]) == [True]
    assert [file.name for file in tmp_path.iterdir()] == ["s.db"]


def test_a_batch_that_is_interrupted_leaves_no_file_open(tmp_path: Path) -> None:
    """After Ctrl-C the file stays open, with its log, for as long as the traceback is kept."""

    def now_ms() -> int:
        raise KeyboardInterrupt

    driver = SqliteDriver(tmp_path / "s.db", now_ms=now_ms)
    with pytest.raises(KeyboardInterrupt) as caught:
        driver.execute([Stage("key", b"x\n", 1000)])
    assert caught.tb is not None
    assert [file.name for file in tmp_path.iterdir()] == ["s.db"]


def test_what_a_full_disk_needs_ends_with_the_swap(tmp_path: Path) -> None:
    """After a swap on a full disk, deleted payloads stay in a file whose owner has them overwritten."""
    driver = SqliteDriver(tmp_path / "s.db")
    with sqlite_connection(driver, writes=True) as connection:
        connection.execute("PRAGMA secure_delete = ON")
    swap = msgspec.structs.replace(commit(b"", b"1;"), even_if_full=True, grace_ms=0)
    assert driver.execute([swap]) == [Committed()]
    with sqlite_connection(driver) as connection:
        assert connection.execute("PRAGMA secure_delete").fetchone() == (1,)
    driver.close()


@pytest.mark.parametrize("publishes", [True, False])
def test_the_reserve_is_for_what_only_lets_go(tmp_path: Path, publishes: bool) -> None:  # noqa: FBT001
    """Publishes use up the reserve of a full disk, and nothing can be pruned any more."""
    driver, kept = SqliteDriver(tmp_path / "s.db"), tmp_path / "s.db-reserve"
    staged = (Staged("record", b"{}\n"),) if publishes else ()
    swap = msgspec.structs.replace(
        commit(b"", b"1;", *staged), even_if_full=True, grace_ms=0, manifest=b"1;" * 50_000
    )
    batch: list[Any] = [*(Stage(each.key, each.header, 1000) for each in staged), swap]
    with sqlite_connection(driver, writes=True) as connection:  # it is closed when the batch has failed
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
    kept.touch()
    if publishes:
        with pytest.raises(StoreFull):
            driver.execute(batch)
    else:
        assert driver.execute(batch) == [Committed()]
    assert kept.exists() == publishes
    driver.close()


@pytest.mark.parametrize("is_short", [True, False])
def test_what_is_unlinked_goes_at_once_where_room_is_short(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_short: bool,  # noqa: FBT001
) -> None:
    """The last room of a disk is filled with old records, written anew to give them a TTL."""
    driver = SqliteDriver(tmp_path / "s.db")
    monkeypatch.setattr(reserve, "is_short", lambda _: is_short)
    swap = msgspec.structs.replace(commit(b"", b"1;"), unlinked=("old",), grace_ms=600_000)
    assert driver.execute([Stage("old", b"{}\n", 1000), swap]) == [True, Committed()]
    (ttl,) = driver.execute([Ttl("old")])
    assert (ttl == ABSENT) if is_short else (ttl > 500_000)
    driver.close()


def _child(store: Store, results: Any) -> None:
    results.put(store.publish("mena", "child").version)
    results.close()
    results.join_thread()


@pytest.mark.every_store
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_store_survives_a_fork(real_url: str) -> None:
    """A web server that forks its workers after connecting breaks parent or child."""
    context = multiprocessing.get_context("fork")
    with swapstore.connect(real_url) as store:
        store.publish("mena", "parent")
        results = context.Queue()
        child = context.Process(target=_child, args=(store, results), daemon=True)
        child.start()
        assert results.get(timeout=20) == 2
        child.join(20)
        assert child.exitcode == 0
        assert store.publish("mena", "parent again").version == 3
        assert len(invariants.check(store)) == 3


def test_processes_can_open_a_new_file_at_once(tmp_path: Path) -> None:
    """Eight processes open a new file at the same time, and one of them fails."""
    url = f"sqlite:///{tmp_path}/new.db"
    context = multiprocessing.get_context("spawn")
    with context.Pool(8) as pool:
        versions = pool.map(_publish_one, [url] * 8)
    assert sorted(versions) == list(range(1, 9))


def _publish_one(url: str) -> int:
    with swapstore.connect(url) as store:
        return store.publish("mena", os.getpid()).version


def test_a_file_of_a_development_version_is_named(tmp_path: Path) -> None:
    """Every command ends with a traceback, `doctor` too, and nobody knows what to do with the file."""
    path = tmp_path / "s.db"
    with open_store(path) as store:
        store.publish("mena", 1)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE lineage")
    connection.close()
    with open_store(path) as store:
        with pytest.raises(UnsupportedFormat, match=r"before 0\.1\.0 made it"):
            store.read_latest("mena")
        assert store.doctor()
