"""The contract of drivers, as tests for their authors: every driver gives the commands the same meaning.

    class TestMyDriver(DriverContract):
        @pytest.fixture
        def driver(self):
            ...a driver on an empty store...

Each method is a test. Its first line says what breaks for a user when it fails. `DriverContract` is for
drivers that carry out a commit as one command, `WaitingContract` for those of servers that have replicas.
`PlainContract` and `ComparingContract` are for the plain commands of which a commit is made elsewhere.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec

from swapstore.commands import (
    ABSENT,
    PERMANENT,
    Already,
    AwaitReplicas,
    Command,
    Committed,
    CompareAndSet,
    Drop,
    Expire,
    Failed,
    Get,
    GetAll,
    GetServed,
    Held,
    Keep,
    Members,
    Mismatch,
    Peek,
    Put,
    Register,
    Remove,
    Replace,
    Rewritten,
    Scan,
    Served,
    Stage,
    Staged,
    Swap,
    Time,
    Ttl,
    Ttls,
    Unregister,
    Unstaged,
    Write,
)
from swapstore.errors import InvalidInput

if TYPE_CHECKING:
    from swapstore.drivers.base import Driver


LONG_MS = 60_000
GRACE_MS = 300
EARLIEST_MS, LATEST_MS = 1_600_000_000_000, 4_000_000_000_000  # 2020 and 2096
MANIFEST, LIVE = "t:manifest:{d}", "t:live:{d}"
# For a driver that sends only text.
ANY_TEXT = "".join(map(chr, range(0x180))) + "\u2028\ufeff\ufffd\U0001f600OK"
A, B, PAGE = "t:id:{d}:a", "t:ts:{d}:1:a", "t:page:{d}:e.1-32"
ABC = (A, B, MANIFEST)


class PublishingContract:
    """What publishing and reading need. Subclass `DriverContract`, which includes it."""

    def pass_time(self, seconds: float) -> None:
        """Let time pass. Override this for a store that does not use the machine's clock."""
        time.sleep(seconds)

    def test_get_returns_what_was_written_or_none(self, driver: Driver) -> None:
        """A reader would get other bytes than were written, or bytes for a missing key."""
        body = bytes(range(256)) * 40 if driver.binary_safe else ANY_TEXT.encode()
        assert do(driver, Get(A)) is None
        do(driver, Put(A, body, LONG_MS))
        assert do(driver, Get(A)) == body

    def test_bytes_come_back_or_are_refused(self, driver: Driver) -> None:
        """A value would be stored changed, or half of a batch carried out."""
        batch = [Put(B, b"text", LONG_MS), Put(A, b"\xff", LONG_MS)]
        if driver.binary_safe:
            driver.execute(batch)
            assert do(driver, Get(A)) == b"\xff"
            return
        refused = None
        try:
            driver.execute(batch)
        except InvalidInput as error:
            refused = error.key
        assert refused == A
        assert do(driver, Get(B)) is None

    def test_peek_returns_the_first_bytes(self, driver: Driver) -> None:
        """Revalidation, which compares a prefix, would go wrong for short values and missing keys."""
        do(driver, Put(A, b"abc", LONG_MS))
        peeked = driver.execute([Peek(A, 2), Peek(A, 9), Peek(B, 4)])
        assert peeked == [b"ab", b"abc", b""]

    def test_many_keys_are_answered_about_like_each_of_them(self, driver: Driver) -> None:
        """Verify would miss a record that is gone, or going to expire, or of another type."""
        driver.execute([Put(A, b"a", LONG_MS), Write(B, b"b"), Register(LIVE, "a")])
        for keys in ((A, PAGE, B, LIVE, A), (B,), (PAGE,)):
            values, ttls = driver.execute([GetAll(keys), Ttls(keys)])
            if not isinstance(values, Failed):  # else verify asks about each
                assert values == [{A: b"a", B: b"b"}.get(key) for key in keys]
            if not isinstance(ttls, Failed):
                assert [min(ttl, 1) for ttl in ttls] == [min(do(driver, Ttl(key)), 1) for key in keys]

    def test_a_served_record_comes_with_its_manifest_or_not_at_all(self, driver: Driver) -> None:
        """A first read, which this saves a round trip, would get another record than the manifest serves."""
        ask = GetServed(MANIFEST, A[:-1], A[:-1], 10)
        if isinstance(do(driver, ask), Failed):
            return  # then the protocol reads the manifest alone
        assert do(driver, ask) == Served(None)
        do(driver, Put(A, b"a's record", LONG_MS))
        for header, *with_it in (
            (b'{"latest":{"id":"a","size":10},"pinned":null}', b"a's record"),
            (b'{"latest":{"id":"a","size":10,"base":"a"},"pinned":null}', b"a's record", b"a's record"),
            (b'{"latest":{"id":"a","size":10,"base":"b"},"pinned":null}', b"a's record"),
            (b'{"latest":{"id":"a","size":10,"base":7},"pinned":null}', b"a's record"),
            (b'{"latest":{"id":"a","size":11},"pinned":null}', b"a's record"),
            (b'{"latest":{"id":"b","size":11},"pinned":null}',),
            (b'{"latest":{"id":"a","size":10},"pinned":{"id":"b","size":10}}',),
            (b'{"latest":{"id":"b","size":10},"pinned":{"id":"a","size":10}}', b"a's record"),
            (b'{"latest":{"id":7,"size":"x"}}',),
            (b'{"latest":null}',),
            (b"[]",),
            (b"no JSON",),
            (b"",),
        ):
            do(driver, Put(MANIFEST, header + b"\n{}", LONG_MS))
            (record, base), line = (*with_it, None, None)[:2], header + b"\n"
            assert do(driver, ask) in {Served(line + b"{}"), Served(line), Served(line, record, base)}
        do(driver, Put(B, b"b's long record", LONG_MS))
        for header in (b'{"latest":{"id":"b","size":11}}', b'{"latest":{"id":"a","size":10,"base":"b"}}'):
            do(driver, Put(MANIFEST, header + b"\n", LONG_MS))
            assert b"b's long record" not in msgspec.structs.astuple(do(driver, ask))

    def test_stage_writes_only_a_free_key(self, driver: Driver) -> None:
        """The second of two producers with the same id would overwrite what the first staged."""
        assert do(driver, Stage(A, b"first\n", LONG_MS)) is True
        assert do(driver, Stage(A, b"second\n", LONG_MS)) is False
        assert do(driver, Get(A)) == b"first\n"

    def test_a_staged_record_expires(self, driver: Driver) -> None:
        """What a crashed publish left would stay permanently, and its key would stay taken."""
        do(driver, Stage(A, b"x\n", 40))
        self.pass_time(0.08)
        assert do(driver, Get(A)) is None
        assert do(driver, Peek(A, 1)) == b""
        assert do(driver, Stage(A, b"y\n", LONG_MS)) is True
        assert do(driver, Get(A)) == b"y\n"

    def test_replace_takes_over_what_is_staged_but_never_what_is_permanent(self, driver: Driver) -> None:
        """A publish that reuses an id would replace committed data."""
        assert do(driver, Replace(A, b"one\n", LONG_MS)) is True
        assert do(driver, Replace(A, b"two\n", LONG_MS)) is True
        assert do(driver, commit("e.1.a", staged=(Staged(A, b"two\n"),))) == Committed()
        assert do(driver, Replace(A, b"three\n", LONG_MS)) is False
        assert do(driver, Get(A)) == b"two\n"

    def test_a_set_has_the_members_that_were_registered(self, driver: Driver) -> None:
        """The list of datasets would lack a name, hold it twice, or keep one that was dropped."""
        gone = (Unregister("t:set", "b"), Unregister("t:set", "d"), Unregister("t:none", "b"))
        driver.execute([*(Register("t:set", name) for name in "babc"), *gone])
        assert do(driver, Members("t:set")) == frozenset({"a", "c"})

    def test_a_batch_answers_each_command_in_order(self, driver: Driver) -> None:
        """A command would get the reply to another one of its batch."""
        replies = driver.execute(
            [Stage(A, b"1\n", LONG_MS), Get(A), Stage(A, b"2\n", LONG_MS), Peek(A, 1), Members("t:none")]
        )
        assert replies == [True, b"1\n", False, b"1", frozenset()]

    def test_commit_swaps_an_absent_manifest(self, driver: Driver) -> None:
        """After a first publish, records would expire, or an old live view be shown."""
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
        """A resent or late commit would be applied a second time, over what happened since."""
        do(driver, Stage(A, b"entry\n", LONG_MS))
        first = commit("e.1.a", staged=(Staged(A, b"entry\n"),))
        assert do(driver, first) == Committed()
        do(driver, Put(LIVE, b"view", LONG_MS))
        assert do(driver, first) == Already()
        assert do(driver, Get(LIVE)) == b"view"

    def test_commit_refuses_another_manifest(self, driver: Driver) -> None:
        """A commit that was built on an old version would overwrite a newer one."""
        assert do(driver, commit("e.1.a")) == Committed()
        do(driver, Stage(A, b"entry\n", LONG_MS))
        staged = (Staged(A, b"entry\n"),)
        for stale in (commit("e.1.b", staged=staged), commit("e.2.b", expected="e.1.x", staged=staged)):
            assert do(driver, stale) == Mismatch(manifest_bytes("e.1.a"))
        assert do(driver, Get(MANIFEST)) == manifest_bytes("e.1.a")
        assert not is_permanent(driver, A)

    def test_commit_on_a_manifest_that_is_gone(self, driver: Driver) -> None:
        """After a flush, a commit would build on a manifest that is gone."""
        assert do(driver, commit("e.2.a", expected="e.1.a")) == Mismatch(None)
        assert do(driver, Get(MANIFEST)) is None

    def test_an_etag_is_compared_whole(self, driver: Driver) -> None:
        """Version 1 would pass for version 11, and a commit overwrite it."""
        assert do(driver, commit("e.11.a")) == Committed()
        assert isinstance(do(driver, commit("e.12.a", expected="e.1")), Mismatch)
        assert isinstance(do(driver, commit("e.11")), Mismatch)

    def test_an_empty_value_is_not_an_absent_manifest(self, driver: Driver) -> None:
        """A truncated manifest would pass for an empty dataset, and a publish overwrite the damage."""
        do(driver, Put(MANIFEST, b"", LONG_MS))
        assert do(driver, commit("e.1.a")) == Mismatch(b"")

    def test_commit_verifies_each_record(self, driver: Driver) -> None:
        """A commit would point to a payload that was refused, lost or replaced."""
        do(driver, Stage(B, b"entry\n", LONG_MS))
        relying = commit("e.1.a", staged=(Staged(B, b"entry\n"), Staged(A, b"entry\n")))
        assert do(driver, relying) == Unstaged(A, present=False)
        for there in (b"other\n", b"ent"):
            do(driver, Replace(A, there, LONG_MS))
            assert do(driver, relying) == Unstaged(A, present=True)
        assert do(driver, Get(MANIFEST)) is None
        assert not is_permanent(driver, B)

    def test_commit_refuses_a_record_that_is_permanent(self, driver: Driver) -> None:
        """An id that was committed before would get a second row."""
        do(driver, Stage(A, b"entry\n", LONG_MS))
        staged = (Staged(A, b"entry\n"),)
        assert do(driver, commit("e.1.a", staged=staged)) == Committed()
        assert do(driver, commit("e.2.a", expected="e.1.a", staged=staged)) == Held(A)
        other = (Staged(A, b"other\n"),)
        assert do(driver, commit("e.2.a", expected="e.1.a", staged=other)) == Held(A)

    def test_a_shared_record_may_be_permanent(self, driver: Driver) -> None:
        """A page that an interrupted commit made permanent would block every later publish."""
        do(driver, Stage(PAGE, b"page\n", LONG_MS))
        staged = (Staged(PAGE, b"page\n", shared=True),)
        assert do(driver, commit("e.1.a", staged=staged)) == Committed()
        assert do(driver, commit("e.2.a", expected="e.1.a", staged=staged)) == Committed()
        wrong = (Staged(PAGE, b"another page\n", shared=True),)
        assert do(driver, commit("e.3.a", expected="e.2.a", staged=wrong)) == Unstaged(PAGE, present=True)

    def test_unlinked_records_expire_after_the_grace(self, driver: Driver) -> None:
        """A reader of the previous manifest would miss its payload, or the payload never expire."""
        do(driver, Stage(A, b"entry\n", LONG_MS))
        do(driver, commit("e.1.a", staged=(Staged(A, b"entry\n"),)))
        do(driver, commit("e.2.a", expected="e.1.a", unlinked=(A, "t:id:{d}:never-there")))
        assert do(driver, Get(A)) == b"entry\n"
        self.pass_time(0.4)
        assert do(driver, Get(A)) is None

    def test_a_commit_rewrites_committed_records(self, driver: Driver) -> None:
        """History that is stored anew would be lost or stay as it was, or expire with what is unlinked."""
        for key in (A, B):
            do(driver, Stage(key, b"entry\n", LONG_MS, b"old"))
        do(driver, commit("e.1.a", staged=(Staged(A, b"entry\n"), Staged(B, b"entry\n"))))
        do(driver, Stage(PAGE, b"page\n", LONG_MS))
        plain = Rewritten(A, b"entry\n", b"entry, plain\n1")
        delta = Rewritten(B, b"entry\n", b"entry, of a base\n2", needs_base=True)
        page = {"staged": (Staged(PAGE, b"page\n", shared=True),), "unlinked": (PAGE,)}
        anew = commit("e.2.a", expected="e.1.a", rewritten=(plain, delta), **page)
        assert do(driver, anew) == Committed()
        assert do(driver, Get(MANIFEST)) == manifest_bytes("e.2.a")
        assert [do(driver, Get(key)) for key in (A, B)] == [b"entry, plain\n1", b"entry, of a base\n2"]
        assert is_permanent(driver, A)
        assert is_permanent(driver, B)
        assert not is_permanent(driver, PAGE)
        assert do(driver, anew) == Already()

    def test_a_commit_rewrites_only_what_it_has_seen(self, driver: Driver) -> None:
        """A record that is altered, gone or not committed would be replaced, or a manifest name it anew."""
        for key in (A, B):
            do(driver, Stage(key, b"entry\n", LONG_MS, b"old"))
        do(driver, commit("e.1.a", staged=(Staged(A, b"entry\n"),)))
        fits = Rewritten(A, b"entry\n", b"entry, plain\n")
        for wrong, present in (
            (Rewritten(A, b"entry, otherwise\n", b"new\n"), True),
            (Rewritten(B, b"entry\n", b"new\n"), True),
            (Rewritten("t:id:{d}:c", b"entry\n", b"new\n", needs_base=True), False),
        ):
            anew = commit("e.2.a", expected="e.1.a", rewritten=(fits, wrong))
            assert do(driver, anew) == Unstaged(wrong.key, present=present)
        stale = commit("e.2.a", expected="e.1.x", rewritten=(fits,))
        assert do(driver, stale) == Mismatch(manifest_bytes("e.1.a"))
        assert [do(driver, Get(key)) for key in (A, B)] == [b"entry\nold"] * 2
        assert do(driver, Get(MANIFEST)) == manifest_bytes("e.1.a")

    def test_the_address_shows_no_password(self, driver: Driver) -> None:
        """Error messages, which name the store, would show its password."""
        assert driver.where
        assert "@" not in driver.where

    def test_close_twice_is_harmless(self, driver: Driver) -> None:
        """Clean-up code that runs twice would raise an error."""
        driver.close()
        driver.close()


