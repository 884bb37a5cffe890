"""A keyset: a set of many keys that takes 8 bytes a key, because it holds digests."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left

BUCKETS = 256  # one is sorted at a time, so sorting takes a 256th of the memory


class Keyset:
    """Remembers keys that were added. Two different keys are taken for the same once in 10^19."""

    def __init__(self) -> None:
        self._buckets = [array("Q") for _ in range(BUCKETS)]
        self._unsorted = set[int]()

    def add(self, key: str) -> None:
        """Add a key."""
        digest = _digest(key)
        self._buckets[digest % BUCKETS].append(digest)
        self._unsorted.add(digest % BUCKETS)

    def __contains__(self, key: str) -> bool:
        digest = _digest(key)
        number = digest % BUCKETS
        if number in self._unsorted:
            self._buckets[number] = array("Q", sorted(self._buckets[number]))
            self._unsorted.discard(number)
        bucket = self._buckets[number]
        at = bisect_left(bucket, digest)
        return at < len(bucket) and bucket[at] == digest


def _digest(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8", "replace"), digest_size=8).digest(), "big")
