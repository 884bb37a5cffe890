"""How `follow` becomes a method: an iteration that waits, and that ends when its store is closed.

Each follower hears hints with ears of its own. A store that is closed wakes them all.
"""

from __future__ import annotations

import threading
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from swapstore.engine import run
from swapstore.face import Face

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from swapstore.calls import Calls
    from swapstore.drivers.base import Driver, Listener
    from swapstore.protocol.context import Context
    from swapstore.protocol.operation import Listen, Steps

P = ParamSpec("P")
T = TypeVar("T")


def following(
    call: Callable[Concatenate[Calls, P], Steps[T]],
) -> Callable[Concatenate[Any, P], Generator[T, None, None]]:
    """Make a method that finds the place to begin at, and then iterates over what comes."""

    @wraps(call)
    def method(self: FollowedFace, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        steps = call(self._calls, *args, **kwargs)
        self._run(steps.step())  # at once: what is published after the call must come
        return self._follow(steps)

    return method  # type: ignore[return-value]


class FollowedFace(Face):
    """A face whose followers end when it is closed."""

    def __init__(self, driver: Driver, context: Context) -> None:
        super().__init__(driver, context)
        self._ears: set[Ears] = set()

    def close(self) -> None:
        """Close the connections that the store opened, and end its followers. Closing twice is harmless."""
        self._closed = True
        for ears in list(self._ears):
            ears.close()
        super().close()

    def _follow(self, steps: Steps[T]) -> Generator[T, None, None]:
        """Iterate until the store is closed. One that was closed before the first item is an error."""
        self._refuse_if_closed()
        ears = Ears(self._driver)
        self._ears.add(ears)
        try:
            while not self._is_closed():
                for item in self._next(steps, ears):
                    yield item
                    if self._is_closed():
                        return
        finally:
            self._ears.discard(ears)
            ears.close()
            if self._is_closed():
                self._driver.close()  # what was under way meanwhile may have connected anew

    def _next(self, steps: Steps[T], ears: Ears) -> list[T]:
        try:
            return run(steps.step(), self._driver, self._context.clock.sleep, ears.listen) or []
        except Exception:
            if self._is_closed():
                return []  # its connections were closed under our hands
            raise

    def _is_closed(self) -> bool:
        """Ask anew each time: another thread may close it."""
        return self._closed


class Silence:
    """A listener where there are no hints: it lets the time pass."""

    def __init__(self) -> None:
        self._closed = threading.Event()

    def wait(self, seconds: float) -> None:
        """Let the time pass, or less when it is closed."""
        self._closed.wait(seconds)

    def close(self) -> None:
        """End the waits."""
        self._closed.set()


class Ears:
    """What one follower hears with. It listens from its first wait on."""

    def __init__(self, driver: Driver) -> None:
        self._driver: Any = driver
        self._listener: Listener | None = None
        self._closed = False

    def listen(self, step: Listen) -> None:
        """Let a wait pass."""
        if self._listener is None:
            can_listen = hasattr(self._driver, "listen")
            self._listener = self._driver.listen(step.channel) if can_listen else Silence()
            if self._closed:  # meanwhile, by another thread
                self._listener.close()
        self._listener.wait(step.seconds)

    def close(self) -> None:
        """Hear no more. Any thread may call it."""
        self._closed = True
        listener = self._listener
        if listener is not None:
            listener.close()
