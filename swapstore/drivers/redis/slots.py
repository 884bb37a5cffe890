"""The slots of a cluster, without I/O: which slot a command needs, and which node serves a slot.

A cluster divides all keys into 16,384 slots, and each slot has one primary. The table is ours and not
redis-py's `NodesManager`: that one differs between redis-py's versions and between its two clients, connects
while it is made, and repeats commands by itself.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import attrs
from redis.crc import key_slot

from swapstore.commands import Ask, Command, GetAll, Scan, Ttls
from swapstore.drivers.redis.address import shown
from swapstore.drivers.redis.wire import Bundle

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SLOTS = 16_384

Address = tuple[str, int]

_KEYED = {"SET", "ZSCAN", "ZRANGE"}  # those of `Ask` whose first argument is a key
_REDIRECTION = re.compile(r"(MOVED|ASK) ([0-9]+) (\S*):([0-9]+)$")
_OPEN = re.compile(r"\[([0-9]+)-([<>])-([0-9a-f]+)\]")
_UNKNOWN = {"", "?"}  # hosts that mean: the one that was asked


def keys_of(command: Command[Any]) -> tuple[str, ...]:
    """Return the keys that a command names first; all its keys are in their slot. None: any node can answer.

    A bundle has the key of its commit, and those of the records that it stages.
    """
    if type(command) is Bundle:
        return (command.commit.key, *(stage.key for stage in command.stages))
    if type(command) is Ask:
        words = command.words
        return (words[1],) if words[0].upper() in _KEYED and len(words) > 1 else ()
    if isinstance(command, GetAll | Ttls):
        return command.keys
    key = getattr(command, "key", None)
    return () if key is None else (key,)


def slot_of(command: Command[Any]) -> int | None:
    """Return the slot of a command's keys. None: any node can answer."""
    keys = keys_of(command)
    return key_slot(keys[0].encode()) if keys else None


# --- which node serves a slot ----------------------------------------------------------------------


@attrs.define
class Table:
    """Which primary serves each slot (None: no node does), and which replicas each primary has."""

    owners: list[Address | None] = attrs.field(repr=False)
    replicas: dict[Address, tuple[Address, ...]]

    @classmethod
    def parse(cls, reply: Any, asked: Address) -> Table:
        """Read the reply to `CLUSTER SLOTS` of the node `asked`. A host that it does not tell is its own."""
        owners: list[Address | None] = [None] * SLOTS
        replicas: dict[Address, tuple[Address, ...]] = {}
        for first, last, *nodes in reply:
            primary, *others = [_address(node[0], node[1], asked) for node in nodes]
            owners[first : last + 1] = [primary] * (last + 1 - first)
            replicas[primary] = tuple(others)
        return cls(owners, replicas)

    @property
    def primaries(self) -> list[Address]:
        """The primaries that serve a slot, in the order of their first one."""
        return [owner for owner in dict.fromkeys(self.owners) if owner is not None]

    @property
    def nodes(self) -> list[Address]:
        """All nodes, the primaries first."""
        return list(
            dict.fromkeys([*self.primaries, *(each for some in self.replicas.values() for each in some)])
        )

    def names(self) -> dict[str, list[str]]:
        """Return the addresses of the primaries as text, each with those of its replicas."""
        return {shown(one): [shown(each) for each in self.replicas.get(one, ())] for one in self.primaries}

    def mapped(self, remap: Any) -> Table:
        """Return the same table with the addresses that `remap`, the caller's function, gives the nodes."""
        known: dict[Address | None, Address | None] = {None: None}
        for node in self.nodes:
            known[node] = remap(node)
        replicas = {remap(one): tuple(map(remap, others)) for one, others in self.replicas.items()}
        return Table([known[owner] for owner in self.owners], replicas)

    def learn(self, slot: int, owner: Address) -> None:
        """Note which node serves a slot now."""
        self.owners[slot] = owner

    def unserved(self) -> list[int]:
        """Return the slots that no node serves."""
        return [slot for slot, owner in enumerate(self.owners) if owner is None]


def _address(host: Any, port: int, asked: Address) -> Address:
    text = host.decode() if isinstance(host, bytes) else host or ""
    return (asked[0] if text in _UNKNOWN else text), port


def ranges(slots: Sequence[int]) -> str:
    """Return slots as ranges, at most four of them: `0-99, 200`."""
    found: list[list[int]] = []
    for slot in slots:
        if found and found[-1][1] == slot - 1:
            found[-1][1] = slot
        else:
            found.append([slot, slot])
    texts = [str(first) if first == last else f"{first}-{last}" for first, last in found[:4]]
    return ", ".join([*texts, *(["…"] if len(found) > len(texts) else [])])


# --- what nodes say --------------------------------------------------------------------------------


@attrs.frozen
class Redirection:
    """A node's answer that another one has the key: for this command only (`once`), or for its whole slot."""

    slot: int
    to: Address
    once: bool

    @classmethod
    def parse(cls, text: str, asked: Address) -> Redirection | None:
        """Read `MOVED` and `ASK` of the node `asked`. None: it is another answer."""
        found = _REDIRECTION.match(text)
        if found is None:
            return None
        return cls(int(found[2]), _address(found[3], int(found[4]), asked), found[1] == "ASK")


def open_slots(text: str) -> dict[int, str]:
    """Read a node's reply to `CLUSTER NODES`: which of its slots move, and from and to which node."""
    places: dict[str, str] = {}
    found: dict[int, str] = {}
    lines = [line.split() for line in text.splitlines()]
    for fields in lines:
        if len(fields) > 1:
            places[fields[0]] = fields[1].partition("@")[0]
    for fields in lines:
        if len(fields) > 2 and "myself" in fields[2]:  # noqa: PLR2004
            for slot, direction, other in _OPEN.findall(" ".join(fields)):
                here, there = places[fields[0]], places.get(other, other)
                source, target = (here, there) if direction == ">" else (there, here)
                found[int(slot)] = f"from {source} to {target}"
    return found


# --- scanning --------------------------------------------------------------------------------------


@attrs.frozen
class Place:
    """How far a scan over all primaries has come.

    `number`: the pass, from 0. `state`: that of the cluster when the pass began, so that its end can tell
    whether a slot was on its way. `cursor`: that of the node.
    """

    number: int
    state: str
    node: Address
    cursor: str

    @classmethod
    def parse(cls, text: str) -> Place | None:
        """Read a cursor. None: the scan begins."""
        if not text:
            return None
        number, state, host, port, cursor = text.split(" ")
        return cls(int(number), state, (host, int(port)), cursor)

    def __str__(self) -> str:
        return f"{self.number} {self.state} {self.node[0]} {self.node[1]} {self.cursor}"


def is_scan(commands: Iterable[Command[Any]]) -> bool:
    """Say whether a batch has a `Scan`, which goes over all nodes."""
    for command in commands:  # noqa: SIM110 - a loop is quicker, and each batch comes here
        if type(command) is Scan:
            return True
    return False
