"""Records: immutable stored values, each a header line of JSON and the body bytes after it.

Header bytes are canonical: compact JSON in UTF-8, keys in the order given here, labels sorted. So the same
entry has the same bytes in every process, and a commit can compare them on the server.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import attrs
import msgspec

from swapstore.errors import Corrupt, PayloadMissing, UnsupportedFormat
from swapstore.format import encodings
from swapstore.format.encodings import Encoding
from swapstore.models import Entry, LiveView, Row, Whole

if TYPE_CHECKING:
    from swapstore.format.encodings import Dictionary

FORMAT = 1
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)  # why stored JSON cannot be parsed

E = TypeVar("E", bound=Entry)

_OTHER_WRITER = "Something else writes to this key, or damaged it; give swapstore a namespace of its own."


def digest(body: bytes) -> str:
    """Return the SHA-256 in hexadecimal."""
    return hashlib.sha256(body).hexdigest()


DELETED = b"\n"  # what a deletion without scripts leaves for a moment: it looks like no record


def to_json(value: Any) -> bytes:
    """Return canonical JSON of plain dicts and lists: compact, keys in their order."""
    return msgspec.json.encode(value)


def pack(header: dict[str, Any], body: bytes = b"") -> bytes:
    """Join a header and a body into a record."""
    return to_json(header) + b"\n" + body


def split(record: bytes, key: str) -> tuple[bytes, bytes]:
    """Return a record's header line, without its newline, and body. `Corrupt` if it has no header line."""
    end = record.find(b"\n")
    if end < 0:
        raise Corrupt(f"{key} holds no swapstore record: it has no header line. {_OTHER_WRITER}", key=key)
    return record[:end], record[end + 1 :]


# --- entries ---------------------------------------------------------------------------------------


def entry_fields(entry: Entry) -> dict[str, Any]:
    """An entry's fields in canonical order, without those that have their usual value."""
    fields: dict[str, Any] = {"id": entry.id, "ts": entry.ts, "size": entry.size, "sha256": entry.sha256}
    if entry.codec != "json":
        fields["codec"] = entry.codec
    if entry.labels:
        fields["labels"] = in_order(entry.labels)
    return fields


def in_order(labels: dict[str, str]) -> dict[str, str]:
    """Return labels sorted by code point."""
    return {name: labels[name] for name in sorted(labels)}


def entry_header(entry: Entry) -> bytes:
    """The header line of an entry's ts record, newline included."""
    return pack(entry_fields(entry))


@attrs.frozen(kw_only=True)
class Holding(Entry):
    """The header of an id record: an entry, and how the body holds its payload. None: as it is.

    `base`: the name of the base that the payload is stored as a difference from. None: it is not.
    """

    encoding: Encoding | None = None
    base: str | None = None


def id_header(entry: Entry, encoding: Encoding | None, base: str | None = None) -> bytes:
    """The header line of an entry's id record, newline included."""
    fields = entry_fields(entry)
    if encoding is not None:
        fields["encoding"] = encoding
    if base is not None:
        fields["base"] = base
    return pack(fields)


@attrs.frozen(kw_only=True)
class Origin:
    """The commit that a ts record was staged for; a lost manifest is rebuilt from these.

    A script, or a transaction, commits a snapshot only with the version that its origin states. A repair may
    give it a greater one later, and so may a commit without scripts; never a lesser one.
    `pending`: the record was written without a TTL before its swap, as a commit without scripts does, so the
    missing TTL does not prove that the snapshot is committed.
    """

    epoch: str
    version: Whole
    committed_at: Whole
    dedupe_key: str | None = None
    pending: bool = False

    @property
    def is_reclaimed(self) -> bool:
        """Whether a client is deleting the records, since `committed_at`: no publish may use them."""
        return self.pending and self.version == 0


_ORIGIN = msgspec.json.Decoder(Origin)
_ENTRY = msgspec.json.Decoder(Entry)
_HOLDING = msgspec.json.Decoder(Holding)


def pack_ts(row: Row, epoch: str) -> bytes:
    """Build a ts record: the entry as its header, its origin as its body."""
    return entry_header(row) + origin_of(row, epoch)


