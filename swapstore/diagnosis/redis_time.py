"""The clock of a Redis server against this machine's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from swapstore.commands import Ask
from swapstore.diagnosis.check import Check, Verdict
from swapstore.diagnosis.redis_info import moment
from swapstore.operations.steps import ask_all

if TYPE_CHECKING:
    from swapstore.operations.context import Context
    from swapstore.operations.operation import Operation

WARNING_MS = 1_000
PROBLEM_MS = 60_000


@attrs.frozen
class Clocks:
    """What the server's clock said, and this machine's before and after. In ms; None: not told."""

    before: int
    server: int | None
    after: int


def measure(ctx: Context) -> Operation[Clocks]:
    """Ask for the time, in a round trip of its own: what else is answered would blur it."""
    before = ctx.clock.now_ms()
    (reply,) = yield from ask_all(ctx, [Ask(("TIME",))])
    return Clocks(before, moment(reply), ctx.clock.now_ms())


def skew(clocks: Clocks) -> Check:
    """Compare them. The round trip is no skew: only what lies outside of it counts."""
    if clocks.server is None:
        return Check(
            "clock",
            Verdict.UNKNOWN,
            "the server does not tell its time",
            "See that this machine's clock is synchronised (NTP), or allow the user TIME (+time).",
        )
    ahead = max(clocks.before - clocks.server, 0) + min(clocks.after - clocks.server, 0)
    size = abs(ahead)
    if size < WARNING_MS:
        return Check("clock", Verdict.OK, "this machine and the server agree, within a second")
    return Check(
        "clock",
        Verdict.PROBLEM if size >= PROBLEM_MS else Verdict.WARNING,
        f"this machine is {size / 1000:,.1f} s {'ahead of' if ahead > 0 else 'behind'} the server",
        "Synchronise both with NTP. A publish without ts takes this machine's time, and retention by age "
        "counts with it.",
    )
