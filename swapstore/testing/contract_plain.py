"""The driver contract for plain commands: what a commit is made of where no script runs.

class TestMyDriver(PlainContract):
    @pytest.fixture
    def driver(self):
        ...a driver on an empty store that may not run scripts...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.commands import (
    ABSENT,
    PERMANENT,
    CompareAndSet,
    Drop,
    Expire,
    Get,
    Keep,
    Put,
    Remove,
    Stage,
    Ttl,
    Write,
)
from swapstore.testing.contract import LONG_MS, MANIFEST, A, B, do

if TYPE_CHECKING:
    from swapstore.drivers.base import Driver


class PlainContract:
    """Each command for itself. A store that compares in one command has `ComparingContract` too."""

    def test_keep_writes_only_a_free_key_and_for_good(self, driver: Driver) -> None:
        """Two producers with one id: the second would replace what the first committed."""
        assert do(driver, Keep(A, b"first\n")) is True
        assert do(driver, Keep(A, b"second\n")) is False
        assert (do(driver, Get(A)), do(driver, Ttl(A))) == (b"first\n", PERMANENT)

    def test_keep_does_not_make_permanent_what_is_staged(self, driver: Driver) -> None:
        """A record of another content would be committed under this id."""
        do(driver, Stage(A, b"staged\n", LONG_MS))
        assert do(driver, Keep(A, b"kept\n")) is False
        assert do(driver, Ttl(A)) > 0

    def test_drop_removes_only_what_has_a_ttl(self, driver: Driver) -> None:
        """A late command would remove a committed record."""
        do(driver, Put(A, b"1", LONG_MS))
        do(driver, Keep(B, b"2"))
        for key in (A, B, MANIFEST):
            do(driver, Drop(key))
        assert [do(driver, Get(key)) for key in (A, B, MANIFEST)] == [None, b"2", None]

    def test_expire_gives_what_is_there_a_ttl(self, driver: Driver) -> None:
        """What retention lets go of would stay for ever."""
        do(driver, Keep(A, b"1"))
        do(driver, Expire(A, LONG_MS))
        do(driver, Expire(B, LONG_MS))
        assert 0 < do(driver, Ttl(A)) <= LONG_MS
        assert do(driver, Ttl(B)) == ABSENT

    def test_remove_removes(self, driver: Driver) -> None:
        """A lease that was given back would keep the next writer waiting."""
        do(driver, Put(A, b"1", LONG_MS))
        do(driver, Keep(B, b"2"))
        for key in (A, B, MANIFEST):
            do(driver, Remove(key))
        assert [do(driver, Get(key)) for key in (A, B)] == [None, None]


class ComparingContract(PlainContract):
    """For stores that compare and set in one command."""

    def test_compare_and_set_replaces_exactly_what_was_expected(self, driver: Driver) -> None:
        """A commit that was built on an old version would take back a newer one."""
        assert do(driver, CompareAndSet(MANIFEST, b"one", b"two")) is False
        assert do(driver, Get(MANIFEST)) is None
        do(driver, Write(MANIFEST, b"one"))
        for other in (b"", b"on", b"one ", b"two"):
            assert do(driver, CompareAndSet(MANIFEST, other, b"lost")) is False
        assert do(driver, CompareAndSet(MANIFEST, b"one", b"two")) is True
        assert (do(driver, Get(MANIFEST)), do(driver, Ttl(MANIFEST))) == (b"two", PERMANENT)
