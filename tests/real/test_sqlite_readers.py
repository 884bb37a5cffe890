"""Users who may not write a SQLite file: they read it, and leave nothing that blocks those who may."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import swapstore
import swapstore.doctor.sqlite
import swapstore.fsck.verify  # before another user may be unable to read the package
from swapstore import Timeout
from swapstore.drivers.sqlite import commands, driver
from swapstore.drivers.sqlite import file as sqlite_file
from swapstore.errors import AccessDenied, Corrupt, Misconfigured, Unavailable
from tests.support.users import NOBODY, as_nobody

pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as two users, or mount")

_WRITE_STEP_BY_STEP = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
steps = iter((
    ("BEGIN IMMEDIATE", "UPDATE lineage SET mark = randomblob(12)"),
    ("PRAGMA cache_size = 5", "UPDATE records SET value = zeroblob(length(value))"),
))
for _ in sys.stdin:
    for statement in next(steps):
        connection.execute(statement)
    print("done", flush=True)
"""
_PUBLISH_AND_DIE = """
import os, signal, sys
import swapstore
store = swapstore.connect(sys.argv[1])
store.publish("mena", sys.argv[2])
os.kill(os.getpid(), signal.SIGKILL)
"""


def url(path: Path) -> str:
    return f"sqlite:///{path}"


def latest(path: Path) -> Any:
    with swapstore.connect(url(path)) as store:
        found = store.read_latest("mena")
        return None if found is None else found.value


def publish(path: Path, *values: Any) -> None:
    with swapstore.connect(url(path)) as store:
        for value in values:
            store.publish("mena", value)


def publish_and_die(path: Path, value: str) -> None:
    died = subprocess.run([sys.executable, "-c", _PUBLISH_AND_DIE, url(path), value], check=False)
    assert died.returncode == -signal.SIGKILL


def everything(path: Path) -> list[Any]:
    """Read in every way there is."""
    with swapstore.connect(url(path)) as store:
        history = [snapshot.version for snapshot in store.history("mena")]
        status = store.status("mena")
        assert status is not None
        return [store.datasets(), history, status.version, list(store.verify())]


def no_file(directory: Path) -> bool:
    return not list(directory.iterdir())


def test_a_store_that_is_not_there_is_not_created_by_reading_it(tmp_path: Path) -> None:
    """A reader with a misspelt path makes an empty store there, which looks like the right one later."""
    path = tmp_path / "s.db"
    assert latest(path) is None
    assert no_file(tmp_path)
    with swapstore.connect(url(path)) as store:
        assert (store.datasets(), list(store.history("mena")), store.status("mena")) == ([], [], None)
        assert (store.read("mena", version=1), store.read_live("mena")) == (None, None)
        assert (list(store.verify()), store.repair(apply=True)) == ([], [])
        for refused in (
            lambda: store.pin("mena", version=1),
            lambda: store.confirm("mena"),
            lambda: store.prune("mena", retention=swapstore.Retention(max_count=1)),
            lambda: store.backup(tmp_path / "copy.db"),
            lambda: store.publish("mena", 1, expected_version=7),
        ):
            with pytest.raises((swapstore.NotFound, swapstore.Conflict)):
                refused()
        assert no_file(tmp_path)
        follower = store.follow("mena", poll=0.01)
        publish(path, "first")
        assert next(follower).version == 1  # type: ignore[union-attr]
        assert latest(path) == "first"
        follower.close()


def test_a_store_that_comes_and_goes_under_a_reader(tmp_path: Path) -> None:
    """A reader that began before the producer never sees the file, or brings a deleted one back."""
    path = tmp_path / "s.db"
    with swapstore.connect(url(path)) as store:
        assert store.read_latest("mena") is None
        publish(path, 1)
        assert store.read_latest("mena") is not None
        for part in ("", "-wal", "-shm"):
            Path(f"{path}{part}").unlink(missing_ok=True)
        assert store.read_latest("mena") is None
        assert no_file(tmp_path)
        store.publish("mena", 2)
    assert latest(path) == 2


