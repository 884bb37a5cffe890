"""Last good: what is served in an outage, to whom, and never something older than was served before."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from swapstore import (
    Group,
    InvalidInput,
    Misconfigured,
    ReplyLost,
    Snapshot,
    Store,
    StoreClosed,
    Throttled,
    TooStale,
    Unavailable,
)
from swapstore.cache import Cache, version_of
from swapstore.commands import Get
from swapstore.errors import Corrupt
from swapstore.events import CallFailed, Event, Hook, ReadStale
from swapstore.outages import Attempt
from swapstore.recovery import Patience
from swapstore.testing import SimulatedStore
from swapstore.turns import PATIENCE_S
from tests.support.interrupts import Threads, interrupted_at
from tests.support.outage import Breakable, breakable

HOUR = 3600


class World:
    """A simulated store, a producer, and a reader whose store can be taken away."""

    def __init__(self, *, cache_bytes: int = 1 << 20, **changes: Any) -> None:
        self.simulated = SimulatedStore()
        self.clock = self.simulated.clock
        self.producer = self.simulated.connect()
        self.events: list[Event] = []
        hook = Hook(self.events.append)
        made = breakable(self.simulated.connect(), cache_bytes=cache_bytes, hook=hook, **changes)
        self.reader: Store = made[0]
        self.driver: Breakable = made[1]

    def publish(self, regime: str, dataset: str = "mena") -> int:
        return self.producer.publish(dataset, {"regime": regime}).version

    def wait(self, seconds: float) -> None:
        self.clock.ms += int(seconds * 1000)

    def read(self, dataset: str = "mena", **options: Any) -> Snapshot:
        found = self.reader.read_latest(dataset, **{"stale_if_error": HOUR, **options})
        assert found is not None
        return found

    def stale(self) -> list[ReadStale]:
        return [event for event in self.events if isinstance(event, ReadStale)]


@pytest.fixture
def world() -> World:
    made = World()
    made.publish("calm")
    return made


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


# --- what is served ---------------------------------------------------------------------------------


@pytest.mark.parametrize("cache_bytes", [1 << 20, 0])
def test_an_outage_serves_what_was_seen_and_says_so(cache_bytes: int) -> None:
    """A site goes dark with its store, although its server has the data in memory."""
    world = World(cache_bytes=cache_bytes)
    world.publish("calm")
    fresh = world.read()
    seen_at = world.clock.ms
    assert (fresh.stale, fresh.seen_at) == (False, seen_at)
    world.driver.go_down()
    world.wait(600)
    served = world.read()
    assert served == fresh
    assert served.value == {"regime": "calm"}
    assert (served.stale, served.seen_at) == (True, seen_at)
    assert [(event.version, event.stale_s, event.error) for event in world.stale()] == [
        (1, 600.0, "Unavailable")
    ]
    assert not any(isinstance(event, CallFailed) for event in world.events)
    world.driver.error = None
    world.publish("tense")
    after = world.read()
    assert (after.value, after.stale) == ({"regime": "tense"}, False)


@pytest.mark.parametrize(
    "error", [Unavailable("down"), ReplyLost("lost"), Throttled("slow down", retry_after_s=1.0)]
)
def test_every_kind_of_outage_serves_it(error: Unavailable, world: World) -> None:
    """A kind of outage that nobody thought of makes the site dark."""
    world.read()
    world.driver.go_down(error)
    before = world.clock.ms
    assert world.read().stale
    assert world.clock.ms - before < 1000, "it waits for the store although it has something to serve"


@pytest.mark.parametrize("error", [Misconfigured("no"), Corrupt("damaged"), StoreClosed("closed")])
def test_what_is_no_outage_is_raised(error: Any, world: World) -> None:
    """A wrong password, or damage, is hidden for as long as `stale_if_error` says."""
    world.read()
    world.driver.go_down(error)
    with pytest.raises(type(error)):
        world.read()


def test_who_did_not_ask_for_it_gets_the_error(world: World) -> None:
    """A reader that must not get stale data gets it, because another one of the same store asked for it."""
    world.read()
    world.driver.go_down()
    with pytest.raises(Unavailable):
        world.reader.read_latest("mena")
    assert world.read().stale


def test_it_is_served_up_to_its_age_and_no_longer(world: World) -> None:
    """A bound that is passed unnoticed: yesterday's data is served today."""
    world.read(stale_if_error=timedelta(hours=1))
    world.driver.go_down()
    world.wait(HOUR)
    assert world.read(stale_if_error=timedelta(hours=1)).stale
    world.wait(0.001)
    with pytest.raises(Unavailable) as caught:
        world.read(stale_if_error=timedelta(hours=1))
    assert caught.value.dataset == "mena"
    assert world.read(stale_if_error=2 * HOUR).stale


