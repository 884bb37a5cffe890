"""Runs pytest repeatedly, each time in a fork of a process that has loaded what is not under test.

Loading pytest and the stores' clients takes longer than most checks of a mutant do.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn, Self

ENDING_S = 10.0
CRASHED = 99  # no exit code of pytest's


class Launcher:
    """A process that waits in a directory, and runs pytest there on request."""

    def __init__(self, root: Path, output: Path) -> None:
        self._output = output
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.mutants.launcher", output],
            cwd=root,
            env=_environment(root),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=ENDING_S)

    def run(self, arguments: Sequence[str], timeout_s: float) -> tuple[int | None, str]:
        """Return pytest's exit code (None: it did not end in time) and its output."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(list(arguments)) + "\n")
        child = int(self._process.stdout.readline())
        in_time, _, _ = select.select([self._process.stdout], [], [], timeout_s)
        if not in_time:
            with contextlib.suppress(ProcessLookupError):  # it ended this very moment
                os.killpg(child, signal.SIGKILL)
        code = int(self._process.stdout.readline())
        return (code if in_time else None), self._output.read_text("utf-8", "replace")


def _environment(root: Path) -> dict[str, str]:
    """Import from the directory, and load no plugin that the checks do not need."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return {**inherited, "PYTHONPATH": str(root), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


# --- in the process that waits ----------------------------------------------------------------


def serve(output: str) -> None:
    """Fork for each line of arguments. Print the child's process group, and later its exit code."""
    import fakeredis  # noqa: F401, PLC0415 - loaded here, so that no child has to
    import hypothesis.stateful  # noqa: F401, PLC0415
    import pytest  # noqa: F401, PLC0415
    import sybil.evaluators.python  # noqa: PLC0415
    import sybil.parsers.markdown  # noqa: F401, PLC0415

    assert "swapstore" not in sys.modules
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _run(json.loads(line), output)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201 - the parent reads it


def _run(arguments: list[str], output: str) -> NoReturn:
    import pytest  # noqa: PLC0415

    os.setsid()  # so that the servers it starts can be stopped with it
    print(os.getpid(), flush=True)  # noqa: T201
    nothing = os.open(os.devnull, os.O_RDONLY)
    written = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for theirs, ours in ((nothing, 0), (written, 1), (written, 2)):
        os.dup2(theirs, ours)
    code = CRASHED
    try:
        code = int(pytest.main(arguments))
        sys.stdout.flush()
    finally:
        os._exit(code)


if __name__ == "__main__":
    serve(sys.argv[1])
