"""Views: datasets in the memory of a reader, kept up to date by a thread, or by a task for asyncio.

Reading one is a look-up in a dict. All that can go wrong is off that path: a view that is closed, or that was
inherited by a forked process, has an empty dict, and the miss finds out why.
"""

from __future__ import annotations

import copy
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Self, TypeVar

import attrs

from swapstore import arguments
from swapstore.engine import arun, run
from swapstore.errors import InvalidInput, StoreClosed, SwapstoreError, Unavailable
from swapstore.forks import survive_forks
from swapstore.protocol.view import Viewing
from swapstore.protocol.watch import of
from swapstore.subscription import AsyncSubscription, Subscription, lazy_asyncio

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Iterable
    from datetime import timedelta
    from types import TracebackType

    from swapstore.models import Snapshot
    from swapstore.store import AsyncStore, Store

S = TypeVar("S", bound="Store | AsyncStore")

LOG = logging.getLogger("swapstore")
JOIN_S = 1.0  # how long `close` waits for a look that is under way
READY_LOOK_S = 0.02  # how often to look whether a view is ready
PAUSE_S = 1.0  # after a fault of our own, or of a function that was called


@attrs.frozen(kw_only=True)
class ViewedDataset:
    """What a view knows of one dataset.

    `version`, `ts` and `confirmed_at` are those of the snapshot it serves; None: nothing is published, or it
    was never read.
    `age` is in seconds, since the store last confirmed it; None: it never did. `behind`: the last look at it
    failed, and `error` is what it met.
    """

    dataset: str
    version: int | None
    ts: int | None
    confirmed_at: int | None
    age: float | None
    behind: bool
    error: SwapstoreError | None


@attrs.frozen(kw_only=True)
class ViewHealth:
    """How a view does.

    `ready`: every dataset has been read. `connected`: the last look at the store got an answer. `behind`
    names the datasets whose last look failed: what is served may be old. `last_error` is the last one that
    there was, perhaps before the view recovered.
    """

    ready: bool
    connected: bool
    behind: tuple[str, ...]
    last_error: SwapstoreError | None
    datasets: dict[str, ViewedDataset]


Changed = Mapping[str, "Snapshot | None"]


