"""HTTP connections of a REST driver, and what it remembers: kept, shared by threads, forked, closed."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import threading
import time
import traceback

import pytest

import swapstore
import swapstore.aio
from swapstore import InvalidInput, StoreClosed, SwapstoreError
from swapstore.commands import Get, Put, Register, Write
from swapstore.drivers.rest import address as rest_address
from swapstore.drivers.rest import transport
from swapstore.drivers.rest.aio import AsyncUpstashDriver
from swapstore.drivers.rest.conversation import Conversation, Response, SyncToken
from swapstore.drivers.rest.driver import UpstashDriver
from tests.rest.support import FACES, driver_of, store_on
from tests.support.rest import RestServer


def asyncio_driver(rest: RestServer) -> AsyncUpstashDriver:
    address = rest_address.parse(rest.url, rest.token, allow_http=False)
    return AsyncUpstashDriver(address, max_request=10_000_000)


@pytest.mark.parametrize("face", FACES)
def test_successive_requests_share_a_connection(face: str, rest: RestServer) -> None:
    """A handshake for each request makes a publish several times as slow."""
    with driver_of(face, rest.url, rest.token) as driver:
        store = store_on(driver, rest.url, rest.token)
        for number in range(5):
            store.publish("mena", {"n": number})
            store.read_latest("mena")
    assert len({asked.connection for asked in rest.requests}) == 1


@pytest.mark.parametrize("face", FACES)
def test_a_connection_that_was_idle_for_long_is_not_used(
    face: str, rest: RestServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway has forgotten the connection meanwhile, and the outcome of a publish is unknown."""
    monkeypatch.setattr(transport, "IDLE_S", 0.01)
    with driver_of(face, rest.url, rest.token) as driver:
        driver.execute([Get("a")])
        time.sleep(0.02)
        driver.execute([Get("a")])
    assert len({asked.connection for asked in rest.requests}) == 2


@pytest.mark.parametrize("face", FACES)
def test_a_publish_costs_one_round_trip(face: str, rest: RestServer) -> None:
    """A publish over the internet takes more than one round trip."""
    with driver_of(face, rest.url, rest.token) as driver:
        store = store_on(driver, rest.url, rest.token)
        store.publish("mena", {"n": 1})
        before = len(rest.requests)
        store.publish("mena", {"n": 2})
        assert len(rest.requests) - before == 1
        assert {(asked.method, asked.path) for asked in rest.requests} == {("POST", "/pipeline")}


def test_threads_share_a_driver(rest: RestServer) -> None:
    """Replies reach the wrong thread, or publishes get lost."""
    failed: list[Exception] = []
    with swapstore.connect(rest.url, token=rest.token) as store:

        def work(number: int) -> None:
            try:
                for n in range(5):
                    store.publish(f"d{number}", {"n": n})
                    latest = store.read_latest(f"d{number}")
                    assert latest is not None
                    assert latest.value == {"n": n}
                    store.publish("all", {"by": number, "n": n})
            except Exception as error:  # noqa: BLE001 - for the thread that waits
                failed.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert len(list(store.history("all"))) == 30


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_process_has_connections_of_its_own(rest: RestServer) -> None:
    """Two processes on one connection read each other's replies."""
    with swapstore.connect(rest.url, token=rest.token) as store:
        store.publish("mena", {"n": 1})
        child = os.fork()
        if not child:
            code = 1
            try:
                for n in range(10):
                    store.publish("child", {"n": n})
                code = 0
            finally:
                os._exit(code)
        for n in range(10):
            store.publish("parent", {"n": n})
        assert os.waitpid(child, 0)[1] == 0
        of = {
            name: {a.connection for a in rest.requests if name in str(a.commands)}
            for name in ("child", "parent")
        }
        assert not of["child"] & of["parent"]
        assert [len(list(store.history(name))) for name in ("child", "parent")] == [10, 10]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_process_of_an_asyncio_program(rest: RestServer) -> None:
    """A worker that is forked after the first request cannot use its store."""
    driver = asyncio_driver(rest)

    async def parent() -> int:
        await driver.execute([Put("a", b"x", 9999)])
        child = os.fork()
        if child:
            await driver.close()
        return child

    child = asyncio.run(parent())
    if not child:
        code = 1
        try:
            assert asyncio.run(driver.execute([Get("a")])) == [b"x"]
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0


