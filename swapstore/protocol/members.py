"""Groups: read their members, encode them, and find the records that leave with them.

The id record of a group is read like that of any snapshot; its payload is the table of the members. A reader
of some members does not need it: their keys follow from the group's id. It reads the table only to tell a
member that is lost from one that the group never had.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs
import msgspec

from swapstore.cache import note_frame
from swapstore.commands import Get, Rewritten
from swapstore.errors import Corrupt, Damaged, NotFound, SwapstoreError
from swapstore.format import bases, encodings, members, records
from swapstore.format.encodings import Dictionary, Encoded
from swapstore.format.keys import group_name, is_of_group
from swapstore.format.manifest import snapshot_fields
from swapstore.format.members import HeldMember, Listed, Part
from swapstore.models import Group, Member, Row, Snapshot
from swapstore.protocol.commit import Record
from swapstore.protocol.encoder import Encoder, Form
from swapstore.protocol.load import ask_all, current_served, load_snapshot, value_of
from swapstore.protocol.operation import Operation, portions

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from swapstore.commands import Served
    from swapstore.format.encodings import Encoding
    from swapstore.format.manifest import Manifest
    from swapstore.protocol.context import Context

MOST_SERVED = 64  # members that are read along with the manifest
HALF_A_DIGEST = 10  # characters at the end of what the record of a base begins with
BATCH_BYTES = 4 * 1024 * 1024  # of members that are read in one batch


# --- read ------------------------------------------------------------------------------------------


def snapshot_at(ctx: Context, current: Manifest, row: Row) -> Operation[Snapshot]:
    """Read the snapshot or the group of a row, and check it."""
    return load_group(ctx, current, row) if row.is_group else load_snapshot(ctx, current, row)


def load_group(
    ctx: Context, current: Manifest, row: Row, names: Collection[str] | None = None
) -> Operation[Group]:
    """Read the members of a group, all or those of these names, and check them.

    Raises `NotFound` for a name that the group does not have, `PayloadMissing` and `Corrupt` for damage.
    """
    raw, listed = b"", None
    if names is None:
        raw, listed = yield from _table(ctx, current, row)
        names = list(listed)
    found: dict[str, Member] = {}
    unknown: dict[str, int] = {}  # and their sizes, where the table tells them
    for name in names:
        member = ctx.cache.member(_key(ctx, current, row, name), row.sha256)
        if member is not None:
            found[name] = member
        else:
            unknown[name] = listed[name].size if listed else 0
    for batch in batches(unknown):
        found |= yield from _load_members(ctx, current, row, batch, listed)
    return _group(ctx, current, row, raw, {name: found[name] for name in names})


def cached_group(
    ctx: Context, current: Manifest, row: Row, names: Collection[str] | None = None
) -> Group | None:
    """Return a group as this client remembers it. None: it does not remember all of the members."""
    raw, key = b"", ctx.keys.id(current.head.dataset, row.id)
    if names is None:
        raw = ctx.cache.record(key, row.sha256) or b""
        names = list(members.parse_table(raw, key)) if raw else None
    if names is None:
        return None
    found = {name: ctx.cache.member(_key(ctx, current, row, name), row.sha256) for name in names}
    whole = {name: member for name, member in found.items() if member is not None}
    return _group(ctx, current, row, raw, whole) if len(whole) == len(found) else None


def _group(ctx: Context, current: Manifest, row: Row, raw: bytes, found: Mapping[str, Member]) -> Group:
    """Build a group. A caller that changes the value of a member changes nothing in the cache."""
    fields = {**snapshot_fields(row, current.head), "labels": dict(row.labels)}
    fields["seen_at"] = ctx.seen_at(current)
    return Group(**fields, raw=raw, members={name: attrs.evolve(found[name]) for name in found})


def current_members(ctx: Context, dataset: str, names: Sequence[str]) -> Operation[Manifest | None]:
    """Return the manifest that is stored now, or its header alone, to a reader of members that it serves.

    Like `current_served`: a client that remembers no manifest reads it and a few members in one round trip.
    """
    if not 0 < len(names) <= MOST_SERVED:
        return (yield from current_served(ctx, dataset))

    def keep(current: Manifest, served: Served) -> Operation[None]:
        row = current.head.serving
        if not row.is_group or not served.members:
            return
        base = _expected_base(row)
        bases_of = _Bases(ctx, dataset)
        if base is not None:
            asked = [(ctx.keys.member_base(dataset, base, name), base, name) for name in names]
            bases_of.keep(asked, served.members[1::2], are_needed=False)
        for name, record in zip(names, served.members[::2], strict=True):
            if record is not None:
                held = members.parse_member(record, _key(ctx, current, row, name))
                yield from _decode(ctx, row, {name: held}, bases_of, None)

    return (yield from current_served(ctx, dataset, names, keep))


def load_table(ctx: Context, current: Manifest, row: Row) -> Operation[dict[str, Listed]]:
    """Read the table of a group's members."""
    return (yield from _table(ctx, current, row))[1]


