"""Racing producers, damage and repair, over and over: nothing whole is lost, nothing served is moved."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from contextlib import suppress

import pytest

from swapstore import Gap, Retention, Row
from swapstore.errors import SwapstoreError
from swapstore.format import manifest
from tests.fsck.simulated import MANIFEST, SimulatedDataset, opened
from tests.support import invariants
from tests.support.drivers import another
from tests.support.times import at

pytestmark = pytest.mark.slow
OBJECT = re.compile(
    rb'{"id":"(?P<id>.)[^"]*","ts":(?P<ts>\d).*?"size":(?P<size>\d).*?"sha256":"(?P<sha256>.).*?"n":"(?P<n>.)'
)
ARRAY = re.compile(
    rb'\[\d+,"(?P<id>.)[^"]*",(?P<ts>\d)\d*,-?\d+,(?P<size>\d)\d*,"(?P<sha256>.)[^]]*?{"n":"(?P<n>.)'
)
FIELDS = ("id", "ts", "size", "sha256", "n")


class Play:
    """One history: producers that race, operators, retention, damage and repair, chosen by a seed."""

    def __init__(self, seed: int) -> None:
        self.choice = random.Random(seed)
        self.dataset: SimulatedDataset = opened(seed=seed)
        self.count = 0
        self.published: dict[str, tuple[int, str]] = {}  # by id: ts and payload
        self.rows: list[Row] = []  # oldest first, before the damage
        self.is_moved = False  # a lost history was put behind a newer one: it has other versions since
        self.done: list[str] = []

    # --- what producers and operators do -------------------------------------------------------------

    def publish(self, names: list[str]) -> None:
        """Producers that all remember the same version publish one after the other."""
        producers = [another(self.dataset.store) for _ in names]
        for producer in producers:
            producer.status("mena")
        for name, producer in zip(names, producers, strict=True):
            self.dataset.sim.clock.advance(1)
            ts, value = self.published.setdefault(name, (self.choice.randint(1, 40), f"value of {name}"))
            producer.publish("mena", value, id=name, ts=at(ts), labels={"n": name})

    def race(self) -> None:
        names = [f"id-{self.count + number}" for number in range(self.choice.randint(1, 4))]
        self.count += len(names)
        self.publish(names)

    def operate(self) -> None:
        store = another(self.dataset.store)
        row = self.choice.choice(self.dataset.history())
        what = self.choice.choice(["pin", "unpin", "rollback", "confirm"])
        if what in {"pin", "rollback"}:
            getattr(store, what)("mena", id=row.id)
        else:
            getattr(store, what)("mena")

    def prune(self) -> None:
        another(self.dataset.store).prune("mena", retention=Retention(max_count=self.choice.randint(3, 30)))

    # --- damage --------------------------------------------------------------------------------------

    def lose_page(self) -> None:
        pages = self.dataset.pages() + self.dataset.pages(of_references=True)
        if pages:
            self.dataset.delete(self.choice.choice(pages))

    def lose_ts(self) -> None:
        row = self.choice.choice(self.rows)
        self.dataset.delete(f"swapstore:ts:{{mena}}:{row.ts}:{row.id}")

    def lose_ts_and_retry(self) -> None:
        """A normal retry of a publish whose ts record was lost."""
        row = self.choice.choice(self.rows)
        self.dataset.delete(f"swapstore:ts:{{mena}}:{row.ts}:{row.id}")
        self.publish([row.id])

    def alter_row(self) -> None:
        """Alter one character of a field in a row of the manifest, or in the header's copy of one."""

        def change(raw: bytes) -> bytes:
            row = self.choice.choice([*OBJECT.finditer(raw), *ARRAY.finditer(raw)])
            at = row.start(self.choice.choice(FIELDS))
            other = self.choice.choice([char for char in b"123456789" if char != raw[at]])
            return raw[:at] + bytes([other]) + raw[at + 1 :]

        self.dataset.alter(MANIFEST, change)

    def lose_manifest(self) -> None:
        self.dataset.delete(MANIFEST)

    def lose_manifest_and_publish(self) -> None:
        self.dataset.delete(MANIFEST)
        self.race()

    # --- and what has to hold --------------------------------------------------------------------------

    def check(self, harms: list[Callable[[], None]]) -> None:
        """Damage the dataset and repair it: every snapshot is still there, and what is served is the same."""
        before = invariants.manifest_of(self.dataset.store).head
        rows = self.rows = self.dataset.history()
        names = [harm.__name__ for harm in harms]
        self.done.append(f"{names}")
        for harm in harms:
            with suppress(SwapstoreError, KeyError):  # the damage before it leaves nothing to damage
                harm()
        for report in another(self.dataset.store).repair("mena", apply=True):
            assert (report.dropped, report.left) == ((), ())
        self.dataset.repaired()
        self.dataset.sim.keyspace.expire_all()
        assert self.dataset.problems() == set()
        reader = another(self.dataset.store)
        for row in rows:
            snapshot = reader.read("mena", id=row.id)
            assert snapshot is not None, row.id
            assert (snapshot.ts, snapshot.value) == self.published[row.id]
            assert snapshot.labels == {"n": row.id}
        after = invariants.manifest_of(self.dataset.store).head
        if not {"lose_manifest", "lose_manifest_and_publish"} & set(names):
            assert after.latest.id == before.latest.id
            assert (after.pinned and after.pinned.id) == (before.pinned and before.pinned.id)
        self.is_moved |= "lose_manifest_and_publish" in names
        if not self.is_moved:
            self.check_cursors(rows)

    def check_cursors(self, rows: list[Row]) -> None:
        """A consumer that goes on after any version it had gets all that came later, or is told of a gap."""
        now = self.dataset.history()
        for cursor in self.choice.sample(rows, min(4, len(rows))):
            expected = {row.id for row in rows if row.version > cursor.version}
            got: set[str] = set()
            if now[-1].version > cursor.version:
                for item in another(self.dataset.store).follow("mena", after=cursor.version):
                    if isinstance(item, Gap):
                        return
                    got.add(item.id)
                    if item.version == now[-1].version:
                        break
            assert expected <= got, (cursor.version, expected - got)


def play(seed: int, *, size: int) -> None:
    was = manifest.F, manifest.G
    manifest.F = manifest.G = size
    game = Play(seed)
    try:
        for _ in range(game.choice.randint(3, 12)):
            game.race()
        for _ in range(5):
            for _ in range(game.choice.randint(1, 6)):
                game.choice.choice([game.race, game.race, game.race, game.operate, game.prune])()
            harms = [game.lose_page, game.lose_ts, game.lose_ts_and_retry, game.alter_row]
            harms += [game.lose_manifest, game.lose_manifest_and_publish]
            game.check([game.choice.choice(harms) for _ in range(game.choice.choice([1, 1, 2]))])
    except AssertionError as error:
        error.add_note(f"seed {seed}, size {size}: {game.done}")
        raise
    finally:
        manifest.F, manifest.G = was


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("block", range(4))
def test_races_damage_and_repair(block: int, size: int) -> None:
    """A repair lets a whole snapshot expire, serves another one, or makes a follower skip a commit."""
    for seed in range(block * 4, block * 4 + 4):
        play(seed, size=size)
