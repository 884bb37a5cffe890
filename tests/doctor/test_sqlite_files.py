"""`doctor` on SQLite files: sound ones, and those that a user finds on a bad day."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

import swapstore
from swapstore import Check, Store
from swapstore.doctor.sqlite import diagnose
from swapstore.drivers.sqlite import file as sqlite_file
from swapstore.drivers.sqlite.driver import SqliteDriver
from swapstore.errors import AccessDenied
from swapstore.protocol.operation import Batch
from tests.support.users import as_nobody


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that other users can reach, unlike that of pytest."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    made.chmod(0o755)
    shutil.rmtree(made)


def examine(path: Path) -> dict[str, Check]:
    with swapstore.connect(f"sqlite:///{path}") as store:
        return {check.name: check for check in store.doctor()}


def verdicts(path: Path) -> dict[str, str]:
    return {name: str(check.verdict) for name, check in examine(path).items()}


def publish(path: Path) -> None:
    with swapstore.connect(f"sqlite:///{path}") as store:
        store.publish("mena", {"regime": "calm"})


def test_a_sound_file_passes(directory: Path) -> None:
    """A file as swapstore made it gets a warning."""
    publish(directory / "s.db")
    checks = examine(directory / "s.db")
    of_this_machine = {"disk", "file system"}
    assert {check.verdict for name, check in checks.items() if name not in of_this_machine} == {"ok"}
    assert set(checks) == {
        *("file", "writing", "journal", "integrity", "log", "directory", "disk", "file system", "times"),
    }
    assert str(directory / "s.db") in checks["file"].found
    assert "24.6 KB" in checks["file"].found


def test_a_missing_file_is_not_created(directory: Path) -> None:
    """A check of a mistyped path leaves an empty store there."""
    path = directory / "s.db"
    checks = examine(path)
    assert "not there yet" in checks["file"].found
    assert not path.exists()
    missing = examine(directory / "none" / "s.db")
    assert missing["directory"].verdict == "problem"


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_read_only_file(directory: Path) -> None:
    """A producer of another user learns by a refused publish that the file is read-only."""
    path = directory / "s.db"
    publish(path)
    path.chmod(0o444)
    directory.chmod(0o777)
    found = as_nobody(verdicts, path)
    assert found["file"] == "ok"
    assert found["writing"] == "problem"
    assert found["integrity"] == "ok"
    assert found["journal"] == "ok", "SQLite says that a file without a log has another journal mode"
    check = as_nobody(examine, path)["writing"]
    assert f"the file {path} belongs to user " in check.found
    assert "write permission on the file and on its directory" in check.advice


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as two users")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_file_that_another_user_keeps_for_itself(directory: Path) -> None:
    """A store that was made with sudo cannot be read, and the advice is "check its permissions"."""
    path = directory / "s.db"
    publish(path)
    path.chmod(0o600)
    check = as_nobody(examine, path)["file"]
    assert check.verdict == "problem"
    assert check.found == f"{path} belongs to user root, and user nobody may not use it"
    assert f"let user root run chmod a+r {path}" in check.advice
    assert check.found not in check.advice


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_read_only_directory(directory: Path) -> None:
    """A file in a read-only directory passes, although no log can be made there."""
    path = directory / "s.db"
    publish(path)
    path.chmod(0o666)
    directory.chmod(0o555)
    found = as_nobody(verdicts, path)
    assert found["directory"] == "problem"
    assert found["writing"] == "problem"
    assert found["file"] == "ok"
    assert found["integrity"] == "ok"
    path.unlink()
    check = as_nobody(examine, path)["directory"]
    assert check.verdict == "problem"
    assert f"the directory {directory} belongs to user " in check.found
    assert isinstance(as_nobody(publish, path), AccessDenied)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_directory_that_may_not_be_entered(directory: Path) -> None:
    """`doctor` ends with a traceback instead of the reason."""
    path = directory / "secret" / "s.db"
    path.parent.mkdir(mode=0o700)
    publish(path)
    path.parent.chmod(0)
    found = as_nobody(verdicts, path)
    path.parent.chmod(0o700)
    assert "problem" in {found["file"], found["directory"]}


def test_a_damaged_file(directory: Path) -> None:
    """Damaged pages that nobody has read for a month are found only when they are needed."""
    path = directory / "s.db"
    with swapstore.connect(f"sqlite:///{path}") as store:
        for number in range(20):
            store.publish("mena", os.urandom(20_000), codec="bytes", id=f"id-{number}")
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 8192 * 4096)
        file.write(b"\xff" * 4096 * 12)
    found = verdicts(path)
    assert found["integrity"] == "problem"


def test_files_of_other_applications(directory: Path) -> None:
    """Another application's database is called sound, and every publish is refused."""
    path = directory / "theirs.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    check = examine(path)["file"]
    assert (check.verdict, "another application" in check.found) == ("problem", True)
    path.write_bytes(b"not a database" * 1000)
    assert examine(path)["file"].verdict == "problem"
    assert examine(directory)["file"].verdict == "problem"


