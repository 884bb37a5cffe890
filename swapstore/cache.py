"""The cache of one client: the last manifest of each dataset, and immutable records up to a bound in bytes.

The threads of a `Store` share it. Every method takes the lock and does no I/O. Two threads may ask the store
at the same time and be answered in any order. So the cache changes by compare-and-set: a late answer never
replaces a newer manifest.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from swapstore.forks import survive_forks
from swapstore.models import Group
from swapstore.outages import Outages
from swapstore.structs import Struct

if TYPE_CHECKING:
    from swapstore.format.encodings import Dictionary
    from swapstore.format.manifest import Manifest
    from swapstore.format.members import HeldMember
    from swapstore.format.records import Held
    from swapstore.models import Member, Snapshot

MAX_MANIFESTS = 10_000
_BASE = "base"  # stands where other records have a digest
_FRAME = "frame"  # stands where other records have a key
ENTRY_BYTES = 400  # the memory of a cached record besides its data


class Known(msgspec.Struct, eq=False):
    """A manifest as last seen: at `read_at` (monotonic seconds) or later, the store held it.

    `seen_at` is the same moment in milliseconds since the Unix epoch, once a reader has worked it out.
    """

    manifest: Manifest
    read_at: float
    seen_at: int = 0


class LastGood(Struct, frozen=True, eq=False):
    """What a reader was given last. At `read_at` (monotonic seconds) or later, the store served it.

    `keep_s`: the longest time after that for which a reader wants it.
    """

    snapshot: Snapshot
    read_at: float
    keep_s: float


class Cache:
    """A client's cache. `limit_bytes` bounds the records, not the manifests (a few KB for each dataset).

    Nor does it bound what is kept for an outage: the snapshot of each dataset that its readers got last.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.outages = Outages()
        self.kept: OrderedDict[str, LastGood] = OrderedDict()  # for an outage, by the keys of manifests
        self._limit = limit_bytes
        self._size = 0
        self._records: OrderedDict[tuple[str, str], tuple[int, Any]] = OrderedDict()  # sizes and values
        self._manifests: OrderedDict[str, Known] = OrderedDict()
        self._listed: set[str] = set()
        self._only_primary: dict[str, int] = {}  # see `must_ask_primary`; and until which version is passed
        self._lock = threading.RLock()
        survive_forks(self)

    def after_fork(self) -> None:
        """Start empty in a child process: another thread may have been in the middle of a change.

        What is kept for an outage stays, with the time at which it was seen. Each change of it is atomic.
        """
        kept = self.kept
        for key in list(kept):
            self._note_seen(key)
        self.__init__(self._limit)  # type: ignore[misc]
        self.kept = kept

    @property
    def largest(self) -> int:
        """The size in bytes of the largest record that is cached; negative if none is."""
        return self._limit - ENTRY_BYTES

    # --- manifests ---------------------------------------------------------------------------------

    def known(self, key: str) -> Known | None:
        """Return the last manifest seen under this key."""
        with self._lock:
            return self._manifests.get(key)

    def learn(
        self, manifest: Manifest, read_at: float, *, basis: Known | None, retreat: bool = False
    ) -> None:
        """Cache a manifest that the store returned.

        `basis` is what was cached when the store was asked. A later version of the same epoch is always
        cached. Another epoch is cached only if the cache still holds `basis`. So is an older version of the
        same epoch, with `retreat`: the store itself has gone back.
        """
        with self._lock:
            known = self._manifests.get(manifest.key)
            if known is None and basis is not None and not retreat:
                return  # another thread has found that it is gone, or evicted it
            if known is not None and known is not basis:
                if known.manifest.epoch != manifest.epoch or is_newer(known.manifest, manifest):
                    return
            elif known is not None and is_newer(known.manifest, manifest):
                if not retreat:
                    return
                self._only_primary[manifest.key] = known.manifest.version
                self._drop_records()
            self._note_seen(manifest.key)
            self._manifests[manifest.key] = Known(manifest, read_at)
            self._manifests.move_to_end(manifest.key)
            if manifest.head.is_dropped:
                self.kept.pop(manifest.key, None)
            if self._only_primary.get(manifest.key, manifest.version) < manifest.version:
                del self._only_primary[manifest.key]
            if len(self._manifests) > MAX_MANIFESTS:
                evicted = next(iter(self._manifests))
                self._note_seen(evicted)
                del self._manifests[evicted]
                self._only_primary[evicted] = 0

    def touch(self, known: Known, read_at: float) -> None:
        """Note that the store still held this manifest at `read_at`."""
        with self._lock:
            if self._manifests.get(known.manifest.key) is known:
                self._manifests[known.manifest.key] = Known(known.manifest, max(read_at, known.read_at))

    def forget(self, key: str, *, basis: Known | None) -> None:
        """Note that the store has no manifest under this key, unless another one was cached since `basis`.

        If one was cached, the store may have been flushed: all records are dropped. A dataset that never
        existed says nothing about the others.
        """
        with self._lock:
            if self._manifests.get(key) is basis:
                self.kept.pop(key, None)
                self._listed.discard(key)
                if self._manifests.pop(key, None) is not None:
                    self._only_primary[key] = 0
                    self._drop_records()

    def must_ask_primary(self, key: str) -> bool:
        """Whether only the primary may show the manifest under this key.

        This client has seen one that it cannot compare with what a replica shows: it was evicted, or the
        primary has gone back, and a replica that lags would lead the client forth and back.
        """
        return key in self._only_primary

    def is_listed(self, key: str) -> bool:
        """Whether this client has put the dataset of this manifest on the list of names."""
        with self._lock:
            return key in self._listed

    def note_listed(self, key: str) -> None:
        """Note that the dataset of this manifest is on the list of names."""
        with self._lock:
            self._listed.add(key)

    # --- what is kept for an outage ------------------------------------------------------------------

    def keep_good(self, key: str, found: Snapshot, keep_s: float) -> None:
        """Keep what a reader is given now, unless another one was given something newer at the same time.

        `keep_s`: for how long this reader wants it. Callers of other datasets make room: see `LastGood`.
        """
        with self._lock:
            known, good = self._manifests.get(key), self.kept.get(key)
            if known is not None and known.manifest.etag == found.etag:
                read_at = known.read_at
            elif good is not None and _follows(found.etag, good.snapshot.etag):
                read_at = good.read_at  # the store showed it later than that
            else:
                if good is not None and _epoch(found.etag) != _epoch(good.snapshot.etag):
                    del self.kept[key]  # nobody can tell which of the two is newer
                return
            if good is None:
                self._make_room(read_at)
            else:
                found, keep_s = _joined(found, good.snapshot), max(keep_s, good.keep_s)
            self.kept[key] = LastGood(found, read_at, keep_s)
            self.kept.move_to_end(key)

    def _note_seen(self, key: str) -> None:
        """Note when what is kept was seen last, before the manifest that tells it is replaced."""
        known, good = self._manifests.get(key), self.kept.get(key)
        if known is not None and good is not None and good.snapshot.etag == known.manifest.etag:
            self.kept[key] = msgspec.structs.replace(good, read_at=max(good.read_at, known.read_at))

    def _make_room(self, now: float) -> None:
        """Drop what nobody may be served any more, from those that were kept first."""
        while self.kept:
            key, oldest = next(iter(self.kept.items()))
            if now - oldest.read_at <= oldest.keep_s:
                return
            self._note_seen(key)
            if now - self.kept[key].read_at <= oldest.keep_s:
                self.kept.move_to_end(key)  # it is read again and again
            else:
                del self.kept[key]

    def changed(self, key: str) -> None:
        """Drop what is kept if it is not what the dataset serves, after this client has changed that."""
        if key not in self.kept:
            return
        with self._lock:
            known, good = self._manifests.get(key), self.kept.get(key)
            if good is not None and (known is None or not _is_served(good.snapshot, known.manifest)):
                self.kept.pop(key, None)

    # --- records -----------------------------------------------------------------------------------

    def record(self, key: str, sha256: str) -> bytes | None:
        """Return the cached bytes of an immutable record. They were verified before they were cached."""
        found: bytes | None = self._get((key, sha256))
        return found

    def keep(self, key: str, sha256: str, data: bytes) -> None:
        """Cache an immutable record; evict the least recently used ones if there is no room."""
        self._keep((key, sha256), data, len(data))

    def member(self, key: str, sha256: str) -> Member | None:
        """Return a cached member of the group whose table has this digest."""
        found: Member | None = self._get((key, sha256))
        return found

    def keep_member(self, key: str, sha256: str, member: Member) -> None:
        """Cache a member of the group whose table has this digest."""
        self._keep((key, sha256), member, len(member.raw))

    def base(self, key: str) -> Dictionary | None:
        """Return the cached base under this key, whose name has its digest."""
        found: Dictionary | None = self._get((key, _BASE))
        return found

    def keep_base(self, key: str, base: Dictionary, *, compressing: bool) -> None:
        """Cache a base with all that zstd makes of it. `compressing`: it is used to compress, too."""
        self._keep((key, _BASE), base, base.memory_bytes(compressing=compressing))

    def forget_base(self, key: str) -> None:
        """Drop a base that the store has lost."""
        with self._lock:
            size, _ = self._records.pop((key, _BASE), (-ENTRY_BYTES, None))
            self._size -= size + ENTRY_BYTES

    def frame(self, name: str) -> tuple[bytes, int] | None:
        """Return the cached zstd frame of a payload with this name, and its CRC-32."""
        found: tuple[bytes, int] | None = self._get((_FRAME, name))
        return found

    def keep_frame(self, name: str, frame: bytes) -> tuple[bytes, int]:
        """Cache the zstd frame of a payload, and return it with its CRC-32."""
        kept = (frame, zlib.crc32(frame))
        self._keep((_FRAME, name), kept, len(frame))
        return kept

    def _get(self, name: tuple[str, str]) -> Any:
        with self._lock:
            found = self._records.get(name)
            if found is None:
                return None
            self._records.move_to_end(name)
            return found[1]

    def _keep(self, name: tuple[str, str], value: Any, size: int) -> None:
        if size > self.largest:
            return
        with self._lock:
            replaced = self._records.pop(name, None)
            self._size += size - replaced[0] if replaced else size + ENTRY_BYTES
            self._records[name] = (size, value)
            while self._size > self._limit:
                _, (evicted, _) = self._records.popitem(last=False)
                self._size -= evicted + ENTRY_BYTES

    def _drop_records(self) -> None:
        """Drop all records: after the store has gone back, a page's name may stand for other rows."""
        self._records.clear()
        self._size = 0


