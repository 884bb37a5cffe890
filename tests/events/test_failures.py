"""Each call that fails is one event, with the kind of its error: an error rate can be drawn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest

import swapstore
from swapstore import Conflict, Rejected, Store, StoreClosed, SwapstoreError, Unavailable
from swapstore.cache import Cache
from swapstore.events import CallFailed, Event, Hook, Published, PublishRejected
from tests.support.drivers import meddled

CALLS: dict[str, Callable[[Any], Any]] = {
    "publish": lambda store: store.publish("mena", 1),
    "publish_group": lambda store: store.publish_group("mena", {"EG": 1}),
    "published": lambda store: store.published("mena", dedupe_key="k"),
    "confirm": lambda store: store.confirm("mena"),
    "put_live": lambda store: store.put_live("mena", 1, ttl=1),
    "read_latest": lambda store: store.read_latest("mena"),
    "read_group": lambda store: store.read_group("mena"),
    "read": lambda store: store.read("mena", version=1),
    "status": lambda store: store.status("mena"),
    "datasets": lambda store: store.datasets(),
    "read_live": lambda store: store.read_live("mena"),
    "history": lambda store: store.history("mena"),
    "follow": lambda store: store.follow("mena"),
    "recompress": lambda store: store.recompress("mena", compression="zstd"),
    "pin": lambda store: store.pin("mena", id="a"),
    "unpin": lambda store: store.unpin("mena"),
    "rollback": lambda store: store.rollback("mena", id="a"),
    "prune": lambda store: store.prune("mena"),
    "erase": lambda store: store.erase("mena", id="a"),
    "drop": lambda store: store.drop("mena"),
    "follow_many": lambda store: store.follow_many(["mena"]),
    "verify": lambda store: store.verify(),
    "repair": lambda store: store.repair(),
    "doctor": lambda store: store.doctor(),
    "backup": lambda store: store.backup("never.db"),
    "restore": lambda store: store.restore("never.db"),
}
MANY = {"publish_many", "read_latest_many"}
PLAIN = {"close", "health", "namespace", "view", "where"}  # a view and a report tell of failures themselves


class Down:
    """A driver whose server cannot be reached."""

    where, kind, binary_safe = "sqlite nowhere", "sqlite", True

    def execute(self, commands: Any) -> list[Any]:
        raise Unavailable("sqlite nowhere cannot be reached")

    def close(self) -> None:
        """There is nothing to close."""


class AsyncDown(Down):
    async def execute(self, commands: Any) -> list[Any]:  # type: ignore[override]
        raise Unavailable("sqlite nowhere cannot be reached")

    async def close(self) -> None:  # type: ignore[override]
        """There is nothing to close."""


def down(store: Store) -> tuple[Store, Any, list[Event]]:
    """Return clients, blocking and for asyncio, that reach no server, and the events they emit."""
    told: list[Event] = []
    context = msgspec.structs.replace(store._context, hook=Hook(told.append), cache=Cache(0))
    return Store(Down(), context), swapstore.aio.AsyncStore(AsyncDown(), context), told


def test_every_method_is_tried() -> None:
    """A new method emits no event when it fails."""
    methods = {name for name in vars(Store) if not name.startswith("_")}
    assert methods - PLAIN - MANY == set(CALLS)


@pytest.mark.parametrize("call", CALLS)
def test_a_call_that_fails_is_one_event(store: Store, call: str) -> None:
    """An outage is not seen on a dashboard, or is counted twice, or its kind is not known."""
    blocking, awaited, told = down(store)
    expected = CallFailed(
        dataset="" if call in {"datasets", "verify", "repair", "doctor", "backup", "restore"} else "mena",
        call=call,
        error="Unavailable",
        elapsed_s=0,
    )

    def run() -> None:
        found = CALLS[call](blocking)
        if call in {"history", "verify"}:
            next(found)

    async def arun() -> None:
        found = CALLS[call](awaited)
        await (anext(found) if call in {"history", "verify", "follow", "follow_many"} else found)

    for work in (run, lambda: asyncio.run(arun())):
        told.clear()
        if call == "doctor":
            with pytest.raises(SwapstoreError):
                work()
        else:
            with pytest.raises(Unavailable):
                work()
        assert [attrs.evolve(event, elapsed_s=0) for event in told] == [expected]  # type: ignore[call-arg]


def test_each_dataset_that_fails_is_an_event(store: Store) -> None:
    """A publish of forty datasets of which one fails looks like a success."""
    told: list[Event] = []
    client, _ = meddled(store, hook=Hook(told.append))
    client.publish_many({"mena": 1, "europe": {1}})
    assert [(type(event), event.dataset) for event in told] == [(CallFailed, "europe"), (Published, "mena")]
    blocking, _, told = down(store)
    with pytest.raises(Unavailable):
        blocking.read_latest_many(["mena", "europe"])
    assert [(event.call, event.dataset) for event in told] == [  # type: ignore[attr-defined]
        ("read_latest", "mena"),
        ("read_latest", "europe"),
    ]


def test_what_was_refused_is_told_by_its_kind(store: Store) -> None:
    """A conflict, a wrong argument and a rejection look like an outage, or are not told."""
    told: list[Event] = []
    client, _ = meddled(store, hook=Hook(told.append))
    wrong: Any = ["d"]
    for work, error in (
        (lambda: client.publish("mena", 1, expected_version=9), Conflict),
        (lambda: client.publish("mena", 1, id="not allowed"), swapstore.InvalidInput),
        (lambda: client.read_latest("mena", max_staleness=-1), swapstore.InvalidInput),
        (lambda: client.read_latest(wrong), swapstore.InvalidInput),
        (lambda: client.publish(None, 1), swapstore.InvalidInput),  # type: ignore[arg-type]
        (lambda: client.pin("mena", id="a"), swapstore.NotFound),
        (lambda: client.publish("mena", 1, validate=lambda *_: "no"), Rejected),
    ):
        with pytest.raises(error):
            work()
    assert [(event.call, event.dataset, event.error) for event in told[:-1]] == [  # type: ignore[attr-defined]
        ("publish", "mena", "Conflict"),
        ("publish", "mena", "InvalidInput"),
        ("read_latest", "mena", "InvalidInput"),
        ("read_latest", "", "InvalidInput"),
        ("publish", "", "InvalidInput"),
        ("pin", "mena", "NotFound"),
    ]
    assert isinstance(told[-1], PublishRejected), "a rejection has one event, its own"


def test_a_failed_call_says_how_long_it_took(store: Store) -> None:
    """A time-out cannot be told from a refusal."""
    blocking, _, told = down(store)
    now = [10.0]

    class Clock:
        now_ms = staticmethod(lambda: 0)
        sleep = staticmethod(now.append)
        monotonic = staticmethod(lambda: now[-1])

    class Slow(Down):
        def execute(self, commands: Any) -> list[Any]:
            now.append(12.5)
            return super().execute(commands)

    with pytest.raises(Unavailable):
        Store(Slow(), msgspec.structs.replace(blocking._context, clock=Clock())).status("mena")
    assert [event.elapsed_s for event in told] == [2.5]  # type: ignore[attr-defined]


def test_the_end_of_a_store_is_not_a_failure(tmp_path: Path) -> None:
    """Each shutdown of a service raises an alarm."""
    told: list[Event] = []
    store = swapstore.connect(f"sqlite:///{tmp_path}/a.db", on_event=told.append)
    store.publish("mena", 1)
    follower = store.follow("mena", after=0)
    next(follower)
    store.close()
    assert list(follower) == []
    with pytest.raises(StoreClosed):
        store.publish("mena", 2)
    assert [type(event) for event in told] == [Published]


def test_a_call_that_the_end_of_a_store_cuts_short_is_not_a_failure(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each shutdown of a service under load raises as many alarms as calls are under way."""
    client, _, told = down(store)

    def closed(*_: Any) -> None:
        raise StoreClosed("the store was closed")

    monkeypatch.setattr(Down, "execute", closed)
    for call in ("publish", "read_latest", "status"):
        with pytest.raises(StoreClosed):
            CALLS[call](client)
    assert told == []
