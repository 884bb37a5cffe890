"""Reads that ask a replica first: it lags, lacks records, fails, or shows another past."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from swapstore import InvalidInput, Snapshot, Store, Unavailable, cache
from swapstore.commands import Command, Failed, ReadCommand
from swapstore.errors import Corrupt, Misconfigured, ReplyLost, SwapstoreError, Throttled
from swapstore.format import manifest
from swapstore.store import AsyncStore
from swapstore.testing import SimulatedStore
from swapstore.testing.simulated import Keyspace, SimulatedDriver, Value, VirtualClock

DATASETS = ("mena", "asia", "europe")


class Server(SimulatedDriver):
    """A server whose keys a test can exchange. `fails`: what it raises. `refuses`: what each command gets.

    `asked`: the batches that it got. `before`: called with the number of each batch.
    """

    def __init__(self, keyspace: Keyspace, clock: VirtualClock, *, is_replica: bool = False) -> None:
        super().__init__(keyspace, clock)
        self.is_replica = is_replica
        self.fails: SwapstoreError | None = None
        self.refuses: SwapstoreError | None = None
        self.asked: list[Sequence[Command[Any]]] = []
        self.before: Callable[[int], object] = lambda _: None

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        self.before(len(self.asked))
        self.asked.append(commands)
        if self.is_replica:
            assert all(isinstance(each, ReadCommand) for each in commands), "a replica takes no write"
        if self.fails is not None:
            raise self.fails
        if self.refuses is not None:
            return [Failed(self.refuses, again=True)] * len(commands)
        return super().execute(commands)


class AsyncServer:
    """The same, awaited."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.where, self.kind, self.binary_safe = server.where, server.kind, server.binary_safe

    async def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        return self._server.execute(commands)

    async def close(self) -> None:
        pass


class World:
    """A primary, a replica, and clients that read from it. `states[n]`: all keys when `n` was committed."""

    def __init__(self, seed: int = 0) -> None:
        self._simulated = SimulatedStore(seed=seed)
        clock = self._simulated.clock
        self.primary = Server(self._simulated.keyspace, clock)
        self.replica = Server(Keyspace(), clock, is_replica=True)
        self.producer = self.client(reads_replicas=False)
        self.states = [Keyspace()]

    def client(self, *, reads_replicas: bool = True, cache_bytes: int = 1 << 20, **policy: Any) -> Store:
        context = self._simulated.connect()._context
        policy = {"reads_replicas": reads_replicas, "patience_s": 5.0, **policy}
        context = msgspec.structs.replace(
            context, policy=msgspec.structs.replace(context.policy, **policy), cache=cache.Cache(cache_bytes)
        )
        return Store(self.primary, context, self.replica if reads_replicas else None)

    def publish(self, count: int = 1, dataset: str = "mena", by: Store | None = None) -> int:
        version = 0
        for _ in range(count):
            number = len(self.states)
            version = (by or self.producer).publish(dataset, number, id=f"{dataset}-{number}").version
            self.states.append(self.primary.keyspace.copy())
        return version

    def lag(self, state: int) -> None:
        self.replica.keyspace = self.states[state].copy()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Two rows or references make a page, so that a dozen publishes make a deep log."""
    monkeypatch.setattr(manifest, "F", 2)
    monkeypatch.setattr(manifest, "G", 2)
    return World()


def version_of(client: Store, dataset: str = "mena") -> int:
    found = client.read_latest(dataset)
    return 0 if found is None else found.version


READS: dict[str, Callable[[Store], Any]] = {
    "read_latest": lambda store: store.read_latest("mena"),
    "read_latest_many": lambda store: store.read_latest_many(["mena", "asia"])["mena"],
    "status": lambda store: store.status("mena").etag,  # type: ignore[union-attr]
    "by id": lambda store: store.read("mena", id="mena-2"),
    "by version": lambda store: store.read("mena", version=2),
    "as of": lambda store: store.read("mena", as_of=store._context.clock.now_ms()),
    "history": lambda store: list(store.history("mena", limit=None)),
}
reading = pytest.mark.parametrize("read", READS.values(), ids=READS)


# --- where reads go --------------------------------------------------------------------------------


@reading
def test_a_replica_that_has_everything_answers(world: World, read: Callable[[Store], Any]) -> None:
    """Readers load the primary although a replica has what they ask for."""
    world.publish(3)
    world.publish(dataset="asia")
    world.lag(-1)
    client = world.client()
    before = len(world.primary.asked)
    assert read(client) == read(world.client(reads_replicas=False))
    asked = len(world.primary.asked) - before
    read(client)
    assert len(world.primary.asked) == before + asked
    assert world.replica.asked


def test_nothing_but_reads_asks_a_replica(world: World) -> None:
    """A publish is built on what a replica shows, or an operator's call is answered by one that lags."""
    client = world.client()
    world.publish(3, by=client)
    client.pin("mena", version=2)
    client.unpin("mena")
    client.rollback("mena", version=1)
    client.confirm("mena")
    client.prune("mena")
    client.put_live("mena", 1, ttl=60)
    client.read_live("mena")
    assert client.datasets() == ["mena"]
    assert not list(client.verify("mena"))
    assert client.repair() == []
    assert world.replica.asked == []