@pytest.mark.parametrize("cache_bytes", [1 << 20, 0])
def test_each_look_at_the_store_counts(cache_bytes: int) -> None:
    """A snapshot that was checked a minute ago counts as old as the read that brought it."""
    world = World(cache_bytes=cache_bytes)
    world.publish("calm")
    world.read()
    world.wait(HOUR - 60)
    assert not world.read().stale
    seen_at = world.clock.ms
    world.driver.go_down()
    world.wait(120)
    assert world.read().seen_at == seen_at


def test_the_default_of_a_store_and_how_to_turn_it_off() -> None:
    """An option of `connect` that has no effect, or cannot be refused by a call."""
    world = World()
    world.publish("calm")
    policy = msgspec.structs.replace(world.reader._context.policy, stale_if_error_s=60.0)
    reader, driver = breakable(world.producer, policy=policy)
    assert not reader.read_latest("mena").stale  # type: ignore[union-attr]
    driver.go_down()
    assert reader.read_latest("mena").stale  # type: ignore[union-attr]
    assert reader.read_latest_many(["mena"])["mena"].stale  # type: ignore[union-attr]
    with pytest.raises(Unavailable):
        reader.read_latest("mena", stale_if_error=0)
    world.wait(61)
    with pytest.raises(Unavailable):
        reader.read_latest("mena")


def test_each_caller_gets_a_copy(world: World) -> None:
    """A caller that changes its labels or its value changes what others get through the outage."""
    world.producer.publish("mena", {"list": [1]}, labels={"a": "b"})
    found = world.read()
    found.labels["a"] = "changed"
    found.value["list"].append(2)
    world.driver.go_down()
    for _ in range(2):
        served = world.read()
        assert (served.labels, served.value) == ({"a": "b"}, {"list": [1]})
        served.labels["a"] = "changed"
        served.value["list"].append(2)


def test_nothing_published_is_no_last_good(world: World) -> None:
    """A dataset that was not there, or was dropped, is there in an outage."""
    assert world.reader.read_latest("nowhere", stale_if_error=HOUR) is None
    world.read()
    world.producer.drop("mena")
    assert world.reader.read_latest("mena", stale_if_error=HOUR) is None
    world.driver.go_down()
    for name in ("nowhere", "mena", "never-read"):
        with pytest.raises(Unavailable):
            world.reader.read_latest(name, stale_if_error=HOUR)


def test_a_flushed_store_is_believed(world: World) -> None:
    """What was flushed comes back with the next outage."""
    world.read()
    world.simulated.keyspace.values.clear()
    assert world.reader.read_latest("mena", stale_if_error=HOUR) is None
    world.driver.go_down()
    with pytest.raises(Unavailable):
        world.read()


# --- never back -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache_bytes", [1 << 20, 0])
@pytest.mark.parametrize("how", ["read_latest", "read_latest_many", "max_staleness"])
def test_it_is_never_older_than_what_another_read_has_shown(how: str, cache_bytes: int) -> None:
    """A reader sees version 2, and in the outage after that version 1."""
    world = World(cache_bytes=cache_bytes)
    world.publish("calm")
    world.read()
    world.publish("tense")
    match how:
        case "read_latest":
            world.reader.read_latest("mena")
        case "read_latest_many":
            world.reader.read_latest_many(["mena"])
        case _:
            world.reader.read_latest("mena", max_staleness=0.5)
            world.wait(1)
            assert world.reader.read_latest("mena", max_staleness=0.5).version == 2  # type: ignore[union-attr]
    world.driver.go_down()
    assert world.read().version == 2


def test_a_version_that_nobody_was_given_does_not_hide_the_last_one(world: World) -> None:
    """The store goes down between the manifest and the payload, and the reader has nothing for an hour."""
    world.read()
    world.producer.publish("mena", {"regime": "x" * 100_000})
    world.driver.go_down()
    world.driver.broken_for = lambda command: isinstance(command, Get)
    assert world.read().version == 1
    assert world.read(max_staleness=10).version == 1
    world.driver.broken_for = None
    assert world.read().version == 1


def test_what_an_outage_has_served_is_not_followed_by_something_older() -> None:
    """A version that was served from the cache is evicted, and the one before takes its place."""
    world = World(cache_bytes=1700)
    world.publish("calm")
    world.publish("x" * 1000, "europe")
    world.read()
    world.publish("tense")
    world.reader.read("mena", version=2)
    key = world.reader._context.keys.manifest("mena")
    world.driver.go_down()
    world.driver.broken_for = lambda command: getattr(command, "key", None) == key
    assert world.read().version == 2
    world.reader.read_latest("europe")  # its payload leaves no room for another one
    assert world.read().version == 2


def test_pins_and_rollbacks_are_served_as_they_were_seen(world: World) -> None:
    """The bad version from which somebody has rolled back is served in an outage."""
    first = world.read()
    world.publish("wrong")
    assert world.read().value == {"regime": "wrong"}
    world.producer.rollback("mena", version=1)
    assert world.read().id == first.id
    world.driver.go_down()
    served = world.read()
    assert (served.id, served.stale) == (first.id, True)


