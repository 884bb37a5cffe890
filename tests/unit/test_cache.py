"""What a client remembers."""

from __future__ import annotations

from swapstore.cache import Cache
from tests.unit.test_manifest import KEY, append


def test_records_are_bounded_by_bytes_and_the_oldest_use_goes_first() -> None:
    """A reader's memory does not grow with the number of versions it has seen."""
    cache = Cache(100)
    for name in ("a", "b", "c"):
        cache.keep(name, "", bytes(30))
    assert cache.record("a", "") is not None
    cache.keep("d", "", bytes(30))
    assert [name for name in "abcd" if cache.record(name, "") is not None] == ["a", "c", "d"]
    cache.keep("huge", "", bytes(101))
    assert cache.record("huge", "") is None
    assert cache.record("a", "") is not None


def test_keeping_a_record_twice_counts_it_once() -> None:
    """Two threads that load the same record do not eat the bound."""
    cache = Cache(100)
    for _ in range(10):
        cache.keep("a", "", bytes(60))
    cache.keep("b", "", bytes(40))
    assert cache.record("a", "") is not None
    assert cache.record("b", "") is not None


def test_a_record_is_remembered_by_its_digest() -> None:
    """The same id with other content, in another epoch, is another record."""
    cache = Cache(100)
    cache.keep("k", "sha-1", b"one")
    assert cache.record("k", "sha-2") is None


def test_an_older_manifest_does_not_replace_a_newer_one() -> None:
    """A late reply in one thread does not take another thread back in time."""
    cache = Cache(0)
    one = append(None, 1).manifest
    two = append(one, 2).manifest
    cache.learn(two, 1.0)
    cache.learn(one, 2.0)
    known = cache.known(KEY)
    assert known is not None
    assert known.manifest is two
    cache.learn(one, 3.0, retreat=True)
    known = cache.known(KEY)
    assert known is not None
    assert known.manifest is one
    cache.forget(KEY)
    assert cache.known(KEY) is None
