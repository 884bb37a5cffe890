"""What every section of the benchmark gets: the server, the amount of rounds, and the report."""

from __future__ import annotations

import math
from pathlib import Path

import attrs

from tests.benchmarks import payloads, sequences
from tests.benchmarks.ground import Ground
from tests.benchmarks.report import Report

ROUNDS, QUICK_ROUNDS = 200, 20
FEWEST = 5
DELAYS_MS = (0, 1, 20)  # each way: a round trip takes twice that longer
SLOW_BYTES_PER_S = 20_000_000 / 8  # that a network with a delay lets through, each way
PART = {0: 1.0, 1: 0.25, 20: 0.08}  # of the rounds, so that each delay takes about as long
LARGE_BYTES = 64 * 1024
COPIES = 10  # of a payload that a round of publishing leaves on the server, until its block ends
MOST_BYTES = 300_000_000  # that a block may leave there


@attrs.frozen
class Bench:
    """One run."""

    ground: Ground
    report: Report
    rounds: int = ROUNDS
    quick: bool = False
    peers_env: Path | None = None
    sequences: Path = attrs.field(factory=sequences.directory)

    def delays(self) -> list[tuple[int, str]]:
        """Return the delays (ms, each way), each with the address that has it."""
        found = [(delay, self.behind(delay)) for delay in (DELAYS_MS[:2] if self.quick else DELAYS_MS)]
        if any(url is None for _, url in found):
            self.report.note("no added latencies: there is no proxy for TLS and socket files")
        return [(delay, url) for delay, url in found if url is not None]

    def behind(self, delay_ms: int) -> str | None:
        """Return the server's address behind a network with this delay; None if there can be none."""
        return self.ground.behind(delay_ms, SLOW_BYTES_PER_S if delay_ms else math.inf)

    def payloads(self, delay_ms: int) -> dict[str, bytes]:
        """Return what is published: the four sizes, and on loopback the real documents too."""
        made = {name: payloads.payload(size) for name, size in payloads.SIZES.items()}
        if delay_ms or self.quick:
            return made
        documents = payloads.documents()
        if not documents:
            self.report.note("no real documents were found beside the repository: made-up ones only")
        return made | documents

    def rounds_for(self, delay_ms: int, size_bytes: int) -> int:
        """Return the number of rounds: fewer of what takes long."""
        part = PART[delay_ms] * (1.0 if size_bytes < LARGE_BYTES else 0.5 if size_bytes < 1 << 20 else 0.2)
        room = MOST_BYTES // (COPIES * size_bytes)
        return max(FEWEST, min(round(self.rounds * part), room))


def titled(section: str, payload: str, delay_ms: int) -> str:
    """Name a block; targets and plots find it by this name."""
    return f"{section}, {payload}, " + (f"{delay_ms} ms each way, 20 Mbit/s" if delay_ms else "loopback")
