"""`AsyncStore` does all that `Store` does, on every kind of store."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

import swapstore.aio
from swapstore import Item, Mirror, Progress, Retention
from swapstore.aio import AsyncStore
from swapstore.errors import (
    Conflict,
    IdConflict,
    InvalidInput,
    NotFound,
    PayloadTooLarge,
    Rejected,
    StoreClosed,
    SwapstoreError,
)
from tests.aio.support import Place
from tests.support.valkey import Server


async def value_of(store: AsyncStore, dataset: str = "mena") -> object:
    snap = await store.read_latest(dataset)
    return None if snap is None else snap.value


@pytest.mark.every_store
def test_publish_and_read(place: Place) -> None:
    """What `AsyncStore` publishes `Store` cannot read, or the other way round."""

    async def main() -> None:
        async with place.open() as store:
            assert await store.read_latest("mena") is None
            first = await store.publish("mena", {"n": 1}, id="one", labels={"by": "cron"}, dedupe_key="k")
            assert (first.version, first.created, first.is_latest) == (1, True, True)
            assert not (await store.publish("mena", {"n": 1}, id="one", labels={"by": "cron"})).created
            assert (await store.publish("mena", "other", dedupe_key="k")).id == "one"
            place.look.publish("mena", {"n": 2}, id="two")
            assert await value_of(store) == {"n": 2}
            for named in ({"id": "one"}, {"version": 1}, {"as_of": first.ts}):
                snap = await store.read("mena", **named)
                assert snap is not None
                assert snap.value == {"n": 1}
            assert await store.datasets() == ["mena"]
            status = await store.status("mena")
            assert status is not None
            assert status.version == 2
            assert (await store.confirm("mena")).version == 3

    asyncio.run(main())
    assert place.ids() == ["one", "two"]


@pytest.mark.every_store
def test_several_datasets_in_one_round_trip(place: Place) -> None:
    """`publish_many` and `read_latest_many` of `AsyncStore` need a round trip for each dataset."""

    async def main() -> None:
        async with place.open() as store:
            done = await store.publish_many({"mena": 1, "europe": 2})
            assert {name: getattr(each, "version", each) for name, each in done.items()} == {
                "mena": 1,
                "europe": 1,
            }
            found = await store.read_latest_many(["mena", "europe", "asia"])
            assert {name: snap and snap.value for name, snap in found.items()} == {
                "mena": 1,
                "europe": 2,
                "asia": None,
            }

    asyncio.run(main())


@pytest.mark.every_store
def test_each_dataset_has_options_of_its_own(place: Place) -> None:
    """`publish_many` of `AsyncStore` mixes up the ids of its datasets, or publishes beside a bad one."""

    async def main() -> None:
        async with place.open() as store:
            done = await store.publish_many({"mena": Item(1, id="m"), "europe": Item(2, id="e"), "asia": 3})
            done.raise_for_failures()
            with pytest.raises(InvalidInput, match="dataset 'europe'"):
                await store.publish_many({"mena": 4, "europe": Item(5, id="not allowed")})

    asyncio.run(main())
    assert place.ids() == ["m"]
    assert place.ids("europe") == ["e"]


@pytest.mark.every_store
def test_a_run_that_is_published_is_known_before_it_computes(place: Place) -> None:
    """A service computes again what is published, or skips what is not."""

    async def main() -> None:
        async with place.open() as store:
            assert await store.published("mena", dedupe_key="k") is None
            commit = await store.publish("mena", 1, dedupe_key="k")
            found = await store.published("mena", dedupe_key="k")
            assert found is not None
            assert (found.id, found.created) == (commit.id, False)

    asyncio.run(main())


def test_a_history_is_searched_by_label_and_time(place: Place) -> None:
    """A service is given rows that it has not asked for, or the search ends at the first page without one."""

    async def main() -> None:
        began = datetime(2026, 1, 1, tzinfo=UTC)
        async with place.open() as store:
            for number in range(200):
                label = {"trigger": "daily" if number < 3 else "hourly"}
                await store.publish("mena", number, ts=began + timedelta(hours=number), labels=label)
            found = store.history("mena", label={"trigger": "daily"}, since=began + timedelta(hours=1))
            assert [row.version async for row in found] == [3, 2]

    asyncio.run(main())


def test_history_is_an_asynchronous_iterator(place: Place) -> None:
    """A long history has rows missing or doubled while a producer publishes."""

    async def main() -> None:
        async with place.open() as store:
            for number in range(130):
                await store.publish("mena", number)
            seen = []
            async for row in store.history("mena"):
                seen.append(row.version)
                if row.version == 100:
                    await store.publish("mena", "between")
            assert seen == list(range(130, 0, -1))
            assert [row.version async for row in store.history("mena", limit=2, before=5)] == [4, 3]
            assert [row async for row in store.history("nothing")] == []

    asyncio.run(main())


@pytest.mark.every_store
def test_pins_rollbacks_and_live_views(place: Place) -> None:
    """A service cannot pin, unpin, roll back or use live views with asyncio."""

    async def main() -> None:
        async with place.open() as store:
            await store.publish("mena", "old", id="old")
            await store.publish("mena", "new", id="new")
            assert (await store.pin("mena", id="old")).pinned
            assert await value_of(store) == "old"
            await store.unpin("mena")
            assert await value_of(store) == "new"
            await store.rollback("mena", id="old")
            assert await value_of(store) == "old"
            etag = await store.put_live("mena", {"now": 1}, ttl=timedelta(minutes=1))
            live = await store.read_live("mena")
            assert live is not None
            assert (live.value, live.etag) == ({"now": 1}, etag)

    asyncio.run(main())


def test_prune_verify_repair_and_doctor(place: Place) -> None:
    """Prune, verify, repair or doctor do not work with asyncio, or do not report progress."""

    async def main() -> None:
        progress: list[Progress] = []
        async with place.open() as store:
            for number in range(5):
                await store.publish("mena", number)
            assert (await store.prune("mena", retention=Retention(max_count=2))).count == 5
            found = [finding async for finding in store.verify("mena", on_progress=progress.append)]
            assert not [finding for finding in found if finding.wrong]
            assert progress[-1].keys
            assert await store.repair(apply=True) == []
            assert {check.name for check in await store.doctor()}

    asyncio.run(main())
    assert len(place.ids()) == 5


def test_refusals_are_those_of_the_blocking_store(place: Place) -> None:
    """An error has another type than in `Store`, does not name its dataset, or leaves a change."""

    async def main() -> None:
        async with place.open() as store:
            await store.publish("mena", "good", id="good")
            refused: list[tuple[type[SwapstoreError], dict[str, object]]] = [
                (IdConflict, {"value": "other", "id": "good"}),
                (Conflict, {"value": 1, "expected_version": 7}),
                (Rejected, {"value": 1, "validate": lambda *_: "no"}),
                (InvalidInput, {"value": {1, 2}}),
                (InvalidInput, {"value": 1, "codec": "pickle"}),
            ]
            for kind, wanted in refused:
                with pytest.raises(kind) as caught:
                    await store.publish("mena", **wanted)  # type: ignore[arg-type]
                assert caught.value.dataset == "mena"
            with pytest.raises(NotFound):
                await store.pin("mena", id="none")
            with pytest.raises(InvalidInput):
                await store.read_latest("no such name!")
            with pytest.raises(InvalidInput):
                store.history("no such name!")
            assert await value_of(store) == "good"

    asyncio.run(main())


def test_connect_checks_its_arguments(valkey: Server) -> None:
    """`aio.connect` ignores an argument, or accepts what `connect` refuses."""
    with pytest.raises(InvalidInput, match="namespace"):
        swapstore.aio.connect(valkey.url, namespace="no such name!")
    with pytest.raises(InvalidInput, match="mirror"):
        swapstore.aio.connect("sqlite:///x.db", mirror=Mirror(prefix="snapshot"))

    async def main() -> None:
        async with swapstore.aio.connect(valkey.url, namespace="weather", max_payload=10) as store:
            with pytest.raises(PayloadTooLarge):
                await store.publish("mena", "x" * 20)
        async with swapstore.aio.connect(valkey.url, mirror=Mirror(prefix="old")) as store:
            await store.publish("mena", "x", id="one")

    asyncio.run(main())
    with valkey.client() as admin:
        assert admin.get("old:v1:mena:latest") or admin.keys("old*")


@pytest.mark.slow
def test_two_hundred_publishes_and_reads_at_once(place: Place) -> None:
    """Under 200 concurrent publishes and reads one is lost or mixed with another."""

    async def main() -> None:
        async with place.open() as store:
            for name in range(20):
                await store.publish(f"d{name}", {"a": 0, "b": 0}, id="first")
            publishing = [store.publish(f"d{n % 20}", {"a": n, "b": n}, id=f"n{n}") for n in range(200)]
            reading = [store.read_latest(f"d{n % 20}") for n in range(200)]
            done = await asyncio.gather(*publishing, *reading)
            commits, snaps = done[:200], done[200:]
            assert sorted(commit.id for commit in commits if commit) == sorted(f"n{n}" for n in range(200))
            assert all(snap and snap.value["a"] == snap.value["b"] for snap in snaps)

    asyncio.run(main())
    for name in range(20):
        expected = {"first", *(f"n{n}" for n in range(200) if n % 20 == name)}
        assert set(place.ids(f"d{name}")) == expected


@pytest.mark.slow
@pytest.mark.every_store
def test_forty_producers_of_one_dataset(place: Place) -> None:
    """Tasks that race for one dataset lose a commit or leave a gap in the versions."""

    async def main() -> None:
        async with place.open() as store:
            commits = await asyncio.gather(*(store.publish("mena", n) for n in range(40)))
            assert sorted(commit.version for commit in commits) == list(range(1, 41))

    asyncio.run(main())
    assert len(place.ids()) == 40


@pytest.mark.every_store
def test_a_closed_store_says_so(place: Place) -> None:
    """A call after `close` hangs, or a second `close` fails."""

    async def main() -> None:
        async with place.open() as store:
            await store.publish("mena", 1)
            rows = store.history("mena")
            await store.close()
            await store.close()
            for call in (store.read_latest("mena"), store.publish("mena", 2), store.doctor(), anext(rows)):
                with pytest.raises(StoreClosed):
                    await call
            with pytest.raises(StoreClosed):
                store.history("mena")

    asyncio.run(main())


@pytest.mark.every_store
def test_close_waits_for_calls_in_flight(place: Place) -> None:
    """A shutdown during a publish leaves its outcome unknown."""

    async def main() -> None:
        for waits in range(12):
            async with place.open() as store:
                publishing = asyncio.ensure_future(store.publish("mena", waits, id=f"snap-{waits}"))
                for _ in range(waits):
                    await asyncio.sleep(0)
                await store.close()
                (outcome,) = await asyncio.gather(publishing, return_exceptions=True)
                committed = f"snap-{waits}" in place.ids()
                assert (
                    not isinstance(outcome, BaseException) if committed else isinstance(outcome, StoreClosed)
                )

    asyncio.run(main())


def test_an_async_validator_is_refused(place: Place) -> None:
    """A coroutine function is accepted as `validate`, never awaited, and taken for consent."""

    async def agree(new: object, old: object) -> None: ...

    async def main() -> None:
        async with place.open() as store:
            with pytest.raises(InvalidInput, match="validate"):
                await store.publish("mena", 1, validate=agree)  # type: ignore[arg-type]

    with pytest.warns(RuntimeWarning, match="never awaited"):
        asyncio.run(main())
