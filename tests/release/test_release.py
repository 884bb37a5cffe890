"""What is released, without building it: `make dist` does that, in continuous integration too."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import yaml
from readme_renderer import markdown

import swapstore
from tests.release import changelog, contents, smoke

ROOT = Path(__file__).parents[2]
WORKFLOWS = ROOT / ".github" / "workflows"
GIT = {"README.md", "LICENSE", "tests/test_a.py", "swapstore/__init__.py", "swapstore/a.lua"}
WHEEL = {
    *("swapstore/__init__.py", "swapstore/a.lua", "*.dist-info/licenses/LICENSE"),
    *(f"*.dist-info/{name}" for name in contents.DIST_INFO),
}


def test_a_wheel_with_everything_has_no_fault() -> None:
    """Nothing can be released."""
    assert contents.faults_of_wheel(GIT, WHEEL, ["LICENSE"]) == []
    assert contents.faults_of_sdist(GIT, GIT | {"PKG-INFO"}) == []


def test_a_wheel_that_lacks_a_file_is_not_released() -> None:
    """A script or a template is missing, and the first publish of a user raises."""
    faults = contents.faults_of_wheel(GIT, WHEEL - {"swapstore/a.lua"}, ["LICENSE"])
    assert faults == ["wheel: lacks swapstore/a.lua"]


def test_a_wheel_with_tests_is_not_released() -> None:
    """`import tests` of a user's project finds ours."""
    faults = contents.faults_of_wheel(GIT, WHEEL | {"tests/test_a.py"}, ["LICENSE"])
    assert faults == ["wheel: has tests/test_a.py, which git has not"]


def test_a_licence_of_somebody_else_is_in_the_metadata() -> None:
    """A library that is shipped along, such as a script for browsers, is spread without its licence."""
    other = "swapstore/static/widget.LICENSE.txt"
    package = GIT | {other, "swapstore/static/widget.js"}
    there = WHEEL | {other, "swapstore/static/widget.js"}
    assert contents.faults_of_wheel(package, there, ["LICENSE"]) == [
        f"wheel: lacks *.dist-info/licenses/{other}",
        f"wheel: the metadata name the licences ['LICENSE'], not ['LICENSE', '{other}']",
    ]
    assert (
        contents.faults_of_wheel(package, there | {f"*.dist-info/licenses/{other}"}, ["LICENSE", other]) == []
    )


def test_an_sdist_is_what_git_has() -> None:
    """A distributor lacks a file of the tests, or gets a file of a developer's machine."""
    assert contents.faults_of_sdist(GIT, GIT - {"tests/test_a.py"} | {"PKG-INFO", "tests/secret.txt"}) == [
        "sdist: lacks tests/test_a.py",
        "sdist: has tests/secret.txt, which git has not",
    ]


def test_each_extra_is_tried() -> None:
    """An extra is released that lacks a dependency."""
    written = (ROOT / "pyproject.toml").read_text("utf-8").partition("[project.optional-dependencies]")[2]
    extras = set(re.findall(r"^(\w+) = \[", written.partition("\n\n")[0], re.MULTILINE)) - {"dev", "docs"}
    assert set(smoke.CHECKS) == extras, "add a check to tests/release/smoke.py"


def test_what_is_asked_of_a_wheel_holds_here(tmp_path: Path) -> None:
    """The smoke test fails, or hangs, and it is known on the day of the release."""
    program = "from tests.release import smoke; smoke.library('sqlite:///smoke.db')"
    program += "".join(f"; smoke.{name}(has=True)" for name in smoke.CHECKS)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, env=env, check=True, timeout=60)


CHANGES = """\
## [Unreleased]

- Later.

## [{version}] - 2026-12-24

- [How to](docs/tutorial.md), and [more](https://example.org/).

## [0.0.1] - 2026-01-01

- Before.
"""


def test_the_notes_of_a_release_are_its_section_of_the_changelog() -> None:
    """A release says nothing, or what is not in it; or its links lead nowhere."""
    tag = f"v{swapstore.__version__}"
    made = changelog.notes(tag, CHANGES.format(version=swapstore.__version__))
    assert made == f"- [How to]({changelog.BLOB}/{tag}/docs/tutorial.md), and [more](https://example.org/)."


