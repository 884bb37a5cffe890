"""The SQLite file: opens and creates it, and answers what `doctor` asks about it."""

from __future__ import annotations

import ctypes
import enum
import errno
import os
import shutil
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec

from swapstore.commands import Ask
from swapstore.drivers.sqlite import errors, identity, reserve
from swapstore.drivers.sqlite.identity import Look, Parts
from swapstore.errors import AccessDenied, Corrupt, Misconfigured, Unavailable, UnsupportedFormat

if TYPE_CHECKING:
    from collections.abc import Callable

BUSY_TIMEOUT_S = 10.0
OPENINGS = 20  # times that a file is opened anew because it is being replaced
APPLICATION_ID = 0x73776170  # "swap": what `file` and `PRAGMA application_id` show
SCHEMA_VERSION = 1

# It is asked in a batch of its own, and answered without opening the file, which would create it.
FILE = Ask(("file",))

_MOUNTS = Path("/proc/self/mounts")  # Linux

_SCHEMA = f"""
{identity.SCHEMA};
CREATE TABLE records (
  key TEXT PRIMARY KEY NOT NULL, value BLOB NOT NULL CHECK (typeof(value) = 'blob'), expires_at INTEGER
);
CREATE INDEX records_by_expiry ON records (expires_at) WHERE expires_at IS NOT NULL;
CREATE TABLE members (key TEXT NOT NULL, member TEXT NOT NULL, PRIMARY KEY (key, member)) WITHOUT ROWID;
"""


# --- connections -----------------------------------------------------------------------------------


class Access(enum.Enum):
    """What a connection may do. A user without write permission may not make `-wal` and `-shm` either:
    they would be this user's, and nobody else could write them.
    """  # noqa: D205

    WRITE = "read and write"
    READ = "read the file and its log"
    SNAPSHOT = "read the file, which has no log or is not there"  # valid as long as nobody writes


class Opened(msgspec.Struct):
    """A connection, and the files that it has open."""

    connection: sqlite3.Connection
    parts: Parts
    look: Look
    access: Access

    def is_usable(self) -> bool:
        """Say whether the files at the path are still those that the connection has open.

        On others, publishes would be acknowledged that no process can read.
        """
        now = identity.look(self.parts)
        if now == self.look:
            return True
        if now.files != self.look.files or self._is_overwritten():
            return False
        self.look = now
        if self.access is Access.WRITE:
            reserve.keep(self.parts, now.written[1])
        return True

    def is_in_place(self) -> bool:
        """Say whether the paths still lead to the files that the connection has open."""
        return identity.look(self.parts).files == self.look.files

    def is_unchanged(self) -> bool:
        """Say whether nobody has written, or begun to: without a log, a file that changes is read torn."""
        is_begun = self.look.main is not None and self.parts.has_log
        return not is_begun and identity.look(self.parts) == self.look

    def use_log(self, timeout_s: float) -> None:
        """Switch to write-ahead logging a file that another program made, such as `VACUUM INTO`."""
        if self.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",):
            return
        _use_wal(self.connection, timeout_s)
        self.connection.execute("SELECT id FROM lineage").fetchone()  # so SQLite opens the log
        self.look = identity.look(self.parts)

    def close(self) -> str:
        """Close the connection, unless SQLite would then write its log into a file that is not its own.

        The last connection to be closed writes the log into the main file, and deletes `-wal`. If these are
        not those that it has open, that destroys the commits of others. So such a connection is never closed,
        not even when the process ends. Returns the reason; empty if it is closed.
        """
        reason = self.reason_not_to_close()
        if reason:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self.connection))
        else:
            self.connection.close()
        return reason

    def reason_not_to_close(self) -> str:
        """Return why closing this connection would destroy what others wrote; empty if it does not."""
        now = identity.look(self.parts)
        if self.access is not Access.WRITE or now.main != self.look.main:
            return ""  # SQLite writes nothing then
        had_log = self.look.logs != (None, None)  # else another program may have switched to one since
        if had_log and now.logs not in {self.look.logs, (None, None)}:
            return (
                "its -wal or -shm was removed or replaced while this process had it open. Nothing is read or "
                "written any more; restart every process that uses the file, and run `swapstore verify`"
            )
        if now.written != self.look.written and self._is_overwritten():
            return (
                "another file was copied over it while this process had it open. Nothing is read or written "
                "any more; stop every process that uses it, move its -wal and -shm away, and copy again, or "
                "use `swapstore restore`"
            )
        return ""

    def _is_overwritten(self) -> bool:
        """Say whether the main file was written by something else than a checkpoint of its log."""
        try:
            (known,) = self.connection.execute("SELECT current FROM lineage").fetchone() or (None,)
        except sqlite3.Error:
            known = None
        return identity.is_foreign_log(self.parts, known)


