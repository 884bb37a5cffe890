"""Payloads that bring bases or are differences from one, and what a store must hold of its bases."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

from swapstore.errors import Damaged
from swapstore.format import bases, members, records
from swapstore.format.encodings import Dictionary
from swapstore.format.keys import Keys, group_name, is_of_group
from swapstore.format.manifest import Manifest
from swapstore.format.members import Listed
from swapstore.models import Row

Values = Mapping[str, tuple[bytes, bool]]  # the value of each key, and whether it has a TTL

SIZE = 300  # bytes: a little more than what is worth a base


def strange(number: int, size: int = SIZE) -> bytes:
    """A payload that nothing makes smaller, and that is like no other."""
    return random.Random(number).randbytes(size)


def like(number: int, change: int, size: int = SIZE) -> bytes:
    """A payload that differs little from a strange one."""
    return strange(number, size)[4:] + b"%04d" % change


class Problems:
    """Collects what is wrong with rows, and the keys that these need beside their id and ts records."""

    def __init__(self, values: Values, keys: Keys, dataset: str) -> None:
        self.found: list[str] = []
        self.needed: set[str] = set()
        self._values = values
        self._keys = keys
        self._dataset = dataset
        self._read: dict[str, Dictionary | None] = {}

    def base(self, name: str, member: str | None = None) -> Dictionary | None:
        """A base, or what a member is stored against."""
        of_group = self._keys.base(self._dataset, name)
        key = of_group if member is None else self._keys.member_base(self._dataset, name, member)
        if key not in self._read:
            self.needed.add(key)
            self._read[key] = None
            try:
                self._read[key] = bases.parse(
                    self._values[key][0], name, dataset=self._dataset, key=key, member=member
                )
            except (KeyError, Damaged) as error:
                self.found.append(f"{key}: {error!r}")
        return self._read[key]

    def check(self, row: Row) -> None:
        """Decode the payload of a row, and the members of a group."""
        key = self._keys.id(self._dataset, row.id)
        if row.base is not None:
            self.base(row.base)
        try:
            held = records.held(self._values[key][0] if key in self._values else None, row, key)
            self._check_base(key, held.base, row)
            payload = held.payload(None if held.base is None else self.base(held.base))
            if row.is_group:
                self._check_members(row, members.parse_table(payload, key))
        except Damaged as error:
            self.found.append(f"{key} is not what version {row.version} names: {error}")

    def _check_members(self, row: Row, table: Mapping[str, Listed]) -> None:
        for name, listed in table.items():
            key = self._keys.member(self._dataset, group_name(row.id, row.sha256), name)
            self.needed.add(key)
            if key not in self._values:
                self.found.append(f"{key} is not there")
                continue
            held = members.parse_member(self._values[key][0], key)
            self._check_base(key, held.base, row)
            content = held.payload(None if held.base is None else self.base(held.base, name))
            members.compare(listed, content, held, row.version)

    def _check_base(self, key: str, base: str | None, row: Row) -> None:
        if base not in {None, row.base}:
            self.found.append(f"{key} needs {base}, and version {row.version} names {row.base}")

    def need_all_of(self, name: str) -> None:
        """Need the base in force, and what its members are stored against."""
        base = self.base(name)
        if base is not None and is_of_group(name):
            self.needed |= {
                self._keys.member_base(self._dataset, name, member)
                for member in members.parse_table(base.content, name)
            }


def problems_of(
    values: Values, keys: Keys, dataset: str, current: Manifest, rows: Iterable[Row]
) -> tuple[list[str], set[str]]:
    """What is wrong with the payloads of rows, and with what else they need; and the keys of that.

    The base in force counts as needed. `rows` are all that the manifest leads to.
    """
    problems = Problems(values, keys, dataset)
    for row in rows:
        problems.check(row)
    if current.log.base is not None:
        problems.need_all_of(current.log.base.name)
    return problems.found, problems.needed
