"""A writing batch on SQLite replies and stores what its commands would, one after the other."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from swapstore.commands import Command, Committed, Stage, Staged, Ttl, Unstaged
from swapstore.drivers.sqlite.commands import WritingBatch, carry_out
from swapstore.drivers.sqlite.driver import SqliteDriver
from swapstore.drivers.sqlite.file import _SCHEMA
from tests.support.batches import HEADERS, TTL_MS, commit, likely, some

NOW = 1_000_000
Rows = list[tuple[Any, ...]]


def opened() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(_SCHEMA)
    return connection


def state(connection: sqlite3.Connection) -> Rows:
    return connection.execute("SELECT key, value, expires_at FROM records ORDER BY key").fetchall()


def one_by_one(connection: sqlite3.Connection, commands: list[Command[Any]]) -> list[Any]:
    return [carry_out(connection, command, NOW) for command in commands]


def batched(connection: sqlite3.Connection, commands: list[Command[Any]]) -> list[Any]:
    batch = WritingBatch(connection, commands)
    replies = [batch.carry_out(command, NOW) for command in commands]
    batch.finish()
    return replies


def current(connection: sqlite3.Connection) -> bytes:
    found = connection.execute("SELECT value FROM records WHERE key = 'manifest'").fetchone()
    return found[0].partition(b"...")[0] if found else b""


@pytest.mark.parametrize("seed", range(40))
def test_a_batch_equals_its_commands_one_by_one(seed: int) -> None:
    """A batch in one transaction keeps uncommitted data, or loses committed data."""
    choice = random.Random(seed)
    committed = 0
    for _ in range(50):
        with closing(opened()) as short, closing(opened()) as long:
            for _ in range(4):
                odd = [some(choice) for _ in range(choice.randint(1, 7))]
                commands = odd if choice.random() < 0.4 else likely(choice, current(long))
                replies = batched(short, commands)
                assert replies == one_by_one(long, commands), commands
                assert state(short) == state(long), commands
                committed += sum(reply == Committed() for reply in replies)
    assert committed > 20, "or nothing was tried"


def test_a_record_that_expired_within_its_batch_is_not_committed() -> None:
    """A commit after a long pause names a record that others may have replaced since."""
    staging = Stage("a", HEADERS[0], TTL_MS)
    swap = commit(b"", b"1;", Staged("a", HEADERS[0]))
    with closing(opened()) as connection:
        batch = WritingBatch(connection, [staging, swap])
        assert batch.carry_out(staging, NOW)
        assert isinstance(batch.carry_out(swap, NOW + TTL_MS), Unstaged)


def test_a_publish_writes_its_payload_once() -> None:
    """Each payload is written twice, and a publish of a megabyte takes three times as long."""
    seen: list[str] = []
    header = HEADERS[0]
    with closing(opened()) as connection:
        connection.set_trace_callback(seen.append)
        stage = Stage("a", header, TTL_MS, b"payload")
        assert batched(connection, [stage, commit(b"", b"1;", Staged("a", header))]) == [True, Committed()]
        assert state(connection)[0] == ("a", header + b"payload", None)
    assert not [statement for statement in seen if statement.startswith("UPDATE")]


def test_a_refused_commit_leaves_staged_records() -> None:
    """A record that lost its race stays permanently, and so does its id."""
    header = HEADERS[0]
    with closing(opened()) as connection:
        stage = Stage("a", header, TTL_MS)
        batched(connection, [stage, commit(b"another;", b"1;", Staged("a", header))])
        assert state(connection) == [("a", header, NOW + TTL_MS)]


def test_a_refused_commit_leaves_staged_records_in_the_file(tmp_path: Path) -> None:
    """The driver does not end the batch, and keeps each record that lost its race."""
    header = HEADERS[0]
    driver = SqliteDriver(tmp_path / "store.db", now_ms=lambda: NOW)
    stage = Stage("a", header, TTL_MS)
    driver.execute([stage, commit(b"another;", b"1;", Staged("a", header))])
    assert driver.execute([Ttl("a")]) == [TTL_MS]
    driver.close()