def open_file(path: Path, timeout_s: float, *, writes: bool = False, private: bool = False) -> Opened:
    """Open the file. For a batch that `writes`, create it if necessary; `private`: for its owner alone.

    A batch that reads gets an empty store where there is no file: a misspelt path creates nothing. A user
    without write permission gets a connection that only reads. So does any user on a full disk, which has no
    room for a log, unless the batch writes.

    Raises `StoreFull` in that case, `Misconfigured` if no file can be there, `Unavailable` if it cannot be
    opened, `Corrupt` if it belongs to another application or its -wal to another file, and
    `UnsupportedFormat` if its schema is newer than this version of swapstore.
    """
    parts = Parts.of(path)
    is_full = False
    for _ in range(OPENINGS):
        before = identity.look(parts)
        if not writes and before.is_nothing and not _exists(path):
            return _empty(path, parts, before)
        access = Access.SNAPSHOT if is_full else _access(parts, before)
        if identity.is_foreign_log(parts):
            raise Corrupt(
                f"{parts.where} was replaced, and {parts.wal} is still the log of the file that was there "
                "before. Nothing was read or written. Stop every process that uses it; then move that file "
                f"and {parts.shm} away to go on with what is there now, or put the former file back"
            )
        try:
            connection = _connect(parts, access, timeout_s)
        except sqlite3.Error as error:
            if access is not Access.WRITE and identity.look(parts) != before:
                continue  # its log came or went
            is_full = errors.is_full(error) and not writes and not parts.has_log
            if is_full and access is Access.WRITE:
                continue
            raise (_misplaced(path, parts.where) or errors.translated(error, parts)) from error
        after = identity.look(parts)
        if before.main == after.main:
            if identity.is_copy_without_log(connection, after):
                connection.close()
                raise Corrupt(
                    f"{parts.where} is a copy of another store's main file alone: the commits are in that "
                    "store's -wal. Copy it with `swapstore backup`. If it was empty, delete this file"
                )
            if access is Access.WRITE:
                reserve.keep(parts, after.written[1])
            return Opened(connection, parts, after, access)
        # It was created or replaced since the look. Only what exists before it is opened can be compared.
        connection.close()
        if before.main is None and private:
            path.chmod(0o600)
    raise Unavailable(f"{parts.where} was replaced each time that it was opened; try again")


def _empty(path: Path, parts: Parts, found: Look) -> Opened:
    """Return a connection to an empty store in memory, in place of a file that is not there."""
    if misplaced := _misplaced(path, parts.where):
        raise misplaced
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    _create_tables(connection)
    return Opened(connection, parts, found, Access.SNAPSHOT)


def _access(parts: Parts, found: Look) -> Access:
    may_write = found.main is None or os.access(parts.main, os.W_OK)
    if may_write and (None not in found.logs or os.access(Path(parts.wal).parent, os.W_OK | os.X_OK)):
        return Access.WRITE
    return Access.READ if found.main is None or parts.has_log else Access.SNAPSHOT


