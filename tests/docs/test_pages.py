"""The pages of the docs as a reader follows them: one after the other, on one machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/tutorial.md", "docs/how-to", "docs/reference", "docs/explanation")


@pytest.mark.nightly
@pytest.mark.server
def test_pages_do_not_collide_in_one_store(tmp_path: Path) -> None:
    """A newcomer who has followed the tutorial gets other results in the how-to, or `IdConflict`."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *PAGES],
        cwd=ROOT,
        env={**os.environ, "SWAPSTORE_DOCS_DIRECTORY": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:]
