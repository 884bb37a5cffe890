"""What belongs in an sdist and in a wheel: the files that git has, and nothing else."""

from __future__ import annotations

import re
import subprocess
import tarfile
import zipfile
from collections.abc import Iterable
from email.parser import HeaderParser
from pathlib import Path

LICENCE = re.compile(r"(^|[/.])(LICEN[CS]E|COPYING|NOTICE)", re.IGNORECASE)
DIST_INFO = ("METADATA", "RECORD", "WHEEL", "entry_points.txt")


def tracked(root: Path) -> set[str]:
    """The files that git has, relative to the root."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, check=True).stdout
    return {name for name in listed.decode().split("\0") if name}


def of_sdist(path: Path) -> set[str]:
    """The files in an sdist, without the folder that all of them are in."""
    with tarfile.open(path) as archive:
        return {each.name.partition("/")[2] for each in archive.getmembers() if not each.isdir()}


def of_wheel(path: Path) -> set[str]:
    """The files in a wheel. The metadata are in `*.dist-info/`, whatever the version."""
    with zipfile.ZipFile(path) as archive:
        return {re.sub(r"^swapstore-[^/]*\.dist-info/", "*.dist-info/", name) for name in archive.namelist()}


def licences(path: Path) -> list[str]:
    """The licence files that the metadata of a wheel name."""
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    return metadata.get_all("License-File") or []


def faults_of_sdist(in_git: Iterable[str], there: set[str]) -> list[str]:
    """What an sdist lacks, and what it has too much."""
    return _differences("sdist", {*in_git, "PKG-INFO"}, there)


def faults_of_wheel(in_git: Iterable[str], there: set[str], named: list[str]) -> list[str]:
    """What a wheel lacks, and what it has too much. A licence in it stands in its metadata too."""
    package = {name for name in in_git if name.startswith("swapstore/")}
    wanted = [
        "LICENSE",
        *sorted(name for name in package if LICENCE.search(name) and not name.endswith(".py")),
    ]
    metadata = {f"*.dist-info/{name}" for name in (*DIST_INFO, *(f"licenses/{each}" for each in wanted))}
    found = _differences("wheel", package | metadata, there)
    if sorted(named) != sorted(wanted):
        found.append(f"wheel: the metadata name the licences {sorted(named)}, not {sorted(wanted)}")
    return found


def _differences(what: str, wanted: set[str], there: set[str]) -> list[str]:
    lacking = [f"{what}: lacks {name}" for name in sorted(wanted - there)]
    return lacking + [f"{what}: has {name}, which git has not" for name in sorted(there - wanted)]
