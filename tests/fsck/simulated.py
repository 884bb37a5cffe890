"""A published dataset on the simulated store, for damage: cheap to copy, so every moment can be tried."""

from __future__ import annotations

import random
from collections.abc import Callable

import attrs
import msgspec

from swapstore import Row, Store
from swapstore.commands import Swap
from swapstore.errors import Corrupt
from swapstore.format import bases, pages, records
from swapstore.format.encodings import Dictionary
from swapstore.format.keys import base_version
from swapstore.models import Ref
from swapstore.protocol.context import Policy
from swapstore.testing import SimulatedStore
from swapstore.testing.simulated import Value
from tests.support import invariants
from tests.support.drivers import another, meddled
from tests.support.times import at

MANIFEST = "swapstore:manifest:{mena}"
FEW = Policy(commit_attempts=6)


@attrs.frozen
class SimulatedDataset:
    """A simulated store, a client of it, and what was acknowledged, oldest first."""

    sim: SimulatedStore
    store: Store
    rows: list[Row]

    def copy(self) -> SimulatedDataset:
        """An independent copy of the store."""
        policy = self.store._context.policy
        sim = SimulatedStore(seed=1, policy=policy)  # another seed, so that a new epoch differs
        sim.keyspace = self.sim.keyspace.copy()
        sim.clock.ms = self.sim.clock.ms
        return SimulatedDataset(sim, sim.connect(), list(self.rows))

    # --- damage ------------------------------------------------------------------------------------

    def delete(self, *keys: str) -> None:
        for key in keys:
            del self.sim.keyspace.values[key]

    def alter(self, key: str, change: Callable[[bytes], bytes]) -> None:
        value = self.sim.keyspace.values[key]
        self.sim.keyspace.values[key] = attrs.evolve(value, data=change(value.data))

    def put(self, key: str, data: bytes, ttl_ms: int | None = None) -> None:
        expires_at = None if ttl_ms is None else self.sim.clock.ms + ttl_ms
        self.sim.keyspace.values[key] = Value(data, expires_at)

    def expire(self, key: str, ms: int = 600_000) -> None:
        value = self.sim.keyspace.values[key]
        self.sim.keyspace.values[key] = attrs.evolve(value, expires_at=self.sim.clock.ms + ms)

    def flush(self) -> None:
        self.sim.keyspace.values.clear()
        self.sim.keyspace.sets.clear()

    def cut_off(self, id: str, *, writes: int = 2) -> None:  # noqa: A002
        """A publish that a dying server cut off: its records are permanent, its swap is missing."""
        client, meddler = meddled(self.store)

        def tear() -> None:
            batch = meddler.batches[-1]
            for command in batch:
                if isinstance(command, Swap):
                    self.sim.keyspace.commit(command, self.sim.clock.ms, writes=writes)
                else:
                    self.sim.keyspace.apply(command, self.sim.clock.ms)
            raise KeyboardInterrupt

        meddler.before(1, tear)
        try:
            client.publish("mena", "never", id=id, ts=at(self.rows[-1].ts + 1))
        except KeyboardInterrupt:
            return
        raise AssertionError("the publish was to be cut_off")

    # --- the content -------------------------------------------------------------------------------

    def refs(self) -> list[Ref]:
        """All references of the log, at any depth."""
        ahead, found = list(invariants.manifest_of(self.store).log.pages), list[Ref]()
        while ahead:
            ref = ahead.pop()
            found.append(ref)
            ahead += pages.parse(self.sim.keyspace.values[ref.key].data, ref, "mena").pages
        return found

    def pages(self, *, of_references: bool = False) -> list[str]:
        """The keys of the pages that the manifest names, oldest first: of rows, or of references."""
        found: list[str] = []

        def descend(refs: tuple[Ref, ...]) -> None:
            for ref in refs:
                page = pages.parse(self.sim.keyspace.values[ref.key].data, ref, "mena")
                if bool(page.pages) == of_references:
                    found.append(ref.key)
                descend(page.pages)

        descend(invariants.manifest_of(self.store).log.pages)
        return found

    def problems(self) -> set[str]:
        """What verify finds, as a new client."""
        return {f.problem.value for f in another(self.store).verify("mena") if f.wrong}

    def history(self) -> list[Row]:
        """All that a new reader sees, oldest first."""
        return list(another(self.store).history("mena", limit=None))[::-1]

    def healthy(self) -> dict[str, bytes]:
        """The id records of what was acknowledged that are whole and permanent, with their bases."""
        values = self.sim.keyspace.values
        keys = self.store._context.keys
        found = {}
        for row in self.rows:
            value = values.get(keys.id("mena", row.id))
            if value and value.expires_at is None and self._is_whole(value.data, row):
                found[row.id] = value.data
        return found

    def _is_whole(self, record: bytes, row: Row) -> bool:
        try:
            return records.states(record, row) and self.payload(record) is not None
        except (Corrupt, KeyError):
            return False

    def payload(self, record: bytes) -> bytes:
        """The payload of an id record. Raises `KeyError` without its base, and `Corrupt`."""
        held = records.held_as(record, "")
        return held.payload(None if held.base is None else self.base(held.base))

    def base(self, name: str) -> Dictionary:
        """A base as it is stored. Raises `KeyError` if it does not exist, and `Corrupt`."""
        key = self.store._context.keys.base("mena", name)
        return bases.parse(self.sim.keyspace.values[key].data, name, dataset="mena", key=key)

    def bases(self) -> list[str]:
        """The keys of the bases that are stored without a TTL, oldest first."""
        keys = [key for key, value in self.sim.keyspace.values.items() if value.expires_at is None]
        named = [name for key in keys if (name := self.store._context.keys.parse(key)) is not None]
        found = [name for name in named if name.kind == "base"]
        return [name.key for name in sorted(found, key=lambda name: base_version(name.rest))]

    def repaired(self) -> None:
        """Repair until nothing is left; then nothing is wrong, and another repair changes nothing."""
        reports = another(self.store).repair("mena", apply=True)
        assert all(not report.left for report in reports), reports
        assert self.problems() == set()
        before = self.sim.keyspace.fingerprint()
        assert another(self.store).repair("mena", apply=True) == []
        assert self.sim.keyspace.fingerprint() == before
        invariants.check(self.store)

    def still_has(self, ids: object) -> None:
        """Exactly these snapshots can be read, and none that was not acknowledged."""
        reader = another(self.store)
        for row in self.rows:
            if row.id in ids:  # type: ignore[operator]
                snapshot = reader.read("mena", id=row.id)
                assert snapshot is not None, row.id
                assert (snapshot.ts, snapshot.sha256) == (row.ts, row.sha256)
        shown = [row.id for row in self.history()]
        assert len(shown) == len(set(shown))
        assert set(shown) <= {row.id for row in self.rows}