@pytest.mark.parametrize("change", ["group", "rollback", "erase", "drop", "pin"])
def test_what_this_client_has_changed_is_not_undone_by_an_outage(change: str) -> None:
    """A client erases a snapshot, or takes it back, and still serves it when the store goes down."""
    world = World(cache_bytes=0)
    world.publish("first")
    world.publish("wrong")
    assert world.read().version == 2
    match change:
        case "group":
            world.reader.publish_group("mena", {"EG": 1})
        case "rollback":
            world.reader.rollback("mena", version=1)
        case "erase":
            world.reader.erase("mena", version=2, force=True)
        case "drop":
            world.reader.drop("mena")
        case _:
            world.reader.pin("mena", version=1)
    world.driver.go_down()
    with pytest.raises(Unavailable):
        world.read()


@pytest.mark.parametrize("cache_bytes", [1 << 20, 0])
def test_what_this_client_has_published_is_served(cache_bytes: int) -> None:
    """A producer that also reads gets its former version in an outage, or nothing."""
    world = World(cache_bytes=cache_bytes)
    world.publish("calm")
    world.read()
    version = world.reader.publish("mena", {"regime": "tense"}).version
    world.reader.confirm("mena")
    world.driver.go_down()
    served = world.read()
    assert (served.version, served.value) == (version, {"regime": "tense"})


def test_what_this_client_has_published_is_not_what_is_served() -> None:
    """The payload of a publish is served in an outage as that of a pinned snapshot, or of another publish."""
    world = World(cache_bytes=0)
    world.reader.publish("mena", {"regime": "calm"}, dedupe_key="morning")
    world.read()
    assert not world.reader.publish("mena", {"regime": "odd"}, dedupe_key="morning").created
    world.driver.go_down()
    assert world.read().value == {"regime": "calm"}
    world.driver.error = None
    world.reader.pin("mena", version=1)
    world.read()
    world.reader.publish("mena", {"regime": "tense"})
    world.driver.go_down()
    assert world.read().value == {"regime": "calm"}


def test_a_dataset_that_somebody_has_dropped_is_not_served(world: World) -> None:
    """After a read has shown that it is gone, an outage brings it back."""
    world.read()
    world.producer.drop("mena")
    assert world.reader.read_latest("mena", stale_if_error=HOUR) is None
    world.driver.go_down()
    with pytest.raises(Unavailable):
        world.read()


def test_what_a_reader_got_from_the_cache_is_not_followed_by_something_older() -> None:
    """A read within `max_staleness` shows a version, which is evicted; an outage shows the one before."""
    world = World(cache_bytes=1700)
    world.publish("calm")
    world.publish("x" * 1000, "europe")
    world.read()
    world.publish("tense")
    world.reader.read("mena", version=2)
    found = world.reader.read_latest("mena", max_staleness=60)
    assert found is not None
    assert found.version == 2
    world.reader.read_latest("europe")
    world.driver.go_down()
    assert world.read().version == 2


def test_a_group_that_a_reader_got_is_not_followed_by_an_older_one() -> None:
    """A read of a group that takes nothing stale shows a version, and an outage the one before."""
    world = World(cache_bytes=0)
    world.producer.publish_group("mena", {"a": 1})
    assert world.reader.read_group("mena", stale_if_error=HOUR) is not None
    world.producer.publish_group("mena", {"a": 2})
    assert world.reader.read_group("mena") is not None
    world.driver.go_down()
    found = world.reader.read_group("mena", stale_if_error=HOUR)
    assert found is not None
    assert found.members["a"].value == 2


def test_a_dataset_that_is_being_dropped_is_not_served(world: World) -> None:
    """The keys of a large dataset leave for minutes, and an outage brings back what readers no longer see."""
    world.publish("tense")
    world.read()
    looks: list[int] = []

    def look(left: int) -> None:
        assert world.reader.read_latest("mena", stale_if_error=HOUR) is None
        world.driver.go_down()
        with pytest.raises(Unavailable):
            world.read()
        world.driver.error = None
        looks.append(left)

    world.producer.drop("mena", on_progress=look)
    assert looks


def test_what_is_remembered_is_kept_when_it_is_given() -> None:
    """A reader gets a snapshot from the cache, and nothing in an outage, because it was evicted."""
    world = World(cache_bytes=1700)
    world.publish("calm")
    world.publish("x" * 1000, "europe")
    world.reader.read_latest("mena")
    world.read(max_staleness=60)
    world.reader.read_latest("europe")
    world.publish("y" * 1000, "europe")
    world.reader.read_latest("europe")
    world.driver.go_down()
    assert world.read().stale


def test_a_store_that_went_back_is_followed(world: World) -> None:
    """After a restore from a backup, an outage brings back what the backup does not have."""
    before = dict(world.simulated.keyspace.values)
    world.publish("lost")
    assert world.read().version == 2
    world.simulated.keyspace.values.clear()
    world.simulated.keyspace.values.update(before)
    assert world.read().version == 1
    world.driver.go_down()
    assert world.read().version == 1


