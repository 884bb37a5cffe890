"""What is imported: what the chosen store needs, and nothing of the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CLIENTS = {"redis", "sqlite3", "httpcore2", "asyncio"}
HEAVY = {"rich", "cyclopts", "jsonschema_rs", "opentelemetry", "swapstore.cli", "swapstore.testing"}


def imported(code: str, *, of: set[str]) -> set[str]:
    """Return which of these modules a fresh interpreter has imported after some code."""
    told = f"import swapstore\n{code}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    return of & set(done.stdout.split())


def test_the_package_alone_imports_no_client() -> None:
    """A command that only shows its help, or a worker that never publishes, would wait for three clients."""
    assert imported("", of=CLIENTS | HEAVY) == set()


@pytest.mark.parametrize(
    ("connect", "needs"),
    [
        ("'redis://localhost'", {"redis", "asyncio"}),  # redis-py imports asyncio itself
        ("'sqlite:///{path}/store.db'", {"sqlite3"}),
        ("'https://example.com', token='x'", {"httpcore2"}),
    ],
)
def test_a_store_imports_no_other_client(connect: str, needs: set[str], tmp_path: Path) -> None:
    """Each driver not needed is a tenth of a second at the start of every cron job, and memory for good."""
    found = imported(f"swapstore.connect({connect.format(path=tmp_path)})", of=CLIENTS)
    assert found == needs


def test_a_blocking_store_imports_nothing_for_asyncio(tmp_path: Path) -> None:
    """A blocking program on a file would start slower for an event loop that it never runs."""
    code = f"swapstore.connect('sqlite:///{tmp_path}/store.db').publish('mena', 1)"
    assert imported(code, of={"asyncio", "swapstore.aio", "concurrent.futures", *HEAVY}) == set()
