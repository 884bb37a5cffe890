"""Parts of a SQLite store are moved, copied or removed: no publish is acknowledged that nobody can read."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import swapstore
from swapstore import Store
from swapstore.commands import Get
from swapstore.drivers.sqlite import file as sqlite_file
from swapstore.drivers.sqlite import identity
from swapstore.drivers.sqlite.driver import SqliteDriver
from swapstore.errors import Corrupt, OutcomeUnknown, SwapstoreError
from tests.support import invariants

LOGS = ("-wal", "-shm")
_PUBLISH_AND_DIE = """
import os, signal, sys
import swapstore
store = swapstore.connect(sys.argv[1])
for number in range(int(sys.argv[2])):
    store.publish("mena", ["x" * 100_000, number])
os.kill(os.getpid(), signal.SIGKILL)
"""


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def publish(path: Path, *values: Any) -> None:
    with swapstore.connect(url(path)) as store:
        for value in values:
            store.publish("mena", value)


def publish_and_die(path: Path, count: int) -> None:
    """Publish in a process that is killed: it leaves its `-wal` and `-shm`."""
    died = subprocess.run([sys.executable, "-c", _PUBLISH_AND_DIE, url(path), str(count)], check=False)
    assert died.returncode == -signal.SIGKILL
    assert beside(path, "-wal").stat().st_size > 0


def latest(path: Path) -> Any:
    with swapstore.connect(url(path)) as store:
        found = store.read_latest("mena")
        return None if found is None else found.value


def beside(path: Path, part: str) -> Path:
    return Path(f"{path}{part}")


def by_backup(path: Path, copy: Path) -> None:
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)


def by_vacuum(path: Path, copy: Path) -> None:
    with closing(sqlite3.connect(path)) as source:
        source.execute("VACUUM INTO ?", (str(copy),))


def in_another_process(work: Callable[..., Any], *args: Any) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, args)


# --- a file was restored, and the log of the former one is there ------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("put_back", [shutil.copyfile, os.replace])
@pytest.mark.parametrize("backup", [by_backup, by_vacuum])
@pytest.mark.parametrize("later", [2, 40])
def test_the_log_of_another_file_is_refused(
    tmp_path: Path, backup: Callable[..., None], put_back: Callable[..., None], later: int
) -> None:
    """A restored file and the log of the former one become one file, of which nothing can be read."""
    path, copy = tmp_path / "s.db", tmp_path / "copy.db"
    publish(path, *range(3))
    backup(path, copy)
    publish_and_die(path, later)
    whole = copy.read_bytes()
    put_back(copy, path)
    log = beside(path, "-wal").read_bytes()
    for attempt in (lambda: latest(path), lambda: publish(path, "new")):
        with pytest.raises(Corrupt, match="s.db-wal is still the log of the file that was there before"):
            attempt()
    assert (path.read_bytes(), beside(path, "-wal").read_bytes()) == (whole, log), "nothing was mixed"
    for part in LOGS:
        beside(path, part).rename(tmp_path / f"aside{part}")
    assert latest(path) == 2
    publish(path, "new")
    with swapstore.connect(url(path)) as store:
        assert len(invariants.check(store)) == 4


@pytest.mark.parametrize("by_link", [False, True])
def test_a_backup_does_not_continue_its_store(tmp_path: Path, by_link: bool) -> None:  # noqa: FBT001
    """A backup that is put in the place of its store takes the log of that store for its own."""
    path, former, link = (tmp_path / name for name in ("s.db", "former.db", "link.db"))
    (tmp_path / "there").mkdir()
    there = tmp_path / "there" / "t.db"
    with swapstore.connect(url(former)) as store:
        store.publish("mena", 0)
        store.backup(path)  # all copies that SQLite makes have the same layout
    with swapstore.connect(url(path)) as store:
        store.publish("mena", 1)
        store.backup(there)
        store.publish("mena", 2)
        shutil.copyfile(beside(path, "-wal"), beside(there, "-wal"))
    link.symlink_to(there)
    with pytest.raises(Corrupt, match="t.db-wal is still the log of the file that was there before"):
        latest(link if by_link else there)
    beside(there, "-wal").unlink()
    assert latest(link) == 1
    publish(link, 3)
    assert latest(there) == 3


def test_what_an_earlier_log_has_left_does_not_count(tmp_path: Path) -> None:
    """A log was begun anew, and its remains are taken for its content: a file is mixed with a later one."""
    path, former, there = (tmp_path / name for name in ("s.db", "former.db", "t.db"))
    publish(former, 0)
    by_backup(former, path)  # all copies that SQLite makes have the same layout
    with swapstore.connect(url(path)) as store:
        for number in range(1, 10):
            store.publish("mena", number)
            if number == 6:  # so that the log has its mark far from where it begins
                by_backup(path, there)
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint(RESTART)")
        store.publish("mena", 10)
        shutil.copyfile(beside(path, "-wal"), beside(there, "-wal"))
        assert latest(path) == 10
    with pytest.raises(Corrupt, match="t.db-wal is still the log of the file that was there before"):
        latest(there)
    beside(there, "-wal").unlink()
    assert latest(there) == 6


def test_the_log_of_a_truncated_file_is_kept(tmp_path: Path) -> None:
    """A main file that was truncated makes SQLite delete the log, the last copy of the newest commits."""
    path = tmp_path / "s.db"
    publish_and_die(path, 3)
    path.write_bytes(b"")
    with pytest.raises(Corrupt, match="was replaced"):
        latest(path)
    assert beside(path, "-wal").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 40])
def test_the_log_of_a_killed_process_is_taken(tmp_path: Path, count: int) -> None:
    """What a killed process acknowledged is refused as if it were the log of another file."""
    path = tmp_path / "s.db"
    publish_and_die(path, count)
    moved = tmp_path / "moved"
    moved.mkdir()
    for part in ("", *LOGS):
        shutil.copyfile(beside(path, part), moved / f"t.db{part}")
    for each in (path, moved / "t.db"):
        assert latest(each)[1] == count - 1
        publish_and_die(each, count)
        assert latest(each)[1] == count - 1
        with swapstore.connect(url(each)) as store:
            assert len(invariants.check(store)) == 2 * count


@pytest.mark.parametrize(
    "statement", ["VACUUM", "CREATE INDEX theirs ON records (value)", "DELETE FROM members"]
)
def test_what_another_program_does_to_the_file_is_not_a_replacement(tmp_path: Path, statement: str) -> None:
    """`VACUUM` by hand, beside an open store, makes the file unusable."""
    path = tmp_path / "s.db"
    with swapstore.connect(url(path)) as store:
        store.publish("mena", 0)
        for number in range(1, 40):
            with closing(sqlite3.connect(path, isolation_level=None)) as other:
                if number % 7 == 1:
                    other.execute(statement.replace("theirs", f"theirs{number}"))
                if number % 3 == 0:
                    other.execute("PRAGMA wal_checkpoint(RESTART)")
            store.publish("mena", number)
            assert latest(path) == number
    assert latest(path) == 39


def test_what_another_program_does_to_the_layout_twice(tmp_path: Path) -> None:
    """An index and `VACUUM` by hand, beside an open store, and nobody else can open the file any more."""
    path = tmp_path / "s.db"
    with swapstore.connect(url(path)) as store:
        store.publish("mena", 0)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("CREATE INDEX theirs ON records (value)")
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            other.execute("VACUUM")
        assert latest(path) == 0
        store.publish("mena", 1)
        assert latest(path) == 1


def test_a_log_that_begins_anew_while_it_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that is opened beside a busy producer is refused now and then."""
    path, read_log = tmp_path / "s.db", identity._read_log

    def overtaken(log: str) -> identity.Log:
        monkeypatch.setattr(identity, "_read_log", read_log)
        store.publish("mena", 2)
        with closing(sqlite3.connect(path)) as other:
            other.execute("PRAGMA wal_checkpoint(RESTART)")
        store.publish("mena", 3)
        return read_log(log)

    with swapstore.connect(url(path)) as store:
        store.publish("mena", 1)
        monkeypatch.setattr(identity, "_read_log", overtaken)
        assert latest(path) == 3
        assert identity._read_log is read_log


