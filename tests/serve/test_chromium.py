"""Where the browser of the tests comes from, and that half of one is none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support import browser, chromium


@pytest.fixture(autouse=True)
def venv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment without a browser, on a machine without one."""
    monkeypatch.setattr(browser, "FETCHED", tmp_path / "chromium-1")
    monkeypatch.setattr(browser, "MISSING", tmp_path / "chromium-missing")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n", "utf-8")
    path.chmod(0o755)


def cut_short(part: Path) -> None:
    script(part / "chromium", "exit 0")
    raise subprocess.CalledProcessError(1, "npm", stderr="npm error code ENOTFOUND\nnpm error more\n")


def broken(part: Path) -> None:
    script(part / "chromium", "echo no libnss3.so >&2; exit 1")


def test_a_download_that_was_killed_is_no_browser(venv: Path) -> None:
    """Every test of the page fails until somebody finds out which directory to remove."""
    part = venv / "chromium-1.part"
    part.mkdir()
    script(part / "chromium", "exit 0")
    assert browser.find() is None


@pytest.mark.parametrize(
    ("unpack", "why"), [(cut_short, "npm error code ENOTFOUND"), (broken, "no libnss3.so")]
)
@pytest.mark.server
def test_without_a_browser_the_reason_is_printed_and_nothing_fails(
    venv: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], unpack: object, why: str
) -> None:
    """`make test` fails without a network, or skips tests and nobody learns why."""
    monkeypatch.setattr(chromium, "unpack", unpack)
    chromium.main()
    (line,) = capsys.readouterr().out.splitlines()
    assert why in line
    assert why in browser.missing()
    assert browser.find() is None
    assert [path.name for path in venv.iterdir()] == ["chromium-missing"]


def test_the_browser_of_the_system_comes_first(venv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seventy megabytes are fetched for nothing."""
    monkeypatch.setattr(chromium, "unpack", cut_short)
    browser.FETCHED.mkdir()
    script(venv / "google-chrome", "exit 0")
    browser.MISSING.write_text("no network yesterday", "utf-8")
    chromium.main()
    assert browser.find() == browser.Chromium(venv / "google-chrome")
    assert not browser.MISSING.exists()
