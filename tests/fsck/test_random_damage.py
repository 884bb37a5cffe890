"""Any history, any damage: repair ends in order, and everything that is still there is read."""

from __future__ import annotations

import attrs
from hypothesis import given, settings
from hypothesis import strategies as st

from swapstore import Retention, Row
from swapstore.errors import SwapstoreError
from swapstore.format import manifest, records
from swapstore.fsck.findings import Problem
from tests.fsck.simulated import MANIFEST, Clinic, grown, opened
from tests.support import invariants
from tests.support.drivers import another

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


def play(clinic: Clinic, step: Step) -> None:
    """One thing that producers and operators do; what is refused is no matter."""
    what, number = step
    store = another(clinic.store)
    ids = [row.id for row in clinic.rows]
    clinic.sim.clock.advance(1)
    try:
        if what == "publish" or not ids:
            done = store.publish(
                "mena", {"n": number}, id=f"id-{len(ids)}", ts=number, dedupe_key=f"d-{len(ids)}"
            )
            (row,) = (row for row in invariants.manifest_of(store).log.rows if row.version == done.version)
            clinic.rows.append(row)
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


def harm(clinic: Clinic, damage: tuple[str, int]) -> None:
    what, number = damage
    keys = sorted(key for key, value in clinic.sim.keyspace.values.items() if value.expires_at is None)
    if what == "page":
        keys = [key for key in keys if ":page:" in key]
    if what == "unlist":
        clinic.sim.keyspace.sets.clear()
    elif what == "torn" and MANIFEST in keys:
        try:
            clinic.torn(f"torn-{number}")
        except (SwapstoreError, AssertionError):
            return
    elif what == "publish":
        play(clinic, ("publish", number % 30))
    elif what.startswith("manifest"):
        if MANIFEST in keys:
            clinic.delete(MANIFEST) if what == "manifest-deleted" else clinic.alter(
                MANIFEST, lambda raw: raw[:-5]
            )
    elif keys:
        name = keys[number % len(keys)]
        change = {
            "alter": lambda raw: raw[:-1] + b"!",
            "shorten": lambda raw: raw[:-3],
            "empty": lambda _: b"",
        }
        if what in change:
            clinic.alter(name, change[what])
        elif what == "expire":
            clinic.expire(name)
        else:
            clinic.delete(name)


def has_ts(clinic: Clinic, row: Row) -> bool:
    value = clinic.sim.keyspace.values.get(f"swapstore:ts:{{mena}}:{row.ts}:{row.id}")
    return value is not None and value.data.startswith(records.entry_header(row))


def check(steps: list[Step], damages: list[tuple[str, int]], size: int) -> None:
    was = manifest.F, manifest.G
    manifest.F = manifest.G = size
    try:
        clinic = opened()
        for step in [("publish", 5), *steps]:
            play(clinic, step)
        before = {row.id for row in clinic.rows}
        shown = {row.id for row in clinic.history()}
        for damage in damages:
            harm(clinic, damage)
        shown |= {row.id for row in clinic.rows} - before
        healthy = {name for name in clinic.healthy() if name in shown}
        if "publish" in {what for what, _ in damages}:
            # Published over a lost manifest: without its ts record, it may be like one that leaked.
            healthy &= {row.id for row in clinic.rows if has_ts(clinic, row)}
        reports = another(clinic.store).repair("mena", apply=True)
        left = [finding for report in reports for finding in report.left]
        if left:  # there is nothing that could be served: the next publish helps
            assert not healthy, left
            if any(finding.problem is Problem.MANIFEST_DAMAGED for finding in left):
                clinic.delete(MANIFEST)  # nobody can publish over it: an operator's turn
            play(clinic, ("publish", 29))
        clinic.repaired()
        if not {what for what, _ in damages} <= {"torn", "expire", "unlist", "publish"}:
            # Where the manifest is lost or has a hole, what is permanent was committed.
            clinic.rows.extend(row for row in clinic.history() if row.id.startswith("torn"))
        clinic.still_has(healthy)
    finally:
        manifest.F, manifest.G = was


@settings(max_examples=60)
@given(STEPS, DAMAGES, st.integers(2, 3))
def test_repair_of_anything(steps: list[Step], damages: list[tuple[str, int]], size: int) -> None:
    """Damages that nobody thought of together would make repair fail, or lose what is still there."""
    check(steps, damages, size)


def test_repair_is_the_same_whatever_is_remembered() -> None:
    """A client that has read everything before the damage must not mend from what it remembers."""
    clinic = grown(75)
    warm = another(clinic.store)
    assert len(list(warm.history("mena", limit=None))) == 75
    assert all(warm.read("mena", id=row.id) for row in clinic.rows)
    clinic.delete(clinic.pages()[0], "swapstore:id:{mena}:id-40")
    (report,) = warm.repair("mena", apply=True)
    assert report.dropped == ("id-40",)
    clinic.repaired()
    assert clinic.history() == [row for row in clinic.rows if row.id != "id-40"]
    assert attrs.evolve(report, findings=()).left == ()