def test_a_layout_that_changes_just_before_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`VACUUM` by hand, at the moment of a publish, and nobody else can open the file any more."""
    path, take = tmp_path / "s.db", SqliteDriver._take

    def take_and_be_overtaken(driver: SqliteDriver, **options: Any) -> Any:
        opened = take(driver, **options)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("VACUUM")
            other.execute("VACUUM")
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return opened

    with swapstore.connect(url(path)) as store:
        store.publish("mena", 1)
        with monkeypatch.context() as during:
            during.setattr(SqliteDriver, "_take", take_and_be_overtaken)
            store.publish("mena", 2)
        assert latest(path) == 2


@pytest.mark.slow
def test_a_log_is_taken_while_others_write_checkpoints(tmp_path: Path) -> None:
    """A store that is opened beside a busy producer is refused now and then."""
    path = tmp_path / "s.db"
    with swapstore.connect(url(path)) as store:
        for number in range(200):
            store.publish("mena", ["x" * 20_000, number])
            driver = SqliteDriver(path)
            driver.execute([Get("nothing")])
            driver.close()
    with swapstore.connect(url(path)) as store:
        assert len(invariants.check(store)) == 200


# --- beside a process that has the file open ---------------------------------------------------------


def ahead_of_a_copy(path: Path, copy: Path, backup: Callable[..., None] = by_backup) -> Store:
    """Return an open store with a commit that a copy of its file has not."""
    store = swapstore.connect(url(path))
    store.publish("mena", 0)
    backup(path, copy)
    store.publish("mena", 1)
    return store


@pytest.mark.slow
@pytest.mark.parametrize("backup", [by_backup, by_vacuum])
def test_a_file_that_is_copied_over_an_open_one(tmp_path: Path, backup: Callable[..., None]) -> None:
    """`cp` of a backup over the file: the open process mixes its log into it, and acknowledges publishes."""
    path, copy = tmp_path / "s.db", tmp_path / "copy.db"
    store = ahead_of_a_copy(path, copy, backup)
    shutil.copyfile(copy, path)
    whole = copy.read_bytes()
    with pytest.raises(Corrupt, match="still the log of the file that was there before"):
        in_another_process(latest, path)
    for attempt in range(2):
        with pytest.raises(Corrupt, match="another file was copied over it"):
            store.publish("mena", attempt)
    store.close()
    assert path.read_bytes() == whole, "closing wrote the log into the restored file"
    for part in LOGS:
        beside(path, part).unlink()
    assert in_another_process(latest, path) == 0


def test_a_file_that_is_copied_over_one_whose_store_was_forgotten(tmp_path: Path) -> None:
    """A program never closes its store, and the garbage collector writes the log into the restored file."""
    path, copy = tmp_path / "s.db", tmp_path / "copy.db"
    store = ahead_of_a_copy(path, copy)
    shutil.copyfile(copy, path)
    whole = copy.read_bytes()
    del store
    gc.collect()
    assert path.read_bytes() == whole


def test_a_file_of_another_application_that_is_copied_over_an_open_one(tmp_path: Path) -> None:
    """A process goes on in the file of another application, and its end deletes the log."""
    path, other = tmp_path / "s.db", tmp_path / "other.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    store = swapstore.connect(url(path))
    store.publish("mena", 0)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint")  # so that pages are read from the main file
    shutil.copyfile(other, path)
    log = beside(path, "-wal").read_bytes()
    for attempt in (lambda: store.read_latest("mena"), lambda: store.publish("mena", 1)):
        with pytest.raises(Corrupt, match="another file was copied over it"):
            attempt()
    store.close()
    assert (path.read_bytes(), beside(path, "-wal").read_bytes()) == (other.read_bytes(), log)


@pytest.mark.parametrize("is_open", [False, True])
def test_a_file_that_gets_a_log_while_it_is_open(tmp_path: Path, is_open: bool) -> None:  # noqa: FBT001
    """`PRAGMA journal_mode = WAL`, as `doctor` advises, and no running process can use the file any more."""
    path = tmp_path / "s.db"
    publish(tmp_path / "other.db", 0)
    by_vacuum(tmp_path / "other.db", path)
    with swapstore.connect(url(path)) as store:
        store.publish("mena", 1)
        with closing(sqlite3.connect(path)) as operator:
            assert operator.execute("PRAGMA journal_mode").fetchone() == ("delete",)
            assert operator.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
            if is_open:
                operator.execute("SELECT count(*) FROM records").fetchone()
                assert beside(path, "-wal").exists()
            else:
                operator.close()
            assert store.publish("mena", 2).version == 3
        found = store.read_latest("mena")
        assert found is not None
        assert found.value == 2
        assert latest(path) == 2
    assert latest(path) == 2


@pytest.mark.slow
def test_a_file_that_is_moved_over_an_open_one(tmp_path: Path) -> None:
    """A process goes on in the former file, or its end deletes the log of the new one."""
    path, copy = tmp_path / "s.db", tmp_path / "copy.db"
    store = ahead_of_a_copy(path, copy)
    for part in LOGS:
        beside(path, part).unlink()
    copy.replace(path)
    publish_and_die(path, 2)
    assert store.publish("mena", "after").version == 4
    store.close()
    assert in_another_process(latest, path) == "after"


@pytest.mark.parametrize("removed", [("-wal",), ("-shm",), LOGS])
def test_a_log_that_is_removed_by_hand(tmp_path: Path, removed: tuple[str, ...]) -> None:
    """Two processes commit the same version, and one of them was told that it had succeeded."""
    path = tmp_path / "s.db"
    store = swapstore.connect(url(path))
    store.publish("mena", "first")
    store.publish("mena", "second")
    for part in removed:
        beside(path, part).unlink()
    before = beside(path, "-wal").read_bytes() if "-wal" not in removed else b""
    if removed == LOGS:
        publish_and_die(path, 1)
        before = beside(path, "-wal").read_bytes()
    for attempt in (lambda: store.publish("mena", "third"), lambda: store.read_latest("mena")):
        with pytest.raises(Corrupt, match="restart every process"):
            attempt()
    store.close()
    gc.collect()  # which closes a connection that nothing refers to
    if before:
        assert beside(path, "-wal").read_bytes() == before, "the first process deleted another's commits"
        in_another_process(latest, path)


def test_a_log_that_is_removed_while_nobody_else_uses_it(tmp_path: Path) -> None:
    """Acknowledged publishes are lost with the log, although a process still has it open."""
    path = tmp_path / "s.db"
    with swapstore.connect(url(path)) as store:
        for number in range(3):
            store.publish("mena", number)
        for part in LOGS:
            beside(path, part).unlink()
        assert store.publish("mena", 3).version == 4
        assert in_another_process(latest, path) == 3
        assert len(invariants.check(store)) == 4


@pytest.mark.parametrize("was_there", [False, True])
def test_a_copy_of_a_young_store_without_its_log(tmp_path: Path, was_there: bool) -> None:  # noqa: FBT001
    """`cp` of a store that is open gives an empty one, and nobody is told."""
    path, copy, moved = (tmp_path / name for name in ("s.db", "copy.db", "moved.db"))
    if was_there:
        path.touch()  # as `mktemp` makes it: the store is made in an empty file
    with swapstore.connect(url(path)) as store:
        store.publish("mena", 1)
        shutil.copyfile(path, copy)
        for attempt in (lambda: latest(copy), lambda: publish(copy, 2)):
            with pytest.raises(Corrupt, match="swapstore backup"):
                attempt()
    shutil.copyfile(path, copy)
    assert latest(copy) == 1, "closed, the file is whole"
    sqlite_file.open_file(tmp_path / "new.db", 1, writes=True).connection.close()
    (tmp_path / "new.db").rename(moved)
    publish(moved, "first")
    assert latest(moved) == "first"


# --- a replacement at the worst moment ---------------------------------------------------------------


def test_a_file_that_is_replaced_while_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to the former file passes for one to the new file, and takes its publishes."""
    path, other = tmp_path / "s.db", tmp_path / "other.db"
    publish(path, "former")
    publish(other, "new")
    connect = sqlite_file._connect

    def replaced_in_between(*args: Any) -> Any:
        opened = connect(*args)
        if other.exists():
            for part in LOGS:
                beside(path, part).unlink()
            other.replace(path)
        return opened

    monkeypatch.setattr(sqlite_file, "_connect", replaced_in_between)
    publish(path, "later")
    assert in_another_process(latest, path) == "later"