def test_a_late_answer_does_not_replace_a_newer_one(world: World) -> None:
    """Of two threads that read at the same time, the slower one leaves its older version for the outage."""
    cache = world.reader._context.cache
    key = world.reader._context.keys.manifest("mena")
    old = world.read()
    world.publish("tense")
    world.read()
    cache.keep_good(key, old, HOUR)
    assert cache.kept[key].snapshot.version == 2


def test_a_late_answer_of_before_a_flush_is_not_kept() -> None:
    """The version of before has a greater number, so it is served in place of what is there now."""
    world = World(cache_bytes=0)
    world.publish("calm")
    world.publish("lost")
    old = world.read()
    world.simulated.keyspace.values.clear()
    world.publish("tense")
    assert world.read().version == 1
    world.reader._context.cache.keep_good(world.reader._context.keys.manifest("mena"), old, HOUR)
    world.driver.go_down()
    with pytest.raises(Unavailable):
        world.read()


def test_what_nobody_may_be_served_any_more_makes_room(world: World) -> None:
    """A server that reads a thousand datasets once a day keeps all of them."""
    for number in range(50):
        world.publish("calm", f"d{number}")
        world.read(f"d{number}", stale_if_error=60)
        world.wait(20)
    assert len(world.reader._context.cache.kept) <= 5


def test_what_is_read_again_and_again_makes_no_room_and_holds_up_nothing() -> None:
    """The first read of another dataset drops what a reader polls, because it was kept long ago."""
    world = World(cache_bytes=0)
    world.publish("calm")
    for number in range(21):
        world.read(stale_if_error=60)
        world.publish("calm", f"d{number}")
        world.read(f"d{number}", stale_if_error=60)
        world.wait(50)
    assert len(world.reader._context.cache.kept) <= 4
    world.driver.go_down()
    assert world.read(stale_if_error=60).stale


def test_who_wants_it_for_longest_decides_how_long_it_is_kept() -> None:
    """A reader that takes data of an hour ago has none, because another one takes data of a minute ago."""
    world = World(cache_bytes=0)
    world.publish("calm")
    world.publish("calm", "europe")
    world.read(stale_if_error=60)
    world.read(stale_if_error=HOUR)
    world.read(stale_if_error=60)
    world.wait(600)
    world.read("europe", stale_if_error=60)
    world.publish("tense")
    world.reader.read_latest("mena")
    world.wait(600)
    world.publish("calm", "asia")
    world.read("asia")
    world.driver.go_down()
    assert world.read(stale_if_error=HOUR).value == {"regime": "tense"}


def test_a_child_process_knows_when_the_parent_looked_last() -> None:
    """A worker that is forked serves nothing in an outage, because the parent read it first an hour ago."""
    world = World(cache_bytes=0)
    world.publish("calm")
    world.read(stale_if_error=60)
    world.wait(HOUR)
    world.read(stale_if_error=60)
    world.reader._context.cache.after_fork()
    world.driver.go_down()
    assert world.read(stale_if_error=60).stale


# --- what else a reader asks for --------------------------------------------------------------------


def test_min_version_holds_in_an_outage(world: World) -> None:
    """A reader that has to see what was just published gets what was there before."""
    world.read()
    world.driver.go_down()
    assert world.read(min_version=1).stale
    with pytest.raises(Unavailable):
        world.read(min_version=2)


def test_a_store_that_answers_with_less_is_in_no_outage(world: World) -> None:
    """One reader that waits for a version makes all others serve stale data."""
    world.read()
    with pytest.raises(Unavailable, match="version 7 is not there"):
        world.read(min_version=7)
    outages = world.reader._context.cache.outages
    assert not outages._noted
    assert not world.read().stale


def test_a_store_that_went_back_serves_nobody_what_it_lost(world: World) -> None:
    """A reader that has to see version 2 gets it from memory, although the store has lost it."""
    before = dict(world.simulated.keyspace.values)
    world.publish("tense")
    assert world.read().version == 2
    world.simulated.keyspace.values.clear()
    world.simulated.keyspace.values.update(before)
    with pytest.raises(Unavailable, match="version 2 is not there"):
        world.read(min_version=2)
    assert not world.reader._context.cache.outages._noted


def test_a_closed_store_serves_nothing_from_memory(world: World) -> None:
    """An application goes on to read a store that it has closed, and never sees a new version."""
    world.read()
    assert not world.read(max_staleness=HOUR).stale
    world.reader.close()
    with pytest.raises(StoreClosed):
        world.read(max_staleness=HOUR)


def test_max_staleness_and_an_outage(world: World) -> None:
    """A read that needs no store is stale, or one that needs it is not."""
    world.read()
    world.driver.go_down()
    world.wait(3)
    assert not world.read(max_staleness=5).stale
    assert world.read(max_staleness=2).stale


