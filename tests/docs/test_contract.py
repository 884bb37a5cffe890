"""The tables of docs/reference/contract.md: each operation is cut off after each of its commands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import attrs
import pytest

from swapstore import Group, NotFound, Problem, Retention, Store
from swapstore.commands import ReadCommand, Swap
from swapstore.errors import PayloadMissing, SwapstoreError
from swapstore.testing import Crash, SimulatedStore, every_fault, failing_at, faulty
from tests.support import invariants

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "contract.md").read_text("utf-8")
ONE = Retention(max_count=1)
TEN_MINUTES_MS = 600_000
DAY_MS = 86_400_000
Act = Callable[[Store], Any]


@attrs.frozen
class Cut:
    """A store after an operation was cut off, the commands that were carried out, and the state before."""

    sim: SimulatedStore
    done: list[Any]
    before: tuple[int, int]

    @property
    def now(self) -> tuple[int, int]:
        return counted(self.sim)

    @property
    def new(self) -> tuple[int, int]:
        """How many keys were added without a TTL, and with one."""
        return self.now[0] - self.before[0], self.now[1] - self.before[1]

    def reader(self) -> Store:
        return self.sim.connect()


def counted(sim: SimulatedStore) -> tuple[int, int]:
    """How many keys have no TTL, and how many have one."""
    found = [expires for _, expires in invariants.contents(sim.connect()).values()]
    return found.count(False), found.count(True)


@cache
def template(count: int) -> SimulatedStore:
    sim = SimulatedStore()
    producer = sim.connect()
    for number in range(count):
        sim.clock.advance(1)
        producer.publish("mena", number, id=f"id-{number}")
    return sim


def published(count: int) -> SimulatedStore:
    """A new store with this many snapshots."""
    sim = SimulatedStore(seed=count)
    sim.keyspace = template(count).keyspace.copy()
    sim.clock.ms = template(count).clock.ms
    return sim


def cuts(count: int, act: Act) -> Iterator[Cut]:
    """Cut off an operation on this many snapshots after each of its commands; the last one is complete."""
    ended = False
    number = 0
    while not ended:
        sim = published(count)
        before = counted(sim)
        client, driver = faulty(sim.connect(), failing_at(number))
        try:
            act(client)
            ended = True
        except Crash:
            number += 1
        yield Cut(sim, driver.done, before)


def table(heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its header."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def after_each(what: list[str]) -> list[str]:
    return ["nothing", *what]


def test_publish() -> None:
    """The table is wrong about a publish that was cut off: a half-published version, or leaked keys."""

    def publish(store: Store) -> Any:
        return store.publish("mena", "new", id="new")

    rows = []
    for cut in cuts(63, publish):
        latest = cut.reader().read_latest("mena")
        assert latest is not None
        seen = {("id-62", 63): "the version before", ("new", 64): "the new version"}[
            latest.id, latest.version
        ]
        new = cut.new
        cut.sim.clock.advance(TEN_MINUTES_MS)
        assert cut.now == (cut.before[0] + new[0], 0), "ten minutes later only what is committed is left"
        invariants.check(cut.reader())
        again = publish(cut.reader())
        assert again.version == 64
        rows.append(
            [seen, *map(str, new), "commits" if again.created else "returns that commit, `created=False`"]
        )
        invariants.check(cut.reader())
    names = [
        "`GET` the manifest",
        "`SADD` the name",
        "stage the id record",
        "stage the ts record",
        "stage the page",
        "the commit",
    ]
    assert table("Publish") == [[name, *row] for name, row in zip(after_each(names), rows, strict=True)]


def test_publish_again_at_once() -> None:
    """The table is wrong about a job that is killed and run again: it is refused, or publishes twice."""
    for cut in cuts(63, lambda store: store.publish("mena", "new", id="new")):
        assert cut.reader().publish("mena", "new", id="new").version == 64
        assert len(invariants.check(cut.reader())) == 64


def test_publish_a_group() -> None:
    """The table is wrong about a group that was cut off: a reader gets one member without the other."""

    def publish(store: Store) -> Any:
        return store.publish_group("mena", {"index": [1], "EG": 1}, id="new")

    rows = []
    for cut in cuts(3, publish):
        latest = cut.reader().read_latest("mena")
        if isinstance(latest, Group):
            assert {name: member.value for name, member in latest.members.items()} == {"index": [1], "EG": 1}
        else:
            assert latest is not None
            assert latest.id == "id-2"
        new = cut.new
        cut.sim.clock.advance(TEN_MINUTES_MS)
        assert cut.now == (cut.before[0] + new[0], 0), "ten minutes later only what is committed is left"
        invariants.check(cut.reader())
        again = publish(cut.reader())
        assert again.version == 4
        rows.append(
            [
                "both members" if isinstance(latest, Group) else "the version before",
                *map(str, new),
                "commits" if again.created else "returns that commit, `created=False`",
            ]
        )
        invariants.check(cut.reader())
    names = [
        "`GET` the manifest",
        "`SADD` the name",
        "stage the id record, with the table",
        "stage the first member",
        "stage the second member",
        "stage the ts record",
        "the commit",
    ]
    assert table("Publish a group") == [
        [name, *row] for name, row in zip(after_each(names), rows, strict=True)
    ]


def test_publish_a_group_with_other_members_at_once() -> None:
    """A group that is published again under its id has a member of the publish that was cut off."""
    for cut in cuts(3, lambda store: store.publish_group("mena", {"index": [1], "EG": 1}, id="new")):
        if isinstance(cut.reader().read_latest("mena"), Group):
            continue
        cut.reader().publish_group("mena", {"index": [2], "SG": 2}, id="new")
        found = cut.reader().read_group("mena")
        assert found is not None
        assert found.value == {"index": [2], "SG": 2}
        with pytest.raises(NotFound):
            cut.reader().read_group("mena", members=["EG"])
        invariants.check(cut.reader())
        cut.sim.clock.advance(TEN_MINUTES_MS)
        assert cut.new == (4, 0)


def test_prune() -> None:
    """The table is wrong about a prune that was cut off: kept data is lost, or hidden data stays."""

    def prune(store: Store) -> Any:
        return store.prune("mena", retention=ONE)

    rows = []
    for cut in cuts(48, prune):
        shown = len(list(cut.reader().history("mena", limit=None)))
        permanent, expiring = cut.now
        invariants.check(cut.reader())
        let_go = prune(cut.reader()).let_go
        invariants.check(cut.reader())
        cut.sim.clock.advance(TEN_MINUTES_MS)
        assert cut.now == (68, 0), "ten minutes later all that was unlinked is gone"
        what = "1 snapshot" if shown == 1 else f"{shown} snapshots"
        rows.append([what, str(permanent), str(expiring), f"unlinks {let_go}"])
    reads = slice(4, 4 + 16)
    assert rows[reads] == [rows[0]] * 16
    rows[reads] = rows[:1]
    names = [
        "`GET` the manifest",
        "`GET` the first page",
        "`GET` the second page",
        "read the headers of their 16 id records",
        "`SADD` the name",
        "the commit",
    ]
    assert table("Prune") == [[name, *row] for name, row in zip(after_each(names), rows, strict=True)]


def test_pin() -> None:
    """The table is wrong about a pin that was cut off, and so about what readers are served."""

    def pin(store: Store) -> Any:
        return store.pin("mena", id="id-0")

    rows = []
    for cut in cuts(3, pin):
        served = cut.reader().read_latest("mena")
        assert served is not None
        version = cut.reader().status("mena")
        assert version is not None
        again = pin(cut.reader())
        swapped = again.version > version.version
        seen = {"id-2": "the latest", "id-0": "the pinned snapshot"}[served.id]
        rows.append([seen, str(sum(cut.new)), "pins" if swapped else "finds it done, and swaps nothing"])
        invariants.check(cut.reader())
    names = ["`GET` the manifest", "`GET` the id record", "`SADD` the name", "the commit"]
    assert table("Pin, unpin, roll back, confirm") == [
        [name, *row] for name, row in zip(after_each(names), rows, strict=True)
    ]


def damaged_store() -> SimulatedStore:
    """A store that lost a page, a ts record and a payload, each of another snapshot."""
    sim = published(64)
    sim.evict(next(key for key in sim.keyspace.values if ":page:" in key))
    sim.evict("swapstore:ts:{mena}:1800000000050:id-49")
    sim.evict("swapstore:id:{mena}:id-40")
    return sim


def seen(sim: SimulatedStore) -> tuple[list[int], type[SwapstoreError] | None]:
    """What a reader gets of a dataset: the versions it can read, and what `history` raises."""
    reader, versions = sim.connect(), list[int]()
    for version in range(1, 65):
        with suppress(SwapstoreError):
            found = reader.read("mena", version=version)
            versions += [] if found is None else [found.version]
    try:
        list(reader.history("mena", limit=None))
    except SwapstoreError as error:
        return versions, type(error)
    return versions, None


def test_repair() -> None:
    """The table is wrong about a repair that was killed: it leaves a dataset worse than before."""
    (before, _), (readable, raised) = counted(damaged_store()), seen(damaged_store())
    assert raised is PayloadMissing
    staged, number, committed = [], 0, False
    while not committed:
        sim = damaged_store()
        client, driver = faulty(sim.connect(), failing_at(number))
        with pytest.raises(Crash):
            client.repair("mena", apply=True)
        number += 1
        committed = any(isinstance(command, Swap) for command in driver.done)
        if not committed:
            if not driver.done or isinstance(driver.done[-1], ReadCommand):
                continue  # what only reads changes nothing
            permanent, expiring = counted(sim)
            assert (permanent, seen(sim)) == (before, (readable, raised))
            staged.append(expiring)
        assert bool(sim.connect().repair("mena", apply=True)) != committed
        assert seen(sim) == ([version for version in range(1, 65) if version != 41], None)
        sim.clock.advance(DAY_MS)
        invariants.check(sim.connect())
        assert counted(sim)[1] == 0, "a day later no key has a TTL"
    assert staged == [0, 1, 2, 3], "the name is listed, two pages and a ts record are staged"


@pytest.mark.parametrize(
    "act",
    [
        lambda store: store.publish("mena", "new", id="new"),
        lambda store: store.prune("mena", retention=ONE),
        lambda store: store.pin("mena", id="id-0"),
    ],
    ids=["publish", "prune", "pin"],
)
def test_the_invariant_holds_whatever_goes_wrong(act: Act) -> None:
    """After a cut, leftovers stay permanently, or committed data expires."""
    for fault in every_fault(8):
        sim = published(64)
        client, driver = faulty(sim.connect(), fault)
        for attempt in (client, sim.connect()):
            try:
                act(attempt)
            except (Crash, SwapstoreError):
                assert attempt is client, fault
            invariants.check(sim.connect())
        driver.deliver_late()
        invariants.check(sim.connect())
        sim.clock.advance(TEN_MINUTES_MS)
        assert counted(sim)[1] == 0, fault


def test_every_problem_has_its_row() -> None:
    """A problem that verify reports is missing on this page, in the how-to or in the reference."""
    docs = Path(__file__).parents[2] / "docs"
    how_to = (docs / "how-to" / "verify-and-repair.md").read_text("utf-8")
    api = (docs / "reference" / "api.md").read_text("utf-8")
    for problem in Problem:
        assert f"`{problem.value}`" in how_to
        assert f"| `{problem.name}` | `{problem.value}` | {problem.meaning} | {problem.remedy} |" in api
        if problem.wrong:
            row = next(row for row in table("What damage by others does") if f"`{problem.value}`" in row[0])
            assert len(row) == 4
