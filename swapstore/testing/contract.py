"""The driver contract, for whoever writes a driver: every driver gives the commands the same meaning.

    class TestMyDriver(DriverContract):
        @pytest.fixture
        def driver(self):
            ...a driver on an empty store...

Each method is a test; its first line says what breaks for a user when it fails. This file holds what
publishing and reading rest on; `contract_upkeep.py` adds the rest.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from swapstore.commands import (
    Already,
    Command,
    Commit,
    Committed,
    Conflict,
    Failed,
    Get,
    GetServed,
    Held,
    Members,
    Peek,
    Put,
    Register,
    Replace,
    Served,
    Stage,
    Staged,
    Unstaged,
)
from swapstore.errors import InvalidInput

if TYPE_CHECKING:
    from swapstore.drivers.base import Driver

LONG_MS = 60_000
GRACE_MS = 300
MANIFEST, LIVE = "t:manifest:{d}", "t:live:{d}"
ANY_TEXT = "".join(map(chr, range(0x180))) + "\u2028\ufeff\ufffd\U0001f600OK"  # for a driver of text alone
A, B, PAGE = "t:id:{d}:a", "t:ts:{d}:1:a", "t:page:{d}:e.1-32"


def do(driver: Driver, command: Command[Any]) -> Any:
    (reply,) = driver.execute([command])
    return reply


def manifest_bytes(etag: str) -> bytes:
    return b'{"etag":"' + etag.encode() + b'","version":1}\n{}'


def prefix(etag: str) -> bytes:
    return b'{"etag":"' + etag.encode() + b'"'


def commit(
    etag: str, *, expected: str | None = None, staged: tuple[Staged, ...] = (), unlinked: tuple[str, ...] = ()
) -> Commit:
    return Commit(
        key=MANIFEST,
        expected=prefix(expected) if expected else b"",
        prefix=prefix(etag),
        manifest=manifest_bytes(etag),
        live_key=LIVE,
        staged=staged,
        unlinked=unlinked,
        staging_ttl_ms=LONG_MS,
        grace_ms=GRACE_MS,
    )


def is_permanent(driver: Driver, key: str) -> bool:
    """A key without a TTL cannot be taken over; asking is harmless only in a test."""
    return do(driver, Replace(key, b"probe\n", LONG_MS)) is False


class PublishingContract:
    """What publishing and reading rest on. Subclass `DriverContract`, which has all of it."""

    def pass_time(self, seconds: float) -> None:
        """Let time pass. Override it for a store whose clock is not the machine's."""
        time.sleep(seconds)

    def test_get_returns_what_was_written_or_none(self, driver: Driver) -> None:
        """A reader gets the bytes, every one of them, and None for what is not there."""
        body = bytes(range(256)) * 40 if driver.binary_safe else ANY_TEXT.encode()
        assert do(driver, Get(A)) is None
        do(driver, Put(A, body, LONG_MS))
        assert do(driver, Get(A)) == body

    def test_bytes_come_back_or_are_refused(self, driver: Driver) -> None:
        """A value that arrives changed is damage that nobody did; one refused half-way is half a batch."""
        batch = [Put(B, b"text", LONG_MS), Put(A, b"\xff", LONG_MS)]
        if driver.binary_safe:
            driver.execute(batch)
            assert do(driver, Get(A)) == b"\xff"
            return
        try:
            driver.execute(batch)
        except InvalidInput as error:
            refused = error.key
        else:
            refused = None
        assert refused == A
        assert do(driver, Get(B)) is None

    def test_peek_returns_the_first_bytes(self, driver: Driver) -> None:
        """Revalidation compares a prefix: short values and missing keys must not confuse it."""
        do(driver, Put(A, b"abc", LONG_MS))
        assert [do(driver, Peek(A, 2)), do(driver, Peek(A, 9)), do(driver, Peek(B, 4))] == [
            b"ab",
            b"abc",
            b"",
        ]

    def test_what_a_manifest_serves_comes_along_or_not_at_all(self, driver: Driver) -> None:
        """A first read may spare a round trip: by the record that the manifest serves, never by another."""
        ask = GetServed(MANIFEST, A[:-1], 10)
        if isinstance(do(driver, ask), Failed):
            return  # it is asked plainly then
        assert do(driver, ask) == Served(None)
        do(driver, Put(A, b"a's record", LONG_MS))
        for header, record in (
            (b'{"latest":{"id":"a","size":10},"pinned":null}', b"a's record"),
            (b'{"latest":{"id":"a","size":11},"pinned":null}', None),
            (b'{"latest":{"id":"a","size":10},"pinned":{"id":"b","size":10}}', None),
            (b'{"latest":{"id":"b","size":10},"pinned":{"id":"a","size":10}}', b"a's record"),
            (b'{"latest":{"id":7,"size":"x"}}', None),
            (b'{"latest":null}', None),
            (b"[]", None),
            (b"no JSON", None),
            (b"", None),
        ):
            do(driver, Put(MANIFEST, header + b"\n{}", LONG_MS))
            assert do(driver, ask) in {Served(header + b"\n{}"), Served(header + b"\n{}", record)}

    def test_stage_writes_only_a_free_key(self, driver: Driver) -> None:
        """Two producers with one id: the second does not overwrite what the first staged."""
        assert do(driver, Stage(A, b"first\n", LONG_MS)) is True
        assert do(driver, Stage(A, b"second\n", LONG_MS)) is False
        assert do(driver, Get(A)) == b"first\n"

    def test_a_staged_record_expires(self, driver: Driver) -> None:
        """What a crashed publish left behind goes away by itself, and its key is free again."""
        do(driver, Stage(A, b"x\n", 40))
        self.pass_time(0.08)
        assert do(driver, Get(A)) is None
        assert do(driver, Peek(A, 1)) == b""
        assert do(driver, Stage(A, b"y\n", LONG_MS)) is True
        assert do(driver, Get(A)) == b"y\n"

    def test_replace_takes_over_what_is_staged_but_never_what_is_permanent(self, driver: Driver) -> None:
        """Committed data cannot be replaced by a publish that reuses its id."""
        assert do(driver, Replace(A, b"one\n", LONG_MS)) is True
        assert do(driver, Replace(A, b"two\n", LONG_MS)) is True
        assert do(driver, commit("e.1.a", staged=(Staged(A, b"two\n"),))) == Committed()
        assert do(driver, Replace(A, b"three\n", LONG_MS)) is False
        assert do(driver, Get(A)) == b"two\n"

    def test_register_collects_members(self, driver: Driver) -> None:
        """The list of datasets holds each name once."""
        assert do(driver, Members("t:datasets")) == frozenset()
        for name in ("b", "a", "b"):
            do(driver, Register("t:datasets", name))
        assert do(driver, Members("t:datasets")) == frozenset({"a", "b"})

    def test_a_batch_answers_each_command_in_order(self, driver: Driver) -> None:
        """Every reply of a pipeline belongs to its own command."""
        replies = driver.execute(
            [Stage(A, b"1\n", LONG_MS), Get(A), Stage(A, b"2\n", LONG_MS), Peek(A, 1), Members("t:none")]
        )
        assert replies == [True, b"1\n", False, b"1", frozenset()]

    def test_commit_swaps_an_absent_manifest(self, driver: Driver) -> None:
        """The first publish of a dataset: records become permanent, the manifest appears, the view goes."""
        do(driver, Stage(A, b"entry\npayload", LONG_MS))
        do(driver, Stage(B, b"entry\n", LONG_MS))
        do(driver, Put(LIVE, b"view", LONG_MS))
        staged = (Staged(A, b"entry\n"), Staged(B, b"entry\n"))
        assert do(driver, commit("e.1.a", staged=staged)) == Committed()
        assert do(driver, Get(MANIFEST)) == manifest_bytes("e.1.a")
        assert do(driver, Get(LIVE)) is None
        assert is_permanent(driver, A)
        assert is_permanent(driver, B)
        assert is_permanent(driver, MANIFEST)

    def test_commit_sent_twice_is_applied_once(self, driver: Driver) -> None:
        """A resent or late commit answers `already` and changes nothing, whatever else happened since."""
        do(driver, Stage(A, b"entry\n", LONG_MS))
        first = commit("e.1.a", staged=(Staged(A, b"entry\n"),))
        assert do(driver, first) == Committed()
        do(driver, Put(LIVE, b"view", LONG_MS))
        assert do(driver, first) == Already()
        assert do(driver, Get(LIVE)) == b"view"

    def test_commit_refuses_another_manifest(self, driver: Driver) -> None:
        """Compare-and-set: a commit built on an old version changes nothing and returns the current one."""
        assert do(driver, commit("e.1.a")) == Committed()
        do(driver, Stage(A, b"entry\n", LONG_MS))
        staged = (Staged(A, b"entry\n"),)
        for stale in (commit("e.1.b", staged=staged), commit("e.2.b", expected="e.1.x", staged=staged)):
            assert do(driver, stale) == Conflict(manifest_bytes("e.1.a"))
        assert do(driver, Get(MANIFEST)) == manifest_bytes("e.1.a")
        assert not is_permanent(driver, A)

    def test_commit_on_a_manifest_that_is_gone(self, driver: Driver) -> None:
        """After a flush nothing is there: the commit says so instead of building on nothing."""
        assert do(driver, commit("e.2.a", expected="e.1.a")) == Conflict(None)
        assert do(driver, Get(MANIFEST)) is None

    def test_an_etag_is_compared_whole(self, driver: Driver) -> None:
        """Version 1 must not pass for version 11, nor an empty value for an absent one."""
        assert do(driver, commit("e.11.a")) == Committed()
        assert isinstance(do(driver, commit("e.12.a", expected="e.1")), Conflict)
        assert isinstance(do(driver, commit("e.11")), Conflict)

    def test_an_empty_value_is_not_an_absent_manifest(self, driver: Driver) -> None:
        """A manifest that something truncated to nothing is damage, not a fresh start."""
        do(driver, Put(MANIFEST, b"", LONG_MS))
        assert do(driver, commit("e.1.a")) == Conflict(b"")

    def test_commit_verifies_each_record(self, driver: Driver) -> None:
        """A pointer to a payload that was refused, lost or replaced is never committed."""
        do(driver, Stage(B, b"entry\n", LONG_MS))
        relying = commit("e.1.a", staged=(Staged(B, b"entry\n"), Staged(A, b"entry\n")))
        assert do(driver, relying) == Unstaged(A, present=False)
        for there in (b"other\n", b"ent"):
            do(driver, Replace(A, there, LONG_MS))
            assert do(driver, relying) == Unstaged(A, present=True)
        assert do(driver, Get(MANIFEST)) is None
        assert not is_permanent(driver, B)

    def test_commit_refuses_a_record_that_is_permanent(self, driver: Driver) -> None:
        """An id that was committed before is taken, with the same content too: one row per id."""
        do(driver, Stage(A, b"entry\n", LONG_MS))
        staged = (Staged(A, b"entry\n"),)
        assert do(driver, commit("e.1.a", staged=staged)) == Committed()
        assert do(driver, commit("e.2.a", expected="e.1.a", staged=staged)) == Held(A)
        other = (Staged(A, b"other\n"),)
        assert do(driver, commit("e.2.a", expected="e.1.a", staged=other)) == Held(A)

    def test_a_shared_record_may_be_permanent(self, driver: Driver) -> None:
        """A page that a cut commit made permanent must not block every later publish."""
        do(driver, Stage(PAGE, b"page\n", LONG_MS))
        staged = (Staged(PAGE, b"page\n", shared=True),)
        assert do(driver, commit("e.1.a", staged=staged)) == Committed()
        assert do(driver, commit("e.2.a", expected="e.1.a", staged=staged)) == Committed()
        wrong = (Staged(PAGE, b"another page\n", shared=True),)
        assert do(driver, commit("e.3.a", expected="e.2.a", staged=wrong)) == Unstaged(PAGE, present=True)

    def test_commit_lets_unlinked_records_expire_after_the_grace(self, driver: Driver) -> None:
        """A reader with the previous manifest still finds its payload for a while; then it is gone."""
        do(driver, Stage(A, b"entry\n", LONG_MS))
        do(driver, commit("e.1.a", staged=(Staged(A, b"entry\n"),)))
        do(driver, commit("e.2.a", expected="e.1.a", unlinked=(A, "t:id:{d}:never-there")))
        assert do(driver, Get(A)) == b"entry\n"
        self.pass_time(0.4)
        assert do(driver, Get(A)) is None

    def test_the_address_shows_no_password(self, driver: Driver) -> None:
        """Errors name the store; they must not name its secret."""
        assert driver.where
        assert "@" not in driver.where

    def test_close_twice_is_harmless(self, driver: Driver) -> None:
        """Clean-up code runs twice more often than one thinks."""
        driver.close()
        driver.close()
