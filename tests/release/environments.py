"""The wheel alone in fresh environments: with no extra, with each one, and with all of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

from tests.release.building import DIST, ROOT
from tests.support.valkey import Server

SMOKE = Path(__file__).with_name("smoke.py")
BILL = ROOT / "build"
SMOKE_S = 120.0  # it takes a few seconds; what hangs is told, and not waited for


def wheel() -> Path:
    """The wheel that was built."""
    (found,) = DIST.glob("*.whl")
    return found


def extras(path: Path) -> list[str]:
    """The extras that the metadata of a wheel name, without those for development."""
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = HeaderParser().parsestr(archive.read(name).decode())
    return [each for each in metadata.get_all("Provides-Extra") or [] if each not in {"dev", "docs"}]


def smoke(pythons: list[str]) -> None:
    """Run the smoke test in one environment for each combination, outside of the repository."""
    path = wheel()
    known = extras(path)
    combinations = [[], *([each] for each in known), known]
    with tempfile.TemporaryDirectory() as temporary:
        outside = Path(temporary)
        server = Server(outside / "server").start()
        try:
            for python in pythons or [sys.executable]:
                for wanted in combinations:
                    place = outside / "place"
                    fresh = environment(place / "environment", python, path, wanted)
                    with server.client() as client:
                        client.flushall()
                    _run(fresh, place, wanted, known, server.url)
                    shutil.rmtree(place)
        finally:
            server.stop()


def environment(where: Path, python: str, path: Path, wanted: list[str]) -> Path:
    """Install the wheel with some extras in a new environment, and return its Python."""
    subprocess.run([python, "-m", "venv", str(where)], check=True)
    fresh = where / "bin" / "python"
    what = f"{path}[{','.join(wanted)}]" if wanted else str(path)
    subprocess.run([fresh, "-m", "pip", "install", "-qq", "--disable-pip-version-check", what], check=True)
    return fresh


def _run(python: Path, place: Path, wanted: list[str], known: list[str], url: str) -> None:
    copied = place / "smoke.py"
    shutil.copyfile(SMOKE, copied)
    names = [",".join(each) or "-" for each in (wanted, known)]
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SWAPSTORE"))}
    command = [str(python), "-I", "-W", "error", str(copied), *names, url]
    subprocess.run(command, cwd=place, env=env, check=True, timeout=SMOKE_S)


def bill_of_materials() -> Path:
    """Write what the wheel installs with all its extras, as CycloneDX, and return the file."""
    path = wheel()
    with tempfile.TemporaryDirectory() as temporary:
        fresh = environment(Path(temporary) / "environment", sys.executable, path, extras(path))
        subprocess.run([fresh, "-m", "pip", "uninstall", "--quiet", "--yes", "pip", "setuptools"], check=True)
        command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", str(fresh)]
        written = subprocess.run(command, capture_output=True, check=True).stdout
    made = json.loads(written)
    ours = next(each for each in made["components"] if each["name"] == "swapstore")
    made["metadata"]["component"] = ours  # the bill is about this one
    made["components"].remove(ours)
    ours.pop("externalReferences", None)  # where the wheel lay on this machine
    BILL.mkdir(exist_ok=True)
    target = BILL / f"{re.sub(r'-py3-.*', '', path.name)}.cdx.json"
    target.write_text(json.dumps(made, indent=2) + "\n", "utf-8")
    print(f"{target.relative_to(ROOT)}: {len(made['components'])} components")
    return target
