"""What the engine sends again, what it does not, and how long a call waits in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import attrs
import pytest

from swapstore.commands import Failed, Get
from swapstore.drivers.base import LEFT_S
from swapstore.engine import arun, run
from swapstore.errors import ReadOnly, ReplyLost, StoreFull, SwapstoreError, Throttled, Unavailable
from swapstore.protocol.operation import Batch, Operation, Wait, Within
from swapstore.recovery import Patience

STEP = Get("a")
BUSY = Throttled("too often", retry_after_s=2.0)
DEMOTED = Failed(ReadOnly("demoted"), again=True)


class Clock:
    """The time, which passes in sleeps and while a batch is under way."""

    def __init__(self) -> None:
        self.now = 100.0
        self.left: list[float] = []  # what the driver was told, or a sleep found
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.left.append(LEFT_S.get())
        self.slept.append(seconds)
        self.now += seconds


@attrs.define
class Driver:
    """Gives these answers one after the other, the last one for ever. Each takes so many seconds."""

    clock: Clock
    answers: list[Any]
    takes_s: float = 0.0
    sent: int = 0
    where: str = "here"
    kind: str = "test"
    binary_safe: bool = True

    def execute(self, commands: Any) -> list[Any]:
        self.clock.left.append(LEFT_S.get())
        self.sent += 1
        self.clock.now += self.takes_s
        answer = self.answers[0] if len(self.answers) == 1 else self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return [answer for _ in commands]

    def close(self) -> None: ...


Run = Callable[..., Any]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("swapstore.engine.time", made)
    monkeypatch.setattr("swapstore.recovery.time", made)
    return made


@pytest.fixture(params=["blocking", "asyncio"])
def running(request: pytest.FixtureRequest, clock: Clock) -> Run:
    """Return what runs an operation on a driver."""
    if request.param == "blocking":
        return lambda operation, driver, **options: run(operation, driver, clock.sleep, **options)

    def arunning(operation: Operation[Any], driver: Driver, **options: Any) -> Any:
        class Async:
            async def execute(self, commands: Any) -> list[Any]:
                return driver.execute(commands)

        async def sleep(seconds: float) -> None:
            clock.sleep(seconds)

        async def main() -> Any:
            made: Any = Async()
            result = await arun(operation, made, sleep, **options)
            clock.left.append(LEFT_S.get())
            return result

        return asyncio.run(main())

    return arunning


def one(until: float | None = None) -> Operation[list[Any] | SwapstoreError]:
    """Send one batch, and return the replies or the error."""
    try:
        return (yield Batch((STEP,), until=until))
    except SwapstoreError as error:
        return error


def stubborn() -> Operation[list[Any] | SwapstoreError]:
    """Send the batch again and again, until the call's time is over."""
    for _ in range(20):
        try:
            return (yield Batch((STEP,)))
        except SwapstoreError as error:
            if "the time-out of a call" in str(error):
                return error
    raise AssertionError("it goes on for ever")


def test_what_a_lease_protects_is_not_sent_after_a_pause_that_outlasts_it(running: Run, clock: Clock) -> None:
    """A writer whose lease has run out during a pause writes over its successor's publish."""
    driver = Driver(clock, [BUSY, b"done"])
    found = running(one(until=clock.now + 1), driver)
    assert isinstance(found, Unavailable)
    assert "lease" in str(found)
    assert driver.sent == 1


def test_what_a_lease_protects_is_not_sent_after_a_failover_that_outlasts_it(
    running: Run, clock: Clock
) -> None:
    """The same, while the store is demoted."""
    driver = Driver(clock, [DEMOTED, DEMOTED, b"done"], takes_s=0.6)
    found = running(one(until=clock.now + 1), driver, patience=Patience(2.0))
    assert isinstance(found, Unavailable)
    assert "lease" in str(found)
    assert driver.sent == 2
    assert running(one(until=clock.now + 3), driver, patience=Patience(2.0)) == [b"done"]


@pytest.mark.parametrize(
    "failure", [Unavailable("away"), ReplyLost("lost"), Throttled("too often", retry_after_s=0.0)], ids=type
)
def test_the_time_in_failed_batches_counts(running: Run, clock: Clock, failure: Exception) -> None:
    """A call lasts a multiple of its time-out when each of its batches takes long to fail."""
    began = clock.now
    driver = Driver(clock, [failure], takes_s=3.0)
    assert isinstance(running(stubborn(), driver, total_s=7.0), Unavailable)
    assert driver.sent == 3
    assert clock.now - began < 7 + 3


