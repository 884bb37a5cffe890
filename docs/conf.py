"""How Sphinx makes a site of these pages: `make docs`. Decision 0049 says why Sphinx.

The pages are plain Markdown that reads as well on GitHub, so two things are done here and not in the pages:

- The navigation is made of the links in index.md and decisions/index.md: their headings are its captions.
- A link that leaves docs/ leads to the repository.
"""

from __future__ import annotations

import os.path
import re
from pathlib import Path
from typing import Any

import swapstore

DOCS = Path(__file__).parent
ROOT = DOCS.parent
REPOSITORY = "https://github.com/swapstore/swapstore"

project = "swapstore"
author = "The swapstore developers"
release = swapstore.__version__
html_title = f"swapstore {release}"
html_show_copyright = False

extensions = ["myst_parser"]
myst_heading_anchors = 6  # the anchors that GitHub makes of headings
nitpicky = True
smartquotes = False  # a -- b and "c" stay as they are written
suppress_warnings = ["myst.header"]

html_theme = "furo"  # light and dark; its fonts are those of the reader's system
html_theme_options = {
    "source_repository": REPOSITORY,
    "source_branch": "main",
    "source_directory": "docs/",
    "footer_icons": [],
}
html_copy_source = False  # "view source" leads to the repository

NAVIGATION = {
    "index": "{title} <{target}>",
    "decisions/index": "{target}",
}  # pages, and how an entry is written
_HEADING_OR_LINK = re.compile(
    r"^## (?P<caption>.+)$|^- \[(?P<title>[^\]]+)\]\((?P<target>[^)#:]+)\.md\)", re.MULTILINE
)
_SIGNATURE = re.compile(r'(<span class="pre">[\w.]+)\(.*?(?=</code>)', re.DOTALL)
_OUTWARD = re.compile(r"\]\((?P<target>(?:\.\./)+[^)#\s]*)(?P<anchor>#[^)]*)?\)")


def navigation(page: str) -> dict[str, list[tuple[str, str]]]:
    """Return the captions of a page with the title and the document of each link in the list under it."""
    found: dict[str, list[tuple[str, str]]] = {}
    caption = ""
    for match in _HEADING_OR_LINK.finditer(page):
        if match["caption"]:
            caption = match["caption"]
        else:
            found.setdefault(caption, []).append((match["title"], match["target"]))
    return found


def toctrees(page: str, entry: str) -> str:
    """Return the navigation of a page as Sphinx wants it."""
    blocks = []
    for caption, entries in navigation(page).items():
        lines = [entry.format(title=title, target=target) for title, target in entries]
        blocks.append("\n".join(["```{toctree}", ":hidden:", f":caption: {caption}", "", *lines, "```"]))
    return "\n\n".join(blocks)


def leading_outward(text: str, document: str) -> str:
    """Return the text of a page with its links to other files of the repository made absolute."""
    folder = (DOCS / document).parent

    def absolute(link: re.Match[str]) -> str:
        there = Path(os.path.normpath(folder / link["target"]))
        if there.is_relative_to(DOCS) or not there.exists():
            return link[0]  # Sphinx follows the one, and reports the other
        return f"]({REPOSITORY}/blob/main/{there.relative_to(ROOT)}{link['anchor'] or ''})"

    return _OUTWARD.sub(absolute, text)


def prepared(_: Any, document: str, source: list[str]) -> None:
    """Change the text of a page before Sphinx reads it."""
    text = leading_outward(source[0], document)
    entry = NAVIGATION.get(document)
    source[0] = f"{text}\n\n{toctrees(text, entry)}\n" if entry else text


def with_short_contents(_: Any, _page: str, _template: str, context: dict[str, Any], _tree: Any) -> None:
    """Leave the arguments out of the contents beside a page: a signature there takes up to fifteen lines."""
    if "toc" in context:
        context["toc"] = _SIGNATURE.sub(r"\1()</span>", context["toc"])


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", prepared)
    app.connect("html-page-context", with_short_contents)