def test_arguments_are_checked(world: World) -> None:
    """A bound that is no bound is ignored."""
    for option in ("stale_if_error", "max_age"):
        for wrong in (-1, "1h", True, float("nan"), timedelta(seconds=-1)):
            with pytest.raises(InvalidInput, match=option):
                world.reader.read_latest("mena", **{option: wrong})  # type: ignore[call-overload]
            with pytest.raises(InvalidInput, match=option):
                world.reader.read_latest_many(["mena"], **{option: wrong})  # type: ignore[call-overload]


def test_several_datasets(world: World) -> None:
    """One dataset without something to serve costs the others theirs, or its error is lost."""
    world.publish("calm", "europe")
    names = ["mena", "europe"]
    fresh = world.reader.read_latest_many(names, stale_if_error=HOUR)
    world.driver.go_down()
    served = world.reader.read_latest_many(names, stale_if_error=HOUR)
    assert served == fresh
    assert all(each is not None and each.stale for each in served.values())
    tries = world.driver.tries
    with pytest.raises(Unavailable) as caught:
        world.reader.read_latest_many([*names, "asia"], stale_if_error=HOUR)
    assert caught.value.dataset == "asia"
    assert world.driver.tries > tries
    world.driver.error = None
    assert not any(each.stale for each in world.reader.read_latest_many(names).values())  # type: ignore[union-attr]


# --- groups -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache_bytes", [1 << 20, 0])
def test_groups(cache_bytes: int) -> None:
    """Members of two versions are mixed in an outage, or those that were read are not there."""
    world = World(cache_bytes=cache_bytes)
    world.producer.publish_group("g", {"EG": 1, "SG": 1, "IN": 1})
    read = world.reader.read_group
    read("g", members=["EG"], stale_if_error=HOUR)
    read("g", members=["SG"], stale_if_error=HOUR)
    world.driver.go_down()
    served = read("g", members=["SG", "EG"], stale_if_error=HOUR)
    assert served is not None
    assert (served.value, served.stale, served.raw) == ({"SG": 1, "EG": 1}, True, b"")
    assert read("g", members=["EG"], stale_if_error=HOUR).value == {"EG": 1}  # type: ignore[union-attr]
    for wanted in (["IN"], None):
        with pytest.raises(Unavailable):
            read("g", members=wanted, stale_if_error=HOUR)
    with pytest.raises(Unavailable):
        world.read("g")
    world.driver.error = None
    world.producer.publish_group("g", {"EG": 2, "SG": 2, "IN": 2})
    read("g", members=["EG"], stale_if_error=HOUR)
    world.driver.go_down()
    assert read("g", members=["EG"], stale_if_error=HOUR)["EG"].value == 2  # type: ignore[index]
    with pytest.raises(Unavailable):
        read("g", members=["SG"], stale_if_error=HOUR)
    world.driver.error = None
    assert isinstance(world.read("g"), Group)
    world.driver.go_down()
    assert world.read("g").value == {"EG": 2, "SG": 2, "IN": 2}
    assert read("g", stale_if_error=HOUR).value == {"EG": 2, "SG": 2, "IN": 2}  # type: ignore[union-attr]


def test_a_single_snapshot_is_no_group_in_an_outage(world: World) -> None:
    """A reader of members gets a snapshot without any."""
    world.read()
    world.driver.go_down()
    with pytest.raises(Unavailable):
        world.reader.read_group("mena", stale_if_error=HOUR)
    world.reader.close()
    with pytest.raises(StoreClosed):
        world.read()


# --- who tries --------------------------------------------------------------------------------------


def test_patience_is_for_those_who_have_nothing_to_serve(world: World) -> None:
    """Each reader is held for ten seconds, although it has something to serve."""
    error = Unavailable("refused")
    error.again = True
    world.reader._patience = Patience(10.0)
    world.read()
    world.driver.go_down(error)
    before, tries = world.clock.ms, world.driver.tries
    assert world.read().stale
    assert (world.clock.ms - before, world.driver.tries - tries) == (0, 1)
    assert world.reader.read_latest_many(["mena"], stale_if_error=HOUR)["mena"].stale  # type: ignore[union-attr]
    assert world.clock.ms == before
    with pytest.raises(Unavailable, match="patience"):
        world.reader.read_latest("other", stale_if_error=HOUR)
    assert world.clock.ms - before > 8000
    before = world.clock.ms
    with pytest.raises(Unavailable, match="patience"):
        world.reader.read_latest_many(["mena", "other"], stale_if_error=HOUR)
    assert world.clock.ms - before > 8000, "one that has something to serve costs the other its patience"
    with pytest.raises(Unavailable, match="patience"):
        world.reader.read_group("other", stale_if_error=HOUR)


