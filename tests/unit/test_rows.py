"""Rows and references as arrays: what was cut off is read again, and what is no row is refused."""

from __future__ import annotations

import base64
import json
from typing import Any

import attrs
import pytest

from swapstore.errors import Corrupt
from swapstore.format import append, manifest, records
from swapstore.format.append import Stamp
from swapstore.format.keys import Keys
from swapstore.models import Entry, Ref, Row

KEYS = Keys("ns")
KEY = KEYS.manifest("mena")
ROW = Row(
    id="r/1",
    ts=1_700_000_000_000,
    size=17,
    sha256=records.digest(b"payload"),
    version=9,
    committed_at=1_700_000_000_500,
)
LABELLED = attrs.evolve(ROW, labels={"b": "2", "a": "é"})
EACH = [
    ROW,
    attrs.evolve(ROW, committed_at=ROW.ts - 3_600_000),  # a snapshot about the future
    attrs.evolve(ROW, codec="bytes"),
    LABELLED,
    attrs.evolve(ROW, dedupe_key="run-1"),
    attrs.evolve(LABELLED, codec="bytes", dedupe_key="run-1"),
]
DIGEST = base64.b64encode(bytes.fromhex(ROW.sha256)).decode().rstrip("=")


def read(stored: list[Any], key: str = KEY) -> Row:
    log = {"rows": [stored], "pages": [], "dedupe": []}
    head = first().head
    line = first().raw.partition(b"\n")[0]
    (row,) = manifest.Manifest(line + b"\n" + records.to_json(log), head, key, len(line) + 1).log.rows
    return row


def first() -> manifest.Manifest:
    described = Entry(id="id-1", ts=1, size=2, sha256=records.digest(b"{}"))
    stamp = Stamp(now_ms=1, nonce="0" * 16, new_epoch="e" * 12, keys=KEYS)
    return append.append(None, described, dataset="mena", dedupe_key=None, stamp=stamp).manifest


@pytest.mark.parametrize("row", EACH)
def test_a_row_is_read_as_it_was_written(row: Row) -> None:
    """A value that was cut off, or stands as null, becomes another one: a codec, labels, a dedupe key."""
    assert read(json.loads(records.to_json(manifest.row_array(row, None)))) == row


def test_the_order_of_a_row_is_fixed() -> None:
    """A reader in another language takes one field for another, or two producers write other bytes."""
    assert len(DIGEST) == 43
    begin = [9, "r/1", 1_700_000_000_000, 500, 17, DIGEST]
    assert manifest.row_array(ROW, None) == begin
    full = attrs.evolve(LABELLED, codec="bytes", dedupe_key="run-1")
    assert manifest.row_array(full, None) == [*begin, None, "bytes", {"a": "é", "b": "2"}, "run-1"]
    assert manifest.row_array(attrs.evolve(ROW, dedupe_key="run-1"), None) == [
        *begin,
        None,
        None,
        None,
        "run-1",
    ]
    assert records.to_json(manifest.row_array(full, None)).endswith(
        'null,"bytes",{"a":"é","b":"2"},"run-1"]'.encode()
    )


@pytest.mark.parametrize(
    "stored",
    [
        [],
        [9, "r/1", 1, 1, 1],
        ["9", "r/1", 1, 1, 1, DIGEST],
        [9, "r/1", 1, 1, 1, DIGEST, 5],
        [9, "r/1", 1, 1, 1, "é" * 43],
        [9, "r/1", 1, 1, 1, "*" * 43],
        [9, "r/1", 1, 1, 1, DIGEST[:-1]],
        [9, "r/1", 1, 1, 1, DIGEST + "A"],
        {"version": 9},
    ],
)
def test_what_is_no_row_is_corrupt(stored: Any) -> None:
    """A damaged row ends in the error of a parser, which names no key."""
    with pytest.raises(Corrupt, match="manifest"):
        read(stored)


def reference(first_version: int, last: int, count: int, epoch: str = "e") -> Ref:
    return Ref(
        key=KEYS.page("mena", f"{epoch}.{first_version}-{last}"),
        count=count,
        first_version=first_version,
        last_version=last,
        min_ts=1000,
        max_ts=4000,
    )


@pytest.mark.parametrize(
    ("ref", "stored"),
    [
        (reference(1, 8, 8), [1, 8, 1000, 3000]),
        (reference(1, 11, 8), [1, 8, 1000, 3000, 11]),
        (reference(1, 8, 8, "f"), [1, 8, 1000, 3000, None, "f"]),
        (reference(1, 11, 8, "f"), [1, 8, 1000, 3000, 11, "f"]),
    ],
)
def test_a_reference_is_read_as_it_was_written(ref: Ref, stored: list[Any]) -> None:
    """A page is looked for under another key: after a pin among its rows, or after a repair."""
    assert manifest.ref_array(ref, "e") == stored
    prefix = Keys.beside(KEY)
    assert manifest.read_refs([manifest.StoredRef(*stored)], prefix, "e", KEY) == (ref,)


@pytest.mark.parametrize(
    "stored", [[-1, 8, 0, 0], [1, 8, 0, 0, -8], [1, 8, 0, 0, 8, ""], [1, 8, 0, 0, 8, "e:f"]]
)
def test_a_reference_to_no_page_is_corrupt(stored: list[Any]) -> None:
    """A damaged reference leads to a key that belongs to something else."""
    with pytest.raises(Corrupt, match="references a page by an invalid name"):
        manifest.read_refs([manifest.StoredRef(*stored)], Keys.beside(KEY), "e", KEY)


def published(keys: list[str | None]) -> manifest.Manifest:
    base = None
    for number, dedupe_key in enumerate(keys, 1):
        base = append.append(
            base,
            Entry(id=f"id-{number}", ts=number, size=2, sha256=records.digest(b"{}")),
            dataset="mena",
            dedupe_key=dedupe_key,
            stamp=Stamp(now_ms=number, nonce="0" * 16, new_epoch="e" * 12, keys=KEYS),
        ).manifest
    assert base is not None
    return base


def test_dedupe_keys_of_the_last_rows_are_in_the_manifest() -> None:
    """A dedupe key is forgotten when its row is sealed, and a job that runs again publishes twice."""
    for count in range(1, 2 * manifest.recent()):
        log = published([f"run-{number}" for number in range(1, count + 1)]).log
        known = [*log.dedupe, *((row.dedupe_key, row.version) for row in log.rows)]
        oldest = max(1, count - manifest.recent() + 1)
        assert known[-manifest.recent() :] == [(f"run-{n}", n) for n in range(oldest, count + 1)]
        assert len(log.dedupe) <= manifest.recent() - manifest.F


def test_dedupe_keys_are_stored_where_there_are_any() -> None:
    """Rows without a dedupe key take room in each manifest, or what was built differs from what is read."""
    built = published([f"run-{n}" if n % 5 == 0 else None for n in range(1, 40)])
    parsed = manifest.parse(built.raw, "mena", KEY).log
    assert parsed == built.log
    assert [row.version for row in parsed.rows] == list(range(25, 40))
    assert parsed.dedupe == tuple((f"run-{n}", n) for n in (5, 10, 15, 20))
    assert published([None] * 40).raw.endswith(b'"dedupe":[],"base":null}')
