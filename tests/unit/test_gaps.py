"""What no other test noticed when it was broken on purpose: see docs/explanation/mutants.md."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Callable

import attrs
import pytest

from swapstore.cache import Cache
from swapstore.errors import Corrupt, UnsupportedFormat
from swapstore.format import append, manifest, records
from swapstore.format.append import Stamp
from swapstore.format.keys import Keys
from swapstore.models import Entry, Ref
from swapstore.operations.context import Context, Policy, SystemClock
from tests.support.fixed import TickingClock

KEYS = Keys("ns")
KEY = KEYS.manifest("mena")
LIVE = records.pack_live(etag="e.1.n", codec="json", payload=b"[1]")


def first() -> bytes:
    """The bytes of a manifest with one version."""
    described = Entry(id="id-1", ts=1, size=2, sha256=records.digest(b"{}"), codec="json", labels={})
    return append.append(
        None,
        described,
        dataset="mena",
        dedupe_key=None,
        stamp=Stamp(now_ms=1, nonce="0" * 16, new_epoch="e" * 12, keys=KEYS),
    ).manifest.raw


def test_a_newer_format_names_the_key_and_the_formats() -> None:
    """Who has to upgrade must see which record asks for it and what it asks for, also from code."""
    newer = first().replace(b'"format":1', b'"format":2')
    for raw in (newer, newer.replace(b'"count"', b'"tally"')):
        with pytest.raises(UnsupportedFormat, match=f"^{KEY} has format 2 and .* up to 1") as caught:
            manifest.parse(raw, "mena", KEY)
        assert caught.value.key == KEY
    with pytest.raises(UnsupportedFormat, match="^live has format 2 and") as caught:
        records.read_live(LIVE.replace(b'"format":1', b'"format":2'), "mena", "live")
    assert caught.value.key == "live"


@pytest.mark.parametrize("raw", [b"", b"no line", b"{}\n", b"\xff\n", LIVE + b"x"])
def test_a_damaged_live_view_names_its_key(raw: bytes) -> None:
    """Who has to look needs to know where."""
    with pytest.raises(Corrupt, match="live") as caught:
        records.read_live(raw, "mena", "live")
    assert caught.value.key == "live"


def test_a_damaged_entry_names_its_key() -> None:
    """Who has to look needs to know where, from code too."""
    with pytest.raises(Corrupt, match="not an entry") as caught:
        records.read_entry(b"{}", "here")
    assert caught.value.key == "here"
    row = manifest.parse(first(), "mena", KEY).head.latest
    other = attrs.evolve(row, ts=2)
    with pytest.raises(Corrupt, match="another entry") as caught:
        records.payload_of(records.pack(records.entry_fields(other), b"{}"), row, "here")
    assert caught.value.key == "here"


class Loaded(random.Random):
    """Dice that always fall on the highest side."""

    def getrandbits(self, k: int, /) -> int:
        return (1 << k) - 1

    def uniform(self, a: float, b: float) -> float:
        assert a == 0, "full jitter begins at nothing"
        return b


def test_an_id_is_a_uuid_of_version_seven_whatever_the_dice_say() -> None:
    """Ids sort by the millisecond they were made in; a wrong bit would break that for some of them."""
    clock = TickingClock()
    for dice in (Loaded(), random.Random(1)):
        ctx = Context(keys=KEYS, cache=Cache(0), clock=clock, random=dice)
        for step in range(2):
            clock.ms += step
            made = uuid.UUID(ctx.new_id())
            assert (made.version, made.variant) == (7, uuid.RFC_4122)
            assert made.int >> 80 == clock.ms
    assert (
        uuid.UUID(Context(keys=KEYS, cache=Cache(0), clock=clock, random=Loaded()).new_id()).int
        & ((1 << 62) - 1)
        == (1 << 62) - 1
    )


def test_waits_double_up_to_the_longest() -> None:
    """Too short, and a crowd of producers hammers the store; too long, and each of them crawls."""
    policy = Policy(first_wait_s=1, longest_wait_s=100)
    ctx = Context(keys=KEYS, cache=Cache(0), policy=policy, random=Loaded())
    assert [ctx.backoff(attempt) for attempt in (0, 1, 2, 3, 6, 7, 200)] == [1, 2, 4, 8, 64, 100, 100]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda _: b"plain text", "not a swapstore manifest"),
        (lambda raw: raw.partition(b"\n")[0], "no header line"),
        (lambda raw: raw.replace(b'"count"', b'"tally"'), "is damaged"),
        (lambda raw: raw.replace(b'"dataset":"mena"', b'"dataset":"asia"'), "another dataset"),
        (lambda raw: raw.replace(b'"etag":"e', b'"etag":"e.9'), "etag is not its version"),
    ],
)
def test_a_damaged_manifest_names_its_key(change: Callable[[bytes], bytes], match: str) -> None:
    """Whatever is wrong with it, whoever has to look needs to know where, from code too."""
    with pytest.raises(Corrupt, match=match) as caught:
        manifest.parse(change(first()), "mena", KEY)
    assert caught.value.key == KEY
    assert KEY in str(caught.value)


def test_the_clock_is_that_of_the_machine() -> None:
    """A time in other units, or drifting, would be wrong in every row, and latest would be wrong with it."""
    before = time.time_ns() // 1_000_000
    assert before <= SystemClock().now_ms() <= time.time_ns() // 1_000_000


def test_a_page_is_opened_while_one_row_of_it_is_shown() -> None:
    """The last row that retention keeps in a page would vanish with those before it."""
    head = manifest.parse(first(), "mena", KEY).head
    page = Ref(key="page", count=32, first_version=1, last_version=32, min_ts=1000, max_ts=2000)
    for first_version, floor, opens in (
        (32, 2000, True),
        (33, 2000, False),
        (32, 2001, False),
        (33, 2001, False),
    ):
        assert attrs.evolve(head, first_version=first_version, floor=floor).opens(page) is opens


def test_a_publish_keeps_what_retention_let_go_of_hidden() -> None:
    """The next publish would bring back rows whose records are about to be removed."""
    base = manifest.parse(first(), "mena", KEY)
    pruned = append.repoint(
        base, stamp=Stamp(now_ms=2, nonce="1" * 16, new_epoch="", keys=KEYS), first_version=2, floor=7
    ).manifest
    described = Entry(id="id-3", ts=9, size=2, sha256=records.digest(b"{}"), codec="json", labels={})
    following = append.append(
        pruned,
        described,
        dataset="mena",
        dedupe_key=None,
        stamp=Stamp(now_ms=4, nonce="3" * 16, new_epoch="f" * 12, keys=KEYS),
    ).manifest
    assert (following.head.first_version, following.head.floor) == (2, 7)
    assert (following.epoch, following.version) == (base.epoch, 3)
    stored = manifest.parse(following.raw, "mena", KEY).head
    assert stored == following.head


def test_each_level_seals_under_a_name_of_its_own() -> None:
    """A page without its epoch would meet another line's page after a restart; a wrong level misleads."""
    row = manifest.parse(first(), "mena", KEY).head.latest
    rows = tuple(attrs.evolve(row, id=f"id-{v}", version=v) for v in range(64_001, 64_065))

    def refs(each: int, below: int) -> tuple[Ref, ...]:
        """Seven references of one size, which end where the next smaller ones begin."""
        spans = [(below - 7 * each + each * number, each) for number in range(7)]
        return tuple(
            Ref(
                key=KEYS.page("mena", f"e.{start}-{start + count - 1}"),
                count=count,
                first_version=start,
                last_version=start + count - 1,
                min_ts=1,
                max_ts=1,
            )
            for start, count in spans
        )

    lower = refs(32, 64_001)
    upper = refs(256, lower[0].first_version)
    log, sealed = append.sealed_log(
        manifest.Log(rows=rows, pages=(*upper, *lower)), dataset="mena", epoch="e" * 12, keys=KEYS
    )
    assert [json.loads(page.record.partition(b"\n")[0])["level"] for page in sealed] == [0, 1, 2]
    for page in sealed:
        name = f"{'e' * 12}.{page.ref.first_version}-{page.ref.last_version}"
        assert page.ref.key == KEYS.page("mena", name)
    assert log.rows == rows[32:]
    assert log.pages == (sealed[2].ref,)