def _table(ctx: Context, current: Manifest, row: Row) -> Operation[tuple[bytes, dict[str, Listed]]]:
    raw = (yield from load_snapshot(ctx, current, row)).raw
    return raw, members.parse_table(raw, ctx.keys.id(current.head.dataset, row.id))


def _key(ctx: Context, current: Manifest, row: Row, name: str) -> str:
    return ctx.keys.member(current.head.dataset, group_name(row.id, row.sha256), name)


def batches(sizes: Mapping[str, int]) -> list[list[str]]:
    """Split members, given their sizes, so that a batch of records is of bounded size."""
    return portions(sizes, sizes.__getitem__, room=BATCH_BYTES)


def _expected_base(row: Row) -> str | None:
    """Return the base that a group's members may be stored against."""
    return row.base if row.base is not None and is_of_group(row.base) else None


def _load_members(
    ctx: Context, current: Manifest, row: Row, names: Sequence[str], listed: Mapping[str, Listed] | None
) -> Operation[dict[str, Member]]:
    """Read the records of members in one round trip, along with the bases that the row lets expect."""
    dataset = current.head.dataset
    keys = [_key(ctx, current, row, name) for name in names]
    base = _expected_base(row)
    bases_of = _Bases(ctx, dataset)
    along = [] if base is None else bases_of.unknown((base, name) for name in names)
    replies = yield from ask_all(ctx, [Get(key) for key in (*keys, *(key for key, _, _ in along))])
    bases_of.keep(along, replies[len(names) :], are_needed=False)
    held: dict[str, HeldMember] = {}
    for name, key, reply in zip(names, keys, replies, strict=False):
        record = value_of(reply)
        if record is None:
            raise (yield from _absent(ctx, current, row, name, key))
        held[name] = members.parse_member(record, key)
    return (yield from _decode(ctx, row, held, bases_of, listed))


def _decode(
    ctx: Context,
    row: Row,
    held: Mapping[str, HeldMember],
    bases_of: _Bases,
    listed: Mapping[str, Listed] | None,
) -> Operation[dict[str, Member]]:
    """Decode members, check them, and remember them. What they are stored against is read if need be."""
    yield from bases_of.load((each.base, name) for name, each in held.items() if each.base is not None)
    found: dict[str, Member] = {}
    for name, each in held.items():
        payload = each.payload(None if each.base is None else bases_of.known(each.base, name))
        sha256 = each.sha256 or records.digest(payload)
        if listed is not None:
            members.compare(listed[name], payload, each, row.version)
        member = Member(name=name, size=len(payload), sha256=sha256, codec=each.codec, raw=payload)
        ctx.cache.keep_member(each.key, row.sha256, member)
        note_frame(sha256, each)
        found[name] = member
    return found


def _absent(ctx: Context, current: Manifest, row: Row, name: str, key: str) -> Operation[SwapstoreError]:
    """Return the error for a member without a record: the group never had it, or it is lost."""
    listed = yield from load_table(ctx, current, row)
    if name in listed:
        return members.missing(key, row.version, name)
    return NotFound(f"version {row.version} has no member {name!r}; it has {len(listed)} others")