class DriverContract(PublishingContract):
    """The whole contract of a driver that carries out a commit as one command.

    Subclass it in a test file, with a `driver` fixture that gives a driver on an empty store.
    """

    # --- how long a key lives ----------------------------------------------------------------------

    def test_ttl_tells_staged_from_committed(self, driver: Driver) -> None:
        """Repair, to which a record without a TTL is committed, would lose data or show uncommitted data."""
        assert [do(driver, Ttl(key)) for key in ABC] == [ABSENT, ABSENT, ABSENT]
        do(driver, Stage(A, b"entry\n", LONG_MS))
        do(driver, Stage(B, b"orphan\n", LONG_MS))
        assert 0 < do(driver, Ttl(A)) <= LONG_MS
        assert do(driver, commit("e.1.a", staged=(Staged(A, b"entry\n"),))) == Committed()
        assert [do(driver, Ttl(key)) for key in (A, MANIFEST)] == [PERMANENT, PERMANENT]
        assert 0 < do(driver, Ttl(B)) <= LONG_MS

    def test_ttl_of_an_expired_key(self, driver: Driver) -> None:
        """An expired record would be counted as an existing one."""
        do(driver, Stage(A, b"entry\n", 40))
        self.pass_time(0.08)
        assert do(driver, Ttl(A)) == ABSENT

    def test_ttl_of_an_unlinked_key_is_the_grace(self, driver: Driver) -> None:
        """An unlinked record would be taken for committed, or expire before its readers have finished."""
        do(driver, Stage(A, b"entry\n", LONG_MS))
        do(driver, commit("e.1.a", staged=(Staged(A, b"entry\n"),)))
        do(driver, commit("e.2.a", expected="e.1.a", unlinked=(A,)))
        assert 0 < do(driver, Ttl(A)) <= GRACE_MS

    # --- what time it is ---------------------------------------------------------------------------

    def test_the_stores_clock_is_one_of_today(self, driver: Driver) -> None:
        """A publish on a machine whose clock is wrong would not be recognised."""
        theirs = do(driver, Time())
        assert theirs is None or EARLIEST_MS < theirs < LATEST_MS

    # --- which keys there are ----------------------------------------------------------------------

    def test_scan_finds_every_matching_key_and_no_other(self, driver: Driver) -> None:
        """Repair would miss committed records, or touch keys of another dataset or namespace."""
        wanted = {f"t:ts:{{d}}:{number}:a" for number in range(3)}
        others = {"t:ts:{dd}:1:a", "t:ts:d:1:a", "t:id:{d}:a", "u:ts:{d}:1:a", "t:ts:{d}", "xt:ts:{d}:1:a"}
        for key in wanted | others:
            do(driver, Write(key, b"entry\n"))
        assert scan_all(driver, "t:ts:{d}:*", 100)[0] == wanted
        assert scan_all(driver, "t:ts:{d}:*:a", 1)[0] == wanted
        assert scan_all(driver, "t:none:*", 10)[0] == set()

    def test_a_scan_in_small_steps_finds_hundreds(self, driver: Driver) -> None:
        """A rebuilt manifest would lack the keys between two calls."""
        wanted = {f"t:ts:{{d}}:{number}:a" for number in range(700)}
        driver.execute([Stage(key, b"entry\n", LONG_MS) for key in wanted])
        found, calls = scan_all(driver, "t:ts:{d}:*", 50)
        assert found == wanted
        assert calls > 1

    def test_a_scan_with_concurrent_writes(self, driver: Driver) -> None:
        """A verify while producers publish would miss keys that exist all the time."""
        stays = {f"t:ts:{{d}}:{number}:a" for number in range(60)}
        driver.execute([Write(key, b"entry\n") for key in stays])
        found: set[str] = set()
        cursor: str | None = ""
        number = 0
        while cursor is not None:
            reply = do(driver, Scan("t:ts:{d}:*", cursor, 5))
            found.update(reply.keys)
            cursor = reply.cursor
            number += 1
            assert number < 10_000
            driver.execute([Put(f"t:ts:{{d}}:{number}:new", b"entry\n", 20), Put(A, b"x", 20)])
        assert stays <= found

    def test_scan_leaves_out_expired_keys(self, driver: Driver) -> None:
        """Expired orphans would be reported as leaks, again and again."""
        do(driver, Stage(A, b"entry\n", 40))
        do(driver, Stage(B, b"entry\n", LONG_MS))
        self.pass_time(0.08)
        assert scan_all(driver, "t:*", 10)[0] == {B}

    # --- writing without a TTL ---------------------------------------------------------------------

    def test_write_is_permanent_whatever_was_there(self, driver: Driver) -> None:
        """A value written for another program would expire with the TTL of the previous value."""
        do(driver, Write(A, b"new"))
        do(driver, Put(B, b"old, and longer", 40))
        do(driver, Write(B, b"new"))
        self.pass_time(0.08)
        for key in (A, B):
            assert (do(driver, Get(key)), do(driver, Ttl(key))) == (b"new", PERMANENT)

    # --- replacing damage --------------------------------------------------------------------------

    def test_a_whole_commit_replaces_exactly_what_it_saw(self, driver: Driver) -> None:
        """Repair could not replace a damaged manifest."""
        for damage in (b"not a manifest", b""):
            do(driver, Write(MANIFEST, damage))
            do(driver, Stage(A, b"entry\n", LONG_MS))
            repairing = whole("e.1.a", damage, (Staged(A, b"entry\n", shared=True),))
            assert do(driver, repairing) == Committed()
            assert do(driver, Get(MANIFEST)) == manifest_bytes("e.1.a")
            assert [do(driver, Ttl(key)) for key in (MANIFEST, A)] == [PERMANENT, PERMANENT]
            assert do(driver, repairing) == Already()

    def test_a_whole_commit_replaces_damage_that_has_a_ttl(self, driver: Driver) -> None:
        """The repaired manifest would expire with the TTL of the damaged one."""
        do(driver, Put(MANIFEST, b"damage", LONG_MS))
        assert do(driver, whole("e.1.a", b"damage")) == Committed()
        assert do(driver, Ttl(MANIFEST)) == PERMANENT

    def test_a_whole_commit_refuses_any_other_value(self, driver: Driver) -> None:
        """Repair would overwrite what another repair, or a producer, wrote at the same time."""
        for there in (b"damage!", b"damag", b"Damage", b"damage\n", manifest_bytes("e.1.a"), b""):
            do(driver, Write(MANIFEST, there))
            assert do(driver, whole("e.2.a", b"damage")) == Mismatch(there)
            assert do(driver, Get(MANIFEST)) == there
        do(driver, Write(MANIFEST, b"damage"))
        assert do(driver, whole("e.2.a", b"")) == Mismatch(b"damage")

    def test_a_whole_commit_refuses_a_longer_value(self, driver: Driver) -> None:
        """Repair, if it compared only the beginning of a value, would overwrite data that it has not seen."""
        damage = b"x" * 200  # longer than our own prefix, so that a prefix is all that could be compared
        do(driver, Write(MANIFEST, damage + b"y"))
        assert do(driver, whole("e.1.a", damage)) == Mismatch(damage + b"y")
        do(driver, Write(MANIFEST, damage))
        assert do(driver, whole("e.1.a", damage)) == Committed()

    def test_a_whole_commit_needs_a_value(self, driver: Driver) -> None:
        """Repair would write a manifest where the damaged one, which it examined, was deleted."""
        for expected in (b"damage", b""):
            assert do(driver, whole("e.1.a", expected)) == Mismatch(None)
        assert do(driver, Get(MANIFEST)) is None

    def test_a_whole_commit_never_replaces_a_manifest_by_its_prefix(self, driver: Driver) -> None:
        """Repair would overwrite an intact manifest, because its etag was taken for the whole value."""
        assert do(driver, commit("e.1.a")) == Committed()
        manifest = manifest_bytes("e.1.a")
        for seen in (b"", commit("e.1.a").prefix, manifest[:-1], manifest_bytes("e.1.b")):
            assert do(driver, whole("e.2.a", seen)) == Mismatch(manifest)
        assert do(driver, whole("e.2.a", manifest)) == Committed()
        assert do(driver, Get(MANIFEST)) == manifest_bytes("e.2.a")

    def test_a_whole_commit_verifies_its_records(self, driver: Driver) -> None:
        """A repaired manifest would name records that do not exist."""
        do(driver, Write(MANIFEST, b"damage"))
        relying = whole("e.1.a", b"damage", (Staged(A, b"entry\n"),))
        assert do(driver, relying) == Unstaged(A, present=False)
        assert do(driver, Get(MANIFEST)) == b"damage"


