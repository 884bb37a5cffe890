"""Which file is open: its three parts seen from outside, and whether the log belongs to the file.

A SQLite store is three files: the main file, `-wal` with the newest commits, and `-shm`, which the processes
share. SQLite takes any `-wal` that lies beside a main file for its log. If the main file was restored from a
backup since, it mixes the pages of two files, and both are lost. So each transaction that writes leaves a
mark on page 2, which nothing else uses: a random name for the state that it makes, and the name of the state
before. A log belongs to a main file whose state it knows.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from swapstore.structs import Struct

if TYPE_CHECKING:
    from collections.abc import Iterator

SCHEMA = "CREATE TABLE lineage (id INTEGER PRIMARY KEY, mark BLOB, previous BLOB, current BLOB)"
FIRST = "INSERT INTO lineage VALUES (1, ?, ?, ?)"
STATE_BYTES = 12

_NEXT = "UPDATE lineage SET mark = ?, previous = current, current = ?"
_MAGIC = b"swapstor"
_PAGE = 2  # where `lineage` is: it is the first table of the schema, also in a copy that VACUUM made
_CELL_HEADER = 7  # bytes of a row before its first blob: two lengths, and a header of five bytes
_MARK_BYTES = len(_MAGIC) + 4
_WAL_HEADER = 32
_FRAME_HEADER = 24
_WAL_MAGIC = (0x377F0682, 0x377F0683)
_LOOKS = 10

Identity = tuple[int, int] | None  # device and inode; None: there is no such file


def mark(connection: sqlite3.Connection) -> bytes:
    """Return the mark of the file's layout. A copy made by SQLite has another `schema_version`."""
    schema_version: int = connection.execute("PRAGMA schema_version").fetchone()[0]
    return _MAGIC + schema_version.to_bytes(4, "big")


def advance(connection: sqlite3.Connection) -> None:
    """Name the state that the open transaction makes. Only within it is the layout certain."""
    connection.execute(_NEXT, (mark(connection), os.urandom(STATE_BYTES)))


# --- the three files, from outside -----------------------------------------------------------------


class Parts(Struct, frozen=True):
    """The paths of the three files. The logs are beside the file that a symbolic link leads to.

    `journal`: what undoes an unfinished transaction, where a file has no `-wal` (`VACUUM INTO` makes such).
    """

    main: str
    wal: str
    shm: str
    journal: str

    @classmethod
    def of(cls, path: Path) -> Parts:
        """Return the paths of the files of a store."""
        real = os.path.realpath(path)
        return cls(str(path), f"{real}-wal", f"{real}-shm", f"{real}-journal")

    @property
    def where(self) -> str:
        """The store, for messages."""
        return f"sqlite {self.main}"

    @property
    def has_log(self) -> bool:
        """Whether the main file alone is not the store: commits are in its log, or one is unfinished."""
        return bool(size_of(self.wal) or size_of(self.journal))

    def blocked(self) -> tuple[str, str] | None:
        """Say which of the files this user may not use, and what to do; None if it is none.

        A user who may not write the main file only reads the others.
        """
        may_write = os.access(self.main, os.W_OK)
        for path in (self.main, self.wal, self.shm):
            try:
                owner = name_of_user(Path(path).stat().st_uid)
            except FileNotFoundError:
                continue
            except OSError as error:
                return (
                    f"{this_user()} cannot look at {path} ({error.strerror})",
                    f"check the permissions of each directory on the way to it (namei -l {path} shows them)",
                )
            if os.access(path, os.R_OK | (os.W_OK if may_write else 0)):
                continue
            found = f"{path} belongs to {owner}, and {this_user()} may not use it"
            advice = (
                f"run as {owner}, or let {owner} run chmod a+r {path} if everybody may read it; to publish, "
                "this user needs write permission too, and on the directory"
            )
            if path != self.main:
                found += f": a process of {owner} made it"
                advice = (
                    f"stop that process; then let root run chown --reference={self.main} {self.wal} "
                    f"{self.shm}. Run all that publish as one user, or it happens again"
                )
            return found, advice
        if not may_write and size_of(self.wal) and not Path(self.shm).exists():
            found = f"{self.wal} has the newest commits, but {self.shm} is missing"
            return (
                f"{found}, and {this_user()} may not make it",
                "let a user who may write open the store once (`swapstore doctor`)",
            )
        if not may_write and size_of(self.journal):
            return (
                f"{self.journal} has what undoes an unfinished transaction, and {this_user()} may not do so",
                "let a user who may write open the store once (`swapstore doctor`)",
            )
        return None

    def unwritable(self) -> str:
        """Say what this user may not write of what a publish has to write; empty if it is nothing."""
        return unwritable(self.main, "the file") or unwritable(os.path.dirname(self.wal), "the directory")  # noqa: PTH120


