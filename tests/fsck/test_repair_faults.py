"""Every fault at every command of a repair that writes, and at many that only read; and of a verify."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from swapstore.commands import Failed, Get, ReadCommand, Swap, Ttl
from swapstore.errors import SwapstoreError, Unavailable
from swapstore.testing import Crash, Fault, FaultyDriver, Kind, faulty
from tests.fsck.damage_kinds import HARMS, Harm, manifest_deleted, page_deleted
from tests.fsck.simulated import MANIFEST, Clinic, grown
from tests.support import invariants
from tests.support.drivers import another, meddled

pytestmark = pytest.mark.usefixtures("tiny_pages")
ON_THE_WAY = {"lost", "ts-damaged", "ts-expiring"}  # what a repair may leave that is cut short
EVERY_READ = 31  # of the commands that only read, one in so many gets faults


@pytest.fixture
def well() -> Clinic:
    """Eight snapshots in a tail, a page, and a page of pages."""
    return grown(8)


def repaired_by(driver: FaultyDriver, client: object) -> object:
    try:
        return client.repair("mena", apply=True)  # type: ignore[attr-defined]
    except (Unavailable, Crash) as failure:
        return failure


def faults_of(sick: Clinic) -> Iterator[Fault]:
    """Each kind of fault at each command that writes, and the one before; two kinds at some that read."""
    client, driver = faulty(sick.copy().store)
    client.repair("mena", apply=True)
    writing = {n for n, command in enumerate(driver.done) if not isinstance(command, ReadCommand)}
    for number in range(len(driver.done) + 1):
        if {number, number + 1} & writing:
            yield from (Fault(kind, number) for kind in Kind)
        elif number % EVERY_READ == 0:
            yield from (Fault(kind, number) for kind in (Kind.LOST_AFTER, Kind.EXPIRED))


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_a_fault_at_any_command_of_a_repair(well: Clinic, harm: Harm) -> None:
    """A repair that dies half way would leave a store that is worse than before, or lose a snapshot."""
    harm(well)
    wrong, healthy = well.problems(), well.healthy()
    for fault in faults_of(well):
        sick = well.copy()
        client, driver = faulty(sick.store, fault)
        repaired_by(driver, client)
        assert sick.healthy().items() >= healthy.items(), fault
        assert sick.problems() <= wrong | ON_THE_WAY, fault
        driver.deliver_late()
        assert sick.healthy().items() >= healthy.items(), fault
        sick.repaired()
        sick.still_has(healthy)
        assert len(sick.history()) == len(healthy), fault
        driver.deliver_late()
        assert sick.problems() == set(), fault
        invariants.check(sick.store)


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: harm.__name__)
def test_a_fault_during_verify_is_an_error_and_never_a_finding(well: Clinic, harm: Harm) -> None:
    """A connection that breaks would be taken for damage, or a look would change what it looks at."""
    harm(well)
    wrong = well.problems()
    before = well.sim.keyspace.fingerprint()
    client, driver = faulty(well.store)
    list(client.verify("mena"))
    commands = len(driver.done)
    for number in range(0, commands, 5):
        for kind in (Kind.LOST_BEFORE, Kind.LOST_AFTER, Kind.LATE, Kind.REFUSED, Kind.CRASH_AFTER):
            client, driver = faulty(well.store, Fault(kind, number))
            try:
                found = {finding.problem.value for finding in client.verify("mena") if finding.wrong}
                assert found == wrong, (kind, number)
            except (Unavailable, Crash):
                pass
            driver.deliver_late()
            assert all(isinstance(command, ReadCommand) for command in driver.done)
    assert well.sim.keyspace.fingerprint() == before


@pytest.mark.parametrize("harm", [manifest_deleted, page_deleted])
def test_a_read_that_the_server_refuses_is_not_taken_for_damage(well: Clinic, harm: Harm) -> None:
    """`-BUSY` for one of many reads would make a whole snapshot "leaked", to expire within a day."""
    harm(well)
    wrong = {(f.problem, f.key) for f in another(well.store).verify("mena")}
    plain, watched = meddled(well.copy().store)
    plain.repair("mena", apply=True)
    places = [
        (number, index)
        for number, batch in enumerate(watched.batches)
        for index, command in enumerate(batch)
        if isinstance(command, Get | Ttl)
    ]
    for number, index in places[::2]:
        sick = well.copy()
        client, meddler = meddled(sick.store)

        def refuse(replies: list[object], at: int = index) -> list[object]:
            return [*replies[:at], Failed(Unavailable("busy, on purpose")), *replies[at + 1 :]]

        meddler.replies(number, refuse)
        try:
            (report,) = client.repair("mena", apply=True)
            assert {(f.problem, f.key) for f in report.findings} <= wrong
            assert report.restored
        except Unavailable:
            pass
        assert len(sick.healthy()) == len(sick.rows)
        sick.repaired()
        assert sick.history() == sick.rows


def test_a_verify_that_cannot_read_at_all_says_so(well: Clinic) -> None:
    """A store that is away would be called clean."""
    client, meddler = meddled(well.store)

    def away() -> None:
        raise Unavailable("away, on purpose")

    for number in range(200):
        meddler.before(number, away)
    with pytest.raises(Unavailable):
        list(client.verify())
    with pytest.raises(SwapstoreError):
        client.repair(apply=True)


def test_a_late_commit_of_a_repair_does_nothing_after_another_repair(well: Clinic) -> None:
    """A delayed packet would put an old manifest in the place of the one that went on."""
    manifest_deleted(well)
    client, watched = meddled(well.copy().store)
    client.repair("mena", apply=True)
    commits = [n for n, batch in enumerate(watched.batches) if isinstance(batch[-1], Swap)]
    client, driver = faulty(well.store)
    number = sum(len(batch) for batch in watched.batches[: commits[0]])
    driver.plan(Fault(Kind.LATE, number), Fault(Kind.CRASH_BEFORE, number + len(watched.batches[commits[0]])))
    repaired_by(driver, client)
    assert driver.late
    well.repaired()
    well.store.publish("mena", "after", id="after", ts=99)
    before = well.sim.keyspace.values[MANIFEST]
    driver.deliver_late()
    assert well.sim.keyspace.values[MANIFEST] == before
    invariants.check(well.store)
