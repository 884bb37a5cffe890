"""The rest of the driver contract: looking around, and putting right what is damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from swapstore.commands import (
    ABSENT,
    PERMANENT,
    Already,
    Commit,
    Committed,
    Conflict,
    Get,
    Put,
    Scan,
    Stage,
    Staged,
    Ttl,
    Unstaged,
    Write,
)
from swapstore.testing.contract import (
    GRACE_MS,
    LONG_MS,
    MANIFEST,
    A,
    B,
    PublishingContract,
    commit,
    do,
    manifest_bytes,
)

if TYPE_CHECKING:
    from swapstore.drivers.base import Driver

ABC = (A, B, MANIFEST)


def scan_all(driver: Driver, pattern: str, limit: int) -> tuple[set[str], int]:
    """Scan to the end; return the keys, and in how many calls they came."""
    found: set[str] = set()
    cursor = ""
    for calls in range(1, 10_000):
        reply = do(driver, Scan(pattern, cursor, limit))
        found.update(reply.keys)
        if reply.cursor is None:
            return found, calls
        cursor = reply.cursor
    raise AssertionError("the scan does not end")


def whole(etag: str, expected: bytes, staged: tuple[Staged, ...] = ()) -> Commit:
    """A commit that replaces one exact value, whatever it is."""
    return attrs.evolve(commit(etag, staged=staged), expected=expected, whole=True)


class DriverContract(PublishingContract):
    """Subclass it in a test file, with a `driver` fixture that gives a driver on an empty store."""

    # --- how long a key lives ----------------------------------------------------------------------

    def test_ttl_tells_staged_from_committed(self, driver: Driver) -> None:
        """Repair finds what is committed by its lack of a TTL: it would lose data, or show what never was."""
        assert [do(driver, Ttl(key)) for key in ABC] == [ABSENT, ABSENT, ABSENT]
        do(driver, Stage(A, b"entry\n", LONG_MS))
        do(driver, Stage(B, b"orphan\n", LONG_MS))
        assert 0 < do(driver, Ttl(A)) <= LONG_MS
        assert do(driver, commit("e.1.a", staged=(Staged(A, b"entry\n"),))) == Committed()
        assert [do(driver, Ttl(key)) for key in (A, MANIFEST)] == [PERMANENT, PERMANENT]
        assert 0 < do(driver, Ttl(B)) <= LONG_MS

    def test_ttl_of_an_expired_key(self, driver: Driver) -> None:
        """A record that has expired would be counted as one that is still there."""
        do(driver, Stage(A, b"entry\n", 40))
        self.pass_time(0.08)
        assert do(driver, Ttl(A)) == ABSENT

    def test_ttl_of_an_unlinked_key_is_the_grace(self, driver: Driver) -> None:
        """What retention let go of would be taken for committed, or be gone before its readers are."""
        do(driver, Stage(A, b"entry\n", LONG_MS))
        do(driver, commit("e.1.a", staged=(Staged(A, b"entry\n"),)))
        do(driver, commit("e.2.a", expected="e.1.a", unlinked=(A,)))
        assert 0 < do(driver, Ttl(A)) <= GRACE_MS

    # --- which keys there are ----------------------------------------------------------------------

    def test_scan_finds_what_matches_and_nothing_else(self, driver: Driver) -> None:
        """Repair would miss committed records, or touch keys of another dataset or namespace."""
        wanted = {f"t:ts:{{d}}:{number}:a" for number in range(3)}
        others = {"t:ts:{dd}:1:a", "t:ts:d:1:a", "t:id:{d}:a", "u:ts:{d}:1:a", "t:ts:{d}", "xt:ts:{d}:1:a"}
        for key in wanted | others:
            do(driver, Write(key, b"entry\n"))
        assert scan_all(driver, "t:ts:{d}:*", 100)[0] == wanted
        assert scan_all(driver, "t:ts:{d}:*:a", 1)[0] == wanted
        assert scan_all(driver, "t:none:*", 10)[0] == set()

    def test_a_scan_in_small_steps_finds_hundreds(self, driver: Driver) -> None:
        """A rebuilt manifest would lack what lay between two calls."""
        wanted = {f"t:ts:{{d}}:{number}:a" for number in range(700)}
        driver.execute([Stage(key, b"entry\n", LONG_MS) for key in wanted])
        found, calls = scan_all(driver, "t:ts:{d}:*", 50)
        assert found == wanted
        assert calls > 1

    def test_a_scan_survives_writes_beside_it(self, driver: Driver) -> None:
        """Producers go on while an operator verifies: what was there all the time must be found."""
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

    def test_scan_leaves_out_what_has_expired(self, driver: Driver) -> None:
        """Orphans that expired would be reported as leaks for ever."""
        do(driver, Stage(A, b"entry\n", 40))
        do(driver, Stage(B, b"entry\n", LONG_MS))
        self.pass_time(0.08)
        assert scan_all(driver, "t:*", 10)[0] == {B}

    # --- writing without a TTL ---------------------------------------------------------------------

    def test_write_is_permanent_whatever_was_there(self, driver: Driver) -> None:
        """A value written for another program would vanish with the TTL of the one before."""
        do(driver, Write(A, b"new"))
        do(driver, Put(B, b"old, and longer", 40))
        do(driver, Write(B, b"new"))
        self.pass_time(0.08)
        for key in (A, B):
            assert (do(driver, Get(key)), do(driver, Ttl(key))) == (b"new", PERMANENT)

    # --- replacing damage --------------------------------------------------------------------------

    def test_a_whole_commit_replaces_exactly_what_it_saw(self, driver: Driver) -> None:
        """Repair could not put a manifest in the place of a damaged one."""
        for damage in (b"not a manifest", b""):
            do(driver, Write(MANIFEST, damage))
            do(driver, Stage(A, b"entry\n", LONG_MS))
            repairing = whole("e.1.a", damage, (Staged(A, b"entry\n", shared=True),))
            assert do(driver, repairing) == Committed()
            assert do(driver, Get(MANIFEST)) == manifest_bytes("e.1.a")
            assert [do(driver, Ttl(key)) for key in (MANIFEST, A)] == [PERMANENT, PERMANENT]
            assert do(driver, repairing) == Already()

    def test_a_whole_commit_replaces_damage_that_has_a_ttl(self, driver: Driver) -> None:
        """The repaired manifest would expire with what it replaced."""
        do(driver, Put(MANIFEST, b"damage", LONG_MS))
        assert do(driver, whole("e.1.a", b"damage")) == Committed()
        assert do(driver, Ttl(MANIFEST)) == PERMANENT

    def test_a_whole_commit_refuses_any_other_value(self, driver: Driver) -> None:
        """Repair would overwrite what another repair, or a producer, has put there meanwhile."""
        for there in (b"damage!", b"damag", b"Damage", b"damage\n", manifest_bytes("e.1.a"), b""):
            do(driver, Write(MANIFEST, there))
            assert do(driver, whole("e.2.a", b"damage")) == Conflict(there)
            assert do(driver, Get(MANIFEST)) == there
        do(driver, Write(MANIFEST, b"damage"))
        assert do(driver, whole("e.2.a", b"")) == Conflict(b"damage")

    def test_a_whole_commit_refuses_a_longer_value(self, driver: Driver) -> None:
        """Damage whose beginning is all that repair saw may hold, behind it, what must not be lost."""
        damage = b"x" * 200  # longer than our own prefix, so that a prefix is all that could be compared
        do(driver, Write(MANIFEST, damage + b"y"))
        assert do(driver, whole("e.1.a", damage)) == Conflict(damage + b"y")
        do(driver, Write(MANIFEST, damage))
        assert do(driver, whole("e.1.a", damage)) == Committed()

    def test_a_whole_commit_needs_a_value(self, driver: Driver) -> None:
        """Damage that somebody removed meanwhile is a new situation, not the one that repair judged."""
        for expected in (b"damage", b""):
            assert do(driver, whole("e.1.a", expected)) == Conflict(None)
        assert do(driver, Get(MANIFEST)) is None

    def test_a_whole_commit_never_replaces_a_manifest_by_its_prefix(self, driver: Driver) -> None:
        """A manifest that is whole again is the truth; its etag must not pass for all of it."""
        assert do(driver, commit("e.1.a")) == Committed()
        manifest = manifest_bytes("e.1.a")
        for seen in (b"", commit("e.1.a").prefix, manifest[:-1], manifest_bytes("e.1.b")):
            assert do(driver, whole("e.2.a", seen)) == Conflict(manifest)
        assert do(driver, whole("e.2.a", manifest)) == Committed()
        assert do(driver, Get(MANIFEST)) == manifest_bytes("e.2.a")

    def test_a_whole_commit_verifies_its_records_too(self, driver: Driver) -> None:
        """A repaired manifest would name records that are not there."""
        do(driver, Write(MANIFEST, b"damage"))
        relying = whole("e.1.a", b"damage", (Staged(A, b"entry\n"),))
        assert do(driver, relying) == Unstaged(A, present=False)
        assert do(driver, Get(MANIFEST)) == b"damage"
