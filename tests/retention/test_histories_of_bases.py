"""Bases live as long as a row needs them: random histories, and the histories that once broke the rule."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapstore import Retention, Store
from swapstore.cache import Cache
from swapstore.errors import IdConflict, NotFound, TooOld
from swapstore.format import manifest, pages
from swapstore.models import Ref, Row
from swapstore.testing import SimulatedStore
from tests.conftest import steps as runs_of
from tests.support import bases, invariants
from tests.support.times import at

SECOND = 1000


def client_of(
    store: Store, compression: Any, max_count: int | None = None, max_age: timedelta | None = None
) -> Store:
    """Another client, with a setting and a retention of its own."""
    context = store._context
    policy = msgspec.structs.replace(context.policy, compression=compression)
    retention = Retention(max_age=max_age, max_count=max_count)
    return Store(
        store._driver,
        msgspec.structs.replace(context, cache=Cache(1 << 20), policy=policy, retention=retention),
    )


@contextmanager
def pages_of(rows: int, references: int, recent: int = 1) -> Iterator[None]:
    """Small pages, nearly all of which can leave the log."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "F", rows)
        patch.setattr(manifest, "G", references)
        patch.setattr(manifest, "RECENT", recent)
        yield


def check(store: Store, dataset: str = "mena") -> list[Row]:
    """Assert that each payload can be decoded, and that exactly what is needed is permanent."""
    found, keys = invariants.contents(store), store._context.keys
    if keys.manifest(dataset) not in found:
        return []
    current = invariants.manifest_of(store, dataset)
    reachable = {keys.manifest(dataset)}

    def below(refs: tuple[Ref, ...]) -> Iterator[Row]:
        for ref in refs:
            reachable.add(ref.key)
            page = pages.parse(found[ref.key][0], ref, dataset)
            yield from below(page.pages)
            yield from page.rows

    rows = [*below(current.log.pages), *current.log.rows]
    alive = (*rows, *current.head.kept)
    problems, needed = bases.problems_of(found, keys, dataset, current, alive)
    assert problems == []
    reachable |= needed | {key for row in alive for key in keys.records(dataset, row)}
    permanent = {key for key, (_, expires) in found.items() if f"{{{dataset}}}" in key and not expires}
    assert permanent == reachable, (permanent - reachable, reachable - permanent)
    return rows


def permanent_bases(store: Store) -> set[int]:
    """The versions that brought the bases which have no TTL."""
    found = invariants.contents(store)
    return {
        int(key.rpartition(":")[2].partition(".")[0])
        for key, (_, expires) in found.items()
        if ":base:" in key and not expires
    }


# --- random histories ------------------------------------------------------------------------------

KEPT = [(None, None), (None, None), (1, None), (4, None), (12, None), (None, 20), (None, 60), (6, 40)]
SETTINGS = ("delta", "delta", "delta", "zstd", "none")


@attrs.define
class History:
    """A random history by producers with different settings, on pages of a random size."""

    random: random.Random
    sim: SimulatedStore = attrs.field(factory=SimulatedStore)
    ids: list[str] = attrs.field(factory=list)
    kind: int = 0  # what payloads are like now
    clients: list[Store] = attrs.field(factory=list)

    def __attrs_post_init__(self) -> None:
        first = self.sim.connect()
        for setting in SETTINGS:
            count, age = self.random.choice(KEPT)
            self.clients.append(
                client_of(first, setting, count, None if age is None else timedelta(seconds=age))
            )

    def step(self) -> None:
        self.sim.clock.advance(self.random.choice([1, 1, 1, 10 * SECOND]))
        pick = self.random.random()
        client = self.random.choice(self.clients)
        if pick < 0.7 or not self.ids:
            self.publish(client)
        elif pick < 0.8:
            client.prune("mena", retention=Retention(max_count=self.random.choice([1, 3, 6, 20])))
        elif pick < 0.93:
            what = self.random.choice(["pin", "pin", "rollback"])
            getattr(client, what)("mena", id=self.random.choice(self.ids[-12:]))
        else:
            client.unpin("mena")

    def publish(self, client: Store) -> None:
        new = self.random.random() < 0.2
        self.kind += new
        change = self.random.randrange(1000)
        payload = bases.strange(self.kind) if new else bases.like(self.kind, change)
        again = self.ids and self.random.random() < 0.1
        id = self.random.choice(self.ids) if again else f"n{len(self.ids)}"  # noqa: A001
        ts = self.sim.clock.ms - self.random.randrange(60 * SECOND) if self.random.random() < 0.3 else None
        if not again:
            self.ids.append(id)
        client.publish("mena", payload, id=id, ts=at(ts), codec="bytes")


@pytest.mark.slow
@runs_of(40, 50)
@given(seed=st.integers(0, 2**32))
def test_bases_live_as_long_as_they_are_needed(seed: int) -> None:
    """A snapshot cannot be read because its base was unlinked, or bases stay that nothing needs."""
    history = History(random.Random(seed))
    with pages_of(*history.random.choice([(1, 2), (2, 2), (2, 3), (1, 4)])):
        for _ in range(90):
            with suppress(TooOld, IdConflict, NotFound):
                history.step()
            check(history.clients[0])


# --- named histories ---------------------------------------------------------------------------------


def test_a_base_outlives_a_row_that_was_pinned_outside_the_log() -> None:
    """When a snapshot outside the log is unpinned, others that need its base cannot be read any more."""
    sim = SimulatedStore()
    store = client_of(sim.connect(), "delta")
    with pages_of(1, 5):
        publish_strange(store, 0, 1, 2)  # the first and the third bring a base
        store.publish("mena", bases.like(2, 0), id="old", ts=at(sim.clock.ms - 10**6), codec="bytes")
        publish_strange(store, 3)
        store.pin("mena", id="old")
        store.prune("mena", retention=Retention(max_age=timedelta(seconds=100)))
        publish_strange(store, 4, 5, 6)
        base = 3
        (around, *_) = invariants.manifest_of(store).log.pages
        assert around.bases is not None
        assert around.bases[0] < base < around.bases[1], "its neighbours are below one reference"
        store.unpin("mena")
        check(store)
        assert base in permanent_bases(store)
        store.prune("mena", retention=Retention(max_count=1))
        check(store)
        assert base not in permanent_bases(store)


def test_a_base_leaves_with_a_row_that_was_pinned_outside_the_log() -> None:
    """The base of a snapshot outside the log stays permanently when that is unpinned."""
    sim = SimulatedStore()
    store = client_of(sim.connect(), "delta")
    with pages_of(1, 5):
        publish_strange(store, 0, 1)
        store.publish("mena", bases.strange(2), id="old", ts=at(sim.clock.ms - 10**6), codec="bytes")
        publish_strange(store, 3)
        store.pin("mena", id="old")
        store.prune("mena", retention=Retention(max_age=timedelta(seconds=100)))
        publish_strange(store, 4, 5, 6, 7)
        assert 3 in permanent_bases(store)
        store.unpin("mena")
        check(store)
        assert 3 not in permanent_bases(store)


def publish_strange(store: Store, *numbers: int) -> None:
    """Publish payloads like no other; every second one of them brings a base."""
    for number in numbers:
        store.publish("mena", bases.strange(number), codec="bytes")
        check(store)