def test_a_file_that_another_process_has_locked(directory: Path) -> None:
    """A process that hangs in a transaction is not named as the cause."""
    path = directory / "s.db"
    publish(path)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    context = swapstore.connect(f"sqlite:///{path}")._context
    with Store(SqliteDriver(path, timeout_s=0.05), context) as store:
        found = {check.name: check for check in store.doctor()}
    holder.close()
    assert (found["writing"].verdict, "busy" in found["writing"].found) == ("warning", True)
    assert found["integrity"].verdict == "ok"


def test_a_log_that_an_open_reader_keeps(directory: Path) -> None:
    """The log grows until the disk is full, because another program has forgotten a transaction."""
    path = directory / "s.db"
    with swapstore.connect(f"sqlite:///{path}") as store:
        store.publish("mena", 0)
        assert examine(path)["log"].verdict == "ok"
        forgotten = sqlite3.connect(path, isolation_level=None)
        forgotten.execute("BEGIN")
        forgotten.execute("SELECT count(*) FROM records").fetchone()
        for number in range(5):
            store.publish("mena", bytes([number]) * 4_000_000, codec="bytes")
        check = examine(path)["log"]
        assert (check.verdict, "fuser" in check.advice) == ("warning", True)
        assert "20.1 MB are not in the file yet" in check.found
        assert f"{path}-wal" in check.found
        forgotten.close()
        assert examine(path)["log"].verdict == "ok", "what is left is reused"


def test_another_journal_mode(directory: Path) -> None:
    """A file in another journal mode makes readers wait for publishes, without a warning."""
    path = directory / "s.db"
    publish(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    check = examine(path)["journal"]
    assert (check.verdict, "delete" in check.found) == ("warning", True)


def around(directory: Path, **facts: Any) -> dict[str, Check]:
    """Examine a missing file in a simulated environment."""
    with swapstore.connect(f"sqlite:///{directory}/s.db") as store:
        checking = diagnose(store._context)
    step = next(checking)
    assert isinstance(step, Batch)
    assert step.commands == (sqlite_file.FILE,)
    with pytest.raises(StopIteration) as stop:
        checking.send([{**sqlite_file.of_file(directory / "s.db"), **facts}])
    return {check.name: check for check in stop.value.value}


@pytest.mark.parametrize(
    ("megabytes", "verdict"), [(50, "problem"), (500, "warning"), (700, "ok"), (None, "unknown")]
)
def test_disk_space(directory: Path, megabytes: int | None, verdict: str) -> None:
    """The disk is nearly full, and the next publish is the first to notice."""
    free = None if megabytes is None else megabytes * 1_000_000
    assert around(directory, free=free)["disk"].verdict == verdict


@pytest.mark.parametrize(
    ("kind", "verdict"),
    [
        *((kind, "problem") for kind in ("nfs4", "smb2", "virtiofs", "glusterfs", "gpfs", "9p", "beegfs")),
        *((f"fuse.{kind}", "problem") for kind in ("s3fs", "sshfs", "glusterfs", "rclone", "gcsfuse")),
        *((kind, "ok") for kind in ("ext4", "xfs", "btrfs", "tmpfs", "overlay", "zfs", "apfs")),
        *((kind, "unknown") for kind in ("fuse", "fuseblk", "fuse.nobody-knows", None)),
    ],
)
def test_file_systems(directory: Path, kind: str | None, verdict: str) -> None:
    """Two machines that share a file over the network destroy it, without a warning."""
    assert around(directory, file_system=kind)["file system"].verdict == verdict


def test_the_mount_that_counts_is_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network mount below a local one passes as local, or the other way round."""
    here = tmp_path / "with space" / "data"
    here.mkdir(parents=True)
    mounts = tmp_path / "mounts"
    shared = str(here.parent).replace(" ", r"\040")
    mounts.write_text(f"a / ext4 rw 0 0\nb {shared} nfs4 rw 0 0\nc {here}x tmpfs rw 0 0\n")
    monkeypatch.setattr(sqlite_file, "_MOUNTS", mounts)
    assert sqlite_file.of_file(here / "s.db")["file_system"] == "nfs4"
    assert sqlite_file.of_file(tmp_path / "s.db")["file_system"] == "ext4"
    monkeypatch.setattr(sqlite_file, "_MOUNTS", tmp_path / "none")  # not Linux
    assert sqlite_file.of_file(here / "s.db")["file_system"] is None


def test_a_check_is_a_value() -> None:
    """A monitor cannot compare the checks of yesterday with those of today."""
    assert attrs.asdict(Check("disk", swapstore.Verdict.OK, "1 MB free")) == {
        "name": "disk",
        "verdict": "ok",
        "found": "1 MB free",
        "advice": "",
        "nodes": None,
    }