def unwritable(path: str, what: str) -> str:
    """Say why this user may not write a file or directory; empty if it may, or if there is none."""
    if not os.path.exists(path) or os.access(path, os.W_OK):  # noqa: PTH110 - it raises nothing
        return ""
    if os.statvfs(path).f_flag & os.ST_RDONLY:
        return f"{what} {path} is on a file system that is mounted read-only"
    owner = name_of_user(Path(path).stat().st_uid)
    return f"{what} {path} belongs to {owner}, and {this_user()} may not write it"


def name_of_user(number: int) -> str:
    """Return a user's name, for messages; the number if it has none."""
    try:
        import pwd  # noqa: PLC0415 - only messages need it, and some systems lack it

        return f"user {pwd.getpwuid(number).pw_name}"
    except (ImportError, KeyError):
        return f"user {number}"


def this_user() -> str:
    """Return the name of the user of this process, for messages."""
    return name_of_user(os.geteuid()) if hasattr(os, "geteuid") else "this user"


class Look(NamedTuple):
    """Which files are at the three paths, and when the main file was written last, and its size."""

    main: Identity
    wal: Identity
    shm: Identity
    written: tuple[int, int]

    @property
    def files(self) -> tuple[Identity, Identity, Identity]:
        """Which files they are."""
        return self[:3]

    @property
    def logs(self) -> tuple[Identity, Identity]:
        """Which `-wal` and `-shm` there are."""
        return self[1:3]

    @property
    def is_nothing(self) -> bool:
        """Whether none of the files is seen."""
        return self.files == (None, None, None)


def look(parts: Parts) -> Look:
    """Look at the three paths. It opens no file: to close one would drop the locks that SQLite has on it."""
    try:  # this is done before and after each batch, and `os.stat` is the fastest way
        main, wal, shm = os.stat(parts.main), os.stat(parts.wal), os.stat(parts.shm)  # noqa: PTH116
    except OSError:
        return _look_at_each(parts)
    return Look(
        (main.st_dev, main.st_ino),
        (wal.st_dev, wal.st_ino),
        (shm.st_dev, shm.st_ino),
        (main.st_mtime_ns, main.st_size),
    )


def _look_at_each(parts: Parts) -> Look:
    files: list[Identity] = []
    written = (0, 0)
    for path in (parts.main, parts.wal, parts.shm):
        try:
            found = Path(path).stat()
        except OSError:
            files.append(None)
            continue
        files.append((found.st_dev, found.st_ino))
        written = (found.st_mtime_ns, found.st_size) if path is parts.main else written
    return Look(files[0], files[1], files[2], written)


def size_of(path: str) -> int:
    """Return a file's size in bytes; 0 if there is none."""
    with suppress(OSError):
        return Path(path).stat().st_size
    return 0


# --- whether the log belongs to the file -----------------------------------------------------------


def first_state(created: Look) -> bytes:
    """Return the state of a file that was just created. It names the file itself."""
    inode = created.main[1] if created.main else 0
    return os.urandom(STATE_BYTES - 8) + inode.to_bytes(8, "big")


def is_copy_without_log(connection: sqlite3.Connection, found: Look) -> bool:
    """Say whether the file was never written to, and was created as another file.

    Such is what `cp` makes of a young store that is open: its commits are in its log.
    """
    previous, current = connection.execute("SELECT previous, current FROM lineage").fetchone() or (b"", None)
    inode = found.main[1] if found.main else 0
    return previous == current and not previous.endswith(inode.to_bytes(8, "big"))


