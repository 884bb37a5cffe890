"""How `follow` becomes a method: an iteration that waits, and that ends when its store is closed.

Each follower hears hints with ears of its own. A store that is closed wakes them all.
"""

from __future__ import annotations

import threading
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from swapstore.engine import run

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from swapstore.calls import Calls
    from swapstore.drivers.base import Driver, Listener
    from swapstore.operations.steps import Listen, Steps
    from swapstore.store import Store

P = ParamSpec("P")
T = TypeVar("T")


def following(
    call: Callable[Concatenate[Calls, P], Steps[T]],
) -> Callable[Concatenate[Any, P], Generator[T, None, None]]:
    """Make a method that finds the place to begin at, and then iterates over what comes."""

    @wraps(call)
    def method(self: Store, *args: P.args, **kwargs: P.kwargs) -> Generator[T, None, None]:
        steps = call(self._calls, *args, **kwargs)
        self._run(steps.step())  # at once: what is published after the call must come
        return _followed(self, steps)

    return method  # type: ignore[return-value]


def _followed(store: Store, steps: Steps[T]) -> Generator[T, None, None]:
    """Iterate until the store is closed. One that was closed before anything was asked for is an error."""
    store._refuse_if_closed()  # noqa: SLF001
    ears = Ears(store._driver)  # noqa: SLF001
    store._ears.add(ears)  # noqa: SLF001
    try:
        while not _is_closed(store):
            for item in _next(store, steps, ears):
                yield item
                if _is_closed(store):
                    return
    finally:
        store._ears.discard(ears)  # noqa: SLF001
        ears.close()
        if _is_closed(store):
            store._driver.close()  # noqa: SLF001 - what was under way meanwhile may have connected anew


def _next(store: Store, steps: Steps[T], ears: Ears) -> list[T]:
    try:
        sleep = store._context.clock.sleep  # noqa: SLF001
        return run(steps.step(), store._driver, sleep, ears.listen) or []  # noqa: SLF001
    except Exception:
        if _is_closed(store):
            return []  # its connections were closed under our hands
        raise


def _is_closed(store: Store) -> bool:
    """Ask anew each time: another thread may close it."""
    return store._closed  # noqa: SLF001


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
