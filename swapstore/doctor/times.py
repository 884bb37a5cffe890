"""Times in the future, asked of each kind of store: a clock was wrong, or a `ts` was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.commands import Failed, Members, Peek
from swapstore.doctor.check import Check, Verdict
from swapstore.errors import SwapstoreError
from swapstore.format import manifest
from swapstore.protocol.load import ask, ask_all

if TYPE_CHECKING:
    from swapstore.format.manifest import Head
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation

AHEAD_MS = 60_000  # a clock that is kept by NTP is wrong by less
HEADER_BYTES = 8_192
MOST_LOOKED_AT = 500
MOST_NAMED = 5


def diagnose(ctx: Context) -> Operation[list[Check]]:
    """Check whether a latest, or its last confirmation, is in the future by this machine's clock."""
    try:
        names = sorted((yield from ask(ctx, Members(ctx.keys.datasets()))))[:MOST_LOOKED_AT]
        heads = yield from _heads(ctx, names)
    except SwapstoreError:
        return []  # the other checks say that the store cannot be read
    ahead = [head.dataset for head in heads if _is_ahead(ctx, head)]
    if not ahead:
        return [Check("times", Verdict.OK, f"no dataset is dated in the future ({len(heads)} looked at)")]
    more = f" and {len(ahead) - MOST_NAMED} more" if len(ahead) > MOST_NAMED else ""
    return [
        Check(
            "times",
            Verdict.WARNING,
            f"dated in the future, by this machine's clock: {', '.join(ahead[:MOST_NAMED])}{more}",
            "A clock was wrong, or a ts was. Set the clocks (NTP), and look at `swapstore status`. A latest "
            "from the future keeps its place until then, whatever is published with an earlier ts: roll back "
            "to the snapshot before it, and publish again.",
        )
    ]


def _is_ahead(ctx: Context, head: Head) -> bool:
    """Say whether a `ts` is further ahead than a publish may be, or a clock was when it confirmed."""
    now, bound = ctx.clock.now_ms(), ctx.policy.max_ahead_ms
    return head.confirmed_at > now + AHEAD_MS or (bound is not None and head.latest.ts > now + bound)


def _heads(ctx: Context, names: list[str]) -> Operation[list[Head]]:
    """Return the headers that can be read. A damaged one is for `verify` to name."""
    keys = [ctx.keys.manifest(name) for name in names]
    replies = yield from ask_all(ctx, [Peek(key, HEADER_BYTES) for key in keys])
    heads = []
    for name, key, reply in zip(names, keys, replies, strict=True):
        if isinstance(reply, Failed) or not reply:
            continue
        try:
            found = manifest.parse_head(reply, name, key, whole=False)
        except SwapstoreError:
            continue
        heads += [] if found is None else [found.head]
    return heads
