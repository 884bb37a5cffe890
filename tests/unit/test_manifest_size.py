"""A manifest travels with each commit, and to each reader of a new version: it stays small at any depth."""

from __future__ import annotations

import random
import uuid

import attrs
import msgspec

from swapstore.format import manifest, records
from swapstore.format.append import Stamp, append
from swapstore.format.keys import Keys
from swapstore.format.manifest import Log, Manifest, build
from swapstore.models import Entry, Ref, Row

DATASET = "market-regime"
BEGAN_MS = 1_790_000_000_000
PERIOD_MS = 600_000
EPOCH = "e" * 12
KEYS = Keys("swapstore")


def moment(version: int) -> int:
    """The `ts` of a version: one every ten minutes, more or less."""
    return BEGAN_MS + version * PERIOD_MS + version * 7_919 % PERIOD_MS


def entry(version: int) -> Entry:
    """A snapshot of some kilobytes, whose id is a UUIDv7, as swapstore makes it."""
    chance = random.Random(version)
    name = uuid.UUID(int=(moment(version) << 80) | (7 << 76) | (2 << 62) | chance.getrandbits(62))
    size = chance.randrange(10_000, 90_000)
    return Entry(id=str(name), ts=moment(version), size=size, sha256=records.digest(name.bytes))


def committed(base: Manifest | None) -> Manifest:
    """The manifest that the next commit makes."""
    version = base.version + 1 if base else 1
    stamp = Stamp(
        now_ms=moment(version) + 1_250,
        nonce=f"{random.Random(-version).getrandbits(64):016x}",
        new_epoch=EPOCH,
        keys=KEYS,
    )
    return append(base, entry(version), dataset=DATASET, dedupe_key=None, stamp=stamp).manifest


def pages_below(version: int) -> tuple[Ref, ...]:
    """The references to the pages of all rows below a version, which begins a page."""
    refs: list[Ref] = []
    first, count = 1, manifest.F * manifest.G**8
    while first < version:
        last = first + count - 1
        if last < version:
            key = KEYS.page(DATASET, f"{EPOCH}.{first}-{last}")
            ref = Ref(
                key=key,
                count=count,
                first_version=first,
                last_version=last,
                min_ts=moment(first),
                max_ts=moment(last),
            )
            refs.append(ref)
            first = last + 1
        else:
            count //= manifest.G
    return tuple(refs)


def at_depth(version: int) -> Manifest:
    """The manifest of this version, which is the last of a page, as its commit would have made it."""
    first = version - manifest.F + 1
    rows = tuple(
        Row(**attrs.asdict(entry(each)), version=each, committed_at=moment(each) + 1_250)
        for each in range(first, version + 1)
    )
    head = committed(None).head
    etag = f"{EPOCH}.{version}.{'0' * 16}"
    head = msgspec.structs.replace(head, etag=etag, version=version, count=version, latest=rows[-1])
    head = msgspec.structs.replace(
        head, committed_at=rows[-1].committed_at, confirmed_at=rows[-1].committed_at
    )
    return build(head, Log(rows=rows, pages=pages_below(first)), KEYS)


def cycle(base: Manifest) -> list[Manifest]:
    """The manifests of the next commits: the tail has every length."""
    found = [base]
    for _ in range(2 * manifest.F):
        found.append(committed(found[-1]))
    return found


def test_at_400_versions_a_manifest_has_at_most_two_and_a_half_kilobytes() -> None:
    """A dataset that was published for a few days sends its history along with each commit."""
    base = committed(None)
    while base.version < 400:
        base = committed(base)
    found = cycle(base)
    assert [len(each.log.rows) for each in found[:9]] == [*range(8, 16), 8]
    assert max(len(each.raw) for each in found) <= 2_500


def test_what_is_made_for_a_depth_is_what_commits_make() -> None:
    """The test below measures another manifest than the one that many commits leave."""
    real = committed(None)
    while real.version < 632:
        real = committed(real)
    made = at_depth(632)
    assert (made.log, made.head.count, made.head.latest) == (real.log, real.head.count, real.head.latest)
    assert len(real.log.pages) == 1 + 1 + 6, "of each size"


def test_at_a_million_versions_a_manifest_has_at_most_four_kilobytes() -> None:
    """A dataset that was published for twenty years has a manifest that slows every commit."""
    found = cycle(at_depth(1_000_000))
    assert [len(each.log.rows) for each in found[:9]] == [*range(8, 16), 8]
    assert max(len(each.raw) for each in found) <= 4_000
