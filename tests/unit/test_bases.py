"""Bases as pure code: their record, and which of them a log needs."""

from __future__ import annotations

import json
from typing import Any

import attrs
import msgspec
import pytest

from swapstore.errors import Corrupt, UnsupportedFormat
from swapstore.format import append, bases, encodings, manifest, records
from swapstore.format.append import Draft, Retained, Stamp
from swapstore.format.encodings import InForce
from swapstore.format.keys import Keys, base_name
from swapstore.format.manifest import Manifest
from swapstore.format.retention import Limits
from swapstore.models import Entry, Ref, Row

KEYS = Keys("ns")
CONTENT = b'{"rows":[' + b",".join(b'{"id":%d,"v":"abc"}' % n for n in range(60)) + b"]}"
SHA256 = records.digest(CONTENT)
NAME = base_name(7, SHA256)
KEY = KEYS.base("mena", NAME)


def packed(**changes: Any) -> bytes:
    """The record of a base, with other fields in its header."""
    frame = encodings.base_content(CONTENT, text_only=False)
    record = bases.pack(NAME, frame, size=len(CONTENT), sha256=SHA256, dataset="mena")
    line, body = records.split(record, KEY)
    return records.pack(json.loads(line) | changes, body)


def parsed(record: bytes) -> encodings.Dictionary:
    return bases.parse(record, NAME, dataset="mena", key=KEY)


def test_a_base_is_read_as_it_was_written() -> None:
    """What is stored as a difference from it cannot be read."""
    record = packed()
    line, _ = records.split(record, KEY)
    assert list(json.loads(line)) == ["base", "format", "dataset", "size", "sha256"]
    assert json.loads(line)["base"] == NAME == f"7.{SHA256[:16]}"
    assert parsed(record).content == CONTENT
    assert len(record) < len(CONTENT)


def test_producers_at_different_endpoints_share_a_base() -> None:
    """What was cut short over REST cannot be published over Redis: the base is there in another encoding."""
    frame = encodings.base_content(CONTENT, text_only=True)
    record = bases.pack(NAME, frame, size=len(CONTENT), sha256=SHA256, dataset="mena")
    assert record.isascii()
    assert record.partition(b"\n")[0] == packed().partition(b"\n")[0]
    assert parsed(record).content == CONTENT


@pytest.mark.parametrize(
    "changes",
    [
        {"base": f"8.{SHA256[:16]}"},
        {"dataset": "europe"},
        {"size": len(CONTENT) + 1},
        {"size": encodings.LARGEST_BASE + 1},
        {"size": -1},
        {"sha256": "0" * 64},
        {"sha256": SHA256[:16] + "0" * 48},
        {"format": "1"},
    ],
)
def test_another_base_is_corrupt(changes: dict[str, Any]) -> None:
    """A reader decodes with the content of something else, or allocates what a stranger says."""
    with pytest.raises(Corrupt):
        parsed(packed(**changes))


@pytest.mark.parametrize("record", [b"", b"\n", b"{}\n", b"no header", packed()[:-1], packed() + b"x"])
def test_a_damaged_base_is_corrupt(record: bytes) -> None:
    """Damage is raised as an error that callers do not expect."""
    with pytest.raises(Corrupt):
        parsed(record)


def test_a_base_of_a_newer_format_is_not_corrupt() -> None:
    """A reader that is too old says that the store is damaged."""
    with pytest.raises(UnsupportedFormat):
        parsed(packed(format=2))


@pytest.mark.parametrize("content", [b"short", bytes.fromhex("37a430ec") + b"x" * 600])
def test_what_zstd_would_misread_is_no_base(content: bytes) -> None:
    """Readers in some languages take it for a trained dictionary, or ignore it, and decode other bytes."""
    sha256 = records.digest(content)
    name = base_name(7, sha256)
    frame = encodings.base_content(content, text_only=False)
    record = bases.pack(name, frame, size=len(content), sha256=sha256, dataset="mena")
    with pytest.raises(Corrupt):
        bases.parse(record, name, dataset="mena", key=KEY)


@pytest.mark.parametrize(
    "name", ["", "7", "7.abc", f"7.{'g' * 16}", f"x.{'0' * 16}", f"7.{'0' * 16}:a", f"7.{'0' * 17}"]
)
def test_a_name_that_is_none_is_corrupt(name: str) -> None:
    """A forged manifest leads readers to any key of the store."""
    draft = grown(["b1"])[-1]
    raw = draft.manifest.raw.replace(BASES["b1"].encode(), name.encode())
    with pytest.raises(Corrupt):
        manifest.parse(raw, "mena", KEYS.manifest("mena"))
    with pytest.raises(Corrupt):
        _ = msgspec.structs.replace(draft.manifest, raw=raw, built_log=None).log


# --- which bases a log needs -----------------------------------------------------------------------

BASES = {f"b{n}": base_name(n, records.digest(b"b%d" % n)) for n in range(1, 40)}