class PlainContract:
    """The plain commands of which a commit is made where no script runs.

    Subclass it in a test file, with a `driver` fixture that gives a driver on an empty store without scripts.
    A store that compares and sets in one command has `ComparingContract`, which includes it.
    """

    def test_keep_writes_only_a_free_key_and_without_a_ttl(self, driver: Driver) -> None:
        """The second of two producers with the same id would replace what the first committed."""
        assert do(driver, Keep(A, b"first\n")) is True
        assert do(driver, Keep(A, b"second\n")) is False
        assert (do(driver, Get(A)), do(driver, Ttl(A))) == (b"first\n", PERMANENT)

    def test_keep_does_not_make_permanent_what_is_staged(self, driver: Driver) -> None:
        """A record with other content would be committed under this id."""
        do(driver, Stage(A, b"staged\n", LONG_MS))
        assert do(driver, Keep(A, b"kept\n")) is False
        assert do(driver, Ttl(A)) > 0

    def test_drop_removes_only_what_has_a_ttl(self, driver: Driver) -> None:
        """A command that arrives late would remove a committed record."""
        do(driver, Put(A, b"1", LONG_MS))
        do(driver, Keep(B, b"2"))
        for key in (A, B, MANIFEST):
            do(driver, Drop(key))
        assert [do(driver, Get(key)) for key in (A, B, MANIFEST)] == [None, b"2", None]

    def test_expire_gives_what_is_there_a_ttl(self, driver: Driver) -> None:
        """A record that retention unlinks would stay permanently."""
        do(driver, Keep(A, b"1"))
        do(driver, Expire(A, LONG_MS))
        do(driver, Expire(B, LONG_MS))
        assert 0 < do(driver, Ttl(A)) <= LONG_MS
        assert do(driver, Ttl(B)) == ABSENT

    def test_remove_removes(self, driver: Driver) -> None:
        """A released lease would keep the next writer waiting."""
        do(driver, Put(A, b"1", LONG_MS))
        do(driver, Keep(B, b"2"))
        for key in (A, B, MANIFEST):
            do(driver, Remove(key))
        assert [do(driver, Get(key)) for key in (A, B)] == [None, None]


