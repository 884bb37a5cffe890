"""A client in a process of its own: `python -m tests.linearizability.process <url> <plan as JSON>`.

It prints `ready`, waits for a line, carries out its plan, and prints its events, one a line.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import attrs

import swapstore
from tests.linearizability import recorder
from tests.linearizability.events import Event, from_line, to_line
from tests.linearizability.recorder import Plan

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60


def main(url: str, plan: str) -> None:
    with swapstore.connect(url) as store:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        events = recorder.run(store, Plan(**json.loads(plan)))
    sys.stdout.writelines(to_line(event) + "\n" for event in events)


def run_all(plans: dict[Plan, str]) -> list[Event]:
    """Carry out all plans at once, each in a process of its own, on the store at this address."""
    with ExitStack() as stack:
        processes = [stack.enter_context(_spawn(plan, url)) for plan, url in plans.items()]
        try:
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            for process in processes:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
            outputs = [process.communicate(timeout=TIMEOUT_S)[0] for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert [process.returncode for process in processes] == [0] * len(processes), "see stderr"
    return [from_line(line) for output in outputs for line in output.splitlines()]


def _spawn(plan: Plan, url: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", __name__, url, json.dumps(attrs.asdict(plan))],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
