"""Encodings: how the body of a record holds its payload, and when a new base pays.

An encoding is not a codec: the id, size and SHA-256 of a snapshot are always those of the plain payload.

- None: the payload itself.
- `base64`: for a text-only endpoint, a payload that is not UTF-8.
- `zstd`: one zstd frame that states the size of the payload. No checksum: the SHA-256 covers it.
- `zstd+base64`: the same for a text-only endpoint.

A record that names a base holds a delta: a frame made with the base's content as its dictionary.
"""

from __future__ import annotations

import base64
import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from swapstore.structs import Struct

if TYPE_CHECKING:
    from types import ModuleType

Encoding = Literal["base64", "zstd", "zstd+base64"]

LEVEL = 3  # of zstd: level 6 saves a tenth at most, and takes three to four times as long
SURELY_SMALLER = 16  # zstd without the base is not tried if the delta makes the payload so many times smaller
FAST = 1  # the level for deltas: what a slower search finds besides saves less than it costs
SHORTEST_MATCH = 7  # bytes, in deltas: a reference to the base takes several
HASH_LOG_MIN, HASH_LOG_MAX = 13, 23  # of the table of a base: 32 KiB, 32 MiB
SMALLEST_TABLED = 8 << 10  # bytes: the table of a smaller base takes far more than the base, and saves 12 µs
LARGEST_TABLED = 2 << 20  # bytes: a producer keeps the table of a base up to this size
WINDOW_LOG_MIN = 10  # of zstd
WINDOW_LOG_MAX = 27  # 128 MiB: what decoders in all languages accept unless they are told otherwise
WINDOW_LOG_COMMON = 23  # 8 MiB: what RFC 8878 asks of every decoder
LARGEST_BASE = 64 << 20  # bytes: what a reader has to allocate for one, whatever a record says
EXACT = 2**53 - 1  # readers of JSON keep whole numbers exact up to this one
WORTH_A_BASE = 256  # bytes: the key and the header of a base take as much

_FRAME = bytes.fromhex("28b52ffd")
_TRAINED_DICTIONARY = bytes.fromhex("37a430ec")
SHORTEST_BASE = 8


class Undecodable(ValueError):  # noqa: N818 - as the errors of this library
    """A body is not the encoding of a payload of that size. The message says why and quotes no content."""


@cache
def _zstd() -> ModuleType:
    """Import zstd, once and only if something is compressed: it would make each import slower."""
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415
    else:
        from backports import zstd  # noqa: PLC0415
    return zstd


def may_be_base(content: bytes) -> bool:
    """Whether a payload can be a base: zstd in all languages must take it for raw content.

    Python refuses a dictionary of less than eight bytes, and Node ignores it. Content that begins as a
    trained dictionary does would be parsed as one.
    """
    return SHORTEST_BASE <= len(content) <= LARGEST_BASE and not content.startswith(_TRAINED_DICTIONARY)


