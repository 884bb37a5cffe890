"""The COMMIT of a SQLite transaction fails: it was applied, or it was not, or nobody knows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import swapstore
from swapstore import Store
from swapstore.errors import AccessDenied, Contended, Corrupt, OutcomeUnknown, StoreFull, Unavailable
from tests.support import invariants

APPLIED, REFUSED = "applied", "refused"


class Failing(sqlite3.Connection):
    """A connection whose next statements fail as planned: what to fail, with which code, applied or not."""

    plan: list[tuple[str, int, str]] = []  # noqa: RUF012 - of all connections of a test
    seen: list[str] = []  # noqa: RUF012

    writing = False

    def execute(self, statement: str, *arguments: Any) -> sqlite3.Cursor:
        if statement == "COMMIT" and not self.writing:
            return super().execute(statement, *arguments)  # it ends the look at a file that is opened
        self.writing = statement != "COMMIT" and (self.writing or statement == "BEGIN IMMEDIATE")
        Failing.seen.append(statement)
        if Failing.plan and statement.startswith(Failing.plan[0][0]):
            _, code, outcome = Failing.plan.pop(0)
            if outcome == APPLIED:
                super().execute(statement, *arguments)
            error = sqlite3.OperationalError("as planned")
            error.sqlite_errorcode = code
            raise error
        return super().execute(statement, *arguments)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store of one version, on a file whose statements can fail."""
    connect = sqlite3.connect

    def failing(*arguments: Any, **options: Any) -> sqlite3.Connection:
        return connect(*arguments, **options, factory=Failing)

    monkeypatch.setattr(sqlite3, "connect", failing)
    with swapstore.connect(f"sqlite:///{tmp_path}/s.db") as made:
        made.publish("mena", "first", id="first")
        Failing.plan, Failing.seen = [], []
        yield made
        Failing.plan = []


def versions(store: Store) -> list[str]:
    return [snapshot.id for snapshot in store.history("mena")]


def commits() -> int:
    return Failing.seen.count("COMMIT")


@pytest.mark.parametrize("outcome", [APPLIED, REFUSED])
@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_NOMEM])
def test_a_commit_whose_end_is_unknown_is_done_once(store: Store, code: int, outcome: str) -> None:
    """A publish is told as failed although readers see it, or is committed twice."""
    Failing.plan = [("COMMIT", code, outcome)]
    commit = store.publish("mena", "second", id="second")
    assert (commit.version, commit.created) == (2, True)
    assert versions(store) == ["second", "first"]
    assert store.publish("mena", "third").version == 3
    invariants.check(store)


@pytest.mark.parametrize("outcome", [APPLIED, REFUSED])
def test_a_pin_whose_end_is_unknown_is_done_once(store: Store, outcome: str) -> None:
    """A pin is told as failed although readers get the pinned snapshot."""
    store.publish("mena", "second", id="second")
    Failing.plan = [("COMMIT", sqlite3.SQLITE_IOERR, outcome)]
    status = store.pin("mena", id="first")
    assert status.pinned is not None
    assert (status.pinned.id, status.version) == ("first", 3)


def test_a_disk_that_stays_broken(store: Store) -> None:
    """A publish of which nothing is known is told as refused, or as done."""
    Failing.plan = [("COMMIT", sqlite3.SQLITE_IOERR, REFUSED)] * 20
    with pytest.raises(OutcomeUnknown, match="is its disk healthy") as caught:
        store.publish("mena", "second", id="second")
    assert caught.value.id == "second"
    assert commits() == 4, "a disk that fails is written to again and again"
    Failing.plan = []
    assert versions(store) == ["first"]
    assert store.publish("mena", "second", id="second").created
    assert versions(store) == ["second", "first"]


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_FULL, StoreFull),
        (sqlite3.SQLITE_BUSY, Unavailable),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, Unavailable),
    ],
)
@pytest.mark.parametrize("statement", ["COMMIT", "INSERT", "BEGIN IMMEDIATE"])
def test_a_commit_that_is_refused_is_told_so(
    store: Store, statement: str, code: int, kind: type[Unavailable]
) -> None:
    """A full or busy file refuses a publish, and the caller is told that it may be committed."""
    Failing.plan = [(statement, code, REFUSED)]
    with pytest.raises(kind) as caught:
        store.publish("mena", "second", id="second")
    assert not isinstance(caught.value, OutcomeUnknown | Contended)
    assert commits() == (1 if statement == "COMMIT" else 0)
    assert versions(store) == ["first"]
    assert store.publish("mena", "second", id="second").version == 2


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_CORRUPT_INDEX, Corrupt),
        (sqlite3.SQLITE_READONLY_DIRECTORY, AccessDenied),
        (sqlite3.SQLITE_LOCKED_SHAREDCACHE, Unavailable),
    ],
)
def test_what_sqlite_says_in_detail_is_understood(
    store: Store, code: int, kind: type[swapstore.SwapstoreError]
) -> None:
    """A caller tries again for ever what cannot get better, because SQLite gave a more detailed code."""
    Failing.plan = [("INSERT", code, REFUSED)]
    with pytest.raises(kind) as caught:
        store.publish("mena", "second")
    assert type(caught.value) is kind
    assert commits() == 0


def test_a_statement_that_fails_before_the_commit_is_final(store: Store) -> None:
    """Nothing can be on disk, and the publish is told as unknown."""
    Failing.plan = [("INSERT", sqlite3.SQLITE_IOERR, REFUSED)]
    with pytest.raises(Unavailable) as caught:
        store.publish("mena", "second", id="second")
    assert not isinstance(caught.value, OutcomeUnknown)
    assert commits() == 0
    assert versions(store) == ["first"]


def test_a_connection_is_not_used_again_after_an_error(store: Store) -> None:
    """The next batch meets the transaction of the last one, or what it has cached."""
    driver: Any = store._driver
    (before,) = driver._idle
    Failing.plan = [("COMMIT", sqlite3.SQLITE_BUSY, REFUSED)]
    with pytest.raises(Unavailable):
        store.publish("mena", "second")
    store.datasets()
    (after,) = driver._idle
    assert after.connection is not before.connection
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        before.connection.total_changes  # noqa: B018


@pytest.mark.parametrize("statement", ["INSERT", "COMMIT"])
def test_a_connection_that_may_not_be_closed_holds_no_lock(
    store: Store, tmp_path: Path, statement: str
) -> None:
    """A process that lost its log keeps every other from writing, until it ends."""
    path = tmp_path / "s.db"
    Failing.plan = [(statement, sqlite3.SQLITE_BUSY, REFUSED)]
    close = store._driver._close  # type: ignore[attr-defined]
    refused: list[Any] = []

    def keep(opened: Any) -> None:
        refused.append(opened)

    store._driver._close = keep  # type: ignore[attr-defined]
    with pytest.raises(Unavailable):
        store.publish("mena", "second")
    with swapstore.connect(f"sqlite:///{path}") as other:
        assert other.publish("mena", "third").version == 2
    for opened in refused:
        close(opened)
    store._driver._close = close  # type: ignore[attr-defined]
