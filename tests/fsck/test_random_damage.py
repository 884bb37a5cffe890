"""Random histories with random damage: repair succeeds, and everything that is still there can be read."""

from __future__ import annotations

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from swapstore import Retention, Row
from swapstore.errors import Corrupt, SwapstoreError
from swapstore.format import encodings, manifest, records
from swapstore.fsck.findings import Problem
from tests.fsck.simulated import MANIFEST, SimulatedDataset, grown, opened, payload
from tests.support import invariants
from tests.support.drivers import another
from tests.support.times import at

Step = tuple[str, int]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["publish"] * 6 + ["pin", "unpin", "rollback", "confirm", "prune"]),
        st.integers(0, 30),
    ),
    min_size=1,
    max_size=25,
)
HARMS = (
    "delete",
    "alter",
    "shorten",
    "expire",
    "empty",
    "manifest-deleted",
    "manifest-cut",
    "unlist",
    "torn",
    "publish",
    "page",
)
DAMAGES = st.lists(st.tuples(st.sampled_from(HARMS), st.integers(0, 1000)), min_size=1, max_size=5)


def play(dataset: SimulatedDataset, step: Step) -> None:
    """One action of a producer or an operator; a refused action does not matter."""
    what, number = step
    delta = dataset.store._context.policy.compression == "delta"
    store = another(dataset.store)
    ids = [row.id for row in dataset.rows]
    dataset.sim.clock.advance(1)
    try:
        if what == "publish" or not ids:
            value = payload(number, delta=delta, kind=number % 3)
            done = store.publish(
                "mena", value, id=f"id-{len(ids)}", ts=at(number), dedupe_key=f"d-{len(ids)}"
            )
            (row,) = (row for row in invariants.manifest_of(store).log.rows if row.version == done.version)
            dataset.rows.append(row)
        elif what == "pin":
            store.pin("mena", id=ids[number % len(ids)])
        elif what == "rollback":
            store.rollback("mena", id=ids[number % len(ids)])
        elif what == "unpin":
            store.unpin("mena")
        elif what == "confirm":
            store.confirm("mena")
        else:
            store.prune("mena", retention=Retention(max_count=1 + number))
    except SwapstoreError:
        return


def harm(dataset: SimulatedDataset, damage: tuple[str, int]) -> None:
    what, number = damage
    keys = sorted(key for key, value in dataset.sim.keyspace.values.items() if value.expires_at is None)
    if what in {"page", "base"}:
        keys = [key for key in keys if f":{what}:" in key]
    if what == "unlist":
        dataset.sim.keyspace.sets.clear()
    elif what == "torn" and MANIFEST in keys:
        try:
            dataset.cut_off(f"torn-{number}")
        except (SwapstoreError, AssertionError):
            return
    elif what == "publish":
        play(dataset, ("publish", number % 30))
    elif what.startswith("manifest"):
        if MANIFEST in keys:
            dataset.delete(MANIFEST) if what == "manifest-deleted" else dataset.alter(
                MANIFEST, lambda raw: raw[:-5]
            )
    elif what == "other base":
        exchange_bases(dataset, number)
    elif keys:
        name = keys[number % len(keys)]
        change = {
            "alter": lambda raw: raw[:-1] + b"!",
            "shorten": lambda raw: raw[:-3],
            "empty": lambda _: b"",
        }
        if what in change:
            dataset.alter(name, change[what])
        elif what == "expire":
            dataset.expire(name)
        else:
            dataset.delete(name)


def exchange_bases(dataset: SimulatedDataset, number: int) -> None:
    """Store a snapshot against another base than its row names."""
    healthy, found = dataset.healthy(), dataset.bases()
    rows = [row for row in dataset.rows if row.id in healthy]
    if not rows or not found:
        return
    row, key = rows[number % len(rows)], found[number % len(found)]
    try:
        base = dataset.base(key.rpartition(":")[2])
    except Corrupt:
        return
    body = encodings.encoded_as(dataset.payload(healthy[row.id]), "zstd", base).body
    header = records.id_header(row, "zstd", base.name)
    dataset.alter(f"swapstore:id:{{mena}}:{row.id}", lambda _: header + body)


def has_ts(dataset: SimulatedDataset, row: Row) -> bool:
    value = dataset.sim.keyspace.values.get(f"swapstore:ts:{{mena}}:{row.ts}:{row.id}")
    return value is not None and records.states_ts(value.data, row)


def check(steps: list[Step], damages: list[tuple[str, int]], size: int, *, delta: bool = False) -> None:
    was = manifest.F, manifest.G
    manifest.F = manifest.G = size
    try:
        dataset = opened(delta=delta)
        for step in [("publish", 5), *steps]:
            play(dataset, step)
        before = {row.id for row in dataset.rows}
        shown = {row.id for row in dataset.history()}
        for damage in damages:
            harm(dataset, damage)
        shown |= {row.id for row in dataset.rows} - before
        healthy = {name for name in dataset.healthy() if name in shown}
        if "publish" in {what for what, _ in damages}:
            # Published after the manifest was lost: without its ts record it may look like a leaked record.
            healthy &= {row.id for row in dataset.rows if has_ts(dataset, row)}
        reports = another(dataset.store).repair("mena", apply=True)
        left = [finding for report in reports for finding in report.left]
        if left:  # nothing can be served: the next publish helps
            assert not healthy, left
            if any(finding.problem is Problem.MANIFEST_DAMAGED for finding in left):
                dataset.delete(MANIFEST)  # no publish can replace it: an operator must act
            play(dataset, ("publish", 29))
        dataset.repaired()
        if not {what for what, _ in damages} <= {"torn", "expire", "unlist", "publish"}:
            # If the manifest or a page is lost, permanent records count as committed.
            dataset.rows.extend(row for row in dataset.history() if row.id.startswith("torn"))
        dataset.still_has(healthy)
    finally:
        manifest.F, manifest.G = was


@settings(max_examples=60)
@given(STEPS, DAMAGES, st.integers(2, 3))
def test_repair_of_random_damage(steps: list[Step], damages: list[tuple[str, int]], size: int) -> None:
    """A combination of damage makes repair fail, or lose what is still there."""
    check(steps, damages, size)


BASE_DAMAGES = st.lists(
    st.tuples(st.sampled_from([*HARMS, *["base", "other base"] * 4]), st.integers(0, 1000)),
    min_size=1,
    max_size=5,
)


@settings(max_examples=30)
@given(STEPS, BASE_DAMAGES, st.integers(2, 3))
def test_repair_of_random_damage_with_bases(
    steps: list[Step], damages: list[tuple[str, int]], size: int
) -> None:
    """Damage to bases, and to what names them, makes repair fail, or lose what is still there."""
    check(steps, damages, size, delta=True)


def test_repair_does_not_depend_on_the_cache() -> None:
    """A client that read everything before the damage repairs from its cache."""
    dataset = grown(75)
    warm = another(dataset.store)
    assert len(list(warm.history("mena", limit=None))) == 75
    assert all(warm.read("mena", id=row.id) for row in dataset.rows)
    dataset.delete(dataset.pages()[0], "swapstore:id:{mena}:id-40")
    (report,) = warm.repair("mena", apply=True)
    assert report.dropped == ("id-40",)
    dataset.repaired()
    assert dataset.history() == [row for row in dataset.rows if row.id != "id-40"]
    assert attrs.evolve(report, findings=()).left == ()
