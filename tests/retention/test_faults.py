"""Every fault at every command of a publish, prune or unpin that unlinks records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from swapstore import Retention, Store
from swapstore.commands import Swap
from swapstore.errors import OutcomeUnknown, Unavailable
from swapstore.format import manifest
from swapstore.testing import Crash, Fault, Kind, SimulatedStore, every_fault, faulty
from tests.retention.model import expiring, ids, keeping, stored
from tests.support import invariants
from tests.support.drivers import lose, meddled
from tests.support.times import at

GRACE_MS = 600_000
pytestmark = [pytest.mark.usefixtures("tiny_pages"), pytest.mark.slow]
FAULTS = tuple(every_fault(10))


def grown() -> tuple[SimulatedStore, Store]:
    """A store with a history in pages of pages, an old pin, and a client that keeps two snapshots."""
    sim = SimulatedStore()
    plain = sim.connect()
    for number in range(17):
        sim.clock.advance(1)
        plain.publish("mena", number, id=f"id-{number}")
        if number == 1:
            plain.pin("mena", id="id-1")
    plain.prune("mena", retention=Retention(max_count=16))
    oldest = stored(plain).log.pages[0]
    assert (oldest.first_version, oldest.count) == (1, manifest.F), "the next publish can unlink it"
    return sim, keeping(plain, 2)


def publish(store: Store) -> Any:
    return store.publish("mena", "new", id="new")


def publish_and_seal(store: Store) -> Any:
    for number in range(3):
        store.publish("mena", number, id=f"new-{number}")
    return store.publish("mena", "new", id="new")


def prune(store: Store) -> Any:
    return store.prune("mena")


def unpin(store: Store) -> Any:
    store.prune("mena")
    return store.unpin("mena")


def rollback(store: Store) -> Any:
    store.prune("mena")
    return store.rollback("mena", id="id-16")


ACTS = (publish, publish_and_seal, prune, unpin, rollback)


def attempt(act: Callable[[Store], Any], client: Store) -> Any:
    try:
        return act(client)
    except (Unavailable, Crash) as failure:
        return failure


@pytest.mark.parametrize("act", ACTS, ids=lambda act: act.__name__)
def test_a_fault_at_any_command_loses_and_leaks_nothing(act: Callable[[Store], Any]) -> None:
    """A crash or a lost reply during unlinking loses a snapshot, or leaks one."""
    whole = grown()[1]
    act(whole)
    wanted = ids(whole)
    for fault in FAULTS:
        sim, client = grown()
        before = invariants.check(client)
        broken, driver = faulty(client, fault)
        attempt(act, broken)
        rows = invariants.check(client)
        head = stored(client).head
        assert all(row in rows for row in before if head.shows(row)), fault
        served = client.read_latest("mena")
        assert served is not None, fault
        driver.deliver_late()
        invariants.check(client)
        act(keeping(client, 2))
        assert ids(client) == wanted, fault
        driver.deliver_late()
        invariants.check(client)
        sim.clock.advance(2 * GRACE_MS)
        invariants.check(client)
        assert not expiring(client), fault


def test_a_late_commit_that_unlinks_does_so_once_or_never() -> None:
    """A delayed packet unlinks what was published again since."""
    for number in range(12):
        sim, client = grown()
        slow, driver = faulty(client, Fault(Kind.LATE, number))
        late = attempt(publish, slow)
        again = keeping(client, 1)
        for other in range(12):
            sim.clock.advance(1)
            again.publish("mena", other, id=f"other-{other}")
        for other in range(4):  # unlinked ids that are published again
            sim.clock.advance(1)
            again.publish("mena", "back", id=f"id-{other + 2}")
        before = invariants.contents(client)
        held = [command for command in driver.late if isinstance(command, Swap)]
        driver.deliver_late()
        invariants.check(client)
        if held:
            assert stored(client).raw == before[held[0].key][0], late
        assert set(ids(client)) <= {"id-5", "new"}


def test_two_faults_in_one_publish() -> None:
    """What one lost reply leaves behind makes the next one lose data."""
    for first in range(8):
        for second in range(first + 1, 10):
            for kinds in ((Kind.LOST_AFTER, Kind.LOST_AFTER), (Kind.LATE, Kind.LOST_AFTER), (Kind.LATE,) * 2):
                _, client = grown()
                broken, driver = faulty(
                    client, *(Fault(kind, at) for kind, at in zip(kinds, (first, second), strict=True))
                )
                attempt(publish, broken)
                invariants.check(client)
                driver.deliver_late()
                invariants.check(client)
                assert publish(keeping(client, 2)).id == "new"
                driver.deliver_late()
                invariants.check(client)
                assert ids(client) == ["new", "id-16"]


@pytest.mark.parametrize("rivals", range(1, 12))
def test_a_lost_publish_that_was_unlinked_is_not_published_twice(rivals: int) -> None:
    """A publish whose row left the log before its outcome was resolved is made twice."""
    sim, client = grown()
    slow, meddler = meddled(client, retention=Retention())
    slow.read_latest("mena")
    batch, version = len(meddler.batches), stored(client).version + 1

    def overtake_and_lose() -> None:
        other = keeping(client, 1)
        for number in range(rivals):
            sim.clock.advance(1)
            other.publish("mena", number, id=f"rival-{number}")
        other.prune("mena")
        lose()

    meddler.after(batch, overtake_and_lose)
    outcome = attempt(lambda store: store.publish("mena", "mine", id="mine", ts=at(1)), slow)
    is_in_log = any(row.id == "mine" for row in invariants.check(client))
    assert is_in_log == (rivals < manifest.recent())
    if is_in_log:
        assert (outcome.version, outcome.created) == (version, True)
    else:
        assert isinstance(outcome, OutcomeUnknown)
        assert outcome.id == "mine"
    assert meddler.commits() == 1
