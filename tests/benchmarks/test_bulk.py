"""The bulk builder makes what as many publishes make: otherwise no figure of the benchmark is right."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

import swapstore
from swapstore import Store
from swapstore.format import append, manifest
from swapstore.format.append import Stamp
from swapstore.format.keys import Keys
from swapstore.format.manifest import F, G, Manifest
from swapstore.format.records import entry_fields
from swapstore.models import Entry
from tests.support import bulk
from tests.support.deterministic import TickingClock
from tests.support.invariants import check, contents
from tests.support.valkey import Server

PUBLISHES = 700


class StoppedClock(TickingClock):
    """A clock that shows what it is set to."""

    def now_ms(self) -> int:
        return self.ms

    def monotonic(self) -> float:
        return self.ms / 1000


def published(store: Store, count: int) -> Manifest:
    """Publish this many versions, one by one; return the resulting manifest."""
    clock = StoppedClock()
    context = msgspec.structs.replace(store._context, clock=clock, random=random.Random(7))
    client = Store(store._driver, context)
    for version in range(1, count + 1):
        row = bulk.made(version)
        clock.ms = row.committed_at
        client.publish("mena", bulk.payload(version), id=row.id, ts=row.ts, codec="bytes")
    known = context.cache.known(context.keys.manifest("mena"))
    assert known is not None
    return known.manifest


def stores(kind: str, tmp_path: Path, valkey: Server) -> tuple[Store, Store]:
    """Two independent stores."""
    if kind == "sqlite":
        one, other = (f"sqlite:///{tmp_path}/{name}.db" for name in ("one", "other"))
    else:
        one, other = valkey.url, valkey.url.removesuffix("0") + "1"
    return swapstore.connect(one), swapstore.connect(other)


@pytest.mark.parametrize("kind", ["sqlite", "valkey"])
def test_a_dataset_made_in_bulk_is_the_one_that_publishes_make(
    kind: str, tmp_path: Path, valkey: Server
) -> None:
    """A dataset made in bulk has other keys or bytes than one that was published, or a TTL."""
    one, other = stores(kind, tmp_path, valkey)
    with one, other:
        real = published(one, PUBLISHES)
        nonce = real.etag.rpartition(".")[2]
        bulk.extend(other, "mena", to=333, epoch=real.epoch)
        bulk.extend(other, "mena", to=PUBLISHES, nonce=nonce)
        assert contents(other) == contents(one)
        assert [row.version for row in check(other)] == list(range(1, PUBLISHES + 1))


@pytest.mark.parametrize("count", [1, F, 2 * F - 1, 2 * F, F * G + F, 3 * F * G * G + 1000])
def test_pages_and_manifest_are_those_of_the_pure_code(count: int) -> None:
    """With three levels of pages, keys, bytes or references differ from those of single publishes."""
    keys = Keys("ns")
    current: Manifest | None = None
    sealed: dict[str, bytes] = {}
    for version in range(1, count + 1):
        row = bulk.made(version)
        stamp = Stamp(now_ms=row.committed_at, nonce=f"{version:016x}", new_epoch=bulk.EPOCH, keys=keys)
        entry = Entry(**entry_fields(row))
        draft = append.append(current, entry, dataset="mena", dedupe_key=None, stamp=stamp)
        sealed |= {page.ref.key: page.record for page in draft.pages}
        current = draft.manifest
    made = bulk.Bulk("mena", keys)
    assert dict(made.append(count, recorded=False)) == sealed
    assert current is not None
    assert made.manifest(nonce=f"{count:016x}").raw == current.raw
    assert manifest.parse(current.raw, "mena", keys.manifest("mena")).log == current.log


def test_blocks_that_processes_make_are_those_of_one() -> None:
    """A dataset of millions of versions is not the one that as many publishes make."""
    keys, to = Keys("ns"), 5 * F * G + 100
    one, other = bulk.Bulk("mena", keys), bulk.Bulk("mena", keys, block=F * G)
    pages = dict(one.append(to, recorded=False))
    assert dict([*other.append(F + 3, recorded=False), *other.append(to, recorded=False)]) == pages
    assert other.manifest().raw == one.manifest().raw


def test_what_is_taken_back_leaves_nothing(tmp_path: Path) -> None:
    """A publish of one cycle changes the figures of the next one."""
    with swapstore.connect(f"sqlite:///{tmp_path}/store.db") as store:
        before = bulk.extend(store, "mena", to=2 * F - 1)
        was = contents(store)
        store.publish("mena", b"x", codec="bytes", ts=bulk.moment(2 * F))
        staged = [key for key in contents(store) if key not in was]
        assert len(staged) == 3, "the id record, the ts record, and a page"
        bulk.take_back(store, before, staged)
        assert contents(store) == was
