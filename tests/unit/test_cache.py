"""The cache of one client."""

from __future__ import annotations

from swapstore.cache import ENTRY_BYTES, Cache, Known
from swapstore.format import append as appending
from swapstore.format.append import Stamp
from tests.unit.test_manifest import KEY, KEYS, append, entry


def room_for(entries: int, size: int) -> int:
    return entries * (size + ENTRY_BYTES)


def test_records_are_bounded_by_bytes_and_the_least_recently_used_is_evicted() -> None:
    """A reader's memory grows with the number of versions that it has read."""
    cache = Cache(room_for(3, 30))
    for name in ("a", "b", "c"):
        cache.keep(name, "", bytes(30))
    assert cache.record("a", "") is not None
    cache.keep("d", "", bytes(30))
    assert [name for name in "abcd" if cache.record(name, "") is not None] == ["a", "c", "d"]
    cache.keep("huge", "", bytes(5000))
    assert cache.record("huge", "") is None
    assert cache.record("a", "") is not None
    nothing = Cache(0)
    nothing.keep("a", "", b"")
    assert nothing.record("a", "") is None


def test_keeping_a_record_twice_counts_it_once() -> None:
    """Two threads that load the same record use up the bound twice."""
    cache = Cache(room_for(2, 60))
    for _ in range(10):
        cache.keep("a", "", bytes(60))
    cache.keep("b", "", bytes(60))
    assert cache.record("a", "") is not None
    assert cache.record("b", "") is not None


def test_a_record_is_cached_by_its_digest() -> None:
    """The same id with other content, in another epoch, is served from the cache."""
    cache = Cache(room_for(2, 60))
    cache.keep("k", "sha-1", b"one")
    assert cache.record("k", "sha-2") is None


def known(cache: Cache) -> Known:
    found = cache.known(KEY)
    assert found is not None
    return found


def test_an_older_manifest_does_not_replace_a_newer_one() -> None:
    """A late reply in one thread takes another thread back in time."""
    cache = Cache(0)
    one = append(None, 1).manifest
    two = append(one, 2).manifest
    three = append(two, 3).manifest
    cache.learn(one, 0.5, basis=None)
    late = known(cache)
    cache.learn(two, 1.0, basis=late)
    cache.learn(one, 2.0, basis=late, retreat=True)
    assert known(cache).manifest is two
    cache.learn(three, 2.0, basis=late)
    assert known(cache).manifest is three
    cache.learn(one, 3.0, basis=known(cache))
    assert known(cache).manifest is three


def test_a_restored_store_is_followed_and_its_pages_are_forgotten() -> None:
    """After a restored backup, pages of the lost history are served from the cache."""
    cache = Cache(room_for(2, 60))
    one = append(None, 1).manifest
    two = append(one, 2).manifest
    cache.learn(two, 1.0, basis=None)
    cache.keep("page", "", b"x")
    cache.learn(one, 3.0, basis=known(cache), retreat=True)
    assert known(cache).manifest is one
    assert cache.record("page", "") is None


def test_another_epoch_counts_only_if_nothing_newer_was_learned() -> None:
    """A slow thread that read the old epoch brings it back after a flush."""
    cache = Cache(0)
    old = append(None, 1).manifest
    cache.learn(old, 1.0, basis=None)
    before = known(cache)
    new = appending.append(
        None,
        entry(9),
        dataset="mena",
        dedupe_key=None,
        stamp=Stamp(now_ms=1, nonce="1", new_epoch="f" * 12, keys=KEYS),
    ).manifest
    cache.learn(new, 2.0, basis=before)
    assert known(cache).manifest is new
    cache.touch(before, 5.0)
    cache.learn(old, 5.0, basis=before)
    cache.forget(KEY, basis=before)
    assert known(cache).manifest is new
    assert known(cache).read_at == 2.0
    cache.touch(known(cache), 7.0)
    assert known(cache).read_at == 7.0
    cache.note_listed(KEY)
    cache.forget(KEY, basis=known(cache))
    assert cache.known(KEY) is None
    assert not cache.is_listed(KEY)


def test_a_missing_dataset_does_not_empty_the_cache() -> None:
    """A request for a name that does not exist makes a web service read every payload anew."""
    cache = Cache(1000)
    cache.keep("a", "", b"kept")
    cache.forget(KEY, basis=None)
    assert cache.record("a", "") == b"kept"
