"""Errors about damaged records, or records of a newer format, name the key, in text and as an attribute."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest

from swapstore.errors import Corrupt, UnsupportedFormat
from swapstore.format import append, manifest, records
from swapstore.format.append import Stamp
from swapstore.format.keys import Keys
from swapstore.models import Entry

KEYS = Keys("ns")


KEY = KEYS.manifest("mena")


LIVE = records.pack_live(etag="e.1.n", codec="json", payload=b"[1]", text_only=False)


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
    """The error does not say which record needs an upgrade, and to which format."""
    newer = first().replace(b'"format":1', b'"format":2')
    for raw in (newer, newer.replace(b'"count"', b'"tally"')):
        with pytest.raises(UnsupportedFormat, match=f"^{KEY} has format 2 and .* up to 1") as caught:
            manifest.parse(raw, "mena", KEY)
        assert caught.value.key == KEY
    with pytest.raises(UnsupportedFormat, match="^live has format 2 and") as caught:
        records.read_live(LIVE.replace(b'"format":1', b'"format":2'), "mena", "live")
    assert caught.value.key == "live"


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
    """The error about a damaged manifest does not say which key to look at."""
    with pytest.raises(Corrupt, match=match) as caught:
        manifest.parse(change(first()), "mena", KEY)
    assert caught.value.key == KEY
    assert KEY in str(caught.value)


def test_a_damaged_entry_names_its_key() -> None:
    """The error about a damaged entry does not say which key to look at."""
    with pytest.raises(Corrupt, match="not an entry") as caught:
        records.read_entry(b"{}", "here")
    assert caught.value.key == "here"
    row = manifest.parse(first(), "mena", KEY).head.latest
    other = attrs.evolve(row, ts=2)
    with pytest.raises(Corrupt, match="another entry") as caught:
        records.held(records.pack(records.entry_fields(other), b"{}"), row, "here")
    assert caught.value.key == "here"


@pytest.mark.parametrize("raw", [b"", b"no line", b"{}\n", b"\xff\n", LIVE + b"x"])
def test_a_damaged_live_view_names_its_key(raw: bytes) -> None:
    """The error about a damaged live view does not say which key to look at."""
    with pytest.raises(Corrupt, match="live") as caught:
        records.read_live(raw, "mena", "live")
    assert caught.value.key == "live"
