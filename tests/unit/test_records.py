"""Records and their bytes."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from swapstore.errors import Corrupt, PayloadMissing, UnsupportedFormat
from swapstore.format import records
from swapstore.format.encodings import Encoding, encoded_as
from swapstore.models import Row

PAYLOAD = b'{"regime":"calm"}'
ROW = Row(
    id="r1",
    ts=1_700_000_000_000,
    size=len(PAYLOAD),
    sha256=records.digest(PAYLOAD),
    codec="json",
    labels={"b": "2", "a": "é\n"},
    version=1,
    committed_at=1_700_000_000_500,
)
KEY = "ns:id:{mena}:r1"


def record(row: Row = ROW, payload: bytes = PAYLOAD) -> bytes:
    return records.id_header(row, None) + payload


def payload_of(stored: bytes | None, row: Row) -> bytes:
    return records.held(stored, row, KEY).payload(None)


def test_a_header_is_one_canonical_line() -> None:
    """Another writer of the same entry produces other bytes, and commits refuse each other."""
    line, body = records.split(record(), KEY)
    assert body == PAYLOAD
    assert (
        line
        == (
            '{"id":"r1","ts":1700000000000,"size":17,"sha256":"' + ROW.sha256 + '",'
            '"labels":{"a":"é\\n","b":"2"}}'
        ).encode()
    )
    other = attrs.evolve(ROW, codec="bytes", labels={})
    assert records.entry_header(other).endswith(ROW.sha256.encode() + b'","codec":"bytes"}\n')


def test_what_is_left_out_has_its_usual_value() -> None:
    """A record without codec and labels is refused, or read as something else than JSON."""
    plain = attrs.evolve(ROW, labels={})
    assert list(json.loads(record(plain).partition(b"\n")[0])) == ["id", "ts", "size", "sha256"]
    read = records.entry_of(record(plain), KEY)
    assert (read.codec, read.labels) == ("json", {})
    assert payload_of(record(plain), plain) == PAYLOAD


def test_any_language_reads_a_record_with_a_json_parser() -> None:
    """A reader in another language cannot separate the header from the payload."""
    raw = record(payload=b"x\ny\n")
    header, _, body = raw.partition(b"\n")
    assert json.loads(header)["id"] == "r1"
    assert body == b"x\ny\n"


def test_payload_of_a_matching_record() -> None:
    """A reader gets another payload than was published."""
    assert payload_of(record(), ROW) == PAYLOAD


@pytest.mark.parametrize("position", range(len(PAYLOAD)))
def test_one_altered_payload_byte_is_corrupt(position: int) -> None:
    """A reader gets bytes that were never published."""
    raw = bytearray(record())
    raw[-1 - position] ^= 1
    with pytest.raises(Corrupt, match="altered"):
        payload_of(bytes(raw), ROW)


def test_a_truncated_or_extended_payload_is_corrupt() -> None:
    """A reader gets half a payload."""
    for raw in (record()[:-1], record() + b" "):
        with pytest.raises(Corrupt, match="altered"):
            payload_of(raw, ROW)


@pytest.mark.parametrize("raw", [b"", b"no newline", b"not json\n", b"[]\n", b'{"id":1}\n', b"\xff\xfe\n"])
def test_what_is_no_record_is_corrupt(raw: bytes) -> None:
    """Something else under the key fails in a parser instead of being named."""
    with pytest.raises(Corrupt, match="r1"):
        payload_of(raw, ROW)


@pytest.mark.parametrize(
    "change", [{"ts": 5}, {"id": "r2"}, {"labels": {}}, {"codec": "bytes"}, {"sha256": "0" * 64}]
)
def test_another_entry_is_corrupt(change: dict[str, Any]) -> None:
    """A record is served that is not the one that the manifest committed."""
    with pytest.raises(Corrupt, match="another entry"):
        payload_of(record(attrs.evolve(ROW, **change)), ROW)


def test_a_missing_record_says_what_to_do() -> None:
    """The error about an evicted payload lacks its version, its key or the advice."""
    with pytest.raises(
        PayloadMissing, match=r"version 1 .*id 'r1'.*ns:id:\{mena\}:r1.*Publish again"
    ) as caught:
        payload_of(None, ROW)
    assert caught.value.key == KEY


def test_a_live_view_is_checked_like_any_record() -> None:
    """A live view with altered bytes, or of a newer format, is shown."""
    raw = records.pack_live(etag="e.1.n", codec="json", payload=b"[1]", text_only=False)
    assert raw.startswith(b'{"etag":"e.1.n"')
    assert records.read_live(raw, "mena", "k").value == [1]
    with pytest.raises(Corrupt):
        records.read_live(raw + b"x", "mena", "k")
    with pytest.raises(Corrupt):
        records.read_live(b"{}\n", "mena", "k")
    with pytest.raises(UnsupportedFormat):
        records.read_live(raw.replace(b'"format":1', b'"format":2'), "mena", "k")


# --- ts records ------------------------------------------------------------------------------------


CHECK = (
    base64.urlsafe_b64encode(
        bytes.fromhex(
            records.digest(
                (
                    '{"id":"r1","ts":1700000000000,"size":17,"sha256":"' + ROW.sha256 + '",'
                    '"labels":{"a":"é\\n","b":"2"}}\n'
                ).encode()
            )
        )[:8]
    )
    .rstrip(b"=")
    .decode()
)
ORIGIN = '"epoch":"abcdefabcdef","committed_at":1700000000500'


def test_a_ts_record_is_one_canonical_line() -> None:
    """Another writer of the same snapshot produces other bytes, and commits refuse each other."""
    assert len(CHECK) == 11
    stored = records.pack_ts(ROW, "abcdefabcdef")
    assert stored == f'{{"entry":"{CHECK}","version":1,{ORIGIN}}}\n'.encode()
    dated = records.pack_ts(attrs.evolve(ROW, dedupe_key="run-1"), "abcdefabcdef")
    assert dated == f'{{"entry":"{CHECK}","version":1,{ORIGIN},"dedupe_key":"run-1"}}\n'.encode()
    assert records.origin_in(stored) == records.Origin.of(ROW, "abcdefabcdef")


def test_a_commit_compares_the_entry_and_the_version_of_a_ts_record() -> None:
    """A commit takes over the ts record of another entry or version; or refuses one of another producer."""
    header, rest = records.split_ts(ROW, "abcdefabcdef")
    assert header == f'{{"entry":"{CHECK}","version":1,'.encode()
    assert header + rest == records.pack_ts(ROW, "abcdefabcdef")
    later = attrs.evolve(ROW, committed_at=5, dedupe_key="another")
    assert records.split_ts(later, "another")[0] == header


def test_a_pending_ts_record_and_what_becomes_of_it() -> None:
    """A commit without scripts leaves a ts record that says that it is not over, or differs from others."""
    header, rest = records.pending_ts(ROW, "abcdefabcdef", "0123456789ab")
    assert header == records.stated_ts(ROW) == f'{{"entry":"{CHECK}",'.encode()
    assert rest == f'"version":1,{ORIGIN},"pending":true,"attempt":"0123456789ab"}}\n'.encode()
    final = records.pack_ts(ROW, "abcdefabcdef")
    assert records.committed_ts(header + rest) == final
    assert records.committed_ts(final) is None
    mark = records.reclaimed_ts(CHECK, "nonce", 5)
    assert records.states_ts(mark, ROW)
    assert records.committed_ts(mark) is None
    origin = records.origin_in(mark)
    assert origin is not None
    assert origin.is_reclaimed


@pytest.mark.parametrize(
    "change",
    [
        {"ts": 5},
        {"id": "r2"},
        {"size": 18},
        {"sha256": "0" * 64},
        {"codec": "bytes"},
        {"labels": {}},
        {"labels": {"a": "é\n", "b": "3"}},
    ],
)
def test_a_ts_record_of_another_entry(change: dict[str, Any]) -> None:
    """A row that was altered agrees with the ts record of the entry that it had."""
    other = attrs.evolve(ROW, **change)
    assert not records.states_ts(records.pack_ts(other, "abcdefabcdef"), ROW)
    assert not records.states_ts(records.pack_ts(ROW, "abcdefabcdef"), other)


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw[:-1],
        lambda raw: raw[:-2],
        lambda raw: raw + b"x",
        lambda raw: raw.replace(b'"entry"', b'"Entry"'),
        lambda raw: raw.replace(b'"version":1', b'"version":9007199254740993'),
        lambda raw: raw.replace(b"abc", b"\xff\xfe\xfd"),
        lambda _: records.DELETED,
        lambda _: b"",
    ],
)
def test_a_ts_record_that_cannot_be_parsed(change: Callable[[bytes], bytes]) -> None:
    """A damaged ts record fails in a parser, or its origin is taken for what was committed."""
    assert records.origin_in(change(records.pack_ts(ROW, "abcdefabcdef"))) is None


BINARY = bytes(range(256))
IN_BASE64 = attrs.evolve(ROW, size=len(BINARY), sha256=records.digest(BINARY), codec="bytes")


def stored_as(row: Row, payload: bytes, encoding: Encoding | None = "base64") -> bytes:
    return records.id_header(row, encoding) + encoded_as(payload, encoding, None).body


def test_a_payload_in_base64_is_read_as_it_was() -> None:
    """Binary payloads published over REST reach readers as text."""
    stored = stored_as(IN_BASE64, BINARY)
    header, body = records.split(stored, KEY)
    assert json.loads(header)["encoding"] == "base64"
    assert base64.b64decode(body, validate=True) == BINARY
    assert payload_of(stored, IN_BASE64) == BINARY
    assert records.is_whole(stored, IN_BASE64)


@pytest.mark.parametrize("change", [b"*", b"AAAA", b"=", "\u00e9".encode()])
def test_a_damaged_base64_body_is_corrupt(change: bytes) -> None:
    """A reader gets other bytes than were published, or an error of another kind."""
    stored = stored_as(IN_BASE64, BINARY) + change
    with pytest.raises(Corrupt, match="altered"):
        payload_of(stored, IN_BASE64)
    assert not records.is_whole(stored, IN_BASE64)


def test_how_a_payload_is_held_is_no_part_of_the_entry() -> None:
    """A snapshot that was published over REST is another one than the same snapshot over Redis."""
    plain, encoded = stored_as(IN_BASE64, BINARY, None), stored_as(IN_BASE64, BINARY)
    assert plain != encoded
    for stored in (plain, encoded):
        assert payload_of(stored, IN_BASE64) == BINARY
        assert records.states(stored, IN_BASE64)
        assert records.is_whole(stored, IN_BASE64)
        assert records.entry_of(stored, KEY) == records.entry_of(plain, KEY)
    assert records.holding_of(encoded, KEY).encoding == "base64"
    assert records.holding_of(plain, KEY).encoding is None


@pytest.mark.parametrize("change", [{"codec": "json"}, {"labels": {}}, {"labels": {"a": "1"}}, {"ts": 5}])
def test_another_entry_is_not_stated(change: dict[str, Any]) -> None:
    """A publish takes the record of another snapshot, whose header begins alike, for its own."""
    other = attrs.evolve(IN_BASE64, **change)
    for encoding in (None, "base64"):
        assert not records.states(stored_as(other, BINARY, encoding), IN_BASE64)
        assert not records.states(stored_as(IN_BASE64, BINARY, encoding), other)


def test_an_encoding_that_is_not_known_is_corrupt() -> None:
    """Bytes in the encoding of a newer version are returned as the payload."""
    stored = stored_as(IN_BASE64, BINARY).replace(b'"encoding":"base64"', b'"encoding":"other"')
    with pytest.raises(Corrupt, match="header is not an entry"):
        payload_of(stored, IN_BASE64)
    assert not records.is_whole(stored, IN_BASE64)


def test_a_live_view_in_base64() -> None:
    """A binary view published over REST is shown as base64."""
    stored = records.pack_live(etag="e.1.n", codec="bytes", payload=BINARY, text_only=True)
    assert records.read_live(stored, "mena", "ns:live:{mena}").raw == BINARY
    with pytest.raises(Corrupt, match="altered"):
        records.read_live(stored + b"!", "mena", "ns:live:{mena}")
