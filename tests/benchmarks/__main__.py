"""`python -m tests.benchmarks`: swapstore compared with what one would otherwise write or install.

All run on the same server; see `--help`. It prints figures, not verdicts: a missed target is shown, and the
exit code is 0 all the same. It is 1 if a section could not be measured.
"""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import redis
import redis.connection

from tests.benchmarks import (
    batching,
    bounds,
    compression,
    contention,
    depth_timing,
    diffing,
    groups,
    history,
    load,
    memory,
    peers,
    plots,
    publishing,
    reading,
    report,
    sequences,
    serving,
    site,
    starting,
    targets,
    viewing,
)
from tests.benchmarks.bench import QUICK_ROUNDS, ROUNDS, Bench
from tests.benchmarks.ground import ground
from tests.benchmarks.peer_subjects import URL_VARIABLE
from tests.benchmarks.signals import check, stoppable

WITHOUT_HIREDIS = """import runpy, sys
sys.modules["hiredis"] = None
runpy.run_module("tests.benchmarks", run_name="__main__", alter_sys=True)
"""
SECTIONS: dict[str, Callable[[Bench], None]] = {
    "publish": publishing.run,
    "read": reading.run,
    "many": batching.run,
    "memory": memory.run,
    "history": history.run,
    "compression": compression.run,
    "groups": groups.run,
    "peers": peers.run,
    "contention": contention.run,
    "load": load.run,
    "depth": depth_timing.run,
    "diff": diffing.run,
    "servers": serving.run,
    "view": viewing.run,
    "serve": site.run,
    "start": starting.run,
    "targets": targets.run,
}


def main(arguments: list[str]) -> int:
    """Measure, show the figures, and write what was asked for."""
    chosen = parser().parse_args(arguments)
    if chosen.without_hiredis and sys.modules.get("hiredis", True) is not None:
        return subprocess.call([sys.executable, "-c", WITHOUT_HIREDIS, *arguments])
    rounds = chosen.rounds or (QUICK_ROUNDS if chosen.quick else ROUNDS)
    found = report.Report(report.console())
    try:
        with stoppable(), ground(chosen.url or None) as where:
            bench = Bench(
                where,
                found,
                rounds,
                quick=chosen.quick,
                peers_env=chosen.peers_env,
                sequences=sequences.directory(chosen.sequences),
            )
            found.about |= where.about() | about(bench)
            found.console.print(f"{found.about}\n", highlight=False)
            failed = [name for name in SECTIONS if name in chosen.only and not measured(name, bench)]
            bounds.run(bench)
    except KeyboardInterrupt:
        found.note("stopped before the end: servers are stopped, the namespace is removed")
        return 130
    finally:
        if chosen.json:
            found.write(chosen.json)
    if chosen.plots:
        for path in plots.write(found, chosen.plots):
            found.console.print(f"plotted {path.name}")
    return 1 if failed else 0


def measured(name: str, bench: Bench) -> bool:
    """Measure one section. One that fails is noted, and takes nothing away from the others."""
    check()
    began = time.monotonic()
    try:
        SECTIONS[name](bench)
    except Exception as error:  # noqa: BLE001 - half an hour of figures would be lost
        traceback.print_exc()
        bench.report.note(f"the section {name} failed, and is not complete: {error!r}")
        return False
    bench.report.console.print(f"{name}: {time.monotonic() - began:.0f} s\n", style="dim")
    return True


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    made = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    made.add_argument("--only", type=sections, default=list(SECTIONS), metavar=",".join(SECTIONS))
    made.add_argument("--rounds", type=int, help=f"rounds of the fastest ways; default: {ROUNDS}")
    made.add_argument(
        "--quick", action="store_true", help="fewer rounds, depths and delays; installs nothing"
    )
    made.add_argument(
        "--url",
        default=os.environ.get(URL_VARIABLE) or None,
        help="measure on this server, in a namespace that is removed at the end (up to 300 MB until then); "
        f"default: ${URL_VARIABLE}",
    )
    made.add_argument(
        "--sequences",
        type=Path,
        metavar="DIR",
        help="real sequences of versions (*.jsonl, *.jsonl.xz), beside the generated ones; default: "
        f"${sequences.VARIABLE}",
    )
    made.add_argument(
        "--without-hiredis", action="store_true", help="on both sides; redis-py uses it where it is installed"
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="write every figure there")
    made.add_argument("--plots", type=Path, metavar="DIR", help="write SVG plots there")
    made.add_argument("--peers-env", type=Path, metavar="DIR", help="the environment of the peers")
    return made


def sections(text: str) -> list[str]:
    """Read the names of sections."""
    names = text.split(",")
    if unknown := [name for name in names if name not in SECTIONS]:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}")
    return names


def about(bench: Bench) -> dict[str, Any]:
    """Describe the machine and the settings of the raw client."""
    raw = redis.Redis.from_url(bench.ground.url).connection_pool
    with bench.ground.store() as store:
        ours = getattr(store._driver, "_pool", raw)
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "processors": os.cpu_count(),
        "load before": [round(load, 2) for load in os.getloadavg()],
        "sqlite": sqlite3.sqlite_version,
        "redis-py": redis.__version__,
        "raw clients": {"made by": "redis.Redis.from_url, no options", **settings(raw)},
        "swapstore": {"made by": "swapstore.connect, no options", **settings(ours)},
        "rounds": bench.rounds,
    }


def settings(pool: Any) -> dict[str, Any]:
    """Describe the connections of a pool; redis-py sets TCP_NODELAY on all of them."""
    made = pool.connection_class(**pool.connection_kwargs)
    names = ("protocol", "socket_timeout", "socket_connect_timeout", "socket_keepalive")
    found = {name.replace("_", " "): getattr(made, name, None) for name in names}
    return found | {"parser": type(getattr(made, "_parser", None)).__name__.strip("_"), "TCP_NODELAY": True}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
