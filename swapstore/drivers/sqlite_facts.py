"""Questions about a SQLite store, a closed list: how its file is, and what the database says of itself."""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from swapstore.commands import Ask

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable

# Asked alone: it is answered of a file that cannot be opened, and makes none where there is none.
FILE = Ask(("file",))

_MOUNTS = Path("/proc/self/mounts")  # Linux


def of_file(path: Path) -> dict[str, Any]:
    """Look at the file from outside."""
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
    """Whether it is there, or may be: what lies in a closed directory shows when it is opened."""
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
    """The kind of the mount that the directory is on: of those above it the nearest, and the last made."""
    try:
        lines = _MOUNTS.read_text("utf-8", "replace").splitlines()
        above = {str(place) for place in (directory.resolve(), *directory.resolve().parents)}
    except OSError:
        return None
    mounts = [line.split(" ") for line in lines]
    plain = [(place.replace(r"\040", " "), kind) for _, place, kind, *_ in mounts]
    kinds = {len(place): kind for place, kind in plain if place in above}
    return kinds[max(kinds)] if kinds else None


def answer(connection: sqlite3.Connection, command: Ask, _now: int) -> Any:
    """Answer one question to the database."""
    return _ANSWERS[command.words](connection)


def _first(connection: sqlite3.Connection, statement: str) -> Any:
    return connection.execute(statement).fetchone()[0]


def _take_write_lock(connection: sqlite3.Connection) -> bool:
    connection.execute("BEGIN IMMEDIATE")
    # Of a file that is read-only the line above makes a reading transaction; this one is refused.
    connection.execute("DELETE FROM records WHERE 0")
    connection.execute("ROLLBACK")
    return True


_ANSWERS: dict[tuple[str, ...], Callable[[sqlite3.Connection], Any]] = {
    ("version",): lambda connection: _first(connection, "SELECT sqlite_version()"),
    ("journal mode",): lambda connection: _first(connection, "PRAGMA journal_mode"),
    ("quick check",): lambda connection: _first(connection, "PRAGMA quick_check(1)"),
    ("write lock",): _take_write_lock,
}
