"""Checks the site that `make docs` has built, in its HTML: what a browser would load, and where links lead.

python -m tests.docs.site build/docs    # prints what is wrong, and fails if anything is
"""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"img": "src", "script": "src", "iframe": "src", "source": "src"}
GENERATED = {"genindex", "search"}  # pages that Sphinx adds


class Page(HTMLParser):
    """The addresses that a page loads or links to, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what one tag names."""
        values = {name: value or "" for name, value in attrs}
        if "id" in values:
            self.anchors.add(values["id"])
        if tag == "link" and values.get("rel") in {"stylesheet", "preload", "icon", "shortcut icon"}:
            self.loaded.append(values.get("href", ""))
        elif tag in LOADED and LOADED[tag] in values:
            self.loaded.append(values[LOADED[tag]])
        elif tag == "a" and "href" in values:
            self.links.append(values["href"])


def faults(site: Path) -> list[str]:
    """Return what is wrong with a site: one line each."""
    site = site.resolve()
    found = []
    pages = {path: Page(path.read_text("utf-8")) for path in sorted(site.rglob("*.html"))}
    for path, page in pages.items():
        here = path.relative_to(site)
        for address in page.loaded:
            if leads_out(address):
                found.append(f"{here} loads {address}")
            elif not (path.parent / unquote(urlsplit(address).path)).exists():
                found.append(f"{here} loads {address}, which is not there")
        found += [f"{here} links to {each}" for each in page.links if not leads_there(pages, path, each)]
    for style in sorted(site.rglob("*.css")):
        for address in re.findall(r"""(?:url\(|@import )\s*["']?([^"')\s]+)""", style.read_text("utf-8")):
            if leads_out(address):
                found.append(f"{style.relative_to(site)} loads {address}")
    searchable = names_in_search_index(site)
    names = {path.relative_to(site).with_suffix("").as_posix() for path in pages} - GENERATED
    return [*found, *(f"{name} cannot be found by searching" for name in sorted(names - searchable))]


def leads_out(address: str) -> bool:
    """Whether an address is on another host. What is inline (`data:`) is not."""
    parts = urlsplit(address)
    return bool(parts.netloc) or parts.scheme in {"http", "https"}


def leads_there(pages: dict[Path, Page], path: Path, address: str) -> bool:
    """Whether a link of a page leads to a file of the site, and to an anchor of it if it names one."""
    parts = urlsplit(address)
    if parts.scheme or parts.netloc:
        return True
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if target not in pages:
        return target.is_file()
    return not parts.fragment or unquote(parts.fragment) in pages[target].anchors


def names_in_search_index(site: Path) -> set[str]:
    """Return the pages that the search knows."""
    text = (site / "searchindex.js").read_text("utf-8")
    return set(json.loads(text.removeprefix("Search.setIndex(").removesuffix(")"))["docnames"])


def main() -> int:
    """Check the site that is named on the command line."""
    site = Path(sys.argv[1])
    found = faults(site)
    print("\n".join(found) or f"{site / 'index.html'}: every link leads somewhere")  # noqa: T201
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
