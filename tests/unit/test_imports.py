"""What an import loads: what the chosen store needs, and nothing of the other ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CLIENTS = {"redis", "sqlite3", "httpcore2", "asyncio"}
ZSTD = {"backports.zstd", "compression.zstd"}
HEAVY = {
    "rich",
    "cyclopts",
    "jsonschema_rs",
    "opentelemetry",
    "swapstore.cli",
    "swapstore.testing",
    "swapstore.changes",
    *ZSTD,
}
OPTIONAL = {
    f"swapstore.{name}"
    for name in (
        "aio",
        "copying",
        "doctor",
        "events",
        "fsck",
        "health",
        "http",
        "migration.layout",
        "observe",
        "protocol.scriptless.committer",
        "reports",
        "validators",
        "views",
    )
}


def imported(code: str, *, of: set[str]) -> set[str]:
    """Return which of these modules a fresh interpreter has imported after some code."""
    told = f"import swapstore\n{code}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, check=True)
    return of & set(done.stdout.split())


def test_the_package_alone_imports_no_client() -> None:
    """`swapstore --help` waits for three clients to load."""
    assert imported("", of=CLIENTS | HEAVY | OPTIONAL) == set()


def test_every_public_name_is_there_when_it_is_asked_for() -> None:
    """`swapstore.Health`, or `swapstore.events`, is there only if something else has imported it."""
    imported("[getattr(swapstore, name) for name in [*swapstore.__all__, 'aio', 'events', 'http']]", of=set())


def test_a_store_imports_only_what_its_calls_need(tmp_path: Path) -> None:
    """Every process that publishes or reads once pays for health checks, listeners and repairs."""
    code = f"store = swapstore.connect('sqlite:///{tmp_path}/store.db')\n"
    code += "store.publish('mena', 1)\nstore.read_latest('mena')"
    assert imported(code, of=OPTIONAL | HEAVY) == set()


@pytest.mark.parametrize(
    ("connect", "needs"),
    [
        ("'redis://localhost'", {"redis", "asyncio"}),  # redis-py imports asyncio itself
        ("'sqlite:///{path}/store.db'", {"sqlite3"}),
        ("'https://example.com', token='x'", {"httpcore2"}),
    ],
)
def test_a_store_imports_no_other_client(connect: str, needs: set[str], tmp_path: Path) -> None:
    """Every cron job starts a tenth of a second later for each driver that it does not need."""
    found = imported(f"swapstore.connect({connect.format(path=tmp_path)})", of=CLIENTS)
    assert found == needs


def test_a_blocking_store_imports_nothing_for_asyncio(tmp_path: Path) -> None:
    """A blocking program on a file starts slower because of asyncio, which it never runs."""
    code = f"swapstore.connect('sqlite:///{tmp_path}/store.db').publish('mena', 1)"
    assert imported(code, of={"asyncio", "swapstore.aio", "concurrent.futures", *HEAVY}) == set()
