"""An endpoint that asks for a pause: the batch waits, and the operation does not notice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import msgspec
import pytest

import swapstore.aio
from swapstore import Store, Throttled
from swapstore.aio import AsyncStore
from swapstore.drivers.rest.errors import retry_after_s
from tests.rest.support import driver_of, store_on
from tests.support.rest import RestServer


@pytest.fixture
def slept() -> list[float]:
    return []


@pytest.fixture
def store(rest: RestServer, slept: list[float]) -> Iterator[Store]:
    with driver_of("blocking", rest.url, rest.token) as driver:
        made = store_on(driver, rest.url, rest.token, slept=slept)
        made.publish("mena", {"n": 1}, id="one")
        yield made


def test_a_short_pause_is_waited_out(store: Store, rest: RestServer, slept: list[float]) -> None:
    """A publish fails that needed a moment's pause, or ignores the pause that was asked for."""
    rest.switches.answer(429, "", {"Retry-After": "2"}, when="EVALSHA", times=3)
    assert store.publish("mena", {"n": 2}).version == 2
    assert len(slept) == 3
    assert all(2 < each < 3 for each in slept)


def test_waiting_ends_after_several_pauses(store: Store, rest: RestServer, slept: list[float]) -> None:
    """A producer is never told that the endpoint stays busy, nor how long it should wait."""
    rest.switches.answer(429, "", {"Retry-After": "2"}, when="EVALSHA", times=4)
    with pytest.raises(Throttled) as caught:
        store.publish("mena", {"n": 2}, id="two")
    assert caught.value.retry_after_s == 2
    assert len(slept) == 3
    assert store.publish("mena", {"n": 2}, id="two").version == 2


def test_a_long_pause_is_left_to_the_caller(store: Store, rest: RestServer, slept: list[float]) -> None:
    """A cron job that sleeps for an hour inside a library call looks as if it hung."""
    rest.switches.answer(429, "", {"Retry-After": "11"}, times=1)
    with pytest.raises(Throttled, match="in 11 s"):
        store.read_latest("mena")
    assert slept == []


def test_pauses_grow_if_the_endpoint_names_none(store: Store, rest: RestServer, slept: list[float]) -> None:
    """Throttled clients all come back at the same moment, again and again."""
    rest.switches.answer(429, "", times=3)
    assert store.read_latest("mena") is not None
    assert [round(each, 6) // 1 for each in slept] == [1, 2, 4]
    assert all(each != int(each) for each in slept), "no jitter"


def test_asyncio_waits_in_the_same_way(rest: RestServer) -> None:
    """The asyncio store fails where the blocking one waits."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def main() -> None:
        async with swapstore.aio.connect(rest.url, token=rest.token) as made:
            store = AsyncStore(made._driver, msgspec.structs.replace(made._context), sleep=sleep)
            rest.switches.answer(429, "", {"Retry-After": "2"}, times=3)
            assert await store.read_latest("mena") is None
            rest.switches.answer(429, "", {"Retry-After": "2"}, times=4)
            with pytest.raises(Throttled):
                await store.read_latest("mena")

    asyncio.run(main())
    assert len(slept) == 6


def test_a_pause_may_be_given_as_a_date() -> None:
    """A gateway that gives a date, as many do, is asked again too early."""
    now = datetime(2026, 3, 1, 12, tzinfo=UTC)
    later = format_datetime(now + timedelta(seconds=7), usegmt=True)
    date = format_datetime(now, usegmt=True)
    assert retry_after_s({"retry-after": later, "date": date}) == 7
    assert retry_after_s({"retry-after": date, "date": later}) == 0
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)
    assert 55 < (retry_after_s({"retry-after": soon}) or 0) <= 60
    for said in ("", "soon", "-1", "nan", "inf", "Mon, 99 Foo 2026 00:00:00 GMT"):
        assert retry_after_s({"retry-after": said}) is None
    assert retry_after_s({"retry-after": " 2.5 "}) == 2.5