def test_a_tag_that_is_not_the_version_is_not_released() -> None:
    """The tag v0.2.0 releases 0.1.0 once more, or what the changelog does not date."""
    with pytest.raises(SystemExit, match=f"the tag is v9.9.9, and the version {swapstore.__version__}"):
        changelog.notes("v9.9.9", CHANGES.format(version="9.9.9"))
    with pytest.raises(SystemExit, match="has no section"):
        changelog.notes(f"v{swapstore.__version__}", CHANGES.format(version="9.9.9"))


def workflow(name: str) -> Any:
    """A workflow. YAML 1.1 reads its key `on` as true."""
    return yaml.safe_load((WORKFLOWS / name).read_text("utf-8"))


def test_nothing_is_published_that_was_not_tested() -> None:
    """A tag publishes a wheel that fails its tests, or somebody publishes without a tag."""
    jobs = workflow("release.yml")["jobs"]
    before = {
        "build": set(),
        **{
            name: {*([needs] if isinstance(needs, str) else needs)}
            for name, needs in ((name, job.get("needs", [])) for name, job in jobs.items())
        },
    }
    assert before["smoke"] == {"build"}
    assert before["attest"] == {"ci", "smoke"}
    assert before["pypi"] == {"attest"}
    assert before["github"] == {"pypi"}
    for name in ("attest", "pypi", "github"):
        assert jobs[name]["if"] == "github.ref_type == 'tag'"
    assert jobs["pypi"]["environment"] == "pypi"


def test_a_release_has_only_the_rights_that_it_needs() -> None:
    """A step that was tampered with writes to the repository, or publishes."""
    made = workflow("release.yml")
    assert made["permissions"] == {"contents": "read"}
    rights = {name: job["permissions"] for name, job in made["jobs"].items() if "permissions" in job}
    assert rights == {
        "attest": {"attestations": "write", "contents": "read", "id-token": "write"},
        "pypi": {"id-token": "write"},
        "github": {"contents": "write"},
    }


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.yml")), ids=lambda path: path.name)
def test_actions_have_a_version(path: Path) -> None:
    """An action changes under us from one day to the next."""
    for used in re.findall(r"uses: (\S+)", path.read_text("utf-8")):
        assert used.startswith("./") or re.fullmatch(r"[\w/.-]+@(v\d+|release/v1)", used), used


class Page(HTMLParser):
    """What a page links to and shows, and the places in it that can be linked to."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.pictures: list[str] = []
        self.ids: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if value is None:
                continue
            if name == "id":
                self.ids.add(value)
            elif name == "href":
                self.links.append(value)
            elif name in {"src", "srcset"}:
                self.pictures.append(value)


def on_the_index(directory: Path) -> Page:
    """The README of a directory as the package index shows it: through the hook of the build, as HTML."""
    hook = [sys.executable, "-m", "hatch_fancy_pypi_readme", str(ROOT / "pyproject.toml")]
    shown = subprocess.run(hook, cwd=directory, capture_output=True, text=True, check=True).stdout
    html = markdown.render(shown)
    assert html is not None
    page = Page()
    page.feed(html)
    return page


def test_links_work_on_the_page_of_the_package_index() -> None:
    """The index shows the README alone: a relative link is dead there, or a picture is not shown."""
    page = on_the_index(ROOT)
    assert len(page.links) > 10
    for link in page.links:
        assert link.startswith("https://") or link.removeprefix("#") in page.ids, link
    for picture in page.pictures:
        assert picture.startswith("https://"), picture
        assert "github.com/swapstore/swapstore/blob/" not in picture, "a page about a picture is no picture"


def test_a_picture_in_the_readme_is_shown_on_the_package_index(tmp_path: Path) -> None:
    """A picture leads to the page of the repository that shows it."""
    (tmp_path / "README.md").write_text("![a plot](docs/plot.svg) [page](docs/a.md#b)", "utf-8")
    page = on_the_index(tmp_path)
    (picture,) = page.pictures
    (link,) = page.links
    assert re.sub(r"/v[^/]*/", "/vX/", picture) == (
        "https://raw.githubusercontent.com/swapstore/swapstore/vX/docs/plot.svg"
    )
    assert re.sub(r"/v[^/]*/", "/vX/", link) == ("https://github.com/swapstore/swapstore/blob/vX/docs/a.md#b")
