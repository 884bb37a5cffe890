"""The endpoint for probes, behind real servers, with the store stopped and started."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

import swapstore
from swapstore import Bound, InvalidInput, Store, Timeout
from swapstore.aio import AsyncStore
from swapstore.http import health
from swapstore.testing import SimulatedStore
from tests.support.outage import async_breakable
from tests.support.valkey import Server
from tests.support.web import Answer, running_asgi

pytestmark = pytest.mark.server

START_S = 20
LONG_S = 60


def ask(port: int, path: str = "/", method: str = "GET") -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONG_S)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


# --- the servers -----------------------------------------------------------------------------------


@contextmanager
def uvicorn_server(app: Any) -> Iterator[int]:
    with running_asgi(app) as site:
        yield site.port


class Threaded(ThreadingMixIn, WSGIServer):
    """Answers each request in a thread of its own."""

    request_queue_size = 50


class Quiet(WSGIRequestHandler):
    """Writes no access log."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Write nothing."""


@contextmanager
def wsgi_server(app: Any) -> Iterator[int]:
    with make_server("127.0.0.1", 0, app, server_class=Threaded, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def closing(app: Any, store: Any) -> Any:
    """An app that also closes an asyncio store at the end of the server, in its event loop."""

    async def closed(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        if scope["type"] == "lifespan":
            await store.close()

    return closed


@contextmanager
def serving(
    face: str, url: str, bounds: Any = None, within_s: float = LONG_S, **options: Any
) -> Iterator[int]:
    """Serve the endpoint for a store at this address on a real server, and return its port."""
    if face == "asyncio":
        store = swapstore.aio.connect(url, **options)
        with uvicorn_server(closing(health.asgi_app(store, bounds, timeout=within_s), store)) as port:
            yield port
        return
    with swapstore.connect(url, **options) as blocking:
        if face == "asgi":
            with uvicorn_server(health.asgi_app(blocking, bounds, timeout=within_s)) as port:
                yield port
        else:
            with wsgi_server(health.wsgi_app(blocking, bounds, timeout=within_s)) as port:
                yield port


FACES = pytest.mark.parametrize("face", ["asgi", "asyncio", "wsgi"])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server that keeps its data when it is stopped, with two datasets."""
    with Server(tmp_path, "--appendonly", "yes", "--appendfsync", "always") as running:
        with swapstore.connect(running.url) as store:
            store.publish("mena", [1], count=128)
            store.publish("europe", {"a": 1})
        yield running


@pytest.fixture(autouse=True)
def _uncached(monkeypatch: pytest.MonkeyPatch) -> None:
    """Check at each request, so that no test waits for a second to pass."""
    monkeypatch.setattr(health, "SERVED_S", 0.0)


# --- what a probe gets -----------------------------------------------------------------------------


@FACES
def test_a_probe_sees_the_store_go_and_come_back(face: str, server: Server) -> None:
    """A load balancer keeps a machine in service that has no data, or never takes it back."""
    bounds = {"mena": Bound(max_age="1h", min_count=100), "europe": None}
    with serving(face, server.url, bounds, patience=0) as port:
        up = ask(port, "/healthz")
        assert (up.status, up.json["ok"], up.json["state"]) == (200, True, "fresh")
        assert up.json["datasets"]["mena"]["count"] == 128
        assert up.headers["Content-Type"] == "application/json"
        assert up.headers["Cache-Control"] == "no-store"
        server.stop()
        down = ask(port)
        assert (down.status, down.json["ok"]) == (503, False)
        assert {each["state"] for each in down.json["datasets"].values()} == {"unreachable"}
        server.start()
        assert ask(port).status == 200


@FACES
def test_stale_missing_and_small_are_503(face: str, server: Server) -> None:
    """A probe gets 200 for data that nobody should be served."""
    bounds = {"mena": Bound(min_count=129), "europe": None, "asia": "1h"}
    with serving(face, server.url, bounds) as port:
        answer = ask(port)
    found = {name: each["state"] for name, each in answer.json["datasets"].items()}
    assert (answer.status, found) == (503, {"mena": "too_small", "europe": "fresh", "asia": "missing"})


@FACES
def test_head_and_other_methods(face: str, server: Server) -> None:
    """A probe that sends HEAD gets a body that is read as the next response, or a POST is a check."""
    with serving(face, server.url) as port:
        got, head, posted = (ask(port, method=method) for method in ("GET", "HEAD", "POST"))
    assert (head.status, head.body) == (200, b"")
    assert abs(int(head.headers["Content-Length"]) - len(got.body)) < 20  # ages have more digits
    assert (posted.status, posted.headers["Allow"]) == (405, "GET, HEAD")


@FACES
def test_no_address_and_no_secret_is_shown(face: str, server: Server) -> None:
    """Everybody who can reach the endpoint reads where the store is, and its password."""
    url = server.url.replace("://", "://user:s3cret@")
    server.stop()
    for bounds in (None, {"mena": "1h"}):
        with serving(face, url, bounds, patience=0) as port:
            answer = ask(port)
        assert answer.status == 503
        for word in (b"s3cret", b"127.0.0.1", str(server.port).encode(), b"redis"):
            assert word not in answer.body
        assert b"Unavailable" in answer.body


def answers_soon(port: int) -> None:
    """Ask some times, while the store cannot be reached."""
    began = time.monotonic()
    for _ in range(3):
        late = ask(port)
        assert (late.status, late.json["state"]) == (503, "unreachable")
    assert time.monotonic() - began < LONG_S / 3


@FACES
def test_a_silent_server_delays_a_probe_by_the_timeout_only(face: str, server: Server) -> None:
    """A probe, and each one after it, hangs as long as a publish would wait."""
    slow = Timeout(connect=LONG_S * 2, reply=LONG_S * 2)
    process = server._process
    assert process is not None
    with serving(face, server.url, {"mena": "1h"}, 0.3, timeout=slow) as port:
        assert ask(port).status == 200
        process.send_signal(signal.SIGSTOP)
        try:
            answers_soon(port)
        finally:
            process.send_signal(signal.SIGCONT)
        until(lambda: ask(port).status == 200)


@FACES
def test_a_check_that_no_timeout_reaches_delays_no_probe(
    face: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each probe hangs for as long as a name server that is gone is waited for."""
    over = threading.Event()

    def hanging(*_: Any, **__: Any) -> None:
        over.wait(LONG_S)

    async def hanging_task(*_: Any, **__: Any) -> None:
        await asyncio.to_thread(over.wait, LONG_S)

    monkeypatch.setattr(Store, "health", hanging)
    monkeypatch.setattr(AsyncStore, "health", hanging_task)
    with serving(face, f"sqlite:///{tmp_path}/store.db", {"mena": "1h"}, 0.3) as port:
        try:
            answers_soon(port)
        finally:
            over.set()


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LONG_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("face", ["asgi", "asyncio"])
def test_a_check_does_not_block_the_event_loop(face: str, server: Server) -> None:
    """A silent store stops all requests of the web server, not only those of the probe."""
    store: Any = swapstore.connect(server.url) if face == "asgi" else swapstore.aio.connect(server.url)
    app = health.asgi_app(store, timeout=LONG_S)

    async def site(scope: Any, receive: Any, send: Any) -> None:
        if scope.get("path") != "/page":
            await app(scope, receive, send)
            if scope["type"] == "lifespan" and face == "asyncio":
                await store.close()
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"page"})

    process = server._process
    assert process is not None
    with uvicorn_server(site) as port, ThreadPoolExecutor(1) as pool:
        assert ask(port).status == 200
        process.send_signal(signal.SIGSTOP)
        try:
            probe = pool.submit(ask, port)
            assert ask(port, "/page").body == b"page"
            assert not probe.done()
        finally:
            process.send_signal(signal.SIGCONT)
        assert probe.result(LONG_S).status == 200
    if face == "asgi":
        store.close()


