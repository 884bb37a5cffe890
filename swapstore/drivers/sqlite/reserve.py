"""Room for swaps that let old data go: a file beside a large store, given away when its disk is full.

A transaction needs room in the log before any is free, and to empty the log, the main file may have to grow.
Without a reserve, nothing could be pruned on a full disk, nor could another snapshot be served.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from swapstore.drivers.sqlite.identity import size_of

if TYPE_CHECKING:
    from swapstore.drivers.sqlite.identity import Parts

RESERVE_BYTES = 4 * 1024 * 1024  # the length at which SQLite empties its log
LARGE = 8  # times the reserve: a smaller store has little to free


def keep(parts: Parts, main_bytes: int) -> None:
    """Reserve the room, unless it is reserved already, the store is small, or the disk is nearly full."""
    if main_bytes < LARGE * RESERVE_BYTES:
        return
    path = _path(parts)
    with suppress(OSError):
        if size_of(str(path)) >= RESERVE_BYTES or shutil.disk_usage(path.parent).free < 2 * RESERVE_BYTES:
            return
        path.unlink(missing_ok=True)  # the part that a killed process has left
        path.touch(mode=Path(parts.main).stat().st_mode & 0o777, exist_ok=False)
        try:
            path.write_bytes(os.urandom(RESERVE_BYTES))  # zeros take no room where the file system compresses
        except OSError:
            path.unlink()


def give(parts: Parts) -> None:
    """Give the room to the next transaction."""
    with suppress(OSError):
        _path(parts).unlink()


def is_short(parts: Parts) -> bool:
    """Say whether the disk has less room than a reserve."""
    with suppress(OSError):
        return shutil.disk_usage(Path(parts.main).parent).free < RESERVE_BYTES
    return False


def _path(parts: Parts) -> Path:
    return Path(f"{parts.wal.removesuffix('-wal')}-reserve")
