"""Payloads that bring bases or are differences from one, and what a store must hold of its bases."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

from swapstore.errors import Damaged
from swapstore.format import bases, members, records
from swapstore.format.encodings import Dictionary
from swapstore.format.keys import Keys, is_of_group
from swapstore.format.manifest import Manifest
from swapstore.models import Row

Values = Mapping[str, tuple[bytes, bool]]  # the value of each key, and whether it has a TTL

SIZE = 300  # bytes: a little more than what is worth a base


def strange(number: int, size: int = SIZE) -> bytes:
    """A payload that nothing makes smaller, and that is like no other."""
    return random.Random(number).randbytes(size)


def like(number: int, change: int, size: int = SIZE) -> bytes:
    """A payload that differs little from a strange one."""
    return strange(number, size)[4:] + b"%04d" % change


def problems_of(
    values: Values, keys: Keys, dataset: str, current: Manifest, rows: Iterable[Row]
) -> tuple[list[str], set[str]]:
    """What is wrong with the payloads of rows and the bases that they need, and the keys of these bases.

    The base in force counts as needed, as do the members of groups. `rows` are all that the manifest leads to.
    """
    problems: list[str] = []
    needed: set[str] = set()
    read: dict[str, Dictionary | None] = {}

    def base(name: str, member: str | None = None) -> Dictionary | None:
        key = keys.base(dataset, name) if member is None else keys.member_base(dataset, name, member)
        if key not in read:
            needed.add(key)
            read[key] = None
            try:
                read[key] = bases.parse(values[key][0], name, dataset=dataset, key=key, member=member)
            except (KeyError, Damaged) as error:
                problems.append(f"{key}: {error!r}")
        return read[key]

    def check_members(row: Row, table: bytes) -> None:
        for name, listed in members.parse_table(table, row.id).items():
            key = keys.member(dataset, row.id, name)
            needed.add(key)
            if key not in values:
                problems.append(f"{key} is not there")
                continue
            held_member = members.parse_member(values[key][0], key)
            if held_member.base not in {None, row.base}:
                problems.append(f"{key} needs {held_member.base}, and version {row.version} names {row.base}")
            content = held_member.payload(None if held_member.base is None else base(held_member.base, name))
            members.compare(listed, content, held_member, row.version)

    for row in rows:
        key = keys.id(dataset, row.id)
        if row.base is not None:
            base(row.base)
        try:
            held = records.held(values[key][0] if key in values else None, row, key)
            if held.base not in {None, row.base}:
                problems.append(f"{key} needs {held.base}, and version {row.version} names {row.base}")
            payload = held.payload(None if held.base is None else base(held.base))
            if row.is_group:
                check_members(row, payload)
        except Damaged as error:
            problems.append(f"{key} is not what version {row.version} names: {error}")
    if current.log.base is not None:
        in_force = base(current.log.base.name)
        if in_force is not None and is_of_group(in_force.name):
            needed.update(
                keys.member_base(dataset, in_force.name, name)
                for name in members.parse_table(in_force.content, in_force.name)
            )
    return problems, needed
