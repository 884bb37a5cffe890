"""The members of groups: what is wrong with their records, read in batches of bounded size."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

import attrs

from swapstore.commands import PERMANENT, Get
from swapstore.errors import Corrupt, Damaged, PayloadMissing, UnsupportedFormat
from swapstore.format import bases, members
from swapstore.format.keys import group_name, is_of_group
from swapstore.fsck.findings import Finding, Problem
from swapstore.fsck.rows import bytes_of, finding_of
from swapstore.fsck.stored import read_stored
from swapstore.protocol.load import ask_all, value_of
from swapstore.protocol.members import batches
from swapstore.protocol.operation import Operation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from swapstore.commands import Failed
    from swapstore.format.encodings import Dictionary
    from swapstore.format.members import Listed
    from swapstore.models import Entry, Row
    from swapstore.protocol.context import Context

GONE = frozenset({Problem.RECORD_MISSING, Problem.RECORD_DAMAGED, Problem.RECORD_BASELESS})


@attrs.frozen
class MemberFault:
    """What is wrong with the record of a member, or with its base. `header`: the header line of that."""

    finding: Finding
    header: bytes = b""

    @property
    def is_gone(self) -> bool:
        """Whether the member cannot be read."""
        return self.finding.problem in GONE


@attrs.define
class ComparedMembers:
    """What is wrong with the members of a group, the base that they name, and the keys of their own bases."""

    faults: list[MemberFault] = attrs.field(factory=list)
    base: str | None = None
    base_keys: list[str] = attrs.field(factory=list)

    @property
    def gone(self) -> MemberFault | None:
        """A member that cannot be read."""
        return next((each for each in self.faults if each.is_gone), None)


def compare_members(
    ctx: Context, dataset: str, entry: Entry, listed: Mapping[str, Listed], row: Row | None = None
) -> Operation[ComparedMembers]:
    """Compare the members of a group with its table: there, whole, the same, and permanent.

    `row`: the row of the group. None: no row names it.
    """
    found = ComparedMembers()
    for batch in batches({name: each.size for name, each in listed.items()}):
        comparison = _Comparison(ctx, dataset, entry, row)
        yield from comparison.read(batch)
        found.base = found.base or comparison.base
        found.base_keys += comparison.base_keys
        for name in batch:
            found.faults += comparison.faults_of(name, listed[name])
    return found


@attrs.frozen
class _Stored:
    """A record as it is stored, and when it expires."""

    key: str
    reply: bytes | Failed | None
    ttl: int

    @property
    def header(self) -> bytes:
        """Its header line, newline included."""
        return bytes_of(self.reply).partition(b"\n")[0] + b"\n"


class _Comparison:
    """A batch of members that are read, with what they are stored against, and compared."""

    def __init__(self, ctx: Context, dataset: str, entry: Entry, row: Row | None) -> None:
        self._ctx = ctx
        self._dataset = dataset
        self._entry = entry
        self._row = row
        self._stored: dict[str, _Stored] = {}
        self._bases: dict[str, _Stored] = {}
        self.base: str | None = None  # that one of them names

    @property
    def base_keys(self) -> list[str]:
        """The keys of what the members are stored against."""
        return [stored.key for stored in self._bases.values()]

    def read(self, names: Sequence[str]) -> Operation[None]:
        """Read the records of members, and then their bases."""
        keys, group = self._ctx.keys, group_name(self._entry.id, self._entry.sha256)
        self._stored = yield from self._read(
            {name: keys.member(self._dataset, group, name) for name in names}
        )
        bases_of: dict[str, str] = {}
        for name, stored in self._stored.items():
            with suppress(Damaged):  # see `faults_of`
                base = members.parse_member(bytes_of(stored.reply), stored.key).base
                if base is not None:
                    self.base = base
                    bases_of[name] = keys.member_base(self._dataset, base, name)
        self._bases = yield from self._read(bases_of)

    def _read(self, keys: Mapping[str, str]) -> Operation[dict[str, _Stored]]:
        found = zip(keys.items(), (yield from read_stored(self._ctx, list(keys.values()))), strict=True)
        return {name: _Stored(key, reply, ttl) for (name, key), (reply, ttl) in found}

    def faults_of(self, name: str, listed: Listed) -> list[MemberFault]:
        """Return what is wrong with one member."""
        stored, base = self._stored[name], self._bases.get(name)
        try:
            if value_of(stored.reply) is None:
                return [self._fault(Problem.RECORD_MISSING, stored, name)]
            held = members.parse_member(bytes_of(stored.reply), stored.key)
            content = None
            if base is not None:
                try:
                    content = self._content(base, held.base or "", name)
                except (Corrupt, PayloadMissing) as error:
                    return [self._fault(Problem.RECORD_BASELESS, stored, name, error.args[0])]
            members.compare(listed, held.payload(content), held, self._row.version if self._row else None)
        except UnsupportedFormat:
            raise
        except Damaged as error:
            return [self._fault(Problem.RECORD_DAMAGED, stored, name, error.args[0])]
        expiring = []
        if base is not None and base.ttl != PERMANENT:
            finding = finding_of(self._dataset, Problem.BASE_EXPIRING, base.key, expires_in_ms=base.ttl)
            expiring.append(MemberFault(finding, base.header))
        if stored.ttl != PERMANENT:
            expiring.append(self._fault(Problem.RECORD_EXPIRING, stored, name, expires_in_ms=stored.ttl))
        return expiring

    def _content(self, stored: _Stored, base: str, name: str) -> Dictionary:
        """Return what a member is stored against. Raises what is wrong with that."""
        record = bytes_of(stored.reply)
        if not record:
            raise bases.missing(stored.key)
        return bases.parse(record, base, dataset=self._dataset, key=stored.key, member=name)

    def _fault(
        self, problem: Problem, stored: _Stored, name: str, why: str = "", expires_in_ms: int | None = None
    ) -> MemberFault:
        finding = finding_of(
            self._dataset,
            problem,
            stored.key,
            row=self._row,
            detail=f"its member {name!r}: {why}" if why else f"its member {name!r}",
            expires_in_ms=expires_in_ms,
        )
        return MemberFault(finding, stored.header)


def fault_of_base(ctx: Context, dataset: str, table: Dictionary) -> Operation[str]:
    """Return which member's record of a base was altered, and how. What is not there is not used."""
    if not is_of_group(table.name):
        return ""
    try:
        listed = members.parse_table(table.content, ctx.keys.base(dataset, table.name))
    except Corrupt as error:
        return str(error.args[0])
    for batch in batches({name: each.size for name, each in listed.items()}):
        keys = {name: ctx.keys.member_base(dataset, table.name, name) for name in batch}
        replies = yield from ask_all(ctx, [Get(key) for key in keys.values()])
        for (name, key), reply in zip(keys.items(), replies, strict=True):
            try:
                record = value_of(reply)
                if record is not None:
                    bases.parse(record, table.name, dataset=dataset, key=key, member=name)
            except Corrupt as error:
                return str(error.args[0])
    return ""
