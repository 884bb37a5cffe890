"""Several processes publish at once: what was acknowledged, and what can be read back afterwards."""

from __future__ import annotations

import json
import subprocess
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

from tests.benchmarks import peers
from tests.benchmarks.bench import Bench
from tests.benchmarks.peer_environment import ROOT, Environment
from tests.benchmarks.peer_subjects import ON_SERVER
from tests.benchmarks.report import Row, Sheet

SECTION = "contention"
PRODUCERS = (2, 4, 8)
COUNT, QUICK_COUNT = 30, 10
SECONDS, QUICK_SECONDS = 2, 1
TIMEOUT_S = 120
OURS_THERE = "swapstore on the server"
STORES = {
    OURS_THERE: "swapstore",
    "swapstore on SQLite": "swapstore",
    "ArcticDB": "ArcticDB",
    "Icechunk": "Icechunk",
    "delta-rs": "delta-rs",
    "PyIceberg": "PyIceberg",
}


def run(bench: Bench) -> None:
    """Let 2, 4 and 8 producers contend on each store."""
    environment = peers.known(bench)
    rows: list[Row] = []
    for store, subject in STORES.items():
        if subject in environment.missing:
            continue
        for producers in PRODUCERS[:1] if bench.quick else PRODUCERS:
            where = bench.ground.directory / "contention" / f"{peers.slug(store)}-{producers}"
            where.mkdir(parents=True)
            target = f"{ON_SERVER}{bench.ground.namespace}" if store == OURS_THERE else str(where)
            try:
                found = contended(environment, subject, target, producers, quick=bench.quick)
            except (peers.PeerFailedError, subprocess.SubprocessError, ValueError) as error:
                bench.report.note(f"{store}, {producers} producers: {type(error).__name__}: {error}")
                continue
            finally:
                bench.ground.clear()
            rows.append({"store": store, "producers": producers, **found})
            if subject == "swapstore":
                lost = bench.report.facts.setdefault(SECTION, {})
                lost[store] = lost.get(store, 0) + found["lost"]
    sheet = Sheet(SECTION, "several processes publish 1 KB at once, one attempt each", rows)
    sheet.notes = [
        "lost: acknowledged, and not in the history. refused: raised an error; the producer knows",
        "swapstore tries again by itself; the others are used as they are, Icechunk with a rebase",
        "Icechunk itself warns that local files are not safe for concurrent commits; object stores are",
        "ArcticDB documents that it does not support concurrent writers to one symbol",
    ]
    bench.report.add(sheet)


def contended(
    environment: Environment, subject: str, where: str, producers: int, *, quick: bool
) -> dict[str, Any]:
    """Let this many processes publish at once; count what they were told, and what is there."""
    count, seconds = (QUICK_COUNT, QUICK_SECONDS) if quick else (COUNT, SECONDS)
    ran(environment, "create", subject, where)
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                peers.started(environment, "contend", subject, where, f"p{number}", count, seconds)
            )
            for number in range(producers)
        ]
        served = [peers.Served(process, subject) for process in processes]
        for each in served:
            each.ask()  # until it is ready
        began = time.monotonic()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        answers = [each.ask() for each in served]
        taken = time.monotonic() - began
    acknowledged = {name for answer in answers for name in answer["acknowledged"]}
    refused: Counter[str] = sum((Counter(answer["refused"]) for answer in answers), Counter())
    survivors = set(ran(environment, "survivors", subject, where))
    return {
        "acknowledged": len(acknowledged),
        "lost": len(acknowledged - survivors),
        "refused": refused.total(),
        "a second": round(len(acknowledged) / taken),
        "errors": ", ".join(f"{name} {count}" for name, count in refused.most_common(3)),
    }


def ran(environment: Environment, do: str, subject: str, where: str) -> Any:
    """Run to the end; return the last line that is JSON, if there is one."""
    done = subprocess.run(
        environment.command(do, subject, where),
        cwd=ROOT,
        env=environment.surroundings,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:200]
        raise peers.PeerFailedError(subject, f"{do} ended with {done.returncode}: {last}")
    lines = [line for line in done.stdout.splitlines() if line.startswith(("[", "{"))]
    return json.loads(lines[-1]) if lines else None
