"""A driver on which faults happen at random, drawn from a seed."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

from swapstore import Store
from swapstore.commands import Command
from swapstore.drivers.base import Driver
from swapstore.errors import ReplyLost, SwapstoreError, Unavailable

Fault = Literal["refused", "unsent", "torn", "late", "lost"]
FAULTS: tuple[Fault, ...] = ("unsent", "torn", "late", "lost")


class Chaos:
    """Draws a delay and perhaps a fault for each request. Several faults often follow each other.

    - `unsent`: the connection breaks before the server has received any part of the request;
    - `torn`: it breaks when the server has received a part of the request;
    - `late`: it breaks, and the request is delivered some time later;
    - `lost`: it breaks when the server has applied the request, instead of the reply;
    - `refused`: there is no connection at all.
    """

    def __init__(self, seed: int, *, rate: float = 0.2, delay_s: float = 0.0015) -> None:
        self._random = random.Random(seed)
        self._rate = rate
        self._delay_s = delay_s
        self._burst = 0
        self._lock = threading.Lock()
        self.drawn: Counter[str] = Counter()

    def refuses(self) -> bool:
        with self._lock:
            refused = self._random.random() < self._rate / 5
            self.drawn["refused"] += refused
            return refused

    def fault(self) -> Fault | None:
        with self._lock:
            self._burst -= 1
            if self._burst < 0 and self._random.random() >= self._rate:
                return None
            if self._burst < 0 and self._random.random() < 0.3:
                self._burst = self._random.randint(1, 4)
            fault = self._random.choice(FAULTS)
            self.drawn[fault] += 1
            return fault

    def delay(self, times: float = 1.0) -> None:
        with self._lock:
            seconds = self._random.uniform(0, times * self._delay_s)
        time.sleep(seconds)


class ChaosDriver:
    """Stands between a store and its driver. A batch is one request: it is done or not, never torn."""

    def __init__(self, driver: Driver, chaos: Chaos) -> None:
        self._driver = driver
        self._chaos = chaos
        self._late: list[threading.Thread] = []
        self.where = driver.where
        self.kind = driver.kind
        self.binary_safe = driver.binary_safe

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        if self._chaos.refuses():
            raise Unavailable("no connection, by chance")
        self._chaos.delay()
        fault = self._chaos.fault()
        if fault == "late":
            self._late.append(threading.Thread(target=self._deliver_late, args=(commands,)))
            self._late[-1].start()
        elif fault in {None, "lost"}:
            replies = self._driver.execute(commands)
            self._chaos.delay()
            if fault is None:
                return replies
        raise ReplyLost(f"the reply is lost, by chance ({fault})")

    def _deliver_late(self, commands: Sequence[Command[Any]]) -> None:
        self._chaos.delay(4)
        try:
            self._driver.execute(commands)
        except SwapstoreError:
            self._chaos.drawn["late and refused"] += 1

    def wait_for_late_batches(self) -> None:
        """Wait until every late batch has arrived."""
        for thread in self._late:
            thread.join()

    def close(self) -> None:
        """The driver belongs to the store that it was taken from."""
        self.wait_for_late_batches()


def disturbed(store: Store, chaos: Chaos) -> Store:
    """Return the store behind a driver with random faults. Close it first: it waits for late batches."""
    return Store(ChaosDriver(store._driver, chaos), store._context)
