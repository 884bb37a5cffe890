"""The clients of a chaos run, which live as long as it does, and what they see in one round.

Two producers of one dataset (one blocking, one for asyncio), one of several datasets at once, two followers,
views, and readers. After an error a producer does what the documentation says: it publishes the id again.
"""

from __future__ import annotations

import inspect
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self

import swapstore
from swapstore import (
    Commit,
    Durability,
    OutcomeUnknown,
    Row,
    Snapshot,
    StoreClosed,
    SwapstoreError,
    Timeout,
    Unavailable,
    UnderReplicated,
    View,
)
from tests.chaos.judge import NOTHING, Read, Seen, fits
from tests.support.traffic import Blocking

PATIENCE_S = 20.0
TIMEOUT = Timeout(connect=1, reply=2)
PAUSE_S = 0.003
SAME_ID = 4  # how often an id is published at most, until it is acknowledged
JOIN_S = 90.0
EXPECTED = (UnderReplicated, OutcomeUnknown, Unavailable)
READS_REPLICAS = "read_from" in inspect.signature(swapstore.connect).parameters


class Clients:
    """The stores, each with connections of its own."""

    def __init__(self, url: str, durability: Durability | None) -> None:
        self.url = url
        options: dict[str, Any] = {"patience": PATIENCE_S, "timeout": TIMEOUT}
        durably = {**options, "durability": durability}
        self.one: Any = swapstore.connect(url, **durably)
        self.two: Any = Blocking(url, **durably)
        self.together: Any = swapstore.connect(url, **durably)
        self.readers: list[Any] = [swapstore.connect(url, **options), Blocking(url, **options)]
        if READS_REPLICAS and "+" in url:
            replicas: dict[str, Any] = {**options, "read_from": "replica"}
            self.readers.append(swapstore.connect(url, **replicas))
        self.options = options

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for store in (self.one, self.two, self.together, *self.readers):
            with suppress(Exception):
                store.close()


