"""Others act before the n-th batch of a verify or of a repair, for every n, or every second."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import attrs
import pytest

from swapstore import Retention, Store
from swapstore.commands import Swap
from swapstore.errors import Contended, PayloadMissing, SwapstoreError
from tests.fsck.damage_kinds import (
    Harm,
    id_deleted,
    manifest_deleted,
    page_deleted,
    page_of_references_deleted,
    record_leaked,
    ts_altered,
)
from tests.fsck.simulated import Clinic, grown
from tests.support import invariants
from tests.support.drivers import Meddler, another, meddled
from tests.support.rivals import Rivals

pytestmark = pytest.mark.usefixtures("tiny_pages")
Act = Callable[[Clinic], None]
KEEP = Retention(max_count=3)


@pytest.fixture
def well() -> Clinic:
    return grown(13)


def publish(clinic: Clinic) -> None:
    """Four snapshots: they seal a page, and one of references."""
    clinic.sim.clock.advance(1)
    for number in range(4):
        store = another(clinic.store)
        done = store.publish("mena", {"n": number}, id=f"new-{clinic.sim.clock.ms}-{number}", ts=100 + number)
        row = next(row for row in store.history("mena", limit=1) if row.version == done.version)
        clinic.rows.append(row)


def publish_old(clinic: Clinic) -> None:
    another(clinic.store).publish("mena", "old", id=f"old-{clinic.sim.clock.ms}", ts=0)


def prune(clinic: Clinic) -> None:
    another(clinic.store).prune("mena", retention=KEEP)


def prune_and_expire(clinic: Clinic) -> None:
    """Verify is slow: what was let go of under its eyes is gone when it gets there."""
    prune(clinic)
    clinic.sim.clock.advance(clinic.store._context.policy.reader_grace_ms + 1)


def publish_keeping_few(clinic: Clinic) -> None:
    context = attrs.evolve(another(clinic.store)._context, retention=KEEP)
    store = Store(another(clinic.store)._driver, context)
    for number in range(3):
        store.publish("mena", number, id=f"few-{clinic.sim.clock.ms}-{number}", ts=200 + number)


def steer(clinic: Clinic) -> None:
    store = another(clinic.store)
    store.pin("mena", id="id-12")
    store.confirm("mena")
    store.rollback("mena", id="id-13")
    store.unpin("mena")


def pin_and_prune(clinic: Clinic) -> None:
    another(clinic.store).pin("mena", id="id-3")
    prune_and_expire(clinic)


def unpin(clinic: Clinic) -> None:
    another(clinic.store).unpin("mena")


def refuse_to_stage(clinic: Clinic) -> None:
    """A publish that dies after it has staged its records: orphans."""
    client, meddler = meddled(clinic.store)
    meddler.between(1, 3, _die)
    with pytest.raises(KeyboardInterrupt):
        client.publish("mena", "x", id=f"orphan-{clinic.sim.clock.ms}", ts=300)


def _die() -> None:
    raise KeyboardInterrupt


def batches_of(clinic: Clinic, act: Callable[[object], object]) -> int:
    client, meddler = meddled(clinic.copy().store)
    act(client)
    return len(meddler.batches)


HARMLESS: tuple[Act, ...] = (
    publish,
    publish_old,
    prune,
    prune_and_expire,
    publish_keeping_few,
    steer,
    pin_and_prune,
    unpin,
    refuse_to_stage,
)


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("act", HARMLESS, ids=lambda act: act.__name__)
def test_verify_beside_a_producer_gives_no_false_alarm(well: Clinic, act: Act, pinned: bool) -> None:  # noqa: FBT001
    """A cron job that verifies would wake somebody whenever a producer is at work."""
    if pinned:
        well.store.pin("mena", id="id-2")
        well.store.prune("mena", retention=Retention(max_count=9))
    for number in range(batches_of(well, lambda client: list(client.verify("mena")))):  # type: ignore[attr-defined]
        clinic = well.copy()
        client, meddler = meddled(clinic.store)
        meddler.before(number, lambda: _tried(clinic, act))  # noqa: B023 - called in this round
        assert [finding for finding in client.verify("mena") if finding.wrong] == [], number
        assert all(not isinstance(batch[-1], Swap) for batch in meddler.batches)
        assert clinic.problems() == set()


@pytest.mark.parametrize(
    "act", [publish, prune_and_expire, publish_keeping_few], ids=lambda act: act.__name__
)
def test_verify_beside_a_producer_at_every_batch(well: Clinic, act: Act) -> None:
    """One that never rests must not make it see ghosts either."""
    for begin, step in ((0, 1), (1, 2), (2, 3)):
        clinic = well.copy()
        client, meddler = meddled(clinic.store)
        for number in range(begin, 40, step):
            meddler.before(number, lambda: act(clinic))  # noqa: B023
        assert [finding for finding in client.verify("mena") if finding.wrong] == []


@pytest.mark.parametrize("harm", [manifest_deleted, page_deleted, record_leaked])
def test_verify_while_the_dataset_is_reset_or_repaired(well: Clinic, harm: Harm) -> None:
    """It would report a thousand records as missing that were never there under the new manifest."""
    harm(well)
    wrong = well.problems()
    for act in (Clinic.flush, _flush_and_publish, _repair):
        for number in range(1, batches_of(well, lambda client: list(client.verify("mena")))):  # type: ignore[attr-defined]
            clinic = well.copy()
            client, meddler = meddled(clinic.store)
            meddler.before(number, lambda: act(clinic))  # noqa: B023
            with suppress(Contended):
                assert {f.problem.value for f in client.verify("mena") if f.wrong} <= wrong, number


def _flush_and_publish(clinic: Clinic) -> None:
    clinic.flush()
    another(clinic.store).publish("mena", "anew", id="anew", ts=1)


def _repair(clinic: Clinic) -> None:
    another(clinic.store).repair("mena", apply=True)


# --- repair ----------------------------------------------------------------------------------------

DAMAGES: tuple[Harm, ...] = (
    manifest_deleted,
    page_deleted,
    page_of_references_deleted,
    id_deleted,
    ts_altered,
    record_leaked,
)


@pytest.mark.parametrize("harm", DAMAGES, ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("act", [publish, steer, prune, _repair], ids=lambda act: act.__name__)
def test_repair_beside_others_loses_nothing(well: Clinic, act: Act, harm: Harm) -> None:
    """A repair that swaps in what it saw a moment ago would take back what was published since."""
    harm(well)
    for number in range(0, batches_of(well, lambda client: client.repair("mena", apply=True)), 2):  # type: ignore[attr-defined]
        clinic = well.copy()
        healthy = set(clinic.healthy())
        client, meddler = meddled(clinic.store)
        meddler.before(number, lambda: _tried(clinic, act))  # noqa: B023
        client.repair("mena", apply=True)
        clinic.repaired()
        if act is not prune:
            clinic.still_has(healthy | {row.id for row in clinic.rows if row.id.startswith("new-")})


def _tried(clinic: Clinic, act: Act) -> None:
    try:
        act(clinic)
    except (SwapstoreError, StopIteration):
        return  # a damaged dataset refuses some calls


@pytest.mark.parametrize("harm", DAMAGES, ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("act", [Clinic.flush, _flush_and_publish], ids=["flushed", "begun-anew"])
def test_repair_of_a_dataset_that_is_flushed_meanwhile(well: Clinic, act: Act, harm: Harm) -> None:
    """It would put up a manifest that points at nothing, and readers would fail instead of finding None."""
    harm(well)
    for number in range(batches_of(well, lambda client: client.repair("mena", apply=True))):  # type: ignore[attr-defined]
        clinic = well.copy()
        client, meddler = meddled(clinic.store)
        meddler.before(number, lambda: act(clinic))  # noqa: B023
        client.repair("mena", apply=True)
        assert clinic.problems() == set(), number
        invariants.check(clinic.store)
        latest = another(clinic.store).read_latest("mena")
        assert (latest and latest.id) == (None if act is Clinic.flush else "anew"), number


def test_a_leaked_id_that_is_published_again_stays(well: Clinic) -> None:
    """Two repairs and a producer: the slower repair would give a committed record a TTL, then die."""
    well.torn("torn")

    def overtake() -> None:
        _repair(clinic)
        another(clinic.store).publish("mena", "mine", id="torn", ts=99)

    plain, watched = meddled(well.copy().store)
    plain.repair("mena", apply=True)
    (commit,) = (n for n, batch in enumerate(watched.batches) if isinstance(batch[-1], Swap))
    for number in range(commit + 1):
        clinic = well.copy()
        client, meddler = meddled(clinic.store)
        meddler.before(number, overtake)
        for later in range(commit, commit + 3):
            meddler.after(later, lambda: _die_after_commit(meddler))  # noqa: B023
        with suppress(KeyboardInterrupt):
            client.repair("mena", apply=True)
        assert any(row.id == "torn" for row in invariants.check(clinic.store)), number


def _die_after_commit(meddler: Meddler) -> None:
    if isinstance(meddler.batches[-1][-1], Swap):
        raise KeyboardInterrupt


def test_a_repair_that_never_gets_there_first_says_so(well: Clinic) -> None:
    """Against producers that always win it must end, and tell why."""
    page_deleted(well)
    client, meddler = meddled(well.store)
    Rivals(another(well.store), meddler, rivals=100)
    with pytest.raises(Contended, match="producers committed first"):
        client.repair("mena", apply=True)
    well.repaired()
    ids = {row.id for row in invariants.check(well.store)}
    assert ids >= {row.id for row in well.rows}
    assert len(ids) > len(well.rows) + 20, "each rival's snapshot is there"


def test_a_record_that_vanishes_during_a_repair(well: Clinic) -> None:
    """The rebuilt manifest would name the record that was evicted while it was drafted."""
    manifest_deleted(well)
    for number in range(batches_of(well, lambda client: client.repair("mena", apply=True))):  # type: ignore[attr-defined]
        clinic = well.copy()
        client, meddler = meddled(clinic.store)
        meddler.before(number, lambda: clinic.sim.evict("swapstore:id:{mena}:id-13"))  # noqa: B023
        client.repair("mena", apply=True)
        clinic.repaired()
        latest = another(clinic.store).read_latest("mena")
        assert latest is not None
        assert latest.id == "id-12"
        try:
            assert clinic.store.read("mena", id="id-13") is None
        except PayloadMissing:
            raise AssertionError(number) from None
