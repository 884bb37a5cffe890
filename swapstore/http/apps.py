"""Apps that serve every dataset of a store, to be mounted in another app or run by a server.

`GET /<dataset>` is answered with what is served of a dataset, and `GET /<dataset>?member=<name>` with a
member of a group. Damaged data, a store that is set up wrongly, and one that is closed are raised, so that
the server logs the error and answers 500.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from datetime import timedelta
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from swapstore import arguments
from swapstore.errors import InvalidInput, SwapstoreError
from swapstore.http.responses import Response, is_quick, response
from swapstore.models import Snapshot
from swapstore.store import AsyncStore, Store

Message = MutableMapping[str, Any]
AsgiApp = Callable[
    [Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]
]
WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

METHODS = ("GET", "HEAD")
NOT_ALLOWED = Response(405, {"Allow": "GET, HEAD", "Content-Length": "0"}, b"")


def asgi_app(
    store: AsyncStore, *, max_staleness: float | timedelta = 0.0, cache_control: str = "no-cache"
) -> AsgiApp:
    """Return an ASGI app that answers `GET /<dataset>` with `response`, for every dataset of the store.

    `?member=<name>` asks for a member of a group. `max_staleness` is that of `read_latest`, `cache_control`
    that of `response`. Raises `InvalidInput` for a store that is not one of `swapstore.aio`.
    """
    if not isinstance(store, AsyncStore):
        raise InvalidInput(
            "asgi_app takes a store of swapstore.aio.connect(): any other one blocks the event loop"
        )
    bound = arguments.staleness_s(max_staleness)

    async def read(dataset: str, member: str | None) -> Snapshot | SwapstoreError | None:
        try:
            if member is None:
                return await store.read_latest(dataset, max_staleness=bound)
            return await store.read_group(dataset, members=[member], max_staleness=bound)
        except SwapstoreError as error:
            return error

    async def answer(scope: Message) -> Response:
        if scope["method"] not in METHODS:
            return NOT_ALLOWED
        member = _member(scope.get("query_string", b"").decode("latin-1"))
        found = await read(_below(scope["path"], scope.get("root_path", "")), member)
        asked = [
            (name.decode("latin-1"), value.decode("latin-1")) for name, value in scope.get("headers", ())
        ]
        answering = partial(
            response, found, asked, method=scope["method"], member=member, cache_control=cache_control
        )
        if is_quick(found, member):
            return answering()
        from asyncio import to_thread  # noqa: PLC0415 - a blocking program does not need it

        return await to_thread(answering)

    async def app(scope: Message, _: object, send: Callable[[Message], Awaitable[None]]) -> None:
        if scope["type"] != "http":
            raise NotImplementedError(f"this app answers HTTP, not {scope['type']}")
        await send_asgi(await answer(scope), send)

    return app


def wsgi_app(
    store: Store, *, max_staleness: float | timedelta = 0.0, cache_control: str = "no-cache"
) -> WsgiApp:
    """Return a WSGI app that does what `asgi_app` does. Its store is one of `swapstore.connect`."""
    if not isinstance(store, Store):
        raise InvalidInput(
            "wsgi_app takes a store of swapstore.connect(): use asgi_app for one of swapstore.aio"
        )
    bound = arguments.staleness_s(max_staleness)

    def read(dataset: str, member: str | None) -> Snapshot | SwapstoreError | None:
        try:
            if member is None:
                return store.read_latest(dataset, max_staleness=bound)
            return store.read_group(dataset, members=[member], max_staleness=bound)
        except SwapstoreError as error:
            return error

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        made, method = NOT_ALLOWED, environ["REQUEST_METHOD"]
        if method in METHODS:
            member = _member(environ.get("QUERY_STRING", ""))
            found = read(environ.get("PATH_INFO", "").removeprefix("/"), member)
            headers = {
                name[5:].replace("_", "-"): value
                for name, value in environ.items()
                if name.startswith("HTTP_")
            }
            made = response(found, headers, method=method, member=member, cache_control=cache_control)
        return send_wsgi(made, start_response)

    return app


async def send_asgi(made: Response, send: Callable[[Message], Awaitable[None]]) -> None:
    """Send a response to an ASGI server."""
    headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in made.headers.items()]
    await send({"type": "http.response.start", "status": made.status, "headers": headers})
    await send({"type": "http.response.body", "body": made.body})


def send_wsgi(made: Response, start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Begin a response of a WSGI app, and return its body."""
    status = HTTPStatus(made.status)
    start_response(f"{status.value} {status.phrase}", list(made.headers.items()))
    return [made.body]


def _below(path: str, mount: str) -> str:
    """Return the name in a path below that of the mount. Some servers leave the mount in the path."""
    if mount and path.startswith(f"{mount.rstrip('/')}/"):
        path = path[len(mount.rstrip("/")) :]
    return path.removeprefix("/")


def _member(query: str) -> str | None:
    """Return the member that a query string names."""
    return parse_qs(query, errors="replace").get("member", [None])[-1]
