"""A producer is killed between any two commands: what readers see, what is left, and what comes next."""

from __future__ import annotations

import pytest

from swapstore import Store
from swapstore.commands import Swap
from swapstore.testing import Crash, SimulatedStore, failing_at, faulty
from tests.support import invariants
from tests.support.drivers import another, meddled

pytestmark = pytest.mark.every_store


def publish_cut(store: Store, after: int, *, id: str) -> bool:  # noqa: A002
    """Publish and die after this many commands; say whether the publish was complete."""
    client, driver = faulty(store, failing_at(after))
    try:
        client.publish("mena", "half?", id=id)
    except Crash:
        assert not any(isinstance(command, Swap) for command in driver.done)
        return False
    return True


@pytest.mark.parametrize("earlier", [0, 1, 15])
def test_a_crash_at_any_command_leaves_the_previous_version(store: Store, earlier: int) -> None:
    """After a crash readers see a mix, leftovers never expire, or the next publish fails.

    With 15 earlier versions the publish seals a page as well.
    """
    for number in range(earlier):
        store.publish("mena", number, id=f"id-{number}")
    before = another(store).read_latest("mena")
    cuts = 0
    while not publish_cut(store, cuts, id=f"cut-{cuts}"):
        rows = invariants.check(store)
        assert len(rows) == earlier
        after = another(store).read_latest("mena")
        assert (after and after.value, after and after.version) == (
            before and before.value,
            before and before.version,
        )
        assert another(store).read("mena", id=f"cut-{cuts}") is None
        cuts += 1
    assert cuts == (6 if earlier == 15 else 5)
    assert len(invariants.check(store)) == earlier + 1
    assert store.publish("mena", "next").version == earlier + 2
    assert len(invariants.check(store)) == earlier + 2


def test_a_crash_between_commit_and_acknowledgement_is_resolved_by_a_retry(store: Store) -> None:
    """A producer that died after its commit does not find it when it runs again with the same id."""
    store.publish("mena", 1)
    client, _ = faulty(store, failing_at(5))
    client.publish("mena", 2, id="run-7")
    again = another(store).publish("mena", 2, id="run-7")
    assert (again.created, again.version) == (False, 2)


def test_a_cut_publish_can_be_repeated_with_its_id(store: Store) -> None:
    """What a dead process staged blocks its id, for the same or for other content."""
    for after in range(5):
        assert not publish_cut(store, after, id=f"same-{after}")
        assert another(store).publish("mena", "half?", id=f"same-{after}").created
        assert not publish_cut(store, after, id=f"other-{after}")
        assert another(store).publish("mena", "other content", id=f"other-{after}").created
        invariants.check(store)
    assert len(invariants.check(store)) == 10


@pytest.mark.parametrize("writes", range(4))
def test_a_page_that_a_cut_commit_left_behind_blocks_nobody(writes: int) -> None:
    """A page that a dying server made permanent before the swap blocks every later publish."""
    simulated = SimulatedStore()
    store = simulated.connect()
    for number in range(15):
        store.publish("mena", number, id=f"id-{number}")
    client, meddler = meddled(store)
    client.read_latest("mena")

    def die() -> None:
        *stages, swap = meddler.batches[-1]
        assert isinstance(swap, Swap)
        store._driver.execute(stages)
        simulated.keyspace.commit(swap, simulated.clock.now_ms(), writes=writes)
        raise Crash

    meddler.before(len(meddler.batches), die)
    with pytest.raises(Crash):
        client.publish("mena", "cut", id="cut")
    assert simulated.connect().publish("mena", "next").version == 16
    assert len(list(simulated.connect().history("mena", limit=None))) == 16
