"""Backup and restore of a SQLite store, beside processes that read and write it."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import fakeredis
import pytest

import swapstore
from swapstore import Store
from swapstore.drivers.sqlite import backup
from swapstore.drivers.sqlite.driver import SqliteDriver
from swapstore.errors import Corrupt, InvalidInput, ReplyLost, StoreFull, SwapstoreError, Unavailable
from tests.support import invariants
from tests.support.drivers import sqlite_connection


def opened(path: Path) -> Store:
    return swapstore.connect(f"sqlite:///{path}")


def latest(path: Path) -> Any:
    with opened(path) as store:
        found = store.read_latest("mena")
        return None if found is None else found.value


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with three versions in its log."""
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "s.db"


def test_a_backup_is_a_store(path: Path, tmp_path: Path) -> None:
    """A backup lacks what is in the log, or cannot be opened by itself, or carries a log of its own."""
    copy = tmp_path / "copy.db"
    with opened(path) as store:
        for number in range(3):
            store.publish("mena", number)
        size = store.backup(copy)
        store.publish("mena", "later")
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["copy.db"]
    assert copy.stat().st_size == size
    assert copy.stat().st_mode == path.stat().st_mode
    assert latest(copy) == 2
    with opened(copy) as store:
        assert len(invariants.check(store)) == 3
        assert all(check.verdict in {"ok", "unknown", "warning"} for check in store.doctor())


def test_a_backup_beside_producers_is_one_state(path: Path, tmp_path: Path) -> None:
    """A backup that is taken while others publish is of two moments."""
    stop = threading.Event()

    def produce(name: str) -> None:
        with opened(path) as store:
            number = 0
            while not stop.is_set():
                store.publish(name, ["x" * 50_000, number], id=f"{name}-{number}")
                number += 1

    with opened(path) as store:
        store.publish("mena", 0)
        threads = [threading.Thread(target=produce, args=(name,)) for name in ("mena", "europe")]
        for thread in threads:
            thread.start()
        try:
            for number in range(6):
                store.backup(tmp_path / f"{number}.db")
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    versions = []
    for number in range(6):
        with opened(tmp_path / f"{number}.db") as copy:
            assert not list(copy.verify())
            versions.append([len(list(copy.history(name))) for name in ("mena", "europe")])
    assert versions == sorted(versions)


