"""The two jobs of the page about cron, as they stand there: twice at once, in an outage, with bad data."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import swapstore
from tests.support.valkey import Server

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "how-to" / "publish-from-a-cron-job.md").read_text("utf-8")
CRONTAB = re.compile(r"^(?:[\d*/]+ +){5}\S.*$", re.MULTILINE)
WAIT_S = 60
WHOLE = 'echo "[\\"$$\\", "; meet; echo "\\"$$\\"]"'

PROGRAMS = {
    "swapstore": 'exec "$PYTHON" -m swapstore.cli "$@" --patience 0',
    "date": "echo $SLOT",
    "sleep": 'echo "$1" >> sleeps; until [ -e up ]; do /bin/sleep 0.02; done',
    "compute-snapshot": 'meet() { touch "at.$$"; until [ $(ls at.* | wc -l) -ge "$RUNS" ]; do '
    '/bin/sleep 0.02; done; }\neval "$COMPUTE"',
}
OF_PYTHON = """
def compute():
    import json, subprocess
    return json.loads(subprocess.run("compute-snapshot", check=True, capture_output=True).stdout)
"""


def block(language: str, mark: str) -> str:
    """The block of the page in this language that has the mark."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (found,) = (each for each in blocks if mark in each)
    return str(found)


def in_shell() -> str:
    return block("sh", "#!/bin/sh")


def in_python() -> str:
    """The job, with the pauses of the test, and a `compute` that runs the same program."""
    job = block("python", "def main()")
    for given, ours in (
        (r"^def compute\(\).*?(?=\n\n\n)", OF_PYTHON.strip()),
        (r"time\.sleep\(pause\)", 'subprocess.run(["sleep", str(pause)])'),
        (r"time\.strftime\([^)]*\(\)\)", '"hourly:" + os.environ["SLOT"]'),
        (r'os\.environ\["SWAPSTORE_URL"\]', r"\g<0>, patience=0"),
        (r"^import time$", "import subprocess"),
    ):
        job, found = re.subn(given, ours, job, count=1, flags=re.MULTILINE | re.DOTALL)
        assert found == 1, given
    return job


class Runs:
    """Starts the job with programs that the test steers."""

    def __init__(self, directory: Path, command: list[str]) -> None:
        self.directory = directory
        self.command = command
        self.url = f"sqlite:///{directory}/store.db"
        for name in ("bin", "tmp"):
            (directory / name).mkdir()
        for name, script in PROGRAMS.items():
            program = directory / "bin" / name
            program.write_text(f"#!/bin/sh\n{script}\n")
            program.chmod(0o755)

    def start(self, compute: str = WHOLE, slot: str = "06", runs: int = 1) -> subprocess.Popen[str]:
        """Start one run; its `compute` may `meet` the others when half of its output is written."""
        environment = {
            **os.environ,
            "PATH": f"{self.directory / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "PYTHON": sys.executable,
            "SWAPSTORE_URL": self.url,
            "TMPDIR": str(self.directory / "tmp"),
            "COMPUTE": compute,
            "SLOT": slot,
            "RUNS": str(runs),
        }
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(self.command, cwd=self.directory, env=environment, text=True, **pipes)  # type: ignore[call-overload,no-any-return]

    def ended(self, run: subprocess.Popen[str]) -> tuple[int, str]:
        """How a run ended, and its errors. It leaves no file."""
        _, errors = run.communicate(timeout=WAIT_S)
        assert list((self.directory / "tmp").iterdir()) == []
        return run.returncode, errors

    def has_slept(self) -> list[str]:
        """How long the runs waited until now."""
        path = self.directory / "sleeps"
        return path.read_text().split() if path.exists() else []

    def wait_for(self, name: str) -> None:
        """Wait until a file is there."""
        deadline = time.monotonic() + WAIT_S
        while not list(self.directory.glob(name)):
            assert time.monotonic() < deadline, f"there is no {name}"
            time.sleep(0.01)

    def up(self) -> None:
        """Let the pauses end."""
        (self.directory / "up").touch()

    def versions(self) -> list[object]:
        """What was published."""
        with swapstore.connect(self.url) as store:
            found = [store.read("mena", version=row.version) for row in store.history("mena")]
        return [snapshot.value for snapshot in found if snapshot is not None]


