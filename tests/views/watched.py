"""Reads a view while its store fails over, moves or is away, as a service does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

from swapstore import Store
from swapstore.views import View

WITHIN_S = 20.0


def publish(store: Store, names: Sequence[str], number: int) -> None:
    """Publish a value whose parts tell whether it is whole."""
    for name in names:
        store.publish(name, [number] * 50)


class Watched:
    """Reads all datasets of a view all the time: each has a whole value, and none is older than before."""

    def __init__(self, view: View, names: Sequence[str]) -> None:
        self._view = view
        self._versions = dict.fromkeys(names, 0)
        self._stop = threading.Event()
        self._wrong: list[BaseException] = []
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert not self._wrong

    def _run(self) -> None:
        try:
            while not self._stop.wait(0.002):
                for name, before in self._versions.items():
                    snapshot = self._view[name]
                    assert snapshot is not None, f"{name} is gone"
                    assert len(set(snapshot.value)) == 1, f"{name} is torn: {snapshot.value}"
                    assert snapshot.version >= before, f"{name} went back from {before} to {snapshot.version}"
                    self._versions[name] = snapshot.version
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self._wrong.append(error)

    def shows(self, number: int, *, names: Sequence[str] = ()) -> None:
        """Wait until the view serves what was published with this number."""
        eventually(lambda: {self._value(name) for name in names or self._versions} == {number})
        self.goes_on()

    def goes_on(self) -> None:
        assert not self._wrong, self._wrong

    def _value(self, name: str) -> Any:
        snapshot = self._view[name]
        assert snapshot is not None
        return snapshot.value[0]


def eventually(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    until = time.monotonic() + WITHIN_S
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.005)
