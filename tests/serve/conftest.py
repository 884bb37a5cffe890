"""The site of `swapstore serve` on a store, behind a real server; and a real browser for its page.

A test takes `page`. It sets the width and the colour scheme by parameters of these names:

    @pytest.mark.parametrize("width", WIDTHS)
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_...(page: Page, site: Site) -> None:

It fails if the page has an error or a warning on its console, or an exception that nothing catches, or asks
another server than the first one that it asked. A test that provokes such a thing takes `complaints`, asserts
what is in it, and clears it: a response with a status of 400 and above is an error on the console.

Playwright's event loop counts as running while a page is open: a test with a page cannot call `asyncio.run`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from typing import Any

import pytest
from playwright.sync_api import Page
from starlette.applications import Starlette

import swapstore
import swapstore.aio
import swapstore.http
from tests.support.browser import Browser, Scheme, find, launched, missing
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
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if not messages:
            await asyncio.Event().wait()  # the client stays for its answer
        return messages.pop()

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


# --- the browser ---------------------------------------------------------------------------------------

WIDTHS = [390, 768, 1280]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One for each process that runs tests."""
    chromium = find()
    if chromium is None:
        pytest.skip(missing())
    with launched(chromium) as running:
        yield running


@pytest.fixture
def width() -> int:
    """The width of the page, in CSS pixels."""
    return WIDTHS[-1]


@pytest.fixture
def scheme() -> Scheme:
    """The colour scheme that the reader prefers."""
    return "light"


@pytest.fixture
def complaints() -> list[str]:
    """What is wrong on the page; a test that expects something takes it out."""
    return []


@pytest.fixture
def page(browser: Browser, width: int, scheme: Scheme, complaints: list[str]) -> Iterator[Page]:
    """An empty page, with cookies and storage of its own."""
    with browser.page(width, scheme, complaints) as opened:
        yield opened