@pytest.fixture(params=["sh", "python"])
def job(request: pytest.FixtureRequest, tmp_path: Path) -> Runs:
    """The job of the page, in the shell and in Python."""
    path = tmp_path / "job"
    path.write_text(in_shell() if request.param == "sh" else in_python())
    return Runs(tmp_path, [{"sh": "/bin/sh", "python": sys.executable}[request.param], str(path)])


@pytest.fixture
def server(job: Runs, tmp_path: Path) -> Iterator[Server]:
    """The job's store: a server that is not started yet."""
    made = Server(tmp_path / "server")
    job.url = made.url
    yield made
    made.stop()


@pytest.mark.parametrize("slots", [("06", "06"), ("06", "07")], ids=["one slot", "two slots"])
def test_two_runs_at_once_publish_no_mix(job: Runs, slots: tuple[str, str]) -> None:
    """Two runs write into one file, and readers get a half of each."""
    both = [job.start(slot=slot, runs=2) for slot in slots]
    assert [run.communicate(timeout=WAIT_S) and run.returncode for run in both] == [0, 0]
    published = job.versions()
    assert len(published) == len(set(slots))
    for value in published:
        assert isinstance(value, list)
        assert len(value) == 2
        assert len(set(value)) == 1
    assert list((job.directory / "tmp").iterdir()) == []


def test_a_slot_is_an_hour() -> None:
    """A run that is repeated minutes later publishes twice, or the next hour is taken for the same run."""
    formats = re.findall(r"date -u \+([^)]+)\)", in_shell())
    formats += re.findall(r'strftime\("hourly:([^"]+)", time\.gmtime\(\)\)', block("python", "def main()"))
    assert len(formats) == 2
    for each in formats:
        first, again, following = (time.strftime(each, time.gmtime(s)) for s in (7200, 10_799, 10_800))
        assert first == again != following


def test_a_run_that_is_published_is_not_computed_again(job: Runs) -> None:
    """Cron repeats hours of work, or the second result replaces the first."""
    assert job.ended(job.start("echo 1"))[0] == 0
    assert job.ended(job.start("touch computed; echo 2"))[0] == 0
    assert not (job.directory / "computed").exists()
    assert job.versions() == [1]


@pytest.mark.server
def test_a_store_that_is_down_when_the_job_starts(job: Runs, server: Server) -> None:
    """In the commonest outage, the job gives up at its first question, and a slot is missing."""
    run = job.start("echo 1")
    job.wait_for("sleeps")
    server.start()
    job.up()
    assert job.ended(run)[0] == 0
    assert job.has_slept() == ["1"]
    assert job.versions() == [1]


@pytest.mark.server
def test_a_store_that_goes_down_while_the_job_computes(job: Runs, server: Server) -> None:
    """Hours of work are lost to a restart of the server."""
    server.start()
    run = job.start("meet; echo 1", runs=2)
    job.wait_for("at.*")
    server.stop()
    (job.directory / "at.test").touch()
    job.wait_for("sleeps")
    server.start()
    job.up()
    assert job.ended(run)[0] == 0
    assert job.versions() == [1]


@pytest.mark.server
def test_an_outage_that_outlasts_the_job(job: Runs, server: Server) -> None:
    """The job ends well without having published, or does not say that it may be run again."""
    job.up()
    code, errors = job.ended(job.start("touch computed; echo 1"))
    assert code == 4
    assert errors
    assert job.has_slept() == ["1", "10", "60"]
    assert not (job.directory / "computed").exists()


@pytest.mark.parametrize("compute", ['echo "[1, "', "echo 1; exit 7"], ids=["truncated", "failed"])
def test_what_was_not_computed_whole_is_not_published(job: Runs, compute: str) -> None:
    """Readers get what a job left that died."""
    code, errors = job.ended(job.start(compute))
    in_python = sys.executable in job.command
    assert code == (1 if in_python else 7 if "exit" in compute else 2)
    assert errors or "exit" in compute
    assert job.versions() == []


def test_a_job_without_a_store_publishes_nowhere(job: Runs) -> None:
    """Cron has an empty environment, and the job publishes into a file where nobody looks."""
    job.url = ""
    assert job.ended(job.start("touch computed; echo 1"))[0] != 0
    assert not (job.directory / "computed").exists()


def test_no_crontab_of_the_docs_mails_every_run() -> None:
    """Cron mails what a successful run prints, every hour, until nobody reads its mails."""
    lines = [line for page in DOCS.rglob("*.md") for line in CRONTAB.findall(page.read_text("utf-8"))]
    assert len(lines) >= 5
    assert [line for line in lines if " >" not in line] == []