def _connect(parts: Parts, access: Access, timeout_s: float) -> sqlite3.Connection:
    """Return a connection. It has read: so SQLite has opened all of its files."""
    options = {
        Access.WRITE: "mode=rwc",
        Access.READ: "mode=ro&readonly_shm=1",
        Access.SNAPSHOT: "mode=ro&immutable=1",
    }
    connection = sqlite3.connect(
        f"file:{quote(parts.main)}?{options[access]}",
        uri=True,
        timeout=timeout_s,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        _prepare(connection, parts, timeout_s, may_create=access is Access.WRITE)
    except BaseException:
        connection.close()
        raise
    return connection


def _misplaced(path: Path, where: str) -> Misconfigured | Unavailable | None:
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
    except OSError as error:
        kind = Misconfigured if error.errno == errno.ENAMETOOLONG else Unavailable
        return kind(f"{where} cannot be opened: {error.strerror}")
    return None


def _prepare(connection: sqlite3.Connection, parts: Parts, timeout_s: float, *, may_create: bool) -> None:
    connection.execute("BEGIN")  # one consistent look: another process may be creating the file
    ours = _is_ours(connection, parts.where)
    connection.execute("COMMIT")
    if not ours:
        if not may_create:
            raise Unavailable(
                f"{parts.where} is empty: it is a store once a user who may write has published"
            )
        _use_wal(connection, timeout_s)
        _create(connection, parts)
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
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
        if not names >= {"records", "members", "lineage"}:
            raise UnsupportedFormat(
                f"{where} lacks a table: a development version before 0.1.0 made it. Nothing was read or "
                "written; move the file away, or use that version"
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


def _create(connection: sqlite3.Connection, parts: Parts) -> None:
    connection.execute("BEGIN IMMEDIATE")
    if not _is_ours(connection, parts.where):  # another process may have been first
        _create_tables(connection)
        state = identity.first_state(identity.look(parts))
        connection.execute(identity.FIRST, (identity.mark(connection), state, state))
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(PASSIVE)")  # so that the main file alone shows whose it is


def _create_tables(connection: sqlite3.Connection) -> None:
    for statement in _SCHEMA.strip().split(";")[:-1]:
        connection.execute(statement)


# --- what doctor asks: about the file from outside, then of the database ---------------------------


def of_file(path: Path) -> dict[str, Any]:
    """Return facts about the file that need no open database."""
    directory, parts = path.parent, Parts.of(path)
    return {
        "path": str(path),
        "wal": parts.wal,
        "wal_size": identity.size_of(parts.wal),
        "blocked": parts.blocked(),
        "unwritable": parts.unwritable(),
        "without_log": _access(parts, identity.look(parts)) is Access.SNAPSHOT,
        "directory": str(directory),
        "exists": _exists(path),
        "size": _size(path),
        "directory_exists": _is_directory(directory),
        "directory_writable": os.access(directory, os.W_OK | os.X_OK),
        "directory_why": identity.unwritable(str(directory), "the directory") or "it may not be entered",
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


def _bytes_in_log_alone(connection: sqlite3.Connection) -> int | None:
    """Copy what can be copied from the log to the main file, and return how much is left. None: no log."""
    try:
        _, pages, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    except sqlite3.OperationalError:  # this user may not write
        return None
    page_size: int = _first(connection, "PRAGMA page_size")
    return None if pages < 0 else (pages - copied) * page_size


_ANSWERS: dict[tuple[str, ...], Callable[[sqlite3.Connection], Any]] = {
    ("version",): lambda connection: _first(connection, "SELECT sqlite_version()"),
    ("journal mode",): lambda connection: _first(connection, "PRAGMA journal_mode"),
    ("quick check",): lambda connection: _first(connection, "PRAGMA quick_check(1)"),
    ("write lock",): _take_write_lock,
    ("log",): _bytes_in_log_alone,
}