class Dictionary:
    """The content of a base, by its name, and what zstd makes of it: once, when it is first needed.

    Raises `ValueError` for content that `may_be_base` refuses. Threads can share it.
    """

    __slots__ = ("_compressor", "_raw", "content", "name")

    def __init__(self, name: str, content: bytes) -> None:
        if not may_be_base(content):
            raise ValueError(f"the content of base {name} cannot be a dictionary of zstd")
        self.name = name
        self.content = content
        self._raw: Any = None
        self._compressor: Any = None

    def __repr__(self) -> str:
        return f"Dictionary({self.name!r}, {len(self.content)} bytes)"

    @property
    def raw(self) -> Any:
        """The `ZstdDict` of raw content."""
        if self._raw is None:  # two threads may both make it: one is thrown away
            self._raw = _zstd().ZstdDict(self.content, is_raw=True)
        return self._raw

    def delta(self, payload: bytes) -> bytes:
        """Compress a payload, with the content as its dictionary.

        The fast strategy is used, with a table for an eighth of the positions in base and payload. To make
        the table takes several times as long as the rest, so it is kept. A large base is not worth the
        memory, and zstd keeps a table for 16 MiB at most; the many small bases of a group are not worth it,
        either. They are read again each time.

        The frame is a single segment unless the payload is several times as large as the base. So a decoder
        needs no larger window than the payload.
        """
        zstd = _zstd()
        if not self._is_tabled:
            return bytes(zstd.compress(payload, options=self._options, zstd_dict=self.raw.as_prefix))
        if self._compressor is None:  # two threads may both make it
            self._compressor = zstd.ZstdCompressor(
                options=self._options, zstd_dict=self.raw.as_undigested_dict
            )
        return bytes(self._compressor.compress(payload, zstd.ZstdCompressor.FLUSH_FRAME))

    @property
    def _is_tabled(self) -> bool:
        return SMALLEST_TABLED <= len(self.content) <= LARGEST_TABLED

    @property
    def _options(self) -> dict[Any, int]:
        parameter = _zstd().CompressionParameter
        size_log = len(self.content).bit_length()
        return {
            parameter.compression_level: FAST,
            parameter.window_log: min(max(size_log + 1, WINDOW_LOG_MIN), WINDOW_LOG_MAX),
            parameter.hash_log: min(max(size_log - 2, HASH_LOG_MIN), HASH_LOG_MAX),
            parameter.min_match: SHORTEST_MATCH,
        }

    def memory_bytes(self, *, compressing: bool) -> int:
        """At most how many bytes it keeps in memory, as measured with zstd 1.5.7.

        zstd copies the content. Compressing with it copies it once more, and keeps the table twice, and room
        for a payload.
        """
        size = len(self.content)
        if not (compressing and self._is_tabled):
            return 2 * size
        return 131_072 + 10 * size


# --- encoding --------------------------------------------------------------------------------------


class Encoded(Struct, frozen=True):
    """A payload as it is stored: its encoding, the name of its base, and the body of its record."""

    body: bytes
    encoding: Encoding | None = None
    base: str | None = None

    @property
    def cost(self) -> int:
        """How many bytes the body takes, and the fields of the header that name encoding and base."""
        named = len(f',"encoding":"{self.encoding}"') if self.encoding else 0
        return len(self.body) + named + (len(f',"base":"{self.base}"') if self.base else 0)


def plain(payload: bytes, *, text_only: bool) -> Encoded:
    """Encode a payload without compression. `text_only`: the endpoint takes UTF-8 only."""
    if text_only and not _is_text(payload):
        return Encoded(base64.b64encode(payload), "base64")
    return Encoded(payload)


def compressed(payload: bytes, base: Dictionary | None = None, *, text_only: bool) -> Encoded:
    """Encode a payload in few bytes: plain, with zstd, or as a delta if that saves a quarter.

    A snapshot that is stored as a delta is lost if its base is.
    """
    delta = None if base is None else _framed(base.delta(payload), base.name, text_only=text_only)
    if delta is not None and len(delta.body) * SURELY_SMALLER <= len(payload):
        return delta
    alone = plain(payload, text_only=text_only)
    framed = encoded_as(payload, "zstd+base64" if text_only else "zstd", None)
    if framed.cost < alone.cost:
        alone = framed
    return delta if delta is not None and 4 * delta.cost <= 3 * alone.cost else alone


def encoded_as(payload: bytes, encoding: Encoding | None, base: Dictionary | None) -> Encoded:
    """Encode a payload in this way, whether it gets smaller or not."""
    text_only = encoding in {"base64", "zstd+base64"}
    if encoding in {None, "base64"}:
        return Encoded(base64.b64encode(payload) if text_only else payload, encoding)
    if base is not None:
        return _framed(base.delta(payload), base.name, text_only=text_only)
    return _framed(_zstd().compress(payload, level=LEVEL), None, text_only=text_only)


def base_content(content: bytes, *, text_only: bool) -> Encoded:
    """Encode the content of a base: always with zstd, whether that is smaller or not."""
    return encoded_as(content, "zstd+base64" if text_only else "zstd", None)


def _is_text(payload: bytes) -> bool:
    try:
        payload.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _framed(frame: bytes, base: str | None, *, text_only: bool) -> Encoded:
    if text_only:
        return Encoded(base64.b64encode(frame), "zstd+base64", base)
    return Encoded(frame, "zstd", base)


