"""Each kind of damage: a clear finding, a dry run that changes nothing, and a repair that loses nothing."""

from __future__ import annotations

from collections.abc import Callable

import attrs
import pytest

from swapstore import Retention, Store
from tests.fsck.conftest import DEEP, MANIFEST, Patient, key
from tests.support import invariants
from tests.support.drivers import another

Make = Callable[[int], Patient]


def check_dry_run(patient: Patient, expected: str) -> None:
    """Verify names the problem, and a repair without `apply` touches nothing."""
    assert expected in patient.problems()
    before = invariants.contents(patient.store)
    (report,) = another(patient.store).repair("mena")
    assert not report.applied
    assert expected in {finding.problem.value for finding in report.findings}
    assert invariants.contents(patient.store) == before


# --- the manifest ----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, DEEP])
def test_a_deleted_manifest_is_rebuilt(patient: Make, count: int) -> None:
    """An evicted manifest must not take a history with it: every snapshot is there, under its version."""
    sick = patient(count)
    sick.damage.delete(MANIFEST)
    check_dry_run(sick, "manifest-missing")
    report = sick.repair()
    assert report.restored == tuple(row.id for row in sick.rows)
    sick.still_reads()
    assert list(another(sick.store).history("mena", limit=None))[::-1] == sick.rows, "row for row"