def test_a_driver_belongs_to_one_event_loop(rest: RestServer) -> None:
    """A connection that is used from two event loops fails without an explanation."""
    driver = asyncio_driver(rest)

    async def here() -> None:
        await driver.execute([Get("a")])
        with pytest.raises(InvalidInput, match="another event loop"):
            await asyncio.to_thread(lambda: asyncio.run(driver.execute([Get("a")])))
        await driver.close()
        with pytest.raises(StoreClosed):
            await driver.execute([Get("a")])

    asyncio.run(here())


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # nothing can close them any more
def test_a_driver_is_closed_after_its_event_loop(rest: RestServer) -> None:
    """A program whose event loop has ended cannot close its store."""
    driver = asyncio_driver(rest)
    asyncio.run(driver.execute([Get("a")]))
    asyncio.run(driver.close())
    del driver._http
    gc.collect()


def test_a_driver_is_closed_in_its_event_loop(rest: RestServer) -> None:
    """Another event loop closes the connections, under the calls of the one that uses them."""
    driver = asyncio_driver(rest)

    async def here() -> None:
        await driver.execute([Get("a")])
        with pytest.raises(InvalidInput, match="another event loop"):
            await asyncio.to_thread(lambda: asyncio.run(driver.close()))
        assert await driver.execute([Get("a")]) == [None]
        await driver.close()

    asyncio.run(here())


def test_a_cancelled_request_leaves_no_answer_behind(rest: RestServer) -> None:
    """The next request reads the response of the one that was cancelled."""
    driver = asyncio_driver(rest)

    async def main() -> None:
        await driver.execute([Put("a", b"first", 9999), Put("b", b"second", 9999)])
        for moment in (0, 0.001, 0.002, 0.005, 0.02):
            rest.switches.delay_after(0.03, times=1)
            task = asyncio.create_task(driver.execute([Get("a")]))
            await asyncio.sleep(moment)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            rest.switches.reset()
            assert await driver.execute([Get("b")]) == [b"second"]
        await driver.close()

    asyncio.run(main())


@pytest.mark.parametrize("face", FACES)
def test_a_producer_reads_what_it_wrote(face: str, rest: RestServer) -> None:
    """A replica that lags shows a producer the version before its own."""
    with driver_of(face, rest.url, rest.token) as driver:
        driver.execute([Register("s", "m")])
        rest.lag.start()
        driver.execute([Put("a", b"new", 9999)])
        assert driver.execute([Get("a")]) == [b"new"]
    with driver_of(face, rest.url, rest.token) as other:
        assert other.execute([Get("a")]) == [None]


def test_an_older_read_does_not_replace_the_sync_token_of_a_write() -> None:
    """A read that was in progress when the write ended takes the writer back in time."""
    place = SyncToken()
    early, write, late = place.sending(), place.sending(), place.sending()
    place.reached("after the write", write, reads_only=False)
    for read in (early, late):
        place.reached("before the write", read, reads_only=True)
        assert place.token == "after the write"  # noqa: S105
    place.reached("later", place.sending(), reads_only=True)
    assert place.token == "later"  # noqa: S105
    for told in (None, "", "two\nlines", "t\u00f6ken"):
        place.reached(told, place.sending(), reads_only=False)
    assert place.token == "later"  # noqa: S105


def test_the_sync_token_of_a_write_counts_although_a_read_overtook_it() -> None:
    """A producer does not read what it has written, because a replica need not wait for it."""
    talk = Conversation(rest_address.parse("https://x.test", "t", allow_http=False), max_request=9999)
    write, read = talk.exchange([Write("a", b"1")]), talk.exchange([Get("a")])
    next(write), next(read)
    for exchange, result, told in ((read, "null", "before"), (write, '"OK"', "after")):
        body = b'[{"result":%s},{"result":"YmFzZTY0Pw=="}]' % result.encode()
        with pytest.raises(StopIteration):
            exchange.send(Response(200, {"upstash-sync-token": told}, body))
    assert ("upstash-sync-token", "after") in next(talk.exchange([Get("a")])).headers


