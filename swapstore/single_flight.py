"""Single flight: concurrent readers of the same dataset share one load.

The first reader loads. Readers that come while its load is under way wait, and then one of them loads for
all who waited: the load under way may have asked the store before they came, and its answer may be older than
what they have to see. So a thousand concurrent readers cause two loads, and the second one finds in the cache
what the first one fetched.

Threads share through `SingleFlight`, the tasks of an event loop through `AsyncSingleFlight`.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from swapstore.forks import survive_forks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


T = TypeVar("T")


class SingleFlight(Generic[T]):
    """The loads that are under way, by what they load. Threads share them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[str, _Flight[T]] = {}
        self._next: dict[str, _Flight[T]] = {}
        survive_forks(self)

    def after_fork(self) -> None:
        """Start empty in a child process: the threads that load do not exist there."""
        self.__init__()  # type: ignore[misc]

    def share(self, key: str, load: Callable[[], T]) -> T:
        """Load, or wait for a load that begins after this call. Raises what the load raises."""
        with self._lock:
            before = self._under_way.get(key)
            flight = self._next.get(key) if before is not None else None
            mine = flight is None
            if flight is None:
                flight = _Flight()
                (self._under_way if before is None else self._next)[key] = flight
        if mine:
            return self._load(key, flight, before, load)
        flight.wait()
        if flight.failed:
            return load()  # the thread that loaded for us was stopped: that is not our answer
        if flight.error is not None:
            raise flight.error
        return flight.result

    def _load(self, key: str, flight: _Flight[T], before: _Flight[T] | None, load: Callable[[], T]) -> T:
        try:
            if before is not None:
                before.wait()
                with self._lock:
                    self._under_way[key] = flight
                    if self._next.get(key) is flight:
                        del self._next[key]
            flight.result = load()
            flight.failed = False
        except Exception as error:
            flight.error, flight.failed = error, False
            raise
        finally:
            with self._lock:
                for flights in (self._under_way, self._next):
                    if flights.get(key) is flight:
                        del flights[key]
            flight.landed.release()
        return flight.result


class _Flight(Generic[T]):
    """One load, and its outcome."""

    def __init__(self) -> None:
        self.landed = threading.Lock()  # not an Event: that takes several times as long to make
        self.landed.acquire()  # until the load has ended
        self.result: T
        self.error: Exception | None = None
        self.failed = True  # until there is a result, or an error that is an answer

    def wait(self) -> None:
        """Return when the load has ended."""
        with self.landed:
            pass


# --- asyncio -----------------------------------------------------------------------------------------

_Key = tuple[str, int]  # what is loaded, and in which event loop


class AsyncSingleFlight(Generic[T]):
    """The loads that are under way. The tasks of one event loop share them."""

    def __init__(self) -> None:
        self._under_way: dict[_Key, _AsyncFlight[T]] = {}
        self._next: dict[_Key, _AsyncFlight[T]] = {}

    async def share(self, key: str, load: Callable[[], Awaitable[T]]) -> T:
        """Load, or wait for a load that begins after this call. Raises what the load raises."""
        from asyncio import get_running_loop  # noqa: PLC0415

        place = (key, id(get_running_loop()))
        before = self._under_way.get(place)
        flight = self._next.get(place) if before is not None else None
        if flight is None:
            flight = _AsyncFlight()
            (self._under_way if before is None else self._next)[place] = flight
            return await self._load(place, flight, before, load)
        await flight.landed.wait()
        if flight.failed:
            return await load()  # the task that loaded for us was cancelled: that is not our answer
        if flight.error is not None:
            raise flight.error
        return flight.result

    async def _load(
        self,
        place: _Key,
        flight: _AsyncFlight[T],
        before: _AsyncFlight[T] | None,
        load: Callable[[], Awaitable[T]],
    ) -> T:
        try:
            if before is not None:
                await before.landed.wait()
                self._under_way[place] = flight
                if self._next.get(place) is flight:
                    del self._next[place]
            flight.result = await load()
            flight.failed = False
        except Exception as error:
            flight.error, flight.failed = error, False
            raise
        finally:
            for flights in (self._under_way, self._next):
                if flights.get(place) is flight:
                    del flights[place]
            flight.landed.set()
        return flight.result


class _AsyncFlight(Generic[T]):
    """One load, and its outcome."""

    def __init__(self) -> None:
        import asyncio  # noqa: PLC0415 - a blocking program does not need it

        self.landed = asyncio.Event()
        self.result: T
        self.error: Exception | None = None
        self.failed = True  # until there is a result, or an error that is an answer
