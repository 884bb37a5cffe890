"""The SQLite file: opens and creates it, and answers what `doctor` asks about it."""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swapstore.commands import Ask
from swapstore.drivers.sqlite.errors import translated
from swapstore.errors import AccessDenied, Corrupt, Misconfigured, UnsupportedFormat

if TYPE_CHECKING:
    from collections.abc import Callable

BUSY_TIMEOUT_S = 10.0
APPLICATION_ID = 0x73776170  # "swap": what `file` and `PRAGMA application_id` show
SCHEMA_VERSION = 1

# It is asked in a batch of its own, and answered without opening the file, which would create it.
FILE = Ask(("file",))

_MOUNTS = Path("/proc/self/mounts")  # Linux

_SCHEMA = """
CREATE TABLE records (
  key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL CHECK (typeof(value) = 'blob'), expires_at INTEGER
);
CREATE INDEX records_by_expiry ON records (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE members (key TEXT NOT NULL, member TEXT NOT NULL, PRIMARY KEY (key, member)) WITHOUT ROWID;
"""


def open_file(path: Path, where: str, timeout_s: float) -> sqlite3.Connection:
    """Open the file, and create it and its tables if necessary.

    Raises `Misconfigured` if no file can be there, `Unavailable` if it cannot be opened, `Corrupt` if it
    belongs to another application, and `UnsupportedFormat` if its schema is newer than this version of
    swapstore.
    """
    try:
        connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise (_misplaced(path, where) or translated(error, where)) from error
    try:
        _prepare(connection, where, timeout_s)
    except sqlite3.Error as error:
        connection.close()
        raise (_misplaced(path, where) or translated(error, where)) from error
    except BaseException:
        connection.close()
        raise
    return connection


def _misplaced(path: Path, where: str) -> Misconfigured | None:
    """Return the error for a path at which no file can be opened, whatever SQLite says."""
    try:
        if path.is_dir():
            return Misconfigured(f"{where} cannot be opened: it is a directory. Add a file's name to the URL")
        if not path.parent.is_dir():
            return Misconfigured(f"{where} cannot be opened: its directory does not exist. Create it first")
    except PermissionError as error:
        return AccessDenied(
            f"{where} cannot be opened: {error.strerror}. Check the permissions on the way to it"
        )
    return None


def _prepare(connection: sqlite3.Connection, where: str, timeout_s: float) -> None:
    connection.execute("BEGIN")  # one consistent look: another process may be creating the file
    ours = _is_ours(connection, where)
    connection.execute("COMMIT")
    if not ours:
        _use_wal(connection, timeout_s)
        _create(connection, where)
    connection.execute("PRAGMA synchronous = FULL")


def _is_ours(connection: sqlite3.Connection, where: str) -> bool:
    """Return whether our tables exist. Refuses another application's file, and a newer schema."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application == APPLICATION_ID:
        if version > SCHEMA_VERSION:
            raise UnsupportedFormat(
                f"{where} has schema {version} and this version of swapstore reads up to {SCHEMA_VERSION}; "
                "upgrade swapstore"
            )
        return True
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if application or tables:
        raise Corrupt(f"{where} is another application's database; give swapstore a file of its own")
    return False


def _use_wal(connection: sqlite3.Connection, timeout_s: float) -> None:
    """Switch to write-ahead logging, once in the lifetime of the file.

    The switch needs exclusive access and, unlike other statements, does not wait for it: two processes that
    create a file at the same time would get 'database is locked'.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _create(connection: sqlite3.Connection, where: str) -> None:
    connection.execute("BEGIN IMMEDIATE")
    if not _is_ours(connection, where):  # another process may have been first
        for statement in _SCHEMA.strip().split(";")[:-1]:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")


# --- what doctor asks: about the file from outside, then of the database ---------------------------


def of_file(path: Path) -> dict[str, Any]:
    """Return facts about the file that need no open database."""
    directory = path.parent
    return {
        "path": str(path),
        "directory": str(directory),
        "exists": _exists(path),
        "size": _size(path),
        "directory_exists": _is_directory(directory),
        "directory_writable": os.access(directory, os.W_OK | os.X_OK),
        "free": _free(directory),
        "file_system": _file_system(directory),
    }


def _exists(path: Path) -> bool:
    """Return whether the file exists or may exist: only opening shows what is in an unreadable directory."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _is_directory(path: Path) -> bool:
    with suppress(OSError):
        return path.is_dir()
    return False


def _size(path: Path) -> int:
    with suppress(OSError):
        return path.stat().st_size
    return 0


def _free(directory: Path) -> int | None:
    with suppress(OSError):
        return shutil.disk_usage(directory).free
    return None


def _file_system(directory: Path) -> str | None:
    """Return the type of the directory's mount: the nearest one above it, and the last one made there."""
    try:
        lines = _MOUNTS.read_text("utf-8", "replace").splitlines()
        above = {str(path) for path in (directory.resolve(), *directory.resolve().parents)}
    except OSError:
        return None
    mounts = [line.split(" ") for line in lines]
    plain = [(point.replace(r"\040", " "), kind) for _, point, kind, *_ in mounts]
    kinds = {len(point): kind for point, kind in plain if point in above}
    return kinds[max(kinds)] if kinds else None


def answer(connection: sqlite3.Connection, command: Ask, _now: int) -> Any:
    """Answer one question about the database."""
    return _ANSWERS[command.words](connection)


def _first(connection: sqlite3.Connection, statement: str) -> Any:
    return connection.execute(statement).fetchone()[0]


def _take_write_lock(connection: sqlite3.Connection) -> bool:
    connection.execute("BEGIN IMMEDIATE")
    # On a read-only file the line above begins a reading transaction; this line is refused.
    connection.execute("DELETE FROM records WHERE 0")
    connection.execute("ROLLBACK")
    return True


_ANSWERS: dict[tuple[str, ...], Callable[[sqlite3.Connection], Any]] = {
    ("version",): lambda connection: _first(connection, "SELECT sqlite_version()"),
    ("journal mode",): lambda connection: _first(connection, "PRAGMA journal_mode"),
    ("quick check",): lambda connection: _first(connection, "PRAGMA quick_check(1)"),
    ("write lock",): _take_write_lock,
}