def test_the_name_of_a_backup_is_on_disk(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power failure takes away a backup that was reported as made."""
    synced: list[os.stat_result] = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(os.fstat(handle)))
    with opened(path) as store:
        store.publish("mena", 1)
        store.backup(tmp_path / "copy.db")
    assert [os.path.samestat(tmp_path.stat(), found) for found in synced] == [True]


def test_a_backup_replaces_nothing(path: Path, tmp_path: Path) -> None:
    """A backup under a name that is taken destroys the older one, or half of one is left under its name."""
    copy = tmp_path / "copy.db"
    with opened(path) as store:
        store.publish("mena", 1)
        store.backup(copy)
        before = copy.read_bytes()
        with pytest.raises(InvalidInput, match="exists already"):
            store.backup(copy)
        assert copy.read_bytes() == before
        with pytest.raises(InvalidInput, match="exists already"):
            store.backup(path)
        with pytest.raises(Unavailable, match="no backup can be written to"):
            store.backup(tmp_path / "none" / "copy.db")
        (tmp_path / "cut.db.partial").write_bytes(b"half")
        store.backup(tmp_path / "cut.db")
    assert latest(tmp_path / "cut.db") == 1


def test_two_backups_to_one_name(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The final name is given to the half-written copy of another backup, or a whole copy is replaced."""
    target, real, waiting, go_on = (
        tmp_path / "copy.db",
        backup._copy_into,
        threading.Event(),
        threading.Event(),
    )
    refused: list[SwapstoreError] = []

    def second() -> None:
        with opened(path) as store, pytest.raises(InvalidInput, match="exists already") as caught:
            store.backup(target)
        refused.append(caught.value)

    other = threading.Thread(target=second)

    def copy_into(*arguments: Any) -> None:
        if threading.current_thread() is other:
            waiting.set()  # its file is there, and empty
            assert go_on.wait(20)
        real(*arguments)
        if threading.current_thread() is not other:
            other.start()
            assert waiting.wait(20)

    monkeypatch.setattr(backup, "_copy_into", copy_into)
    with opened(path) as store:
        store.publish("mena", 1)
        try:
            size = store.backup(target)
            assert (target.stat().st_size, latest(target)) == (size, 1)
            whole = target.read_bytes()
        finally:
            go_on.set()
            other.join(20)
    assert refused
    assert target.read_bytes() == whole
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == ["copy.db"]


def test_a_backup_where_files_have_one_name(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system without hard links, no backup can be made."""

    def hardlink_to(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", hardlink_to)
    with opened(path) as store:
        store.publish("mena", 1)
        store.backup(tmp_path / "copy.db")
    assert latest(tmp_path / "copy.db") == 1


def test_a_backup_of_a_private_store_is_private(path: Path, tmp_path: Path) -> None:
    """What only its owner may read can be read by everybody in the backup."""
    with opened(path) as store:
        store.publish("mena", 1)
        path.chmod(0o600)
        store.backup(tmp_path / "copy.db")
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o600


def test_a_file_that_is_written_during_a_backup_without_a_log(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user who may not write takes a backup of two moments, because nothing tells that user of a writer."""
    with opened(path) as store:
        store.publish("mena", 1)
    access, copy = os.access, backup._copy_into
    monkeypatch.setattr(os, "access", lambda file, mode: not mode & os.W_OK and access(file, mode))

    def and_written(*arguments: Any) -> None:
        copy(*arguments)
        with closing(sqlite3.connect(path)) as writer, writer:
            writer.execute("INSERT INTO members VALUES ('key', 'member')")

    monkeypatch.setattr(backup, "_copy_into", and_written)
    with opened(path) as store:
        with pytest.raises(Unavailable, match="written while it was copied"):
            store.backup(tmp_path / "copy.db")
        assert not list(tmp_path.glob("copy.db*"))
        monkeypatch.setattr(backup, "_copy_into", copy)
        store.backup(tmp_path / "copy.db")


def test_a_damaged_store_is_not_backed_up(path: Path, tmp_path: Path) -> None:
    """The backup of a damaged store passes for a backup, until it is needed."""
    with opened(path) as store:
        for number in range(20):
            store.publish("mena", ["x" * 20_000, number])
    with path.open("r+b") as file:
        file.seek(40_960)
        file.write(b"\xff" * 4096)
    with opened(path) as store, pytest.raises(Corrupt):
        store.backup(tmp_path / "copy.db")
    assert not list(tmp_path.glob("copy.db*"))


@pytest.mark.slow
def test_restore_beside_open_stores(path: Path, tmp_path: Path) -> None:
    """Others go on in a file that is not the restored one, or mix the two."""
    copy = tmp_path / "copy.db"
    producer, reader = opened(path), opened(path)
    for number in range(3):
        producer.publish("mena", number)
    producer.backup(copy)
    for number in range(3, 80):
        producer.publish("mena", ["x" * 20_000, number])
    producer.publish("later", 1)
    assert reader.status("mena").version == 80  # type: ignore[union-attr]
    with opened(path) as operator:
        operator.restore(copy)
        assert operator.datasets() == ["mena"]
    found = reader.read_latest("mena")
    assert found is not None
    assert found.value == 2
    assert producer.publish("mena", "after").version == 4
    assert producer.publish("later", "after").version == 1
    script = (
        "import sys, swapstore\n"
        "with swapstore.connect(sys.argv[1]) as store:\n"
        "    print(store.read_latest('mena').value, store.publish('mena', 'other').version)\n"
    )
    command = [sys.executable, "-c", script, f"sqlite:///{path}"]
    other = subprocess.run(command, capture_output=True, text=True, check=False)
    assert other.stdout == "after 5\n", other.stderr
    for store in (producer, reader):
        store.close()
    with opened(path) as store:
        assert len(invariants.check(store)) == 5
        assert not [finding for finding in store.verify() if finding.wrong]


def test_restore_to_a_new_place(path: Path, tmp_path: Path) -> None:
    """A store whose file is lost cannot be restored."""
    copy = tmp_path / "copy.db"
    with opened(path) as store:
        store.publish("mena", "kept")
        store.backup(copy)
    for file in path.parent.iterdir():
        file.unlink()
    with opened(path) as store:
        store.restore(copy)
        assert store.publish("mena", "more").version == 2
    assert latest(copy) == "kept"


def test_the_files_of_a_restored_store_belong_together(path: Path, tmp_path: Path) -> None:
    """After a restore, the log of the same store is refused as another's."""
    copy = tmp_path / "copy.db"
    with opened(path) as store:
        store.publish("mena", 1)
        store.backup(copy)
        for number in range(60):
            store.publish("mena", ["x" * 30_000, number])
            if number % 20 == 7:
                store.restore(copy)
            if number % 10 == 3:
                with closing(sqlite3.connect(path)) as other:
                    other.execute("PRAGMA wal_checkpoint(RESTART)")
            with opened(path) as fresh:
                found = fresh.read_latest("mena")
                assert found is not None
                assert found.value in (1, ["x" * 30_000, number])


def test_restore_into_a_file_in_another_journal_mode(path: Path, tmp_path: Path) -> None:
    """A store that was made by `VACUUM INTO` can never be restored: it seems to be busy."""
    copy, other = tmp_path / "copy.db", tmp_path / "other.db"
    with opened(path) as store:
        store.publish("mena", "kept")
        store.backup(copy)
        store.publish("mena", "later")
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("VACUUM INTO ?", (str(other),))
        store.restore(other)
        assert latest(path) == "later"
    with opened(other) as store:
        assert store.publish("mena", "newest").version == 3
        store.restore(copy)
        assert latest(other) == "kept"
        assert store.publish("mena", "more").version == 2
    assert latest(other) == "more"


@pytest.mark.parametrize("parts", [("", "-wal", "-shm"), ("-wal", "-shm")])
def test_a_restore_into_a_file_that_went_away_is_not_acknowledged(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: tuple[str, ...]
) -> None:
    """The file goes during a restore, which is told as done, and nobody finds what was restored."""
    copy, advance = tmp_path / "copy.db", backup._advance

    def and_gone(opened: Any) -> None:
        for part in parts:
            Path(f"{path}{part}").unlink(missing_ok=True)
        advance(opened)

    with opened(path) as store:
        store.publish("mena", "kept")
        store.backup(copy)
        with monkeypatch.context() as during:
            during.setattr(backup, "_advance", and_gone)
            with pytest.raises(ReplyLost, match="was replaced"):
                store.restore(copy)
        if "" in parts:
            store.restore(copy)
            assert latest(path) == "kept"


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY])
def test_a_restore_that_fails_at_its_end(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """A disk that fails at the end of a restore may have it, and the caller is told that it is refused."""
    copy, connect = tmp_path / "copy.db", sqlite3.connect

    class Failing(sqlite3.Connection):
        def backup(self, *arguments: Any, **options: Any) -> None:
            super().backup(*arguments, **options)
            error = sqlite3.OperationalError("as planned")
            error.sqlite_errorcode = code
            raise error

    with opened(path) as store:
        store.publish("mena", 1)
        store.backup(copy)
        with monkeypatch.context() as during:
            during.setattr(sqlite3, "connect", partial(connect, factory=Failing))
            with pytest.raises((Unavailable, StoreFull)) as caught:
                store.restore(copy)
        assert isinstance(caught.value, ReplyLost) == (code == sqlite3.SQLITE_IOERR_FSYNC)
        store.restore(copy)
        assert latest(path) == 1


@pytest.mark.parametrize("checkpoint", ["", "PASSIVE", "TRUNCATE"])
def test_a_restored_store_is_open_to_others(path: Path, tmp_path: Path, checkpoint: str) -> None:
    """A store without commits in its log is refused after a restore, as if its log were another's."""
    copy = tmp_path / "copy.db"
    with opened(path) as store:
        store.publish("mena", "kept")
        store.backup(copy)
        store.publish("mena", "later")
    with opened(path) as store:
        if checkpoint:
            store.publish("mena", "newest")
            with closing(sqlite3.connect(path)) as other:
                other.execute(f"PRAGMA wal_checkpoint({checkpoint})")
        store.restore(copy)
        assert latest(path) == "kept"
        store.restore(copy)
        assert latest(path) == "kept"


@pytest.mark.parametrize("which", [1, 2])
def test_a_restore_beside_a_checkpoint(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    """Another process empties the log during a restore, and nobody can open the store afterwards."""
    copy, advance, seen = tmp_path / "copy.db", backup._advance, []

    def beside_a_checkpoint(opened: Any) -> None:
        advance(opened)
        seen.append(opened)
        if len(seen) == which:
            with closing(sqlite3.connect(path, timeout=0)) as other:
                other.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    with opened(path) as store:
        store.publish("mena", "kept")
        store.backup(copy)
        store.publish("mena", "later")
        monkeypatch.setattr(backup, "_advance", beside_a_checkpoint)
        store.restore(copy)
        assert len(seen) == 2
        assert latest(path) == "kept"
        assert store.publish("mena", "more").version == 2
        assert latest(path) == "more"


def test_what_is_no_backup_is_not_restored(path: Path, tmp_path: Path) -> None:
    """A wrong file name empties the store."""
    foreign, damaged, text = (tmp_path / name for name in ("foreign.db", "damaged.db", "notes.txt"))
    with closing(sqlite3.connect(foreign)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    text.write_text("not a database" * 1000)
    with opened(path) as store:
        for number in range(20):
            store.publish("mena", ["x" * 20_000, number])
        store.backup(damaged)
        with damaged.open("r+b") as file:
            file.seek(40_960)
            file.write(b"\xff" * 4096)
        for wrong, kind in {
            foreign: Corrupt,
            damaged: Corrupt,
            text: Corrupt,
            tmp_path / "none.db": InvalidInput,
            tmp_path: InvalidInput,
            path: InvalidInput,
        }.items():
            with pytest.raises(kind) as raised:
                store.restore(wrong)
            assert "move" not in raised.value.args[0], "it is the backup that is no use, and not the store"
        assert store.status("mena").version == 20  # type: ignore[union-attr]
    assert not (tmp_path / "none.db").exists()


def test_a_restore_over_a_damaged_store_says_what_to_do(path: Path, tmp_path: Path) -> None:
    """An operator who restores a damaged store is told to restore it, and goes round in circles."""
    with opened(path) as store:
        store.publish("mena", 1)
        store.backup(tmp_path / "copy.db")
    wrong = tmp_path / "wrong.db"
    wrong.write_text("not a database" * 1000)
    with opened(wrong) as store, pytest.raises(Corrupt) as raised:
        store.restore(tmp_path / "copy.db")
    said = raised.value.args[0]
    assert (
        "nothing was changed. To restore a backup, move this file away first, and its -wal and -shm" in said
    )
    assert wrong.read_text() == "not a database" * 1000
    told = run("restore", "copy.db", "--yes", "--url", "sqlite:///wrong.db", cwd=tmp_path)
    assert (told.returncode, "move this file away first" in told.stderr) == (5, True)


def test_a_restore_waits_for_a_writer_and_then_gives_up(path: Path, tmp_path: Path) -> None:
    """A restore hangs for ever behind a process that is stuck in a transaction."""
    with opened(path) as store:
        store.publish("mena", 1)
        store.backup(tmp_path / "copy.db")
        store.publish("mena", 2)
        context = store._context
    stuck = sqlite3.connect(path, isolation_level=None)
    stuck.execute("BEGIN IMMEDIATE")
    with Store(SqliteDriver(path, timeout_s=0.3), context) as store:
        with pytest.raises(Unavailable):
            store.restore(tmp_path / "copy.db")
        stuck.close()
        assert latest(path) == 2
        store.restore(tmp_path / "copy.db")
    assert latest(path) == 1


def test_a_restore_that_takes_longer_than_a_lock_is_waited_for(path: Path, tmp_path: Path) -> None:
    """A large restore that was done is told as refused, and the store has no state of its own."""
    with opened(path) as store:
        store.publish("mena", 1)
        store.backup(tmp_path / "copy.db")
        store.publish("mena", 2)
        context = store._context
    with Store(SqliteDriver(path, timeout_s=0), context) as store:
        store.restore(tmp_path / "copy.db")
    assert latest(path) == 1


def test_a_writer_that_comes_before_a_restore(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore hangs for ever behind a process that is stuck since it began."""
    advance, stuck = backup._advance, sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    end = threading.Timer(30, stuck.close)

    def and_stuck(opened: Any) -> None:
        advance(opened)
        stuck.execute("BEGIN IMMEDIATE")
        end.start()

    with opened(path) as store:
        store.publish("mena", 1)
        store.backup(tmp_path / "copy.db")
        store.publish("mena", 2)
        context = store._context
    with Store(SqliteDriver(path, timeout_s=0.2), context) as store:
        with monkeypatch.context() as during:
            during.setattr(backup, "_advance", and_stuck)
            with pytest.raises(Unavailable, match="nothing is changed"):
                store.restore(tmp_path / "copy.db")
        end.cancel()
        stuck.close()
        assert latest(path) == 2
        store.restore(tmp_path / "copy.db")
    assert latest(path) == 1


def test_a_backup_behind_a_writer_gives_up(path: Path, tmp_path: Path) -> None:
    """On a file without a log, a backup hangs for ever behind a process that is stuck in a transaction."""
    with opened(tmp_path / "other.db") as store:
        store.publish("mena", 1)
        context = store._context
        with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
            connection.execute("VACUUM INTO ?", (str(path),))
    stuck = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    end = threading.Timer(30, stuck.close)
    with Store(SqliteDriver(path, timeout_s=0.2), context) as store:
        store.datasets()
        stuck.execute("BEGIN EXCLUSIVE")
        end.start()
        with pytest.raises(Unavailable, match="busy"):
            store.backup(tmp_path / "copy.db")
        end.cancel()
        stuck.close()
        store.backup(tmp_path / "copy.db")
    assert latest(tmp_path / "copy.db") == 1


def test_a_restore_on_a_full_disk_changes_nothing(path: Path, tmp_path: Path) -> None:
    """A restore that does not fit leaves half of the store."""
    with opened(path) as store:
        store.publish("mena", ["x" * 100_000])
        store.backup(tmp_path / "copy.db")
    for file in path.parent.iterdir():
        file.unlink()
    with opened(path) as store:
        store.publish("mena", "small")
        driver: Any = store._driver
        with sqlite_connection(driver) as connection:
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(StoreFull):
            store.restore(tmp_path / "copy.db")
        assert store.read_latest("mena").value == "small"  # type: ignore[union-attr]


def test_servers_have_their_own_way(tmp_path: Path) -> None:
    """A call for SQLite files raises what is none of ours on a server, or does not say what copies one."""
    with fakeredis.FakeRedis() as client, swapstore.connect(client) as store:
        for call in (store.backup, store.restore):
            with pytest.raises(InvalidInput, match="for SQLite files. `swapstore copy`"):
                call(tmp_path / "copy.db")


def run(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "swapstore", *words]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("SWAPSTORE_")}
    return subprocess.run(command, cwd=cwd, env=clean, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_commands(tmp_path: Path) -> None:
    """A restore from the command line destroys a store without asking, or does not restore."""
    url = ["--url", "sqlite:///s.db"]
    with opened(tmp_path / "s.db") as store:
        store.publish("mena", 1)
        done = run("backup", "copy.db", *url, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == {"file": "copy.db", "size": (tmp_path / "copy.db").stat().st_size}
        assert run("backup", "copy.db", *url, cwd=tmp_path).returncode == 2
        store.publish("mena", 2)
        refused = run("restore", "copy.db", *url, cwd=tmp_path)
        assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
        assert latest(tmp_path / "s.db") == 2
        done = run("restore", "copy.db", "--yes", *url, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert latest(tmp_path / "s.db") == 1
    assert run("restore", "copy.db", "--url", "sqlite:///new.db", cwd=tmp_path).returncode == 0
    assert latest(tmp_path / "new.db") == 1


def test_every_error_is_ours(path: Path, tmp_path: Path) -> None:
    """A path that no file can have raises an error of the system."""
    with opened(path) as store:
        store.publish("mena", 1)
        for wrong in ("\0", "x" * 5000, ""):
            for call in (store.backup, store.restore):
                with pytest.raises(SwapstoreError):
                    call(wrong)
