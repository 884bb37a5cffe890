"""Every fault at every command of a repair that writes, and at many that only read; and of a verify."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from swapstore.commands import Failed, Get, ReadCommand, Swap, Ttl
from swapstore.errors import SwapstoreError, Unavailable
from swapstore.testing import Crash, Fault, FaultyDriver, Kind, faulty
from tests.fsck.damage_kinds import HARMS, HARMS_OF_BASES, Harm, manifest_deleted, page_deleted
from tests.fsck.simulated import MANIFEST, SimulatedDataset, grown
from tests.support import invariants
from tests.support.drivers import another, meddled
from tests.support.times import at

pytestmark = [pytest.mark.usefixtures("tiny_pages"), pytest.mark.slow]
ON_THE_WAY = {"lost", "ts-damaged", "ts-expiring"}  # what a repair that is cut off may leave
EVERY_READ = 31  # of the commands that only read, one in 31 gets faults


@pytest.fixture
def original() -> SimulatedDataset:
    """Eight snapshots in a tail, a page, and a page of pages."""
    return grown(8)


def repaired_by(driver: FaultyDriver, client: object) -> object:
    try:
        return client.repair("mena", apply=True)  # type: ignore[attr-defined]
    except (Unavailable, Crash) as failure:
        return failure


def faults_of(dataset: SimulatedDataset) -> Iterator[Fault]:
    """Each kind of fault at each command that writes and the one before; two kinds at some that read."""
    client, driver = faulty(dataset.copy().store)
    client.repair("mena", apply=True)
    writing = {n for n, command in enumerate(driver.done) if not isinstance(command, ReadCommand)}
    for number in range(len(driver.done) + 1):
        if {number, number + 1} & writing:
            yield from (Fault(kind, number) for kind in Kind)
        elif number % EVERY_READ == 0:
            yield from (Fault(kind, number) for kind in (Kind.LOST_AFTER, Kind.EXPIRED))


@pytest.mark.parametrize("harm", [*HARMS, *HARMS_OF_BASES], ids=lambda harm: harm.__name__)
def test_a_fault_at_any_command_of_a_repair(original: SimulatedDataset, harm: Harm) -> None:
    """A repair that dies in the middle leaves the store worse than before, or loses a snapshot."""
    if harm in HARMS_OF_BASES:
        original = grown(8, delta=True)
    harm(original)
    wrong, healthy = original.problems(), original.healthy()
    for fault in faults_of(original):
        dataset = original.copy()
        client, driver = faulty(dataset.store, fault)
        repaired_by(driver, client)
        assert dataset.healthy().items() >= healthy.items(), fault
        assert dataset.problems() <= wrong | ON_THE_WAY, fault
        driver.deliver_late()
        assert dataset.healthy().items() >= healthy.items(), fault
        dataset.repaired()
        dataset.still_has(healthy)
        assert len(dataset.history()) == len(healthy), fault
        driver.deliver_late()
        assert dataset.problems() == set(), fault
        invariants.check(dataset.store)


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_a_fault_during_verify_is_an_error_and_never_a_finding(
    original: SimulatedDataset, harm: Harm
) -> None:
    """A broken connection is reported as damage, or verify changes the store."""
    harm(original)
    wrong = original.problems()
    before = original.sim.keyspace.fingerprint()
    client, driver = faulty(original.store)
    list(client.verify("mena"))
    commands = len(driver.done)
    for number in range(0, commands, 5):
        for kind in (Kind.LOST_BEFORE, Kind.LOST_AFTER, Kind.LATE, Kind.REFUSED, Kind.CRASH_AFTER):
            client, driver = faulty(original.store, Fault(kind, number))
            try:
                found = {finding.problem.value for finding in client.verify("mena") if finding.wrong}
                assert found == wrong, (kind, number)
            except (Unavailable, Crash):
                pass
            driver.deliver_late()
            assert all(isinstance(command, ReadCommand) for command in driver.done)
    assert original.sim.keyspace.fingerprint() == before


@pytest.mark.parametrize("harm", [manifest_deleted, page_deleted])
def test_a_read_that_the_server_refuses_is_not_taken_for_damage(
    original: SimulatedDataset, harm: Harm
) -> None:
    """One `-BUSY` among many reads makes a whole snapshot "leaked", to expire within a day."""
    harm(original)
    wrong = {(f.problem, f.key) for f in another(original.store).verify("mena")}
    plain, watched = meddled(original.copy().store)
    plain.repair("mena", apply=True)
    places = [
        (number, index)
        for number, batch in enumerate(watched.batches)
        for index, command in enumerate(batch)
        if isinstance(command, Get | Ttl)
    ]
    for number, index in places[::2]:
        dataset = original.copy()
        client, meddler = meddled(dataset.store)

        def refuse(replies: list[object], at: int = index) -> list[object]:
            return [*replies[:at], Failed(Unavailable("busy, on purpose")), *replies[at + 1 :]]

        meddler.replies(number, refuse)
        try:
            (report,) = client.repair("mena", apply=True)
            assert {(f.problem, f.key) for f in report.findings} <= wrong
            assert report.restored
        except Unavailable:
            pass
        assert len(dataset.healthy()) == len(dataset.rows)
        dataset.repaired()
        assert dataset.history() == dataset.rows


def test_a_verify_that_cannot_read_at_all_says_so(original: SimulatedDataset) -> None:
    """An unreachable store is called clean."""
    client, meddler = meddled(original.store)

    def away() -> None:
        raise Unavailable("away, on purpose")

    for number in range(200):
        meddler.before(number, away)
    with pytest.raises(Unavailable):
        list(client.verify())
    with pytest.raises(SwapstoreError):
        client.repair(apply=True)


def test_a_late_commit_of_a_repair_does_nothing_after_another_repair(original: SimulatedDataset) -> None:
    """A delayed packet replaces a newer manifest with an old one."""
    manifest_deleted(original)
    client, watched = meddled(original.copy().store)
    client.repair("mena", apply=True)
    commits = [n for n, batch in enumerate(watched.batches) if isinstance(batch[-1], Swap)]
    client, driver = faulty(original.store)
    number = sum(len(batch) for batch in watched.batches[: commits[0]])
    driver.plan(Fault(Kind.LATE, number), Fault(Kind.CRASH_BEFORE, number + len(watched.batches[commits[0]])))
    repaired_by(driver, client)
    assert driver.late
    original.repaired()
    original.store.publish("mena", "after", id="after", ts=at(99))
    before = original.sim.keyspace.values[MANIFEST]
    driver.deliver_late()
    assert original.sim.keyspace.values[MANIFEST] == before
    invariants.check(original.store)
