"""What each publish has on disk when it returns: counted with strace if available, else documented."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

from tests.benchmarks.peer_environment import ROOT, Environment
from tests.benchmarks.peer_runner import MARKER

PUBLISHES = 8
TIMEOUT_S = 60
CALLS = ("fsync", "fdatasync", "msync", "sync_file_range", "syncfs", "sync")
CALL = re.compile(rf"\d+ +({'|'.join(CALLS)})\((?:\d+<([^>]*)>)?")
DOCUMENTED = {
    "swapstore": "yes: WAL, synchronous=FULL",
    "plain sqlite3": "yes: WAL, synchronous=FULL",
    "diskcache": "no: WAL, synchronous=NORMAL",
}


def synced(environment: Environment, subject: str, directory: Path, *, count: bool) -> str:
    """Say how many syncs a publish makes, and how that is known."""
    can = count and shutil.which("strace")
    counted = _counted(environment, subject, directory) if can else None
    if counted is None:
        return f"{DOCUMENTED[subject]} (documented)" if subject in DOCUMENTED else "not counted (no strace)"
    if not counted:
        return "nothing (strace)"
    each = (f"{calls / PUBLISHES:g} {name}" for name, calls in sorted(counted.items()))
    return f"{', '.join(each)} (strace)"


def _counted(environment: Environment, subject: str, directory: Path) -> Counter[str] | None:
    directory.mkdir(parents=True)
    log = directory / "strace.log"
    watched = ",".join([*CALLS, "access", "faccessat", "faccessat2"])
    command = ["strace", "-f", "-y", "-qq", "-e", f"trace=?{watched.replace(',', ',?')}", "-o", str(log)]
    command += environment.command("syncs", subject, str(directory), PUBLISHES)
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environment.surroundings,
            capture_output=True,
            check=False,
            timeout=TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return None
    lines = log.read_text("utf-8", "replace").splitlines() if log.exists() else []
    marks = [number for number, line in enumerate(lines) if MARKER in line]
    if done.returncode or len(marks) < 2:
        return None
    calls = (CALL.match(line) for line in lines[marks[0] : marks[-1]])
    return Counter(f"{call[1]} {_named(call[2])}".strip() for call in calls if call)


def _named(path: str | None) -> str:
    return "" if path is None else "of a directory" if Path(path).is_dir() else Path(path).name
