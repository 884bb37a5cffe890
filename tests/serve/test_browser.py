"""The browser that tests of the page drive: what it notices, and what it leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route

from tests.serve.conftest import WIDTHS
from tests.support.browser import Browser, Scheme
from tests.support.web import Site, running_asgi

ROOT = Path(__file__).parents[2]
PATIENCE_S = 20
DRIVES_ONE = """
from tests.support import browser
with browser.launched(browser.find()) as running, running.page() as page:
    page.goto("data:text/html,<p>hello")
    print("open", flush=True)
    input()
"""


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
def test_what_is_wrong_on_a_page_fails_the_test(
    browser: Browser, site: Site, html: str, complaint: str
) -> None:
    """A page shows the right text, and its script is broken, or tells somebody else who reads it."""

    def visit() -> None:
        complaints: list[str] = []
        with browser.page(complaints=complaints) as page:
            page.goto(address(site, html))
            until = time.monotonic() + PATIENCE_S
            while not complaints and time.monotonic() < until:
                page.wait_for_timeout(10)

    with pytest.raises(AssertionError, match=complaint):
        visit()


def test_a_test_that_expects_a_complaint_takes_it_out(page: Page, site: Site, complaints: list[str]) -> None:
    """No test could show what the page does when the server refuses something."""
    page.goto(address(site, "<script>console.error('oh')</script>"))
    assert complaints == ["error: oh"]
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


def processes() -> dict[int, tuple[int, int]]:
    """The parent and the process group of each process that runs."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            state, parent, group = path.read_text("utf-8").rpartition(")")[2].split()[:3]
            if state != "Z":
                found[int(path.parent.name)] = int(parent), int(group)
    return found


def groups_below(top: int) -> set[int]:
    """The process groups of a process, and of those that it started."""
    running = processes()
    below = {top}
    while more := {pid for pid, (parent, _) in running.items() if parent in below} - below:
        below |= more
    return {running[pid][1] for pid in below}


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.slow
@pytest.mark.usefixtures("browser")
@pytest.mark.parametrize("killed", [False, True])
def test_no_process_outlives_the_tests(*, killed: bool) -> None:
    """Browsers of interrupted runs fill the memory of a machine."""
    with subprocess.Popen(
        [sys.executable, "-c", DRIVES_ONE],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as driving:
        assert driving.stdout is not None
        assert driving.stdout.readline() == b"open\n"
        groups = groups_below(driving.pid)
        assert len(groups) == 2, "the browser has a group of its own"
        if killed:
            driving.kill()
        else:
            driving.communicate(b"\n", PATIENCE_S)
    assert driving.returncode == (-signal.SIGKILL if killed else 0)
    until = time.monotonic() + PATIENCE_S
    while left := [pid for pid, (_, group) in processes().items() if group in groups]:
        assert time.monotonic() < until, left
        time.sleep(0.02)
