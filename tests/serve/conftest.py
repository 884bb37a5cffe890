"""A real browser for tests of the page.

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

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page

from tests.support.browser import Browser, Scheme, find, launched, missing

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
