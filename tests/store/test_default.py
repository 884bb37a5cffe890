"""The default store, and what an import loads."""

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
    """Run a program in an environment of its own, and return what it printed."""
    return _run(script, environment).stdout


def errors_of(script: str, **environment: str) -> str:
    """Run a program in an environment of its own, and return what it wrote to stderr."""
    return _run(script, environment).stderr


def _run(script: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
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
    return done


TWO_LINES = """
import swapstore
swapstore.publish("mena", {"regime": "calm"})
snap = swapstore.read_latest("mena")
print(snap.value, snap.version)
"""


def test_two_lines_of_code_need_no_server(tmp_path: Path) -> None:
    """The embedded store needs configuration, or its data is gone after the process ends."""
    first = run(TWO_LINES, HOME=str(tmp_path))
    second = run(TWO_LINES, HOME=str(tmp_path))
    assert first == "{'regime': 'calm'} 1\n"
    assert second == "{'regime': 'calm'} 2\n"
    assert [path.name for path in tmp_path.rglob("swapstore.db")] == ["swapstore.db"]


def test_the_default_store_is_logged_once(tmp_path: Path) -> None:
    """A job without its environment publishes into a file that nobody looks at, and nothing tells."""
    script = "import logging; logging.basicConfig(format='%(levelname)s %(name)s %(message)s')\n"
    script += TWO_LINES + "swapstore.connect().close()\n"
    logged = errors_of(script, HOME=str(tmp_path), SWAPSTORE_ULR="redis://:s3cret@h").splitlines()
    (path,) = tmp_path.rglob("swapstore.db")
    assert len(logged) == 1
    assert logged[0].startswith("WARNING swapstore no store is named")
    assert str(path) in logged[0]
    assert "$SWAPSTORE_ULR is set: is it misspelt?" in logged[0]
    assert errors_of(script, HOME=str(tmp_path), SWAPSTORE_URL=f"sqlite:///{tmp_path}/a.db") == ""


def test_the_default_store_is_its_owners_alone(tmp_path: Path) -> None:
    """Other users of the machine read what a program published without naming a store."""
    run(f"import os; os.umask(0)\n{TWO_LINES}\nos._exit(0)", HOME=str(tmp_path))
    (file,) = tmp_path.rglob("swapstore.db")
    parts = list(file.parent.iterdir())
    assert {path.name for path in parts} == {"swapstore.db", "swapstore.db-wal", "swapstore.db-shm"}
    for path in (file.parent, *parts):
        assert not path.stat().st_mode & 0o077, path


@pytest.mark.parametrize("end", ["%0A", "\n", "\r\n", "\t", "%00", "\x7f", "\u200b"])
def test_a_path_with_a_character_that_cannot_be_seen_is_refused(tmp_path: Path, end: str) -> None:
    """An address that was read from a file, with the end of its line, makes another file."""
    with pytest.raises(InvalidInput, match="end of its line|a line break in it"):
        swapstore.connect(f"sqlite:///{tmp_path}/a.db{end}")
    assert not list(tmp_path.iterdir())


def test_the_environment_names_the_default_store(tmp_path: Path) -> None:
    """A program has to be changed to use another store than `$SWAPSTORE_URL`."""
    url = f"sqlite:///{tmp_path}/elsewhere.db"
    assert run(TWO_LINES, SWAPSTORE_URL=url, HOME=str(tmp_path / "unused")).endswith(" 1\n")
    with swapstore.connect(url) as store:
        assert store.datasets() == ["mena"]


def test_sqlite_urls_are_relative_with_three_slashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three slashes are not relative to the working directory, or four not absolute, as elsewhere."""
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
    """A namespace with braces moves keys to another cluster slot."""
    with pytest.raises(InvalidInput):
        swapstore.connect("sqlite:///x.db", **options)  # type: ignore[arg-type]


def test_a_path_in_place_of_a_url_says_what_to_write() -> None:
    """A user who gives a path is not told the URL to write."""
    with pytest.raises(InvalidInput, match="sqlite:///snap.db"):
        swapstore.connect("snap.db")


def test_namespaces_do_not_see_each_other(tmp_path: Path) -> None:
    """Staging and production on one server see each other's datasets."""
    url = f"sqlite:///{tmp_path}/s.db"
    with swapstore.connect(url, namespace="one") as one, swapstore.connect(url, namespace="two") as two:
        one.publish("mena", 1)
        assert two.read_latest("mena") is None
        assert two.datasets() == []


def test_importing_loads_no_driver() -> None:
    """A program on SQLite loads redis-py, or any program the libraries of the command line."""
    loaded = run("import sys, swapstore; print(*sorted(sys.modules))").split()
    assert not {"redis", "sqlite3", "rich", "cyclopts", "platformdirs", "asyncio"} & set(loaded)


def test_every_public_name_is_there() -> None:
    """`from swapstore import *` lacks a name, or the version is not that of the package."""
    for name in swapstore.__all__:
        assert getattr(swapstore, name) is not None
    assert default_path().name == "swapstore.db"
