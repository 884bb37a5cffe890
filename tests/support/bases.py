"""Payloads that bring bases or are differences from one, and what a store must hold of its bases."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping

from swapstore.errors import Damaged
from swapstore.format import bases, records
from swapstore.format.encodings import Dictionary
from swapstore.format.keys import Keys
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

    The base in force counts as needed. `rows` are all that the manifest leads to.
    """
    problems: list[str] = []
    needed: set[str] = set()
    read: dict[str, Dictionary | None] = {}

    def base(name: str) -> Dictionary | None:
        key = keys.base(dataset, name)
        if key not in read:
            needed.add(key)
            read[key] = None
            try:
                read[key] = bases.parse(values[key][0], name, dataset=dataset, key=key)
            except (KeyError, Damaged) as error:
                problems.append(f"{key}: {error!r}")
        return read[key]

    for row in rows:
        key = keys.id(dataset, row.id)
        if row.base is not None:
            base(row.base)
        try:
            held = records.held(values[key][0] if key in values else None, row, key)
            if held.base not in {None, row.base}:
                problems.append(f"{key} needs {held.base}, and version {row.version} names {row.base}")
            held.payload(None if held.base is None else base(held.base))
        except Damaged as error:
            problems.append(f"{key} is not what version {row.version} names: {error}")
    if current.log.base is not None:
        base(current.log.base.name)
    return problems, needed
