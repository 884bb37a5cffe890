"""A SQLite store on a disk without a free byte, which is mounted for the test."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import swapstore
from swapstore import Retention, Store
from swapstore.drivers.sqlite import file as sqlite_file
from swapstore.drivers.sqlite import reserve
from swapstore.drivers.sqlite.identity import Parts
from swapstore.errors import StoreFull
from tests.support import invariants

SIZE = 20 * 1024 * 1024


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small disk of its own, on which a store soon counts as large."""
    monkeypatch.setattr(reserve, "LARGE", 1)
    if os.geteuid() != 0:
        pytest.skip("only root can mount")
    where = tmp_path / "disk"
    where.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(where)]
    if subprocess.run(mount, check=False).returncode:
        pytest.skip("this machine does not allow to mount")
    yield where
    subprocess.run(["umount", "-l", where], check=True)


def opened(disk: Path, retention: Retention | None = None) -> Store:
    return swapstore.connect(f"sqlite:///{disk}/s.db", retention=retention)


def fill_by_publishing(store: Store, size: int) -> int:
    for number in range(10_000):
        try:
            store.publish("mena", ["x" * size, number], id=f"id-{number}")
        except StoreFull:
            return number
    raise AssertionError("the disk is not full")


def fill_by_another(disk: Path) -> None:
    with (disk / "another").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * 4096)
        except OSError:
            pass


@pytest.mark.slow
@pytest.mark.parametrize("size", [8_000, 100_000])
@pytest.mark.parametrize("process", ["the one that published", "another"])
@pytest.mark.parametrize("filled_by", ["the store", "another program"])
def test_old_data_can_go(disk: Path, size: int, process: str, filled_by: str) -> None:
    """The advice is to let old data go, and there is no room to do so."""
    store = opened(disk)
    if filled_by == "the store":
        count = fill_by_publishing(store, size)
    else:
        count = 10_000_000 // size
        for number in range(count):
            store.publish("mena", ["x" * size, number], id=f"id-{number}")
    if process == "another":
        store.close()
        store = opened(disk)
    if filled_by == "another program":
        fill_by_another(disk)
    with pytest.raises(StoreFull):
        store.publish("mena", ["x" * 5_000_000], id="new")
    assert store.status("mena").version == count  # type: ignore[union-attr]
    assert store.confirm("mena").version == count + 1
    assert store.rollback("mena", id="id-2").latest.id == "id-2"
    assert store.pin("mena", id="id-3").pinned is not None
    assert store.unpin("mena").pinned is None
    pruned = store.prune("mena", retention=Retention(max_count=10))
    assert pruned.count < 110
    found = store.read_latest("mena")
    assert found is not None
    assert found.id == "id-2"
    invariants.check(store)
    store.close()
    (disk / "another").unlink(missing_ok=True)
    with opened(disk) as store:
        assert not [finding for finding in store.verify() if finding.wrong]
        for number in range(40):
            store.publish("mena", ["x" * size, number], id=f"after-{number}")


@pytest.mark.slow
def test_any_number_of_swaps_fits_the_reserve(disk: Path) -> None:
    """A large prune is cut off in the middle: the log of its swaps has taken all of the reserve."""
    with opened(disk) as store:
        for number in range(1_000):
            store.publish("mena", ["x" * 8_000, number], id=f"id-{number}")
    with opened(disk) as store:
        fill_by_another(disk)
        assert store.prune("mena", retention=Retention(max_count=10)).count < 40
        assert (disk / "s.db-wal").stat().st_size < reserve.RESERVE_BYTES / 8
        invariants.check(store)


