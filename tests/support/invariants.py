"""What must hold of a store at every moment, read without the library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import attrs

from swapstore import Store
from swapstore.commands import Ask
from swapstore.format import bases, manifest, pages
from swapstore.format.encodings import Dictionary
from swapstore.format.keys import Keys
from swapstore.format.records import held, origin_in, states, states_ts
from swapstore.models import Ref, Row
from tests.support.drivers import sqlite_connection
from tests.support.valkey import client_of

Contents = dict[str, tuple[bytes, bool]]  # the value, and whether it has a TTL


def contents(store: Store) -> Contents:
    """Every key of the store: its value, and whether it has a TTL."""
    driver: Any = store._driver
    while hasattr(driver, "_driver"):
        driver = driver._driver
    if hasattr(driver, "keyspace"):
        driver.keyspace.expire(driver.clock.now_ms())
        return {
            key: (value.data, value.expires_at is not None) for key, value in driver.keyspace.values.items()
        }
    if driver.kind == "cluster":
        driver.execute([Ask(("nodes",))])  # it may not have been used yet
        nodes = [driver._node(node) for node in driver._table.primaries]
        return {key: value for node in nodes for key, value in _on_server(node).items()}
    if hasattr(driver, "_pool"):
        return _on_server(driver)
    with sqlite_connection(driver) as connection:
        stored = connection.execute(
            "SELECT key, value, expires_at FROM records WHERE expires_at IS NULL OR expires_at > ?",
            (driver._now_ms(),),
        )
        return {key: (value, expires_at is not None) for key, value, expires_at in stored}


def _on_server(driver: Any) -> Contents:
    with client_of(driver) as client:
        keys = client.keys("*")
        pipe = client.pipeline(transaction=False)
        for key in keys:
            pipe.type(key)
        names = [key for key, kind in zip(keys, pipe.execute(), strict=True) if kind == b"string"]
        for key in names:
            pipe.get(key).pttl(key)
        replies = pipe.execute()
    found = zip(names, replies[::2], replies[1::2], strict=True)
    return {key.decode(): (value, ttl != -1) for key, value, ttl in found if value is not None}  # or expired


def manifest_of(store: Store, dataset: str = "mena") -> manifest.Manifest:
    """The stored manifest."""
    key = store._context.keys.manifest(dataset)
    return manifest.parse(contents(store)[key][0], dataset, key)


def check(store: Store, dataset: str = "mena", *, unused_pages: bool = False) -> list[Row]:
    """Assert invariants 1, 4, 6, 7 and 9 of the protocol for a dataset; return its rows, oldest first.

    `unused_pages`: there may be permanent pages and bases that no manifest names, as a commit without scripts
    leaves.
    """
    return _check(contents(store), store._context.keys, dataset, unused_pages=unused_pages)


def check_all(store: Store, datasets: Iterable[str]) -> dict[str, list[Row]]:
    """Assert the same of several datasets, of which everything is read once."""
    found = contents(store)
    return {each: _check(found, store._context.keys, each, unused_pages=False) for each in datasets}


def _check(found: Contents, keys: Keys, dataset: str, *, unused_pages: bool) -> list[Row]:
    manifest_key = keys.manifest(dataset)
    if manifest_key not in found:
        assert not [key for key, (_, expires) in found.items() if f"{{{dataset}}}" in key and not expires]
        return []
    current = manifest.parse(found[manifest_key][0], dataset, manifest_key)
    look = _Look(found, keys, dataset, {manifest_key})
    rows = [*_sealed(current.log.pages, found, dataset, look.reachable), *current.log.rows]
    if current.log.base is not None:
        look.base(current.log.base.name)
    for row in (*rows, *current.head.kept):
        look.row(row)
    versions = [row.version for row in rows]
    assert versions == sorted(set(versions)), "each version commits at most one row, in order"
    alive = {row.version: row for row in (*current.head.kept, *rows)}
    assert len({row.id for row in alive.values()}) == len(alive), "one row per id"
    assert all(alive[kept.version] == kept for kept in current.head.kept), "latest and pinned are rows"
    assert current.head.count == len(rows)
    spare = {keys.base(dataset, row.base) for row in alive.values() if row.base} - look.reachable
    for key, (_, expires) in found.items():
        is_unused = unused_pages and key.startswith((keys.page(dataset, ""), keys.base(dataset, "")))
        is_spare = key in spare or (is_unused and not expires)
        if f"{{{dataset}}}" in key and not is_spare:
            assert expires == (key not in look.reachable), f"{key}: no TTL if and only if committed"
    return rows


@attrs.define
class _Look:
    """One look at a dataset: the keys that its manifest reaches, and the bases that were read."""

    found: Contents
    keys: Keys
    dataset: str
    reachable: set[str]
    bases: dict[str, Dictionary] = attrs.field(factory=dict)

    def row(self, row: Row) -> None:
        """Assert that a row's records are whole, its payload included.

        A base that a row names, and that its record does without, may be there or not.
        """
        id_key, ts_key = self.keys.records(self.dataset, row)
        record = held(self.found[id_key][0], row, id_key)
        assert record.base in {None, row.base}, f"{id_key} needs another base than its row names"
        record.payload(None if record.base is None else self.base(record.base))
        assert states(self.found[id_key][0], row)
        ts_record = self.found[ts_key][0]
        origin = origin_in(ts_record)
        assert states_ts(ts_record, row)
        assert origin is not None
        assert origin.version <= row.version
        self.reachable |= {id_key, ts_key}

    def base(self, name: str) -> Dictionary:
        """Assert that a base is whole, and return it."""
        key = self.keys.base(self.dataset, name)
        self.reachable.add(key)
        if name not in self.bases:
            self.bases[name] = bases.parse(self.found[key][0], name, dataset=self.dataset, key=key)
        return self.bases[name]


def _sealed(refs: tuple[Ref, ...], found: Contents, dataset: str, reachable: set[str]) -> Iterator[Row]:
    for ref in refs:
        reachable.add(ref.key)
        page = pages.parse(found[ref.key][0], ref, dataset)
        rows = [*_sealed(page.pages, found, dataset, reachable), *page.rows]
        times = [row.ts for row in rows]
        spans = (len(rows), rows[0].version, rows[-1].version, min(times), max(times), bases.span(rows))
        assert spans == (ref.count, ref.first_version, ref.last_version, ref.min_ts, ref.max_ts, ref.bases)
        yield from rows
