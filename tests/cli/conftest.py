"""The command as users run it: a process of its own, on a store of its own."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest

from swapstore.cli import main

TIMEOUT_S = 60
COMMAND = (sys.executable, "-m", "swapstore.cli")
NOT_FOR_USERS = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED")


@attrs.frozen
class Done:
    """How a run ended."""

    code: int
    out: bytes
    err: str

    @property
    def json(self) -> Any:
        """The one line of JSON that was printed."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def lines(self) -> list[Any]:
        """The lines of JSON that were printed."""
        return [json.loads(line) for line in self.out.splitlines()]


class Swapstore:
    """Runs the command on a SQLite file in a temporary directory."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "store.db"
        self.url = f"sqlite:///{self.path}"
        self.env = {
            **os.environ,
            "SWAPSTORE_URL": self.url,
            "HOME": str(directory),
            "XDG_DATA_HOME": str(directory / "data"),
            "TERM": "xterm",
        }
        for name in (*NOT_FOR_USERS, "SWAPSTORE_NAMESPACE"):
            self.env.pop(name, None)

    def __call__(self, *arguments: str, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Done:
        """Run the command as scripts do, with pipes."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            input=stdin,
            capture_output=True,
            env={**self.env, **(env or {})},
            timeout=TIMEOUT_S,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr.decode())

    def inside(self, *arguments: str, stdin: bytes = b"") -> Done:
        """Run the command in this process: faster, where a process of its own would prove no more."""
        streams = {"stdin": io.BytesIO(stdin), "stdout": io.BytesIO(), "stderr": io.BytesIO()}
        with pytest.MonkeyPatch.context() as patch:
            for name, stream in streams.items():
                patch.setattr(sys, name, io.TextIOWrapper(stream, write_through=True))
            patch.setenv("SWAPSTORE_URL", self.url)
            patch.delenv("SWAPSTORE_NAMESPACE", raising=False)
            try:
                code = main(arguments)
            except SystemExit as end:
                code = int(end.code or 0)
            return Done(code, streams["stdout"].getvalue(), streams["stderr"].getvalue().decode())

    def on_a_terminal(
        self, *arguments: str, columns: int = 80, env: Mapping[str, str] | None = None, typed: bytes = b""
    ) -> Done:
        """Run the command on a terminal, and return what is seen there, without colours."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=subprocess.PIPE,
            env={**self.env, **(env or {})},
        )
        os.close(theirs)
        os.write(ours, typed)
        seen = b""
        try:
            while chunk := os.read(ours, 65_536):
                seen += chunk
        except OSError:
            pass  # Linux says so when the other side is closed
        os.close(ours)
        _, err = process.communicate(timeout=TIMEOUT_S)
        text = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", seen).replace(b"\r\n", b"\n")
        return Done(process.returncode, text, err.decode())


@pytest.fixture
def swapstore(tmp_path: Path) -> Swapstore:
    return Swapstore(tmp_path)
