"""What mypy and pyright know of the values that are read."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
from __future__ import annotations

from typing import Any, TypedDict

import attrs
import swapstore
import swapstore.aio
from swapstore import Group, Item, Snapshot


@attrs.frozen
class Country:
    code: str


class Region(TypedDict):
    n: int


def blocking(store: swapstore.Store) -> None:
    reveal_type(store.read_latest("mena"))  # Snapshot[Any] | None
    reveal_type(store.read_latest("mena", max_staleness=1, min_version=2))  # Snapshot[Any] | None
    reveal_type(store.read_latest("mena", type=Country))  # Snapshot[Country] | None
    reveal_type(store.read_latest("mena", type=Region, max_staleness=1))  # Snapshot[Region] | None
    reveal_type(store.read_latest("mena", type=list[Country]))  # Snapshot[list[Country]] | None
    reveal_type(store.read_latest("mena", type=Country | None))  # Snapshot[Country | None] | None
    reveal_type(store.read("mena", version=1))  # Snapshot[Any] | None
    reveal_type(store.read("mena", version=1, type=Country))  # Snapshot[Country] | None
    reveal_type(store.read_latest_many(["mena"]))  # dict[str, Snapshot[Any] | None]
    reveal_type(store.read_latest_many(["mena"], type=Country))  # dict[str, Snapshot[Country] | None]
    reveal_type(swapstore.read_latest("mena"))  # Snapshot[Any] | None
    reveal_type(swapstore.read_latest("mena", type=Country))  # Snapshot[Country] | None
    found = store.read_latest("mena", type=Country)
    if found is not None:
        reveal_type(found.value)  # Country
        reveal_type(found.value_as(dict[str, int]))  # dict[str, int]
        wider: Snapshot[Country | None] = found
    store.publish("mena", 1, default=str)
    Item(1, default=str)


def of_groups(group: Group, snapshot: Snapshot) -> None:
    reveal_type(group.value)  # dict[str, Any]
    reveal_type(group.value_as(Region))  # Region
    reveal_type(group["EG"].value_as(Country))  # Country
    reveal_type(snapshot.value)  # Any


async def awaited(store: swapstore.aio.AsyncStore) -> None:
    reveal_type(await store.read_latest("mena"))  # Snapshot[Any] | None
    reveal_type(await store.read_latest("mena", type=Country))  # Snapshot[Country] | None
    reveal_type(await store.read("mena", id="x", type=list[Country]))  # Snapshot[list[Country]] | None
    reveal_type(await store.read_latest_many(["mena"], type=Region))  # dict[str, Snapshot[Region] | None]


def wrong(store: swapstore.Store) -> None:
    store.read_latest("mena", kind=Country)  # error
    store.read_latest(type=Country)  # error
    not_a_region: Snapshot[Region] | None = store.read_latest("mena", type=Country)  # error
"""
LINES = PROGRAM.splitlines()
EXPECTED = {
    number: line.rpartition("  # ")[2]
    for number, line in enumerate(LINES, 1)
    if "reveal_type" in line or "# error" in line
}
MODULES = re.compile(r"\b(?:\w+\.)+(?=[A-Za-z])")
TYPED_DICT = re.compile(r"TypedDict\('?([\w.]+)'?, \{.*?\}\)")


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM, "utf-8")
    return path


def described(text: str) -> str:
    """Return a revealed type without modules, as the program expects it."""
    return MODULES.sub("", TYPED_DICT.sub(r"\1", text))


@pytest.mark.slow
def test_mypy_knows_the_types(program: Path) -> None:
    """A program that is checked with mypy has Any for each value, or an error where there is none."""
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file=", program.name]
    done = subprocess.run(command, cwd=program.parent, capture_output=True, text=True, check=False)
    found: dict[int, str] = {}
    for line in done.stdout.splitlines():
        at = re.match(r'program\.py:(\d+): (error|note: Revealed type is "(.*)")', line)
        if at is not None:
            found[int(at[1])] = "error" if at[3] is None else described(at[3])
    assert found == EXPECTED, done.stdout + done.stderr


@pytest.mark.slow
def test_pyright_knows_the_types(program: Path) -> None:
    """A program that is checked with pyright, or edited in VS Code, has Any for each value."""
    command = [sys.executable, "-m", "pyright", "--outputjson", "--pythonpath", sys.executable, program.name]
    done = subprocess.run(command, cwd=program.parent, capture_output=True, text=True, check=False)
    found: dict[int, str] = {}
    for each in json.loads(done.stdout)["generalDiagnostics"]:
        text = re.search(r'Type of ".*" is "(.*)"$', each["message"])
        number = each["range"]["start"]["line"] + 1
        found[number] = "error" if text is None else described(text[1])
    assert found == EXPECTED, done.stdout + done.stderr