class ComparingContract(PlainContract):
    """The same, for stores that compare and set in one command."""

    def test_compare_and_set_replaces_exactly_what_was_expected(self, driver: Driver) -> None:
        """A commit that was built on an old version would overwrite a newer one."""
        assert do(driver, CompareAndSet(MANIFEST, b"one", b"two")) is False
        assert do(driver, Get(MANIFEST)) is None
        do(driver, Write(MANIFEST, b"one"))
        for other in (b"", b"on", b"one ", b"two"):
            assert do(driver, CompareAndSet(MANIFEST, other, b"lost")) is False
        assert do(driver, CompareAndSet(MANIFEST, b"one", b"two")) is True
        assert (do(driver, Get(MANIFEST)), do(driver, Ttl(MANIFEST))) == (b"two", PERMANENT)


class WaitingContract:
    """What a driver of servers that have replicas does besides.

    Subclass it in a test file, with a `driver` fixture that gives a driver on an empty server.
    """

    def test_a_wait_returns_how_many_replicas_have_what_was_written(self, driver: Driver) -> None:
        """A publish would be acknowledged although no replica has it, or refused although all have."""
        batch: list[Command[Any]] = [commit("e.1.a"), AwaitReplicas(MANIFEST, 1, False, 1)]  # noqa: FBT003
        swapped, found = driver.execute(batch)
        assert swapped == Committed()
        assert isinstance(found, int)
        assert found >= 0

    def test_each_wait_of_a_batch_is_answered_in_its_place(self, driver: Driver) -> None:
        """A dataset of many would get the reply to another command."""
        first, second = (AwaitReplicas(key, 0, False, 1) for key in (MANIFEST, "t:manifest:{e}"))  # noqa: FBT003
        longer = msgspec.structs.replace(first, timeout_ms=2)
        one, other = Put(A, b"1", LONG_MS), Put(B, b"2", LONG_MS)
        batch: list[Command[Any]] = [one, first, Get(A), longer, other, second, Get(B)]
        replies = driver.execute(batch)
        assert [replies[i] for i in (0, 2, 4, 6)] == [None, b"1", None, b"2"]
        assert all(isinstance(replies[i], int) for i in (1, 3, 5))


