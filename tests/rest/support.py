"""Support for the tests of the REST drivers: sync and asyncio as one, short time-outs, a tiny endpoint."""

from __future__ import annotations

import inspect
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

import swapstore
import swapstore.aio
from swapstore import Store, Timeout
from swapstore.connect import BLOCKING, DEFAULT_MAX_REQUEST, prepare
from swapstore.drivers.base import Driver
from swapstore.drivers.rest import address as rest_address
from swapstore.drivers.rest.aio import AsyncUpstashDriver
from swapstore.drivers.rest.driver import UpstashDriver
from swapstore.testing.simulated import VirtualClock
from tests.aio.support import Blocking, InThread

FACES = ("blocking", "asyncio")
QUICK = Timeout(connect=1, reply=0.2, total=0.6)
TOKEN = "AsecretTokenThatMustNotBeShown"  # noqa: S105 - it opens nothing


@contextmanager
def driver_of(
    face: str,
    url: str,
    token: str = TOKEN,
    *,
    timeout: Timeout | None = None,
    max_request: int = DEFAULT_MAX_REQUEST,
) -> Iterator[Driver]:
    """A driver, sync or asyncio, as a blocking one."""
    address = rest_address.parse(url, token, allow_http=False)
    if face == "blocking":
        driver = UpstashDriver(address, timeout=timeout, max_request=max_request)
        yield driver
        driver.close()
        return
    with InThread() as home:

        async def made() -> AsyncUpstashDriver:
            return AsyncUpstashDriver(address, timeout=timeout, max_request=max_request)

        behind = home.run(made())
        yield Blocking(behind, home)
        home.run(behind.close())


def store_on(
    driver: Driver,
    url: str,
    token: str = TOKEN,
    *,
    slept: list[float] | None = None,
    timeout: Timeout | None = None,
) -> Store:
    """A store as connect() makes it, on this driver and a virtual clock; nothing was sent before."""
    options = {
        name: parameter.default
        for name, parameter in inspect.signature(swapstore.connect).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    unused, _, context = prepare(BLOCKING, url, **{**options, "token": token, "timeout": timeout})
    unused.close()
    return Store(driver, msgspec.structs.replace(context, clock=_Clock(slept if slept is not None else [])))


class _Clock(VirtualClock):
    """Records how long it was asked to sleep."""

    def __init__(self, slept: list[float]) -> None:
        super().__init__()
        self.slept = slept

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        super().sleep(seconds)


@contextmanager
def endpoint(serve: Callable[[socket.socket], None]) -> Iterator[str]:
    """A listener that treats each connection as the test says; yields its URL."""
    stopping = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            while not stopping.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:  # closed: this thread was started late
                    return
                with connection:
                    if not stopping.is_set():
                        try:
                            serve(connection)
                        except OSError:
                            continue

        thread = threading.Thread(target=accept)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        stopping.set()
        with socket.create_connection(listener.getsockname()):
            thread.join(10)


def request_of(connection: socket.socket) -> bytes:
    """Read one whole request."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _received(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    while len(body) < length:
        body += _received(connection)
    return body


def _received(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionAbortedError
    return data
