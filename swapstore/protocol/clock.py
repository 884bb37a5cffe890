"""The clock of a producer, compared with that of the store when it seems to be far ahead.

A clock that is a year ahead would date a snapshot a year ahead, and retention by age would hide the whole
history at once. Such a clock says that the last commit was long ago. So does a right one, if nobody has
published for long. The store's own clock tells the two apart, and is asked only then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.commands import Failed, Time
from swapstore.errors import InvalidInput
from swapstore.protocol.load import ask_all

if TYPE_CHECKING:
    from swapstore.format.manifest import Manifest
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Operation

DAY_MS = 86_400_000


def retention_time(ctx: Context, base: Manifest, now_ms: int) -> Operation[int]:
    """Return the time from which the ages of snapshots are counted: `now_ms`, if it can be trusted.

    If this machine's clock is further beyond the last commit than `max_ahead`, the store's clock is asked.
    Raises `InvalidInput` if it shows that this machine's is ahead. A store that has no clock, or does not
    tell, cannot show it: then the time is that of the last commit and `max_ahead`, so that a wrong clock
    hides little.
    """
    bound = ctx.policy.max_ahead_ms
    if bound is None or not ctx.is_long_after(base, now_ms):
        return now_ms
    (theirs,) = yield from ask_all(ctx, [Time()])
    if theirs is None or isinstance(theirs, Failed):
        return base.log.rows[-1].committed_at + bound
    if now_ms > theirs + bound:
        raise InvalidInput(
            f"this machine's clock is {(now_ms - theirs) // DAY_MS} days ahead of the store's; nothing was "
            "changed, because the snapshot would be dated in the future, and retention by age would hide "
            "snapshots too early. Set the clock (NTP), or connect with a larger max_ahead"
        )
    return now_ms
