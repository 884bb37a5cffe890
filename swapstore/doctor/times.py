"""Times in the future, asked of each kind of store: a clock was wrong, or a `ts` was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.commands import Members
from swapstore.doctor.check import Check, Verdict
from swapstore.errors import SwapstoreError
from swapstore.models import Status
from swapstore.protocol.batching import batched
from swapstore.protocol.datasets import status
from swapstore.protocol.load import ask

if TYPE_CHECKING:
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation

AHEAD_MS = 60_000  # a clock that is kept by NTP is wrong by less
MOST_LOOKED_AT = 500
MOST_NAMED = 5


def diagnose(ctx: Context) -> Operation[list[Check]]:
    """Check whether a latest, or its last confirmation, is in the future by this machine's clock."""
    try:
        names = sorted((yield from ask(ctx, Members(ctx.keys.datasets()))))[:MOST_LOOKED_AT]
        found = yield from batched(ctx, {name: status(ctx, name) for name in names})
    except SwapstoreError:
        return []  # the other checks say that the store cannot be read
    read = [each for each in found.values() if isinstance(each, Status)]  # `verify` names the others
    ahead = [each.dataset for each in read if _is_ahead(ctx, each)]
    if not ahead:
        return [Check("times", Verdict.OK, f"no dataset is dated in the future ({len(read)} looked at)")]
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


def _is_ahead(ctx: Context, one: Status) -> bool:
    """Say whether a `ts` is further ahead than a publish may be, or a clock was when it confirmed."""
    bound = ctx.policy.max_ahead_ms
    is_ahead = bound is not None and one.latest.ts > one.read_at + bound
    return is_ahead or one.confirmed_age_ms < -AHEAD_MS
