"""The repository's own rules, checked: sizes, docstrings, and what must not be committed."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "swapstore"


def sources(*folders: Path) -> list[Path]:
    return [path for folder in folders for path in sorted(folder.rglob("*.py"))]


def imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "swapstore":
                yield from (f"swapstore.{alias.name}" for alias in node.names)
            else:
                yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", sources(PACKAGE), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_small(path: Path) -> None:
    """One noun a file, whole, and functions that fit a screen."""
    text = path.read_text("utf-8")
    assert text.count("\n") <= 600, "more than one noun"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            assert lines <= 60, node.name


@pytest.mark.parametrize("path", sources(ROOT / "tests"), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_says_what_breaks(path: Path) -> None:
    """A test's docstring says what breaks for a user when it fails."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            assert ast.get_docstring(node), f"{path.name}: {node.name}"


def test_the_protocol_has_no_clock_and_no_randomness_of_its_own() -> None:
    """Operations are handed both, so that a simulation of the real code can be repeated byte for byte."""
    for path in sources(PACKAGE / "protocol"):
        if path.name == "context.py":
            continue
        used = set(imports(ast.parse(path.read_text("utf-8"))))
        assert not used & {"time", "random", "secrets", "uuid", "os", "datetime", "socket", "threading"}, path


def committed() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    names = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in names if path.is_file()] or sources(ROOT / "swapstore", ROOT / "tests")


def test_nothing_private_is_committed() -> None:
    """No home directory of anybody's machine and no address of a package registry."""
    private = re.compile(r"/(home|Users)/\w+/|/roo" + r"t/|py" + r"pi\.org|files\.python" + r"hosted")
    for path in committed():
        found = private.search(path.read_bytes().decode("utf-8", "replace"))
        assert not found, f"{path.relative_to(ROOT)}: {found and found.group()}"
