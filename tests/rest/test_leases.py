"""The lease, step by step: how long it is trusted, and when it is removed."""

from __future__ import annotations

import pytest

from swapstore.cache import Cache
from swapstore.errors import Contended, Unavailable
from swapstore.format.append import Stamp, append
from swapstore.format.keys import Keys
from swapstore.models import Entry
from swapstore.protocol.context import Context, Policy
from swapstore.protocol.operation import Batch, Wait
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


def test_what_is_left_of_a_lease_is_not_used() -> None:
    """A publish that takes up its own old lease fails, although the next lease would do."""
    clock = VirtualClock()
    policy = Policy(lease_ttl_ms=90_000, lease_margin_ms=45_000)
    taking = take(Context(keys=KEYS, cache=Cache(0), clock=clock, policy=policy), DRAFT, [])
    token = DRAFT.manifest.etag.encode()
    assert isinstance(next(taking), Batch)
    assert isinstance(taking.send([False, token, 45_000]), Wait)
    assert isinstance(taking.send([]), Batch)
    with pytest.raises(StopIteration) as ended:
        taking.send([True, token, 90_000])
    assert ended.value.value[0].safe_until == clock.monotonic() + 45


def test_a_call_without_time_left_says_who_is_in_the_way() -> None:
    """A publish that waits for another writer's lease is told that the store cannot be reached."""
    taking = take(Context(keys=KEYS, cache=Cache(0), clock=VirtualClock()), DRAFT, [])
    assert isinstance(next(taking), Batch)
    assert isinstance(taking.send([False, b"another's", 80_000]), Wait)
    with pytest.raises(Contended, match="another writer has held the lease .* nothing was published"):
        taking.throw(Unavailable("no time is left"))
