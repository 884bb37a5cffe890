"""Records: immutable stored values, each a header line of JSON and the body bytes after it.

Header bytes are canonical: compact JSON in UTF-8, keys in the order given here, labels sorted. So the same
entry has the same bytes in every process, and a commit can compare them on the server.
"""

from __future__ import annotations

import base64
import hashlib
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import attrs
import msgspec

from swapstore.errors import Corrupt, PayloadMissing, UnsupportedFormat
from swapstore.format import encodings
from swapstore.format.encodings import Encoding
from swapstore.models import Entry, LiveView, Row, Whole
from swapstore.structs import Struct

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
    """Return canonical JSON of dicts, lists and structs: compact, keys in their order."""
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
    """The header line of an entry, newline included: that of an id record with its plain payload."""
    return pack(entry_fields(entry))


def check_of(entry: Entry) -> str:
    """A short check of an entry, which its ts record states: 64 bits of the SHA-256 of its header line."""
    return base64.urlsafe_b64encode(hashlib.sha256(entry_header(entry)).digest()[:8])[:11].decode()


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


_ENTRY = msgspec.json.Decoder(Entry)
_HOLDING = msgspec.json.Decoder(Holding)


def entry_of(record: bytes, key: str) -> Entry:
    """Parse the entry of an id record."""
    return read_entry(split(record, key)[0], key)


def holding_of(record: bytes, key: str) -> Holding:
    """Parse the header of an id record."""
    return _read(_HOLDING, split(record, key)[0], key)


def stated(entry: Entry) -> bytes:
    """Return how the id record of an entry begins, however the payload is held."""
    return to_json(entry_fields(entry))[:-1]


def states(record: bytes, entry: Entry) -> bool:
    """Whether an id record states this entry, however it holds the payload."""
    begin = stated(entry)
    return record.startswith((begin + b"}\n", begin + b',"encoding":'))


def read_entry(line: bytes, key: str) -> Entry:
    """Parse the entry in the header line of an id record."""
    return _read(_ENTRY, line, key)


def _read(decoder: msgspec.json.Decoder[E], line: bytes, key: str) -> E:
    try:
        return decoder.decode(line)
    except UNREADABLE as error:
        raise Corrupt(
            f"{key} holds a record whose header is not an entry ({error}). {_OTHER_WRITER}", key=key
        ) from error


def decoded(
    encoding: Encoding | None, body: bytes, size: int, key: str, base: Dictionary | None = None
) -> bytes:
    """Decode the body of the record under a key, which names this base. Raises `Corrupt`."""
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


class Held(Struct, frozen=True):
    """An id record, parsed and compared with its row; its payload is not decoded yet.

    `base`: the name of the base that it takes to decode it. None: it takes none.
    """

    key: str
    row: Entry
    encoding: Encoding | None
    base: str | None
    body: bytes

    def payload(self, base: Dictionary | None) -> bytes:
        """Decode the payload, given the base that it names, and check it. Raises `Corrupt`."""
        if self.base != (base and base.name):
            raise Corrupt(f"{self.key} needs the base {self.base!r}, which was not read", key=self.key)
        payload = decoded(self.encoding, self.body, self.row.size, self.key, base)
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


# --- ts records ------------------------------------------------------------------------------------


class Origin(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a ts record states: the commit that it was staged for. A lost manifest is rebuilt from these.

    A script, or a transaction, commits a snapshot only with the version that its origin states. A repair may
    give it a greater one later, and so may a commit without scripts; never a lesser one.
    `entry`: see `check_of`. `pending`: the record was written without a TTL before its swap, as a commit
    without scripts does, so the missing TTL does not prove that the snapshot is committed. `attempt`: makes a
    pending one differ from those of all other attempts. `members`: the attempt that the members of a pending
    group carry.
    """

    entry: str
    version: Whole
    epoch: str
    committed_at: Whole
    dedupe_key: str | None = None
    pending: bool = False
    attempt: str | None = None
    members: str | None = None

    @classmethod
    def of(cls, row: Row, epoch: str) -> Origin:
        """The origin of a row in this line of versions."""
        return cls(
            entry=check_of(row),
            version=row.version,
            epoch=epoch,
            committed_at=row.committed_at,
            dedupe_key=row.dedupe_key,
        )

    @property
    def record(self) -> bytes:
        """The ts record that states this. The entry and the version come first: see `split_ts`."""
        return to_json(self) + b"\n"

    @property
    def is_reclaimed(self) -> bool:
        """Whether a client is deleting the records, since `committed_at`: no publish may use them."""
        return self.pending and self.version == 0


_ORIGIN = msgspec.json.Decoder(Origin)


def pack_ts(row: Row, epoch: str) -> bytes:
    """Build the ts record of a row: one line, its origin."""
    return Origin.of(row, epoch).record


def split_ts(row: Row, epoch: str) -> tuple[bytes, bytes]:
    """The ts record of a row, split after the entry that it is of and the version that commits it."""
    record = pack_ts(row, epoch)
    end = record.index(b'"epoch"')
    return record[:end], record[end:]


def pending_ts(row: Row, epoch: str, attempt: str, *, members: str | None = None) -> tuple[bytes, bytes]:
    """The pending ts record of a row, split after the entry that it is of."""
    origin = Origin.of(row, epoch)
    record = msgspec.structs.replace(origin, pending=True, attempt=attempt, members=members).record
    end = len(stated_ts(row))
    return record[:end], record[end:]


def committed_ts(record: bytes, *, epoch: str | None = None) -> bytes | None:
    """Return a pending ts record as it is after its commit. None: it is not pending, or cannot be parsed.

    `epoch`: make it one of this epoch, even if it is not pending. One of another epoch that no manifest names
    counts as lost, and a repair puts it back.
    """
    origin = origin_in(record)
    if origin is None or origin.is_reclaimed or not (origin.pending or epoch not in {None, origin.epoch}):
        return None
    changed = {"pending": False, "attempt": None, "members": None, "epoch": epoch or origin.epoch}
    return msgspec.structs.replace(origin, **changed).record


def reclaimed_ts(check: str, nonce: str, now_ms: int) -> bytes:
    """Build the ts record of a snapshot whose records are being deleted; see `Origin.is_reclaimed`."""
    return Origin(entry=check, version=0, epoch=nonce, committed_at=now_ms, pending=True).record


def stated_ts(entry: Entry) -> bytes:
    """Return how the ts record of an entry begins, whatever commit it was staged for."""
    return b'{"entry":"%b",' % check_of(entry).encode()


def states_ts(record: bytes, entry: Entry) -> bool:
    """Whether a ts record is one of this entry."""
    return record.startswith(stated_ts(entry))


def origin_in(record: bytes) -> Origin | None:
    """Return the origin in a ts record, whatever entry it is of. None: it cannot be parsed."""
    line, newline, more = record.partition(b"\n")
    if more or not newline:
        return None
    try:
        return _ORIGIN.decode(line)
    except UNREADABLE:
        return None


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
    payload = decoded(header.encoding, body, header.size, key)
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
