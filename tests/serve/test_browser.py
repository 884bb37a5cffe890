"""The browser that tests of the page drive: what it notices, and what it leaves behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from urllib.parse import quote

import pytest
from playwright.sync_api import Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from tests.http.conftest import Site, running_asgi
from tests.serve.conftest import WIDTHS
from tests.support.browser import Browser, Scheme

PATIENCE_S = 20


async def shown(request: Request) -> HTMLResponse:
    return HTMLResponse("<!doctype html>" + request.query_params["html"])


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A server that shows what it is asked to show."""
    with running_asgi(Starlette(routes=[Route("/", shown)])) as running:
        yield running


def address(site: Site, html: str = "<p>hello") -> str:
    return f"http://127.0.0.1:{site.port}/?html={quote(html)}"


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_has_the_width_and_the_colours_that_are_asked_for(
    page: Page, site: Site, width: int, scheme: Scheme
) -> None:
    """A page that is broken on a phone or in the dark is looked at on a desk and in the light alone."""
    page.goto(address(site))
    assert page.inner_text("p") == "hello"
    assert page.evaluate("innerWidth") == width
    assert page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") is (scheme == "dark")


@pytest.mark.parametrize(
    ("html", "complaint"),
    [
        ("<script>console.error('oh')</script>", "error: oh"),
        ("<script>console.warn('oh')</script>", "warning: oh"),
        ("<script>throw new Error('oh')</script>", "uncaught: oh"),
        ("<script>Promise.reject(new Error('oh'))</script>", "uncaught: oh"),
        ("<img src=/nowhere>", "error: Failed to load resource: the server responded with a status of 404"),
        ("<img src=http://elsewhere.test/a.png>", "a request left http://127.0.0.1:"),
        ("<script>new WebSocket('ws://elsewhere.test/')</script>", "error: WebSocket connection to"),
    ],
)
def test_what_is_wrong_on_a_page_is_noticed(
    page: Page, site: Site, complaints: list[str], html: str, complaint: str
) -> None:
    """A page shows the right text, and its script is broken, or tells somebody else who reads it."""
    page.goto(address(site, html))
    until = time.monotonic() + PATIENCE_S
    while not complaints and time.monotonic() < until:
        page.wait_for_timeout(10)
    assert any(each.startswith(complaint) for each in complaints), complaints
    complaints.clear()


def test_a_process_that_has_driven_a_browser_runs_event_loops(browser: Browser, site: Site) -> None:
    """Each test of asyncio fails that runs in a process after a test of the page."""

    async def ran() -> str:
        return "ran"

    for _ in range(2):
        with browser.page() as page, browser.page() as another:
            page.goto(address(site))
            another.goto(address(site))
            assert page.inner_text("p") == another.inner_text("p") == "hello"
        assert asyncio.run(ran()) == "ran"
