"""The lease: one writer at a time, where the store itself cannot compare and set.

A lease does not exclude every late command: one that is delayed for longer than the lease lasts arrives when
another writer has the lease. So a writer sends a command that changes data only while its lease holds for
longer than any request may take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.commands import Command, Get, Remove, Stage, Ttl
from swapstore.errors import Contended, SwapstoreError, Unavailable
from swapstore.protocol.load import value_of
from swapstore.protocol.operation import Batch, Operation, Wait
from swapstore.protocol.scriptless.resend import sent_again
from swapstore.structs import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from swapstore.format.append import Draft
    from swapstore.protocol.context import Context


class Lease(Struct, frozen=True):
    """A lease that this client holds. Commands sent before `safe_until` (monotonic seconds) are in time."""

    key: str
    token: bytes
    safe_until: float


def take(ctx: Context, draft: Draft, looks: Sequence[Command[Any]]) -> Operation[tuple[Lease, list[Any]]]:
    """Take the dataset's lease for one draft, or continue under it. Raises `Contended` if another keeps it.

    Returns it, and the replies to `looks`, which are asked in the same request, after it was taken. The lease
    of a crashed writer expires, so this waits as long as a lease lasts.
    """
    key, token = ctx.keys.lease(draft.manifest.head.dataset), draft.manifest.etag.encode()
    policy = ctx.policy
    for attempt in range(policy.lease_ttl_ms // policy.lease_poll_ms + 2):
        if attempt:
            try:
                yield Wait(policy.lease_poll_ms / 1000)
            except Unavailable as error:  # no time is left for this call
                raise _held(key, f"for as long as a call may wait ({error.args[0]})") from error
        asked_at = ctx.clock.monotonic()
        taking: tuple[Command[Any], ...] = (
            Stage(key, token, policy.lease_ttl_ms),
            Get(key),
            Ttl(key),
            *looks,
        )
        _, holder, ttl_ms, *looked = map(value_of, (yield from sent_again(ctx, Batch(taking))))
        if holder == token and ttl_ms > policy.lease_margin_ms:
            return Lease(key, token, asked_at + (ttl_ms - policy.lease_margin_ms) / 1000), looked
    raise _held(key, "for as long as one lasts")


def _held(key: str, how_long: str) -> Contended:
    return Contended(
        f"another writer has held the lease {key} {how_long}; nothing was published. single_writer=True is "
        "for one writer at a time: stop the others, or try again"
    )


def release(ctx: Context, lease: Lease) -> Operation[None]:
    """Remove a lease if it is certainly still ours. Otherwise it expires by itself."""
    if ctx.clock.monotonic() < lease.safe_until:
        try:
            yield Batch((Remove(lease.key),))
        except SwapstoreError:
            return
