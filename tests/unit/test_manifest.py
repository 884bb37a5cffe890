"""The manifest and its pages, as pure code: append, seal, parse."""

from __future__ import annotations

import json
from collections.abc import Iterator

import msgspec
import pytest

from swapstore.errors import Corrupt, UnsupportedFormat
from swapstore.format import append as appending
from swapstore.format import manifest, pages, records
from swapstore.format.append import Stamp
from swapstore.format.keys import Keys
from swapstore.format.manifest import F, G, Manifest
from swapstore.models import Entry, Ref, Row

KEYS = Keys("ns")
KEY = KEYS.manifest("mena")


def entry(number: int, ts: int | None = None) -> Entry:
    payload = str(number).encode()
    return Entry(
        id=f"id-{number}",
        ts=number * 1000 if ts is None else ts,
        size=len(payload),
        sha256=records.digest(payload),
        codec="json",
        labels={},
    )


def append(base: Manifest | None, number: int, ts: int | None = None) -> appending.Draft:
    return appending.append(
        base,
        entry(number, ts),
        dataset="mena",
        dedupe_key=None,
        stamp=Stamp(now_ms=number * 1000 + 1, nonce=f"{number:016x}", new_epoch="e" * 12, keys=KEYS),
    )


def appended(count: int) -> tuple[Manifest, dict[str, bytes]]:
    """A manifest with this many versions, and the records of its pages."""
    current: Manifest | None = None
    stored: dict[str, bytes] = {}
    for number in range(1, count + 1):
        draft = append(current, number)
        for page in draft.pages:
            assert page.ref.key not in stored
            stored[page.ref.key] = page.record
        current = draft.manifest
    assert current is not None
    return current, stored


def all_rows(current: Manifest, stored: dict[str, bytes]) -> list[Row]:
    def below(refs: tuple[Ref, ...]) -> Iterator[Row]:
        for ref in refs:
            page = pages.parse(stored[ref.key], ref, "mena")
            rows = [*below(page.pages), *page.rows]
            assert ref.count == len(rows)
            assert (ref.first_version, ref.last_version) == (rows[0].version, rows[-1].version)
            assert (ref.min_ts, ref.max_ts) == (min(r.ts for r in rows), max(r.ts for r in rows))
            yield from rows

    return [*below(current.log.pages), *current.log.rows]


def test_the_first_publish_makes_version_one() -> None:
    """A new dataset does not begin at version 1 in an epoch of its own."""
    draft = append(None, 1)
    head = draft.manifest.head
    assert head.etag == f"{'e' * 12}.1.{1:016x}"
    assert (head.version, head.count, head.first_version, head.floor) == (1, 1, 1, 0)
    assert head.latest == draft.row
    assert draft.pages == ()


@pytest.mark.parametrize("count", [1, 2 * F - 1, 2 * F, 2 * F + 1, 3 * F, 60, F * G + F, 5000])
def test_no_row_is_ever_dropped(count: int) -> None:
    """A row is lost, doubled or out of order when pages are sealed."""
    current, stored = appended(count)
    assert [row.version for row in all_rows(current, stored)] == list(range(1, count + 1))
    assert current.head.count == count


def test_the_manifest_stays_small_at_any_depth() -> None:
    """A publish costs more at five thousand versions than at ten."""
    current, _ = appended(5000)
    assert F <= len(current.log.rows) < 2 * F
    counts = [ref.count for ref in current.log.pages]
    assert counts == [4096, 512, *[64] * 6], "a handful of each size, the larger ones first"
    assert len(current.raw) < 3_000


def test_several_levels_seal_in_one_publish() -> None:
    """The publish that fills the tail and a level seals only one, or names the wrong page."""
    count = F + F * G * G
    before, _ = appended(count - 1)
    draft = append(before, count)
    assert [page.ref.count for page in draft.pages] == [F, F * G, F * G * G]
    assert [ref.count for ref in draft.manifest.log.pages] == [F * G * G]


def test_the_same_rows_seal_into_the_same_bytes() -> None:
    """Two producers that seal at the same time stage different pages under one name."""
    base, _ = appended(2 * F - 1)
    one = append(base, 900)
    two = append(manifest.parse(base.raw, "mena", KEY), 901)
    assert one.pages == two.pages
    assert one.manifest.raw != two.manifest.raw


def test_parse_gives_back_what_was_built() -> None:
    """What a producer caches differs from what a reader parses."""
    built, _ = appended(100)
    parsed = manifest.parse(built.raw, "mena", KEY)
    assert parsed.head == built.head
    assert parsed.log == built.log
    assert parsed.raw.startswith(manifest.prefix(built.etag))


def test_latest_is_the_greatest_ts() -> None:
    """A backfill becomes the latest, or of two equal times the earlier commit."""
    first = append(None, 1, ts=5000).manifest
    older = append(first, 2, ts=4999).manifest
    equal = append(older, 3, ts=5000).manifest
    newer = append(equal, 4, ts=5001).manifest
    assert [m.head.latest.version for m in (first, older, equal, newer)] == [1, 1, 3, 4]
    assert newer.head.count == 4


