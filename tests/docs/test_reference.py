"""The reference is complete: every public name is documented, and every link leads somewhere."""

from __future__ import annotations

import inspect
import io
import re
from contextlib import suppress
from functools import cached_property
from pathlib import Path

import attrs
import pytest
from rich.console import Console

import swapstore
from swapstore import errors, events, http, observe, testing, validators
from swapstore.cli import ExitCode, app
from swapstore.cli.app import ERROR_CODES, HELP
from tests.docs import api_reference

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


@pytest.mark.parametrize("name", [*validators.__all__, *events.__all__, *observe.__all__, *http.__all__])
def test_every_name_of_the_smaller_modules_is_in_the_reference(name: str) -> None:
    """A validator, an event or a listener cannot be looked up."""
    assert re.search(rf"\b{name}\b", page("api.md"))


def test_signatures_and_descriptions_are_those_of_the_package() -> None:
    """The reference describes what the code did once. `python -m tests.docs.api_reference` writes it anew."""
    assert api_reference.generated(page("api.md")) == page("api.md")


def test_everything_that_can_be_called_is_in_the_reference() -> None:
    """A method, a function or a helper for tests cannot be looked up."""
    there = set(api_reference.names(page("api.md")))
    methods = {f"swapstore.Store.{name}" for name in vars(swapstore.Store) if not name.startswith("_")}
    shipped = {f"swapstore.testing.{name}" for name in testing.__all__}
    functions = {f"swapstore.{name}" for name in ("connect", "copy", "publish", "read_latest", "aio.connect")}
    others = {
        f"{module.__name__}.{name}"
        for module in (validators, observe, http)
        for name in module.__all__
        if inspect.isfunction(getattr(module, name))
    }
    assert methods | shipped | functions | others <= there
    for name in there:
        assert inspect.getdoc(api_reference.resolved(name)), name


CLASSES = [
    kind
    for name in swapstore.__all__
    if inspect.isclass(kind := getattr(swapstore, name)) and attrs.has(kind) and kind is not swapstore.Mirror
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_attributes_are_those_of_the_class(kind: type) -> None:
    """An attribute of what is returned has no description, or one is described that does not exist."""
    found = re.search(rf"^#+ `{kind.__name__}`\n(.*?)(?=^#|\Z)", page("api.md"), re.MULTILINE | re.DOTALL)
    text = found[1] if found else section_of_row()
    properties = {name for name in dir(kind) if isinstance(getattr(kind, name), property | cached_property)}
    fields = {field.name for field in attrs.fields(kind)}
    for name in fields | properties:
        inherited = "entry" in text and name in {field.name for field in attrs.fields(swapstore.Entry)}
        assert inherited or f"`{name}`" in text, f"{kind.__name__}.{name} is not described"
    for cell in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE):
        assert set(re.findall(r"`(\w+)`", cell)) <= fields | properties, f"{kind.__name__} has no {cell}"


def section_of_row() -> str:
    """Return the section that describes `Entry` too."""
    found = re.search(r"^### `Row`\n(.*?)(?=^#)", page("api.md"), re.MULTILINE | re.DOTALL)
    assert found
    return found[1]


def test_the_tree_of_errors_is_the_tree_of_classes() -> None:
    """A handler is written for the wrong group, and catches nothing."""
    (tree,) = re.findall(r"```text\n(SwapstoreError\n.*?)```", page("errors.md"), re.DOTALL)
    above: list[str] = []
    drawn = {}
    for line in tree.splitlines():
        match = re.match(r"([│├└─ ]*)(\w+)", line)
        assert match
        above[len(match[1]) // 4 :] = [match[2]]
        drawn[match[2]] = above[-2] if len(above) > 1 else None
    kinds = [getattr(errors, name) for name in ERRORS]
    actual = {kind.__name__: next((b.__name__ for b in kind.__bases__ if b in kinds), None) for kind in kinds}
    assert drawn == actual
    for name in set(ERRORS) - {"SwapstoreError"}:
        assert re.search(rf"^(## |- |  - )\**`{name}`", page("errors.md"), re.MULTILINE), f"{name}: no entry"


def test_exit_codes_are_those_of_the_command() -> None:
    """A script branches on a code that the command does not return."""
    text = page("command-line.md")
    table = text[text.index("## Exit codes") : text.index("## `publish")]
    rows = re.findall(r"^\| (\d+) \| .* \| (?:`(\w+)`)? ?\|$", table, re.MULTILINE)
    assert [int(code) for code, _ in rows] == sorted(ExitCode)
    assert {name: int(code) for code, name in rows if name} == {
        kind.__name__: code for kind, code in ERROR_CODES.items()
    }
    for code in sorted(ExitCode)[:9]:
        assert re.search(rf"^  {code}  \w", HELP, re.MULTILINE)


def test_every_check_of_doctor_is_in_its_how_to() -> None:
    """`doctor` reports a problem of which the how-to does not know, or the how-to promises a check."""
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "swapstore" / "doctor").glob("*.py"))
    names = set(re.findall(r'Check\(\s*"([a-z ]+)"', sources)) | set(
        re.findall(r'name(?:, \w+)* = "([a-z ]+)"', sources)
    )
    how_to = (ROOT / "docs" / "how-to" / "check-your-server.md").read_text("utf-8")
    tables = how_to[how_to.index("## Redis and Valkey") :]
    assert set(re.findall(r"^\| `([a-z ]+)` \|", tables, re.MULTILINE)) == names - {"store"}


def help_of(*command: str) -> str:
    """What `swapstore … --help` prints on a wide terminal."""
    printed = io.StringIO()
    with suppress(SystemExit):
        app.app([*command, "--help"], console=Console(file=printed, width=200))
    return printed.getvalue()


def test_every_command_and_option_is_documented() -> None:
    """`--help` lists a command or option that the page of the command line does not explain."""
    text = page("command-line.md")
    commands = re.findall(r"^│ ([a-z][a-z-]*) ", help_of(), re.MULTILINE)
    assert len(commands) >= 10
    for command in commands:
        section = re.search(
            rf"^## [^\n]*`{command}(?![a-z-])[^`]*`[^\n]*\n.*?(?=^## |\Z)", text, re.MULTILINE | re.DOTALL
        )
        assert section is not None, f"{command} has no section"
        words = ("import", "snapshots") if command == "import" else (command,)
        own, _, everywhere = help_of(*words).partition("Options of every command")
        for option in re.findall(r"^│ \*?\s*(--[a-z-]+)", own, re.MULTILINE):
            assert option in section.group(), f"{command} {option} is not documented"
        everywhere_options = re.findall(r"^│ \*?\s*(--[a-z-]+)", everywhere, re.MULTILINE)
        for option in everywhere_options:
            assert f"`{option}`" in text
        for option in re.findall(r"^\| `(--[a-z-]+)", section.group(), re.MULTILINE):
            assert option in own, f"{command} has no {option}"
    sections = re.findall(r"^## .*", text, re.MULTILINE)
    for command in re.findall(r"`([a-z][a-z-]*)", " ".join(sections)):
        assert command in commands, f"there is no command {command}"


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
