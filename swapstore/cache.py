"""What one client remembers: the last manifest of each dataset, and immutable records, bounded by bytes.

Shared by the threads of a `Store`; every method takes the lock and does no I/O.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from swapstore.manifest import Manifest

MAX_MANIFESTS = 10_000


@attrs.frozen
class Known:
    """A manifest as last seen: it was the stored one at `read_at` (monotonic seconds) or later."""

    manifest: Manifest
    read_at: float


class Cache:
    """A client's memory. `limit_bytes` bounds the records, not the manifests (a few KB a dataset)."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._size = 0
        self._records: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._manifests: OrderedDict[str, Known] = OrderedDict()
        self._lock = threading.Lock()

    def known(self, key: str) -> Known | None:
        """Return the last manifest seen under this key."""
        with self._lock:
            return self._manifests.get(key)

    def learn(self, manifest: Manifest, read_at: float, *, retreat: bool = False) -> None:
        """Remember a manifest, unless a later version of it is known: a client never goes back in time.

        `retreat` accepts an older one, when the store itself has gone back.
        """
        with self._lock:
            known = self._manifests.get(manifest.key)
            if known and not retreat and is_newer(known.manifest, manifest):
                return
            self._manifests[manifest.key] = Known(manifest, read_at)
            self._manifests.move_to_end(manifest.key)
            if len(self._manifests) > MAX_MANIFESTS:
                self._manifests.popitem(last=False)

    def forget(self, key: str) -> None:
        """Forget the manifest under this key: the store has none."""
        with self._lock:
            self._manifests.pop(key, None)

    def record(self, key: str, sha256: str) -> bytes | None:
        """Return the cached bytes of an immutable record, verified when they were stored here."""
        with self._lock:
            found = self._records.get((key, sha256))
            if found is not None:
                self._records.move_to_end((key, sha256))
            return found

    def keep(self, key: str, sha256: str, data: bytes) -> None:
        """Remember an immutable record; the least recently used ones make room."""
        if len(data) > self._limit:
            return
        with self._lock:
            replaced = self._records.pop((key, sha256), None)
            self._size += len(data) - (len(replaced) if replaced is not None else 0)
            self._records[key, sha256] = data
            while self._size > self._limit:
                _, dropped = self._records.popitem(last=False)
                self._size -= len(dropped)


def is_newer(one: Manifest, other: Manifest) -> bool:
    """Say whether `one` is a later version than `other` in the same line of versions."""
    return one.epoch == other.epoch and one.version > other.version