def test_one_caller_at_a_time_tries_and_the_others_are_served_at_once(world: World) -> None:
    """Every thread of a server hangs for its time-out, again and again."""
    world.publish("calm", "europe")
    world.read()
    world.read("europe")
    world.driver.go_down()
    assert world.read().stale
    world.driver.hold = threading.Event()
    trying = Threads()
    trying.start(world.read)
    until(lambda: world.driver.waiting == 1)
    tries, began = world.driver.tries, time.monotonic()
    for name in ("mena", "europe"):
        assert world.read(name).stale
        assert world.reader.read_latest_many([name], stale_if_error=HOUR)[name].stale  # type: ignore[union-attr]
    assert world.driver.tries == tries
    assert time.monotonic() - began < PATIENCE_S / 2, "they wait for the one that tries"
    world.driver.error = None
    world.driver.hold.set()
    trying.join()
    assert not world.read("europe").stale


def test_with_the_default_of_a_store_one_caller_at_a_time_tries() -> None:
    """Each caller that relies on an option of `connect` hangs for the time-out."""
    world = World()
    world.publish("calm")
    policy = msgspec.structs.replace(world.reader._context.policy, stale_if_error_s=60.0)
    reader, driver = breakable(world.producer, policy=policy)
    reader.read_latest("mena")
    driver.go_down()
    reader.read_latest("mena")
    driver.hold = threading.Event()
    trying = Threads()
    trying.start(lambda: reader.read_latest("mena"))
    until(lambda: driver.waiting == 1)
    began = time.monotonic()
    found = reader.read_latest("mena")
    assert found is not None
    assert found.stale
    assert time.monotonic() - began < PATIENCE_S / 2, "it waits for the attempt of another one"
    driver.hold.set()
    trying.join()


def test_those_who_take_nothing_stale_do_not_hold_up_the_others(world: World) -> None:
    """A reader with patience loads for one that has something to serve, which gets its error."""
    world.read()
    world.driver.go_down()
    world.driver.hold = threading.Event()
    readers = Threads()
    readers.start(lambda: world.reader.read_latest("mena"))
    until(lambda: world.driver.waiting == 1)
    began = time.monotonic()
    readers.start(world.read)
    until(lambda: world.driver.waiting == 2)
    assert time.monotonic() - began < PATIENCE_S / 2, "it waits for the other one"
    world.driver.hold.set()
    assert {type(found) for found in readers.join()} == {Unavailable, Snapshot}


def test_one_who_waited_for_a_failure_does_not_try_after_it(world: World) -> None:
    """A reader waits for two time-outs instead of one."""
    world.read()
    world.driver.go_down()
    world.driver.hold = threading.Event()
    tries = world.driver.tries
    readers = Threads()
    readers.start(world.read)
    until(lambda: world.driver.waiting == 1)
    readers.start(world.read)
    until(lambda: any(flight.next for flight in world.reader._flights._flights.values()))
    world.driver.hold.set()
    assert all(found.stale for found in readers.join())
    assert world.driver.tries - tries == 1


def test_readers_of_several_datasets_try_one_at_a_time(world: World) -> None:
    """A page of several datasets hangs for its time-out, again and again; one of a single does not."""
    world.publish("calm", "europe")
    names = ["mena", "europe"]
    world.reader.read_latest_many(names)
    world.read()
    world.read("europe")
    world.driver.go_down()
    world.reader.read_latest_many(names, stale_if_error=HOUR)
    world.driver.hold = threading.Event()
    trying = Threads()
    trying.start(lambda: world.reader.read_latest_many(names, stale_if_error=HOUR))
    until(lambda: world.driver.waiting == 1)
    served = world.reader.read_latest_many(names, stale_if_error=HOUR)
    assert all(each is not None and each.stale for each in served.values())
    world.driver.hold.set()
    trying.join()


