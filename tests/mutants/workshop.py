"""Copies of the repository in which mutants are tested: patched, tested and restored, one at a time."""

from __future__ import annotations

import compileall
import contextlib
import enum
import py_compile
import queue
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Self

import attrs

from tests.mutants.anchors import Misfit, Package
from tests.mutants.launcher import Launcher
from tests.mutants.mutant import Edit, Mutant

ROOT = Path(__file__).parents[2]
WORKERS = 2
TIMEOUT_S = 60.0
CHECKS_IN_TIME = 10  # how many checks may take that long together, on a busy machine
BROKEN = re.compile(
    r"^E +(NameError|UnboundLocalError|ImportError|ModuleNotFoundError|SyntaxError"
    r"|AttributeError: module ).*",
    re.MULTILINE,
)
FAILED = 1  # pytest's exit code for: tests ran, and some failed. 2 to 5 say that they did not run

NOT_NEEDED = shutil.ignore_patterns("__pycache__", ".hypothesis")


class Fate(enum.Enum):
    """What became of a mutant."""

    KILLED = "killed"
    TIMEOUT = "timeout"  # its tests did not end: that counts as killed
    SURVIVED = "survived"
    ERROR = "error"  # the edits did not fit, their code is broken, or the tests did not run


@attrs.frozen
class Verdict:
    """What became of a mutant, the test that failed first, and what pytest said."""

    fate: Fate
    by: str
    seconds: float
    output: str = attrs.field(repr=False, default="")

    @property
    def is_dead(self) -> bool:
        """Say whether a check caught the mistake."""
        return self.fate in {Fate.KILLED, Fate.TIMEOUT}


class Copy:
    """A copy of the library and its tests."""

    def __init__(self, directory: Path, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self.root = directory / "repository"
        self._scratch = directory / "scratch"
        for name in ("swapstore", "tests"):
            shutil.copytree(ROOT / name, self.root / name, ignore=NOT_NEEDED)
        shutil.copy(ROOT / "pyproject.toml", self.root)
        # Byte code is found by the hash of its source: a patch within the same second must not be missed.
        compileall.compile_dir(
            self.root / "swapstore", quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
        )
        self._package = Package(self.root / "swapstore")
        self._launcher = Launcher(self.root, directory / "output")

    def judge(self, mutant: Mutant) -> Verdict:
        """Apply a mutant, run its checks, and restore the copy."""
        began = time.monotonic()
        try:
            with self._patched(mutant.edits):
                return self.run(mutant.checks)
        except Misfit as error:
            return Verdict(Fate.ERROR, "its patch", time.monotonic() - began, str(error))

    @contextlib.contextmanager
    def _patched(self, edits: Sequence[Edit]) -> Iterator[None]:
        changed = self._package.patched(edits)
        try:
            for path, text in changed.items():
                path.write_text(text, "utf-8")
            yield
        finally:
            for path in changed:
                path.write_text(self._package.texts[path], "utf-8")

    def run(self, checks: Sequence[str]) -> Verdict:
        """Run tests on the copy as it stands now."""
        began = time.monotonic()
        arguments = [
            *("-q", "-x", "-m", "", "-p", "no:cacheprovider", "-p", "tests.mutants.verify"),
            *("--rootdir", str(self.root), "--basetemp", str(self._scratch)),
            *(f"tests/{check}" for check in checks),
        ]
        code, output = self._launcher.run(arguments, self._timeout_s * max(1, len(checks) // CHECKS_IN_TIME))
        return _verdict(code, output, time.monotonic() - began)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._launcher.__exit__()


def _verdict(code: int | None, output: str, seconds: float) -> Verdict:
    if code is None:
        return Verdict(Fate.TIMEOUT, "timeout", seconds)
    failed = re.search(r"^FAILED tests/(.+?)(?: - .*)?$", output, re.MULTILINE)
    if code == 0:
        return Verdict(Fate.SURVIVED, "", seconds, output)
    broken = BROKEN.search(output)
    if broken is not None:
        return Verdict(Fate.ERROR, f"its own code: {broken[0]}", seconds, output)
    if code == FAILED and failed is not None:
        return Verdict(Fate.KILLED, failed[1], seconds, output)
    return Verdict(Fate.ERROR, f"pytest's exit code {code}", seconds, output)


class Workshop:
    """Several copies that work in parallel."""

    def __init__(self, workers: int = WORKERS) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="swapstore-mutants-")
        self._copies = [Copy(Path(self._directory.name) / str(number)) for number in range(workers)]
        self._idle: queue.SimpleQueue[Copy] = queue.SimpleQueue()
        for copy in self._copies:
            self._idle.put(copy)
        self._pool = ThreadPoolExecutor(workers)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        for copy in self._copies:
            copy.__exit__()
        self._directory.cleanup()

    def judge(self, mutant: Mutant) -> Future[Verdict]:
        """Start to judge a mutant. One without edits is the unchanged code."""
        return self._pool.submit(self._judge, mutant)

    def _judge(self, mutant: Mutant) -> Verdict:
        copy = self._idle.get()
        try:
            return copy.judge(mutant)
        finally:
            self._idle.put(copy)
