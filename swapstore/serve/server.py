"""The server of `swapstore serve`: uvicorn, with limits that a hostile client cannot beat."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from types import FrameType
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request

from swapstore.errors import InvalidInput
from swapstore.serve import problems
from swapstore.serve.connections import Connection, Connections, Limits
from swapstore.serve.feeds import Feeds
from swapstore.serve.paths import App, Message, Receive, Send
from swapstore.store import AsyncStore

BACKLOG = 256
SPARE_FILES = BACKLOG + 256  # accepted while the oldest are closed; the store's own, and others
FEWEST_CONNECTIONS = 64
PORTION_BYTES = 64 * 1024
LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


# --- where it listens ----------------------------------------------------------------------------------


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0: on any that is free. Raises `InvalidInput` if it cannot."""
    if not 0 <= port <= 65_535:  # noqa: PLR2004
        raise InvalidInput(f"the port must be 0 to 65535, not {port}")
    try:
        with ExitStack() as undo:
            family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            # Where the protocol is not named, asyncio does not set TCP_NODELAY, and a response of two small
            # writes takes 40 ms.
            made = undo.enter_context(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
            if os.name == "posix":  # elsewhere it would allow two servers on one port
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.bind(address)
            made.listen(BACKLOG)
            undo.pop_all()
            return made
    except (OSError, UnicodeError) as error:
        code, place = getattr(error, "errno", None), f"cannot listen on {host}, port {port}"
        if code == errno.EADDRINUSE:
            raise InvalidInput(
                f"{place}: another process does; name another port, or 0 for any that is free"
            ) from None
        raise InvalidInput(f"{place}: {getattr(error, 'strerror', None) or error}") from None


def url_of(listening: socket.socket) -> str:
    """Return the address of a server."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def is_on_loopback(listening: socket.socket) -> bool:
    """Whether only this machine can reach it."""
    return ipaddress.ip_address(listening.getsockname()[0].partition("%")[0]).is_loopback


# --- layers around the app -----------------------------------------------------------------------------


class KnownHosts:
    """Answers only requests whose `Host` is one of these names.

    On loopback, a page of anybody could have its own name lead here (DNS rebinding), and read what only this
    machine may read.
    """

    def __init__(self, app: App, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        host = Request(scope).headers.get("host", "").lower()
        name = host if host.endswith("]") else host.rpartition(":")[0] or host
        app = self._app if name in self._hosts else problems.problem(421, "Misdirected Request", ADVICE)
        await app(scope, receive, send)


ADVICE = "this server does not answer to this name: start it with --allowed-host NAME"


class Portions:
    """Sends large bodies in portions: uvicorn would keep a copy of the body for each client that is slow."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on."""

        async def send_portions(message: Message) -> None:
            body = message.get("body", b"")
            last = max(0, len(body) - 1) // PORTION_BYTES
            for number in range(last):
                portion = body[number * PORTION_BYTES : (number + 1) * PORTION_BYTES]
                await send({**message, "body": portion, "more_body": True})
            await send({**message, "body": body[last * PORTION_BYTES :]} if last else message)

        await self._app(scope, receive, send_portions)


# --- the server ----------------------------------------------------------------------------------------


def run(
    app: Starlette,
    store: AsyncStore,
    listening: socket.socket,
    *,
    hosts: Collection[str] | None,
    started: Callable[[], None],
) -> int | None:
    """Serve until a signal comes, close the store, and return the signal."""

    async def serve() -> int | None:
        server = Server(app, hosts=hosts, started=started)
        async with store:
            await server.serve([listening])
        return server.ended_by

    return asyncio.run(serve())


class Server(uvicorn.Server):
    """Runs the app of a site until SIGINT or SIGTERM, and then ends within `limits.shutdown_s`.

    - `hosts`: the names that it answers to; None: to any.
    - `started` is called when it answers requests.
    """

    def __init__(
        self,
        app: Starlette,
        *,
        hosts: Collection[str] | None = None,
        limits: Limits | None = None,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        limits = limits or Limits()
        self._limits = limits
        self._feeds: Feeds = app.state.site.feeds
        self._tell_started = started
        self.ended_by: int | None = None
        layered: App = Portions(cast("App", app))
        connections = Connections(_affordable(limits.connections))
        super().__init__(
            uvicorn.Config(
                cast("Any", layered if hosts is None else KnownHosts(layered, hosts)),
                http=cast("Any", partial(Connection, connections, limits)),
                ws="none",
                interface="asgi3",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=limits.keep_alive_s,
                h11_max_incomplete_event_size=limits.head_bytes,
            )
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        self._tell_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams of events, which have no end, and let the other requests end."""
        await self._feeds.close()
        timer = asyncio.get_running_loop().call_later(self._limits.shutdown_s, self._cut)
        await super().shutdown(sockets)
        timer.cancel()
        # What is cut short now is no error of the app.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)

    def _cut(self) -> None:
        """Give up requests that take too long."""
        self.force_exit = True
        for connection in list(self.server_state.connections):
            cast("Connection", connection).transport.abort()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End at a signal. uvicorn would raise it once more at the end, for the one who called it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {each: signal.signal(each, self.handle_exit) for each in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for each, handler in before.items():
                signal.signal(each, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; a second SIGINT does not wait for requests that are under way."""
        super().handle_exit(sig, frame)
        self.ended_by = sig


def _affordable(most: int) -> int:
    """Return how many connections there may be: as many as wanted, or as this process may have files."""
    try:
        import resource  # noqa: PLC0415 - POSIX only
    except ImportError:
        return most
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most + SPARE_FILES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return most if soft == resource.RLIM_INFINITY else max(FEWEST_CONNECTIONS, min(most, soft - SPARE_FILES))