class _BaseView(Mapping[str, "Snapshot | None"], Generic[S]):
    """What both views have in common: what is held, and what has changed."""

    def __init__(
        self,
        store: S,
        datasets: Iterable[str] | None,
        *,
        prefix: str | None,
        poll: float | timedelta,
        wait_ready: float | timedelta | None,
        on_change: Callable[[Changed], object] | None,
    ) -> None:
        self._store = store
        if (datasets is None) == (prefix is None):
            raise InvalidInput("view takes either names of datasets, or prefix=")
        names = () if datasets is None else arguments.datasets(datasets)
        self._prefix = None if prefix is None else arguments.dataset_prefix(prefix)
        self._wait_ready_s = None if wait_ready is None else arguments.wait_s(wait_ready, "wait_ready")
        if on_change is not None and not callable(on_change):
            raise InvalidInput(f"on_change must be a function, not {arguments.shown(on_change)}")
        self._on_change = on_change
        self._viewing = Viewing(
            store._context,  # noqa: SLF001
            names,
            prefix=self._prefix,
            poll_s=arguments.poll_s(poll),
        )
        self._held: dict[str, Snapshot | None] = {}  # that of `_viewing` while the view can be read
        self._started = self._closed = False
        self._pid = os.getpid()
        self._number = self._waited = 0  # of the last change, and up to which one `wait` has returned
        self._changes: dict[str, int] = {}  # the number of the last change of each dataset
        self._calling: object = None  # the thread or task that calls `on_change` now

    __eq__ = object.__eq__
    __hash__ = object.__hash__  # a view equals itself only

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a view cannot be pickled or copied, because it has connections: connect in each process"
        )

    def __repr__(self) -> str:
        return f"<a view of {of(self._viewing.names, self._prefix)} in {self._store.where}>"

    # --- what is served ------------------------------------------------------------------------------

    def __getitem__(self, dataset: str) -> Snapshot | None:
        """Return the snapshot that is served. None: nothing is published. Without I/O, in any thread.

        All callers get the same object, so that it is decoded once: do not change its `value`. Raises
        `KeyError` for a dataset that the view does not have, `Unavailable` if it could not be read yet, and
        `Damaged` if what is stored was damaged from the beginning.
        """
        try:
            return self._held[dataset]
        except KeyError:
            pass
        return self._missing(dataset)

    def _missing(self, dataset: str) -> Snapshot | None:
        self._require()
        viewing = self._viewing
        with suppress(KeyError):
            return viewing.held[dataset]
        is_viewed = dataset in viewing.names or (
            self._prefix is not None and isinstance(dataset, str) and dataset.startswith(self._prefix)
        )
        if not is_viewed:
            raise KeyError(f"{dataset!r} is not in {self!r}")
        error = viewing.errors.get(dataset) or (None if viewing.ready else viewing.last_error)
        if error is not None:
            raise copy.copy(error) from error.__cause__
        if self._prefix is not None and viewing.ready:
            return None
        raise Unavailable("it was not read yet: the view has just been started", dataset=dataset)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names: those that were given, or those that are published with the prefix."""
        self._require()
        return iter(self._viewing.names or tuple(self._viewing.held))

    def __len__(self) -> int:
        self._require()
        return len(self._viewing.names or self._viewing.held)

    def __contains__(self, dataset: object) -> bool:
        self._require()
        return dataset in (self._viewing.names or self._viewing.held)

    def age(self, dataset: str) -> float:
        """Return the seconds since the store last confirmed what is served of this dataset.

        It is less than `poll` and the time that a look takes, unless there is an outage. If the dataset could
        not be read yet, so that `view[dataset]` raises why, it is infinite: older than any bound. Raises
        `KeyError` for a dataset that the view does not have.
        """
        self._require()
        with suppress(SwapstoreError):
            self[dataset]
            viewing = self._viewing
            return self._now() - viewing.current_at.get(dataset, viewing.listed_at)
        return math.inf

    def health(self) -> ViewHealth:
        """Return how the view does, and each dataset in it. Without I/O."""
        self._require()
        viewing, now = self._viewing, self._now()
        datasets = {}
        for name in dict.fromkeys((*self, *tuple(viewing.errors))):
            snapshot, at = viewing.held.get(name), viewing.current_at.get(name)
            error = viewing.errors.get(name)
            datasets[name] = ViewedDataset(
                dataset=name,
                version=None if snapshot is None else snapshot.version,
                ts=None if snapshot is None else snapshot.ts,
                confirmed_at=None if snapshot is None else snapshot.confirmed_at,
                age=None if at is None else now - at,
                behind=at is None or error is not None,
                error=error,
            )
        return ViewHealth(
            ready=viewing.ready,
            connected=viewing.connected,
            behind=tuple(name for name, each in datasets.items() if each.behind),
            last_error=viewing.last_error,
            datasets=datasets,
        )

    def _now(self) -> float:
        return self._store._context.clock.monotonic()  # noqa: SLF001

    def _require(self) -> None:
        """Raise why the view cannot be read, if so."""
        if self._is_over():
            raise StoreClosed("the view is closed, or its event loop; store.view() makes a new one")
        if not self._started:
            raise InvalidInput.misuse(
                "the view is not started: use it in a with statement, or call start(); for asyncio, "
                "in async with, or await start()"
            )

    def _require_new(self) -> None:
        if self._is_over():
            raise StoreClosed("the view is closed, or its event loop; store.view() makes a new one")
        if self._started:
            raise InvalidInput("the view is started already")

    # --- what has changed ----------------------------------------------------------------------------

    def _is_over(self) -> bool:
        return self._closed or self._store._closed  # noqa: SLF001

    def _count(self, names: Iterable[str]) -> None:
        self._number += 1
        self._changes |= dict.fromkeys(names, self._number)

    def _changed_since(self, number: int) -> list[str]:
        return [name for name, changed in self._changes.items() if changed > number]

    def _require_other(self, caller: object) -> None:
        if caller is self._calling:
            raise InvalidInput("on_change cannot wait: the view looks for changes when it has returned")

    def _now_held(self, names: Iterable[str]) -> dict[str, Snapshot | None]:
        return {name: self._viewing.held.get(name) for name in names}


class View(_BaseView["Store"]):
    """Datasets in memory, kept up to date. `Store.view` makes it. It is a context manager, and a mapping.

    `view["mena"]` is what `read_latest("mena")` serves, without I/O. In an outage it is what the store showed
    last, and `age` says how long ago that was. It never goes back to an older version, unless the store does.

    Threads may share it. A forked process that uses it starts a thread of its own.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._more = threading.Condition()
        self._subscription: Subscription | None = None
        self._thread: threading.Thread | None = None
        survive_forks(self)

    def after_fork(self) -> None:
        """Make the first use in a child process find out that no thread keeps the view up to date."""
        self._more = threading.Condition()
        self._held = {}
        self._calling = None

    def start(self) -> Self:
        """Load the datasets, and begin to keep them up to date. A with statement does it.

        Raises what `read_latest` raises if a dataset cannot be read, except for damage, which is raised when
        that dataset is asked for. Then it can be called again. With `wait_ready`, it waits so long at most,
        and does not raise.
        """
        self._require_new()
        begin = self._viewing.begin()
        names = self._store._run(begin) if self._wait_ready_s is None else []  # noqa: SLF001
        try:
            self._started = True
            self._call(names)
            self._viewing.told(names)
            self._launch()
            if self._wait_ready_s is not None:
                self._wait_until_ready(time.monotonic() + self._wait_ready_s)
        except BaseException:
            self.close()  # otherwise it could be read, and nobody kept it up to date
            raise
        return self

    def _wait_until_ready(self, until: float) -> None:
        while not (self._viewing.ready or self._closed):
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(READY_LOOK_S, left))

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def wait(self, timeout: float | timedelta | None = None) -> list[str]:
        """Wait until the served snapshot of a dataset changes, and return the names of those that did.

        By a publish, a pin, a rollback, or because the store went back. Changes since the last `wait` count
        too, so none is missed; threads that wait at the same time all get them. `timeout` is in seconds, or
        a timedelta; None: without a bound. An empty list: nothing changed in time, or the view was closed.
        Raises `InvalidInput` if `on_change` calls it.
        """
        seconds = None if timeout is None else arguments.wait_s(timeout, "timeout")
        self._require()
        self._require_other(threading.current_thread())
        with self._more:
            before = self._waited
            self._more.wait_for(lambda: self._number > before or self._closed, seconds)
            self._waited = max(self._waited, self._number)
            return self._changed_since(before)

    def close(self) -> None:
        """Stop keeping the view up to date. It cannot be read any more. Closing twice does no harm."""
        self._end()
        if self._subscription is not None:
            self._subscription.close()
        thread = self._thread
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(JOIN_S)
        self._store._views.discard(self)  # noqa: SLF001

    def _end(self) -> None:
        with self._more:
            self._closed = True
            self._held = {}
            self._more.notify_all()

    def _require(self) -> None:
        super()._require()
        if self._pid != os.getpid():
            self._launch()

    def _launch(self) -> None:
        """Start the thread that keeps the view up to date, in this process."""
        with self._more:
            self._store._views.add(self)  # noqa: SLF001
            if self._is_over() or (self._thread is not None and self._pid == os.getpid()):
                return
            self._subscription = Subscription(self._store._driver)  # noqa: SLF001
            work = (self._viewing, self._subscription)
            self._thread = threading.Thread(target=self._keep, args=work, name="swapstore-view", daemon=True)
            self._thread.start()
            self._pid = os.getpid()
            self._held = self._viewing.held

    def _keep(self, viewing: Viewing, subscription: Subscription) -> None:
        """Keep the view up to date until it is closed."""
        store = self._store
        sleep, listen = store._context.clock.sleep, subscription.listen  # noqa: SLF001
        driver, replicas = store._driver, store._replicas  # noqa: SLF001
        try:
            while not self._is_over():
                try:
                    names = run(viewing.step(), driver, sleep, listen=listen, replicas=replicas)
                except Exception:
                    if not self._is_over():  # else it comes from closing the connections
                        LOG.exception("%r could not look at the store; it tries again", self)
                        with self._more:
                            self._more.wait_for(self._is_over, PAUSE_S)
                    continue
                if names and not self._is_over():
                    self._call(names)
                    with self._more:
                        self._count(names)
                        self._more.notify_all()
                    viewing.told(names)
        finally:
            self._end()  # whatever ended it: nobody keeps the view up to date any more
            subscription.close()
        if store._closed:  # noqa: SLF001
            store._close_drivers()  # noqa: SLF001 - again: a look that was under way may have opened a connection

    def _call(self, names: list[str]) -> None:
        caller = threading.current_thread()
        try:
            if self._on_change is not None and names:
                self._calling = caller
                self._on_change(self._now_held(names))
        except BaseException as error:
            if not isinstance(error, Exception) and caller is not self._thread:
                raise  # an interrupt of `start`; nothing may end the thread
            LOG.exception("on_change of %r failed; the view goes on", self)
        finally:
            self._calling = None


