"""The mirror keeps old readers up to date, and never fails or delays a publish."""

from __future__ import annotations

import json
import logging
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest

import swapstore as library
from swapstore import Commit, Mirror, ReplyLost, Store, StoreFull, SwapstoreError
from swapstore.commands import Command, Failed, Get, Peek, Write
from swapstore.testing import Crash, Fault, Kind, SimulatedStore, every_fault, faulty
from tests.migration.conftest import START_MS, Old
from tests.support.rest_proxy import SmallProxy
from tests.support.valkey import Server

MIRROR = Mirror(prefix="intel")
LATEST = MIRROR.latest("mena")
T = START_MS
COMMANDS = 9  # of a cold publish with its mirror: five, and two batches of two


class Simulation:
    """A simulated store with a mirror, and a reader of the old keys."""

    def __init__(self, seed: int = 0) -> None:
        self.sim = SimulatedStore(seed=seed)

    def client(self, *faults: Fault) -> Store:
        made = self.sim.connect()
        made = Store(made._driver, msgspec.structs.replace(made._context, mirror=MIRROR))
        return faulty(made, *faults)[0] if faults else made

    def read(self, dataset: str = "mena") -> bytes | None:
        """Read in two steps. A pointer to nothing is an error."""
        name = self.value(MIRROR.latest(dataset))
        if name is None:
            return None
        payload = self.value(MIRROR.by_id(name.decode()))
        assert payload is not None, f"latest dangles: {name!r}"
        return payload

    def value(self, key: str) -> bytes | None:
        found = self.sim.keyspace.values.get(key)
        return None if found is None else found.data


@pytest.fixture
def mirrored(server: Server) -> Iterator[Store]:
    """A store with a mirror, on a real server."""
    with library.connect(server.url, mirror=MIRROR) as store:
        yield store


def test_an_old_reader_sees_every_commit(mirrored: Store, old: Old) -> None:
    """Readers that have not moved stay on the last snapshot of the old producer."""
    old.publish("mena", "before", T)
    for number in range(70):
        text = f'{{ "n":  {number} }}'.encode()
        mirrored.publish("mena", text, codec="bytes", id=f"id-{number}", ts=T + number)
        assert old.read("mena") == text
        assert old.client.get(old.latest("mena")) == f"id-{number}".encode()
    assert old.client.get(old.by_id("id-3")) is not None
    assert old.client.ttl(old.latest("mena")) == -1, "an eviction or expiry would let it dangle"


def test_old_readers_get_the_payload_itself(server: Server, old: Old) -> None:
    """Readers that have not moved get a difference from something that they do not know."""
    with library.connect(server.url, mirror=MIRROR, compression="delta") as store:
        for number in range(4):
            value = {"run": number, "rows": [index * 7919 % 9973 for index in range(200)]}
            store.publish("mena", value, id=f"id-{number}", ts=T + number)
            assert json.loads(old.read("mena") or b"") == value
        assert next(iter(store.history("mena"))).base is not None


def test_a_mirror_costs_two_round_trips_and_no_download(server: Server, mirrored: Store) -> None:
    """Each publish of a large snapshot also downloads it."""
    mirrored.publish("mena", 0)
    sent: list[list[Command[Any]]] = []
    execute = mirrored._driver.execute

    def recording(commands: Sequence[Command[Any]]) -> list[Any]:
        sent.append(list(commands))
        return execute(commands)

    mirrored._driver.execute = recording  # type: ignore[method-assign]
    mirrored.publish("mena", 1)
    assert [[type(command) for command in batch] for batch in sent[1:]] == [[Write, Peek]] * 2
    assert not any(isinstance(command, Get) for batch in sent for command in batch)


def test_without_a_mirror_no_old_key_is_written(server: Server, old: Old) -> None:
    """Stores without a mirror pay for one."""
    with library.connect(server.url) as store:
        store.publish("mena", 1)
    assert not list(old.client.scan_iter("*snapshot*"))


