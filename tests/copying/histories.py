"""Histories to copy, and what must be equal of them in two stores."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import msgspec

from swapstore import Retention, Row, Store
from swapstore.cache import Cache
from swapstore.format import manifest
from swapstore.format.manifest import Manifest
from swapstore.models import Compression
from tests.support import invariants

D = "mena"
COMPRESSIONS: tuple[Compression, ...] = ("none", "zstd", "delta")


def client(store: Store, compression: Compression | None = None, **options: Any) -> Store:
    """Another client of a store, with a cache and options of its own."""
    context = msgspec.structs.replace(store._context, cache=Cache(1 << 20), **options)
    if compression is not None:
        context = msgspec.structs.replace(
            context, policy=msgspec.structs.replace(context.policy, compression=compression)
        )
    return Store(store._driver, context)


def kept(row: Row) -> tuple[Any, ...]:
    """What a copy keeps of a row."""
    return (row.id, row.ts, row.sha256, row.size, row.codec, row.labels, row.committed_at, row.dedupe_key)


def readable(store: Store, dataset: str = D) -> list[Row]:
    """What can be read of a dataset, oldest commit first: its history, and what is latest and pinned."""
    status = store.status(dataset)
    if status is None:
        return []
    rows = {row.version: row for row in store.history(dataset, limit=None)}
    rows |= {row.version: row for row in (status.latest, status.pinned) if row is not None}
    return [rows[version] for version in sorted(rows)]


def payloads(store: Store, rows: Iterable[Row], dataset: str = D) -> list[Any]:
    """The payloads of rows, and those of their members."""
    found = []
    for row in rows:
        snapshot = store.read(dataset, id=row.id)
        assert snapshot is not None, row.id
        found.append((snapshot.raw, {name: (m.raw, m.codec) for name, m in snapshot.members.items()}))
    return found


def assert_same(source: Store, target: Store, dataset: str = D) -> None:
    """The target has what the source has, byte for byte and in order, but for what is pinned: it is first."""
    ours, theirs = readable(source, dataset), readable(target, dataset)
    if (status := target.status(dataset)) and (pinned := status.pinned):
        ours.sort(key=lambda row: row.id != pinned.id)
    assert [kept(row) for row in theirs] == [kept(row) for row in ours]
    assert payloads(target, theirs, dataset) == payloads(source, ours, dataset)


def stored(store: Store, dataset: str = D) -> Manifest:
    """The stored manifest, read without the library."""
    key = store._context.keys.manifest(dataset)
    return manifest.parse(invariants.contents(store)[key][0], dataset, key)


class Producer:
    """Does at random what happens to a dataset: publishes, backfills, pins, rollbacks, retention."""

    def __init__(self, store: Store, seed: int, *, prefix: str = "") -> None:
        self.random = random.Random(seed)
        self.clients = [client(store, how) for how in COMPRESSIONS]
        self.clients.append(client(store, "delta", retention=Retention(max_count=12)))
        self.ids: list[str] = []
        self.prefix = prefix
        self.text = [f"line {number} of the document" for number in range(60)]

    def step(self) -> None:
        store = self.random.choice(self.clients)
        store._context.clock.advance(self.random.choice([1, 1000, 700_000]))  # type: ignore[attr-defined]
        acts = [self.publish] * 6 + [self.group] * 2 + [self.pin, self.unpin, self.roll_back, self.confirm]
        act = self.random.choice(acts) if self.ids else self.publish
        act(store)

    def publish(self, store: Store) -> None:
        self.text[self.random.randrange(60)] = str(self.random.random())
        value: Any = {"text": self.text}
        codec: Any = "json"
        if not self.random.randrange(4):
            value, codec = self.random.randbytes(self.random.randrange(50)), "bytes"
        store.publish(D, value, codec=codec, **self._options(store))

    def group(self, store: Store) -> None:
        names = self.random.sample(["EG", "SG", "index", "meta"], self.random.randint(1, 4))
        members = {name: {"name": name, "text": self.text[:5]} for name in names}
        store.publish_group(D, members, **self._options(store))

    def pin(self, store: Store) -> None:
        store.pin(D, version=self.random.choice(readable(store)).version)

    def unpin(self, store: Store) -> None:
        store.unpin(D)

    def roll_back(self, store: Store) -> None:
        store.rollback(D, version=self.random.choice(readable(store)).version)

    def confirm(self, store: Store) -> None:
        store.confirm(D)

    def _options(self, store: Store) -> dict[str, Any]:
        number = len(self.ids)
        self.ids.append(f"{self.prefix}id-{number}")
        now = store._context.clock.now_ms()
        ts = now - self.random.choice([0, 0, 0, 5_000, 10_000_000])
        labels = {"n": str(number)} if self.random.random() < 0.5 else {}
        key = f"key-{self.random.randrange(5)}-{number}" if self.random.random() < 0.5 else None
        return {"id": self.ids[-1], "ts": ts, "labels": labels, "dedupe_key": key}
