"""Readers that ask the same at the same time are answered together.

Whoever comes first loads. Whoever comes while that is under way waits, and then one of those who waited
loads for all of them: what was asked for before they came may be older than what they must see. So a
thousand readers at once cause two loads, and the second finds in memory what the first has brought.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from swapstore.forks import survive_forks

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


T = TypeVar("T")


class _Flight(Generic[T]):
    """One load, and who waits for it."""

    def __init__(self) -> None:
        self.landed = threading.Lock()  # held until then: an Event takes several times as long to make
        self.landed.acquire()
        self.result: T
        self.error: Exception | None = None
        self.failed = True  # until it has a result, or an error that is an answer

    def wait(self) -> None:
        """Return when it has landed: at once to each, one after the other."""
        with self.landed:
            pass


class SingleFlight(Generic[T]):
    """The loads that are under way, by what they load; shared by threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[str, _Flight[T]] = {}
        self._next: dict[str, _Flight[T]] = {}
        survive_forks(self)

    def after_fork(self) -> None:
        """Begin anew in a child process: the threads that load are not there."""
        self.__init__()  # type: ignore[misc]

    def share(self, key: str, load: Callable[[], T]) -> T:
        """Load, or wait for a load that begins after this call."""
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
            return load()  # whoever loaded for us was stopped: that is not our answer
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


# --- aio_flights -------------------------------------------------------------------------------
#
# Readers that ask the same at the same time are answered together: `flights.py`, for tasks.

Place = tuple[str, int]  # what is loaded, and in which event loop


class _AsyncFlight(Generic[T]):
    """One load, and who waits for it."""

    def __init__(self) -> None:
        import asyncio  # noqa: PLC0415 - a program that only blocks does not need it

        self.landed = asyncio.Event()
        self.result: T
        self.error: Exception | None = None
        self.failed = True  # until it has a result, or an error that is an answer


class AsyncSingleFlight(Generic[T]):
    """The loads that are under way. The tasks of one event loop share them."""

    def __init__(self) -> None:
        self._under_way: dict[Place, _AsyncFlight[T]] = {}
        self._next: dict[Place, _AsyncFlight[T]] = {}

    async def share(self, key: str, load: Callable[[], Awaitable[T]]) -> T:
        """Load, or wait for a load that begins after this call."""
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
            return await load()  # whoever loaded for us was cancelled: that is not our answer
        if flight.error is not None:
            raise flight.error
        return flight.result

    async def _load(
        self,
        place: Place,
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