def test_a_store_that_is_created_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader is told that nothing is published after a publish was acknowledged."""
    path = tmp_path / "s.db"
    empty = sqlite_file._empty

    def meanwhile(*args: Any) -> Any:
        monkeypatch.undo()
        opened = empty(*args)
        publish(path, "first")
        return opened

    monkeypatch.setattr(sqlite_file, "_empty", meanwhile)
    assert latest(path) == "first"


@pytest.mark.parametrize(("place", "message"), [("none/s.db", "does not exist"), ("", "is a directory")])
def test_a_path_at_which_no_store_can_be_is_an_error(tmp_path: Path, place: str, message: str) -> None:
    """A reader whose path has a wrong directory is told that nothing is published."""
    with pytest.raises(Misconfigured, match=message):
        latest(tmp_path / place)


def test_a_directory_that_may_not_be_entered_is_an_error(directory: Path) -> None:
    """A reader without the right to look is told that nothing is published."""
    path = directory / "secret" / "s.db"
    path.parent.mkdir(mode=0o700)
    publish(path, 1)
    path.parent.chmod(0)
    error = as_nobody(latest, path)
    path.parent.chmod(0o700)
    assert isinstance(error, Unavailable | Misconfigured)


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that other users can reach, unlike that of pytest."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    made.chmod(0o755)
    shutil.rmtree(made)


@pytest.mark.parametrize("mode", [0o555, 0o777])
def test_between_the_runs_of_a_producer(directory: Path, mode: int) -> None:
    """A reader without write permission cannot read while no producer runs, or makes a log that blocks it."""
    path = directory / "s.db"
    publish(path, 1, 2)
    path.chmod(0o444)
    directory.chmod(mode)
    assert as_nobody(latest, path) == 2
    assert as_nobody(everything, path) == [["mena"], [2, 1], 2, []]
    assert [file.name for file in directory.iterdir()] == ["s.db"], "the reader left a file"
    directory.chmod(0o755)
    path.chmod(0o644)
    publish(path, 3)
    path.chmod(0o444)
    assert as_nobody(latest, path) == 3


@pytest.mark.parametrize("mode", [0o555, 0o777])
def test_beside_a_producer(directory: Path, mode: int) -> None:
    """A reader without write permission sees the file without its log: hours old, or nothing."""
    path = directory / "s.db"
    with swapstore.connect(url(path)) as store, closing(sqlite3.connect(path)) as producer:
        for number in range(3):
            store.publish("mena", number)
            producer.execute("SELECT count(*) FROM records").fetchone()  # a fork closes only the store's file
            path.chmod(0o444)
            directory.chmod(mode)
            assert as_nobody(latest, path) == number
            assert Path(f"{path}-wal").stat().st_size
            directory.chmod(0o755)
            path.chmod(0o644)
        assert as_nobody(everything, path) == [["mena"], [3, 2, 1], 3, []]
        path.chmod(0o444)
        assert isinstance(as_nobody(_read_and_publish, path), AccessDenied)  # its connection only reads


def _read_and_publish(path: Path) -> None:
    with swapstore.connect(url(path)) as store:
        assert store.read_latest("mena") is not None
        store.publish("mena", "refused")


_PUBLISH_AND_CLOSE = """
import sys, swapstore
store = swapstore.connect(sys.argv[1])
store.publish("mena", "last")
print("published", flush=True)
sys.stdin.readline()
store.close()
print("closed", flush=True)
"""


def _latest_when(path: Path, producer: subprocess.Popen[str]) -> Any:
    """Let the producer close the file just before it is opened here."""
    connect = sqlite_file._connect

    def late(*args: Any, **options: Any) -> Any:
        sqlite_file._connect = connect
        assert producer.communicate("\n")[0] == "closed\n"
        return connect(*args, **options)

    sqlite_file._connect = late
    return latest(path)


@root_only
def test_a_log_that_goes_just_before_it_is_opened(directory: Path) -> None:
    """A reader without write permission fails now and then, when a producer ends."""
    path = directory / "s.db"
    publish(path, "before")
    path.chmod(0o444)
    directory.chmod(0o555)
    command = [sys.executable, "-c", _PUBLISH_AND_CLOSE, url(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as producer:
        assert producer.stdout is not None
        assert producer.stdout.readline() == "published\n"
        assert Path(f"{path}-wal").stat().st_size
        assert as_nobody(_latest_when, path, producer) == "last"


def test_the_log_of_another_file_is_refused_to_a_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader without write permission reads the pages of two files as one, and is told that all is well."""
    path, there, access = tmp_path / "s.db", tmp_path / "t.db", os.access
    with swapstore.connect(url(path)) as store:
        store.publish("mena", 1)
        store.backup(there)
        store.publish("mena", 2)
        for part in ("-wal", "-shm"):
            shutil.copyfile(f"{path}{part}", f"{there}{part}")
    monkeypatch.setattr(os, "access", lambda file, mode: not mode & os.W_OK and access(file, mode))
    with pytest.raises(Corrupt, match="t.db-wal is still the log of the file that was there before"):
        latest(there)
    for part in ("-wal", "-shm"):
        Path(f"{there}{part}").unlink()
    assert latest(there) == 1


