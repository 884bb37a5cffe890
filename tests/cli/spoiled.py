"""Published datasets, and functions that damage them in the SQLite file without the library."""

from __future__ import annotations

import sqlite3
import time

import pytest

from swapstore import connect
from tests.cli.conftest import Swapstore
from tests.support.times import at

DEEP = 75  # snapshots: more than a page holds


@pytest.fixture
def published(swapstore: Swapstore) -> Swapstore:
    with connect(swapstore.url) as store:
        for number in range(DEEP):
            store.publish("mena", {"n": number}, id=f"id-{number}", ts=at(number + 1))
        store.publish("europe", 1, id="one")
    return swapstore


def spoil(swapstore: Swapstore, statement: str, *values: object) -> None:
    """Change the file without the library."""
    with sqlite3.connect(swapstore.path) as file:
        assert file.execute(statement, values).rowcount
    file.close()


def delete(swapstore: Swapstore, *endings: str) -> None:
    for ending in endings:
        spoil(swapstore, "DELETE FROM records WHERE key LIKE ?", f"%{ending}")


def put(swapstore: Swapstore, key: str, expires_in_ms: int | None = None) -> None:
    """Write a key that swapstore did not write; its value is no record."""
    expires_at = None if expires_in_ms is None else time.time_ns() // 1_000_000 + expires_in_ms
    spoil(swapstore, "INSERT INTO records VALUES (?, x'00', ?)", key, expires_at)