# --- helpers ---------------------------------------------------------------------------------------


def do(driver: Driver, command: Command[Any]) -> Any:
    (reply,) = driver.execute([command])
    return reply


def manifest_bytes(etag: str) -> bytes:
    return b'{"etag":"' + etag.encode() + b'","version":1}\n{}'


def prefix(etag: str) -> bytes:
    return b'{"etag":"' + etag.encode() + b'"'


def commit(etag: str, *, expected: str | None = None, **more: Any) -> Swap:
    return Swap(
        key=MANIFEST,
        expected=prefix(expected) if expected else b"",
        prefix=prefix(etag),
        manifest=manifest_bytes(etag),
        live_key=LIVE,
        staging_ttl_ms=LONG_MS,
        grace_ms=GRACE_MS,
        **more,
    )


def is_permanent(driver: Driver, key: str) -> bool:
    """Return whether a key has no TTL, by trying to replace its value: a test must expect that."""
    return do(driver, Replace(key, b"probe\n", LONG_MS)) is False


def scan_all(driver: Driver, pattern: str, limit: int) -> tuple[set[str], int]:
    """Scan to the end; return the keys, and the number of calls."""
    found: set[str] = set()
    cursor = ""
    for calls in range(1, 10_000):
        reply = do(driver, Scan(pattern, cursor, limit))
        found.update(reply.keys)
        if reply.cursor is None:
            return found, calls
        cursor = reply.cursor
    raise AssertionError("the scan does not end")


def whole(etag: str, expected: bytes, staged: tuple[Staged, ...] = ()) -> Swap:
    """Return a commit that replaces exactly this value, whatever it is."""
    return msgspec.structs.replace(commit(etag, staged=staged), expected=expected, whole=True)