DAMAGES = {
    "truncated": lambda raw: raw[: len(raw) // 2],
    "header-cut": lambda raw: raw[:40],
    "emptied": lambda _: b"",
    "other-json": lambda _: b'{"hello": "world"}',
    "another-dataset": lambda raw: raw.replace(b'"dataset":"mena"', b'"dataset":"asia"', 1),
    "body-altered": lambda raw: raw.replace(b'"rows":[', b'"rows":[{},', 1),
    "out-of-order": lambda raw: raw.replace(b'"version":2,', b'"version":900,').replace(b".900.", b".2."),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_manifest_is_replaced(patient: Make, how: str) -> None:
    """Whatever stands in the manifest's place is called damage, and what is committed comes back."""
    sick = patient(40)
    sick.damage.alter(MANIFEST, DAMAGES[how])
    check_dry_run(sick, "manifest-damaged")
    sick.repair()
    sick.still_reads()


def test_a_list_in_place_of_the_manifest_is_replaced(patient: Make) -> None:
    """Another type of value is damage too, on the servers that have types."""
    sick = patient(3)
    if not sick.damage.has_types:
        return
    sick.damage.delete(MANIFEST)
    sick.damage.client.rpush(MANIFEST, "x")
    check_dry_run(sick, "manifest-damaged")
    sick.repair()
    sick.still_reads()


def test_a_manifest_with_a_ttl_is_made_permanent(patient: Make) -> None:
    """Somebody ran EXPIRE on the manifest: without repair the dataset vanishes."""
    sick = patient(3)
    sick.damage.expire(MANIFEST)
    check_dry_run(sick, "manifest-expiring")
    sick.repair()
    sick.still_reads()


def test_a_lost_manifest_that_was_published_over_gives_the_history_back(patient: Make) -> None:
    """The cron job went on before anybody noticed: its new snapshots and the old ones are both there."""
    sick = patient(DEEP)
    sick.damage.delete(MANIFEST)
    producer = another(sick.store)
    for number in (DEEP + 1, DEEP + 2):
        producer.publish("mena", {"n": number}, id=f"id-{number}", ts=number)
    check_dry_run(sick, "lost")
    report = sick.repair()
    assert len(report.restored) == DEEP
    for row in another(sick.store).history("mena", limit=None):
        if row.ts > DEEP:
            sick.rows.append(row)
    assert len(sick.rows) == DEEP + 2
    sick.still_reads()


def test_a_wrong_count_is_counted_again(patient: Make) -> None:
    """Somebody edited the manifest by hand."""
    sick = patient(3)
    sick.damage.alter(MANIFEST, lambda raw: raw.replace(b'"count":3', b'"count":7', 1))
    check_dry_run(sick, "count-wrong")
    sick.repair()


def test_a_latest_that_the_log_does_not_hold_is_replaced(patient: Make) -> None:
    """A header that serves what its own log does not name would serve it for ever."""
    sick = patient(3)
    stored = sick.damage.get(MANIFEST)
    line, body = stored.split(b"\n", 1)
    sick.damage.alter(
        MANIFEST,
        lambda _: (
            line.replace(b'"version":3,"committed_at"', b'"version":3,"committed_at"')
            + b"\n"
            + body.replace(b'"version":3,', b'"version":4,')
        ),
    )
    assert sick.problems()
    sick.repair()
    sick.still_reads()


# --- pages -----------------------------------------------------------------------------------------


def test_a_deleted_page_is_rebuilt(patient: Make) -> None:
    """A lost page must not take 32 snapshots with it: they are named again, under their versions."""
    sick = patient(DEEP)
    sick.damage.delete(sick.page())
    check_dry_run(sick, "page-missing")
    report = sick.repair()
    assert len(report.restored) == 32
    sick.still_reads()
    assert list(another(sick.store).history("mena", limit=None))[::-1] == sick.rows, "row for row"


def test_an_altered_page_is_rebuilt(patient: Make) -> None:
    """One wrong byte in a page is found, and the page written anew under another name."""
    sick = patient(DEEP)
    page = sick.page()
    sick.damage.alter(page, lambda raw: raw.replace(b'"version":9,', b'"version":8,'))
    check_dry_run(sick, "page-damaged")
    sick.repair()
    assert sick.page() != page
    sick.still_reads()


def test_a_page_with_a_ttl_is_made_permanent(patient: Make) -> None:
    """Somebody ran EXPIRE on a page."""
    sick = patient(DEEP)
    sick.damage.expire(sick.page())
    check_dry_run(sick, "page-expiring")
    sick.repair()
    sick.still_reads()


# --- records ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, DEEP - 1, DEEP], ids=["in-a-page", "in-the-tail", "latest"])
@pytest.mark.parametrize("how", ["deleted", "altered", "emptied", "of-another-id"])
def test_a_snapshot_without_its_payload_is_dropped_and_named(patient: Make, number: int, how: str) -> None:
    """What cannot be read any more is taken out of the history, and said; everything else stays."""
    sick = patient(DEEP)
    record = key("id", number)
    if how == "deleted":
        sick.damage.delete(record)
    else:
        other = sick.damage.get(key("id", 40))
        change = {
            "altered": lambda raw: raw[:-1] + b"!",
            "emptied": lambda _: b"",
            "of-another-id": lambda _: other,
        }
        sick.damage.alter(record, change[how])
    check_dry_run(sick, "record-missing" if how == "deleted" else "record-damaged")
    report = sick.repair()
    assert report.dropped == (f"id-{number}",)
    sick.still_reads(but=(f"id-{number}",))


@pytest.mark.parametrize("kind", ["id", "ts"])
@pytest.mark.parametrize("number", [1, DEEP])
def test_a_committed_key_with_a_ttl_is_made_permanent(patient: Make, kind: str, number: int) -> None:
    """Somebody ran EXPIRE on a record: it would vanish in silence."""
    sick = patient(DEEP)
    sick.damage.expire(key(kind, number))
    check_dry_run(sick, "record-expiring" if kind == "id" else "ts-expiring")
    sick.repair()
    sick.still_reads()


@pytest.mark.parametrize("how", ["deleted", "altered", "altered-and-expiring"])
@pytest.mark.parametrize("number", [1, DEEP])
def test_a_lost_ts_record_is_written_again(patient: Make, how: str, number: int) -> None:
    """Without its ts record a snapshot could not be rebuilt after the manifest is lost."""
    sick = patient(DEEP)
    record = key("ts", number)
    if how == "deleted":
        sick.damage.delete(record)
    else:
        sick.damage.alter(record, lambda raw: raw.replace(b'"size"', b'"Size"'))
    if how == "altered-and-expiring":
        sick.damage.expire(record)
    check_dry_run(sick, "ts-missing" if how == "deleted" else "ts-damaged")
    sick.repair()
    sick.still_reads()
    sick.damage.delete(MANIFEST)
    sick.repair()
    sick.still_reads()


def test_several_kinds_of_damage_at_once(patient: Make) -> None:
    """A bad day: all of it is found in one run, and mended in one run."""
    sick = patient(DEEP)
    sick.damage.delete(sick.page(), key("id", 50), key("ts", 60))
    sick.damage.expire(key("id", 70))
    sick.damage.unlist()
    found = sick.problems()
    assert found == ["name-missing", "page-missing", "record-expiring", "record-missing", "ts-missing"] or (
        set(found)
        == {"lost", "name-missing", "page-missing", "record-expiring", "record-missing", "ts-missing"}
    )
    assert sick.repair().dropped == ("id-50",)
    sick.still_reads(but=("id-50",))
    assert another(sick.store).datasets() == ["mena"]


# --- going back ------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 3, 40])
def test_an_older_manifest_that_was_put_back_loses_nothing(patient: Make, steps: int) -> None:
    """Somebody restored the manifest alone from a backup: what was committed since is named again."""
    sick = patient(20)
    old = sick.damage.get(MANIFEST)
    for number in range(21, 21 + steps):
        sick.store.publish("mena", {"n": number}, id=f"id-{number}", ts=number)
    sick.rows[:] = list(sick.store.history("mena", limit=None))[::-1]
    sick.damage.put(MANIFEST, old)
    check_dry_run(sick, "lost")
    assert len(sick.repair().restored) == steps
    sick.still_reads()


def test_a_count_that_is_too_large_hides_nothing(patient: Make) -> None:
    """A damaged count must not make retention let go of what is within its bound."""
    sick = patient(5)
    sick.damage.alter(MANIFEST, lambda raw: raw.replace(b'"count":5', b'"count":500', 1))
    keeping = attrs.evolve(another(sick.store)._context, retention=Retention(max_count=6))
    Store(sick.store._driver, keeping).publish("mena", {"n": 6}, id="id-6", ts=6)
    sick.rows[:] = list(another(sick.store).history("mena", limit=None))[::-1]
    assert len(sick.rows) == 6
    sick.repair()
    sick.still_reads()
