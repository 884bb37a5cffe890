"""What is released: its metadata, the version, the sdist, and what continuous integration tests of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.specifiers import SpecifierSet

import swapstore

ROOT = Path(__file__).parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
BUILD = PYPROJECT["tool"]["hatch"]


def lower_bounds(*, extras: bool) -> dict[str, str]:
    """The dependencies of users with the lowest version that is allowed. An extra may raise a bound."""
    wanted = list(PROJECT["dependencies"])
    if extras:
        wanted += [each for name, all_of in EXTRAS.items() if name not in {"dev", "docs"} for each in all_of]
    found = [re.fullmatch(r"([\w.-]+)(?:\[[\w,]+\])?>=([\d.]+)(?:; .*)?", each) for each in wanted]
    assert all(found), wanted
    return {match[1]: match[2] for match in found if match}


@pytest.mark.parametrize(("file", "extras"), [("oldest.txt", True), ("oldest-library.txt", False)])
def test_the_oldest_dependencies_that_are_tested_are_the_oldest_allowed(file: str, *, extras: bool) -> None:
    """A lower bound would promise a version that nobody has tried."""
    lines = (ROOT / "tests" / file).read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert pins == lower_bounds(extras=extras)
    assert file.removesuffix(".txt") in (ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8")


@pytest.mark.parametrize(
    ("neighbour", "allows"),
    [
        ("celery[redis] 5.3 and 5.4", ">=4.5.2,!=4.5.5,<6.0.0"),
        ("celery[redis] 5.5", ">=4.5.2,!=4.5.5,!=5.0.2,<=5.2.1"),
        ("arq 0.28", ">=4.2.0,<6"),
    ],
)
def test_programs_that_bound_redis_from_above_can_be_installed_beside(neighbour: str, allows: str) -> None:
    """A project with a task queue could not install swapstore, or would get an old queue."""
    lowest = lower_bounds(extras=True)["redis"]
    assert SpecifierSet(allows).contains(lowest), neighbour


def test_the_version_is_written_once() -> None:
    """A bug report could name a version that is not the one installed."""
    assert "version" not in PROJECT
    assert BUILD["version"]["path"] == "swapstore/__init__.py"
    assert swapstore.__version__ == metadata.version("swapstore")


def test_types_are_shipped() -> None:
    """A type checker would take everything of swapstore for `Any`."""
    assert "Typing :: Typed" in PROJECT["classifiers"]
    assert (ROOT / "swapstore" / "py.typed").exists()


def test_the_sdist_holds_what_its_tests_need() -> None:
    """A distributor who builds from the sdist could not run the tests, or not all of them."""
    included = {pattern.removeprefix("/") for pattern in BUILD["build"]["targets"]["sdist"]["include"]}
    for name in included:
        assert (ROOT / name).exists(), name
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    committed = {name.partition("/")[0] for name in listed.stdout.decode().split("\0") if name}
    assert committed - included <= {".gitignore", "pyproject.toml"}  # which hatchling always adds


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        check=False,
        text=True,
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "80"},
    )


def test_python_m_swapstore_is_the_command() -> None:
    """Where scripts are not on PATH, the command could not be run."""
    assert run("-m", "swapstore", "--version").stdout == f"{swapstore.__version__}\n"
    assert run("-m", "swapstore", "--help").stdout.startswith("Usage: swapstore ")
    assert run("-m", "swapstore", "read", "--nonsense").returncode == 2


@pytest.mark.parametrize("library", ["cyclopts", "rich"])
def test_python_m_swapstore_says_what_to_install(library: str) -> None:
    """Without the extra, a user would see a traceback, and not what is missing."""
    without = f"import runpy, sys; sys.modules[{library!r}] = None"
    done = run("-c", f"{without}; runpy.run_module('swapstore', run_name='__main__')")
    assert done.returncode == 2
    assert done.stderr == "swapstore: the command needs an extra: pip install 'swapstore[cli]'\n"


def test_pyinstaller_finds_the_hooks() -> None:
    """A frozen program raises FileNotFoundError for commit.lua, or ImportError for each of its commands."""
    (found,) = (each for each in metadata.entry_points(group="pyinstaller40") if "swapstore" in each.value)
    (directory,) = found.load()()
    assert 'collect_data_files("swapstore")' in Path(directory, "hook-swapstore.py").read_text("utf-8")
    commands = Path(directory, "hook-swapstore.cli.app.py").read_text("utf-8")
    assert 'collect_submodules("swapstore.cli")' in commands
