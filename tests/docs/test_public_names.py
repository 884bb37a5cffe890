"""What users rely on does not change by accident: docs/reference/compatibility.md says how it may."""

from __future__ import annotations

import difflib
from pathlib import Path

from tests.docs import public_names

ROOT = Path(__file__).parents[2]


def test_public_names_are_those_that_were_released() -> None:
    """A name, an argument, a default, an exit code, an option or a metric of users is another one.

    If it is meant: `python -m tests.docs.public_names` writes the file anew. Tell it in the changelog. What
    is taken away warns first, for as long as the page on compatibility says.
    """
    released = public_names.GOLDEN.read_text("utf-8").splitlines()
    changes = difflib.unified_diff(
        released, public_names.public().splitlines(), "released", "now", lineterm=""
    )
    assert list(changes) == []


def test_the_modules_of_the_reference_are_those_that_are_held() -> None:
    """A module is called public, and nobody notices when a name in it changes."""
    page = (ROOT / "docs" / "reference" / "api.md").read_text("utf-8")
    first = page.partition("\n\n")[2].partition("Arguments after")[0]
    for name in public_names.MODULES:
        assert f"`{name}`" in first or name.startswith("swapstore.http."), name