@pytest.mark.parametrize("parts", [("", *LOGS), LOGS, ("-wal",), ("-shm",)])
def test_a_commit_into_a_file_that_went_away_is_not_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: tuple[str, ...]
) -> None:
    """The file goes between the look and the COMMIT: a publish is acknowledged that nobody can read."""
    path = tmp_path / "s.db"
    store = swapstore.connect(url(path))
    store.publish("mena", "first")
    write = SqliteDriver._write
    removals = [parts]

    def removing(driver: SqliteDriver, *args: Any) -> Any:
        for part in removals.pop() if removals else ():
            beside(path, part).unlink()
        return write(driver, *args)

    monkeypatch.setattr(SqliteDriver, "_write", removing)
    try:
        commit = store.publish("mena", "mine", id="mine")
    except OutcomeUnknown as error:
        assert error.id == "mine"  # noqa: PT017 - either outcome is right, depending on what went away
        return
    finally:
        store.close()
    with swapstore.connect(url(path)) as reader:
        found = reader.read("mena", id="mine")
        assert found is not None
        assert found.version == commit.version


def test_each_commit_leaves_its_mark(tmp_path: Path) -> None:
    """The mark is not on page 2, or not in each commit, and one log cannot be told from another."""
    path = tmp_path / "s.db"
    with swapstore.connect(url(path)) as store:
        parts = identity.Parts.of(path)
        sqlite_file.open_file(path, 1, writes=True).connection.close()
        created = identity.state_of(str(path))
        assert created.current is not None
        assert created.schema_version > 2, "SQLite's own copies begin with 1"
        store.publish("mena", 1)
        first = identity._read_log(parts.wal)
        assert created.current in first.states
        store.publish("mena", 2)
        second = identity._read_log(parts.wal)
        assert len(second.states) == len(first.states) + 1
        assert identity.state_of(str(path)) == created, "it reads the main file alone"
        assert not identity.is_foreign_log(parts)


def test_to_look_at_the_file_keeps_its_locks(tmp_path: Path) -> None:
    """A look drops the locks of the whole process, and another deletes the log under it."""
    path = tmp_path / "s.db"
    with swapstore.connect(url(path)) as store:
        store.publish("mena", 1)
        assert not identity.is_foreign_log(identity.Parts.of(path))
        identity.state_of(str(path))
        before = identity.look(identity.Parts.of(path)).files
        assert in_another_process(latest, path) == 1
        assert identity.look(identity.Parts.of(path)).files == before
        assert store.publish("mena", 2).version == 2


def test_errors_are_ours(tmp_path: Path) -> None:
    """A directory in place of the log raises an error of SQLite or of the system."""
    path = tmp_path / "s.db"
    publish(path, 1)
    beside(path, "-wal").mkdir()
    with swapstore.connect(url(path)) as store, pytest.raises(SwapstoreError):
        store.read_latest("mena")
