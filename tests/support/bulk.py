"""A dataset of any number of versions, made fast: the same bytes as that many publishes would leave.

Rows are made in a loop, sealed as a publish seals them, and written without the library. `test_bulk.py`
proves that the result is the same, byte for byte. With `recorded=False` the id and ts records are left out,
except those of the latest: a million of them would be most of the work. `record` adds those that a test
reads.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

import msgspec

from swapstore import Store
from swapstore.drivers.sqlite.driver import SqliteDriver
from swapstore.format import append, manifest, records
from swapstore.format.keys import Keys
from swapstore.format.manifest import F, G, Head, Log, Manifest
from swapstore.models import Ref, Row
from tests.support.drivers import sqlite_connection
from tests.support.valkey import client_of

EPOCH = "e" * 12
BEGAN_MS = 1_600_000_000_000
PERIOD_MS = 60_000
PAYLOAD_BYTES = 1024
CHUNK = 500
BLOCK = F * G**4  # rows that one process makes at a time

Pairs = Iterable[tuple[str, bytes]]


def payload(version: int) -> bytes:
    return b"%0*d" % (PAYLOAD_BYTES, version)


def moment(version: int) -> int:
    """The ts of a version: one a minute."""
    return BEGAN_MS + version * PERIOD_MS


def made(version: int) -> Row:
    """The row of a version, as long as one with an id that swapstore generates."""
    body = payload(version)
    return Row(
        id=f"018f2f7e-0000-7000-8000-{version:012x}",
        ts=moment(version),
        size=len(body),
        sha256=records.digest(body),
        codec="bytes",
        labels={},
        version=version,
        committed_at=moment(version) + 250,
    )


class Bulk:
    """Simulates publishes: from the stored manifest (None: from nothing) to any later version."""

    def __init__(
        self,
        dataset: str,
        keys: Keys,
        *,
        base: Manifest | None = None,
        epoch: str = EPOCH,
        block: int = BLOCK,
    ) -> None:
        self._dataset, self._keys = dataset, keys
        self._block = block
        self._epoch = base.epoch if base else epoch
        self._log = base.log if base else Log(rows=(), pages=())
        self._latest = base.head.latest if base else None
        self.version = base.version if base else 0

    def append(self, to: int, *, recorded: bool) -> Iterator[tuple[str, bytes]]:
        """Yield the keys and values that the publishes up to a version would have left."""
        begin = -(-max(0, self.version - F) // self._block) * self._block
        end = (to - F) // self._block * self._block
        if not recorded and end - begin > self._block:
            yield from self._one_by_one(begin + F, recorded=False)
            yield from self._blocks(begin, end)
        yield from self._one_by_one(to, recorded=recorded)

    def _blocks(self, begin: int, end: int) -> Iterator[tuple[str, bytes]]:
        """Seal all rows after one and up to another, in several processes; then the tail has the next F."""
        make = partial(_sealed, self._dataset, self._epoch, self._keys, self._block)
        with multiprocessing.get_context("spawn").Pool() as pool:
            for refs, pages in pool.imap(make, range(begin, end, self._block)):
                yield from pages
                for ref in refs:
                    whole, sealed = append.sealed_refs(
                        (*self._log.pages, ref), dataset=self._dataset, epoch=self._epoch, keys=self._keys
                    )
                    self._log = msgspec.structs.replace(self._log, pages=whole)
                    yield from ((page.ref.key, page.record) for page in sealed)
        self.version = end + F
        self._latest = made(self.version)
        self._log = msgspec.structs.replace(
            self._log, rows=tuple(made(end + each) for each in range(1, F + 1))
        )

    def _one_by_one(self, to: int, *, recorded: bool) -> Iterator[tuple[str, bytes]]:
        tail = list(self._log.rows)
        log = self._log
        for version in range(self.version + 1, to + 1):
            row = made(version)
            if self._latest is None or row.ts >= self._latest.ts:
                self._latest = row
            tail.append(row)
            if recorded:
                yield from self.records(row)
            if len(tail) == 2 * F:
                log, sealed = append.sealed_log(
                    msgspec.structs.replace(log, rows=tuple(tail)),
                    dataset=self._dataset,
                    epoch=self._epoch,
                    keys=self._keys,
                )
                tail = list(log.rows)
                yield from ((page.ref.key, page.record) for page in sealed)
        self._log, self.version = msgspec.structs.replace(log, rows=tuple(tail)), to

    def records(self, row: Row) -> Pairs:
        """Yield the id and the ts record of a row."""
        entry = records.entry_fields(row)
        yield self._keys.id(self._dataset, row.id), records.pack(entry, payload(row.version))
        yield self._keys.ts(self._dataset, row.ts, row.id), records.pack_ts(row, self._epoch)

    def manifest(self, nonce: str = "0" * 16) -> Manifest:
        """The manifest that the last of the publishes would have committed."""
        assert self._latest is not None
        committed_at = self._log.rows[-1].committed_at
        head = Head(
            etag=f"{self._epoch}.{self.version}.{nonce}",
            format=records.FORMAT,
            dataset=self._dataset,
            version=self.version,
            committed_at=committed_at,
            confirmed_at=committed_at,
            latest=self._latest,
            pinned=None,
            count=self.version,
            first_version=1,
            floor=0,
        )
        return manifest.build(head, self._log, self._keys)


def _sealed(
    dataset: str, epoch: str, keys: Keys, block: int, after: int
) -> tuple[tuple[Ref, ...], list[tuple[str, bytes]]]:
    """Seal the rows of one block; return the references to it, and its pages."""
    rows, pages = Bulk(dataset, keys, epoch=epoch), list[tuple[str, bytes]]()
    rows.version = after
    pages += rows._one_by_one(after + block + F, recorded=False)
    return rows._log.pages, pages


def extend(
    store: Store,
    dataset: str,
    *,
    to: int,
    recorded: bool = True,
    epoch: str = EPOCH,
    nonce: str = "0" * 16,
) -> Manifest:
    """Make a dataset have this many versions. The latest always has its records."""
    bulk = _begin(store, dataset, epoch)
    write(store, bulk.append(to, recorded=recorded))
    write(store, bulk.records(made(to)))
    grown = bulk.manifest(nonce)
    write(store, [(grown.key, grown.raw)])
    return grown


def record(store: Store, dataset: str, versions: Iterable[int]) -> None:
    """Write the id and ts records of some versions that were made without."""
    bulk = _begin(store, dataset, EPOCH)
    write(store, (pair for version in versions for pair in bulk.records(made(version))))


def _begin(store: Store, dataset: str, epoch: str) -> Bulk:
    is_new = read(store, store._context.keys.manifest(dataset)) is None
    base = None if is_new else stored_manifest(store, dataset)
    return Bulk(dataset, store._context.keys, base=base, epoch=epoch)


def stored_manifest(store: Store, dataset: str) -> Manifest:
    """The stored manifest."""
    key = store._context.keys.manifest(dataset)
    raw = read(store, key)
    assert raw is not None
    return manifest.parse(raw, dataset, key)


# --- past the library ------------------------------------------------------------------------------


def read(store: Store, key: str) -> bytes | None:
    """A stored value."""
    driver: Any = store._driver
    if isinstance(driver, SqliteDriver):
        with sqlite_connection(driver) as connection:
            found = connection.execute("SELECT value FROM records WHERE key = ?", (key,)).fetchone()
            return found[0] if found else None
    client: Any = client_of(driver)
    return client.get(key)  # type: ignore[no-any-return]


def write(store: Store, pairs: Pairs) -> None:
    """Write values without a TTL, some hundred at a time."""
    driver: Any = store._driver
    for chunk in _chunks(pairs):
        if isinstance(driver, SqliteDriver):
            with sqlite_connection(driver, writes=True) as connection:
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany("INSERT OR REPLACE INTO records (key, value) VALUES (?, ?)", chunk)
                connection.execute("COMMIT")
        else:
            pipeline: Any = client_of(driver).pipeline(transaction=False)
            for key, value in chunk:
                pipeline.set(key, value)
            pipeline.execute()


def take_back(store: Store, before: Manifest, staged: Iterable[str]) -> None:
    """Undo publishes: restore the manifest from before, and remove what they staged."""
    driver: Any = store._driver
    keys = list(staged)
    if isinstance(driver, SqliteDriver):
        with sqlite_connection(driver) as connection:
            connection.executemany("DELETE FROM records WHERE key = ?", [(key,) for key in keys])
    elif keys:
        client_of(driver).delete(*keys)
    write(store, [(before.key, before.raw)])


def _chunks(pairs: Pairs) -> Iterator[list[tuple[str, bytes]]]:
    chunk: list[tuple[str, bytes]] = []
    for pair in pairs:
        chunk.append(pair)
        if len(chunk) == CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