def test_the_time_in_batches_that_succeed_does_not_count(running: Run, clock: Clock) -> None:
    """A call that does much, without a failure, ends with an error."""

    def busy() -> Operation[int]:
        for _ in range(10):
            yield Batch((STEP,))
        return 10

    assert running(busy(), Driver(clock, [b"done"], takes_s=3.0), total_s=7.0) == 10


def test_the_pauses_of_a_failover_count(running: Run, clock: Clock) -> None:
    """A call with a short time-out waits as long as one without."""
    driver = Driver(clock, [DEMOTED])
    found = running(one(), driver, total_s=0.3, patience=Patience(5.0))
    assert isinstance(found, Unavailable)
    assert sum(clock.slept) < 0.3


def test_the_time_in_refused_batches_counts(running: Run, clock: Clock) -> None:
    """A node of a cluster that takes a second to refuse holds a call ten times as long as it may last."""
    began = clock.now
    driver = Driver(clock, [DEMOTED], takes_s=1.0)
    found = running(one(), driver, total_s=2.5, patience=Patience(60.0))
    assert isinstance(found, Unavailable)
    assert clock.now - began < 2.5 + 1


def test_the_driver_knows_what_is_left_and_nobody_else_does(running: Run, clock: Clock) -> None:
    """The bound of one call holds for what its thread does later, or during its pauses."""
    driver = Driver(clock, [BUSY, b"done"])
    before = LEFT_S.get()
    assert running(one(), driver, total_s=9.0) == [b"done"]
    first, pause, second, *after = clock.left
    assert first == 9.0
    assert pause == before
    assert second == pytest.approx(9.0 - clock.slept[0])
    assert {LEFT_S.get(), *after} == {before}
    running(one(), Driver(clock, [StoreFull("full")]), total_s=9.0)
    assert LEFT_S.get() == before


def test_what_may_have_been_carried_out_is_not_sent_again(running: Run, clock: Clock) -> None:
    """The engine sends a commit twice after a lost reply, and the operation does not learn of the first."""
    for error in (ReplyLost("lost"), Unavailable("the pool is exhausted")):
        driver = Driver(clock, [error, b"done"])
        assert running(one(), driver, patience=Patience(5.0)) is error
        assert driver.sent == 1


def test_a_failover_is_waited_for_and_not_hammered(running: Run, clock: Clock) -> None:
    """A server that is about to come back gets thousands of requests a second from each client."""
    driver = Driver(clock, [DEMOTED, DEMOTED, DEMOTED, DEMOTED, b"done"])
    began = clock.now
    assert running(one(), driver, patience=Patience(5.0)) == [b"done"]
    assert clock.now - began >= 0.3


def test_the_waits_of_an_operation_count(running: Run, clock: Clock) -> None:
    """A publish that conflicts again and again backs off for longer than its call may last."""

    def waiting() -> Operation[int]:
        for number in range(20):
            try:
                yield Wait(1.0)
            except Unavailable:
                return number
        return 20

    assert running(waiting(), Driver(clock, [b"done"]), total_s=3.5) == 3


def within(total_s: float, *, patient: bool) -> Operation[list[Any] | SwapstoreError]:
    """Send one batch within this time, and return the replies or the error."""
    yield Within(total_s, patient=patient)
    return (yield from one())


@pytest.mark.parametrize(("asked_s", "total_s"), [(0.3, None), (0.3, 9.0), (9.0, 0.3)])
def test_a_call_that_asks_for_less_time_gets_it_and_none_gets_more(
    running: Run, clock: Clock, asked_s: float, total_s: float | None
) -> None:
    """A report waits beyond the time-out of the store, or beyond its own."""
    down = Unavailable("down")
    down.again = True
    for answer in (down, DEMOTED):
        clock.slept.clear()
        clock.left.clear()
        driver = Driver(clock, [answer])
        found = running(within(asked_s, patient=True), driver, total_s=total_s, patience=Patience(5.0))
        assert isinstance(found, Unavailable)
        assert 0 < sum(clock.slept) < 0.3, "an outage is waited for, within the shorter of the two"
        assert driver.sent > 1
        assert clock.left[0] == 0.3, "the driver has to know"


def test_a_call_without_patience_tries_once(running: Run, clock: Clock) -> None:
    """A reader that has something to serve waits until a throttled store takes a batch again."""
    down = Unavailable("down")
    down.again = True
    for answer in (down, BUSY, DEMOTED):
        driver = Driver(clock, [answer])
        found: Any = running(within(9.0, patient=False), driver, patience=Patience(5.0))
        assert isinstance(found[0] if isinstance(found, list) else found, Unavailable | Failed)
        assert (driver.sent, clock.slept) == (1, [])
