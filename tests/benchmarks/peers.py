"""The systems that one would otherwise install: publish a 10 KB document, and read the latest, on files.

Each runs in its own process and takes its own time; rounds go from one to the next.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks import peer_environment, peer_syncs, signals
from tests.benchmarks.bench import Bench
from tests.benchmarks.ground import filesystem
from tests.benchmarks.peer_environment import ROOT, Environment
from tests.benchmarks.peer_subjects import SUBJECTS
from tests.benchmarks.report import Sheet
from tests.benchmarks.rounds import Way, measure, told

SECTION = "peers"
OURS = "swapstore"
DEPTHS = (200, 2_000)
QUICK_DEPTHS = (50,)
FILL_S = {False: 40, True: 5}
MEASURE_S = 12
ROUNDS, QUICK_ROUNDS = 50, 8
AT_ONCE = 2  # are filled: filling is not timed


def titled(what: str, versions: int) -> str:
    """Name a block; targets find it by this name."""
    return f"{what} 10 KB on files at {versions:,} versions, swapstore and peers"


def cut_at(versions: int) -> str:
    """Name the fact that says which peers did not reach a depth."""
    return f"peers cut short of {versions:,} versions"


def run(bench: Bench) -> None:
    """Fill each to a depth, then measure all of them in turn."""
    environment = known(bench)
    directory = bench.ground.directory / "peers"
    names = [name for name in SUBJECTS if name not in environment.missing]
    with ExitStack() as stack:
        served: dict[str, Served] = {}
        for name in names:
            try:
                served[name] = stack.enter_context(serving(environment, name, directory / slug(name)))
            except PeerFailedError as error:
                bench.report.note(f"{name} was not measured: {error}")
        for versions in QUICK_DEPTHS if bench.quick else DEPTHS:
            while not measured(bench, served, versions):
                pass
    show_syncs(bench, environment, names, directory)


def measured(bench: Bench, served: dict[str, Served], versions: int) -> bool:
    """Measure all at a depth; False if one failed, which is left out from then on."""
    try:
        cut = fill(served, versions, FILL_S[bench.quick])
        found = {}
        for what in ("publish", "read"):
            ways = [Way(name, each.asked(what), each.first(what), told) for name, each in served.items()]
            rounds = min(QUICK_ROUNDS if bench.quick else ROUNDS, bench.rounds)
            found[what] = measure(ways, rounds=rounds, seconds=MEASURE_S)
    except PeerFailedError as error:
        bench.report.note(f"{error.name} was not measured at {versions:,} versions: {error}")
        if error.name == OURS:
            raise
        del served[error.name]
        return False
    bench.report.facts[cut_at(versions)] = cut
    notes = [
        f"{name} was cut after {FILL_S[bench.quick]} s of filling, at {reached:,} versions"
        for name, reached in cut.items()
    ]
    for what, samples in found.items():
        bench.report.add_timed(SECTION, titled(what, versions), samples, OURS, *notes)
    return True


def known(bench: Bench) -> Environment:
    """Prepare the environment, and report what is missing in it."""
    environment = peer_environment.prepared(bench.peers_env, bench.ground.url, install=not bench.quick)
    bench.report.facts["peers' versions"] = environment.versions
    for name, why in environment.missing.items():
        bench.report.note(f"{name} was not measured: {why}")
    return environment


def fill(served: dict[str, Served], versions: int, seconds: float) -> dict[str, int]:
    """Give each this many versions; return how far those came that ran out of time."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        orders = {
            name: threads.submit(each.ask, do="fill", to=versions, seconds=seconds)
            for name, each in served.items()
        }
        try:
            answers = {name: order.result() for name, order in orders.items()}
        except BaseException:
            for each in served.values() if signals.is_asked() else ():
                each.kill()  # or the threads would wait for what they do
            raise
    return {name: answer["versions"] for name, answer in answers.items() if answer["cut"]}


def show_syncs(bench: Bench, environment: Environment, names: list[str], directory: Path) -> None:
    """Say what is on disk when a publish returns."""
    rows = [
        {
            "way": name,
            "version": environment.versions.get(name, ""),
            "synced to disk": peer_syncs.synced(
                environment, name, directory / f"{slug(name)}-syncs", count=not bench.quick
            ),
        }
        for name in names
    ]
    note = f"the files are on {filesystem(bench.ground.directory)}"
    bench.report.add(Sheet(SECTION, "what a publish syncs to disk before it returns", rows, [note]))


def slug(name: str) -> str:
    return name.replace(" ", "-")


class PeerFailedError(Exception):
    """A peer ended, or returned an impossible answer."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(why)
        self.name = name


class Served:
    """A subject in a process that does one thing at a time."""

    def __init__(self, process: subprocess.Popen[str], name: str) -> None:
        self._process = process
        self._name = name

    def ask(self, **order: object) -> dict[str, Any]:
        """Send it one request, and wait for the answer."""
        assert self._process.stdin is not None
        if order:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        errors = self._process.stderr.read().strip().splitlines() or ["no reason was given"]
        raise PeerFailedError(self._name, errors[-1][:200])

    def kill(self) -> None:
        self._process.kill()

    def asked(self, what: str) -> Any:
        """Return a function that does it and returns how long it took."""

        def act() -> int:
            answer = self.ask(do=what)
            if not answer.get("current", True):
                raise PeerFailedError(self._name, "it read a version that is not the latest")
            return int(answer["ns"])

        return act

    def first(self, what: str) -> Any:
        """A read right after a publish, so of a new version."""
        return self.asked("publish") if what == "read" else None


@contextmanager
def serving(environment: Environment, name: str, directory: Path) -> Iterator[Served]:
    """Run a subject; end it at the end."""
    directory.mkdir(parents=True)
    with started(environment, "serve", name, str(directory)) as process:
        served = Served(process, name)
        served.ask()
        yield served


@contextmanager
def started(environment: Environment, *arguments: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a subject; kill it at the end in any case."""
    process = subprocess.Popen(
        environment.command(*arguments),
        cwd=ROOT,
        env=environment.surroundings,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()
