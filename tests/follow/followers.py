"""Followers for the tests, and what a test asks of the commits that they receive."""

from __future__ import annotations

import signal
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import msgspec

from swapstore import Gap, Retention, Row, Store
from swapstore.protocol.context import Context
from swapstore.testing import SimulatedStore
from tests.support.bulk import Bulk, Pairs

Found = Row | Gap
Follower = Generator[Found, None, None]
WITHIN_S = 10.0
TAKEN_S = 30.0  # far longer than any test takes


def take(follower: Iterable[Found], count: int) -> list[Found]:
    """The next commits. A mistake that lets a follower wait without an end is a failure."""
    with in_time():
        return list(islice(follower, count))


@contextmanager
def in_time() -> Iterator[None]:
    """Interrupt what hangs in the main thread."""
    if not hasattr(signal, "setitimer"):  # Windows has no timers that interrupt
        yield
        return

    def interrupt(*_: object) -> None:
        raise AssertionError(f"the commits did not come within {TAKEN_S} seconds")

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, TAKEN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def versions(found: Iterable[Found]) -> list[Any]:
    """The version of each commit; for a gap, its position and reason."""
    return [(i.after, i.resumes_at, i.reason) if isinstance(i, Gap) else i.version for i in found]


def ids(found: Iterable[Found]) -> list[str]:
    return [item.id for item in found if isinstance(item, Row)]


def publish(store: Store, count: int, begin: int = 0, dataset: str = "mena") -> None:
    for number in range(begin, begin + count):
        store.publish(dataset, number, id=f"{dataset}-{number}")


def retained(sim: SimulatedStore, retention: Retention) -> Store:
    """A client with a shorter retention."""
    store = sim.connect()
    context: Context = store._context
    msgspec.structs.force_setattr(context, "retention", retention)
    return store


def grown(store: Store, to: int) -> None:
    """Make a dataset of this many versions, without their id records."""
    bulk = Bulk("mena", store._context.keys)
    pairs: Pairs = bulk.append(to, recorded=False)
    keyspace = store._driver.keyspace  # type: ignore[attr-defined]
    for key, value in pairs:
        keyspace._set(key, value, None)
    keyspace._set(store._context.keys.manifest("mena"), bulk.manifest().raw, None)


class Collected(threading.Thread):
    """Follows in a thread of its own; `until` waits for this many commits."""

    def __init__(self, follower: Iterable[Found]) -> None:
        super().__init__(daemon=True)
        self.found: list[Found] = []
        self.error: BaseException | None = None
        self._follower = follower
        self._more = threading.Condition()
        self.start()

    def run(self) -> None:
        try:
            for item in self._follower:
                with self._more:
                    self.found.append(item)
                    self._more.notify_all()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error
        with self._more:
            self._more.notify_all()

    def until(self, count: int) -> list[Found]:
        with self._more:
            assert self._more.wait_for(lambda: len(self.found) >= count or self.error, WITHIN_S), self.found
        assert self.error is None, self.error
        return self.found

    def ended(self) -> bool:
        self.join(WITHIN_S)
        return not self.is_alive()
