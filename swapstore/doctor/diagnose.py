"""Which diagnosis is for which kind of store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.doctor import redis, rest, sqlite
from swapstore.doctor.check import Check, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation

_OF_KIND: dict[str, Callable[[Context], Operation[list[Check]]]] = {
    "redis": redis.diagnose,
    "sqlite": sqlite.diagnose,
    "upstash": rest.diagnose,
}


def diagnose(ctx: Context, kind: str) -> Operation[list[Check]]:
    """Check a store of this kind (`Driver.kind`)."""
    if kind in _OF_KIND:
        return (yield from _OF_KIND[kind](ctx))
    return [
        Check(
            "store",
            Verdict.UNKNOWN,
            f"a store of the kind {kind!r}, for which swapstore has no questions",
            "Ask whoever runs it whether it keeps what it acknowledged.",
        )
    ]
