"""Values of other types under swapstore's keys, written by something else. Redis only."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

import swapstore
from swapstore.commands import Already, Committed, Failed, Get, Mismatch, Staged, Swap, Unstaged
from swapstore.errors import Corrupt
from swapstore.testing.contract import LONG_MS, MANIFEST, A, commit, do, manifest_bytes
from tests.support.valkey import Server


@pytest.fixture
def admin(valkey: Server) -> Iterator[Any]:
    with valkey.client() as client:
        yield client


@pytest.fixture
def driver(valkey: Server) -> Iterator[Any]:
    with swapstore.connect(valkey.url) as store:
        yield store._driver


def whole(etag: str, expected: bytes, staged: tuple[Staged, ...] = ()) -> Swap:
    return msgspec.structs.replace(commit(etag, staged=staged), expected=expected, whole=True)


@pytest.mark.parametrize("kind", ["list", "hash", "set", "zset", "stream"])
def test_repair_can_replace_a_value_of_any_type(driver: Any, admin: Any, kind: str) -> None:
    """A list pushed to a manifest's key keeps the dataset broken permanently."""
    add(admin, kind)
    admin.pexpire(MANIFEST, LONG_MS)
    repairing = whole("e.1.a", b"")
    assert do(driver, repairing) == Committed()
    assert do(driver, repairing) == Already()
    assert do(driver, Get(MANIFEST)) == manifest_bytes("e.1.a")
    assert admin.pttl(MANIFEST) == -1


def add(admin: Any, kind: str) -> None:
    """Put a value of this type under the manifest's key."""
    admin.execute_command(
        *{
            "list": ("RPUSH", MANIFEST, "x"),
            "hash": ("HSET", MANIFEST, "f", "x"),
            "set": ("SADD", MANIFEST, "x"),
            "zset": ("ZADD", MANIFEST, "1", "x"),
            "stream": ("XADD", MANIFEST, "*", "f", "x"),
        }[kind]
    )


def test_repair_that_saw_bytes_does_not_replace_a_list(driver: Any, admin: Any) -> None:
    """A repair replaces a value that it has not judged, or reports that nothing is there."""
    admin.rpush(MANIFEST, "x")
    assert do(driver, whole("e.1.a", b"damage")) == Mismatch(b"")
    assert admin.lrange(MANIFEST, 0, -1) == [b"x"]


def test_a_publish_never_replaces_a_list(driver: Any, admin: Any) -> None:
    """The first publish to a dataset overwrites another application's queue."""
    admin.rpush(MANIFEST, "x")
    for publishing in (commit("e.1.a"), commit("e.2.a", expected="e.1.a")):
        refused = do(driver, publishing)
        assert isinstance(refused, Failed)
        assert isinstance(refused.error, Corrupt)
        assert MANIFEST in str(refused.error)
    assert admin.lrange(MANIFEST, 0, -1) == [b"x"]


@pytest.mark.parametrize("by_repair", [False, True])
def test_a_list_in_the_place_of_a_record_is_not_committed(
    driver: Any, admin: Any, *, by_repair: bool
) -> None:
    """A manifest names a record that nobody can read."""
    admin.rpush(A, "x")
    admin.pexpire(A, LONG_MS)
    staged = (Staged(A, b"entry\n"),)
    if by_repair:
        admin.set(MANIFEST, "damage")
    relying = whole("e.1.a", b"damage", staged) if by_repair else commit("e.1.a", staged=staged)
    assert do(driver, relying) == Unstaged(A, present=True)
    assert admin.pttl(A) > 0
