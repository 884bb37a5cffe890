"""What `on_event` receives, on every kind of store."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest

import swapstore
from swapstore import InvalidInput, Rejected, Store, SwapstoreError, calls
from swapstore.events import (
    Event,
    Hook,
    Published,
    PublishRejected,
    ReadHit,
    ReadMiss,
    Repaired,
    Retried,
)
from swapstore.protocol import context, read
from swapstore.testing import SimulatedStore
from swapstore.testing.faults import Crash, Fault, Kind, faulty
from swapstore.validators import must_not_shrink
from tests.support.drivers import Meddler, cold_trips, lose, meddled
from tests.support.times import at

WORD = "s3cret-payload"


def listening(store: Store, **changes: Any) -> tuple[Store, Meddler, list[Event]]:
    """Return another client of the same store, its driver, and the events it receives."""
    told: list[Event] = []
    client, meddler = meddled(store, hook=Hook(told.append), **changes)
    return client, meddler, told


def timeless(event: Event) -> dict[str, Any]:
    """An event without its duration, which is a number of seconds and not negative."""
    fields = attrs.asdict(event)
    elapsed = fields.pop("elapsed_s", 0.0)
    assert 0 <= elapsed < 60
    return fields


@pytest.mark.every_store
def test_a_publish_is_one_event_with_its_cost(store: Store) -> None:
    """A dashboard counts publishes that did not happen, or misses their size and duration."""
    client, _, told = listening(store)
    commit = client.publish("mena", 1, id="a", ts=at(7))
    again = client.publish("mena", 1, id="a", ts=at(7))
    first, second = told
    assert isinstance(first, Published)
    assert timeless(first) == {
        **{name: getattr(commit, name) for name in ("dataset", "version", "id", "ts", "size", "created")},
        "stored_size": first.stored_size,
        "is_latest": True,
        "replicas": None,
        "attempts": 1,
        "round_trips": 2,  # the manifest, then all the rest
    }
    assert first.stored_size > first.size
    assert isinstance(second, Published)
    assert (second.created, second.version, second.attempts) == (again.created, 1, 0)


def test_a_lost_race_is_an_event(store: Store) -> None:
    """Producers that race for one dataset look like slow producers."""
    client, meddler, told = listening(store)
    client.publish("mena", 0, ts=at(1))
    meddler.before(len(meddler.batches), lambda: store.publish("mena", "other", ts=at(2)))
    client.publish("mena", 1, id="mine", ts=at(3))
    assert [type(event) for event in told] == [Published, Retried, Published]
    assert told[1] == Retried(dataset="mena", version=2, id="mine")
    assert (told[2].attempts, told[2].version) == (2, 3)  # type: ignore[attr-defined]
    meddler.before(len(meddler.batches) + 1, lambda: store.publish("mena", "other", ts=at(4)))
    client.confirm("mena")
    assert told[3:] == [Retried(dataset="mena", version=4, id=None)]


@pytest.mark.every_store
def test_a_lost_reply_is_not_a_lost_race(store: Store) -> None:
    """A flaky network looks like two producers of one dataset."""
    client, meddler, told = listening(store)
    client.publish("mena", 0)
    meddler.after(len(meddler.batches), lose)
    client.publish("mena", 1)
    assert [type(event) for event in told] == [Published, Published]
    assert timeless(told[1])["round_trips"] == 2


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("kind", [Kind.LOST_BEFORE, Kind.LOST_AFTER, Kind.CRASH_AFTER])
def test_what_is_stored_is_counted_once(kind: Kind, number: int) -> None:
    """After a fault, the bytes of a publish are counted twice, or those that it takes over not at all."""
    sizes = set()
    for faults in ((), (Fault(kind, number),)):
        client, _, told = listening(SimulatedStore().connect())
        client.publish("mena", 0, ts=at(1))
        for value in ("a" * 1000, "b" * 1000, "b" * 1000):
            with suppress(Crash, SwapstoreError):
                failing, _ = faulty(client, *faults)
                failing.publish("mena", value, id="a", ts=at(7))
        client.publish("europe", "c" * 1000, id="a", ts=at(7))
        done = [event for event in told if isinstance(event, Published) and event.size > 1]
        sizes |= {event.stored_size for event in done if event.created}
        assert not any(event.stored_size for event in done if not event.created)
    assert len(sizes) == 1


def test_a_publish_that_finds_its_commit_stores_nothing(store: Store) -> None:
    """A job that runs on two machines is counted as twice the bytes."""
    client, _, told = listening(store)
    client.publish("mena", 0, ts=at(1))
    store.publish("mena", 1, id="a", ts=at(7))
    assert not client.publish("mena", 1, id="a", ts=at(7)).created
    assert told[-1].stored_size == 0  # type: ignore[attr-defined]


def test_a_rejection_is_one_event(store: Store) -> None:
    """A rejected publish is counted twice: once for the cached manifest, once for the stored one."""
    client, _, told = listening(store)
    client.publish("mena", [1])
    told.clear()
    with pytest.raises(Rejected):
        client.publish("mena", [], id="x", validate=lambda *_: "empty")
    assert told == [PublishRejected(dataset="mena", id="x", size=2, reason="empty")]


def test_no_event_holds_the_payload(store: Store) -> None:
    """What is published appears in a log that others may read."""

    def broken(candidate: swapstore.Candidate, previous: swapstore.Snapshot | None) -> str | None:
        raise KeyError(candidate.value[0])

    client, _, told = listening(store, validators=())
    client.publish("mena", [WORD])
    client.read_latest("mena")
    with pytest.raises(Rejected):
        client.publish("mena", [WORD], validate=broken)
    assert len(told) == 3
    assert WORD not in repr(told)
    assert isinstance(told[-1], PublishRejected)
    assert told[-1].reason == "KeyError"


def test_reads_say_whether_the_payload_was_fetched(store: Store) -> None:
    """It cannot be seen whether the cache is large enough, or max_staleness has any effect."""
    store.publish("mena", "x" * 100, id="a", ts=at(7))
    cold = cold_trips(store)
    client, _, told = listening(store)
    client.read_latest("mena")
    client.read_latest("mena")
    client.read_latest("mena", max_staleness=60)
    client.read_latest_many(["mena", "nowhere"])
    client.read("mena", id="a")
    client.read("mena", version=1)
    client.read("mena", id="b")
    assert client.read_latest("nowhere") is None
    assert [(type(event), timeless(event)["round_trips"]) for event in told] == [
        (ReadMiss, cold),
        (ReadHit, 1),
        (ReadHit, 0),
        (ReadHit, 1),
        (ReadHit, 1),
        (ReadHit, 1),
    ]
    assert timeless(told[0]) == {"dataset": "mena", "version": 1, "id": "a", "size": 102} | {
        "round_trips": cold
    }


def test_reads_without_a_cache_are_misses(store: Store) -> None:
    """A store whose payloads are larger than its cache reports cache hits."""
    store.publish("mena", 1)
    client, _, told = listening(store, cache_bytes=0)
    for _ in range(2):
        client.read_latest("mena")
        client.read_latest("mena", max_staleness=60)
    assert {type(event) for event in told} == {ReadMiss}
    assert len(told) == 4


def test_each_dataset_of_a_batch_is_an_event(store: Store) -> None:
    """Datasets published by `publish_many` are missing in the metrics, or counted as one."""
    client, _, told = listening(store)
    client.publish_many({"mena": 1, "europe": 2, "no name": 3})
    published = [event for event in told if isinstance(event, Published)]
    assert {event.dataset for event in published} == {"mena", "europe"}
    assert all(event.round_trips == 2 for event in published)
    assert len(told) == 3, "and one for the name that is not allowed"


def test_a_repair_is_an_event(store: Store) -> None:
    """Data that was lost and repaired at night is noticed by nobody."""
    client, _, told = listening(store)
    client.publish("mena", 1)
    told.clear()
    store._driver.execute([swapstore.commands.Write(store._context.keys.manifest("mena"), b"nonsense")])
    assert client.repair("mena")[0].applied is False
    assert told == []
    (report,) = client.repair("mena", apply=True)
    (event,) = told
    assert isinstance(event, Repaired)
    assert timeless(event) == {
        "dataset": "mena",
        "version": report.version,
        "found": len(report.findings),
        "left": 0,
        "dropped": 0,
        "restored": 1,
    }
    assert client.repair("mena", apply=True) == []  # nothing is wrong any more
    assert len(told) == 1


def test_a_hook_that_raises_breaks_nothing(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """A full disk under a log stops publishing, or fills up with one repeated line."""

    def broken(event: Event) -> None:
        raise OSError("no space left")

    client, _ = meddled(store, hook=Hook(broken))
    assert client.publish("mena", 1).version == 1
    for _ in range(3):
        assert client.read_latest("mena") is not None
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("swapstore", logging.ERROR)
    assert "on_event failed at Published of dataset 'mena'" in record.getMessage()


def test_connect_takes_a_hook(tmp_path: Path) -> None:
    """`on_event` is accepted and ignored, or a coroutine is created and never awaited."""

    async def later(event: Event) -> None:
        """A coroutine function cannot be called from a thread."""

    told: list[Event] = []
    url = f"sqlite:///{tmp_path}/store.db"
    with swapstore.connect(url, on_event=told.append) as client:
        client.publish("mena", 1)
    assert [event.dataset for event in told] == ["mena"]
    for wrong in (later, "log"):
        with pytest.raises(InvalidInput, match="on_event"):
            swapstore.connect(url, on_event=wrong)  # type: ignore[arg-type]


def test_without_a_hook_nothing_is_made_or_measured(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that asks a thousand times a second pays for events that it does not want."""

    def unwanted(*_: Any, **__: Any) -> None:
        raise AssertionError("there is nobody to tell")

    for module, name in ((context, "Tally"), (read, "Tally"), (read, "Emit"), (calls, "Emit")):
        monkeypatch.setattr(module, name, unwanted)
    store.publish("mena", 1)
    store.read_latest("mena")
    with pytest.raises(Rejected):
        store.publish("mena", 2, validate=lambda *_: "no")
    assert store.read_latest("mena", max_staleness=60) is not None
    assert store.repair("mena", apply=True) == []


async def _awaited(url: str, told: list[Event]) -> None:
    async with swapstore.aio.connect(
        url, on_event=told.append, validators=[must_not_shrink(percent=1)]
    ) as client:
        await client.publish("mena", [1, 2, 3])
        await client.read_latest("mena")
        await client.read_latest("mena", max_staleness=60)
        with pytest.raises(Rejected):
            await client.publish("mena", [])


@pytest.mark.every_store
def test_both_stores_send_the_same_events(real_url: str) -> None:
    """A web service on asyncio has neither metrics nor validators."""
    told: list[Event] = []
    asyncio.run(_awaited(real_url, told))
    assert [type(event) for event in told] == [Published, ReadMiss, ReadHit, PublishRejected]
    assert timeless(told[2])["round_trips"] == 0
