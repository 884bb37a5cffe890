"""What the targets of the Makefile need, asked of make itself."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FETCHES = "-m tests.support.chromium"


def commands(target: str, *variables: str) -> list[str]:
    """The commands that make would run."""
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", target, *variables],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("target", ["test", "nightly", "screenshots"])
def test_a_browser_is_fetched_before_it_is_used(target: str) -> None:
    """The tests of the page are skipped on a fresh machine, and continuous integration is green."""
    found = commands(target)
    (fetches,) = (index for index, line in enumerate(found) if line.endswith(FETCHES))
    uses = [
        index for index, line in enumerate(found) if "-m pytest" in line or "-m tests.screenshots" in line
    ]
    assert uses
    assert fetches < uses[0]


@pytest.mark.parametrize("target", ["demo", "check", "lint"])
def test_the_quick_targets_need_no_browser(target: str) -> None:
    """Somebody who tries the demo, or commits, waits for seventy megabytes."""
    assert not [line for line in commands(target) if FETCHES in line]


def test_the_demo_installs_and_touches_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who only looks waits for hundreds of megabytes of tools, or finds eight datasets in production."""
    monkeypatch.setenv("SWAPSTORE_URL", "redis://production:6379/0")
    found = commands("demo", "VENV=nowhere")
    (installs,) = (line for line in found if " install " in line)
    assert installs.endswith("--editable '.[cli]'")
    assert found[-1].endswith(f"swapstore demo --url 'sqlite:///{ROOT}/nowhere/demo.db'")
    assert not [line for line in found if "production" in line]


def test_the_tools_are_installed_on_top_of_the_command() -> None:
    """After the demo, the tests find no tools, or in a fresh clone no environment."""
    installs = [line for line in commands("lint", "VENV=nowhere") if "-m venv" in line or " install " in line]
    assert [line.rpartition(" ")[2] for line in installs] == ["nowhere", "'.[cli]'", "'.[cli,dev]'"]


def test_help_names_every_target() -> None:
    """Who is new here reads the Makefile to find out what there is."""
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, check=True, text=True
    ).stdout
    text = (ROOT / "Makefile").read_text("utf-8")
    (phony,) = re.findall(r"^\.PHONY: ((?:.*\\\n)*.*)$", text, re.MULTILINE)
    assert [line.split()[0] for line in shown.splitlines()] == phony.replace("\\", "").split()
