"""Bases as they are stored: read when a record needs one, a few at a time.

Rows that need the same base are mostly neighbours. So a walk reads each base once, although it keeps few.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import attrs

from swapstore.commands import PERMANENT, Command, Get, Ttl
from swapstore.errors import Corrupt, Damaged, UnsupportedFormat
from swapstore.format import bases, records
from swapstore.format.keys import base_version, check_base, is_of_group
from swapstore.fsck.findings import Problem
from swapstore.protocol.load import ask_all, value_of
from swapstore.protocol.operation import Operation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from swapstore.commands import Failed
    from swapstore.format.encodings import Dictionary, InForce
    from swapstore.format.records import Held
    from swapstore.models import Entry
    from swapstore.protocol.context import Context

KEPT = 4  # bases in memory; more are not read in one batch


@attrs.frozen
class StoredBase:
    """A base as it is stored. `problem`: it cannot be read; `content` is None then.

    `header` is its header line, newline included. `body_size` counts the bytes behind it.
    """

    name: str
    key: str
    ttl: int
    header: bytes = b""
    body_size: int = 0
    content: Dictionary | None = None
    problem: Problem | None = None
    detail: str = ""

    @property
    def fault(self) -> str:
        """Why it cannot be read. Empty: it can."""
        return f"{self.key} does not exist" if self.problem is Problem.BASE_MISSING else self.detail

    @property
    def is_permanent(self) -> bool:
        """Whether it has no TTL."""
        return self.ttl == PERMANENT


class Bases:
    """The bases of one dataset. Those that cannot be read are remembered without their content."""

    def __init__(self, ctx: Context, dataset: str) -> None:
        self._ctx = ctx
        self._dataset = dataset
        self._whole: OrderedDict[str, StoredBase] = OrderedDict()
        self._lost: dict[str, StoredBase] = {}
        self._read_again: set[str] = set()

    def read(self, names: Iterable[str], *, again: bool = False) -> Operation[dict[str, StoredBase]]:
        """Read up to `KEPT` bases in one batch, unless they are known.

        `again`: read those once more that cannot be read, or have a TTL: a replica may lag.
        """
        found = {name: self._known(name) for name in names}
        asked = [
            name for name, known in found.items() if known is None or (again and self._is_to_be_read(known))
        ]
        commands: list[Command[Any]] = []
        for name in asked:
            key = self._ctx.keys.base(self._dataset, name)
            commands += [Get(key), Ttl(key)]
        replies = yield from ask_all(self._ctx, commands)
        for name, record, ttl in zip(asked, replies[::2], replies[1::2], strict=True):
            found[name] = self._parsed(name, record, value_of(ttl))
            if again:
                self._read_again.add(name)
        self._keep(each for each in found.values() if each is not None)
        return {name: each for name, each in found.items() if each is not None}

    def is_whole(self, record: bytes, entry: Entry) -> Operation[bool]:
        """Say whether an id record states this entry, and its payload can be read."""
        if not records.states(record, entry):
            return False
        return not (yield from self.fault_of(record, entry))

    def fault_of(self, record: bytes, entry: Entry) -> Operation[str]:
        """Return why the payload of an id record cannot be read. Empty: it can."""
        try:
            held = held_in(record, entry)
        except Corrupt as error:
            return str(error.args[0])
        base = None if held.base is None else (yield from self.read([held.base], again=True))[held.base]
        return undecodable(held, base)

    def payload_of(self, record: bytes, entry: Entry) -> Operation[bytes]:
        """Return the payload of an id record that can be read."""
        held = held_in(record, entry)
        base = None if held.base is None else (yield from self.read([held.base]))[held.base]
        return held.payload(None if base is None else base.content)

    def _known(self, name: str) -> StoredBase | None:
        return self._whole.get(name) or self._lost.get(name)

    def _is_to_be_read(self, known: StoredBase) -> bool:
        return (known.problem is not None or not known.is_permanent) and known.name not in self._read_again

    def _parsed(self, name: str, reply: bytes | Failed | None, ttl: int) -> StoredBase:
        key = self._ctx.keys.base(self._dataset, name)
        try:
            record = value_of(reply)
            if record is None:
                return StoredBase(name, key, ttl, problem=Problem.BASE_MISSING)
            content = bases.parse(record, name, dataset=self._dataset, key=key)
        except UnsupportedFormat:
            raise
        except Damaged as error:
            return StoredBase(name, key, ttl, problem=Problem.BASE_DAMAGED, detail=error.args[0])
        end = record.index(b"\n") + 1
        return StoredBase(name, key, ttl, record[:end], len(record) - end, content)

    def _keep(self, found: Iterable[StoredBase]) -> None:
        for each in found:
            self._whole.pop(each.name, None)
            self._lost.pop(each.name, None)
            (self._lost if each.problem else self._whole)[each.name] = each
        while len(self._whole) > KEPT:
            self._whole.popitem(last=False)


def held_in(record: bytes, entry: Entry) -> Held:
    """Parse the id record of an entry. Raises `Corrupt`, also if it names a base by an invalid name."""
    held = records.held_as(record, f"the record of {entry.id!r}")
    check_base(held.base, held.key)
    return held


def undecodable(held: Held, base: StoredBase | None) -> str:
    """Return why a payload cannot be decoded with its base, as that is stored. Empty: it can."""
    if base is not None and base.problem is not None:
        return f"its base cannot be read: {base.fault}"
    try:
        held.payload(None if base is None else base.content)
    except Corrupt as error:
        return str(error.args[0])
    return ""


def wrong_numbers(in_force: InForce, base: StoredBase, version: int) -> str:
    """Return which number of the base in force cannot be, in the manifest of this version. Empty: none.

    Producers at two endpoints, or with two versions of zstd, may bring the same base. The manifest tells how
    many bytes it takes as one of them would store it, and the other's record may be there. Of a base of
    groups, it counts those of the members, too.
    """
    is_less = 2 * in_force.size < base.body_size
    if is_less or (in_force.size > 2 * base.body_size and not is_of_group(base.name)):
        return f"it takes {base.body_size} bytes, the manifest says {in_force.size}"
    if in_force.count > version + 1 - base_version(in_force.name) or in_force.last > in_force.sum:
        return "the sums of what was stored against it cannot be"
    return ""
