"""An endpoint for load balancers and probes: 200 if all datasets are fresh, or else 503, and the report.

    from swapstore.http import health

    app = health.asgi_app(store, {"mena": "12h", "europe": "6h"})  # or health.wsgi_app(store, …)

It answers GET and HEAD, on every path, so mount it where you want it. The body is the report as JSON. It
contains names of datasets, and neither an address nor the text of an error.

Probes come often, and from many sides. So one check runs at a time, the probes that come while it runs wait
for it, and its report is served for a second. A check of a blocking store runs in a thread of its own: the
event loop goes on, and a silent server delays no answer beyond `timeout`.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import msgspec

from swapstore import arguments
from swapstore.errors import InvalidInput, StoreClosed, Unavailable
from swapstore.forks import survive_forks
from swapstore.health import Health, bounds_of, judged
from swapstore.http.apps import METHODS, NOT_ALLOWED, send_asgi, send_wsgi
from swapstore.http.responses import Response, whole
from swapstore.store import AsyncStore, Store

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping
    from datetime import timedelta

    from swapstore.health import Bound

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    StartResponse = Callable[..., Any]

__all__ = ["asgi_app", "wsgi_app"]

SERVED_S = 1.0  # how long a report is served
LOST_S = 60.0  # after that, a check without an end is given up: its event loop is closed, perhaps


def asgi_app(
    store: Store | AsyncStore,
    bounds: Mapping[str, Bound | timedelta | str | None] | None = None,
    *,
    timeout: float = 2.0,
) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    """Return an ASGI app that answers with the health of a store, blocking or for asyncio.

    `bounds`: as for `Store.health`. `timeout`: how long a probe waits, in seconds; then the answer is 503,
    `unreachable`. The app does not close the store. Raises `InvalidInput` for a bound that cannot be used.
    """
    if not isinstance(store, Store | AsyncStore):
        raise InvalidInput(f"health.asgi_app takes a Store or an AsyncStore, not a {type(store).__name__}")
    checks = _Checks(store, bounds, timeout)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _live(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"health.asgi_app answers HTTP, not {scope['type']!r}")
        method = scope["method"]
        made = _answer(method, await checks.areport()) if method in METHODS else NOT_ALLOWED
        await send_asgi(made, send)

    return _AsgiApp(app)


class _AsgiApp:
    """An ASGI app that is no function: routers, such as that of Starlette, take a function for a handler."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


def wsgi_app(
    store: Store,
    bounds: Mapping[str, Bound | timedelta | str | None] | None = None,
    *,
    timeout: float = 2.0,
) -> Callable[[dict[str, Any], StartResponse], Iterable[bytes]]:
    """Return a WSGI app that answers with the health of a store. Everything else is as for `asgi_app`."""
    if not isinstance(store, Store):
        raise InvalidInput("health.wsgi_app takes a Store: use health.asgi_app for one of swapstore.aio")
    checks = _Checks(store, bounds, timeout)

    def app(environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        method = environ["REQUEST_METHOD"]
        made = _answer(method, checks.report()) if method in METHODS else NOT_ALLOWED
        return send_wsgi(made, start_response)

    return app


# --- the response ----------------------------------------------------------------------------------


def _answer(method: str, report: Health) -> Response:
    body = msgspec.json.encode(report.as_dict())
    headers = {"Content-Type": "application/json", "Cache-Control": "no-store"}
    return whole(200 if report.ok else 503, headers, body, method)


async def _live(receive: Receive, send: Send) -> None:
    """Take part in the start and the end of a server. There is nothing to do."""
    while (message := await receive())["type"] != "lifespan.shutdown":
        await send({"type": f"{message['type']}.complete"})
    await send({"type": "lifespan.shutdown.complete"})


# --- the checks ------------------------------------------------------------------------------------


class _Check:
    """One check. `future` has the report, or the error, when it is done at `ended`."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.ended: float | None = None
        self.future: Future[Health] = Future()
        self.future.set_running_or_notify_cancel()  # a probe that goes away cancels nothing

    def serves(self) -> bool:
        """Whether a probe that comes now waits for this check, or takes its report."""
        now = time.monotonic()
        return now - self.began < LOST_S if self.ended is None else now - self.ended < SERVED_S

    def end(self, outcome: Health | BaseException) -> None:
        self.ended = time.monotonic()
        if isinstance(outcome, BaseException):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class _Checks:
    """The checks of one app, one at a time."""

    def __init__(self, store: Store | AsyncStore, bounds: Any, timeout: Any) -> None:
        self._store = store
        self._bounds = None if bounds is None else bounds_of(bounds)
        self._timeout_s = arguments.timeout_s(timeout, "timeout")
        self.after_fork()
        survive_forks(self)

    def after_fork(self) -> None:
        """Begin anew in a child process, which does not have the thread of a check."""
        self._lock = threading.Lock()
        self._last: _Check | None = None
        self._task: asyncio.Task[None] | None = None

    def report(self) -> Health:
        """Return a report that is at most a second old."""
        check = self._current()
        try:
            return check.future.result(self._left_s(check))
        except (TimeoutError, StoreClosed):
            return self._unreachable()

    async def areport(self) -> Health:
        """Return a report that is at most a second old."""
        check = self._current()
        try:
            if check.future.done():
                return check.future.result()
            return await asyncio.wait_for(asyncio.wrap_future(check.future), self._left_s(check))
        except (TimeoutError, StoreClosed):
            return self._unreachable()

    def _left_s(self, check: _Check) -> float:
        """Return how long to wait. A check that is late delays the probes that come after it no more."""
        return max(0.0, check.began + self._timeout_s - time.monotonic())

    def _current(self) -> _Check:
        with self._lock:
            if self._last is not None and self._last.serves():
                return self._last
            self._last = check = _Check()
        try:
            if isinstance(self._store, AsyncStore):
                self._task = asyncio.ensure_future(self._acheck(self._store, check))
            else:
                threading.Thread(target=self._check, args=(self._store, check), daemon=True).start()
        except BaseException as error:  # there are too many threads, perhaps: nobody must wait for this check
            check.end(error)
            raise
        return check

    def _check(self, store: Store, check: _Check) -> None:
        try:
            check.end(store.health(self._bounds, timeout=self._timeout_s))
        except BaseException as error:  # noqa: BLE001 - the probes get it
            check.end(error)

    async def _acheck(self, store: AsyncStore, check: _Check) -> None:
        try:
            check.end(await store.health(self._bounds, timeout=self._timeout_s))
        except asyncio.CancelledError:  # its event loop ends: the next probe, of another one, begins anew
            with self._lock:
                self._last = None if self._last is check else self._last
            check.end(TimeoutError())
            raise
        except BaseException as error:  # noqa: BLE001 - the probes get it
            check.end(error)

    def _unreachable(self) -> Health:
        """Return the report on a store that does not answer in time, or is closed."""
        error = Unavailable("the store did not answer in time")
        found = {name: judged(name, error, bound) for name, bound in (self._bounds or {}).items()}
        return Health(datasets=found, checked_at=time.time_ns() // 1_000_000, error=error)
