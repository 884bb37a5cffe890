"""Other clients act before the n-th batch of a verify or repair, for every n, or before every second one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import msgspec
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
from tests.fsck.simulated import SimulatedDataset, grown
from tests.support import invariants
from tests.support.drivers import Meddler, another, meddled
from tests.support.rivals import Rivals
from tests.support.times import at

pytestmark = [pytest.mark.usefixtures("tiny_pages"), pytest.mark.slow]
Act = Callable[[SimulatedDataset], None]
KEEP = Retention(max_count=3)


@pytest.fixture
def original() -> SimulatedDataset:
    return grown(13)


def publish(dataset: SimulatedDataset) -> None:
    """Four snapshots: they seal a page, and one of references."""
    dataset.sim.clock.advance(1)
    for number in range(4):
        store = another(dataset.store)
        done = store.publish(
            "mena", {"n": number}, id=f"new-{dataset.sim.clock.ms}-{number}", ts=at(100 + number)
        )
        row = next(row for row in store.history("mena", limit=1) if row.version == done.version)
        dataset.rows.append(row)


def publish_old(dataset: SimulatedDataset) -> None:
    another(dataset.store).publish("mena", "old", id=f"old-{dataset.sim.clock.ms}", ts=at(0))


def prune(dataset: SimulatedDataset) -> None:
    another(dataset.store).prune("mena", retention=KEEP)


def prune_and_expire(dataset: SimulatedDataset) -> None:
    """What was unlinked during a slow verify is gone when verify gets there."""
    prune(dataset)
    dataset.sim.clock.advance(dataset.store._context.policy.reader_grace_ms + 1)


def publish_keeping_few(dataset: SimulatedDataset) -> None:
    context = msgspec.structs.replace(another(dataset.store)._context, retention=KEEP)
    store = Store(another(dataset.store)._driver, context)
    for number in range(3):
        store.publish("mena", number, id=f"few-{dataset.sim.clock.ms}-{number}", ts=at(200 + number))


def pin_and_roll_back(dataset: SimulatedDataset) -> None:
    store = another(dataset.store)
    store.pin("mena", id="id-12")
    store.confirm("mena")
    store.rollback("mena", id="id-13")
    store.unpin("mena")


def pin_and_prune(dataset: SimulatedDataset) -> None:
    another(dataset.store).pin("mena", id="id-3")
    prune_and_expire(dataset)


def unpin(dataset: SimulatedDataset) -> None:
    another(dataset.store).unpin("mena")


def refuse_to_stage(dataset: SimulatedDataset) -> None:
    """A publish that dies after it has staged its records: orphans."""
    client, meddler = meddled(dataset.store)
    meddler.between(1, 3, _die)
    with pytest.raises(KeyboardInterrupt):
        client.publish("mena", "x", id=f"orphan-{dataset.sim.clock.ms}", ts=at(300))


def _die() -> None:
    raise KeyboardInterrupt


def batches_of(dataset: SimulatedDataset, act: Callable[[object], object]) -> int:
    client, meddler = meddled(dataset.copy().store)
    act(client)
    return len(meddler.batches)


HARMLESS: tuple[Act, ...] = (
    publish,
    publish_old,
    prune,
    prune_and_expire,
    publish_keeping_few,
    pin_and_roll_back,
    pin_and_prune,
    unpin,
    refuse_to_stage,
)


@pytest.mark.parametrize("pinned", [False, True])
@pytest.mark.parametrize("act", HARMLESS, ids=lambda act: act.__name__)
def test_verify_during_a_publish_reports_nothing(original: SimulatedDataset, act: Act, pinned: bool) -> None:  # noqa: FBT001
    """A cron job that verifies raises an alarm whenever a producer is at work."""
    if pinned:
        original.store.pin("mena", id="id-2")
        original.store.prune("mena", retention=Retention(max_count=9))
    for number in range(batches_of(original, lambda client: list(client.verify("mena")))):  # type: ignore[attr-defined]
        dataset = original.copy()
        client, meddler = meddled(dataset.store)
        meddler.before(number, lambda: _tried(dataset, act))  # noqa: B023 - called in this round
        assert [finding for finding in client.verify("mena") if finding.wrong] == [], number
        assert all(not isinstance(batch[-1], Swap) for batch in meddler.batches)
        assert dataset.problems() == set()


@pytest.mark.parametrize(
    "act", [publish, prune_and_expire, publish_keeping_few], ids=lambda act: act.__name__
)
def test_verify_during_constant_publishes_reports_nothing(original: SimulatedDataset, act: Act) -> None:
    """A producer that never pauses makes verify report damage that is none."""
    for begin, step in ((0, 1), (1, 2), (2, 3)):
        dataset = original.copy()
        client, meddler = meddled(dataset.store)
        for number in range(begin, 40, step):
            meddler.before(number, lambda: act(dataset))  # noqa: B023
        assert [finding for finding in client.verify("mena") if finding.wrong] == []


@pytest.mark.parametrize("harm", [manifest_deleted, page_deleted, record_leaked])
def test_verify_while_the_dataset_is_reset_or_repaired(original: SimulatedDataset, harm: Harm) -> None:
    """Verify reports a thousand missing records of the manifest that was replaced."""
    harm(original)
    wrong = original.problems()
    for act in (SimulatedDataset.flush, _flush_and_publish, _repair):
        for number in range(1, batches_of(original, lambda client: list(client.verify("mena")))):  # type: ignore[attr-defined]
            dataset = original.copy()
            client, meddler = meddled(dataset.store)
            meddler.before(number, lambda: act(dataset))  # noqa: B023
            with suppress(Contended):
                assert {f.problem.value for f in client.verify("mena") if f.wrong} <= wrong, number


def _flush_and_publish(dataset: SimulatedDataset) -> None:
    dataset.flush()
    another(dataset.store).publish("mena", "anew", id="anew", ts=at(1))


def _repair(dataset: SimulatedDataset) -> None:
    another(dataset.store).repair("mena", apply=True)


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
@pytest.mark.parametrize("act", [publish, pin_and_roll_back, prune, _repair], ids=lambda act: act.__name__)
def test_repair_during_other_operations_loses_nothing(
    original: SimulatedDataset, act: Act, harm: Harm
) -> None:
    """A repair takes back what was published since it looked."""
    harm(original)
    for number in range(0, batches_of(original, lambda client: client.repair("mena", apply=True)), 2):  # type: ignore[attr-defined]
        dataset = original.copy()
        healthy = set(dataset.healthy())
        client, meddler = meddled(dataset.store)
        meddler.before(number, lambda: _tried(dataset, act))  # noqa: B023
        client.repair("mena", apply=True)
        dataset.repaired()
        if act is not prune:
            dataset.still_has(healthy | {row.id for row in dataset.rows if row.id.startswith("new-")})


def _tried(dataset: SimulatedDataset, act: Act) -> None:
    try:
        act(dataset)
    except (SwapstoreError, StopIteration):
        return  # a damaged dataset refuses some calls


@pytest.mark.parametrize("harm", DAMAGES, ids=lambda harm: harm.__name__)
@pytest.mark.parametrize("act", [SimulatedDataset.flush, _flush_and_publish], ids=["flushed", "begun-anew"])
def test_repair_of_a_dataset_that_is_flushed_at_the_same_time(
    original: SimulatedDataset, act: Act, harm: Harm
) -> None:
    """A repair writes a manifest that points at nothing, and readers fail instead of finding None."""
    harm(original)
    for number in range(batches_of(original, lambda client: client.repair("mena", apply=True))):  # type: ignore[attr-defined]
        dataset = original.copy()
        client, meddler = meddled(dataset.store)
        meddler.before(number, lambda: act(dataset))  # noqa: B023
        client.repair("mena", apply=True)
        assert dataset.problems() == set(), number
        invariants.check(dataset.store)
        latest = another(dataset.store).read_latest("mena")
        assert (latest and latest.id) == (None if act is SimulatedDataset.flush else "anew"), number


def test_a_leaked_id_that_is_published_again_stays(original: SimulatedDataset) -> None:
    """The slower of two repairs gives a record a TTL that was published again, and then dies."""
    original.cut_off("torn")

    def overtake() -> None:
        _repair(dataset)
        another(dataset.store).publish("mena", "mine", id="torn", ts=at(99))

    plain, watched = meddled(original.copy().store)
    plain.repair("mena", apply=True)
    (commit,) = (n for n, batch in enumerate(watched.batches) if isinstance(batch[-1], Swap))
    for number in range(commit + 1):
        dataset = original.copy()
        client, meddler = meddled(dataset.store)
        meddler.before(number, overtake)
        for later in range(commit, commit + 3):
            meddler.after(later, lambda: _die_after_commit(meddler))  # noqa: B023
        with suppress(KeyboardInterrupt):
            client.repair("mena", apply=True)
        assert any(row.id == "torn" for row in invariants.check(dataset.store)), number


def _die_after_commit(meddler: Meddler) -> None:
    if isinstance(meddler.batches[-1][-1], Swap):
        raise KeyboardInterrupt


def test_a_repair_that_loses_every_race_says_so(original: SimulatedDataset) -> None:
    """A repair that loses every race never ends, or does not say why it failed."""
    page_deleted(original)
    client, meddler = meddled(original.store)
    Rivals(another(original.store), meddler, rivals=100)
    with pytest.raises(Contended, match="producers committed first"):
        client.repair("mena", apply=True)
    original.repaired()
    ids = {row.id for row in invariants.check(original.store)}
    assert ids >= {row.id for row in original.rows}
    assert len(ids) > len(original.rows) + 20, "each rival's snapshot is there"


def test_a_record_that_vanishes_during_a_repair(original: SimulatedDataset) -> None:
    """The rebuilt manifest names a record that was evicted while it was built."""
    manifest_deleted(original)
    for number in range(batches_of(original, lambda client: client.repair("mena", apply=True))):  # type: ignore[attr-defined]
        dataset = original.copy()
        client, meddler = meddled(dataset.store)
        meddler.before(number, lambda: dataset.sim.evict("swapstore:id:{mena}:id-13"))  # noqa: B023
        client.repair("mena", apply=True)
        dataset.repaired()
        latest = another(dataset.store).read_latest("mena")
        assert latest is not None
        assert latest.id == "id-12"
        try:
            assert dataset.store.read("mena", id="id-13") is None
        except PayloadMissing:
            raise AssertionError(number) from None
