"""The page as people use it, in a real browser. Each test fails on an error on the console, too."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

import swapstore
from tests.serve.conftest import TOKEN, WIDTHS, served
from tests.support.browser import Browser, Scheme
from tests.support.web import Site

EVIL = "</script><script>window.hit = 1</script><img src=x onerror='window.hit = 1'>"


def at(site: Site, path: str) -> str:
    """Return the address of a path."""
    return f"http://127.0.0.1:{site.port}{path}"


def fill(store: swapstore.Store) -> None:
    """Publish what the pages have to cope with."""
    for n in range(60):
        store.publish(
            "mena/a.b", {"n": n, "rows": [{"id": k, "v": n} for k in range(130)]}, labels={"k": "v"}
        )
    store.publish("evil", {EVIL: EVIL, "long" * 200: ["x" * 5000]}, id="one", labels={EVIL: EVIL})
    store.publish("evil", {EVIL: [EVIL], "long" * 200: []}, id="two")
    store.publish_group("portwatch", {"EG": {"a": 1}, "SG": [1]})
    store.publish("tiles", bytes(range(256)), codec="bytes")


PATHS = [
    "/",
    "/health",
    "/doctor",
    "/datasets/mena%2Fa.b",
    "/datasets/mena%2Fa.b?before=20",
    "/datasets/mena%2Fa.b/versions/7",
    "/datasets/mena%2Fa.b/versions/7?search=9",
    "/datasets/mena%2Fa.b/value?pointer=/n",
    "/datasets/mena%2Fa.b/diff?from=1&to=60",
    "/datasets/mena%2Fa.b/diff?from=1&to=60&look=side",
    "/datasets/evil",
    "/datasets/evil/versions/1",
    "/datasets/evil/versions/1?search=script",
    "/datasets/evil/diff",
    "/datasets/evil/diff?look=side",
    "/datasets/portwatch",
    "/datasets/portwatch/versions/1?member=EG",
    "/datasets/tiles",
    "/datasets/tiles/versions/1",
]


@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), (768, "light"), (1280, "dark")])
def test_no_page_is_wider_than_the_window_or_runs_what_is_in_it(
    width: int, scheme: Scheme, store: swapstore.Store, real_url: str, browser: Browser
) -> None:
    """A phone shows half of a page, a script of a dataset runs, or a page asks a server elsewhere."""
    assert width in WIDTHS
    fill(store)
    with served(real_url) as site, browser.page(width, scheme) as page:
        for path in PATHS:
            page.goto(at(site, path))
            across = page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
            assert across <= 0, f"{path}: {across} pixels too wide"
            assert page.evaluate("window.hit") is None, path
            assert page.locator("h1").count() == 1, path


def test_a_tree_opens_by_keyboard_and_in_place(page: Page, store: swapstore.Store, site: Site) -> None:
    """Who uses no mouse cannot look into a snapshot, or loses the place at each step."""
    store.publish("mena", {"rows": [{"id": 7, "deep": {"x": 1.50}}]})
    page.goto(at(site, "/datasets/mena/versions/1"))
    before = page.url

    for name in ("rows", "0", "deep"):
        summary = page.locator("summary", has_text=re.compile(rf"^\s*{name}\b")).first
        summary.focus()
        page.keyboard.press("Enter")
        expect(page.locator("li", has=summary).last.locator("> details .ways").first).to_be_visible()

    expect(page.locator(".tree")).to_contain_text("1.5")
    assert page.url == before


def test_more_changes_come_without_a_new_page(page: Page, store: swapstore.Store, site: Site) -> None:
    """The rest of a long diff replaces what is read, or comes twice."""
    for plus in (0, 1):
        store.publish("mena", {f"k{number:03}": number + plus for number in range(250)})
    page.goto(at(site, "/datasets/mena/diff"))
    rows = page.locator("table.changes tbody tr th")

    expect(rows).to_have_count(100)
    page.get_by_role("link", name=re.compile("More")).click()
    expect(rows).to_have_count(200)
    page.get_by_role("link", name=re.compile("More")).click()
    expect(rows).to_have_count(250)
    assert len(set(rows.all_inner_texts())) == 250


def test_who_signs_in_pins_after_a_confirmation(page: Page, store: swapstore.Store, site: Site) -> None:
    """A click too many changes what everybody is served, or none does."""
    for n in range(3):
        store.publish("mena", n)
    page.goto(at(site, "/datasets/mena"))
    assert page.get_by_role("link", name=re.compile("^pin", re.IGNORECASE)).count() == 0
    page.get_by_role("link", name="Sign in").click()
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_url("**/datasets/mena")

    page.goto(at(site, "/datasets/mena/pin?version=2"))
    assert store.status("mena").pinned is None  # type: ignore[union-attr]
    page.get_by_role("button", name="Pin version 2").click()
    page.wait_for_url("**/datasets/mena?done=pin")

    expect(page.get_by_role("heading", level=1)).to_contain_text("pinned")
    assert store.read_latest("mena").version == 2  # type: ignore[union-attr]


def test_a_pointer_can_be_copied(page: Page, store: swapstore.Store, site: Site) -> None:
    """Somebody types a long pointer by hand."""
    store.publish("mena", {"a/b": {"c": 1}})
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(at(site, "/datasets/mena/versions/1?pointer=/a~1b"))
    page.get_by_role("button", name=re.compile("pointer", re.IGNORECASE)).first.click()

    assert page.evaluate("navigator.clipboard.readText()") == "/a~1b"


def test_the_doctor_answers_in_place(page: Page, store: swapstore.Store, real_url: str) -> None:
    """The button does nothing, or leaves the page."""
    store.publish("mena", 1)
    with served(real_url) as site:
        page.goto(at(site, "/health"))
        page.get_by_role("link", name="Ask the doctor").click()
        expect(page.locator("#checks table")).to_be_visible()
        assert page.url.endswith("/health")


def test_without_javascript_everything_has_an_address(
    browser: Browser, store: swapstore.Store, site: Site
) -> None:
    """Where scripts are blocked, a link does nothing."""
    for plus in (0, 1):
        store.publish("mena", {"deep": {f"k{number:03}": number + plus for number in range(150)}})
    with browser.page(java_script=False) as page:
        page.goto(at(site, "/datasets/mena/diff"))
        page.get_by_role("link", name=re.compile("More")).click()
        expect(page.locator("table.changes tbody tr th")).to_have_count(50)
        page.goto(at(site, "/datasets/mena/versions/2?pointer=/deep"))
        expect(page.locator(".tree")).to_contain_text("k099")


def test_a_large_document_is_shown_and_compared(page: Page, store: swapstore.Store, site: Site) -> None:
    """A document of 2.5 MB freezes the browser: it is sent whole, or thousands of changes are."""
    rows = [{"id": number, "name": f"ship {number}", "tons": [number] * 10} for number in range(24_000)]
    store.publish("ships", {"rows": rows})
    store.publish("ships", {"rows": [{**row, "name": "x"} for row in rows]})

    for path in ("/datasets/ships/versions/2", "/datasets/ships/diff"):
        page.goto(at(site, path))
        assert len(page.content()) < 400_000
    expect(page.locator("main")).to_contain_text("24,000 changed")