@reading
def test_a_store_without_replicas_asks_the_primary(world: World, read: Callable[[Store], Any]) -> None:
    """A read goes where nobody said it should."""
    world.publish(3)
    world.publish(dataset="asia")
    read(world.client(reads_replicas=False))
    assert world.replica.asked == []


# --- a replica that fails --------------------------------------------------------------------------

FAILURES = [
    Unavailable("away"),
    ReplyLost("lost"),
    Throttled("too many", retry_after_s=3600),
    Misconfigured("no right"),
    Corrupt("damaged", key="mena"),
]


@reading
@pytest.mark.parametrize("failure", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("how", ["fails", "refuses"])
def test_a_replica_that_fails_is_asked_once(
    world: World, read: Callable[[Store], Any], failure: SwapstoreError, how: str
) -> None:
    """A read fails with the replica, or waits for it, or asks it again and again."""
    world.publish(3)
    world.publish(dataset="asia")
    world.lag(-1)
    expected = read(world.client(reads_replicas=False))
    client, began = world.client(), world.primary.clock.ms
    setattr(world.replica, how, failure)
    assert read(client) == expected
    assert len(world.replica.asked) == 1
    assert world.primary.clock.ms == began, "it has waited"


@reading
def test_a_replica_that_fails_at_each_step(world: World, read: Callable[[Store], Any]) -> None:
    """A read that began at a replica cannot go on at the primary."""
    world.publish(12)
    world.publish(dataset="asia")
    expected = read(world.client(reads_replicas=False))
    for cut in range(6):
        world.lag(-1)
        world.replica.fails, world.replica.asked = None, []

        def fail(number: int, cut: int = cut) -> None:
            world.replica.fails = Unavailable("away") if number >= cut else None

        world.replica.before = fail
        assert read(world.client()) == expected
        assert len(world.replica.asked) <= cut + 1
    world.replica.before = lambda _: None


@reading
def test_a_replica_that_loses_its_keys_at_each_step(world: World, read: Callable[[Store], Any]) -> None:
    """The next connection leads to a replica that is older, and records or pages are missing there."""
    world.publish(12)
    world.publish(dataset="asia")
    expected = read(world.client(reads_replicas=False))
    for state in (0, 1, 7, 11):
        for cut in range(1, 6):
            world.lag(-1)
            world.replica.asked = []

            def fall_back(number: int, cut: int = cut, state: int = state) -> None:
                if number == cut:
                    world.lag(state)

            world.replica.before = fall_back
            assert read(world.client()) == expected
    world.replica.before = lambda _: None


@reading
@pytest.mark.parametrize("kind", [":manifest:", ":id:", ":page:", ":ts:", ":"])
@pytest.mark.parametrize("damage", ["gone", "garbled", "cut"])
def test_keys_that_are_missing_or_damaged_on_a_replica(
    world: World, read: Callable[[Store], Any], kind: str, damage: str
) -> None:
    """A reader is told of damage that the primary does not have."""
    world.publish(11)
    world.publish(dataset="asia")
    warm = world.client()
    assert version_of(warm) == 11
    world.publish()
    world.lag(-1)
    values = world.replica.keyspace.values
    for key in [key for key in values if kind in key]:
        if damage == "gone":
            del values[key]
        else:
            data = values[key].data
            values[key] = Value(
                data[: len(data) // 2] if damage == "cut" else data.replace(b"{", b"[", 1), None
            )
    expected = read(world.client(reads_replicas=False))
    assert read(world.client()) == expected
    assert read(warm) == expected


# --- never backwards -------------------------------------------------------------------------------


@pytest.mark.parametrize("seen", range(4))
@pytest.mark.parametrize("shown", range(6))
def test_a_replica_that_lags(world: World, seen: int, shown: int) -> None:
    """A client that has seen a version is shown an older one; or a replica that will do is not used."""
    world.publish(seen)
    client = world.client()
    world.lag(-1)
    assert version_of(client) == seen
    world.publish(5 - seen)
    world.lag(shown)
    expected = shown if shown >= max(seen, 1) else 5
    assert version_of(client) == expected
    assert client.status("mena").version == expected  # type: ignore[union-attr]
    assert [row.version for row in client.history("mena")] == list(range(expected, 0, -1))
    assert client.read_latest_many(["mena"])["mena"].version == expected  # type: ignore[union-attr]


def test_what_a_client_has_published_it_reads(world: World) -> None:
    """A publish, then a read in the same client, shows the version before."""
    client = world.client()
    for number in range(1, 20):
        world.publish(by=client)
        world.lag(number // 2)
        assert version_of(client) == number
        assert client.read_latest_many(["mena"])["mena"].version == number  # type: ignore[union-attr]


def test_a_pin_is_not_forgotten(world: World) -> None:
    """A client reads the latest on a replica that does not know of the pin yet."""
    world.publish(3)
    client = world.client()
    client.pin("mena", version=1)
    world.lag(-1)
    assert version_of(client) == 1


def test_the_past_of_another_epoch(world: World) -> None:
    """After a flush, a replica that still has the old keys shows them, because their version is higher."""
    world.publish(5)
    client = world.client()
    world.lag(-1)
    assert version_of(client) == 5
    world.primary.keyspace = Keyspace()
    world.producer = world.client(reads_replicas=False)
    for number in range(1, 8):
        world.publish(by=client)
        assert version_of(client) == number
        assert client.read_latest("mena").value == 5 + number  # type: ignore[union-attr]


def test_nothing_is_there_any_more(world: World) -> None:
    """After a flush a client sees nothing, and then, from a replica that lags, what was there before."""
    world.publish(5)
    client = world.client()
    world.lag(-1)
    assert version_of(client) == 5
    world.primary.keyspace = Keyspace()
    world.lag(0)  # the primary is asked, and it has gone back
    assert client.read_latest("mena") is None
    world.lag(5)
    assert client.read_latest("mena") is None
    world.publish(by=world.client(reads_replicas=False))
    assert client.read_latest("mena").value == 6  # type: ignore[union-attr]
    before = len(world.replica.asked)
    world.lag(-1)
    assert client.read_latest("mena").value == 6  # type: ignore[union-attr]
    assert len(world.replica.asked) > before, "replicas are not read any more"


def test_a_primary_that_went_back(world: World) -> None:
    """A failover has lost versions; then a replica that still has them leads a client forth and back."""
    world.publish(5)
    client = world.client()
    world.lag(-1)
    assert version_of(client) == 5
    world.primary.keyspace = world.states[3].copy()
    world.lag(2)
    assert version_of(client) == 3
    world.lag(5)
    assert version_of(client) == 3
    assert [row.version for row in client.history("mena")] == [3, 2, 1]
    another = world.client(reads_replicas=False)
    for number in (4, 5):
        another.publish("mena", f"anew-{number}")
        assert client.read_latest("mena").value == f"anew-{number}"  # type: ignore[union-attr]
    another.publish("mena", "anew-6")
    assert client.read_latest("mena").value == "anew-6"  # type: ignore[union-attr]
    before = len(world.replica.asked)
    assert client.read_latest("mena").value == "anew-6"  # type: ignore[union-attr]
    assert len(world.replica.asked) > before, "replicas are not read any more"


def test_a_dataset_that_a_client_no_longer_remembers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client with more datasets than it can remember goes back in one of them."""
    monkeypatch.setattr(cache, "MAX_MANIFESTS", 1)
    world.publish(3)
    world.publish(2, dataset="asia")
    world.lag(-1)
    client = world.client()
    assert version_of(client) == 3
    assert version_of(client, "asia") == 2
    world.lag(2)
    assert version_of(client) == 3
    assert version_of(client, "asia") == 2


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
def test_several_datasets_some_of_which_lag(world: World, cache_bytes: int) -> None:
    """In one batch, one dataset that lags makes another go back, or be read from the wrong server."""
    for dataset in DATASETS:
        world.publish(2, dataset=dataset)
    client = world.client(cache_bytes=cache_bytes)
    world.lag(-1)
    assert {
        name: found.version for name, found in client.read_latest_many(DATASETS).items() if found
    } == dict.fromkeys(DATASETS, 2)
    world.publish(dataset="mena", by=client)
    world.publish(dataset="asia")
    lagging = world.states[6].copy()
    lagging.values |= {key: each for key, each in world.states[-1].values.items() if "{asia}" in key}
    world.replica.keyspace = lagging
    found = client.read_latest_many(DATASETS)
    assert {name: each.version for name, each in found.items() if each} == {"mena": 3, "asia": 3, "europe": 2}


class Play:
    """A random history of two clients, whose replicas lag at random."""

    def __init__(self, seed: int, cache_bytes: int) -> None:
        self.dice = random.Random(seed)
        self.world = World(seed)
        self.clients = [self.world.client(cache_bytes=cache_bytes) for _ in range(2)]
        self.seen: list[dict[str, int]] = [dict.fromkeys(DATASETS, 0) for _ in self.clients]
        self.values: dict[tuple[str, int], int] = {}
        self.world.replica.before = self._meddle

    def _meddle(self, _: int) -> None:
        if self.dice.random() < 0.7:
            self.world.lag(self.dice.randrange(len(self.world.states)))
        self.world.replica.fails = Unavailable("away") if self.dice.random() < 0.1 else None

    def step(self) -> None:
        client, dataset = self.dice.randrange(2), self.dice.choice(DATASETS)
        acts = [self._publish, self._read_latest, self._read_many, self._read_version, self._read_history]
        self.dice.choice(acts)(client, dataset)

    def _saw(self, client: int, dataset: str, version: int) -> None:
        assert version >= self.seen[client][dataset], "backwards"
        self.seen[client][dataset] = version

    def _publish(self, client: int, dataset: str) -> None:
        is_own = self.dice.random() < 0.5
        version = self.world.publish(dataset=dataset, by=self.clients[client] if is_own else None)
        self.values[dataset, version] = len(self.world.states) - 1
        if is_own:
            self._saw(client, dataset, version)

    def _read_latest(self, client: int, dataset: str) -> None:
        self._check(client, dataset, self.clients[client].read_latest(dataset))

    def _read_many(self, client: int, _: str) -> None:
        for dataset, found in self.clients[client].read_latest_many(DATASETS).items():
            self._check(client, dataset, found)

    def _check(self, client: int, dataset: str, found: Snapshot | None) -> None:
        self._saw(client, dataset, 0 if found is None else found.version)
        if found is not None:
            assert found.value == self.values[dataset, found.version]

    def _read_version(self, client: int, dataset: str) -> None:
        if self.seen[client][dataset]:
            version = self.dice.randint(1, self.seen[client][dataset])
            found = self.clients[client].read(dataset, version=version)
            assert found is not None
            assert found.value == self.values[dataset, version]

    def _read_history(self, client: int, dataset: str) -> None:
        versions = [row.version for row in self.clients[client].history(dataset, limit=None)]
        assert versions == list(range(len(versions), 0, -1))
        self._saw(client, dataset, len(versions))


@pytest.mark.fuzz
@given(st.integers(0, 2**32), st.sampled_from([0, 3000, 1 << 20]))
@settings(deadline=None, max_examples=25)
def test_random_lag(seed: int, cache_bytes: int) -> None:
    """In some order of publishes, reads and lags, a client goes back, or reads what never was."""
    play = Play(seed, cache_bytes)
    for _ in range(60):
        play.step()


def test_a_history_that_began_on_a_replica(world: World) -> None:
    """Its pages are looked for on a replica that does not have them, or has others under their names."""
    world.publish(16)
    for state in (0, 5, 12):
        for change in ("older", "away", "damaged"):
            world.lag(-1)
            world.replica.fails = None
            steps = world.client().history("mena", limit=None)
            rows = [next(steps)]
            world.lag(state if change == "older" else -1)
            if change == "away":
                world.replica.fails = Unavailable("away")
            if change == "damaged":
                values = world.replica.keyspace.values
                for key in [key for key in values if ":page:" in key]:
                    values[key] = Value(b"x" + values[key].data[1:], None)
            rows += steps
            assert [row.version for row in rows] == list(range(16, 0, -1))


# --- a version that somebody has written ------------------------------------------------------------


@pytest.mark.parametrize("shown", range(6))
@pytest.mark.parametrize("wanted", range(1, 6))
def test_at_least_a_version(world: World, wanted: int, shown: int) -> None:
    """What one process has published, another one does not read although it was told the version."""
    world.publish(5)
    world.lag(shown)
    found = world.client().read_latest("mena", min_version=wanted)
    assert found is not None
    assert found.version == (shown if shown >= wanted else 5)


@pytest.mark.parametrize("published", [0, 3])
def test_a_version_that_is_not_there(world: World, published: int) -> None:
    """A version that a failover has lost is waited for without an end, or an older one is read instead."""
    world.publish(published)
    world.lag(-1)
    for client in (world.client(), world.client(reads_replicas=False)):
        with pytest.raises(Unavailable, match="version 4 is not there") as caught:
            client.read_latest("mena", min_version=4)
        assert caught.value.dataset == "mena"


def test_a_pinned_snapshot_may_be_older(world: World) -> None:
    """While an older snapshot is pinned, nobody can read with a min_version."""
    world.publish(3)
    version = world.producer.pin("mena", version=1).version
    found = world.client().read_latest("mena", min_version=version)
    assert found is not None
    assert found.version == 1


def test_staleness_with_a_version(world: World) -> None:
    """The cache is served although it does not have the version; or the store is asked although it has."""
    world.publish(2)
    client = world.client(reads_replicas=False)
    assert version_of(client) == 2
    world.publish()
    before = len(world.primary.asked)
    assert client.read_latest("mena", max_staleness=60, min_version=2).version == 2  # type: ignore[union-attr]
    assert len(world.primary.asked) == before
    assert client.read_latest("mena", max_staleness=60, min_version=3).version == 3  # type: ignore[union-attr]
    assert len(world.primary.asked) > before


def test_it_shares_no_load(world: World) -> None:
    """A read with a min_version gets what another reader has found on a replica that lags."""
    world.publish(2)
    world.lag(1)
    client = world.client()
    client._flights = None  # type: ignore[assignment]
    found = client.read_latest("mena", min_version=2)
    assert found is not None
    assert found.version == 2


@pytest.mark.parametrize("value", [-1, 1.0, "1", None, True, [], object()])
def test_a_version_that_is_none(world: World, value: Any) -> None:
    """A mistake is taken for a version, or for none."""
    for staleness in (0, 60):
        with pytest.raises(InvalidInput, match="min_version must be a whole number"):
            world.client().read_latest("mena", min_version=value, max_staleness=staleness)


# --- asyncio ---------------------------------------------------------------------------------------


def test_asyncio(world: World) -> None:
    """In asyncio a replica is not asked, or its failure is the caller's."""
    world.publish(2)
    world.lag(1)
    plain = world.client()

    async def main() -> None:
        primary, replica = AsyncServer(world.primary), AsyncServer(world.replica)
        async with AsyncStore(primary, plain._context, replica) as store:
            read: Any = store.read_latest
            assert (await read("mena")).version == 1
            assert (await read("mena", min_version=2)).version == 2
            assert (await read("mena")).version == 2
            world.replica.fails = Unavailable("away")
            assert (await read("mena")).version == 2
            with pytest.raises(Unavailable, match="version 3"):
                await read("mena", min_version=3)
            with pytest.raises(InvalidInput):
                await read("mena", min_version=-1)

    asyncio.run(main())
    assert len(world.replica.asked) > 2
