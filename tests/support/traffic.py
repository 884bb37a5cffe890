"""Producers, readers and a follower on one store while its servers change, and what they saw."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Self

import pytest

import swapstore
import swapstore.aio
from swapstore import Gap, Row, Store
from tests.support import invariants

TOGETHER = ("asia", "europe", "africa")
JOIN_S = 60.0


class Blocking:
    """The calls of an asyncio store, made from threads, so that one traffic serves both faces."""

    def __init__(self, url: str, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._store = swapstore.aio.connect(url, **options)
        self._followers: list[Any] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._store, name)
        return lambda *args, **options: self._wait(method(*args, **options))

    @property
    def where(self) -> str:
        return self._store.where

    def _wait(self, awaited: Any) -> Any:
        async def main() -> Any:
            return await awaited

        return asyncio.run_coroutine_threadsafe(main(), self._loop).result(JOIN_S)

    def follow(self, *args: Any, **options: Any) -> Iterator[Any]:
        follower = self._store.follow(*args, **options)
        while True:
            try:
                yield self._wait(anext(follower))
            except StopAsyncIteration:
                return

    def close(self) -> None:
        self._wait(self._store.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(JOIN_S)
        self._loop.close()


FACES = pytest.mark.parametrize("connect", [swapstore.connect, Blocking], ids=["blocking", "asyncio"])


class Traffic:
    """Two producers of one dataset, one of several at once, two readers and a follower, in threads."""

    def __init__(self, store: Store | Blocking) -> None:
        self._store: Any = store
        self._over = threading.Event()
        self._errors: list[BaseException] = []
        self.acknowledged: list[str] = []
        self.together = 0
        self.followed: list[Row | Gap] = []
        self.backwards = 0
        self.longest_s = 0.0
        works = [lambda: self._produce("one"), lambda: self._produce("two"), self._produce_together]
        works += [self._read, self._read, self._follow]
        self._threads = [threading.Thread(target=self._guarded, args=(work,), daemon=True) for work in works]

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self._errors.append(error)
            self._over.set()

    def _produce(self, name: str) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            id_, began = f"{name}-{number}", time.monotonic()
            self._store.publish("mena", {"id": id_, "body": "x" * (number * 97 % 20_000)}, id=id_)
            self.longest_s = max(self.longest_s, time.monotonic() - began)
            self.acknowledged.append(id_)
            self._over.wait(0.002)

    def _produce_together(self) -> None:
        while not self._over.is_set():
            self.together += 1
            values = dict.fromkeys(TOGETHER, self.together)
            self._store.publish_many(values, id=f"all-{self.together}").raise_for_failures()
            self._over.wait(0.005)

    def _read(self) -> None:
        seen = 0
        while not self._over.is_set():
            snap = self._store.read_latest("mena")
            if snap is not None:
                assert snap.value["id"] == snap.id, "torn"
                self.backwards += snap.version < seen
                seen = snap.version
            self._over.wait(0.002)

    def _follow(self) -> None:
        for item in self._store.follow("mena", after=0, poll=0.2):
            self.followed.append(item)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.go_on()
        return self

    def go_on(self, commits: int = 20) -> None:
        """Wait until so many more commits were acknowledged, by each producer of several and of one."""
        wanted, together = len(self.acknowledged) + commits, self.together + 3
        deadline = time.monotonic() + JOIN_S
        while (len(self.acknowledged) < wanted or self.together < together) and not self._errors:
            assert time.monotonic() < deadline, "nothing is published any more"
            time.sleep(0.01)
        self.raise_errors()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads[:-1]:
            thread.join(JOIN_S)

    def raise_errors(self) -> None:
        for error in self._errors:
            raise error

    def check(self, fresh: Store) -> int:
        """Assert that nothing was doubled or torn, or told in the wrong order. Returns how many were lost."""
        self.raise_errors()
        rows = invariants.check(fresh)
        found = Counter(row.id for row in rows)
        assert max(found.values()) == 1, "doubled"
        for name in TOGETHER:
            assert max(Counter(row.id for row in invariants.check(fresh, name)).values()) == 1, "doubled"
        lost = sum(id_ not in found for id_ in self.acknowledged)
        if not lost:
            assert not self.backwards, "a reader went back although the store did not"
        self._await_follower(rows[-1])
        self._check_follower(rows, lost)
        return lost

    def _await_follower(self, last: Row) -> None:
        deadline = time.monotonic() + JOIN_S
        while not (self.followed and self.followed[-1] == last) and not self._errors:
            assert time.monotonic() < deadline, (self.followed[-3:], last)
            time.sleep(0.01)
        self.raise_errors()

    def _check_follower(self, rows: list[Row], lost: int) -> None:
        """Between two gaps, versions grow and no id comes twice; without a gap, none is missing."""
        given: set[str] = set()
        last = 0
        for item in self.followed:
            if isinstance(item, Gap):
                assert item.reason == "reset"
                assert lost
                given, last = set(), 0
                continue
            assert item.version > last
            assert item.id not in given
            given.add(item.id)
            last = item.version
        assert {row.id for row in rows} <= {item.id for item in self.followed if isinstance(item, Row)}