def test_a_read_that_a_write_overtook_does_not_take_its_writer_back() -> None:
    """A producer does not read what it has written, because a read that began before has answered since."""
    talk = Conversation(rest_address.parse("https://x.test", "t", allow_http=False), max_request=9999)
    read, write = talk.exchange([Get("a")]), talk.exchange([Write("a", b"1")])
    next(read), next(write)
    for exchange, result, told in ((write, '"OK"', "after"), (read, "null", "before")):
        body = b'[{"result":%s},{"result":"YmFzZTY0Pw=="}]' % result.encode()
        with pytest.raises(StopIteration):
            exchange.send(Response(200, {"upstash-sync-token": told}, body))
    assert ("upstash-sync-token", "after") in next(talk.exchange([Get("a")])).headers


@pytest.mark.parametrize("face", FACES)
def test_no_log_and_no_error_shows_the_token(
    face: str, rest: RestServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A reader of the logs can read and overwrite the data."""
    caplog.set_level(logging.DEBUG)
    quoting = f'{{"error":"ERR bad token {rest.token}"}}'
    shown: list[str] = []
    with driver_of(face, rest.url, rest.token) as driver:
        store = store_on(driver, rest.url, rest.token)
        store.publish("mena", {"n": 1})
        for status in (200, 301, 400, 401, 404, 413, 429, 500):
            for headers in ({"Retry-After": "99"}, {"Location": "https://e.test/"}):
                rest.switches.answer(status, quoting, headers, times=9)
                with pytest.raises(SwapstoreError) as caught:
                    store.read_latest("mena")
                shown += traceback.format_exception(caught.value)
                rest.switches.reset()
        rest.switches.fail(1, f"ERR you are {rest.token}")
        (refused,) = driver.execute([Get("a")])
        shown.append(repr(refused))
        rest.switches.drop_before(times=99)
        with pytest.raises(SwapstoreError) as caught:
            store.read_latest("mena")
        shown += traceback.format_exception(caught.value)
        shown += [repr(store), repr(driver), repr(driver.where)]
    logged = [record for record in caplog.records if record.name.startswith("http")]
    assert logged, "the client logs nothing: this test sees nothing"
    shown += [record.getMessage() for record in caplog.records]
    assert rest.token not in "\n".join(shown)


def test_a_follower_polls(rest: RestServer) -> None:
    """A follower over REST, where there are no hints, waits forever."""
    with swapstore.connect(rest.url, token=rest.token) as store:
        store.publish("mena", {"n": 1})
        following = store.follow("mena", after=1)
        later = threading.Timer(0.2, lambda: store.publish("mena", {"n": 2}))
        later.start()
        began = time.monotonic()
        assert getattr(next(iter(following)), "version", None) == 2
        assert time.monotonic() - began < 20
        later.join()


def test_doctor_asks_the_endpoint(rest: RestServer) -> None:
    """`doctor` does not report that commits or binary payloads do not work."""
    with swapstore.connect(rest.url, token=rest.token) as store:
        verdicts = {check.name: str(check.verdict) for check in store.doctor()}
        assert {verdicts[name] for name in ("endpoint", "scripts", "replies")} == {"ok"}
        rest.switches.denied = frozenset({"EVAL", "EVALSHA", "INFO", "CONFIG", "ROLE"})
        checks = {check.name: check for check in store.doctor()}
        assert str(checks["scripts"].verdict) == "warning"
        assert str(checks["replies"].verdict) == "unknown"
        assert {str(checks[name].verdict) for name in ("eviction", "memory", "persistence")} == {"unknown"}
        assert all(check.advice for check in checks.values() if str(check.verdict) != "ok")


def test_a_store_that_is_closed_under_a_publish(rest: RestServer) -> None:
    """A publish of another thread waits until its time-out, and leaves a connection open."""
    store = swapstore.connect(rest.url, token=rest.token)
    store.publish("mena", {"n": 1})
    asked = len(rest.requests)
    rest.switches.delay_after(0.3, times=1)
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(store.publish("mena", {"n": 2})))
    thread.start()
    while len(rest.requests) == asked:
        time.sleep(0.001)
    store.close()
    thread.join()
    assert [getattr(each, "version", each) for each in found] == [2]
    assert len({each.connection for each in rest.requests}) == 1
    driver = store._driver
    assert isinstance(driver, UpstashDriver)
    assert driver._http.connections == []
    with pytest.raises(StoreClosed):
        driver.execute([Get("a")])
