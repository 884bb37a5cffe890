"""Producers, readers and a follower on some datasets, and what must hold of all that they saw."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Self

import swapstore
from swapstore import Gap, Store
from tests.support import invariants
from tests.support.deployment import until


class Load:
    """Two producers (one publishes all datasets at once), a reader and a follower, each with its own store.

    After the block, `check` tells whether something was lost, doubled, torn, or went backwards.
    """

    def __init__(self, connect: Callable[[], Store], names: list[str]) -> None:
        self.connect = connect
        self.names = names
        self.acknowledged: dict[str, dict[str, int]] = {name: {} for name in names}
        self.followed: list[int] = []
        self.reads = 0
        self.longest_s = 0.0
        self._failures: list[BaseException] = []
        self._stop = threading.Event()
        self._calm = threading.Lock()
        self._following: Any = None
        jobs = (self._publish_one_by_one, self._publish_together, self._read, self._follow)
        self._threads = [threading.Thread(target=self._guarded, args=(job,), daemon=True) for job in jobs]

    def _guarded(self, job: Callable[[Store], None]) -> None:
        try:
            with self.connect() as store:
                job(store)
        except BaseException as error:  # noqa: BLE001 - the test shows it
            self._failures.append(error)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.progress()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads[:3]:
            thread.join(60)
        if not self._failures:
            last = max(self.acknowledged[self.names[0]].values())
            until(
                lambda: self._failures or (self.followed and self.followed[-1] >= last),
                "the follower is behind",
            )
        if self._following is not None:
            self._following.close()
        self._threads[3].join(60)

    def progress(self, each: int = 3) -> None:
        """Wait until every dataset has got so many more commits, or somebody has failed."""
        before = {name: len(ids) for name, ids in self.acknowledged.items()}
        until(
            lambda: self._failures or all(len(self.acknowledged[n]) >= before[n] + each for n in self.names),
            "no progress",
        )
        self.raise_failures()

    def raise_failures(self) -> None:
        for failure in self._failures:
            raise failure

    @contextmanager
    def calm(self) -> Iterator[None]:
        """A block in which nobody publishes."""
        with self._calm:
            yield

    def _publish_one_by_one(self, store: Store) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            for name in self.names:
                with self._timed():
                    commit = store.publish(
                        name,
                        {"id": f"one-{number}", "body": "x" * (number * 97 % 30_000)},
                        id=f"one-{number}",
                    )
                self.acknowledged[name][commit.id] = commit.version

    def _publish_together(self, store: Store) -> None:
        number = 0
        while not self._stop.is_set():
            number += 1
            wanted = f"all-{number}"
            with self._timed():
                outcomes = store.publish_many({name: {"id": wanted} for name in self.names}, id=wanted)
                outcomes.raise_for_failures()
            for name, commit in outcomes.items():
                self.acknowledged[name][wanted] = commit.version  # type: ignore[union-attr]

    @contextmanager
    def _timed(self) -> Iterator[None]:
        with self._calm:
            pass
        began = time.monotonic()
        yield
        self.longest_s = max(self.longest_s, time.monotonic() - began)

    def _read(self, store: Store) -> None:
        seen = dict.fromkeys(self.names, 0)
        while not self._stop.is_set():
            for name, snap in store.read_latest_many(self.names).items():
                if snap is None:
                    assert not seen[name], "a dataset is gone"
                    continue
                assert snap.version >= seen[name], "went backwards"
                assert snap.value["id"] == snap.id, "torn"
                seen[name] = snap.version
                self.reads += 1

    def _follow(self, store: Store) -> None:
        self._following = store
        for snap in store.follow(self.names[0], after=0):
            assert not isinstance(snap, Gap), "a follower lost its place"
            self.followed.append(snap.version)

    def check(self) -> None:
        """Raise what failed, or say what is wrong with what is stored."""
        self.raise_failures()
        assert not [thread for thread in self._threads if thread.is_alive()]
        with self.connect() as fresh:
            assert set(fresh.datasets()) >= set(self.names)
            for name in self.names:
                rows = invariants.check(fresh, name)
                assert [row.version for row in rows] == list(range(1, len(rows) + 1))
                stored = {row.id: row.version for row in rows}
                assert len(stored) == len(rows), "doubled"
                assert stored == {**stored, **self.acknowledged[name]}, "lost"
            followed = len(self.followed)
            assert self.followed == list(range(1, followed + 1)), (
                "a follower missed a commit, or got it twice"
            )


def connecting(url: str, patience_s: float = 10.0) -> Callable[[], Store]:
    """Return a function that makes patient stores."""
    return lambda: swapstore.connect(url, patience=patience_s)
