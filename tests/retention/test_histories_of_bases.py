"""Bases live as long as a row needs them: random histories, and the histories that once broke the rule."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import attrs
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
    policy = attrs.evolve(context.policy, compression=compression)
    retention = Retention(max_age=max_age, max_count=max_count)
    return Store(
        store._driver, attrs.evolve(context, cache=Cache(1 << 20), policy=policy, retention=retention)
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

WHO = st.integers(0, 3)
PAYLOADS = st.one_of(
    st.tuples(st.just("like"), st.integers(0, 2), st.integers(0, 9)),
    st.tuples(st.just("strange"), st.integers(0, 10**6)),
    st.just(("short",)),
)
PUBLISH = st.tuples(
    st.just("publish"),
    WHO,
    st.none() | st.sampled_from([f"r{number}" for number in range(4)]),
    PAYLOADS,
    st.none() | st.none() | st.integers(-40, 10),
)
STEPS = st.one_of(
    *[PUBLISH] * 6,
    st.tuples(st.just("serve"), WHO, st.sampled_from(["pin", "rollback"]), st.integers(0, 50)),
    st.tuples(st.just("unpin"), WHO),
    st.tuples(st.just("prune"), st.sampled_from([1, 2, 4, 9])),
    st.tuples(st.just("clock"), st.integers(0, 30)),
)
AGES = st.sampled_from([None, None, 5, 20, 60])
COUNTS = st.sampled_from([None, None, 1, 3, 8])


def payload_of(what: tuple[Any, ...]) -> bytes:
    match what:
        case ("like", number, change):
            return bases.like(number, change)
        case ("strange", number):
            return bases.strange(1000 + number)
    return b"short"


def carry_out(sim: SimulatedStore, clients: list[Store], ids: list[str], step: tuple[Any, ...]) -> None:
    sim.clock.advance(1)
    try:
        match step:
            case ("publish", who, id, payload, offset):
                ts = None if offset is None else at(sim.clock.ms + offset * SECOND)
                id = id or f"n{len(ids)}"  # noqa: A001
                ids.append(id)
                clients[who].publish("mena", payload_of(payload), id=id, ts=ts, codec="bytes")
            case ("serve", who, what, which) if ids:
                getattr(clients[who], what)("mena", id=ids[-1 - which % len(ids)])
            case ("unpin", who):
                clients[who].unpin("mena")
            case ("prune", count):
                clients[0].prune("mena", retention=Retention(max_count=count))
            case ("clock", seconds):
                sim.clock.advance(seconds * SECOND)
    except (TooOld, IdConflict, NotFound):
        return


@pytest.mark.slow
@runs_of(150, 50)
@given(
    sizes=st.sampled_from([(1, 2), (2, 2), (2, 3)]),
    kept=st.tuples(*[st.tuples(COUNTS, AGES)] * 4),
    steps=st.lists(STEPS, min_size=20, max_size=80),
)
def test_bases_live_as_long_as_they_are_needed(
    sizes: tuple[int, int], kept: tuple[tuple[int | None, int | None], ...], steps: list[tuple[Any, ...]]
) -> None:
    """A snapshot cannot be read because its base was unlinked, or bases stay that nothing needs."""
    sim = SimulatedStore()
    first = sim.connect()
    clients = [
        client_of(first, compression, count, None if age is None else timedelta(seconds=age))
        for compression, (count, age) in zip(("delta", "delta", "zstd", "none"), kept, strict=True)
    ]
    ids: list[str] = []
    with pages_of(*sizes):
        for step in steps:
            carry_out(sim, clients, ids, step)
            check(first)


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
