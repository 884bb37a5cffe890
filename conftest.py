"""The examples in README.md and docs/ run as tests.

```python blocks run in order, in one namespace for each document. ```console blocks run their `$` lines in a
shell; each must succeed, and print what is shown below it, where `...` matches anything. Every document
has its own empty directory, default store and, if it names one, real Valkey server.
"""

from __future__ import annotations

import atexit
import os
import re
import subprocess
import sys
import textwrap
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from sybil import Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser
from sybil.region import Lexeme

from swapstore import Store
from swapstore.connect import _default
from tests.support.cluster import Cluster
from tests.support.valkey import Server

if TYPE_CHECKING:
    from sybil import Example

CLUSTER_IN_DOCS = re.compile(r"redis(\+cluster)?://localhost:7000(,localhost:[0-9]+)*")
SERVER_IN_DOCS = re.compile(r"redis://localhost:6379/(?=[0-9])")
TOGETHER = "SWAPSTORE_DOCS_DIRECTORY"  # names one directory for all documents: one store, server, cluster
TIMEOUT_S = 60


class Surroundings:
    """The environment in which the examples of one document run."""

    def __init__(self) -> None:
        self._undo = ExitStack()
        self._servers = ExitStack()
        self._patch = pytest.MonkeyPatch()
        self._directory = Path()
        self._server: Server | None = None
        self._cluster: Cluster | None = None
        self._python = PythonEvaluator()
        atexit.register(self._servers.close)

    def set_up(self, _: dict[str, Any]) -> None:
        """Begin a document."""
        self._directory = Path(
            os.environ.get(TOGETHER)
            or self._undo.enter_context(TemporaryDirectory(ignore_cleanup_errors=True))
        )
        self._patch = self._undo.enter_context(pytest.MonkeyPatch.context())
        self._patch.chdir(self._directory)
        self._patch.setenv("SWAPSTORE_URL", f"sqlite:///{self._directory}/default.db")
        self._patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        self._patch.setattr(_default, "store", None)

    def tear_down(self, namespace: dict[str, Any]) -> None:
        """End a document: close its stores, stop its server, remove its directory."""
        for value in [*namespace.values(), _default.store]:
            if isinstance(value, Store):
                value.close()
        if TOGETHER not in os.environ:
            self._servers.close()
            self._server = self._cluster = None
        self._undo.close()
        namespace.clear()  # this worker may get another block of the document later

    def _catch_up(self, example: Example) -> None:
        """Run the blocks before this one that did not run here: another worker has taken them."""
        done: set[int] = example.namespace.setdefault("__blocks_done__", set())
        done.add(example.start)
        for earlier in example.document.examples():
            if earlier.start < example.start and earlier.start not in done:
                earlier.evaluate()

    def run_python(self, example: Example) -> None:
        """Run a block of Python."""
        self._catch_up(example)
        block = example.parsed
        example.parsed = Lexeme(self._here(block), block.offset, block.line_offset)
        self._python(example)

    def run_console(self, example: Example) -> str | None:
        """Run a block of commands; describe the first one that differs from the document."""
        self._catch_up(example)
        for command, expected in commands_of(textwrap.dedent(example.parsed)):
            if fault := self._run(self._here(command), expected):
                return fault
        return None

    def _run(self, command: str, expected: str) -> str | None:
        if export := re.fullmatch(r"export (\w+)=(\S+)", command):
            self._patch.setenv(*export.groups())
            return None
        done = subprocess.run(  # noqa: S602 - the documents are ours
            command,
            shell=True,
            check=False,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
        )
        if done.returncode:
            return f"$ {command}\nexited with {done.returncode}:\n{done.stdout}"
        if expected and not pattern_of(expected).fullmatch(done.stdout.strip()):
            return f"$ {command}\nis documented to print:\n{expected}\nand prints:\n{done.stdout}"
        return None

    def _here(self, text: str) -> str:
        """Replace the address that the docs use with that of this document's own server or cluster."""
        if CLUSTER_IN_DOCS.search(text):
            if self._cluster is None:
                cluster = Cluster(self._directory / "cluster", Server(self._directory).binary)
                self._cluster = self._servers.enter_context(cluster)
            whole, one = self._cluster.url, self._cluster.primaries[0].url
            text = CLUSTER_IN_DOCS.sub(lambda address: whole if address[1] else one, text)
        if not SERVER_IN_DOCS.search(text):
            return text
        if self._server is None:
            self._server = Server(self._directory / "server").start()
            self._servers.callback(self._server.stop)
        return SERVER_IN_DOCS.sub(self._server.url.removesuffix("0"), text)


def commands_of(block: str) -> list[tuple[str, str]]:
    """Split a console session into commands (`$ …`, continued after a backslash) and their output."""
    found: list[tuple[str, str]] = []
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        last = next(i for i, line in enumerate(lines) if not line.endswith("\\"))
        found.append(("\n".join(lines[: last + 1]), "\n".join(lines[last + 1 :]).strip()))
    return found


def pattern_of(expected: str) -> re.Pattern[str]:
    """Return a pattern that matches the documented output; `...` matches anything."""
    return re.compile(".*".join(map(re.escape, expected.split("..."))), re.DOTALL)


surroundings = Surroundings()

pytest_collect_file = Sybil(
    parsers=[
        CodeBlockParser("python", surroundings.run_python),
        CodeBlockParser("console", surroundings.run_console),
    ],
    patterns=["README.md", "docs/*.md", "docs/*/*.md"],
    setup=surroundings.set_up,
    teardown=surroundings.tear_down,
).pytest()
