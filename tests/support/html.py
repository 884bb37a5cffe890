"""Pages as tests look at them: their elements, links and text, and what no page may have."""

from __future__ import annotations

from html.parser import HTMLParser
from itertools import pairwise

import attrs

VOID = frozenset({"meta", "link", "input", "br", "img", "hr"})


@attrs.define
class Element:
    """An element: its attributes, and all text inside."""

    tag: str
    attributes: dict[str, str]
    text: str = ""


class Page(HTMLParser):
    """A parsed page, or a part of one."""

    def __init__(self, body: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(body.decode())
        self.close()
        assert not self._open, f"elements are not closed: {[each.tag for each in self._open]}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element."""
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.elements.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_endtag(self, tag: str) -> None:
        """Close an element."""
        opened = self._open.pop()
        assert opened.tag == tag, f"</{tag}> closes <{opened.tag}>"

    def handle_data(self, data: str) -> None:
        """Add text to all elements that are open."""
        for each in self._open:
            each.text += data

    def all(self, tag: str, **attributes: str) -> list[Element]:
        """Return the elements with this tag and these attributes; `data_copy` is `data-copy`."""
        wanted = {name.rstrip("_").replace("_", "-"): value for name, value in attributes.items()}
        return [
            each
            for each in self.elements
            if each.tag == tag and all(each.attributes.get(name) == value for name, value in wanted.items())
        ]

    def link(self, text: str) -> str:
        """Return the address of the first link with this text."""
        found = next(each for each in self.all("a") if " ".join(each.text.split()) == text)
        return found.attributes["href"]

    def rows(self) -> list[list[str]]:
        """Return the texts of the cells of the rows of tables that are not heads."""
        found: list[list[str]] = []
        for each in self.elements:
            if each.tag == "tr":
                found.append([])
            elif each.tag in {"td", "th"} and each.attributes.get("scope") != "col":
                found[-1].append(" ".join(each.text.split()))
        return [row for row in found if row]

    @property
    def text(self) -> str:
        """All text, with single spaces."""
        return " ".join("".join(each.text for each in self.elements[:1]).split())


def checked(body: bytes) -> Page:
    """Return a page that has no script, style or handler of its own, and headings and tables in order."""
    page = Page(body)
    for each in page.elements:
        names = set(each.attributes)
        assert not [name for name in names if name.startswith("on") or name == "style"], each
        if each.tag == "script":
            assert "/static/" in each.attributes["src"], each
        if each.tag == "a":
            assert not each.attributes["href"].lower().startswith("javascript:"), each
        if each.tag == "th":
            assert each.attributes["scope"] in {"col", "row"}, each
    ids = [each.attributes["id"] for each in page.elements if "id" in each.attributes]
    assert len(ids) == len(set(ids)), "an id is there twice"
    levels = [int(each.tag[1]) for each in page.elements if each.tag in {"h1", "h2", "h3", "h4"}]
    assert levels[0] == 1, levels
    assert levels.count(1) == 1, levels
    assert all(after <= before + 1 for before, after in pairwise(levels)), levels
    assert len(page.all("main")) == 1
    return page