def origin_of(row: Row, epoch: str, *, attempt: str | None = None) -> bytes:
    """The body of a ts record: the origin of its row. The version comes first: see `split_ts`.

    `attempt`: it is pending, and this makes it differ from the records of all other attempts.
    """
    origin = {"version": row.version, "epoch": epoch, "committed_at": row.committed_at}
    if row.dedupe_key is not None:
        origin["dedupe_key"] = row.dedupe_key
    if attempt is not None:
        origin |= {"pending": True, "attempt": attempt}
    return to_json(origin)


def split_ts(header: bytes, row: Row, epoch: str) -> tuple[bytes, bytes]:
    """The ts record of a row with this header, split after the version that commits it."""
    version, comma, rest = origin_of(row, epoch).partition(b",")
    return header + version + comma, rest


def committed_ts(record: bytes, key: str, *, epoch: str | None = None) -> bytes | None:
    """Return a pending ts record as it is after its commit. None: it is not pending, or corrupt.

    `epoch`: make it one of this epoch, even if it is not pending. One of another epoch that no manifest names
    counts as lost, and a repair puts it back.
    """
    try:
        entry, origin = read_ts(record, key)
    except Corrupt:
        return None
    if origin is None or origin.is_reclaimed:
        return None
    if not origin.pending and epoch in {None, origin.epoch}:
        return None
    fields = {"version": origin.version, "epoch": epoch or origin.epoch, "committed_at": origin.committed_at}
    if origin.dedupe_key is not None:
        fields["dedupe_key"] = origin.dedupe_key
    return entry_header(entry) + to_json(fields)


def reclaimed_ts(entry: Entry, nonce: str, now_ms: int) -> bytes:
    """Build the ts record of a snapshot whose records are being deleted; see `Origin.is_reclaimed`."""
    origin = {"version": 0, "epoch": nonce, "committed_at": now_ms, "pending": True}
    return entry_header(entry) + to_json(origin)


def read_ts(record: bytes, key: str) -> tuple[Entry, Origin | None]:
    """Parse a ts record. The origin is None if it cannot be parsed; the entry is valid without it."""
    return read_entry(split(record, key)[0], key), origin_in(record)


def origin_in(record: bytes) -> Origin | None:
    """Return the origin in a ts record, whatever its header is. None: it cannot be parsed."""
    try:
        return _ORIGIN.decode(record.partition(b"\n")[2])
    except UNREADABLE:
        return None


def entry_of(record: bytes, key: str) -> Entry:
    """Parse the entry of an id or ts record."""
    return read_entry(split(record, key)[0], key)


def holding_of(record: bytes, key: str) -> Holding:
    """Parse the header of an id record."""
    return _read(_HOLDING, split(record, key)[0], key)


def stated(entry: Entry) -> bytes:
    """Return how the id record and the ts record of an entry begin, however the payload is held."""
    return to_json(entry_fields(entry))[:-1]


def states(record: bytes, entry: Entry) -> bool:
    """Whether an id or ts record states this entry, however it holds the payload."""
    begin = stated(entry)
    return record.startswith((begin + b"}\n", begin + b',"encoding":'))


def read_entry(line: bytes, key: str) -> Entry:
    """Parse the entry in the header line of an id or ts record."""
    return _read(_ENTRY, line, key)


def _read(decoder: msgspec.json.Decoder[E], line: bytes, key: str) -> E:
    try:
        return decoder.decode(line)
    except UNREADABLE as error:
        raise Corrupt(
            f"{key} holds a record whose header is not an entry ({error}). {_OTHER_WRITER}", key=key
        ) from error


def _decoded(
    encoding: Encoding | None, body: bytes, size: int, key: str, base: Dictionary | None = None
) -> bytes:
    if encoding is None and base is None:
        return body
    try:
        return encodings.decoded(body, encoding, size, base)
    except encodings.Undecodable as error:
        raise Corrupt(
            f"the bytes of {key} were altered: {error}. Publish again under a new id, or pin or roll back to "
            "another version",
            key=key,
        ) from error


