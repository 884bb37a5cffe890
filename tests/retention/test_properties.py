"""Random publishes, pins and prunes by clients with different retentions, compared with a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swapstore.format import manifest
from swapstore.testing import SimulatedStore
from tests.conftest import steps as runs_of
from tests.retention.model import Model, keeping

pytestmark = pytest.mark.slow

SECOND = 1000
COUNTS = st.sampled_from([None, None, 1, 2, 4, 7, 12])
AGES = st.sampled_from([None, None, 1, 5, 20, 60])
WHO = st.integers(0, 2)
REUSED = st.sampled_from([f"r{number}" for number in range(6)])
PUBLISH = st.tuples(
    st.just("publish"),
    WHO,
    st.none() | REUSED,
    st.sampled_from([b"x", b"yy"]),
    st.none() | st.integers(-40, 10),
)
STEPS = st.one_of(
    PUBLISH,
    PUBLISH,
    PUBLISH,
    st.tuples(st.just("pin_or_roll_back"), WHO, st.sampled_from(["pin", "rollback"]), st.integers(0, 50)),
    st.tuples(st.just("unpin_or_confirm"), WHO, st.sampled_from(["unpin", "confirm"])),
    st.tuples(st.just("prune"), WHO),
    st.tuples(st.just("clock"), st.integers(-10, 30)),
    st.tuples(st.just("read"), WHO),
)


@contextmanager
def pages_of(rows: int, references: int) -> Iterator[None]:
    """Small pages, so that a short run seals and opens them at several levels."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "F", rows)
        patch.setattr(manifest, "G", references)
        yield


def carry_out(model: Model, number: int, step: tuple[Any, ...]) -> None:
    model.sim.clock.advance(1)
    match step:
        case ("publish", who, id, payload, offset):
            ts = None if offset is None else model.sim.clock.ms + offset * SECOND
            model.publish(who, id or f"n{number}", payload, ts)
        case ("pin_or_roll_back", who, what, which):
            known = sorted(model.ids)
            model.pin_or_roll_back(who, what, known[which % len(known)] if known else "never")
        case ("unpin_or_confirm", who, what):
            model.unpin_or_confirm(who, what)
        case ("prune", who):
            model.prune(who)
        case ("clock", seconds):
            model.sim.clock.advance(seconds * SECOND)
        case ("read", who):
            model.check_reading(who)


@runs_of(200, 50)
@given(
    sizes=st.sampled_from([(1, 2), (2, 2), (2, 3), (3, 2)]),
    bounds=st.tuples(*[st.tuples(COUNTS, AGES)] * 3),
    steps=st.lists(STEPS, min_size=10, max_size=90),
)
def test_shown_kept_and_unlinked_rows_are_those_the_limits_say(
    sizes: tuple[int, int], bounds: tuple[tuple[int | None, int | None], ...], steps: list[tuple[Any, ...]]
) -> None:
    """History is lost that retention keeps, or shown that it hides, or records leak."""
    sim = SimulatedStore()
    first = sim.connect()
    clients = [
        keeping(first, count, None if age is None else timedelta(seconds=age)) for count, age in bounds
    ]
    with pages_of(*sizes):
        model = Model(sim, clients)
        for number, step in enumerate(steps):
            carry_out(model, number, step)
        for who in range(3):
            model.check_reading(who)
        model.check_the_end()
