"""The lease: one writer at a time, where the store itself cannot compare and set.

It is no lock that nobody can get past: a command that is delayed for longer than the lease lasts arrives
when the lease is another's. So a writer sends nothing that matters unless the lease holds for longer than
any request may take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from swapstore.commands import Get, Remove, Stage, Ttl
from swapstore.errors import Contended, SwapstoreError
from swapstore.protocol.load import value_of
from swapstore.protocol.operation import Batch, Operation, Wait

if TYPE_CHECKING:
    from swapstore.format.append import Draft
    from swapstore.protocol.context import Context


@attrs.frozen
class Lease:
    """A lease that is held. Until `safe_until` (monotonic seconds) what is sent arrives while it is."""

    key: str
    token: bytes
    safe_until: float


def take(ctx: Context, draft: Draft) -> Operation[Lease]:
    """Take the dataset's lease for one draft, or go on under it; `Contended` if another keeps it.

    What a crashed writer left runs out, so this waits as long as a lease lasts.
    """
    key, token = ctx.keys.lease(draft.manifest.head.dataset), draft.manifest.etag.encode()
    policy = ctx.policy
    for attempt in range(policy.lease_ttl_ms // policy.lease_poll_ms + 2):
        if attempt:
            yield Wait(policy.lease_poll_ms / 1000)
        asked_at = ctx.clock.monotonic()
        replies = yield Batch((Stage(key, token, policy.lease_ttl_ms), Get(key), Ttl(key)))
        _, holder, ttl_ms = map(value_of, replies)
        if holder == token and ttl_ms > policy.lease_margin_ms:
            return Lease(key, token, asked_at + (ttl_ms - policy.lease_margin_ms) / 1000)
    raise Contended(
        f"another writer has held the lease {key} for as long as one lasts; nothing was published. "
        "single_writer=True is for one writer at a time: let the others end, or try again"
    )


def release(ctx: Context, lease: Lease) -> Operation[None]:
    """Give a lease back, if it is sure to be still ours. Otherwise it runs out by itself."""
    if ctx.clock.monotonic() < lease.safe_until:
        try:
            yield Batch((Remove(lease.key),))
        except SwapstoreError:
            return
