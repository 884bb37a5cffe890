"""Random histories: producers of every setting, retention, pins and rollbacks, and history stored anew.

Each recompression may be cut by a fault. After each step, all that is committed can be read, and nothing is
kept that nobody needs. The seed decides everything.
"""

from __future__ import annotations

import random
from contextlib import suppress
from typing import Any

import pytest

from swapstore import Recompressed, Retention, Store
from swapstore.errors import NotFound, TooOld, Unavailable
from swapstore.format import manifest
from swapstore.models import Compression
from swapstore.protocol.context import Policy
from swapstore.testing import Crash, Fault, FaultyDriver, Kind, SimulatedStore, faulty
from swapstore.testing.simulated import START_MS
from tests.recompress.model import D, document, stored, storing

pytestmark = [pytest.mark.usefixtures("tiny_pages"), pytest.mark.slow]
STEPS = 40
COMPRESSIONS: tuple[Compression, ...] = ("none", "zstd", "delta")
AFTER_THE_GRACE_MS = 700_000


@pytest.fixture
def tiny_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of two rows and of two references; nearly every row can leave the log."""
    monkeypatch.setattr(manifest, "F", 2)
    monkeypatch.setattr(manifest, "G", 2)
    monkeypatch.setattr(manifest, "RECENT", 1)


class History:
    """One random history of one dataset."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        room = self.random.choice([500, 1500, 1 << 20])
        self.sim = SimulatedStore(seed=seed, policy=Policy(max_batch_bytes=room))
        self.observer = self.sim.connect()
        self.clients = [
            storing(self.observer, how, retention=Retention(max_count=most))
            for how in COMPRESSIONS
            for most in (None, None, 9)
        ]
        self.late: list[FaultyDriver] = []
        self.payloads: dict[str, bytes] = {}

    def step(self) -> None:
        """Do one thing."""
        self.sim.clock.advance(self.random.choice([1, 10, AFTER_THE_GRACE_MS]))
        client = self.random.choice(self.clients)
        acts = [self.publish] * 5 + [self.recompress] * 3 + [self.steer, self.prune, self.deliver_late]
        (self.random.choice(acts) if self.payloads else self.publish)(client)

    def publish(self, client: Store) -> None:
        """Publish some, most of them alike; some are backfilled."""
        for _ in range(self.random.randrange(1, 4)):
            number = len(self.payloads)
            like = self.random.choice([0, 0, 0, 1, 2, 100 + number])
            size = self.random.choice([10, 300, 600, 600])
            payload = document(like, changed=number, size=size)
            ts = (
                START_MS + self.random.randrange(10**6) if self.random.random() < 0.2 and number > 2 else None
            )
            self.payloads[f"id-{number}"] = payload
            try:
                client.publish(D, payload, id=f"id-{number}", codec="bytes", ts=ts)
            except TooOld:
                continue

    def recompress(self, client: Store) -> None:
        """Store the history anew, cut short or not. What is done is not done again."""
        to = self.random.choice((*COMPRESSIONS, "delta"))
        limit = self.random.choice([None, None, 1, 3])
        if self.random.random() < 0.5:
            client, driver = faulty(client, Fault(self.random.choice(list(Kind)), self.random.randrange(30)))
            self.late.append(driver)
            try:
                client.recompress(D, compression=to, limit=limit)
            except (Unavailable, Crash):
                return
        elif self._whole(client, to, limit).left == 0 and to != "delta":
            found = stored(self.observer)
            assert not found.bases
            assert found.manifest.log.base is None
            version = found.manifest.version
            assert self._whole(storing(self.observer, "none"), to, None).version == version

    def _whole(self, client: Store, to: Any, limit: int | None) -> Recompressed:
        done = client.recompress(D, compression=to, limit=limit)
        assert done.unreadable == 0
        assert limit is None or done.stored_anew <= limit
        return done

    def steer(self, _: Store) -> None:
        """Pin, unpin or roll back."""
        ids = [row.id for row in self.observer.history(D, limit=None)]
        what, id = self.random.choice(["pin", "unpin", "rollback"]), self.random.choice(ids)  # noqa: A001
        try:
            self.observer.unpin(D) if what == "unpin" else getattr(self.observer, what)(D, id=id)
        except NotFound:
            assert what != "unpin"

    def prune(self, client: Store) -> None:
        """Unlink the oldest."""
        client.prune(D, retention=Retention(max_count=self.random.randrange(3, 20)))

    def deliver_late(self, _: Store) -> None:
        """Let a delayed swap arrive."""
        if self.late:
            self.random.choice(self.late).deliver_late()

    def check(self) -> None:
        """Read everything with a new client, and what is served with the others."""
        found = stored(self.observer)
        reader = self.sim.connect()
        for row in reader.history(D, limit=None):
            snapshot = reader.read(D, id=row.id)
            assert snapshot is not None
            assert snapshot.raw == self.payloads[row.id]
        for client in self.random.sample(self.clients, 2):
            latest = client.read_latest(D)
            assert latest is not None
            assert latest.id == found.manifest.head.serving.id


@pytest.mark.parametrize(
    "seed", [*range(5), *(pytest.param(seed, marks=pytest.mark.nightly) for seed in range(5, 150))]
)
def test_whatever_happens_every_snapshot_can_be_read(seed: int) -> None:
    """A snapshot is lost, or a base leaks, in some order of publishes, prunes, pins and recompressions."""
    history = History(seed)
    for _ in range(STEPS):
        history.step()
        history.check()
    history.sim.clock.advance(AFTER_THE_GRACE_MS)
    stored(history.observer)


@pytest.mark.nightly
def test_a_fault_at_any_command_loses_and_leaks_nothing() -> None:
    """A recompression that is cut short loses a snapshot, or cannot be gone on with."""
    for to in ("delta", "none"):
        commands = 0
        while True:
            done = [_cut(to, Fault(kind, commands)) for kind in Kind]
            commands += 1
            if not any(done):
                break
        assert commands > 20


def _cut(to: Any, fault: Fault) -> bool:
    """Cut a recompression, and go on with it. Returns whether it came so far."""
    sim = SimulatedStore()
    store = sim.connect()
    for number in range(9):
        client = storing(store, "delta" if to == "none" else "none")
        client.publish(D, document(0, changed=number), id=f"id-{number}", codec="bytes")
    broken, driver = faulty(store, fault)
    with suppress(Unavailable, Crash):
        broken.recompress(D, compression=to)
    came_so_far = driver._number > fault.at
    stored(store)
    driver.deliver_late()
    stored(store)
    sim.connect().recompress(D, compression=to)
    found = stored(store)
    assert {need for _, need in found.encodings} == {to == "delta"}
    assert found.manifest.head.latest.id == "id-8"
    reader = sim.connect()
    for number in range(9):
        snapshot = reader.read(D, id=f"id-{number}")
        assert snapshot is not None
        assert snapshot.raw == document(0, changed=number)
    return came_so_far
