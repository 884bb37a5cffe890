"""Single flight: concurrent readers of the same dataset share one load.

The first reader loads. Readers that come while its load is under way wait, and then one of them loads for
all who waited: the load under way may have asked the store before they came, and its answer may be older than
what they have to see. So a thousand concurrent readers cause two loads, and the second one finds in the cache
what the first one fetched.

Sharing only saves work, so no reader depends on another one:

- A thread that loads for others, or has a turn to swap, loads by itself what it reads then (in a listener for
  events, a signal handler, a finalizer). It would wait for itself, or for a thread that waits for it.
- A load can be interrupted at any line, also by an exception that another thread throws into it. Whatever
  ends it, those who wait for it are woken, and one of them loads instead.
- Each wait is bounded. A reader that has waited for too long loads by itself.
- Only errors of this library are shared, each reader with a copy of its own.

The flights of a key are a chain: each one knows the flight that begins after it. Each change is one step of a
dict, which is atomic. There is no lock that an interrupt could leave locked.

Threads share through `SingleFlight`, the tasks of an event loop through `AsyncSingleFlight`.
"""

from __future__ import annotations

from contextlib import suppress
from copy import copy
from threading import Lock, get_ident
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from swapstore.errors import SwapstoreError
from swapstore.forks import survive_forks
from swapstore.turns import LOOK_S, LOOKS, PATIENCE_S, busy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Hashable


T = TypeVar("T")


class _Flight(Generic[T]):
    """One load, and its outcome.

    A reader may join it until it has `begun`. `next`, under the only key None: the flight that begins when
    this one has ended. `answers`: there is a result, or an error, for those who joined.
    """

    def __init__(self) -> None:
        self.next: dict[None, Self] = {}
        self.begun = self.ended = self.answers = False
        self.result: T
        self.error: SwapstoreError | None = None

    def answer(self) -> T:
        """Return the result to a reader that joined, or raise its own copy of the error."""
        if self.error is not None:
            error = copy(self.error)
            error.__cause__ = self.error.__cause__
            raise error
        return self.result


F = TypeVar("F", bound=_Flight[Any])


def _boarded(flights: dict[Any, F], key: Hashable, mine: F) -> tuple[F, F | None]:
    """Return the flight of a reader that comes now, `mine` if it has to load, and the flight before it."""
    before, flight = None, flights.setdefault(key, mine)
    while flight.begun:
        before, flight = flight, flight.next.setdefault(None, mine)
    return flight, before


def _begin(flights: dict[Any, F], key: Hashable, mine: F) -> None:
    """Let nobody join any more: who comes from now on must not get what this load finds."""
    mine.begun = True
    flights[key] = mine


def _end(flights: dict[Any, F], key: Hashable, mine: F) -> None:
    """Make way for the next flight."""
    if flights.get(key) is mine:
        following = mine.next.get(None)
        if following is None:
            flights.pop(key, None)
        else:
            flights[key] = following
    mine.begun = mine.ended = True


class SingleFlight(Generic[T]):
    """The loads that are under way, by what they load. Threads share them."""

    def __init__(self) -> None:
        self._flights: dict[str, _ThreadFlight[T]] = {}
        survive_forks(self)

    def after_fork(self) -> None:
        """Start empty in a child process: the threads that load do not exist there."""
        self._flights = {}

    def share(self, key: str, load: Callable[[], T]) -> T:
        """Load, or wait for a load that begins after this call. Raises what the load raises."""
        me = get_ident()
        if me in busy.threads:
            return load()
        try:
            busy.threads.add(me)
            return self._shared(key, load)
        finally:
            busy.threads.discard(me)

    def _shared(self, key: str, load: Callable[[], T]) -> T:
        while True:
            mine: _ThreadFlight[T] = _ThreadFlight()
            try:
                flight, before = _boarded(self._flights, key, mine)
                if flight is mine:
                    return self._load(key, mine, before, load)
                if not flight.wait():
                    return load()
                if flight.answers:
                    return flight.answer()
            finally:
                self._land(key, mine)

    def _load(
        self, key: str, mine: _ThreadFlight[T], before: _ThreadFlight[T] | None, load: Callable[[], T]
    ) -> T:
        try:
            if before is not None:
                before.wait()
            _begin(self._flights, key, mine)
            mine.result = load()
            mine.answers = True
        except SwapstoreError as error:
            mine.error, mine.answers = error, True
            raise
        finally:
            self._land(key, mine)  # and once more in `_shared`: an interrupt may come during this
        return mine.result

    def _land(self, key: str, mine: _ThreadFlight[T]) -> None:
        if not mine.landed:
            _end(self._flights, key, mine)
            mine.wake()
            mine.landed = True


class _ThreadFlight(_Flight[T]):
    """A load by a thread. `_ended_lock` is locked until it has ended."""

    def __init__(self) -> None:
        super().__init__()
        self.landed = False
        self._ended_lock = Lock()  # not an Event: that takes several times as long to make
        self._ended_lock.acquire()

    def wake(self) -> None:
        """Let those who wait see that it has ended."""
        try:
            self._ended_lock.release()
        except RuntimeError:  # another thread has woken them
            return

    def wait(self) -> bool:
        """Wait until it has ended. False: that takes too long."""
        for _ in range(LOOKS):
            if self.ended:
                return True
            if self._ended_lock.acquire(timeout=LOOK_S):
                self.wake()  # the next one who waits; without this it would look by itself after a moment
        return self.ended


# --- asyncio -----------------------------------------------------------------------------------------


class AsyncSingleFlight(Generic[T]):
    """The loads that are under way, by what they load and in which event loop. Its tasks share them."""

    def __init__(self) -> None:
        self._flights: dict[Hashable, _TaskFlight[T]] = {}

    async def share(self, key: str, load: Callable[[], Awaitable[T]]) -> T:
        """Load, or wait for a load that begins after this call. Raises what the load raises."""
        from asyncio import get_running_loop  # noqa: PLC0415 - a blocking program does not need it

        place = (key, get_running_loop())
        while True:
            mine: _TaskFlight[T] = _TaskFlight()
            try:
                flight, before = _boarded(self._flights, place, mine)
                if flight is mine:
                    return await self._load(place, mine, before, load)
                if not await flight.wait():
                    return await load()
                if flight.answers:
                    return flight.answer()
            finally:
                self._land(place, mine)

    async def _load(
        self,
        place: Hashable,
        mine: _TaskFlight[T],
        before: _TaskFlight[T] | None,
        load: Callable[[], Awaitable[T]],
    ) -> T:
        try:
            if before is not None:
                await before.wait()
            _begin(self._flights, place, mine)
            mine.result = await load()
            mine.answers = True
        except SwapstoreError as error:
            mine.error, mine.answers = error, True
            raise
        finally:
            self._land(place, mine)  # and once more in `share`: an interrupt may come during this
        return mine.result

    def _land(self, place: Hashable, mine: _TaskFlight[T]) -> None:
        _end(self._flights, place, mine)
        mine.event.set()


class _TaskFlight(_Flight[T]):
    """A load by a task. `event` is set when it has ended."""

    def __init__(self) -> None:
        from asyncio import Event  # noqa: PLC0415

        super().__init__()
        self.event = Event()

    async def wait(self) -> bool:
        """Wait until it has ended. False: that takes too long."""
        from asyncio import timeout  # noqa: PLC0415

        with suppress(TimeoutError):
            async with timeout(PATIENCE_S):
                await self.event.wait()
        return self.ended
