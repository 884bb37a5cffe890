"""A keyset: a set of many keys that takes 8 bytes a key, because it holds hashes."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

BUCKETS = 256  # one is sorted at a time, so sorting takes a 256th of the memory


class Keyset:
    """Remembers keys that were added. Two different keys are taken for the same once in 10^19.

    The hash is Python's: SipHash of 64 bits, under a secret that each process draws.
    """

    def __init__(self) -> None:
        self._buckets = [array("q") for _ in range(BUCKETS)]
        self._unsorted = set[int]()

    def add(self, key: str) -> None:
        """Add a key."""
        self.update((key,))

    def update(self, keys: Iterable[str]) -> None:
        """Add keys."""
        buckets, unsorted = self._buckets, self._unsorted
        for key in keys:
            digest = hash(key)
            number = digest % BUCKETS
            buckets[number].append(digest)
            unsorted.add(number)

    def __contains__(self, key: str) -> bool:
        digest = hash(key)
        number = digest % BUCKETS
        if number in self._unsorted:
            self._buckets[number] = array("q", sorted(self._buckets[number]))
            self._unsorted.discard(number)
        bucket = self._buckets[number]
        at = bisect_left(bucket, digest)
        return at < len(bucket) and bucket[at] == digest
