"""The reference is complete: every public name is documented, and every link leads somewhere."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import swapstore
from swapstore import errors, events, observe, validators

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
ERRORS = sorted(
    name
    for name, kind in vars(errors).items()
    if inspect.isclass(kind) and issubclass(kind, swapstore.SwapstoreError)
)


def page(name: str) -> str:
    return (REFERENCE / name).read_text("utf-8")


@pytest.mark.parametrize("name", sorted({*ERRORS, *swapstore.__all__}))
def test_every_public_name_is_in_the_reference(name: str) -> None:
    """A public name has no entry under API, or an error none under Errors."""
    assert re.search(rf"\b{name}\b", page("errors.md" if name in ERRORS else "api.md"))


@pytest.mark.parametrize("name", [*validators.__all__, *events.__all__, *observe.__all__])
def test_every_name_of_the_smaller_modules_is_in_the_reference(name: str) -> None:
    """A validator, an event or a listener cannot be looked up."""
    assert re.search(rf"\b{name}\b", page("api.md"))


@pytest.mark.parametrize("name", [name for name in vars(swapstore.Store) if not name.startswith("_")])
def test_every_method_has_its_heading(name: str) -> None:
    """A method of a store has no heading, or the heading lacks a parameter."""
    headings = [line for line in page("api.md").splitlines() if re.match(rf"### .*`{name}[(`]", line)]
    assert len(headings) == 1
    member = getattr(swapstore.Store, name)
    parameters = {} if isinstance(member, property) else inspect.signature(member).parameters
    for parameter in parameters:
        assert parameter == "self" or parameter in headings[0]


def help_of(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "swapstore.cli", *command, "--help"],
        capture_output=True,
        check=True,
        text=True,
        env={"COLUMNS": "200", "PATH": ""},
    )
    return done.stdout


def test_every_command_and_option_is_documented() -> None:
    """`--help` lists a command or option that the page of the command line does not explain."""
    text = page("command-line.md")
    commands = re.findall(r"^│ ([a-z]+) ", help_of(), re.MULTILINE)
    assert len(commands) >= 10
    for command in commands:
        section = re.search(rf"^## .*`{command}\b.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        assert section is not None, f"{command} has no section"
        own, _, everywhere = help_of(command).partition("Options of every command")
        for option in re.findall(r"^│ \*?\s*(--[a-z-]+)", own, re.MULTILINE):
            assert option in section.group(), f"{command} {option} is not documented"
        for option in re.findall(r"^│ \*?\s*(--[a-z-]+)", everywhere, re.MULTILINE):
            assert f"`{option}`" in text


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """A relative link or its anchor leads nowhere."""
    for target, _, anchor in re.findall(r"\]\(((?!\w+:)[^)#]*)(#([^)]*))?\)", path.read_text("utf-8")):
        there = (path.parent / target).resolve() if target else path
        assert there.exists(), f"{path.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", there.read_text("utf-8"), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, (
                f"{path.name} links to {target}#{anchor}"
            )


def slug(heading: str) -> str:
    """Return the anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
