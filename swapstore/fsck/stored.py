"""What is stored under many keys of a dataset: their values and TTLs.

Two commands ask about all keys at once, where the store carries them out. Else two commands ask about each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swapstore.commands import Command, Failed, Get, GetAll, Ttl, Ttls
from swapstore.errors import ReplyLost
from swapstore.protocol.load import ask_all, value_of
from swapstore.protocol.operation import Batch, Operation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from swapstore.protocol.context import Context

Stored = tuple[bytes | Failed | None, int]  # the reply to `Get`, and the TTL


def read_stored(ctx: Context, keys: Sequence[str]) -> Operation[list[Stored]]:
    """Read the value and the TTL of each key."""
    found = (yield from _read_together(ctx, keys)) if keys and ctx.capabilities.reads_many else None
    if found is None:
        return (yield from _read_singly(ctx, keys))
    empty = [i for i, (value, _) in enumerate(found) if value is None]
    again = yield from _read_singly(ctx, [keys[i] for i in empty])  # a value of another type is refused
    for i, stored in zip(empty, again, strict=True):
        found[i] = stored
    return found


def _read_singly(ctx: Context, keys: Sequence[str]) -> Operation[list[Stored]]:
    commands: list[Command[Any]] = [command(key) for key in keys for command in (Get, Ttl)]
    replies = yield from ask_all(ctx, commands)
    return [(value, value_of(ttl)) for value, ttl in zip(replies[::2], replies[1::2], strict=True)]


def _read_together(ctx: Context, keys: Sequence[str]) -> Operation[list[Stored] | None]:
    """Read all keys with two commands, sent once. None: the store refused one, or the replies were lost.

    Lost replies are not remembered: the network may have failed, or a proxy that does not know a command has
    closed the connection.
    """
    every = tuple(keys)
    try:
        values, ttls = yield Batch((GetAll(every), Ttls(every)))
    except ReplyLost:
        return None
    if isinstance(values, Failed) or isinstance(ttls, Failed):
        # Also while a slot of a cluster moves: each try would be waited for.
        ctx.capabilities.reads_many = False
        return None
    return list(zip(values, ttls, strict=True))