class _Bases:
    """What members of one dataset are stored against. This client's cache may be too small for all of it."""

    def __init__(self, ctx: Context, dataset: str) -> None:
        self._ctx = ctx
        self._dataset = dataset
        self._found: dict[str, Dictionary] = {}

    def known(self, base: str, member: str) -> Dictionary:
        """Return what a member is stored against. Raises `PayloadMissing`."""
        found = self.get(base, member)
        if found is None:
            raise bases.missing(self._ctx.keys.member_base(self._dataset, base, member))
        return found

    def get(self, base: str, member: str) -> Dictionary | None:
        """Return what a member is stored against. None: it was not read, or does not exist."""
        return self._found.get(self._ctx.keys.member_base(self._dataset, base, member))

    def unknown(self, wanted: Iterable[tuple[str, str]]) -> list[tuple[str, str, str]]:
        """Return the keys that are not known, each with its base and its member."""
        left = []
        for base, member in wanted:
            key = self._ctx.keys.member_base(self._dataset, base, member)
            cached = self._found.get(key) or self._ctx.cache.base(key)
            if cached is None:
                left.append((key, base, member))
            else:
                self._found[key] = cached
        return left

    def keep(
        self, asked: Sequence[tuple[str, str, str]], replies: Sequence[Any], *, are_needed: bool = True
    ) -> None:
        """Parse what was read. Raises `Corrupt` if `are_needed`; else what is damaged counts as not read."""
        for (key, base, member), reply in zip(asked, replies, strict=True):
            if isinstance(reply, bytes):
                try:
                    parsed = bases.parse(reply, base, dataset=self._dataset, key=key, member=member)
                except Corrupt:
                    if are_needed:
                        raise
                    continue
                self._found[key] = parsed
                compressing = self._ctx.policy.compression == "delta"
                self._ctx.cache.keep_base(key, parsed, compressing=compressing)

    def load(self, wanted: Iterable[tuple[str, str]]) -> Operation[None]:
        """Read what is not known, in one round trip. What does not exist is left out."""
        asked = self.unknown(wanted)
        self.keep(asked, (yield from ask_all(self._ctx, [Get(key) for key, _, _ in asked])))


# --- store anew ------------------------------------------------------------------------------------


def stored_alone(
    ctx: Context, dataset: str, row: Row, table: bytes, names: Collection[str]
) -> Operation[list[Rewritten]]:
    """Return the records that replace those of members which need one of these bases. They need none.

    Raises `Damaged` if a member cannot be read.
    """
    listed = members.parse_table(table, ctx.keys.id(dataset, row.id))
    group = group_name(row.id, row.sha256)
    made: list[Rewritten] = []
    for batch in batches({name: each.size for name, each in listed.items()}):
        keys = {name: ctx.keys.member(dataset, group, name) for name in batch}
        replies = yield from ask_all(ctx, [Get(key) for key in keys.values()])
        loading, needing = _Bases(ctx, dataset), dict[str, tuple[HeldMember, bytes]]()
        for (name, key), reply in zip(keys.items(), replies, strict=True):
            record = value_of(reply)
            if record is None:
                raise members.missing(key, row.version, name)
            held = members.parse_member(record, key)
            if held.base in names:
                needing[name] = held, record.partition(b"\n")[0] + b"\n"
        yield from loading.load((held.base or "", name) for name, (held, _) in needing.items())
        for name, (held, header) in needing.items():
            part = Part(held.payload(loading.known(held.base or "", name)), held.codec)
            encoded = encodings.compressed(part.payload, text_only=ctx.policy.text_only)
            line = members.header(part, encoded)
            line = line if held.attempt is None else members.signed(line, held.attempt)
            made.append(Rewritten(held.key, header, line + encoded.body))
    return made


# --- encode ----------------------------------------------------------------------------------------


