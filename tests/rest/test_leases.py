"""The lease, step by step: how long it is trusted, and when it is removed."""

from __future__ import annotations

import pytest

from swapstore.cache import Cache
from swapstore.format.append import Stamp, append
from swapstore.format.keys import Keys
from swapstore.models import Entry
from swapstore.protocol.context import Context, Policy
from swapstore.protocol.operation import Batch
from swapstore.protocol.scriptless.lease import Lease, release, take
from swapstore.testing import VirtualClock

KEYS = Keys("x")
ENTRY = Entry(id="a", ts=1, size=1, sha256="0" * 64, codec="bytes", labels={})
STAMP = Stamp(now_ms=1, nonce="0" * 16, new_epoch="e" * 12, keys=KEYS)
DRAFT = append(None, ENTRY, dataset="mena", dedupe_key=None, stamp=STAMP)


def test_a_lease_is_trusted_from_when_it_was_asked_for() -> None:
    """A slow reply makes a writer trust its lease when another writer may have it already."""
    clock = VirtualClock()
    policy = Policy(lease_ttl_ms=90_000, lease_margin_ms=45_000)
    taking = take(Context(keys=KEYS, cache=Cache(0), clock=clock, policy=policy), DRAFT, [])
    asked_at = clock.monotonic()
    assert isinstance(next(taking), Batch)
    clock.advance(10_000)  # the reply is under way
    with pytest.raises(StopIteration) as ended:
        taking.send([True, DRAFT.manifest.etag.encode(), 90_000])
    assert ended.value.value[0].safe_until == asked_at + 45


def test_a_lease_that_may_have_ended_is_left_alone() -> None:
    """A slow writer removes the lease of the next one, and a third writes beside it."""
    clock = VirtualClock()
    context = Context(keys=KEYS, cache=Cache(0), clock=clock)
    held = Lease("key", b"token", clock.monotonic() + 45)
    assert isinstance(next(release(context, held)), Batch)
    clock.advance(45_000)
    assert list(release(context, held)) == []
