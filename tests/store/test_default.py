"""The default store, and what importing costs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import swapstore
from swapstore.connect import default_path
from swapstore.errors import InvalidInput


def run(script: str, **environment: str) -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("SWAPSTORE_", "XDG_"))}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


TWO_LINES = """
import swapstore
swapstore.publish("mena", {"regime": "calm"})
snap = swapstore.read_latest("mena")
print(snap.value, snap.version)
"""


def test_two_lines_of_code_need_no_server(tmp_path: Path) -> None:
    """Without any set-up the embedded store is used, and it survives the process."""
    first = run(TWO_LINES, HOME=str(tmp_path))
    second = run(TWO_LINES, HOME=str(tmp_path))
    assert first == "{'regime': 'calm'} 1\n"
    assert second == "{'regime': 'calm'} 2\n"
    assert [path.name for path in tmp_path.rglob("swapstore.db")] == ["swapstore.db"]


def test_the_environment_names_the_default_store(tmp_path: Path) -> None:
    """`$SWAPSTORE_URL` moves a program to another store without a change."""
    url = f"sqlite:///{tmp_path}/elsewhere.db"
    assert run(TWO_LINES, SWAPSTORE_URL=url, HOME=str(tmp_path / "unused")).endswith(" 1\n")
    with swapstore.connect(url) as store:
        assert store.datasets() == ["mena"]


def test_sqlite_urls_are_relative_with_three_slashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As elsewhere: three slashes are relative to the working directory, four absolute."""
    monkeypatch.chdir(tmp_path)
    with swapstore.connect("sqlite:///here.db") as store:
        store.publish("mena", 1)
    assert (tmp_path / "here.db").exists()
    with swapstore.connect(f"sqlite:///{tmp_path}/with%20space.db") as store:
        store.publish("mena", 1)
    assert (tmp_path / "with space.db").exists()


@pytest.mark.parametrize(
    "options",
    [{"namespace": ""}, {"namespace": "a{b}"}, {"max_payload": 0}, {"max_payload": "1"}, {"cache_bytes": -1}],
)
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    """A namespace with braces would move keys to another cluster slot."""
    with pytest.raises(InvalidInput):
        swapstore.connect("sqlite:///x.db", **options)  # type: ignore[arg-type]


def test_a_path_in_place_of_a_url_says_what_to_write() -> None:
    """The likeliest first mistake is answered with the address that was meant."""
    with pytest.raises(InvalidInput, match="sqlite:///snap.db"):
        swapstore.connect("snap.db")


def test_namespaces_do_not_see_each_other(tmp_path: Path) -> None:
    """Staging and production can share a server."""
    url = f"sqlite:///{tmp_path}/s.db"
    with swapstore.connect(url, namespace="one") as one, swapstore.connect(url, namespace="two") as two:
        one.publish("mena", 1)
        assert two.read_latest("mena") is None
        assert two.datasets() == []


def test_importing_loads_no_driver() -> None:
    """A program on SQLite does not pay for redis-py, and none pays for the command line's libraries."""
    loaded = run("import sys, swapstore; print(*sorted(sys.modules))").split()
    assert not {"redis", "sqlite3", "rich", "cyclopts", "platformdirs", "asyncio"} & set(loaded)


def test_every_public_name_is_there() -> None:
    """`from swapstore import *` works, and the version is that of the installed package."""
    for name in swapstore.__all__:
        assert getattr(swapstore, name) is not None
    assert default_path().name == "swapstore.db"
