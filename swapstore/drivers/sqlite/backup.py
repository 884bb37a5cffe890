"""Backup and restore: each is one transaction, beside other processes that read and write.

Nobody replaces a file, so no log can be left over. SQLite copies page by page, from one state of the file.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from swapstore.drivers.sqlite import errors, file, identity
from swapstore.errors import Corrupt, InvalidInput, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from swapstore.drivers.sqlite.file import Opened

_BUSY_SLEEP_S = 0.05


def back_up(opened: Opened, path: str, timeout_s: float) -> int:
    """Copy the store into a new file, and return its size in bytes. When it has its name, it is whole.

    A process that is killed leaves a file whose name ends with `.partial`. It may be deleted.
    """
    if opened.look.is_nothing:
        raise NotFound(f"{opened.parts.where} does not exist, so there is nothing to copy")
    target = Path(path)
    partial = target.with_name(f"{target.name}.{os.urandom(4).hex()}.partial")  # others may copy to the name
    if os.path.lexists(target):
        raise _taken(target)
    try:
        partial.touch(mode=Path(opened.parts.main).stat().st_mode & 0o777, exist_ok=False)
    except OSError as error:
        raise Unavailable(
            f"no backup can be written to {target} ({error.strerror}); nothing was copied. Is its "
            "directory there, and may you write to it?"
        ) from error
    try:
        _copy_into(partial, opened, timeout_s)
        _refuse_if_torn(opened)
        _give_name(partial, target)
    finally:
        for part in ("", "-wal", "-shm", "-journal"):
            Path(f"{partial}{part}").unlink(missing_ok=True)
    _make_durable(target.parent)
    return target.stat().st_size


def _give_name(partial: Path, target: Path) -> None:
    """Give a whole copy its name, unless another file has that name by now."""
    try:
        target.hardlink_to(partial)
    except FileExistsError:
        raise _taken(target) from None
    except OSError:  # the file system has no hard links
        partial.rename(target)


def _taken(target: Path) -> InvalidInput:
    return InvalidInput(f"{target} exists already, and a backup does not replace a file; choose another name")


def _copy_into(partial: Path, opened: Opened, timeout_s: float) -> None:
    """Copy into an empty file. It gets a state of its own: no log of the store is taken for its log."""
    try:
        with closing(sqlite3.connect(partial, isolation_level=None)) as copy:
            wait = _waiting(timeout_s, opened.parts.where)
            opened.connection.backup(copy, progress=wait, sleep=_BUSY_SLEEP_S)
            identity.advance(copy)
            _refuse_if_damaged(copy, opened.parts.where)
    except sqlite3.Error as error:
        raise errors.translated(error, identity.Parts.of(partial)) from error


def restore(opened: Opened, path: str, timeout_s: float) -> None:
    """Replace the whole content of a store by that of another file, in one transaction."""
    source = Path(path)
    if not os.path.isfile(source):  # noqa: PTH113 - it says so of a name that is too long, too
        raise InvalidInput(f"{source} is not there, or is not a file; nothing was changed")
    if source.samefile(opened.parts.main):
        raise InvalidInput(f"{source} is the store itself; nothing was changed")
    try:
        found = file.open_file(source, timeout_s)
    except Corrupt as error:
        reason = error.__cause__ or error  # what SQLite says, without the advice for a store
        raise Corrupt(f"{source} is no backup that can be read; nothing was changed ({reason})") from error
    with closing(found.connection):
        _refuse_if_damaged(found.connection, found.parts.where)
        with errors.while_writing(opened.connection, opened.parts):
            opened.use_log(timeout_s)
        with _keep_in_log(opened, timeout_s), errors.while_committing(opened.connection, opened.parts):
            wait = _waiting(timeout_s, opened.parts.where)
            found.connection.backup(opened.connection, progress=wait, sleep=_BUSY_SLEEP_S)
    _advance(opened)


def _waiting(timeout_s: float, where: str) -> Callable[[int, int, int], None]:
    """Return what SQLite calls after each step of a copy: it gives up when the file stays busy.

    A copy that is slow goes on. It is called after the last step, too, when everything is committed.
    """
    deadline = time.monotonic() + timeout_s

    def after_step(status: int, *_: int) -> None:
        if status in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED} and time.monotonic() > deadline:
            raise Unavailable(
                f"{where} stayed busy for longer than its timeout; nothing is changed; try again"
            )

    return after_step


@contextmanager
def _keep_in_log(opened: Opened, timeout_s: float) -> Iterator[None]:
    """Keep the main file's state in the log: what is restored has a state of its own, which follows on none.

    A checkpoint copies nothing that is newer than what a reader sees. So the main file stays at the state
    that is read here, or at one before it, and the log has the commit that follows on it.
    """
    with closing(file.open_file(Path(opened.parts.main), timeout_s).connection) as reader:
        reader.execute("BEGIN")
        identity.mark(reader)
        _advance(opened)
        yield


def _advance(opened: Opened) -> None:
    with errors.while_writing(opened.connection, opened.parts):
        opened.connection.execute("BEGIN IMMEDIATE")
        identity.advance(opened.connection)
    with errors.while_committing(opened.connection, opened.parts):
        opened.connection.execute("COMMIT")


def _refuse_if_torn(opened: Opened) -> None:
    if opened.access is file.Access.SNAPSHOT and not opened.is_unchanged():
        raise Unavailable(f"{opened.parts.where} was written while it was copied; try again")


def _refuse_if_damaged(connection: sqlite3.Connection, where: str) -> None:
    (health,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if health != "ok":
        raise Corrupt(f"{where} is damaged ({health}); nothing was copied. Look for an older backup")


def _make_durable(directory: Path) -> None:
    """Write the new name to disk. Some systems cannot: there the name may be lost in a power failure."""
    with suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
