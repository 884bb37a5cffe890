"""Append: the next manifest keeps what retention hid, and seals each level of pages under its own name."""

from __future__ import annotations

import json

import attrs
import msgspec
import pytest

from swapstore.format import append, manifest, pages, records
from swapstore.format.append import Retained, Stamp
from swapstore.format.keys import Keys
from swapstore.format.manifest import Log
from swapstore.format.retention import Limits
from swapstore.models import Entry, Ref, Row

KEYS = Keys("ns")


KEY = KEYS.manifest("mena")


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


def test_a_page_is_opened_while_one_row_of_it_is_shown() -> None:
    """The last row that retention keeps in a page is hidden with those before it."""
    head = manifest.parse(first(), "mena", KEY).head
    page = Ref(key="page", count=8, first_version=1, last_version=8, min_ts=1000, max_ts=2000)
    for first_version, floor, opens in (
        (8, 2000, True),
        (9, 2000, False),
        (8, 2001, False),
        (9, 2001, False),
    ):
        assert msgspec.structs.replace(head, first_version=first_version, floor=floor).opens(page) is opens


def test_a_publish_keeps_hidden_rows_hidden() -> None:
    """The next publish shows rows again whose records are about to be removed."""
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


def test_a_payload_that_a_later_row_names_frees_nothing() -> None:
    """A full store grows beyond its limit, or a published payload expires: its id was published again."""
    base: manifest.Manifest | None = None
    stored: dict[str, pages.Page] = {}
    last = manifest.recent() + manifest.F
    for number in range(1, last + 1):
        name = "id-1" if number == last - 1 else f"id-{number}"  # the records of the first one were lost
        described = Entry(id=name, ts=1, size=100, sha256=records.digest(b""), codec="json", labels={})
        draft = append.append(
            base,
            described,
            dataset="mena",
            dedupe_key=None,
            stamp=Stamp(now_ms=number, nonce="0" * 16, new_epoch="e" * 12, keys=KEYS),
            retained=Retained(limits=Limits(max_count=1), pages=stored) if number == last else None,
        )
        stored |= {page.ref.key: pages.parse(page.record, page.ref, "mena") for page in draft.pages}
        base = draft.manifest
    gone = range(2, manifest.F + 1)
    of_rows = {key for n in gone for key in (KEYS.id("mena", f"id-{n}"), ts_key(n))}
    assert set(draft.unlinked) == {*of_rows, KEYS.page("mena", f"{'e' * 12}.1-{manifest.F}")}
    assert draft.freed_bytes == 100 * len(gone)


def ts_key(number: int) -> str:
    return KEYS.ts("mena", 1, f"id-{number}")


def test_each_level_seals_under_a_name_of_its_own() -> None:
    """After a restart a page collides with one of another epoch, or a level is wrong."""
    row = manifest.parse(first(), "mena", KEY).head.latest
    rows = tuple(attrs.evolve(row, id=f"id-{v}", version=v) for v in range(64_001, 64_001 + 2 * manifest.F))

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

    lower = refs(manifest.F, 64_001)
    upper = refs(manifest.F * manifest.G, lower[0].first_version)
    log, sealed = append.sealed_log(
        manifest.Log(rows=rows, pages=(*upper, *lower)), dataset="mena", epoch="e" * 12, keys=KEYS
    )
    assert [append.height(page.ref) for page in sealed] == [0, 1, 2]
    bodies = [json.loads(page.record.partition(b"\n")[2]) for page in sealed]
    assert [list(body) for body in bodies] == [["rows"], ["pages"], ["pages"]]
    for page in sealed:
        name = f"{'e' * 12}.{page.ref.first_version}-{page.ref.last_version}"
        assert page.ref.key == KEYS.page("mena", name)
    assert log.rows == rows[manifest.F :]
    assert log.pages == (sealed[2].ref,)


@pytest.mark.parametrize(("recent", "kept"), [(1, 0), (2, 8), (4, 24)])
def test_the_manifest_names_dedupe_keys_of_the_last_rows(
    recent: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest grows with every dedupe key, or a retry with one of the last keys is committed again."""
    monkeypatch.setattr(manifest, "RECENT", recent)
    rows = tuple(attrs.evolve(row_of(number), dedupe_key=f"run-{number}") for number in range(1, 101))
    log = Log(rows=(), pages=())
    for row in rows:
        log = msgspec.structs.replace(log, rows=(*log.rows, row))
        log, _ = append.sealed_log(log, dataset="mena", epoch="e" * 12, keys=KEYS)
    assert len(log.rows) == 12
    assert log.dedupe == tuple((row.dedupe_key, row.version) for row in rows[88 - kept : 88])


def row_of(number: int) -> Row:
    return Row(
        id=f"id-{number}",
        ts=number,
        size=2,
        sha256=records.digest(b"{}"),
        version=number,
        committed_at=number,
    )