class Load:
    """What the clients do in one round, on datasets of their own. The first one has two producers."""

    def __init__(self, clients: Clients, names: list[str]) -> None:
        self._clients = clients
        self.names = names
        self.seen = {name: Seen() for name in names}
        self.errors: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self.unavailable: list[str] = []  # longer than the patience
        self.longest_publish_s = self.longest_read_s = 0.0
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._followers: list[Any] = []
        self._views: list[View] = []
        self._caught_up = threading.Event()
        producers: list[Callable[[], None]] = [
            lambda: self._produce(clients.one, "one"),
            lambda: self._produce(clients.two, "two"),
            self._produce_together,
        ]
        readers: list[Callable[[], None]] = [
            lambda store=store: self._read(store)  # type: ignore[misc]
            for store in clients.readers
        ]
        self._threads = [self._thread(job) for job in (*producers, *readers)]
        self._following = [self._thread(self._follow, connect) for connect in (swapstore.connect, Blocking)]
        blocking = [store for store in clients.readers if isinstance(store, swapstore.Store)]
        self._viewing = [self._thread(self._view, store) for store in blocking]

    def _thread(self, job: Callable[..., None], *args: Any) -> threading.Thread:
        return threading.Thread(target=self._guarded, args=(job, *args), daemon=True)

    def _guarded(self, job: Callable[..., None], *args: Any) -> None:
        try:
            job(*args)
        except BaseException as error:  # noqa: BLE001 - it is told at the end of the round
            self._note(error)

    def _note(self, error: BaseException) -> None:
        with self._lock:
            self.errors[type(error).__name__] += 1
            if not isinstance(error, EXPECTED):
                self.unexpected.append(f"{type(error).__name__}: {error}")
            elif not isinstance(error, UnderReplicated):
                self.unavailable.append(f"{type(error).__name__}: {error}")

    def __enter__(self) -> Self:
        for thread in (*self._threads, *self._following, *self._viewing):
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._caught_up.set()
        self._join(self._viewing)
        for store in self._followers:
            with suppress(Exception):
                store.close()
        self._join(self._following)

    def stop(self) -> None:
        """Let each client finish the call that it is in. Followers and views go on."""
        self._over.set()
        self._join(self._threads)

    def _join(self, threads: list[threading.Thread]) -> None:
        deadline = time.monotonic() + JOIN_S
        for thread in threads:
            thread.join(max(deadline - time.monotonic(), 0))
            if thread.is_alive():
                self.unexpected.append("a call does not end")

    # --- publish -----------------------------------------------------------------------------------

    def _produce(self, store: Any, prefix: str) -> None:
        name, number = self.names[0], 0
        while not self._over.is_set():
            number += 1
            id_ = f"{prefix}-{number}"
            body = "x" * (number * 97 % 20_000)
            value = {"id": id_, "size": len(body), "body": body}
            for _ in range(SAME_ID):
                try:
                    with self._timed("publish"):
                        commit = store.publish(name, value, id=id_)
                except SwapstoreError as error:
                    self._note(error)
                    if self._over.is_set():
                        break
                else:
                    self._acknowledge(name, id_, commit)
                    break
            self._over.wait(PAUSE_S)

    def _produce_together(self) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            id_ = f"all-{number}"
            left = set(self.names[1:])
            for _ in range(SAME_ID):
                with self._timed("publish"):
                    outcomes = self._clients.together.publish_many(
                        {name: {"id": id_, "size": 0, "body": ""} for name in left}, id=id_
                    )
                for name, outcome in outcomes.items():
                    if isinstance(outcome, Commit):
                        self._acknowledge(name, id_, outcome)
                        left.discard(name)
                    else:
                        self._note(outcome)
                if not left or self._over.is_set():
                    break
            self._over.wait(PAUSE_S)

    def _acknowledge(self, name: str, id_: str, commit: Commit) -> None:
        if commit.id != id_:
            self.unexpected.append(f"{id_} was acknowledged as {commit.id}")
        self.seen[name].acknowledged[id_] = commit.version
        self.seen[name].since[id_] = time.monotonic()

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            attribute = f"longest_{what}_s"
            with self._lock:
                setattr(self, attribute, max(getattr(self, attribute), time.monotonic() - began))

    # --- read --------------------------------------------------------------------------------------

    def _read(self, store: Any) -> None:
        reads: dict[str, list[Read]] = {name: [] for name in self.names}
        for name in self.names:
            self.seen[name].reads.append(reads[name])
        turn = 0
        while not self._over.is_set():
            turn += 1
            wanted = self.names if turn % 2 else self.names[:1]
            began = time.monotonic()
            try:
                with self._timed("read"):
                    found = store.read_latest_many(wanted)
            except SwapstoreError as error:
                self._note(error)
                continue
            for name, snap in found.items():
                self._note_read(name, reads[name], snap, began)
            self._over.wait(PAUSE_S)

    def _note_read(self, name: str, reads: list[Read], snap: Snapshot | None, began: float) -> None:
        commit = NOTHING if snap is None else (snap.version, snap.id, snap.committed_at)
        if snap is not None and not fits(snap.value, snap.id):
            self.seen[name].torn.append(f"version {snap.version}, {snap.id}, as read")
        if not reads or reads[-1].commit != commit:
            reads.append(Read(commit, began))

    def _view(self, store: swapstore.Store) -> None:
        reads: dict[str, list[Read]] = {name: [] for name in self.names}
        for name in self.names:
            self.seen[name].reads.append(reads[name])
        with store.view(self.names, poll=0.3, wait_ready=0) as view:
            self._views.append(view)
            while not self._caught_up.wait(PAUSE_S):
                for name in self.names:
                    began = time.monotonic()
                    with suppress(Unavailable):  # it was not read yet
                        self._note_read(name, reads[name], view[name], began)

    def _follow(self, connect: Callable[..., Any]) -> None:
        store = connect(self._clients.url, **self._clients.options)
        self._followers.append(store)
        name = self.names[0]
        followed: list[Any] = []
        self.seen[name].followed.append(followed)
        with suppress(StoreClosed):
            for item in store.follow(name, after=0, poll=0.3):
                followed.append(item)  # noqa: PERF402 - others look at it at the same time

    def await_views(self, last: Row) -> None:
        """Wait until each view shows the last row, and note if one does not."""
        deadline = time.monotonic() + PATIENCE_S
        for view in self._views:
            shown = None
            while time.monotonic() < deadline and (shown is None or shown.id != last.id):
                view.wait(0.05)
                with suppress(Unavailable):
                    shown = view[self.names[0]]
            if shown is None or shown.id != last.id:
                self.unexpected.append(f"a view does not catch up: {view.health()}")

    def await_followers(self, last: Row) -> None:
        """Wait until each follower has the last row, or has had enough time for it."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            followed = self.seen[self.names[0]].followed
            if len(followed) == len(self._following) and all(
                each and isinstance(each[-1], Row) and each[-1].id == last.id for each in followed
            ):
                return
            time.sleep(0.02)