@FACES
def test_many_probes_are_one_check(face: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Probes from fifty load balancers are fifty times the load on the store."""
    monkeypatch.setattr(health, "SERVED_S", LONG_S)
    with server.client() as client:
        with serving(face, server.url, {"mena": None, "europe": None}) as port, ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: ask(port), range(40)))
        calls = client.info("commandstats")
    assert {(answer.status, answer.body) for answer in answers} == {(200, answers[0].body)}
    assert calls["cmdstat_get"]["calls"] == 2 + 2  # the first publish of each dataset reads its manifest


@FACES
def test_a_report_is_served_for_a_second_only(face: str, server: Server) -> None:
    """A probe goes on to see the report of an hour ago."""
    with serving(face, server.url, {"asia": None}, patience=0) as port:
        assert ask(port).status == 503
        with swapstore.connect(server.url) as store:
            store.publish("asia", 1)
        assert ask(port).status == 200


def test_a_closed_store_is_unreachable(server: Server) -> None:
    """An app that shuts down answers probes with a traceback."""
    store = swapstore.connect(server.url)
    with wsgi_server(health.wsgi_app(store, {"mena": None})) as port:
        store.close()
        answer = ask(port)
    assert (answer.status, answer.json["state"]) == (503, "unreachable")


def test_a_worker_that_is_forked_during_a_check_has_checks_of_its_own(server: Server) -> None:
    """Each worker of a server that preloads the app waits for a check whose thread it does not have."""
    with swapstore.connect(server.url) as store:
        app = health.wsgi_app(store, {"mena": None}, timeout=LONG_S / 3)
        process = server._process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        asking = threading.Thread(target=call, args=(app,))
        asking.start()
        checks: Any = next(cell.cell_contents for cell in app.__closure__ or ())
        until(lambda: checks._last is not None)
        child = os.fork()
        if child == 0:
            os._exit(answered(app))
        process.send_signal(signal.SIGCONT)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        asking.join()


def call(app: Any) -> list[str]:
    statuses: list[str] = []
    app({"REQUEST_METHOD": "GET"}, lambda status, _: statuses.append(status))
    return statuses


def answered(app: Any) -> int:
    try:
        return 0 if call(app) == ["200 OK"] else 1
    except BaseException:  # noqa: BLE001 - a child must end here
        return 2


async def probed(app: Any) -> tuple[int, Any]:
    """Return the status and the report that a probe is answered with."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    await app({"type": "http", "method": "GET"}, no_message, send)
    return sent[0]["status"], json.loads(sent[1]["body"])


async def no_message() -> Any:
    raise AssertionError("nothing is asked of a probe")


@pytest.mark.parametrize("is_cancelled", [pytest.param(True, id="cancelled"), pytest.param(False, id="lost")])
def test_a_check_whose_event_loop_ends_ends_no_later_probe(
    is_cancelled: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe is cancelled by nobody, or waits for nobody, because the loop of the one before was closed."""
    monkeypatch.setattr(health, "SERVED_S", LONG_S)
    with SimulatedStore().connect() as producer:
        producer.publish("mena", 1)
        store, driver = async_breakable(producer)
        app: Any = health.asgi_app(store, {"mena": None}, timeout=0.01)
        loop = asyncio.new_event_loop()

        async def first() -> int:
            driver.held = asyncio.Event()
            return (await probed(app))[0]

        if is_cancelled:
            assert asyncio.run(first()) == 503
        else:
            monkeypatch.setattr(health, "LOST_S", 0)
            assert loop.run_until_complete(first()) == 503
        loop.close()
        driver.held = None
        checks: Any = next(cell.cell_contents for cell in app._app.__closure__)
        checks._timeout_s = LONG_S
        assert asyncio.run(probed(app))[0] == 200


def test_a_closed_store_for_asyncio_is_unreachable_at_once() -> None:
    """A probe waits for the end of a check that has failed, or its report says nothing of the datasets."""

    async def probe() -> tuple[int, Any]:
        with SimulatedStore().connect() as producer:
            store, _ = async_breakable(producer)
            await store.close()
            app = health.asgi_app(store, {"mena": None}, timeout=2 * LONG_S)
            return await asyncio.wait_for(probed(app), LONG_S / 2)

    status, report = asyncio.run(probe())
    assert (status, report["state"]) == (503, "unreachable")
    assert report["datasets"]["mena"]["state"] == "unreachable"


@pytest.mark.parametrize("kind", [Store, AsyncStore])
def test_a_check_takes_no_longer_than_a_probe_waits(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A check goes on after its probe, or ends before it."""
    asked: list[float] = []
    report = SimulatedStore().connect().health({})

    def checked(_: Any, __: Any, *, timeout: float) -> Any:
        asked.append(timeout)

        async def later() -> Any:
            return report

        return report if kind is Store else later()

    monkeypatch.setattr(kind, "health", checked)
    store: Any = SimulatedStore().connect()
    if kind is AsyncStore:
        store = async_breakable(store)[0]
    asyncio.run(probed(health.asgi_app(store, {}, timeout=LONG_S)))
    assert asked == [LONG_S]


def test_the_end_of_a_server_is_answered() -> None:
    """A server waits for the app's answer before it stops."""
    messages = iter(["lifespan.startup", "lifespan.shutdown"])
    sent: list[str] = []

    async def receive() -> Any:
        return {"type": next(messages)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    with SimulatedStore().connect() as store:
        app: Any = health.asgi_app(store, {"mena": None})
        asyncio.run(app({"type": "lifespan"}, receive, send))
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_a_check_that_hangs_does_not_keep_the_process() -> None:
    """A server that is told to stop waits for a store that does not answer."""
    script = """
import threading
from swapstore.http import health
from swapstore.testing import SimulatedStore
from tests.support.outage import breakable
store, driver = breakable(SimulatedStore().connect())
driver.go_down()
driver.hold = threading.Event()
app = health.wsgi_app(store, {"mena": None}, timeout=0.01)
app({"REQUEST_METHOD": "GET"}, lambda status, headers: print(status))
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LONG_S / 2, check=False)
    assert done.stdout == "503 Service Unavailable\n", done.stderr


def test_a_check_that_cannot_begin_holds_up_no_probe(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a free thread, for a moment, is out of the pool for a minute."""
    monkeypatch.setattr(health, "SERVED_S", 0)
    with SimulatedStore().connect() as store:
        store.publish("mena", 1)
        app = health.wsgi_app(store, {"mena": None}, timeout=LONG_S)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", no_thread)
            with pytest.raises(RuntimeError):
                call(app)
        assert call(app) == ["200 OK"]


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_what_cannot_be_checked_is_refused_at_once(server: Server) -> None:
    """A typo in a bound is found at the first probe, after the deployment."""
    with swapstore.connect(server.url) as store:
        for make in (health.asgi_app, health.wsgi_app):
            with pytest.raises(InvalidInput, match="dataset 'mena': '12' is not a duration"):
                make(store, {"mena": "12"})
            with pytest.raises(InvalidInput, match="timeout"):
                make(store, timeout=0)
            with pytest.raises(InvalidInput, match="takes a Store"):
                make("redis://localhost")  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match="use health.asgi_app"):
            health.wsgi_app(swapstore.aio.connect(server.url))  # type: ignore[arg-type]
    assert isinstance(store, Store)


def test_a_router_takes_the_app_as_it_is(store: Store) -> None:
    """Starlette takes a function for a handler of its own: the probe gets 500."""
    store.publish("mena", 1)
    app = Starlette(routes=[Route("/healthz", health.asgi_app(store, {"mena": "12h"}))])
    with uvicorn_server(app) as port:
        assert ask(port, "/healthz").status == 200
        assert ask(port, "/healthz", "HEAD").status == 200
