"""Processes that publish to one dataset at the same moment, with swapstore or with the six commands."""

from __future__ import annotations

import multiprocessing
import time
from contextlib import ExitStack
from typing import Any, Self

import redis

import swapstore
from tests.benchmarks import payloads
from tests.benchmarks.six_commands import Six

DATASET = "mena"
PART = 1_000_000  # of the numbers of publishes, for each process
WAIT_S = 120.0


class Processes:
    """Processes that wait for a word, each with clients of its own."""

    def __init__(self, url: str, namespace: str, count: int, each: int) -> None:
        context = multiprocessing.get_context("spawn")
        pipes = [context.Pipe() for _ in range(count)]
        self._ends = [ours for ours, _ in pipes]
        self._processes = [
            context.Process(target=serve, args=(theirs, url, namespace, number, each), daemon=True)
            for number, (_, theirs) in enumerate(pipes)
        ]

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            undo.callback(self._stop)
            for process in self._processes:
                process.start()
            self._answers()
            undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def publish(self) -> tuple[int, dict[str, int]]:
        """Let each publish; return how long all took in ns, and the version of each commit by its id."""
        took_ns, answers = self._do("publish")
        return took_ns, {name: version for answer in answers for name, version in answer.items()}

    def send(self) -> int:
        """Let each send the six commands; return how long all took in ns."""
        return self._do("six")[0]

    def _do(self, word: str) -> tuple[int, list[Any]]:
        began = time.perf_counter_ns()
        for end in self._ends:
            end.send(word)
        answers = self._answers()
        return time.perf_counter_ns() - began, answers

    def _answers(self) -> list[Any]:
        for end in self._ends:
            if not end.poll(WAIT_S):
                raise TimeoutError("a process of the load does not answer")
        return [end.recv() for end in self._ends]

    def _stop(self) -> None:
        for end in self._ends:
            end.close()
        for process in self._processes:
            if process.pid is not None:
                process.kill()
                process.join()


def serve(end: Any, url: str, namespace: str, number: int, each: int) -> None:
    """Publish whenever it is told to, until the other end is closed."""
    payload = payloads.payload(payloads.SIZES["1 KB"])
    with swapstore.connect(url, namespace=namespace) as store, redis.Redis.from_url(url) as client:
        six = Six(client, namespace, f"{DATASET}-six", begin=number * PART)
        store.read_latest(DATASET)
        client.ping()
        end.send("ready")
        while True:
            try:
                word = end.recv()
            except EOFError:
                return
            if word == "six":
                for _ in range(each):
                    six.publish(payload, transaction=False)
                end.send(None)
            else:
                commits = [store.publish(DATASET, payload, codec="bytes") for _ in range(each)]
                end.send({commit.id: commit.version for commit in commits})
