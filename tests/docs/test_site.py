"""The site that `make docs` builds: what its navigation leads to, and that its faults are noticed."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

from tests.docs import site

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
KINDS = {"Reference": ("reference/",), "Explanation": ("explanation/", "decisions/index")}


@pytest.fixture(scope="module")
def conf() -> dict[str, Any]:
    """What the configuration of Sphinx defines. It needs Sphinx only when Sphinx calls it."""
    return runpy.run_path(str(DOCS / "conf.py"))


def entries(conf: dict[str, Any], page: str) -> dict[str, list[tuple[str, str]]]:
    """The captions and entries that a page puts into the navigation."""
    found: dict[str, list[tuple[str, str]]] = conf["navigation"](
        (DOCS / page).with_suffix(".md").read_text("utf-8")
    )
    return found


def targets(found: dict[str, list[tuple[str, str]]]) -> list[str]:
    return [target for under in found.values() for _, target in under]


def test_every_page_is_in_the_navigation_once(conf: dict[str, Any]) -> None:
    """A page of the docs can only be found by its address, or a newcomer finds it in two places."""
    listed = targets(entries(conf, "index"))
    listed += [f"decisions/{target}" for target in targets(entries(conf, "decisions/index"))]
    there = {path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")}
    assert sorted(listed) == sorted(there - {"index"})


def test_every_page_is_listed_under_its_kind(conf: dict[str, Any]) -> None:
    """Somebody who looks for instructions opens an explanation."""
    for caption, under in entries(conf, "index").items():
        folders = ("how-to/",) if caption.startswith("How to ") else KINDS.get(caption)
        for _, target in under:
            assert folders is None or target.startswith(folders), f"{target} is listed under {caption}"


def test_decisions_are_listed_by_their_titles(conf: dict[str, Any]) -> None:
    """The index names a decision as it was called once."""
    for under in entries(conf, "decisions/index").values():
        for title, target in under:
            heading = (DOCS / "decisions" / f"{target}.md").read_text("utf-8").partition("\n")[0]
            assert heading == f"# {title}"
            assert title.startswith(f"{target[:4]}. ")


def test_links_to_other_files_lead_to_the_repository(conf: dict[str, Any]) -> None:
    """The site has a link to the README, which is not a page of it."""
    outward = conf["leading_outward"]
    assert re.fullmatch(
        r"\[a\]\(https://[^)]+/blob/main/README\.md#install\)",
        outward("[a](../README.md#install)", "tutorial"),
    )
    for unchanged in ("[a](../tutorial.md)", "[a](../../nowhere.md)"):
        assert outward(unchanged, "how-to/roll-back") == unchanged


def test_continuous_integration_builds_the_site() -> None:
    """A dead link is noticed by a reader."""
    assert "run: make docs" in (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")


def test_faults_of_a_site_are_noticed(tmp_path: Path) -> None:
    """`make docs` passes, and a page loads a font from elsewhere, has a dead link, or cannot be searched."""
    (tmp_path / "searchindex.js").write_text('Search.setIndex({"docnames":["index"]})')
    (tmp_path / "style.css").write_text("a {background: url(data:image/png;base64,x)}")
    index = tmp_path / "index.html"
    index.write_text(
        '<link rel="stylesheet" href="style.css?v=1"><a href="#here" id="here"><a href="https://a.example">'
    )
    assert site.faults(tmp_path) == []
    index.write_text(
        '<script src="//cdn.example/a.js"></script><img src="a.png"><a href="gone.html"><a href="#gone">'
    )
    (tmp_path / "other.html").write_text('<a href="index.html#gone">')
    (tmp_path / "style.css").write_text('@import "//fonts.example/a.css";')
    assert site.faults(tmp_path) == [
        "index.html loads //cdn.example/a.js",
        "index.html loads a.png, which is not there",
        "index.html links to gone.html",
        "index.html links to #gone",
        "other.html links to index.html#gone",
        "style.css loads //fonts.example/a.css",
        "other cannot be found by searching",
    ]
