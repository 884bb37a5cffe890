"""New processes, such as cron jobs and functions: from `python -c` until it has published or read.

Python's compiled files are there, in a directory of the bench's own.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial

from swapstore import Store
from tests.benchmarks.bench import Bench
from tests.benchmarks.rounds import Sample, Taken, Way, itself, measure
from tests.benchmarks.six_commands import names

SECTION = "start"
ROUNDS, QUICK_ROUNDS = 20, 5
DATASET = "mena"

NOTHING, REDIS, OURS = "python -c pass", "import redis", "import redis, swapstore"
COMMAND = "swapstore latest, until its first output"
SIX, PUBLISH = "redis-py: the six in MULTI/EXEC", "swapstore: publish"
TWO_STEP, READ = "redis-py: two-step read", "swapstore: read_latest"

REDIS_CODE = "import os, redis; client = redis.Redis.from_url(os.environ['SWAPSTORE_URL']); "
SWAPSTORE_CODE = "import swapstore; store = swapstore.connect(namespace={namespace!r}); "
SIX_CODE = """
pipeline = client.pipeline()
pipeline.set({by_ts!r}, 'x' * 1000)
pipeline.set({by_id!r}, 'x' * 1000)
pipeline.set({latest!r}, {by_id!r})
pipeline.zadd({index!r}, {{{id!r}: 1}})
pipeline.zremrangebyscore({index!r}, '-inf', 0)
pipeline.delete({live!r})
pipeline.execute()
"""


def run(bench: Bench) -> None:
    """Measure imports, the command, and processes that publish once or read once."""
    rounds = QUICK_ROUNDS if bench.quick else ROUNDS
    bench.report.add_timed(SECTION, "imports, and the command", imports(bench, rounds), NOTHING)
    namespace = bench.ground.namespace
    key = {name.replace(" ", "_"): each for name, each in names(namespace, DATASET, 1).items()}
    ours = SWAPSTORE_CODE.format(namespace=namespace)
    blocks = {
        SIX: REDIS_CODE + SIX_CODE.format(**key),
        PUBLISH: f"{ours}store.publish({DATASET!r}, 'x' * 1000)",
        TWO_STEP: f"{REDIS_CODE}client.get(client.get({key['latest']!r}))",
        READ: f"{ours}store.read_latest({DATASET!r}).value",
    }
    ways = [Way(name, partial(ended, bench, "-c", code), clock=itself) for name, code in blocks.items()]
    samples = measure(ways, rounds=rounds, wire=bench.ground.wire)
    bench.report.add_timed(SECTION, "a process that publishes or reads 1 KB once", samples, SIX)
    bench.ground.clear()


def imports(bench: Bench, rounds: int) -> dict[str, Sample]:
    """Measure what processes take until all is imported, and the command until it shows something."""
    with bench.ground.store() as store:
        published(store)
    ways = [
        *(
            Way(name, partial(ended, bench, "-c", code), clock=itself)
            for name, code in {NOTHING: "pass", REDIS: REDIS, OURS: OURS}.items()
        ),
        Way(COMMAND, partial(first_output, bench), clock=itself),
    ]
    return measure(ways, rounds=rounds)


def published(store: Store) -> None:
    """Publish what the command reads."""
    store.publish(DATASET, "x" * 1000)


def ended(bench: Bench, *arguments: str) -> Taken:
    """Run Python to its end; return how long that took, and its CPU time."""
    began = time.perf_counter_ns()
    process = subprocess.Popen(
        [sys.executable, *arguments], env=surroundings(bench), cwd=bench.ground.directory
    )
    return _waited(process, began)


def first_output(bench: Bench) -> Taken:
    """Run the command that shows the latest snapshot, until its first byte is there."""
    began = time.perf_counter_ns()
    process = subprocess.Popen(
        [sys.executable, "-m", "swapstore", "latest", DATASET],
        env=surroundings(bench),
        cwd=bench.ground.directory,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.read(1), "the command said nothing"
        took = time.perf_counter_ns() - began
        process.stdout.read()
    return took, _waited(process, began)[1]


def surroundings(bench: Bench) -> Mapping[str, str]:
    """Return the variables of a process: it writes and finds compiled files, whatever is set here."""
    kept = {name: each for name, each in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {
        **kept,
        "PYTHONPYCACHEPREFIX": str(bench.ground.directory / "compiled"),
        "SWAPSTORE_URL": bench.ground.url,
        "SWAPSTORE_NAMESPACE": bench.ground.namespace,
    }


def _waited(process: subprocess.Popen[bytes], began: int) -> Taken:
    """Wait for a process with the call that also returns its CPU time."""
    _, status, used = os.wait4(process.pid, 0)
    took = time.perf_counter_ns() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"a process ended with {process.returncode}"
    return took, round((used.ru_utime + used.ru_stime) * 1e9)