def test_repoint_changes_the_header_alone() -> None:
    """A pin or a confirmation changes the log."""
    base, _ = appended(70)
    pinned = base.log.rows[0]
    changed = appending.repoint(
        base, stamp=Stamp(now_ms=99, nonce="f" * 16, new_epoch="", keys=KEYS), pinned=pinned
    ).manifest
    assert changed.version == 71
    assert changed.epoch == base.epoch
    assert changed.head.pinned == pinned
    assert changed.head.serving == pinned
    assert changed.head.latest == base.head.latest
    assert changed.log == base.log
    following = append(changed, 72)
    assert following.manifest.head.pinned == pinned
    assert following.row is not None
    assert following.row.version == 72


@pytest.mark.parametrize(
    ("raw", "error", "match"),
    [
        (b"", Corrupt, "not a swapstore manifest"),
        (b'{"version":7}', Corrupt, "not a swapstore manifest"),
        (b"plain text", Corrupt, "not a swapstore manifest"),
        (b'{"etag":"e.1.n"', Corrupt, "no header line"),
        (b'{"etag":"e.1.n"}\n{}', Corrupt, "damaged"),
        (b'{"etag":"\xff"}\n', Corrupt, "damaged"),
    ],
)
def test_what_is_no_manifest_is_refused(raw: bytes, error: type[Exception], match: str) -> None:
    """Something else under the manifest's key is taken for an empty dataset."""
    with pytest.raises(error, match=match):
        manifest.parse(raw, "mena", KEY)


def test_a_newer_format_is_refused_with_what_to_do() -> None:
    """An old reader beside a newer writer is not told to upgrade."""
    raw = append(None, 1).manifest.raw
    newer = raw.replace(b'"format":1', b'"format":2')
    with pytest.raises(UnsupportedFormat, match="upgrade swapstore"):
        manifest.parse(newer, "mena", KEY)
    with pytest.raises(UnsupportedFormat, match="upgrade swapstore"):
        manifest.parse(newer.replace(b'"count"', b'"tally"'), "mena", KEY)


def test_another_datasets_manifest_is_refused() -> None:
    """A key that was copied by hand shows one dataset's data as another's."""
    with pytest.raises(Corrupt, match="another dataset, 'mena'"):
        manifest.parse(append(None, 1).manifest.raw, "europe", KEY)


def test_an_etag_of_another_version_is_damage() -> None:
    """A commit compares an etag that does not belong to the header it is in."""
    raw = append(None, 1).manifest.raw
    with pytest.raises(Corrupt, match="etag"):
        manifest.parse(
            raw.replace(
                b'"version":1,"committed_at":1001,"confirmed', b'"version":2,"committed_at":1001,"confirmed'
            ),
            "mena",
            KEY,
        )


def test_a_truncated_body_is_damage_only_where_it_is_needed() -> None:
    """A reader of the latest fails on a truncated log, or a reader of the log does not."""
    raw = append(None, 1).manifest.raw[:-5]
    parsed = manifest.parse(raw, "mena", KEY)
    assert parsed.head.latest.version == 1
    with pytest.raises(Corrupt, match="body"):
        _ = parsed.log


def test_a_page_is_checked_against_its_reference() -> None:
    """An altered, foreign, swapped or newer page is read as history."""
    current, stored = appended(3 * F)
    one, two = current.log.pages
    good = stored[one.key]
    with pytest.raises(Corrupt, match="altered"):
        pages.parse(good[:-9] + b"0" + good[-8:], one, "mena")
    with pytest.raises(Corrupt, match="another page"):
        pages.parse(stored[two.key], one, "mena")
    with pytest.raises(Corrupt, match="another page"):
        pages.parse(good, one, "europe")
    with pytest.raises(Corrupt, match="not a page"):
        pages.parse(b"[]\n", one, "mena")
    with pytest.raises(UnsupportedFormat):
        pages.parse(good.replace(b'"format":1', b'"format":9', 1), one, "mena")


def test_the_stored_order_of_header_fields_is_fixed() -> None:
    """A reader in another language does not find `latest` in the first line, or the etag first."""
    line, body = records.split(append(None, 1).manifest.raw, KEY)
    assert list(json.loads(line)) == [
        *("etag", "format", "dataset", "version", "committed_at", "confirmed_at", "latest", "pinned"),
        *("count", "first_version", "floor"),
    ]
    assert list(json.loads(body)) == ["rows", "pages", "dedupe", "base"]


def test_hidden_rows_are_hidden_and_kept_rows_are_read() -> None:
    """A hidden row is shown, or the latest or pinned row cannot be read."""
    current, _ = appended(10)
    rows = current.log.rows
    head = msgspec.structs.replace(current.head, first_version=4, floor=6000, latest=rows[1], pinned=rows[0])
    assert [row.version for row in rows if head.shows(row)] == [6, 7, 8, 9, 10]
    assert [row.version for row in rows if head.keeps(row)] == [1, 2, 6, 7, 8, 9, 10]