@pytest.mark.parametrize("fault", list(every_fault(COMMANDS)), ids=lambda f: f"{f.kind.name}-{f.at}")
def test_latest_never_dangles_and_catches_up(fault: Fault) -> None:
    """An old reader finds a pointer to nothing, or stays behind after the next publish."""
    world = Simulation()
    world.client().publish("mena", "first", id="first", ts=T)
    try:
        commit: Commit | None = world.client(fault).publish("mena", "second", id="second", ts=T + 1)
    except (Crash, SwapstoreError):
        commit = None
    assert world.read() in {b'"first"', b'"second"'}
    status = world.sim.connect().status("mena")
    assert status is not None
    if commit is not None:
        assert status.latest.id == "second"
        assert commit.version == status.latest.version
    if world.read() == b'"second"':
        assert status.latest.id == "second", "the mirror is ahead of the commit"
    healed = world.client().publish("mena", "second", id="second", ts=T + 1)
    assert world.read() == b'"second"'
    assert healed.is_latest


def test_the_commands_of_a_mirrored_publish() -> None:
    """The fault tests above miss a command that was added."""
    world = Simulation()
    client, driver = faulty(world.client())
    client.publish("mena", 1)
    assert len(driver.done) == COMMANDS
    assert isinstance(driver.done[-2], Write)


@pytest.mark.parametrize("at", [5, 7])
def test_a_refused_mirror_is_logged_and_the_publish_stands(at: int, caplog: pytest.LogCaptureFixture) -> None:
    """A server that refuses the mirror's writes fails a publish that is committed."""
    world = Simulation()
    with caplog.at_level(logging.WARNING, "swapstore"):
        commit = world.client(Fault(Kind.REFUSED, at)).publish("mena", 1, id="a")
    assert commit.created
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "'mena' is committed" in record.getMessage()
    assert "full" in record.getMessage()
    assert world.value(LATEST) is None
    assert not world.client().publish("mena", 1, id="a").created
    assert world.read() == b"1"


