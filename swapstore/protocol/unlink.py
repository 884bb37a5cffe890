"""Unlink groups: find the records of the members that leave with a group, and with a base of groups."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from swapstore.commands import Get
from swapstore.errors import Damaged
from swapstore.format import members
from swapstore.format.keys import group_name, is_of_group
from swapstore.protocol.load import ask_all, load_base, payload_in, value_of
from swapstore.protocol.operation import Operation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from swapstore.format.append import Draft
    from swapstore.format.members import Listed
    from swapstore.models import Row
    from swapstore.protocol.context import Context


def unlinks_members(ctx: Context, draft: Draft) -> bool:
    """Say whether members leave with what a draft unlinks."""
    return bool(draft.groups) or bool(_bases_in(ctx, draft))


def with_members(ctx: Context, draft: Draft) -> Operation[Draft]:
    """Return a draft that unlinks the records of members, too.

    Their names are in the table of their group, and in that of the base. If a table is lost, its members
    stay, and verify finds them. They come first: where no script runs, keys get their TTLs one by one, and
    nobody publishes an id again whose id record has none yet.
    """
    dataset = draft.manifest.head.dataset
    found: list[str] = []
    freed_bytes = draft.freed_bytes
    for row in draft.groups:
        listed = yield from _listed(ctx, dataset, row)
        found += _keys_of(ctx, dataset, row, listed)
        freed_bytes += sum(each.size for each in listed.values())
    for base in _bases_in(ctx, draft):
        found += yield from members_of_base(ctx, dataset, base)
    unlinked = tuple(dict.fromkeys((*found, *draft.unlinked)))
    return msgspec.structs.replace(draft, unlinked=unlinked, groups=(), freed_bytes=freed_bytes)


def members_of(ctx: Context, dataset: str, row: Row) -> Operation[list[str]]:
    """Return the keys of a group's members. None: it is no group, or its table is lost."""
    if not row.is_group:
        return []
    return _keys_of(ctx, dataset, row, (yield from _listed(ctx, dataset, row)))


def members_of_base(ctx: Context, dataset: str, name: str) -> Operation[list[str]]:
    """Return the keys of the members' records of a base. None: it is none of groups, or its table is lost."""
    if not is_of_group(name):
        return []
    key = ctx.keys.base(dataset, name)
    try:
        base = yield from load_base(ctx, dataset, name)
        listed = members.parse_table(base.content, key)
    except Damaged:
        return []
    return [ctx.keys.member_base(dataset, name, member) for member in listed]


def size_of(ctx: Context, dataset: str, row: Row) -> Operation[int]:
    """Return the size of a row's payload, with those of its members. Without them if its table is lost."""
    if not row.is_group:
        return row.size
    listed = yield from _listed(ctx, dataset, row)
    return row.size + sum(each.size for each in listed.values())


def _keys_of(ctx: Context, dataset: str, row: Row, listed: Iterable[str]) -> list[str]:
    group = group_name(row.id, row.sha256)
    return [ctx.keys.member(dataset, group, name) for name in listed]


def _bases_in(ctx: Context, draft: Draft) -> list[str]:
    names = [ctx.keys.parse(key) for key in draft.unlinked if is_of_group(key)]
    return [
        name.rest
        for name in names
        if name is not None and name.kind == "base" and is_of_group(name.rest) and not name.member
    ]


def _listed(ctx: Context, dataset: str, row: Row) -> Operation[dict[str, Listed]]:
    key = ctx.keys.id(dataset, row.id)
    payload = ctx.cache.record(key, row.sha256)
    try:
        if payload is None:
            (reply,) = yield from ask_all(ctx, [Get(key)])
            payload = yield from payload_in(ctx, dataset, row, value_of(reply))
        return members.parse_table(payload, key)
    except Damaged:
        return {}