def _publish_one(path: Path) -> int:
    with swapstore.connect(url(path)) as store:
        return store.publish("mena", "theirs").version


@root_only
def test_a_user_who_may_write_the_files_and_not_the_directory(directory: Path) -> None:
    """A user is refused beside a producer, although all three files are there and may be written."""
    path = directory / "s.db"
    command = [sys.executable, "-c", _PUBLISH_AND_CLOSE, url(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as producer:
        assert producer.stdout is not None
        assert producer.stdout.readline() == "published\n"
        for part in ("", "-wal", "-shm"):
            Path(f"{path}{part}").chmod(0o666)
        assert as_nobody(_publish_one, path) == 2
        assert producer.communicate("\n")[0] == "closed\n"
    assert latest(path) == "theirs"
    assert isinstance(as_nobody(_publish_one, path), AccessDenied), "it could not make the logs"


def test_after_a_producer_was_killed(directory: Path) -> None:
    """What a killed producer had acknowledged is hidden from a reader, or the reader cannot read at all."""
    path = directory / "s.db"
    publish(path, "before")
    publish_and_die(path, "last")
    for part in ("", "-wal", "-shm"):
        Path(f"{path}{part}").chmod(0o444)
    directory.chmod(0o555)
    assert as_nobody(latest, path) == "last"
    directory.chmod(0o755)
    Path(f"{path}-shm").unlink()
    directory.chmod(0o555)
    error = as_nobody(latest, path)
    assert isinstance(error, AccessDenied)
    assert "s.db-wal has the newest commits" in str(error)
    assert "s.db-shm is missing" in str(error)


def _latest_at_once(path: Path) -> Any:
    with swapstore.connect(url(path), timeout=Timeout(reply=0.2)) as store:
        found = store.read_latest("mena")
        assert found is not None
        return found.value[0]


@root_only
def test_beside_a_transaction_on_a_file_without_a_log(directory: Path) -> None:
    """A reader takes what a producer has begun for committed, also after the producer was killed."""
    path, journal = directory / "s.db", directory / "s.db-journal"
    publish(directory / "other.db", *([number, "x" * 20_000] for number in range(5)))
    with closing(sqlite3.connect(directory / "other.db")) as other:
        other.execute("VACUUM INTO ?", (str(path),))  # in such a file, pages are overwritten where they are
    path.chmod(0o644)
    command = [sys.executable, "-c", _WRITE_STEP_BY_STEP, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        found = []
        for _ in range(2):
            writer.stdin.write("\n")
            writer.stdin.flush()
            assert writer.stdout.readline() == "done\n"
            assert journal.stat().st_size
            found.append(as_nobody(_latest_at_once, path))
        writer.kill()
    assert found[0] == 4, "nothing is overwritten yet"
    assert isinstance(found[1], Unavailable)
    assert "busy" in str(found[1])
    error = as_nobody(latest, path)
    assert isinstance(error, AccessDenied)
    assert f"{journal} has what undoes an unfinished transaction" in str(error)
    assert latest(path)[0] == 4, "who may write undoes it"
    assert as_nobody(_latest_at_once, path) == 4
    publish(path, [5, ""])
    assert as_nobody(_latest_at_once, path) == 5


def test_a_transaction_that_begins_just_before_the_file_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that has looked for unfinished transactions reads one that began since."""
    path, connect, access = tmp_path / "s.db", sqlite_file._connect, os.access
    publish(tmp_path / "other.db", *([number, "x" * 20_000] for number in range(5)))
    with closing(sqlite3.connect(tmp_path / "other.db")) as other:
        other.execute("VACUUM INTO ?", (str(path),))
    monkeypatch.setattr(os, "access", lambda file, mode: not mode & os.W_OK and access(file, mode))
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:

        def late(*args: Any, **options: Any) -> Any:
            monkeypatch.setattr(sqlite_file, "_connect", connect)
            for statement in ("PRAGMA cache_size = 5", "BEGIN", "UPDATE records SET value = zeroblob(20000)"):
                writer.execute(statement)
            return connect(*args, **options)

        monkeypatch.setattr(sqlite_file, "_connect", late)
        with pytest.raises(Unavailable, match="busy"):
            _latest_at_once(path)
        writer.execute("ROLLBACK")
        assert _latest_at_once(path) == 4


def test_a_publish_says_what_is_missing(directory: Path) -> None:
    """A user who may not write gets an error that speaks of the disk, or of another process."""
    path = directory / "s.db"
    publish(path, 1)
    path.chmod(0o444)
    directory.chmod(0o555)
    error = as_nobody(publish, path, 2)
    assert isinstance(error, AccessDenied)
    assert f"the file {path} belongs to user " in str(error)
    assert "write permission on the file and on its directory" in str(error)
    assert latest(path) == 1


def _reads_while_it_is_written(path: Path) -> Any:
    with swapstore.connect(url(path)) as store:
        seen: list[int] = []
        while not seen or seen[-1] < 40:
            found = store.read_latest("mena")
            assert found is not None
            assert len(found.value[1]) == 50_000
            seen.append(found.value[0])
        return seen


@root_only
def test_a_file_that_changes_while_it_is_read_without_a_log(directory: Path) -> None:
    """A reader that has no log reads half of one version and half of another."""
    path = directory / "s.db"
    publish(path, [0, "x" * 50_000])
    path.chmod(0o644)
    directory.chmod(0o755)
    child = os.fork()
    if child == 0:
        for number in range(1, 41):
            publish(path, [number, "x" * 50_000])
        os._exit(0)
    seen = as_nobody(_reads_while_it_is_written, path)
    os.waitpid(child, 0)
    assert isinstance(seen, list), seen
    assert seen == sorted(seen)


def test_a_file_that_cannot_be_read_while_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that has no log takes a file in the middle of a change for a damaged one."""
    path, carry_out, access = tmp_path / "s.db", commands.carry_out, os.access
    publish(path, 1)
    monkeypatch.setattr(os, "access", lambda file, mode: not mode & os.W_OK and access(file, mode))

    def torn(*_: Any) -> Any:
        monkeypatch.setattr(driver, "carry_out", carry_out)
        with closing(sqlite3.connect(path)) as writer, writer:
            writer.execute("INSERT INTO members VALUES ('key', 'member')")
        raise sqlite3.DatabaseError("database disk image is malformed")

    monkeypatch.setattr(driver, "carry_out", torn)
    assert latest(path) == 1


def test_a_reader_that_made_a_backup_sees_what_comes_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that has no log goes on to read the file as it was when it was backed up."""
    path, access = tmp_path / "s.db", os.access
    publish(path, 1)
    with swapstore.connect(url(path)) as store:
        with monkeypatch.context() as during:
            during.setattr(os, "access", lambda file, mode: not mode & os.W_OK and access(file, mode))
            store.backup(tmp_path / "copy.db")
        publish(path, 2)
        found = store.read_latest("mena")
        assert found is not None
        assert found.value == 2


@root_only
def test_a_log_of_another_user_is_named(directory: Path) -> None:
    """The owner of a file cannot use it any more, and neither the error nor `doctor` says why."""
    path = directory / "s.db"
    directory.chmod(0o777)
    publish(path, 1)
    for part in ("", "-wal", "-shm"):
        Path(f"{path}{part}").touch()
    os.chown(path, NOBODY, NOBODY)
    for part in ("-wal", "-shm"):
        os.chown(f"{path}{part}", 12_345, 12_345)
        Path(f"{path}{part}").chmod(0o600)
    for error in (as_nobody(latest, path), as_nobody(publish, path, 2)):
        assert isinstance(error, AccessDenied), error
        assert "s.db-wal belongs to user 12345" in str(error)
        assert "chown --reference" in str(error)
    file = as_nobody(_examined, path)["file"]
    assert file.verdict == "problem"
    assert "s.db-wal belongs to user 12345" in file.found + file.advice


def _examined(path: Path) -> Any:
    with swapstore.connect(url(path)) as store:
        return {check.name: check for check in store.doctor()}


@root_only
def test_a_read_only_mount(tmp_path: Path) -> None:
    """A store on a read-only mount cannot be read."""
    where = tmp_path / "mounted"
    where.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", where], check=False).returncode:
        pytest.skip("this machine does not allow to mount")
    try:
        path = where / "s.db"
        publish(path, "cold")
        subprocess.run(["mount", "-o", "remount,ro", where], check=True)
        assert latest(path) == "cold"
        assert everything(path) == [["mena"], [1], 1, []]
        with pytest.raises(AccessDenied):
            publish(path, "more")
        subprocess.run(["mount", "-o", "remount,rw", where], check=True)
        publish_and_die(path, "killed")
        subprocess.run(["mount", "-o", "remount,ro", where], check=True)
        assert latest(path) == "killed"
    finally:
        subprocess.run(["umount", "-l", where], check=True)
