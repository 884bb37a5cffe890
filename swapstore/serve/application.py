"""The app: its routes, and the layers around them, from the outside to the inside."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from swapstore import arguments
from swapstore.connect import DEFAULT_MAX_PAYLOAD
from swapstore.errors import InvalidInput, SwapstoreError
from swapstore.health import Bound, bounds_of
from swapstore.http import health
from swapstore.serve import api, page, problems
from swapstore.serve.access import Access
from swapstore.serve.guard import HEADERS, Guard, SecurityHeaders
from swapstore.serve.paths import PathsAsSent
from swapstore.serve.site import Site, is_for_programs, site_of
from swapstore.store import AsyncStore

LOG = logging.getLogger("swapstore")
STATIC = Path(__file__).parent / "static"
_ORIGIN = re.compile(r"https?://[^/\s@?#]+|\*")
_PATH = re.compile(r"(/[A-Za-z0-9_-]+)*")
NO_PATH = (
    "the API has no such path; in a path, a slash in the name of a dataset is %2F, and a proxy must not "
    "decode that"
)


def app(
    store: AsyncStore,
    *,
    bounds: Mapping[str, Bound | timedelta | str | None] | None = None,
    allow_writes: bool = False,
    token: str | None = None,
    read_token: str | None = None,
    max_body: int = DEFAULT_MAX_PAYLOAD,
    cors: Sequence[str] = (),
) -> Starlette:
    """Return an ASGI app with the HTTP API and the page of a store. It can be mounted in another app.

    - `store`: one of `swapstore.aio.connect`. The app does not close it.
    - `bounds`: what is expected of datasets, as for `Store.health`; the page shows which are late.
    - `allow_writes`: whether to publish, pin, unpin, roll back and confirm. That takes `token`.
    - `token`: what a client must show to write, and `read_token` to read: as `Authorization: Bearer …`, or
      in the form of the page. Who may write may read. Default: everybody who reaches the app may read.
    - `max_body`: the size in bytes of the largest body that is read.
    - `cors`: origins, such as `https://example.com`, whose pages may call the API from a browser.

    Streams of events have no end, and a server that stops waits for them: set its limit, such as
    `timeout_graceful_shutdown` of uvicorn. `swapstore serve` ends them itself.

    Raises `InvalidInput` for a store that is not one of `swapstore.aio`, for writing without a token, and for
    a token of fewer than 16 characters.
    """
    if not isinstance(store, AsyncStore):
        raise InvalidInput(
            "app takes a store of swapstore.aio.connect(): any other one blocks the event loop"
        )
    site = Site(
        store=store,
        bounds={} if bounds is None else bounds_of(bounds),
        access=Access.of(allow_writes=allow_writes, token=token, read_token=read_token),
        max_body_bytes=arguments.whole(max_body, "max_body", least=1),
    )
    made = Starlette(
        routes=[
            *api.ROUTES,
            Route("/api/health", health.asgi_app(store, site.bounds or None)),
            Mount("/static", StaticFiles(directory=STATIC)),
            *page.ROUTES,
        ],
        middleware=[
            Middleware(SecurityHeaders),
            *([_cross_origin(cors)] if cors else []),
            Middleware(PathsAsSent),
            Middleware(Guard, site=site),
        ],
        exception_handlers={
            SwapstoreError: _failed,
            HTTPException: _not_served,
            Exception: _broken,
        },
    )
    made.router.redirect_slashes = False  # a client that publishes does not follow a redirect
    made.state.site = site
    return made


def below(path: str, made: Starlette) -> Starlette:
    """Return an app that serves this one below a path, such as /data. Raises `InvalidInput`."""
    mount = path.rstrip("/")
    if not _PATH.fullmatch(mount):
        raise InvalidInput(
            f"the path must be like /data, of letters, digits, '-', '_' and '/', and not {path[:80]!r}"
        )
    if not mount:
        return made
    outer = Starlette(routes=[Mount(mount, made)])
    outer.state = made.state
    return outer


def _cross_origin(origins: Sequence[str]) -> Middleware:
    """Return what lets pages of other origins do all that the API has, with a token and without a cookie."""
    for origin in origins:
        if not _ORIGIN.fullmatch(origin):
            raise InvalidInput(
                f"an origin is like https://example.com or http://localhost:3000, and not {origin[:80]!r}"
            )
    return Middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_methods=["GET", "HEAD", "PUT", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=["*"],
    )


# --- what went wrong -----------------------------------------------------------------------------------


async def _failed(request: Request, error: Exception) -> Response:
    """Tell the client of an error of a call. What somebody has to look at is logged too."""
    assert isinstance(error, SwapstoreError)  # noqa: S101 - Starlette calls it for these
    site = site_of(request)
    status = problems.status_of(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        LOG.error("%s %s: %s", request.method, request.scope["path"], error)
    in_full = site.access.tells_all(request)
    if is_for_programs(request):
        return problems.of_error(error, in_full=in_full)
    return page.failed(request, status, error, in_full=in_full)


async def _not_served(request: Request, error: Exception) -> Response:
    """Tell the client that there is no such path or method, or that a handler refused the request."""
    assert isinstance(error, HTTPException)  # noqa: S101 - Starlette calls it for these
    title = HTTPStatus(error.status_code).phrase
    detail = None if error.detail == title else error.detail
    headers = dict(error.headers or {})
    if is_for_programs(request):
        is_unknown = error.status_code == HTTPStatus.NOT_FOUND and detail is None
        return problems.problem(error.status_code, title, NO_PATH if is_unknown else detail, headers)
    return page.refused(request, error.status_code, title, detail, headers)


async def _broken(request: Request, _: Exception) -> Response:
    """Tell the client of a mistake of ours, and nothing more about it. The server logs the traceback.

    Starlette sends this from outside of all layers, so the headers for browsers are added here.
    """
    if is_for_programs(request):
        answer = problems.problem(500, "Internal Server Error")
    else:
        answer = page.refused(request, 500, "Internal Server Error", "The log of the server says more.", {})
    answer.raw_headers.extend(HEADERS.items())
    return answer