def of_frame(body: bytes) -> Encoding:
    """The encoding of a body that holds a frame of zstd, if it holds one."""
    return "zstd" if body.startswith(_FRAME) else "zstd+base64"


# --- decoding --------------------------------------------------------------------------------------


def decoded(body: bytes, encoding: Encoding | None, size: int, base: Dictionary | None = None) -> bytes:
    """Decode the body of a record to its payload of `size` bytes; the caller checks its SHA-256.

    `base`: the base that the record names. Whatever the body claims, this allocates no more than a few times
    `size`, beside the body and the base. Raises `Undecodable`.
    """
    if base is not None and encoding in {None, "base64"}:
        raise Undecodable("it names a base but is not compressed")
    if encoding in {"base64", "zstd+base64"}:
        try:
            body = base64.b64decode(body, validate=True)
        except ValueError as error:  # binascii.Error, or not ASCII
            raise Undecodable("its base64 is invalid") from error
    if encoding in {"zstd", "zstd+base64"}:
        body = _decompressed(body, size, base)
    if len(body) != size:
        raise Undecodable(f"it holds {len(body)} bytes instead of {size}")
    return body


def _decompressed(frame: bytes, size: int, base: Dictionary | None) -> bytes:
    """Decompress one frame. The size that it states bounds what zstd allocates, its window included."""
    zstd = _zstd()
    if not frame.startswith(_FRAME):
        raise Undecodable("it does not begin with a zstd frame")
    window_log = min(max(WINDOW_LOG_COMMON, size.bit_length()), WINDOW_LOG_MAX)
    try:
        stated = zstd.get_frame_info(frame).decompressed_size
        if stated != size:
            raise Undecodable(f"its zstd frame states {stated} bytes instead of {size}")
        decompressor = zstd.ZstdDecompressor(
            zstd_dict=None if base is None else base.raw.as_prefix,  # as fast as digested, and keeps no copy
            options={zstd.DecompressionParameter.window_log_max: window_log},
        )
        payload: bytes = decompressor.decompress(frame, max_length=size + 1)
    except zstd.ZstdError as error:
        raise Undecodable(f"its zstd frame is invalid, or made with another base ({error})") from error
    if not decompressor.eof:
        raise Undecodable("its zstd frame is cut short")
    if decompressor.unused_data:
        raise Undecodable("its zstd frame is followed by other bytes")
    return payload


# --- when a new base pays --------------------------------------------------------------------------


class InForce(Struct, frozen=True):
    """The base in force, its stored size, and what the snapshots cost that were encoded with it.

    `sum`, `count` and `last` are about the stored sizes of their bodies: all of them, how many, and the last
    one. They begin with the snapshot that brought the base, and include those that were stored without a base
    because that was smaller.
    """

    name: str
    size: int
    sum: int
    count: int
    last: int

    @classmethod
    def begun(cls, name: str, content: Encoded, first: Encoded) -> InForce:
        """Return a base with this content as it is after the snapshot that brought it."""
        size = len(first.body)
        return cls(name, len(content.body), size, 1, size)

    def and_members(self, size: int, stored_size: int) -> InForce:
        """Return it with the stored size of the members' bases, and of the members that brought them."""
        first = self.sum + stored_size
        return msgspec.structs.replace(self, size=self.size + size, sum=first, last=first)

    def then(self, stored_size: int) -> InForce:
        """Return it as it is after one more snapshot, in numbers that readers accept."""
        total, count = min(self.sum + stored_size, EXACT), min(self.count + 1, EXACT)
        return InForce(self.name, self.size, total, count, stored_size)


def is_due(in_force: InForce | None, stored_size: int) -> bool:
    """Whether a snapshot that would take `stored_size` bytes should bring a new base.

    It should if it costs more than the average since the base, the base itself included: from here on the
    average grows. Or if it costs most of what a base costs: an average that is as high would hide that. What
    counts is the smaller of its size and that of the snapshot before, so one strange version brings no base.
    """
    if in_force is None:
        return stored_size >= WORTH_A_BASE
    lasting = min(stored_size, in_force.last)
    return lasting * in_force.count > in_force.size + in_force.sum or 4 * lasting > 3 * in_force.size