def grown(wanted: list[str | None], *, keep: int | None = None) -> list[Draft]:
    """Publish rows that need these bases; each comes into force with its first row. All drafts."""
    drafts: list[Draft] = []
    base: Manifest | None = None
    for number, short in enumerate(wanted, 1):
        name = None if short is None else BASES[short]
        stamp = Stamp(now_ms=number, nonce=f"{number:016x}", new_epoch="e" * 12, keys=KEYS)
        in_force = None
        if name is not None and (base is None or base.log.base is None or base.log.base.name != name):
            in_force = InForce(name, 100, 10, 1, 10)
        draft = append.append(
            base,
            Entry(id=f"id-{number}", ts=number, size=2, sha256=records.digest(b"%d" % number)),
            dataset="mena",
            dedupe_key=None,
            stamp=stamp,
            retained=None if keep is None else Retained(limits=Limits(max_count=keep)),
            delta_of=name,
            in_force=in_force,
        )
        drafts.append(draft)
        base = reread(draft.manifest)
    return drafts


def reread(built: Manifest) -> Manifest:
    """Parse a manifest that was built, which has to give the same log, bases included."""
    parsed = manifest.parse(built.raw, "mena", built.key)
    assert parsed.log == built.log
    assert [row.base for row in parsed.log.rows] == [row.base for row in built.log.rows]
    assert [row.base for row in parsed.head.kept] == [row.base for row in built.head.kept]
    return parsed


def unlinked(draft: Draft) -> list[str]:
    return [key.rpartition(":")[2] for key in draft.unlinked if ":base:" in key]


def test_rows_state_their_base_where_it_changes() -> None:
    """Each row repeats a name of 20 bytes, or a row gets the base of the one before it."""
    last = grown(["b1", "b1", None, None, "b1", "b2", "b2"])[-1].manifest
    stored = [
        row[6] if len(row) > 6 else "as before" for row in json.loads(last.raw.partition(b"\n")[2])["rows"]
    ]
    assert stored == [BASES["b1"], "as before", "", "as before", BASES["b1"], BASES["b2"], "as before"]
    reread(last)


def test_the_base_of_a_reference_is_that_of_its_rows() -> None:
    """A base that a page needs is unlinked, or one that none needs stays."""
    wanted = ["b1"] * 3 + [None, "b2", "b3", "b3", None] + [None] * 8 + ["b4"] * 8
    drafts = grown(wanted)
    first, second = reread(drafts[-1].manifest).log.pages
    assert first.bases == (1, 3)
    assert second.bases is None
    (page,) = (page for draft in drafts for page in draft.pages if page.ref.key == first.key)
    assert page.ref == first


def test_a_base_that_is_not_in_force_any_more_leaves_when_no_row_needs_it() -> None:
    """The store keeps each base for ever; or loses one that rows need."""
    drafts = grown(["b1", "b1", "b2", "b3"])
    assert [unlinked(draft) for draft in drafts] == [[], [], [], []]
    plain = grown(["b1", None])[-1]
    draft = append.append(
        reread(msgspec.structs.replace(plain.manifest)),
        Entry(id="x", ts=9, size=2, sha256=SHA256),
        dataset="mena",
        dedupe_key=None,
        stamp=Stamp(now_ms=9, nonce="0" * 16, new_epoch="e" * 12, keys=KEYS),
        delta_of=BASES["b5"],
        in_force=InForce(BASES["b5"], 1, 1, 1, 1),
    )
    assert unlinked(draft) == []  # its first row needs it still


@pytest.mark.parametrize("shown", ["latest", "pinned"])
def test_what_is_served_keeps_its_base(shown: str) -> None:
    """The snapshot that is served cannot be decoded after its row has left the log."""
    head = grown(["b1", "b2"])[-1].manifest.head
    row = attrs.evolve(head.latest, base=BASES["b1"])
    log = manifest.Log(rows=(), pages=())
    served = (
        msgspec.structs.replace(head, latest=row)
        if shown == "latest"
        else msgspec.structs.replace(head, pinned=row)
    )
    assert append.unlinked_bases([BASES["b1"]], served, log) == []
    other = msgspec.structs.replace(head, latest=attrs.evolve(head.latest, base=None))
    assert append.unlinked_bases([BASES["b1"]], other, log) == [BASES["b1"]]


def test_the_base_in_force_stays() -> None:
    """The next publish, which knows it from memory, is a difference from what is not there any more."""
    head = grown([None])[-1].manifest.head
    log = manifest.Log(rows=(), pages=(), base=InForce(BASES["b1"], 1, 1, 1, 1))
    assert append.unlinked_bases([BASES["b1"], BASES["b2"], None], head, log) == [BASES["b2"]]


def test_a_base_that_a_page_shows_stays() -> None:
    """Retention unlinks the oldest page, and the next one loses the base that both share."""
    head = grown([None])[-1].manifest.head
    ref = Ref(key="p", count=8, first_version=9, last_version=16, min_ts=1, max_ts=2, bases=(1, 12))
    log = manifest.Log(rows=(), pages=(ref,))
    gone = [BASES["b1"], BASES["b12"], BASES["b2"], BASES["b13"]]
    assert append.unlinked_bases(gone, head, log) == [BASES["b13"]], "a row in it may need any between"
    assert [bases.lies_between(name, [ref]) for name in gone] == [False, False, True, False]
    searched = frozenset([BASES["b2"]])
    assert append.unlinked_bases(gone, head, log, unneeded=searched) == [BASES["b13"], BASES["b2"]]


def test_rows_that_differ_in_their_base_alone_are_equal() -> None:
    """A lost reply is told as a lost race, because the snapshot was stored anew meanwhile."""
    row = grown(["b1"])[-1].manifest.head.latest
    assert attrs.evolve(row, base=None) == row
    assert isinstance(row, Row)
    assert BASES["b1"] not in repr(row)
