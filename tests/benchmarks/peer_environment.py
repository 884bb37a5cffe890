"""An environment for the peers, made on demand and kept: they are no dependencies of this project."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

import attrs
import platformdirs

from tests.benchmarks.peer_subjects import URL_VARIABLE

ROOT = Path(__file__).parents[2]
INSTALL_S = 300
LISTED = Path(__file__).with_name("peers.txt")
OURS = ("swapstore", "plain sqlite3")  # need nothing but what is here


@attrs.frozen
class Environment:
    """Which Python runs each subject, its version, and why some cannot be run."""

    python: Path
    url: str
    versions: dict[str, str]
    missing: dict[str, str]

    @property
    def surroundings(self) -> dict[str, str]:
        """Return the variables that a subject runs with."""
        return {**os.environ, URL_VARIABLE: self.url}

    def command(self, do: str, subject: str, where: str, *more: object) -> list[str]:
        """Return the command that runs a subject."""
        python = sys.executable if subject in OURS else str(self.python)
        return [python, "-m", "tests.benchmarks.peer_runner", do, subject, where, *map(str, more)]


def prepared(directory: Path | None, url: str, *, install: bool) -> Environment:
    """Return the environment; install what is missing, one by one, so that a failure affects one peer."""
    place = directory or Path(platformdirs.user_cache_dir("swapstore", appauthor=False)) / "bench-peers"
    python = place / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if install and not python.exists():
        venv.create(place, with_pip=True)
    versions, missing = {}, {}
    for name, packages in listed(LISTED.read_text("utf-8")).items():
        found = _version(python, packages[0])
        if found is None and install:
            missing[name] = _install(python, packages)
            found = _version(python, packages[0])
        if found is None:
            missing.setdefault(name, "not installed; a run without --quick installs it")
        else:
            versions[name] = found
            missing.pop(name, None)
    return Environment(python, url, versions, missing)


def listed(text: str) -> dict[str, list[str]]:
    """Return the packages of each peer: a line has a package and, as a comment, the name of its peer."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        package, _, name = line.partition("#")
        if package.strip():
            found.setdefault(name.strip(), []).append(package.strip())
    return found


def _version(python: Path, package: str) -> str | None:
    if not python.exists():
        return None
    name = package.partition("[")[0]
    asked = f"import importlib.metadata as m; print(m.version({name!r}))"
    done = subprocess.run([str(python), "-c", asked], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _install(python: Path, packages: list[str]) -> str:
    """Install; return the last message of pip if it failed."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_S)
    except subprocess.TimeoutExpired:
        return f"pip took more than {INSTALL_S} s"
    errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
    return (errors or ["pip failed"])[-1]
