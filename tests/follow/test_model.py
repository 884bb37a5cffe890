"""Random producers, operators and retention: a follower gives exactly what was committed, in order."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swapstore import Gap, NotFound, Retention, Row, Store
from swapstore.errors import Refused
from swapstore.protocol.follow import may_lack_rows
from swapstore.testing import SimulatedStore
from tests.support.drivers import Meddler
from tests.support.times import at

Act = tuple[str, int]

ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), st.integers(1, 40)),
        st.tuples(st.just("backfill"), st.integers(1, 3)),
        st.tuples(st.sampled_from(["confirm", "pin", "rollback"]), st.integers(1, 3)),
        st.tuples(st.just("count"), st.integers(1, 40)),
        st.tuples(st.just("age"), st.integers(1, 40)),
        st.tuples(st.just("lose"), st.just(0)),
        st.tuples(st.just("look"), st.just(0)),
    ),
    max_size=12,
)


class World:
    """A dataset, one follower, and what was committed."""

    def __init__(self, after: int | None) -> None:
        self.sim = SimulatedStore()
        self.store = self.sim.connect()
        self.committed: list[str] = []
        self.late: set[str] = set()
        self.publish(3)
        self.begin = {None: 3, 0: 0}.get(after, after or 0)
        client = self.sim.connect()
        self.meddler = Meddler(client._driver)
        self.follower = Store(self.meddler, client._context).follow("mena", after=after, poll=1)
        self.found: list[Row | Gap] = []

    def publish(self, count: int) -> None:
        for _ in range(count):
            self.sim.clock.advance(1000)
            self.committed.append(self.store.publish("mena", len(self.committed)).id)

    def backfill(self, count: int) -> None:
        for back in range(count):
            try:
                ts = self.sim.clock.now_ms() - 5000 * (back + 1)
                self.committed.append(self.store.publish("mena", "late", ts=at(ts)).id)
                self.late.add(self.committed[-1])
            except Refused:
                return

    def pin_or_roll_back(self, what: str, times: int) -> None:
        for number in range(times):
            try:
                if what == "confirm":
                    self.store.confirm("mena")
                else:
                    getattr(self.store, what)("mena", id=self.committed[-1 - number])
            except NotFound:
                return

    def act(self, what: str, number: int) -> None:
        match what:
            case "publish":
                self.publish(number)
            case "backfill":
                self.backfill(number)
            case "count":
                self.store.prune("mena", retention=Retention(max_count=number))
            case "age":
                self.store.prune("mena", retention=Retention(max_age=timedelta(seconds=number)))
            case "lose":
                self.sim.evict("swapstore:manifest:{mena}")
                self.store.repair("mena", apply=True)
            case "look":
                self.look()
            case _:
                self.pin_or_roll_back(what, number)

    def look(self) -> None:
        """Take all there is: publish one more, and read up to it."""
        self.publish(1)
        while not self.found or getattr(self.found[-1], "id", None) != self.committed[-1]:
            self.found.append(next(self.follower))


@pytest.mark.slow
@given(ACTS, st.sampled_from([None, 0, 2]))
@example([("publish", 1), ("publish", 1), ("pin", 1), ("publish", 10), ("count", 1)], None)
@example([("pin", 1), ("publish", 37), ("count", 1), ("lose", 0)], None)
@example([("pin", 2), ("publish", 37), ("count", 1), ("lose", 0)], None)
def test_what_is_given_is_what_was_committed(acts: list[Act], after: int | None) -> None:
    """A consumer skips a commit, or gets one twice or out of order, without an error."""
    world = World(after)
    for what, number in acts:
        world.act(what, number)
    world.look()
    given = [item.id for item in world.found if isinstance(item, Row)]
    places = [world.committed.index(id_) for id_ in given]
    assert places == sorted(set(places))
    # If the row before its place is lost, a follower begins with the oldest row that there is, and says so.
    was_reset = isinstance(world.found[0], Gap) and world.found[0].reason == "reset"
    assert was_reset or all(place >= world.begin for place in places)
    # What lies between two consecutive commits was unlinked, and is reported as a gap; except for a backfill
    # that was unlinked before a follower that was far behind got there: see `may_lack_rows`.
    before, told = world.begin - 1, after == 0
    for item in world.found:
        if isinstance(item, Gap):
            told = True
            continue
        place = world.committed.index(item.id)
        lacking = set(world.committed[before + 1 : place])
        assert told or lacking <= world.late, (before, place, world.found)
        before, told = place, False


@given(st.integers(0, 300), st.integers(1, 300))
def test_a_history_that_was_never_bounded_has_no_gaps(after: int, until: int) -> None:
    """A follower reports a gap although there is no retention."""
    store = SimulatedStore().connect()
    for number in range(3):
        store.publish("mena", number)
        store.confirm("mena")
    manifest = store._context.cache.known("swapstore:manifest:{mena}")
    assert manifest is not None
    assert not may_lack_rows(manifest.manifest, after, until)