def is_newer(one: Manifest, other: Manifest) -> bool:
    """Whether `one` is a later version than `other` in the same epoch."""
    return one.epoch == other.epoch and one.version > other.version


def _is_served(found: Snapshot, manifest: Manifest) -> bool:
    if manifest.head.is_dropped:
        return False
    row = manifest.head.serving
    return (row.id, row.sha256) == (found.id, found.sha256)


def version_of(etag: str) -> int:
    """The version of the manifest with this etag."""
    return int(etag.split(".")[1])


def _epoch(etag: str) -> str:
    return etag.partition(".")[0]


def _follows(etag: str, other: str) -> bool:
    """Whether one etag is that of a later version than the other, in the same epoch."""
    return _epoch(etag) == _epoch(other) and version_of(etag) > version_of(other)


def _joined(found: Snapshot, before: Snapshot) -> Snapshot:
    """Add the members of a group that were read before to those that were read now."""
    if not isinstance(found, Group) or not isinstance(before, Group):
        return found
    if (found.id, found.sha256) != (before.id, before.sha256):
        return found
    return attrs.evolve(found, raw=found.raw or before.raw, members={**before.members, **found.members})


# --- frames ------------------------------------------------------------------------------------------

frames: Cache | None = None
"""The zstd frames that HTTP responses pass on, by the digests of their payloads.

`swapstore.http` makes it when it is imported. So a program that does not answer over HTTP keeps no frame
beside its payload.
"""


def note_frame(sha256: str, held: Held | HeldMember) -> None:
    """Cache the frame in a record whose payload was decoded, and has this digest, if it is one."""
    if frames is not None and held.encoding == "zstd" and held.base is None:
        frames.keep_frame(sha256, held.body)