def is_foreign_log(parts: Parts, known: bytes | None = None) -> bool:
    """Say whether the `-wal` is the log of another file than the one beside it.

    `known`: the newest state, as a connection sees it. If the main file has it, the log need not be read.
    """
    for _ in range(_LOOKS):
        if size_of(parts.wal) <= _WAL_HEADER:
            return False
        before = (_generation(parts.wal), state_of(parts.main))
        if known is not None and before[1].current == known:
            return False
        if before[1].is_known(_read_log(parts.wal)):
            return False
        if before == (_generation(parts.wal), state_of(parts.main)):
            return True
        # A checkpoint came in between. It wrote the main file, or another log was begun.
    return False


class State(Struct, frozen=True):
    """The state that the main file has without its log.

    `current` is None if there is none: the file is empty (`is_empty`), is being created, or is not ours.
    """

    current: bytes | None = None
    schema_version: int = 0
    is_empty: bool = False

    def is_known(self, log: Log) -> bool:
        """Say whether the log continues from this state, or contains it."""
        if self.is_empty:
            return False
        if self.current is None:
            return self.schema_version == 0 or not log.states
        if not log.states:
            return True  # another program has written all of it
        # Another program may have run VACUUM, which makes the next layout and keeps the state.
        layouts = {self.schema_version, self.schema_version + 1}
        return self.current in log.states and not layouts.isdisjoint(log.schema_versions)


class Log(Struct, frozen=True):
    """The states and the layouts that a `-wal` knows."""

    states: frozenset[bytes] = frozenset()
    schema_versions: frozenset[int] = frozenset()


def state_of(path: str) -> State:
    """Read the main file alone, as if it had no log."""
    if not size_of(path):
        return State(is_empty=True)
    address = f"file:{quote(os.fspath(path))}?mode=ro&immutable=1"
    schema_version = 0
    with suppress(sqlite3.Error), closing(sqlite3.connect(address, uri=True)) as connection:
        (schema_version,) = connection.execute("PRAGMA schema_version").fetchone()
        (current,) = connection.execute("SELECT current FROM lineage").fetchone() or (None,)
        return State(current, schema_version)
    return State(None, schema_version)


def _generation(path: str) -> bytes:
    """Return the header of a log: it has another one after each time that it is begun anew."""
    with suppress(OSError), Path(path).open("rb") as file:
        return file.read(_WAL_HEADER)
    return b""


def _read_log(path: str) -> Log:
    """Return what a log knows: page 2 of each commit, and the layouts on its first pages."""
    states: set[bytes] = set()
    schema_versions: set[int] = set()
    for number, page in _first_pages(path):
        if number == 1:
            schema_versions.add(int.from_bytes(page[40:44], "big"))
            continue
        start = int.from_bytes(page[8:10], "big") + _CELL_HEADER
        found = page[start : start + _MARK_BYTES]
        if found.startswith(_MAGIC):
            schema_versions.add(int.from_bytes(found[len(_MAGIC) :], "big"))
            previous = start + _MARK_BYTES
            current = previous + STATE_BYTES
            states |= {page[previous:current], page[current : current + STATE_BYTES]}
    return Log(frozenset(states), frozenset(schema_versions))


def _first_pages(path: str) -> Iterator[tuple[int, bytes]]:
    """Return the copies of pages 1 and 2 in a log, with their numbers."""
    with suppress(OSError), Path(path).open("rb", buffering=0) as file:
        header = file.read(_WAL_HEADER)
        if int.from_bytes(header[:4], "big") not in _WAL_MAGIC:
            return
        page_bytes, salts = int.from_bytes(header[8:12], "big"), header[16:24]
        at = _WAL_HEADER
        while True:
            frame = os.pread(file.fileno(), _FRAME_HEADER, at)
            if len(frame) < _FRAME_HEADER or frame[8:16] != salts:
                return  # the rest is of an earlier use of the file
            number = int.from_bytes(frame[:4], "big")
            if number <= _PAGE:
                yield number, os.pread(file.fileno(), page_bytes, at + _FRAME_HEADER)
            at += _FRAME_HEADER + page_bytes
