"""Readers that ask the same at the same time are answered together: `flights.py`, for tasks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")
Place = tuple[str, int]  # what is loaded, and in which event loop


class _Flight(Generic[T]):
    """One load, and who waits for it."""

    def __init__(self) -> None:
        self.landed = asyncio.Event()
        self.result: T
        self.error: Exception | None = None
        self.failed = True  # until it has a result, or an error that is an answer


class AsyncFlights(Generic[T]):
    """The loads that are under way. The tasks of one event loop share them."""

    def __init__(self) -> None:
        self._under_way: dict[Place, _Flight[T]] = {}
        self._next: dict[Place, _Flight[T]] = {}

    async def share(self, key: str, load: Callable[[], Awaitable[T]]) -> T:
        """Load, or wait for a load that begins after this call."""
        place = (key, id(asyncio.get_running_loop()))
        before = self._under_way.get(place)
        flight = self._next.get(place) if before is not None else None
        if flight is None:
            flight = _Flight()
            (self._under_way if before is None else self._next)[place] = flight
            return await self._load(place, flight, before, load)
        await flight.landed.wait()
        if flight.failed:
            return await load()  # whoever loaded for us was cancelled: that is not our answer
        if flight.error is not None:
            raise flight.error
        return flight.result

    async def _load(
        self, place: Place, flight: _Flight[T], before: _Flight[T] | None, load: Callable[[], Awaitable[T]]
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