@attrs.frozen
class Held:
    """An id record, parsed and compared with its row; its payload is not decoded yet.

    `base`: the name of the base that it takes to decode it. None: it takes none.
    """

    key: str
    row: Entry
    encoding: Encoding | None
    base: str | None
    body: bytes = attrs.field(repr=False)

    def payload(self, base: Dictionary | None) -> bytes:
        """Decode the payload, given the base that it names, and check it. Raises `Corrupt`."""
        if self.base != (base and base.name):
            raise Corrupt(f"{self.key} needs the base {self.base!r}, which was not read", key=self.key)
        payload = _decoded(self.encoding, self.body, self.row.size, self.key, base)
        check_body(payload, self.row.size, self.row.sha256, self.key)
        return payload


def held(record: bytes | None, row: Row, key: str) -> Held:
    """Parse an id record, and compare its entry with its row.

    Raises `PayloadMissing` without a record, and `Corrupt` if it differs from the row. The reader finds out
    whether the manifest has changed or the store is damaged.
    """
    if record is None:
        raise payload_missing(row, key)
    found = held_as(record, key)
    if entry_fields(found.row) != entry_fields(row):
        raise Corrupt(f"{key} holds another entry than row {row.version} of the manifest", key=key)
    return found


def payload_of(record: bytes | None, row: Row, key: str, base: Dictionary | None = None) -> bytes:
    """Return the payload of an id record, given the base that it needs; see `held`."""
    return held(record, row, key).payload(base)


def is_whole(record: object, entry: Entry, base: Dictionary | None = None) -> bool:
    """Whether a value is the id record of this entry, payload included, given the base that it needs."""
    if not isinstance(record, bytes) or not states(record, entry):
        return False
    try:
        held_as(record, "").payload(base)
    except Corrupt:
        return False
    return True


def held_as(record: bytes, key: str) -> Held:
    """Parse an id record, whatever entry it states."""
    line, body = split(record, key)
    holding = _read(_HOLDING, line, key)
    return Held(key, holding, holding.encoding, holding.base, body)


def payload_missing(row: Row, key: str) -> PayloadMissing:
    """Build the error for a committed record that does not exist."""
    return PayloadMissing(
        f"version {row.version} (id {row.id!r}) is committed but its record {key} does not exist: it was "
        "deleted or evicted. Publish again under a new id, or pin or roll back to another version",
        key=key,
    )


def check_body(body: bytes, size: int, sha256: str, key: str) -> None:
    """Raise `Corrupt` unless the body has this size and digest."""
    if len(body) != size or digest(body) != sha256:
        raise Corrupt(
            f"the bytes of {key} were altered: {len(body)} bytes with another SHA-256 than its header's "
            f"{sha256[:12]}… ({size} bytes). Publish again under a new id, or pin or roll back to another "
            "version",
            key=key,
        )


# --- live views ------------------------------------------------------------------------------------


def pack_live(*, etag: str, codec: str, payload: bytes, text_only: bool) -> bytes:
    """Build a live view's record. The etag that it is bound to comes first."""
    header = {"etag": etag, "format": FORMAT, "size": len(payload), "sha256": digest(payload), "codec": codec}
    stored = encodings.plain(payload, text_only=text_only)
    if stored.encoding is not None:
        header["encoding"] = stored.encoding
    return pack(header, stored.body)


class _LiveHeader(msgspec.Struct):
    etag: str
    format: Whole
    size: Whole
    sha256: str
    codec: str
    encoding: Literal["base64"] | None = None


def read_live(record: bytes, dataset: str, key: str) -> LiveView:
    """Parse and check a live view's record."""
    line, body = split(record, key)
    try:
        header = msgspec.json.decode(line, type=_LiveHeader)
    except UNREADABLE as error:
        raise Corrupt(f"{key} is not a live view ({error}). {_OTHER_WRITER}", key=key) from error
    if header.format > FORMAT:
        raise newer_format(key, header.format)
    payload = _decoded(header.encoding, body, header.size, key)
    check_body(payload, header.size, header.sha256, key)
    return LiveView(
        dataset=dataset,
        etag=header.etag,
        size=header.size,
        sha256=header.sha256,
        codec=header.codec,
        raw=payload,
    )


def newer_format(key: str, found: int) -> UnsupportedFormat:
    """Build the error for a record of a format this version does not read."""
    return UnsupportedFormat(
        f"{key} has format {found} and this version of swapstore reads up to {FORMAT}; upgrade swapstore",
        key=key,
    )
