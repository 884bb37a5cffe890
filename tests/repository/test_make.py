"""What the targets of the Makefile need, asked of make itself."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FETCHES = "-m tests.support.chromium"


def commands(target: str) -> list[str]:
    """The commands that make would run."""
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", target],
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
