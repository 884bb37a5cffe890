"""The command explains itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from cyclopts import App

from swapstore.cli.app import app
from tests.cli.conftest import Swapstore

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "command-line.md").read_text("utf-8")
COMMANDS = (
    "publish",
    "publish-group",
    "published",
    "latest",
    "read",
    "history",
    "diff",
    "follow",
    "datasets",
    "status",
    "health",
    "confirm",
    "pin",
    "unpin",
    "rollback",
    "prune",
    "recompress",
    "erase",
    "drop",
    "verify",
    "repair",
    "backup",
    "restore",
    "copy",
    "doctor",
    "serve",
    "demo",
    "import",
    "completion",
)


def documented(command: App) -> Iterator[tuple[str, str | None]]:
    """The parameters of a command that a user can give, and their help."""
    for argument in command.assemble_argument_collection(parse_docstring=True):
        if argument.parameter.parse is not False and argument.parameter.show is not False:
            yield argument.name, argument.parameter.help


def test_every_command_is_there() -> None:
    """A command that the documentation names would be unknown."""
    assert [name for name in app if not name.startswith("-")] == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_parameter_has_help(name: str) -> None:
    """`--help` would name an option without explaining it."""
    command = app[name]
    assert command.help.strip()
    for parameter, text in [*documented(command), *documented(app.meta)]:
        assert text, f"{name} {parameter}"


def test_help_names_the_options_of_every_command_and_the_exit_codes(swapstore: Swapstore) -> None:
    """`swapstore read --help` would not show that it takes --url, nor `--help` what exit codes mean."""
    read = swapstore("read", "--help")
    assert (read.code, read.err) == (0, "")
    for word in ("--version", "--as-of", "--url", "$SWAPSTORE_URL", "--namespace", "--json"):
        assert word in read.out.decode()
    assert "5  stored data is damaged" in swapstore("--help").out.decode()


@pytest.mark.parametrize("arguments", [("--help",), (), ("--namespace", "n")], ids=" ".join)
def test_help_says_what_each_command_does(arguments: tuple[str, ...], swapstore: Swapstore) -> None:
    """`swapstore`, or `swapstore --help`, lists bare names, because the commands are not imported yet."""
    shown = swapstore(*arguments, env={"COLUMNS": "300"}).out.decode()
    for name in COMMANDS:
        assert app[name].help.strip().splitlines()[0] in shown, name


def test_help_names_every_kind_of_store(swapstore: Swapstore) -> None:
    """Somebody with a cluster finds no address for it."""
    named = re.compile(r"[a-z+]+://")
    kinds = set(named.findall(swapstore.inside("datasets", "--url", "other://").err)) - {"other://"}
    assert len(kinds) >= 7
    (row,) = (line for line in PAGE.splitlines() if line.startswith("| `--url`"))
    for text in ("".join(swapstore.inside("read", "--help").out.decode().split()), row):
        assert kinds <= set(re.findall(r"(?:re?dis[a-z]*(?:\+[a-z]+)?|unix|https|sqlite)://", text))


def test_version(swapstore: Swapstore) -> None:
    """A bug report could not say which version it is about."""
    assert swapstore("--version").out.decode() == f"{metadata.version('swapstore')}\n"
