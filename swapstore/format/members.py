"""Members: the records of a group, and its table.

A group is a snapshot with the codec `group`. The payload of its id record is the table of its members: their
sizes, digests and codecs, by name. So the digest of the table is that of the whole group. Each member has a
record of its own, whose key follows from the id of the group and the name of the member. One member is read
without the table.

A base of a group is a table, too, and has a record for each member that the group then had. A member that has
not changed since is stored as a header of some bytes, which names the base.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from swapstore import arguments, codecs
from swapstore.errors import Corrupt, InvalidInput, PayloadMissing
from swapstore.format import encodings, records
from swapstore.format.encodings import Encoding
from swapstore.format.keys import check_base
from swapstore.models import MOST_MEMBERS, Member, Whole
from swapstore.structs import Struct

if TYPE_CHECKING:
    from swapstore.format.encodings import Dictionary, Encoded

_JSON = "json"


class Part(Struct, frozen=True, dict=True):
    """A member of a group that is to be published: its payload and its codec."""

    payload: bytes
    codec: str = _JSON

    @cached_property
    def sha256(self) -> str:
        """The digest of the payload."""
        return records.digest(self.payload)

    def member(self, name: str) -> Member:
        """Return it as readers will get it."""
        size = len(self.payload)
        return Member(name=name, size=size, sha256=self.sha256, codec=self.codec, raw=self.payload)


def parts_of(
    values: Any, codec: str, *, limit_bytes: int, default: Callable[[Any], Any] | None = None
) -> dict[str, Part]:
    """Check the members of a group, and encode their values. `InvalidInput` names the member."""
    if not isinstance(values, Mapping):
        raise InvalidInput(f"members must map names to values, not be a {type(values).__name__}")
    try:
        given = dict(values.items())
    except Exception as error:
        kind = type(error).__name__
        raise InvalidInput(f"members cannot be read: that raised {kind}") from error
    if not 1 <= len(given) <= MOST_MEMBERS:
        raise InvalidInput(f"a group has 1 to {MOST_MEMBERS:,} members, not {len(given):,}")
    parts: dict[str, Part] = {}
    for name, value in given.items():
        own = arguments.member_name(name)
        if own in parts:
            raise InvalidInput(f"the member {own!r} is given twice")
        try:
            payload = codecs.encode(value, codec, limit_bytes=limit_bytes, default=default)
            parts[own] = Part(payload, codec)
        except InvalidInput as error:
            error.args = (f"member {own!r}: {error.args[0]}", *error.args[1:])
            raise
    return {name: parts[name] for name in sorted(parts)}


# --- the table -------------------------------------------------------------------------------------


class Listed(msgspec.Struct, frozen=True, array_like=True):
    """What the table says of a member."""

    size: Whole
    sha256: str
    codec: str = _JSON

    @property
    def has_base(self) -> bool:
        """Whether a base of groups has a record of this member, as far as its size tells."""
        return encodings.SHORTEST_BASE <= self.size <= encodings.LARGEST_BASE


_TABLE = msgspec.json.Decoder(dict[str, Listed])


def table(parts: Mapping[str, Part]) -> bytes:
    """Build the table of a group, the payload of its id record: an array for each member, sorted by name."""
    return records.to_json({name: _array(parts[name]) for name in sorted(parts)})


def _array(part: Part) -> list[Any]:
    array: list[Any] = [len(part.payload), part.sha256]
    return array if part.codec == _JSON else [*array, part.codec]


def parse_table(payload: bytes, key: str) -> dict[str, Listed]:
    """Parse the table of a group. Raises `Corrupt`."""
    try:
        found = _TABLE.decode(payload)
    except records.UNREADABLE as error:
        raise Corrupt(f"{key} holds no table of members ({error})", key=key) from error
    if not found or len(found) > MOST_MEMBERS or not all(map(arguments.is_member_name, found)):
        raise Corrupt(f"{key} holds a table that no group has", key=key)
    return found


# --- the record of a member ------------------------------------------------------------------------


class _MemberHeader(msgspec.Struct):
    size: Whole | None = None
    sha256: str | None = None
    codec: str = _JSON
    encoding: Encoding | None = None
    base: str | None = None
    attempt: str | None = None


_HEADER = msgspec.json.Decoder(_MemberHeader)


def header(part: Part, encoded: Encoded) -> bytes:
    """The header line of a member's record, newline included."""
    fields: dict[str, Any] = {"size": len(part.payload), "sha256": part.sha256}
    if part.codec != _JSON:
        fields["codec"] = part.codec
    if encoded.encoding is not None:
        fields["encoding"] = encoded.encoding
    if encoded.base is not None:
        fields["base"] = encoded.base
    return records.pack(fields)


def unchanged(part: Part, base: str) -> bytes:
    """The record of a member whose content is that of the member's base."""
    return records.pack({"base": base} if part.codec == _JSON else {"codec": part.codec, "base": base})


def signed(header: bytes, attempt: str) -> bytes:
    """The header line of a member with the attempt that writes it: see `protocol/scriptless/members.py`."""
    return b'%b,"attempt":"%b"}\n' % (header[:-2], attempt.encode())


class HeldMember(Struct, frozen=True):
    """The record of a member, parsed; its payload is not decoded yet. `base`: the base that this takes.

    `attempt`: which publish without scripts has written it. Readers do not need it.
    """

    key: str
    size: int | None
    sha256: str | None
    codec: str
    encoding: Encoding | None
    base: str | None
    body: bytes
    attempt: str | None = None

    def payload(self, base: Dictionary | None) -> bytes:
        """Decode the payload, given the base that it names, and check it. Raises `Corrupt`."""
        if self.base != (base and base.name):
            raise Corrupt(f"{self.key} needs the base {self.base!r}, which was not read", key=self.key)
        if self.size is None or self.sha256 is None:
            assert base is not None  # noqa: S101 - see `parse_member`
            return base.content
        payload = records.decoded(self.encoding, self.body, self.size, self.key, base)
        records.check_body(payload, self.size, self.sha256, self.key)
        return payload


def parse_member(record: bytes, key: str) -> HeldMember:
    """Parse the record of a member. Raises `Corrupt`."""
    line, body = records.split(record, key)
    try:
        found = _HEADER.decode(line)
    except records.UNREADABLE as error:
        raise Corrupt(f"{key} holds no member of a group ({error})", key=key) from error
    check_base(found.base, key)
    is_unchanged = found.size is None and found.sha256 is None and found.encoding is None
    if not (found.base is not None and not body if is_unchanged else found.size is not None and found.sha256):
        raise Corrupt(f"{key} holds a member without its size, its digest or its base", key=key)
    return HeldMember(
        key, found.size, found.sha256, found.codec, found.encoding, found.base, body, found.attempt
    )


def compare(listed: Listed, payload: bytes, held: HeldMember, version: int | None) -> None:
    """Raise `Corrupt` if a member is not what the table of its group says."""
    sha256 = held.sha256 or records.digest(payload)
    if listed != Listed(len(payload), sha256, held.codec):
        of = "its group" if version is None else f"version {version}"
        raise Corrupt(f"{held.key} holds another member than the table of {of} says", key=held.key)


def missing(key: str, version: int, name: str) -> PayloadMissing:
    """Build the error for a member that does not exist although its group is committed."""
    return PayloadMissing(
        f"the member {name!r} of version {version} is committed but its record {key} does not exist: it was "
        "deleted or evicted. Publish the group again under a new id, or pin or roll back to another version",
        key=key,
    )
