"""A pytest plugin: the tests of a mutant run on the mutated copy, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

import swapstore


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse to run on another `swapstore` than the one beside these tests, the installed one for example."""
    imported = Path(swapstore.__file__).resolve()
    if not imported.is_relative_to(session.config.rootpath.resolve()):
        pytest.exit(f"swapstore was imported from {imported}, not from the mutated copy", returncode=3)