class GroupEncoder(Encoder):
    """Encodes the table and the members of one group, once for each base."""

    _of_group = True

    def __init__(
        self,
        ctx: Context,
        dataset: str,
        payload: bytes,
        sha256: str,
        *,
        id: str,  # noqa: A002
        parts: Mapping[str, Part],
        adopted: tuple[Encoding | None, str | None] | None = None,
    ) -> None:
        super().__init__(ctx, dataset, payload, sha256, adopted=adopted)
        self._parts = parts
        self._id = id
        self._group = group_name(id, sha256)
        self._stored: dict[str | None, list[Record]] = {}  # the records of all members, by their base
        self._contents: dict[str, Encoded] = {}  # of members, as bases

    def adopting(self, held: tuple[Encoding | None, str | None]) -> Encoder:
        """Return an encoder of the same group, for an id record that is there already."""
        return GroupEncoder(
            self._ctx,
            self._dataset,
            self._payload,
            self._sha256,
            id=self._id,
            parts=self._parts,
            adopted=held,
        )

    def form(self, current: Manifest | None) -> Operation[Form]:
        """Return how the group is stored in the version after `current`."""
        if self._ctx.policy.compression != "delta":
            form = yield from super().form(current)
            return msgspec.structs.replace(form, members=tuple(self._members(None, {})))
        in_force = current.log.base if current else None
        base = yield from self._load(in_force)
        own: dict[str, Dictionary] = {}
        try:
            own = {} if base is None else (yield from self._load_own(base))
        except Damaged:
            base = None  # this group brings another one
        name = None if base is None else base.name
        adopted = None
        if self.adopted is not None:
            adopted = yield from self._as_adopted(self.adopted, in_force)
        encoded, stored = adopted or self._compressed(base), self._members(name, own)
        size = len(encoded.body) + sum(len(record.body) for record in stored)
        if adopted is None and encodings.is_due(in_force if base else None, size):
            return self._with_own_base(current.version + 1 if current else 1)
        needed = [] if name is None else [self._base_record(name, member) for member in own]
        then = in_force.then(size) if in_force and base else None
        return Form(encoded, then, members=(*stored, *needed), delta_of=name)

    def _load_own(self, base: Dictionary) -> Operation[dict[str, Dictionary]]:
        """Return what the members are stored against: those that the base has, and that are not lost."""
        loading = _Bases(self._ctx, self._dataset)
        listed = members.parse_table(base.content, self._ctx.keys.base(self._dataset, base.name))
        wanted = {name: each.size for name, each in listed.items() if name in self._parts and each.has_base}
        for batch in batches(wanted):
            yield from loading.load((base.name, name) for name in batch)
        return {name: known for name in wanted if (known := loading.get(base.name, name)) is not None}

    def _base_record(self, base: str, member: str) -> Record:
        """Return the record that a member is stored against: the store has it, and this client a copy."""
        key = self._ctx.keys.member_base(self._dataset, base, member)
        # Half of the digest tells another base. A group has hundreds of members, and this is sent for each.
        return Record(key, bases.begin(base)[:-HALF_A_DIGEST], shared=True, stored=True)

    def _members(self, base: str | None, own: Mapping[str, Dictionary]) -> list[Record]:
        """Return the records of all members. The key and the header tell the content, so any may be there."""
        if base not in self._stored:
            stored = []
            for name, part in self._parts.items():
                key = self._ctx.keys.member(self._dataset, self._group, name)
                against = own.get(name)
                if base is not None and against is not None and against.content == part.payload:
                    stored.append(Record(key, members.unchanged(part, base), shared=True))
                else:
                    encoded = self._encode(part, against)
                    stored.append(Record(key, members.header(part, encoded), encoded.body, shared=True))
            self._stored[base] = stored
        return self._stored[base]

    def _encode(self, part: Part, against: Dictionary | None) -> Encoded:
        text_only = self._ctx.policy.text_only
        if self._ctx.policy.compression == "none":
            return encodings.plain(part.payload, text_only=text_only)
        return encodings.compressed(part.payload, against, text_only=text_only)

    def _with_own_base(self, version: int) -> Form:
        """Return the form of a group that brings itself as the new base."""
        form = super()._with_own_base(version)
        (name, _), *_ = form.brought
        text_only = self._ctx.policy.text_only
        own: dict[str, Dictionary] = {}
        brought: list[Record] = []
        size = 0
        for member, part in self._parts.items():
            if not encodings.may_be_base(part.payload):
                continue
            if member not in self._contents:
                self._contents[member] = encodings.base_content(part.payload, text_only=text_only)
            content = self._contents[member]
            own[member] = Dictionary(name, part.payload)
            key = self._ctx.keys.member_base(self._dataset, name, member)
            record = bases.pack(
                name,
                content,
                size=len(part.payload),
                sha256=part.sha256,
                dataset=self._dataset,
                member=member,
            )
            brought.append(Record.of(key, record, shared=True))
            self._ctx.cache.keep_base(key, own[member], compressing=True)
            size += len(content.body)
        stored = self._members(name, own)
        assert form.in_force is not None  # noqa: S101 - it brings a base
        in_force = form.in_force.and_members(size, sum(len(record.body) for record in stored))
        return msgspec.structs.replace(form, in_force=in_force, members=(*stored, *brought), delta_of=name)