@pytest.mark.slow
@pytest.mark.parametrize(("max_count", "size"), [(3, 8_000), (100, 8_000), (3, 100_000)])
def test_a_store_of_a_steady_size_goes_on(
    disk: Path, monkeypatch: pytest.MonkeyPatch, max_count: int, size: int
) -> None:
    """Another program fills the disk. What publishes unlink takes room for longer, and none is left."""
    now_ms, minute_ms = 1_800_000_000_000, 60_000
    with opened(disk, Retention(max_count=max_count)) as store:
        monkeypatch.setattr(store._driver, "_now_ms", lambda: now_ms)
        for number in range(250):
            store.publish("mena", ["x" * size, number], id=f"id-{number}")
            now_ms += 11 * minute_ms
        fill_by_another(disk)
        for number in range(60):
            assert store.publish("mena", ["x" * size, number], id=f"full-{number}").created
        assert [row.id for row in store.history("mena", limit=3)] == ["full-59", "full-58", "full-57"]
        invariants.check(store)


def test_a_full_disk_can_be_read(disk: Path) -> None:
    """A process that starts on a full disk cannot read, because SQLite has no room for its files."""
    with opened(disk) as store:
        store.publish("mena", 1)
    fill_by_another(disk)
    with opened(disk) as store:
        found = store.read_latest("mena")
        assert found is not None
        assert found.value == 1
        with pytest.raises(StoreFull):
            store.publish("mena", 2)
        (disk / "another").unlink()
        assert store.publish("mena", 2).version == 2


def test_a_log_for_which_there_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that starts on a full disk reads the file without the commits in its log."""
    connect = sqlite_file._connect

    def full(parts: Parts, access: sqlite_file.Access, *arguments: Any, **options: Any) -> Any:
        if access is sqlite_file.Access.WRITE:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
            raise error
        return connect(parts, access, *arguments, **options)

    with opened(tmp_path) as store:
        store.publish("mena", 1)
        monkeypatch.setattr(sqlite_file, "_connect", full)
        with opened(tmp_path) as another, pytest.raises(StoreFull):
            another.read_latest("mena")
    with opened(tmp_path) as another:
        found = another.read_latest("mena")
        assert found is not None, "closed, the file is whole"
        with pytest.raises(StoreFull):
            another.publish("mena", 2)


def test_room_is_reserved_again(disk: Path) -> None:
    """The second time that the disk is full, nothing can be pruned."""
    with opened(disk) as store:
        for number in range(60):
            store.publish("mena", ["x" * 100_000, number])
    with opened(disk) as store:
        store.datasets()
        assert (disk / "s.db-reserve").stat().st_size == reserve.RESERVE_BYTES
        reserve.give(store._driver._idle[0].parts)  # type: ignore[attr-defined]
        for number in range(200):
            store.publish("mena", ["x" * 10_000, number])
        assert (disk / "s.db-reserve").stat().st_size == reserve.RESERVE_BYTES, "by a process that goes on"


def test_half_a_reserve_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk fills up while room is reserved, and the little that was reserved is taken for enough."""

    def write_half(path: Path, data: bytes) -> None:
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "s.db"
    path.touch()
    with monkeypatch.context() as full:
        full.setattr(Path, "write_bytes", write_half)
        reserve.keep(Parts.of(path), reserve.LARGE * reserve.RESERVE_BYTES)
    reserve.keep(Parts.of(path), reserve.LARGE * reserve.RESERVE_BYTES)
    assert (tmp_path / "s.db-reserve").stat().st_size == reserve.RESERVE_BYTES


def test_a_reserve_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    """A process is killed while it reserves room, and the little that it reserved is taken for enough."""
    path, half = tmp_path / "s.db", tmp_path / "s.db-reserve"
    path.touch()
    half.write_bytes(b"half")
    reserve.keep(Parts.of(path), reserve.LARGE * reserve.RESERVE_BYTES)
    assert half.stat().st_size == reserve.RESERVE_BYTES


def test_a_small_store_reserves_nothing(tmp_path: Path) -> None:
    """Each small store takes megabytes."""
    with swapstore.connect(f"sqlite:///{tmp_path}/s.db") as store:
        for number in range(60):
            store.publish("mena", ["x" * 100_000, number])
        assert {path.name for path in tmp_path.iterdir()} == {"s.db", "s.db-wal", "s.db-shm"}
