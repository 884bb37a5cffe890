"""Every mutant fits the code, checked without running its test."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants.anchors import Misfit, Package
from tests.mutants.catalogue import CHECKS, MUTANTS
from tests.mutants.lua import undefined_names
from tests.mutants.workshop import ROOT


@pytest.fixture(scope="module")
def package() -> Package:
    return Package(ROOT / "swapstore")


def test_every_mutant_fits_exactly_once(package: Package) -> None:
    """A mutant that no longer fits breaks nothing, so its promise is not tested."""
    misfits = []
    for mutant in MUTANTS:
        try:
            changed = package.patched(mutant.edits)
        except Misfit as error:
            misfits.append(f"{mutant.name}: {error}")
        else:
            assert all(package.texts[path] != text for path, text in changed.items()), mutant.name
    assert not misfits, "\n\n".join(misfits)


def test_every_mutant_is_code_that_runs(package: Package, tmp_path: Path) -> None:
    """A mutant that uses an undefined name fails any check, and proves nothing."""
    for number, mutant in enumerate(MUTANTS):
        for path, text in package.patched(mutant.edits).items():
            if path.suffix == ".py":
                (tmp_path / f"{number}_{path.name}").write_text(f"# {mutant.name}\n{text}", "utf-8")
            else:
                assert undefined_names(text) == [], mutant.name
        for edit in mutant.edits:
            for module, name in re.findall(r"from (swapstore\S*) import (\w+)", edit.new):
                assert hasattr(importlib.import_module(module), name), mutant.name
    linted = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821,F823", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert linted.returncode == 0, linted.stdout + linted.stderr


def test_every_check_is_a_test_that_exists() -> None:
    """A check that was moved or renamed runs no test, and kills nothing."""
    shipped = "".join(path.read_text("utf-8") for path in (ROOT / "swapstore" / "testing").glob("*.py"))
    lost = []
    for check in CHECKS:
        file, *names = check.partition("[")[0].split("::")
        path = ROOT / "tests" / file
        text = path.read_text("utf-8") + shipped if path.is_file() else ""
        lost += [] if all(re.search(rf"(class|def) {name}\b", text) for name in names) and text else [check]
    assert not lost


def test_names_of_mutants_are_unique() -> None:
    """A table with one name twice does not show which mutant survived."""
    names = [mutant.name for mutant in MUTANTS]
    assert len(set(names)) == len(names)
    assert len(names) >= 192
