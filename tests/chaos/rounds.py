"""A run of chaos on one topology: rounds of faults, each of which is judged when all is whole again."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

import swapstore
from swapstore import Durability, Row, Store
from tests.chaos.clients import PATIENCE_S, TIMEOUT, Clients, Load
from tests.chaos.cluster import Cluster
from tests.chaos.fronts import Fronts
from tests.chaos.judge import Verdict, fits, judge
from tests.chaos.pair import Pair
from tests.chaos.sentinel import Sentinel
from tests.chaos.servers import Topology, names_for

TOPOLOGIES: dict[str, type[Pair | Sentinel | Cluster]] = {
    each.name: each for each in (Pair, Sentinel, Cluster)
}
WAIT_S = 0.5
PAYLOADS = 200  # of each dataset, read one by one


@attrs.define
class Figures:
    """What a run, or a part of it, brought."""

    verdict: Verdict = attrs.field(factory=Verdict)
    errors: Counter[str] = attrs.field(factory=Counter)
    unexpected: list[str] = attrs.field(factory=list)
    longest_publish_s: float = 0.0
    longest_read_s: float = 0.0
    rounds: int = 0

    def add(self, load: Load, verdict: Verdict) -> None:
        self.rounds += 1
        self.verdict += verdict
        self.errors += load.errors
        self.unexpected += load.unexpected
        self.longest_publish_s = max(self.longest_publish_s, load.longest_publish_s)
        self.longest_read_s = max(self.longest_read_s, load.longest_read_s)


@attrs.define
class Run:
    """One topology with a durability: `none`, `one` replica, or `all` of them."""

    topology: str
    durability: str
    seed: int
    total: Figures = attrs.field(factory=Figures)
    by_fault: dict[str, Figures] = attrs.field(factory=dict)

    def play(self, rounds: int, seconds: float, *, only: str | None = None) -> None:
        """Play rounds. What is wrong is printed when it is found. `only`: a kind of fault."""
        kind = TOPOLOGIES[self.topology]
        replicas = {"none": 0, "one": 1, "all": kind.replicas}[self.durability]
        durability = Durability(replicas=replicas, timeout=WAIT_S) if replicas else None
        with (
            tempfile.TemporaryDirectory() as directory,
            Fronts() as fronts,
            kind(Path(directory), fronts) as servers,
            Clients(servers.url, durability) as clients,
        ):
            past = [self._round(servers, clients, number, seconds, only) for number in range(1, rounds + 1)]
            self._look_again(servers.url, past)

    def _round(
        self, servers: Topology, clients: Clients, number: int, seconds: float, only: str | None
    ) -> Load:
        names = servers.names = names_for(number)
        servers.rng = random.Random(f"{self.seed} {self.topology} {number}")
        with Load(clients, names) as load:
            began = time.monotonic()
            deck = [only] * 2 if only else self._deck(servers, number)
            done = list(self._disturb(servers, deck, began + seconds))
            servers.heal()
            servers.converge()
            time.sleep(max(began + seconds - time.monotonic(), 0.5))
            load.stop()
            servers.converge()
            with fresh(servers.url) as store:
                if rows := rows_of(store, names[0]):
                    load.await_followers(rows[-1])
                    load.await_views(rows[-1])
        with fresh(servers.url) as store:
            verdict = sum((verdict_of(store, load, name) for name in names), Verdict())
        self.total.add(load, verdict)
        for fault in set(done):
            self.by_fault.setdefault(fault, Figures()).add(load, verdict)
        self._tell(number, done, load, verdict)
        return load

    def _deck(self, servers: Topology, number: int) -> list[str]:
        """The faults of a round, in the order in which they are tried. Each has its turn to be first."""
        faults = sorted(servers.faults)
        random.Random(f"{self.seed} {self.topology}").shuffle(faults)
        first = faults[number % len(faults)]
        return [first, *servers.rng.sample(faults, len(faults))]

    @staticmethod
    def _disturb(servers: Topology, deck: list[str], until: float) -> Iterator[str]:
        """One or two faults, one after the other. Some last until the end of the round."""
        time.sleep(servers.rng.uniform(0.5, 1))
        wanted = servers.rng.choice((1, 1, 2))
        for fault in deck:
            try:
                if servers.faults[fault]() is False:
                    continue
            except RuntimeError as error:  # the servers did not do in time what was asked of them
                sys.stdout.write(f"    {fault}: {error}\n")
            yield fault
            wanted -= 1
            if not wanted or time.monotonic() > until - 1:
                return
            time.sleep(servers.rng.uniform(0, 1))

    def _tell(self, number: int, done: list[str], load: Load, verdict: Verdict) -> None:
        wrong = verdict.wrong(is_durable=self.is_durable)
        sys.stdout.write(
            f"{self.topology}, {self.durability}, round {number}: {', '.join(done)}: "
            f"{verdict.acknowledged} acknowledged, {len(verdict.lost)} lost, {dict(load.errors)}, "
            f"publish {load.longest_publish_s:.1f} s, read {load.longest_read_s:.1f} s\n"
        )
        texts = (("unexpected", tuple(load.unexpected)), ("unavailable", tuple(load.unavailable)))
        for kind, found in (*wrong.items(), *texts):
            for each in found[:10]:
                sys.stdout.write(f"    {kind}: {each}\n")
        sys.stdout.flush()

    def _look_again(self, url: str, past: list[Load]) -> None:
        """In the end, nothing of an earlier round may have gone or changed."""
        with fresh(url) as store:
            again = sum((verdict_of(store, load, name) for load in past for name in load.names), Verdict())
            again = attrs.evolve(again, damaged=(*again.damaged, *damage(store, None)))
        if len(again.lost) > len(self.total.verdict.lost) or again.damaged or again.doubled:
            sys.stdout.write(f"in the end: {again.wrong(is_durable=self.is_durable)}\n")
            self.total.verdict = again

    @property
    def is_durable(self) -> bool:
        return self.durability == "all"

    @property
    def is_wrong(self) -> bool:
        return bool(self.total.verdict.wrong(is_durable=self.is_durable) or self.total.unexpected)


@contextmanager
def fresh(url: str) -> Iterator[Store]:
    """A store that has seen nothing."""
    with swapstore.connect(url, patience=PATIENCE_S, timeout=TIMEOUT) as store:
        yield store


def rows_of(store: Store, name: str) -> list[Row]:
    return list(store.history(name, limit=None))[::-1]


def damage(store: Store, name: str | None) -> list[str]:
    return [f"{found.dataset}: {found}" for found in store.verify(name) if found.wrong]


def verdict_of(store: Store, load: Load, name: str) -> Verdict:
    rows, seen = rows_of(store, name), load.seen[name]
    for row in rows[-PAYLOADS:]:
        snap = store.read(name, version=row.version)
        if snap is None or snap.id != row.id or not fits(snap.value, row.id):
            seen.torn.append(f"version {row.version}, {row.id}, as stored")
    return judge(seen, rows, damage(store, name))
