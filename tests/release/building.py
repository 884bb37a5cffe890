"""Build an sdist and a wheel from what git has, twice, and check both."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.release import contents

ROOT = Path(__file__).parents[2]
DIST = ROOT / "dist"


def build(out: Path = DIST) -> list[Path]:
    """Return the sdist and the wheel that was built from it.

    Both are built a second time, from files of another age and under other permissions, and must be the same.
    """
    with tempfile.TemporaryDirectory() as temporary:
        first, second = (_built(Path(temporary) / name) for name in ("first", "second"))
        if (one := _digests(first)) != (two := _digests(second)):
            raise SystemExit(f"two builds of the same files differ: {one} and {two}")
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(first, out)
    made = sorted(out.iterdir())
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *made], check=True)
    if faults := _faults(made):
        raise SystemExit("\n".join(faults))
    for path in made:
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}  {path.stat().st_size:,} bytes")
    return made


def _built(where: Path) -> Path:
    """Copy what git has, and build it there."""
    source = where / "source"
    for name in contents.tracked(ROOT):
        target = source / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
        if where.name == "second":
            target.chmod(target.stat().st_mode & 0o700)
            os.utime(target, (1, 1))
    command = [sys.executable, "-m", "build", "--outdir", str(where / "dist"), str(source)]
    done = subprocess.run(
        command,
        env={**os.environ, "SOURCE_DATE_EPOCH": epoch()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.stdout)
    return where / "dist"


def epoch() -> str:
    """The time of the files in the archives: that of the commit, unless `$SOURCE_DATE_EPOCH` is set."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return given
    log = ["git", "log", "-1", "--format=%ct"]
    return subprocess.run(log, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


def _faults(made: list[Path]) -> list[str]:
    in_git = contents.tracked(ROOT)
    (sdist,) = (path for path in made if path.name.endswith(".tar.gz"))
    (wheel,) = (path for path in made if path.suffix == ".whl")
    return [
        *contents.faults_of_sdist(in_git, contents.of_sdist(sdist)),
        *contents.faults_of_wheel(in_git, contents.of_wheel(wheel), contents.licences(wheel)),
    ]
