"""Clients that publish and read at random, from a seed, and record what they observed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

import attrs
import msgspec

from swapstore import Store
from swapstore.errors import OutcomeUnknown, Unavailable
from tests.linearizability.events import Event

DATASET = "mena"
ATTEMPTS = 3  # how often a publish whose outcome is unknown is made in all


@attrs.frozen(kw_only=True)
class Plan:
    """What one client does. `share` of its calls are publishes; the rest are reads.

    An impatient client gives up after the first lost reply, and so often gets `OutcomeUnknown`.
    """

    client: str
    seed: int
    calls: int = 50
    share: float = 0.5
    impatient: bool = False


def run(store: Store, plan: Plan, *, max_staleness: float = 0.0) -> list[Event]:
    """Carry out a plan; return what was observed, in order.

    A client continues after `Unavailable`; any other error ends the run.
    """
    if plan.impatient:
        store = impatient(store)
    rng = random.Random(plan.seed)
    events: list[Event] = []
    number = 0
    while len(events) < plan.calls:
        if rng.random() >= plan.share:
            events.append(_read(store, plan.client, max_staleness))
            continue
        number += 1
        for _ in range(ATTEMPTS):
            events.append(publish(store, plan.client, number))
            if events[-1].outcome != "unknown" or rng.random() < 0.4:
                break
    return events


def publish(store: Store, client: str, number: int) -> Event:
    """Publish a value that names its client; the same client and number make the same snapshot."""
    identifier, value = f"{client}-{number}", {"by": client, "n": number}
    note = _begin(client=client, kind="publish", id=identifier, value=value)
    try:
        commit = store.publish(DATASET, value, id=identifier)
    except OutcomeUnknown as error:
        return note(outcome="unknown", error=repr(error))
    except Unavailable as error:
        return note(outcome="failed", error=repr(error))
    return note(version=commit.version, etag=commit.etag, created=commit.created)


def _read(store: Store, client: str, max_staleness: float) -> Event:
    note = _begin(client=client, kind="read")
    try:
        found = store.read_latest(DATASET, max_staleness=max_staleness)
    except Unavailable as error:
        return note(outcome="failed", error=repr(error))
    if found is None:
        return note()
    return note(id=found.id, value=found.value, version=found.version, etag=found.etag)


def _begin(**known: Any) -> Callable[..., Event]:
    start = time.monotonic_ns()
    return lambda **learned: Event(**known, **learned, start=start, end=time.monotonic_ns())


def impatient(store: Store) -> Store:
    """Return the same store with limits that make it give up early."""
    policy = msgspec.structs.replace(store._context.policy, lost_attempts=1, read_attempts=2)
    return Store(store._driver, msgspec.structs.replace(store._context, policy=policy))
