"""A full store: a producer whose retention keeps the store at its size goes on, whatever it keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import msgspec
import pytest

import swapstore
from swapstore import Retention, Store
from swapstore.cache import Cache
from swapstore.commands import Command, Failed, ReadCommand, Swap
from swapstore.errors import StoreFull
from swapstore.format import manifest
from swapstore.testing.simulated import SimulatedDriver, SimulatedStore

MINUTE_MS = 60_000


class FullDriver(SimulatedDriver):
    """Refuses what needs memory once it is full, unless the swap makes up for it."""

    is_full = False
    after_refusal: Callable[[], object] | None = None  # called once

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        fits = any(isinstance(each, Swap) and each.even_if_full for each in commands)
        if not self.is_full or fits or all(isinstance(each, ReadCommand) for each in commands):
            return super().execute(commands)
        if self.after_refusal is not None:
            called, self.after_refusal = self.after_refusal, None
            called()
        return [
            super(FullDriver, self).execute([each])[0]
            if isinstance(each, ReadCommand)
            else Failed(StoreFull("full"))
            for each in commands
        ]


class Producer:
    """Publishes once a minute. With `gaps`, other swaps come in between, so versions are not dense."""

    def __init__(self, retention: Retention | None = None, *, gaps: bool = False) -> None:
        self._simulated = SimulatedStore()
        self._context = self._simulated.connect()._context
        self._gaps = gaps
        self._number = 0
        self.driver = FullDriver(self._simulated.keyspace, self._simulated.clock)
        self.keep(retention or Retention())

    def forget(self, retention: Retention) -> None:
        """Go on as another process, which has no page in its cache."""
        self._context = self._simulated.connect()._context
        self.keep(retention)

    def keep(self, retention: Retention) -> None:
        self.store: Store = swapstore.Store(
            self.driver, msgspec.structs.replace(self._context, retention=retention)
        )

    def publish(
        self, times: int, *, size: int = 100, every_ms: int = MINUTE_MS, of_group: bool = False
    ) -> int:
        """Publish so often. Return how many snapshots there were at most, hidden ones included.

        `of_group`: groups of two members of this size.
        """
        most = 0
        for _ in range(times):
            self._simulated.clock.advance(every_ms)
            self._number += 1
            if self._gaps and self._number % 3 == 1:
                self.store.confirm("mena") if self._number > 1 else None
            if of_group:
                members = {"EG": "x" * size, "SG": "y" * size}
                self.store.publish_group("mena", members, id=f"id-{self._number}")
            else:
                self.store.publish("mena", "x" * size, id=f"id-{self._number}")
            status = self.store.status("mena")
            assert status is not None
            most = max(most, status.count)
        return most


@pytest.mark.parametrize(("ahead", "gaps"), [(0, False), (2, True)])
@pytest.mark.parametrize("max_count", [1, 17, 36, 60])
@pytest.mark.usefixtures("small_pages")
def test_a_producer_that_keeps_so_many_goes_on(max_count: int, ahead: int, gaps: bool) -> None:  # noqa: FBT001
    """A store whose retention keeps it as large as it is stops for ever once it is full."""
    producer = Producer(Retention(max_count=max_count), gaps=gaps)
    kept = max(max_count, manifest.recent())
    producer.publish(kept + ahead)
    producer.driver.is_full = True
    assert producer.publish(25) <= kept + manifest.F + 1, "the store grows without end"
    assert len(list(producer.store.history("mena", limit=None))) >= max_count
    assert not [finding for finding in producer.store.verify() if finding.wrong]


@pytest.mark.parametrize("minutes", [3, 40, 64])
def test_a_producer_that_keeps_so_long_goes_on(minutes: int) -> None:
    """With `max_age`, seven of eight publishes are refused."""
    producer = Producer(Retention(max_age=timedelta(minutes=minutes)))
    kept = max(minutes + 1, manifest.recent())
    producer.publish(kept + 3)
    producer.driver.is_full = True
    assert producer.publish(40) <= kept + manifest.F + 1


def test_a_producer_that_publishes_more_often_is_refused() -> None:
    """What a long age keeps is more with each publish, and a limit that an operator has set is passed."""
    producer = Producer(Retention(max_age=timedelta(minutes=60)))
    producer.publish(70)
    producer.driver.is_full = True
    producer.publish(20)
    with pytest.raises(StoreFull):
        producer.publish(manifest.F + 1, every_ms=1000)
    with pytest.raises(StoreFull):
        producer.publish(1, every_ms=1000)
    producer.publish(20, every_ms=2 * MINUTE_MS)


def test_a_page_that_another_producer_unlinks_meanwhile() -> None:
    """A producer is refused because the page that it looks at is gone: another has just made room."""
    producer = Producer(Retention(max_count=3))
    producer.publish(manifest.recent() + manifest.F - 1)
    producer.driver.is_full = True
    producer.driver.after_refusal = partial(producer.publish, 2)
    slow = swapstore.Store(
        producer.driver, msgspec.structs.replace(producer.store._context, cache=Cache(1 << 20))
    )
    assert slow.publish("mena", "x" * 100, id="slow").version == manifest.recent() + manifest.F + 2


@pytest.mark.usefixtures("small_pages")
def test_less_is_kept_than_before() -> None:
    """What a tighter limit hides lies below pages of references. To open one frees nothing at once."""
    producer = Producer()
    producer.publish(150)
    producer.keep(Retention(max_count=30))
    producer.driver.is_full = True
    assert producer.publish(100) <= 155
    status = producer.store.status("mena")
    assert status is not None
    assert status.count <= 30 + manifest.F + 1


@pytest.mark.parametrize("retention", [None, Retention(max_count=100), Retention(max_age=timedelta(days=1))])
def test_a_dataset_that_still_grows_is_refused(retention: Retention | None) -> None:
    """A limit that an operator has set is passed, because retention will let go of something some day."""
    producer = Producer(retention)
    producer.publish(60)
    producer.driver.is_full = True
    with pytest.raises(StoreFull):
        producer.publish(1)


def test_sizes_that_vary_are_taken_and_growth_is_not() -> None:
    """No two payloads have the same size, and each that is larger than the one before it is refused."""
    producer = Producer(Retention(max_count=3))
    producer.publish(40)
    producer.driver.is_full = True
    for size in [100, 130, 70, 110, 95] * 8:
        producer.publish(1, size=size)
    with pytest.raises(StoreFull):
        producer.publish(1, size=1000)
    producer.publish(20)


def test_groups_are_counted_with_their_members() -> None:
    """Groups pass a limit that an operator has set as their members grow: their tables keep their size."""
    producer = Producer(Retention(max_count=3))
    producer.publish(40, of_group=True)
    producer.driver.is_full = True
    for size in [100, 130, 70, 110, 95] * 8:
        producer.publish(1, size=size, of_group=True)
    with pytest.raises(StoreFull):
        producer.publish(1, size=3000, of_group=True)
    for _ in range(manifest.F):  # it is as large as some of the groups that one of the next swaps unlinks
        with suppress(StoreFull):
            producer.publish(1, size=900, of_group=True)
            break
        producer.publish(1, of_group=True)
    else:
        pytest.fail("the members of the groups that leave do not count")
    producer.publish(2 * manifest.recent(), of_group=True)
    for size in [150, 250] * 15:  # single snapshots that are no larger than these groups
        producer.publish(1, size=size)
    with pytest.raises(StoreFull):
        producer.publish(1, size=1500, of_group=True)


def test_a_page_that_cannot_be_read_does_not_let_a_full_store_grow() -> None:
    """The page that should leave is damaged, never leaves, and the store grows past its limit for ever."""
    producer = Producer(Retention(max_count=3))
    producer.publish(manifest.recent() + 4)
    oldest = min(key for key in producer.driver.keyspace.values if ":page:" in key and key.endswith(".1-8"))
    del producer.driver.keyspace.values[oldest]
    producer.driver.is_full = True
    producer.forget(Retention(max_count=3))
    with pytest.raises(StoreFull):
        producer.publish(1)
