"""When a base is unlinked: with the last row that needs it, whatever retention and pins do in between."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import timedelta

import pytest

from swapstore import NotFound, Retention, Store, TooOld
from swapstore.format import manifest
from swapstore.protocol.context import Policy
from swapstore.testing import SimulatedStore
from tests.support import invariants
from tests.support.times import at

YOUNG = 1_000_000  # ms: within the bound of `hide_the_old`, which hides what is before 900 seconds


class Producer:
    """Publishes payloads of bytes with `compression="delta"`; `fresh` ones are unlike those before."""

    def __init__(self, seed: int = 1) -> None:
        self.random = random.Random(seed)
        self.sim = SimulatedStore(seed=seed, policy=Policy(compression="delta", max_ahead_ms=None))
        self.sim.clock.ms = YOUNG
        self.store: Store = self.sim.connect()
        self._number = 0
        self._payload = b""

    def publish(self, *, fresh: bool = False, old: bool = False, ts: int | None = None) -> str:
        """Publish a payload that differs from the last one in a few bytes, or in all of them."""
        self._number += 1
        name = f"id-{self._number}"
        kept = b"" if fresh else self._payload[:-8]
        self._payload = kept + self.random.randbytes(600 - len(kept))
        default = self._number + (YOUNG // 2 if old else YOUNG)
        self.store.publish("mena", self._payload, codec="bytes", id=name, ts=at(ts or default))
        return name

    def twice(self, *, old: bool = False) -> str:
        """Publish two payloads of a new kind. The second brings a base; return its id."""
        self.publish(fresh=True, old=old)
        return self.publish(old=old)

    def hide_the_old(self) -> None:
        """Let retention take apart the pages of old rows."""
        self.store.prune("mena", retention=Retention(max_age=timedelta(seconds=100)))

    def bases(self) -> set[int]:
        """The versions that brought the bases which are permanent."""
        keys = self.store._context.keys
        return {
            int(name.rest.partition(".")[0])
            for key, (_, expires) in invariants.contents(self.store).items()
            if (name := keys.parse(key)) is not None and name.kind == "base" and not expires
        }


@pytest.fixture
def many_small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of two rows. Retention can take out one of eight references before they are sealed."""
    monkeypatch.setattr(manifest, "F", 2)
    monkeypatch.setattr(manifest, "G", 8)


def sealed_across_a_gap(*, is_shared: bool) -> Producer:
    """A log whose oldest page of references leads over a page that retention has removed.

    A row of that page is pinned. `is_shared`: its base is also that of the page behind it.
    """
    producer = Producer()
    producer.publish()
    producer.publish()
    pinned = producer.twice(old=True)
    if is_shared:
        producer.publish()
        producer.publish()
    producer.twice()
    for _ in range(9):
        producer.publish()
    producer.store.pin("mena", id=pinned)
    producer.hide_the_old()
    for _ in range(12):
        producer.publish()
    first = invariants.manifest_of(producer.store).log.pages[0]
    assert first.count == 16
    assert first.bases is not None
    assert first.bases[0] < 4 < first.bases[1]
    invariants.check(producer.store)
    assert 4 in producer.bases()
    return producer


@pytest.mark.usefixtures("many_small_pages")
def test_unpinning_does_not_unlink_the_base_of_rows_in_a_page() -> None:
    """An unpin unlinks a base that committed snapshots need: they become unreadable."""
    producer = sealed_across_a_gap(is_shared=True)
    producer.store.unpin("mena")
    invariants.check(producer.store)
    assert 4 in producer.bases()


@pytest.mark.usefixtures("many_small_pages")
def test_unpinning_unlinks_a_base_that_no_row_needs() -> None:
    """A base stays permanently although no row needs it, because a page spans its version."""
    producer = sealed_across_a_gap(is_shared=False)
    producer.store.unpin("mena")
    invariants.check(producer.store)
    assert 4 not in producer.bases()


def steps(producer: Producer, ids: list[str]) -> list[Callable[[], object]]:
    """What may happen next, the frequent things more than once."""
    draw = producer.random

    def publish() -> None:
        behind = draw.randrange(1000, 60_000) if draw.random() < 0.3 else 0
        ids.append(producer.publish(fresh=draw.random() < 0.3, ts=producer.sim.clock.ms - behind))

    def prune() -> object:
        by_age = Retention(max_age=timedelta(seconds=draw.choice([20, 40])))
        bound = by_age if draw.random() < 0.7 else Retention(max_count=draw.randrange(3, 20))
        return producer.store.prune("mena", retention=bound)

    return [
        *[publish] * 14,
        *[prune] * 2,
        lambda: producer.store.pin("mena", id=draw.choice(ids)),
        lambda: producer.store.unpin("mena"),
        lambda: producer.store.rollback("mena", id=draw.choice(ids)),
    ]


@pytest.mark.usefixtures("many_small_pages")
@pytest.mark.parametrize("seed", range(6))
def test_bases_live_as_long_as_they_are_needed(seed: int) -> None:
    """In some order of publishes, pins and prunes, a base is unlinked too early, or never."""
    producer = Producer(seed)
    ids: list[str] = []
    steps(producer, ids)[0]()
    for _ in range(60):
        producer.sim.clock.advance(1000)
        try:
            producer.random.choice(steps(producer, ids))()
        except (NotFound, TooOld):
            continue  # retention hides it
        invariants.check(producer.store)
