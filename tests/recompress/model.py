"""Payloads that differ little, and what must hold of a dataset whatever stores it anew."""

from __future__ import annotations

import random
from typing import Any

import attrs
import msgspec

from swapstore import Store
from swapstore.cache import Cache
from swapstore.format import bases, manifest, pages, records
from swapstore.format.encodings import Dictionary
from swapstore.format.keys import Keys
from swapstore.models import Compression, Ref, Row
from tests.support import invariants

D = "mena"


def document(number: int, *, changed: int = 0, size: int = 600) -> bytes:
    """A payload that zstd cannot make smaller: a text by its number, of which a few bytes are changed."""
    text = bytearray(random.Random(number).randbytes(size))
    text[0:8] = b"%08d" % changed
    return bytes(text)


def storing(store: Store, compression: Compression, **changes: Any) -> Store:
    """Another client of a store, with its own compression and an empty cache."""
    policy = msgspec.structs.replace(store._context.policy, compression=compression)
    return Store(
        store._driver, msgspec.structs.replace(store._context, cache=Cache(1 << 20), policy=policy, **changes)
    )


def fill(store: Store, count: int, compression: Compression, begin: int = 0, **options: Any) -> list[bytes]:
    """Publish this many payloads that differ little; return them."""
    client = storing(store, compression)
    payloads = [document(0, changed=number, **options) for number in range(begin, begin + count)]
    for number, payload in enumerate(payloads, begin):
        client.publish(D, payload, id=f"id-{number}", codec="bytes")
    return payloads


@attrs.frozen
class Stored:
    """A dataset as it is stored: its manifest, its rows, oldest first, and how each is held."""

    manifest: manifest.Manifest
    rows: list[Row]
    held: dict[str, records.Held]
    size: int  # of all its permanent keys, in bytes

    @property
    def bases(self) -> list[str]:
        """The bases that rows name, in their order, each once for each run of rows."""
        named = [row.base for row in self.rows if row.base is not None]
        return [name for at, name in enumerate(named) if at == 0 or named[at - 1] != name]

    @property
    def encodings(self) -> set[tuple[str | None, bool]]:
        """How records hold their payloads: their encodings, and whether they need a base."""
        return {(held.encoding, held.base is not None) for held in self.held.values()}


def stored(store: Store) -> Stored:
    """Look at the dataset, and check it; read without the library's operations."""
    return check(invariants.contents(store), store._context.keys)


def check(values: invariants.Contents, keys: Keys, dataset: str = D, *, leaks: bool = False) -> Stored:
    """Assert that everything that is committed is there, whole and permanent, and that nothing else is.

    Each record that needs a base finds it, and rows with the same base are neighbours. `leaks`: a server has
    stopped inside a script, so there may be permanent keys that nobody needs.
    """
    key = keys.manifest(dataset)
    current = manifest.parse(values[key][0], dataset, key)
    reachable = {key}
    rows = [*_sealed(current.log.pages, values, dataset, reachable), *current.log.rows]
    names = {row.base for row in (*rows, *current.head.kept)} - {None}
    if current.log.base is not None:
        names.add(current.log.base.name)
    found: dict[str, Dictionary] = {}
    for name in names:
        assert name is not None
        base_key = keys.base(dataset, name)
        found[name] = bases.parse(values[base_key][0], name, dataset=dataset, key=base_key)
        reachable.add(base_key)
    held = {}
    for row in (*rows, *current.head.kept):
        id_key, ts_key = keys.records(dataset, row)
        held[row.id] = records.held(values[id_key][0], row, id_key)
        base = held[row.id].base
        assert base in {None, row.base}, f"{id_key} needs a base that its row does not name"
        held[row.id].payload(None if base is None else found[base])
        assert records.states_ts(values[ts_key][0], row)
        reachable |= {id_key, ts_key}
    for each, (_, expires) in values.items():
        if f"{{{dataset}}}" in each and (each in reachable or not leaks):
            assert expires == (each not in reachable), f"{each}: no TTL if and only if it is needed"
    assert current.head.count == len(rows)
    in_log = {row.version: row for row in rows}
    for row in current.head.kept:
        assert in_log.get(row.version, row).base == row.base, "the header names another base than the log"
    size = sum(len(data) for data, expires in values.values() if not expires)
    whole = Stored(current, rows, held, size)
    assert len(set(whole.bases)) == len(whole.bases), "rows with the same base are neighbours"
    return whole


def _sealed(
    refs: tuple[Ref, ...], values: invariants.Contents, dataset: str, reachable: set[str]
) -> list[Row]:
    rows: list[Row] = []
    for ref in refs:
        reachable.add(ref.key)
        page = pages.parse(values[ref.key][0], ref, dataset)
        rows += [*_sealed(page.pages, values, dataset, reachable), *page.rows]
    return rows
