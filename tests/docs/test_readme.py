"""The README: what a newcomer types first, and may type again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from conftest import commands_of

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
LINES = 95


def block(language: str) -> str:
    """The first block of a language."""
    return str(re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)[0])


def ran(directory: Path, *command: str) -> list[str]:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        command,
        cwd=directory,
        env={**environment, "SWAPSTORE_URL": "sqlite:///snapshots.db"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_examples_print_what_stands_beside_them_and_run_again(tmp_path: Path) -> None:
    """A newcomer runs the first example once more, after the lines for the shell, and gets a traceback."""
    python = block("python")
    first = ran(tmp_path, sys.executable, "-c", python)
    assert first == re.findall(r"^ *print\(.*\)  # (.*)$", python, re.MULTILINE)
    commands = [command for command, _ in commands_of(block("console")) if not command.startswith("export")]
    for command in commands:
        ran(tmp_path, "sh", "-c", command)
    again = ran(tmp_path, sys.executable, "-c", python)
    assert again == ["2 {'regime': 'tense'}", "tense"]
    for command in commands:
        ran(tmp_path, "sh", "-c", command)


def test_it_is_one_screen_and_names_its_home() -> None:
    """A newcomer does not find where to clone from, or reads for minutes before that."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"git clone {project['urls']['Source']} && " in README
    assert len(README.splitlines()) <= LINES