def key(kind: str, number: int) -> str:
    """The key of a record of `grown`."""
    time = f"{number}:" if kind == "ts" else ""
    return f"swapstore:{kind}:{{mena}}:{time}id-{number}"


def opened(*, seed: int = 0, delta: bool = False) -> SimulatedDataset:
    """An empty store. `delta`: what is published is stored as differences from bases."""
    sim = SimulatedStore(
        seed=seed, policy=msgspec.structs.replace(FEW, compression="delta") if delta else FEW
    )
    return SimulatedDataset(sim, sim.connect(), [])


def payload(number: int, *, delta: bool, kind: int = 0) -> dict[str, object]:
    """A small payload; `delta`: a larger one, which differs little from others of its kind."""
    text = random.Random(kind).randbytes(300).hex()
    return {"n": number, "text": text} if delta else {"n": number}


def grown(
    count: int, *, gaps: bool = False, backfilled: bool = False, delta: bool = False
) -> SimulatedDataset:
    """A dataset of this many snapshots; `gaps`: pins in between, `backfilled`: times in mixed order.

    `delta`: every three snapshots have a base of their own, the second of them brings it.
    """
    dataset = opened(delta=delta)
    times = list(range(1, count + 1))
    if backfilled:
        random.Random(3).shuffle(times)
    for number, ts in enumerate(times, start=1):
        dataset.sim.clock.advance(1)
        dataset.store.publish(
            "mena",
            payload(ts, delta=delta, kind=(number - 1) // 3),
            id=f"id-{ts}",
            ts=at(ts),
            labels={"n": str(ts)},
            dedupe_key=f"run-{number}",
        )
        if gaps and number % 3 == 0:
            dataset.store.pin("mena", id=f"id-{ts}")
            dataset.store.confirm("mena")
            dataset.store.unpin("mena")
    dataset.rows.extend(dataset.history())
    assert len(dataset.rows) == count
    return dataset
