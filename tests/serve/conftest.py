"""The site of `swapstore serve` on a store, behind a real server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

import pytest
from starlette.applications import Starlette

import swapstore
import swapstore.aio
import swapstore.http
from tests.support.web import Site, running_asgi

TOKEN, READ_TOKEN = "a-token-of-writers-1", "a-token-of-readers-1"

Served = Callable[..., AbstractContextManager[Site]]


@contextmanager
def served(
    url: str,
    mount: str = "",
    connecting: dict[str, Any] | None = None,
    log_level: str = "critical",
    **options: Any,
) -> Iterator[Site]:
    """Run the app on a store; below a path of another app, if `mount` is given."""
    store = swapstore.aio.connect(url, patience=1, **(connecting or {}))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> Any:
        async with store:
            yield

    outer = Starlette(lifespan=lifespan)
    outer.mount(mount or "/", swapstore.http.app(store, **options))
    with running_asgi(outer, log_level=log_level) as site:
        yield site


async def call(  # noqa: PLR0917
    app: Any, method: str, path: str, body: bytes, headers: dict[str, str], scheme: str = "http"
) -> tuple[int, dict[str, str]]:
    """Let the app answer a request in this event loop, and return the status and the headers."""
    begun: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        begun.append(message)

    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": scheme,
        "http_version": "1.1",
        "headers": [(name.lower().encode(), text.encode()) for name, text in headers.items()],
    }
    await app(scope, receive, send)
    named = {name.decode(): text.decode() for name, text in begun[0]["headers"]}
    return begun[0]["status"], named


@pytest.fixture
def store(real_url: str) -> Iterator[swapstore.Store]:
    """The producer's store."""
    with swapstore.connect(real_url) as made:
        yield made


@pytest.fixture
def site(real_url: str, store: swapstore.Store) -> Iterator[Site]:
    """A site on the same store, which anybody may read, and who has the token may write."""
    with served(real_url, allow_writes=True, token=TOKEN) as running:
        yield running