@pytest.mark.parametrize("how", ["with others", "alone"])
def test_a_dataset_that_can_be_read_again_is_in_no_outage(
    how: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an outage of one dataset, those who come during a slow read of it are served stale data."""
    world.publish("calm", "europe")
    key = world.reader._context.keys.manifest("mena")

    def read() -> bool:
        found = world.reader.read_latest_many(["europe", "mena"], stale_if_error=HOUR)["mena"]
        assert found is not None
        return found.stale

    assert not read()
    world.driver.go_down()
    world.driver.broken_for = lambda command: getattr(command, "key", None) == key
    assert read()
    world.driver.error = None
    assert not (read() if how == "with others" else world.read().stale)

    execute, is_under_way, may_end = world.driver._driver.execute, threading.Event(), threading.Event()

    def slow(commands: Any) -> Any:
        if not is_under_way.is_set():
            is_under_way.set()
            assert may_end.wait(60)
        return execute(commands)

    monkeypatch.setattr(world.driver._driver, "execute", slow)
    readers = Threads()
    readers.start(world.read)
    assert is_under_way.wait(60)
    assert not read()
    may_end.set()
    readers.join()


def test_those_who_waited_for_the_first_failure_do_not_try_after_it(world: World) -> None:
    """Ten threads fail one after the other, and the last one has waited for ten time-outs."""
    world.read()
    world.driver.go_down()
    world.driver.hold = threading.Event()
    readers = Threads()
    tries = world.driver.tries
    for _ in range(10):
        readers.start(world.read)
    until(lambda: world.driver.waiting == 1)
    flights = world.reader._flights._flights
    until(lambda: any(flight.next for flight in flights.values()))
    time.sleep(0.05)  # the rest of them join; one that comes later tries, and fails at once
    world.driver.hold.set()
    world.driver.hold = None
    assert all(found.stale for found in readers.join())
    assert world.driver.tries - tries <= 2


def test_after_an_outage_the_next_read_is_fresh(world: World) -> None:
    """A reader stays stale although the store is back."""
    world.read()
    for _ in range(3):
        world.driver.go_down()
        assert world.read().stale
        world.driver.error = None
        assert not world.read().stale


def test_an_outage_of_one_dataset_is_not_one_of_the_store(world: World) -> None:
    """While a shard of a cluster is down, the datasets on the others are served stale."""
    world.publish("calm", "europe")
    world.read()
    world.read("europe")
    key = world.reader._context.keys.manifest("mena")
    world.driver.go_down()
    world.driver.broken_for = lambda command: getattr(command, "key", None) == key
    world.driver.hold = threading.Event()
    trying = Threads()
    trying.start(world.read)
    until(lambda: world.driver.waiting == 1)
    assert not world.read("europe").stale
    world.driver.hold.set()
    trying.join()
    world.driver.hold = threading.Event()
    trying.start(world.read)
    until(lambda: world.driver.waiting == 1)
    assert not world.read("europe").stale
    assert world.read().stale
    world.driver.hold.set()
    trying.join()


def test_an_interrupt_at_any_line_leaves_the_attempt_to_the_next_reader(world: World) -> None:
    """After one Ctrl-C during an outage, a server serves stale data for as long as it may."""
    world.read()
    number = held = 0
    more = True
    while more:
        world.driver.go_down()
        assert world.read().stale
        more = interrupted_at(
            number, lambda: world.read(min_version=1), "swapstore.outages", "swapstore.protocol.last_good"
        )
        world.driver.error = None
        if world.read().stale:  # right before the attempt is ended, so it ends by itself
            held += 1
            world.wait(71)
        assert not world.read().stale, number
        number += 1
    assert number > 40
    assert held <= 3


def test_an_attempt_that_was_cut_off_holds_up_nobody_for_long(world: World) -> None:
    """A thread is killed while it tries, and nobody ever tries again."""
    world.read()
    world.driver.go_down()
    assert world.read().stale
    outages = world.reader._context.cache.outages
    for place, outage in list(outages._noted.items()):
        outages._trying[place] = Attempt(outages, until=world.clock.monotonic() + 70)
        assert outage.error is not None
    world.driver.error = None
    assert world.read().stale
    world.wait(71)
    assert not world.read().stale


def test_replicas(world: World) -> None:
    """A reader is served stale data although a replica, or the primary, answers."""
    primary, replica = Breakable(world.producer._driver), Breakable(world.producer._driver)
    context = msgspec.structs.replace(world.reader._context, cache=Cache(1 << 20))
    policy = msgspec.structs.replace(context.policy, reads_replicas=True)
    world.reader = Store(primary, msgspec.structs.replace(context, policy=policy), replica)
    world.read()
    primary.go_down()
    assert not world.read().stale
    replica.go_down()
    assert world.read().stale
    primary.error = None
    assert not world.read().stale


# --- what random histories show ---------------------------------------------------------------------


def random_step(world: World, chance: random.Random) -> None:
    """Let something happen to the store, or to the way to it."""
    match chance.randrange(9):
        case 0 | 1:
            world.publish(str(world.clock.ms))
        case 2:
            world.producer.pin("mena", version=1)
        case 3:
            world.producer.unpin("mena")
        case 4:
            world.producer.confirm("mena")
        case 5 | 6:
            world.driver.go_down()
            world.driver.broken_for = chance.choice([None, lambda command: isinstance(command, Get)])
        case 7:
            world.driver.error = None
        case _:
            world.wait(chance.choice([1, 30, 90]))


def random_read(world: World, chance: random.Random) -> Snapshot | None:
    stale_if_error = chance.choice([None, 60.0, HOUR])
    max_staleness = chance.choice([0.0, 0.0, 20.0])
    if chance.randrange(4) == 0:
        many = world.reader.read_latest_many(
            ["mena"], stale_if_error=stale_if_error, max_staleness=max_staleness
        )
        return many["mena"]
    return world.reader.read_latest("mena", stale_if_error=stale_if_error, max_staleness=max_staleness)


@pytest.mark.parametrize("cache_bytes", [1 << 20, 0])
def test_no_reader_ever_goes_back(cache_bytes: int) -> None:
    """Some order of reads, outages and publishes serves a version older than one that was served before."""
    served = 0
    for seed in range(150):
        chance = random.Random(seed)
        world = World(cache_bytes=cache_bytes)
        world.publish("first")
        last, seen = 0, 0
        for _ in range(30):
            random_step(world, chance)
            before = world.clock.ms
            try:
                found = random_read(world, chance)
            except Unavailable:
                continue
            assert found is not None
            now = version_of(found.etag)
            assert now >= last, (seed, found)
            assert found.seen_at >= seen or now > last, (seed, found)
            assert found.seen_at >= before - HOUR * 1000
            assert not (world.driver.error is None and found.stale), (seed, found)
            last, seen = now, found.seen_at
            served += found.stale
    assert served > 300, "it has tried too little"


def test_no_thread_goes_back_behind_another() -> None:
    """A thread is served something older than what another thread had got before it asked."""
    world = World()
    world.publish("first")
    lock, stop = threading.Lock(), threading.Event()
    newest = 0
    found_stale = 0

    def reading() -> None:
        nonlocal newest, found_stale
        while not stop.is_set():
            with lock:
                least = newest
            try:
                found = world.read()
            except Unavailable:
                continue
            now = version_of(found.etag)
            assert now >= least, found
            with lock:
                newest = max(newest, now)
                found_stale += found.stale

    readers = Threads()
    for _ in range(4):
        readers.start(reading)
    for _ in range(60):
        world.publish("more")
        time.sleep(0.002)
        world.driver.go_down()
        time.sleep(0.002)
        world.driver.error = None
    stop.set()
    readers.join()
    assert found_stale > 10


# --- too old ----------------------------------------------------------------------------------------


def test_too_old_data_is_refused(world: World) -> None:
    """A reader that must not serve yesterday's prices serves them."""
    world.wait(100)
    assert world.read(max_age=100).version == 1
    world.wait(1)
    with pytest.raises(TooStale, match=r"101\.0 s ago.*100\.0 s") as caught:
        world.read(max_age=timedelta(seconds=100))
    error = caught.value
    assert (error.dataset, error.version, error.age_ms, error.max_age_ms) == ("mena", 1, 101_000, 100_000)
    world.producer.confirm("mena")
    assert world.read(max_age=100).confirmed_at == world.clock.ms


def test_a_cached_snapshot_that_is_too_old_is_read_anew(world: World) -> None:
    """`max_staleness` refuses for seconds what the store has had for a while."""
    world.read()
    world.wait(50)
    world.publish("tense")
    assert world.read(max_staleness=100, max_age=20).version == 2
    assert world.reader.read_latest_many(["mena"], max_staleness=100, max_age=20)["mena"].version == 2  # type: ignore[union-attr]


def test_a_pinned_snapshot_is_as_old_as_its_commit(world: World) -> None:
    """A producer that publishes makes a pinned snapshot young, which nobody confirms."""
    world.producer.pin("mena", version=1)
    world.wait(100)
    world.publish("tense")
    with pytest.raises(TooStale):
        world.read(max_age=50)
    world.producer.unpin("mena")
    assert world.read(max_age=50).value == {"regime": "tense"}


def test_in_an_outage_what_is_too_old_is_not_served(world: World) -> None:
    """An outage lets through what `max_age` refuses; or the error hides the outage."""
    world.read()
    world.wait(60)
    world.driver.go_down()
    assert world.read(max_age=60).stale
    with pytest.raises(Unavailable):
        world.read(max_age=59)


def test_a_stale_snapshot_is_at_least_as_old_as_the_last_look() -> None:
    """A producer whose clock is ahead makes stale data young."""
    world = World()
    world.clock.ms += 9000
    world.publish("calm")
    world.clock.ms -= 9000
    world.read()
    world.driver.go_down()
    world.wait(30)
    assert world.read(max_age=30).stale
    with pytest.raises(Unavailable):
        world.read(max_age=29)


def test_clocks_that_disagree_are_no_proof_of_youth() -> None:
    """A producer whose clock is an hour ahead dies, and its data is young for another hour."""
    world = World()
    world.clock.ms += 60_000
    world.publish("calm")
    world.clock.ms -= 60_000
    with pytest.raises(TooStale, match=r"60 s in the future.*clocks"):
        world.read(max_age=HOUR)


def test_a_group_can_be_too_old(world: World) -> None:
    """The bound holds for `read_latest` and not for `read_group`."""
    world.producer.publish_group("g", {"EG": 1})
    world.wait(10)
    with pytest.raises(TooStale):
        world.reader.read_group("g", max_age=5)
    with pytest.raises(TooStale) as caught:
        world.reader.read_latest_many(["mena", "g"], max_age=5)
    assert caught.value.dataset == "mena"
    with pytest.raises(TooStale):
        world.reader.read_latest("g", max_age=5, min_version=1)
