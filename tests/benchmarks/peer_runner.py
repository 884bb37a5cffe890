"""`python -m tests.benchmarks.peer_runner DO SUBJECT WHERE …`: one subject, in its own process.

- `serve`: does what each line of input says, and answers with a line of JSON. It takes the time itself, so
that the request is no part of it.
- `contend NAME COUNT SECONDS`: waits for a line, publishes, and prints what was acknowledged and what not.
- `survivors`: prints the id of every version that can be read.
- `syncs COUNT`: publishes between two calls that `strace` shows.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
import warnings
from collections import Counter
from typing import Any

from tests.benchmarks import payloads
from tests.benchmarks.peer_subjects import SUBJECTS, Subject

SIZE = payloads.SIZES["10 KB"]
SMALL = payloads.SIZES["1 KB"]
MARKER = "swapstore-bench-marker"


def document(name: str, size: int) -> bytes:
    """Make a document that begins with its id."""
    begin = f"{name}\n".encode()
    return begin + payloads.payload(size - len(begin), len(name))


def told(answer: Any) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def serve(subject: Subject) -> None:
    """Carry out each line of the input until it ends."""
    done = 0
    subject.create()
    told({"ready": True})
    gc.collect()
    gc.disable()
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "fill":
            done = fill(subject, done, order)
            told({"versions": done, "cut": done < order["to"]})
            gc.collect()
        elif order["do"] == "publish":
            done += 1
            each = document(f"v{done}", SIZE)
            began = time.perf_counter_ns()
            subject.publish(each)
            told({"ns": time.perf_counter_ns() - began})
        else:
            began = time.perf_counter_ns()
            found = subject.read()
            taken = time.perf_counter_ns() - began
            told({"ns": taken, "current": found.partition(b"\n")[0] == f"v{done}".encode()})


def fill(subject: Subject, done: int, order: dict[str, Any]) -> int:
    """Publish up to a version, or until the time is over."""
    deadline = time.monotonic() + order["seconds"]
    while done < order["to"] and time.monotonic() < deadline:
        done += 1
        subject.publish(document(f"v{done}", SIZE))
    return done


def contend(subject: Subject, name: str, count: int, seconds: float) -> None:
    """Publish beside others; one attempt each, because each subject retries in its own way."""
    told({"ready": True})
    sys.stdin.readline()
    acknowledged: list[str] = []
    refused: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    for number in range(count):
        if time.monotonic() > deadline:
            break
        each = f"{name}-{number}"
        try:
            subject.publish(document(each, SMALL))
        except Exception as error:  # noqa: BLE001 - every peer has errors of its own
            refused[type(error).__name__] += 1
        else:
            acknowledged.append(each)
    told({"acknowledged": acknowledged, "refused": refused})


def syncs(subject: Subject, count: int) -> None:
    """Publish a few times, after some that warm up."""
    subject.create()
    for number in range(-3, count):
        if number == 0:
            os.access(MARKER, os.F_OK)
        subject.publish(document(f"v{number}", SIZE))
    os.access(MARKER, os.F_OK)


def main(do: str, kind: str, where: str, *more: str) -> None:
    """Do one of these things."""
    warnings.simplefilter("ignore")
    made = SUBJECTS[kind](where)
    match do, more:
        case "serve", _:
            serve(made)
        case "contend", (name, count, seconds):
            contend(made, name, int(count), float(seconds))
        case "create", _:
            made.create()
            made.publish(document("first", SMALL))
        case "survivors", _:
            told([each.partition(b"\n")[0].decode() for each in made.survivors()])
        case "syncs", (count,):
            syncs(made, int(count))


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # some of them abort when the interpreter ends, with all their work done