def test_any_failure_of_the_mirror_leaves_the_publish_alone(
    mirrored: Store, old: Old, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in the mirror, or a lost server, turns a commit into an error."""
    execute = mirrored._driver.execute
    failure: list[Callable[[], Any]] = []

    def failing(commands: Sequence[Command[Any]]) -> list[Any]:
        if any(isinstance(command, Write) for command in commands):
            return [failure[0]() for _ in commands]
        return execute(commands)

    def lose() -> Any:
        raise ReplyLost("the reply was lost")

    mirrored._driver.execute = failing  # type: ignore[method-assign]
    bug: Any = ValueError("a bug")
    refusals = (lose, lambda: Failed(StoreFull("full")), lambda: Failed(bug))
    for number, broken in enumerate(refusals):
        failure[:] = [broken]
        caplog.clear()
        commit = mirrored.publish("mena", number)
        assert commit.created
        assert len(caplog.records) == 1
        assert mirrored.read_latest("mena").value == number  # type: ignore[union-attr]
    assert old.client.get(old.latest("mena")) is None
    mirrored._driver.execute = execute  # type: ignore[method-assign]
    mirrored.confirm("mena")
    assert old.read("mena") == b"2"


def test_no_password_is_logged(server: Server, old: Old, caplog: pytest.LogCaptureFixture) -> None:
    """The log contains the password of the store."""
    old.client.acl_setuser(
        "producer", enabled=True, passwords=["+hunter2"], keys=["swapstore:*"],
        categories=["+@all"], channels=["*"], reset=True,
    )  # fmt: skip
    try:
        url = f"redis://producer:hunter2@127.0.0.1:{server.port}/0"
        with library.connect(url, mirror=MIRROR) as store:
            assert store.publish("mena", 1).created
    finally:
        old.client.acl_deluser("producer")
    assert "does not allow" in caplog.text
    assert "hunter2" not in caplog.text


def test_old_keys_of_another_type_are_replaced(mirrored: Store, old: Old) -> None:
    """One key of another type keeps the old readers behind permanently."""
    old.client.rpush(old.latest("mena"), "x")
    mirrored.publish("mena", 1)
    assert old.read("mena") == b"1"


def test_the_committed_payload_is_mirrored(old: Old, mirrored: Store) -> None:
    """A publish that a dedupe key resolved to another commit mirrors its own payload."""
    mirrored.publish("mena", "committed", id="a", dedupe_key="slot")
    old.client.delete(old.latest("mena"), old.by_id("a"))
    again = mirrored.publish("mena", "never committed", id="b", dedupe_key="slot")
    assert again.id == "a"
    assert old.read("mena") == b'"committed"'
    assert old.client.get(old.by_id("b")) is None


def test_a_backfill_has_its_payload_and_leaves_latest_alone(mirrored: Store, old: Old) -> None:
    """Old readers go back in time, or do not find the backfilled snapshot by its id."""
    mirrored.publish("mena", "new", id="new", ts=T + 1)
    mirrored.publish("mena", "older", id="older", ts=T)
    assert old.read("mena") == b'"new"'
    assert old.client.get(old.by_id("older")) == b'"older"'


def test_old_readers_are_served_what_is_pinned(mirrored: Store, old: Old) -> None:
    """A pin or rollback by an operator reaches only half of the readers."""
    mirrored.publish("mena", "good", id="good", ts=T)
    mirrored.publish("mena", "bad", id="bad", ts=T + 1)
    mirrored.pin("mena", id="good")
    assert old.read("mena") == b'"good"'
    mirrored.publish("mena", "worse", id="worse", ts=T + 2)
    assert old.read("mena") == b'"good"'
    assert old.client.get(old.by_id("worse")) == b'"worse"'
    mirrored.unpin("mena")
    assert old.read("mena") == b'"worse"'
    mirrored.rollback("mena", id="good")
    assert old.read("mena") == b'"good"'


class Interleaved:
    """A driver that runs something else right before one of its commands."""

    def __init__(self, driver: Any, at: int, what: Callable[[], None]) -> None:
        self._driver, self._at, self._what = driver, at, what
        self._number = 0
        self.where = driver.where

    def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
        replies: list[Any] = []
        for command in commands:
            if self._number == self._at:
                self._what()
            self._number += 1
            replies += self._driver.execute([command])
        return replies

    def close(self) -> None:
        self._driver.close()


@pytest.mark.parametrize("at", range(COMMANDS + 1))
@pytest.mark.parametrize("others", [1, 3])
@pytest.mark.parametrize("ts", [T + 1, T + 50])
def test_a_slow_mirror_does_not_leave_latest_behind(at: int, others: int, ts: int) -> None:
    """A slow producer takes the old readers back to its own snapshot until the next publish."""
    world = Simulation()
    world.client().publish("mena", 0, id="first", ts=T)

    def in_between() -> None:
        for number in range(others):
            world.client().publish("mena", number, id=f"fast-{number}", ts=T + 10 + number)

    slow = world.client()
    slow._driver = Interleaved(slow._driver, at, in_between)  # type: ignore[assignment]
    slow.publish("mena", "slow", id="slow", ts=ts)
    if at == COMMANDS:
        in_between()
    serving = world.sim.connect().read_latest("mena")
    assert serving is not None
    assert world.read() == serving.raw


def test_many_producers_at_once(server: Server, old: Old) -> None:
    """Under load the old readers end on another snapshot than the new ones, or see nothing."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001
                failures.append(error)

        return threading.Thread(target=run)

    def produce(name: int) -> None:
        with library.connect(server.url, mirror=MIRROR) as store:
            for number in range(15):
                store.publish("mena", f"{name}-{number}", id=f"{name}-{number}")

    def read() -> None:
        with server.client() as client:
            reader = Old(client)
            while not stop.is_set():
                reader.read("mena")

    producers = [guarded(lambda name=name: produce(name)) for name in range(4)]  # type: ignore[misc]
    reader = guarded(read)
    for thread in (reader, *producers):
        thread.start()
    for thread in producers:
        thread.join()
    stop.set()
    reader.join()
    assert failures == []
    with library.connect(server.url) as store:
        assert old.read("mena") == store.read_latest("mena").raw  # type: ignore[union-attr]


@pytest.mark.parametrize("seed", range(60))
def test_random_histories_end_with_a_correct_mirror(seed: int) -> None:
    """Some order of faults, pins and backfills leaves a mirror that no publish repairs."""
    choose = random.Random(seed)
    world = Simulation(seed)
    world.client().publish("mena", "0", id="0", ts=T)
    names = ["0"]
    for number in range(1, 12):
        fault = Fault(choose.choice(list(Kind)), choose.randrange(COMMANDS + 3))
        client = world.client(fault)
        name = str(number)
        try:
            match choose.randrange(5):
                case 0:
                    client.pin("mena", id=choose.choice(names))
                case 1:
                    client.unpin("mena")
                case _:
                    client.publish("mena", name, id=name, ts=T + choose.randrange(10))
                    names.append(name)
        except (Crash, SwapstoreError):
            pass
        world.read()
    world.client().publish("mena", "end", id="end", ts=T + 11)
    serving = world.sim.connect().read_latest("mena")
    assert serving is not None
    assert world.read() == serving.raw
    assert world.value(MIRROR.by_id("end")) == b'"end"'


def test_a_missing_payload_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A damaged record fails every later backfill, or the damage is not reported."""
    world = Simulation()
    world.client().publish("mena", "new", id="new", ts=T + 1)
    world.sim.evict("swapstore:id:{mena}:new")
    assert world.client().publish("mena", "older", id="older", ts=T).created
    assert "does not exist" in caplog.text
    assert world.value(MIRROR.by_id("older")) == b'"older"'
    assert world.read() == b'"new"'


@pytest.mark.parametrize("at", [5, 6, 7, 8])
def test_a_late_write_of_the_mirror_is_corrected(at: int) -> None:
    """A delayed packet leaves a dangling or old pointer permanently."""
    world = Simulation()
    client, driver = faulty(world.client(), Fault(Kind.LATE, at))
    client.publish("mena", "first", id="first", ts=T)
    world.client().publish("mena", "second", id="second", ts=T + 1)
    driver.deliver_late()
    assert world.read() in {b'"first"', b'"second"'}
    world.client().confirm("mena")
    assert world.read() == b'"second"'


def test_a_dataset_that_always_changes_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A publish never returns while others commit all the time."""
    world = Simulation()
    client = world.client()
    execute = client._driver.execute
    written: list[str] = []

    def overtaken(commands: Sequence[Command[Any]]) -> list[Any]:
        for command in commands:
            if isinstance(command, Write):
                written.append(command.key)
                world.sim.connect().confirm("mena")
        return execute(commands)

    client._driver.execute = overtaken  # type: ignore[method-assign]
    assert client.publish("mena", 1).created
    assert "200 times" in caplog.text
    assert "mirror" in caplog.text
    assert written.count(MIRROR.by_id(client.read_latest("mena").id)) == 1  # type: ignore[union-attr]


def test_one_id_for_several_datasets_is_refused(mirrored: Store) -> None:
    """Old readers of one dataset are given the payload of another."""
    with pytest.raises(library.InvalidInput, match="one id for several datasets"):
        mirrored.publish_many({"mena": 1, "europe": 2}, id="run-1")
    for other in (library.Item(2, id="run-1"), library.Item(2)):
        with pytest.raises(library.InvalidInput, match="'run-1' for 'mena' and 'europe'"):
            mirrored.publish_many({"mena": library.Item(1, id="run-1"), "europe": other}, id="run-1")
    assert mirrored.datasets() == []
    mirrored.publish_many(
        {"asia": library.Item(1, id="asia-1"), "africa": 2}, id="run-1"
    ).raise_for_failures()
    assert mirrored.publish_many({"mena": 1}, id="run-2")["mena"].version == 1  # type: ignore[union-attr]


def test_old_keys_with_a_ttl(server: Server) -> None:
    """Old keys stay for years after the last reader, or a payload expires before the key that names it."""
    mirror = Mirror(prefix="intel", ttl=3600)
    with library.connect(server.url, mirror=mirror) as store, server.client() as client:
        store.publish("mena", 1, id="a")
        by_id, latest = client.pttl(mirror.by_id("a")), client.pttl(mirror.latest("mena"))
        assert 3_500_000 < latest <= 3_600_000 < by_id
        client.pexpire(mirror.by_id("a"), 1000)
        store.confirm("mena")
        assert client.pttl(mirror.by_id("a")) > 3_600_000
    for wrong in (0, -1, "x", True):
        with pytest.raises(library.InvalidInput, match="ttl"):
            Mirror(ttl=wrong)  # type: ignore[arg-type]


def test_a_mirror_over_rest(server: Server) -> None:
    """A system that is reached over REST alone cannot keep its old readers up to date."""
    with (
        SmallProxy(server) as proxy,
        library.connect(proxy.url, token=proxy.token, mirror=MIRROR) as store,
        server.client() as client,
    ):
        store.publish("mena", {"n": 1}, id="a")
        assert client.get(client.get(LATEST) and MIRROR.by_id("a")) == b'{"n":1}'
    with pytest.raises(library.InvalidInput, match="SQLite"):
        library.connect("sqlite:///never.db", mirror=MIRROR)