# --- asyncio ------------------------------------------------------------------------------------------


class AsyncView(_BaseView["AsyncStore"]):
    """A `View` for asyncio: a task of the event loop keeps it up to date. `AsyncStore.view` makes it.

    `view["mena"]` takes no `await`, and any thread may read it. `start`, `wait` and `close` are awaited, in
    the event loop that started it. `on_change` may be a coroutine function.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._more: asyncio.Event = lazy_asyncio().Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        survive_forks(self)

    def after_fork(self) -> None:
        """Make the first use in a child process find out that no task keeps the view up to date."""
        self._held = {}
        self._calling = None

    async def start(self) -> Self:
        """Load the datasets, and begin to keep them up to date; see `View.start`."""
        self._require_new()
        self._loop = lazy_asyncio().get_running_loop()
        begin = self._viewing.begin()
        names = await self._store._run(begin) if self._wait_ready_s is None else []  # noqa: SLF001
        try:
            self._started = True
            await self._call(names)
            self._viewing.told(names)
            self._launch()
            if self._wait_ready_s is not None:
                with suppress(TimeoutError):
                    async with lazy_asyncio().timeout(self._wait_ready_s):
                        while not (self._viewing.ready or self._closed):
                            await lazy_asyncio().sleep(READY_LOOK_S)
        except BaseException:
            await self.close()  # otherwise it could be read, and nobody kept it up to date
            raise
        return self

    def _launch(self) -> None:
        """Start the task that keeps the view up to date."""
        self._store._views.add(self)  # noqa: SLF001
        if not self._is_over():
            self._task = lazy_asyncio().ensure_future(self._keep(self._viewing))
            self._held = self._viewing.held

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def wait(self, timeout: float | timedelta | None = None) -> list[str]:  # noqa: ASYNC109 - as `View.wait`
        """Wait until the served snapshot of a dataset changes; see `View.wait`."""
        seconds = None if timeout is None else arguments.wait_s(timeout, "timeout")
        self._require()
        if self._loop is not lazy_asyncio().get_running_loop():
            raise InvalidInput.misuse(
                "wait for a view in the event loop that started it, or make one in each"
            )
        self._require_other(lazy_asyncio().current_task())
        before = self._waited
        if self._number <= before:
            with suppress(TimeoutError):
                async with lazy_asyncio().timeout(seconds):
                    await self._more.wait()
        self._waited = max(self._waited, self._number)
        return self._changed_since(before)

    async def close(self) -> None:
        """Stop keeping the view up to date. It cannot be read any more. Closing twice does no harm."""
        self._end()
        task, self._task = self._task, None
        is_here = self._loop is lazy_asyncio().get_running_loop()
        if task is not None and is_here and task is not lazy_asyncio().current_task():
            task.cancel()
            await lazy_asyncio().wait({task})
        self._store._views.discard(self)  # noqa: SLF001

    def _end(self) -> None:
        self._closed = True
        self._held = {}
        self._more.set()

    def _require(self) -> None:
        super()._require()
        if self._pid != os.getpid():
            raise InvalidInput.misuse(
                "a view for asyncio stays in the process that started it: make one in each"
            )

    async def _keep(self, viewing: Viewing) -> None:
        """Keep the view up to date until it is closed."""
        store = self._store
        subscription = AsyncSubscription(store._driver)  # noqa: SLF001
        sleep, listen = store._sleep, subscription.listen  # noqa: SLF001
        driver, replicas = store._driver, store._replicas  # noqa: SLF001
        try:
            while not self._is_over():
                try:
                    names = await arun(viewing.step(), driver, sleep, listen=listen, replicas=replicas)
                except Exception:
                    if not self._is_over():  # else it comes from closing the connections
                        LOG.exception("%r could not look at the store; it tries again", self)
                        await sleep(PAUSE_S)
                    continue
                if names and not self._is_over():
                    await self._call(names)
                    self._count(names)
                    viewing.told(names)
                    more, self._more = self._more, lazy_asyncio().Event()
                    more.set()
        finally:
            self._end()  # whatever ended it: nobody keeps the view up to date any more
            self._store._views.discard(self)  # noqa: SLF001
            subscription.drop()

    async def _call(self, names: list[str]) -> None:
        caller = lazy_asyncio().current_task()
        try:
            if self._on_change is not None and names:
                self._calling = caller
                called = self._on_change(self._now_held(names))
                if isawaitable(called):
                    await called
        except lazy_asyncio().CancelledError:
            if caller.cancelling():
                raise
            LOG.exception("on_change of %r was cancelled; the view goes on", self)
        except Exception:
            LOG.exception("on_change of %r failed; the view goes on", self)
        finally:
            self._calling = None
