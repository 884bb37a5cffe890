"""Rows whose producers staged for the same version, and rows that their own records contradict."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import attrs
import pytest

from swapstore import Gap, Retention, Row, Store
from swapstore.commands import Command, Failed, ReadCommand, Swap
from swapstore.errors import StoreFull
from swapstore.format import manifest
from tests.fsck.simulated import MANIFEST, SimulatedDataset, key, opened
from tests.support import invariants
from tests.support.drivers import Meddler, another, meddled
from tests.support.times import at


def raced(*, pinned: str | None = None, times: tuple[int, ...] = (2000, 2002, 2001), more: int = 70) -> Any:
    """Producers that all remember version 1 publish one after the other; then come `more` ordinary ones."""
    dataset = opened()
    dataset.store.publish("mena", "first", id="first", ts=at(1000))
    producers = [another(dataset.store) for _ in times]
    for producer in producers:
        producer.read_latest("mena")
    for name, ts, producer in zip("xpy", times, producers, strict=False):
        dataset.sim.clock.advance(1)
        producer.publish("mena", name, id=name, ts=at(ts))
    if pinned:
        dataset.store.pin("mena", id=pinned)
    for number in range(more):
        dataset.store.publish("mena", number, id=f"more-{number}", ts=at(1001 + number))
    dataset.rows.extend(dataset.history())
    return dataset


def lose_the_first_page(dataset: SimulatedDataset) -> None:
    dataset.delete(dataset.pages()[0])


def numbered(count: int) -> SimulatedDataset:
    """Ordinary snapshots: `id-1` with ts 1 is version 1, and so on."""
    dataset = opened()
    for number in range(1, count + 1):
        dataset.store.publish(
            "mena", {"n": number}, id=f"id-{number}", ts=at(number), labels={"n": str(number)}
        )
    dataset.rows.extend(dataset.history())
    return dataset


@pytest.mark.parametrize("pinned", [None, "p", "x", "y"])
def test_what_is_served_is_found_again_by_its_id(pinned: str | None) -> None:
    """A repair that lost a page lets the payload expire that readers are served."""
    dataset = raced(pinned=pinned)
    lose_the_first_page(dataset)
    (report,) = another(dataset.store).repair("mena", apply=True)
    assert (report.dropped, report.left) == ((), ())
    dataset.repaired()
    another(dataset.store).prune("mena", retention=Retention(max_count=2))
    dataset.sim.keyspace.expire_all()
    served = another(dataset.store).read_latest("mena")
    assert served is not None
    assert served.id == (pinned or "p")
    assert dataset.problems() == set()
    invariants.check(dataset.store)
    another(dataset.store).publish("mena", "new", id="new", ts=at(9000))
    another(dataset.store).unpin("mena")
    another(dataset.store).prune("mena", retention=Retention(max_count=2))
    dataset.sim.keyspace.expire_all()
    assert dataset.problems() == set()


def test_a_version_cursor_skips_no_commit_after_a_repair() -> None:
    """A follower that resumes after version 2 never hears of a commit, and is told of no gap."""
    dataset = raced(times=(2002, 2001, 2000))
    first = dataset.rows[:2]
    lose_the_first_page(dataset)
    dataset.repaired()
    told = list(first)
    rest: list[Row | Gap] = []
    follow = another(dataset.store).follow("mena", after=2)
    for item in follow:
        rest.append(item)
        if isinstance(item, Row) and item.id == "more-69":
            break
    ids = {row.id for row in told} | {item.id for item in rest if isinstance(item, Row)}
    assert ids == {row.id for row in dataset.rows} or any(isinstance(item, Gap) for item in rest), rest[:3]


def test_a_retry_leaves_no_later_origin_beside_a_committed_id() -> None:
    """A retry after a lost ts record makes a later repair let a whole, acknowledged snapshot expire."""
    dataset = numbered(80)
    dataset.delete(key("ts", 6))
    again = another(dataset.store).publish("mena", {"n": 6}, id="id-6", ts=at(6), labels={"n": "6"})
    assert not again.created
    dataset.repaired()
    lose_the_first_page(dataset)
    (report,) = another(dataset.store).repair("mena", apply=True)
    assert (report.dropped, report.left) == ((), ())
    dataset.repaired()
    assert dataset.history() == dataset.rows


def test_a_retry_that_dies_leaves_no_later_origin_that_a_repair_keeps() -> None:
    """A repair makes permanent what a retry has staged beside a committed row: another origin."""
    dataset = numbered(80)
    dataset.delete(key("ts", 6))
    producer, meddler = meddled(dataset.store)
    meddler.after(1, _die)
    with pytest.raises(KeyboardInterrupt):
        producer.publish("mena", {"n": 6}, id="id-6", ts=at(6), labels={"n": "6"})
    assert b'"version":81' in dataset.sim.keyspace.values[key("ts", 6)].data
    assert dataset.problems() == {"ts-damaged"}
    dataset.repaired()
    lose_the_first_page(dataset)
    dataset.repaired()
    assert dataset.history() == dataset.rows


def _die() -> None:
    raise KeyboardInterrupt


def test_an_origin_that_is_no_json_is_written_again() -> None:
    """Nobody notices a ts record without its origin before the order of a rebuilt log is lost."""
    dataset = numbered(40)
    dataset.alter(key("ts", 6), lambda raw: raw[:-2])
    assert dataset.problems() == {"ts-damaged"}
    dataset.repaired()
    dataset.delete(MANIFEST)
    dataset.repaired()
    assert dataset.history() == dataset.rows


def test_a_row_and_its_ts_record_outvote_an_altered_id_record() -> None:
    """An id record with an altered label, and a whole payload, corrects the row that is right."""
    dataset = numbered(40)
    dataset.alter(key("id", 6), lambda raw: raw.replace(b'{"n":"6"}', b'{"n":"7"}'))
    assert dataset.problems() == {"record-damaged"}
    (report,) = another(dataset.store).repair("mena", apply=True)
    assert report.dropped == ("id-6",)
    dataset.repaired()
    assert dataset.history() == [row for row in dataset.rows if row.id != "id-6"]


@pytest.mark.parametrize("ttl_ms", [None, 600_000])
def test_many_altered_ts_records_are_written_again_at_once(ttl_ms: int | None) -> None:
    """Each altered ts record costs an attempt to commit, and a repair of many gives up."""
    dataset = numbered(40)
    for row in dataset.rows:
        dataset.put(f"swapstore:ts:{{mena}}:{row.ts}:{row.id}", b"{}\n", ttl_ms)
    (report,) = another(dataset.store).repair("mena", apply=True)
    assert (report.dropped, report.left) == ((), ())
    dataset.sim.keyspace.expire_all()
    assert dataset.problems() == set()
    dataset.delete(MANIFEST)
    dataset.repaired()
    assert dataset.history() == dataset.rows


HEAD_FIELDS = {
    "id": b'"id":"id-',
    "ts": b'"ts":',
    "size": b'"size":',
    "sha256": b'"sha256":"',
    "labels": b'"labels":{"n":"',
    "label's name": b'"labels":{"',
}
ROW = (
    rb'\[%d,"id-(?P<id>[0-9])[^,]*,(?P<ts>[0-9])[^,]*,[0-9]+,(?P<size>[0-9])[^,]*,"(?P<sha256>.)[^"]*",'
    rb'null,null,\{"(?P<name>.)":"(?P<label>.)'
)


@pytest.mark.parametrize("number", [20, 79, 80])
@pytest.mark.parametrize("field", re.compile(ROW % 1).groupindex)
def test_one_altered_character_of_a_row_drops_nothing(field: str, number: int) -> None:
    """One altered character in a row of the manifest drops a snapshot whose records are whole."""
    dataset = numbered(80)
    if number == 20:  # it is sealed after it was altered, so the page's digest is right
        dataset = numbered(22)
        alter_row(dataset, number, field)
        producer = another(dataset.store)
        for later in range(23, 81):
            labels = {"n": str(later)}
            producer.publish("mena", {"n": later}, id=f"id-{later}", ts=at(later), labels=labels)
        dataset.rows[:] = numbered(80).rows
    else:
        alter_row(dataset, number, field)
    (report,) = another(dataset.store).repair("mena", apply=True)
    assert (report.dropped, report.left) == ((), ())
    dataset.repaired()
    shown = [attrs.evolve(row, committed_at=0) for row in dataset.history()]
    assert shown == [attrs.evolve(row, committed_at=0) for row in dataset.rows]
    latest = another(dataset.store).read_latest("mena")
    assert latest is not None
    assert latest.id == "id-80"


def alter_row(dataset: SimulatedDataset, number: int, field: str) -> None:
    """Alter one character of a field in a row of the manifest's tail."""

    def change(raw: bytes) -> bytes:
        row = re.search(ROW % number, raw)
        assert row is not None
        at = row.start(field)
        other = b"1" if raw[at : at + 1] != b"1" else b"2"
        return raw[:at] + other + raw[at + 1 :]

    dataset.alter(MANIFEST, change)


@pytest.mark.parametrize("what", ["latest", "pinned"])
@pytest.mark.parametrize("field", HEAD_FIELDS)
def test_one_altered_character_of_what_is_served(field: str, what: str) -> None:
    """One altered character in the header's copy of a row hides a whole snapshot, and verify is content."""
    dataset = numbered(80)
    dataset.store.pin("mena", id="id-50")

    def change(raw: bytes) -> bytes:
        at = raw.index(HEAD_FIELDS[field], raw.index(b'"%b":{' % what.encode())) + len(HEAD_FIELDS[field])
        other = b"1" if raw[at : at + 1] != b"1" else b"2"
        return raw[:at] + other + raw[at + 1 :]

    dataset.alter(MANIFEST, change)
    (report,) = another(dataset.store).repair("mena", apply=True)
    assert (report.dropped, report.left) == ((), ())
    dataset.repaired()
    assert dataset.history() == dataset.rows
    status = another(dataset.store).status("mena")
    assert status is not None
    assert (status.latest, status.pinned) == (dataset.rows[79], dataset.rows[49])


def test_what_is_served_is_found_again_although_its_version_changed() -> None:
    """A rebuilt page gives the pinned row another version, and the header keeps naming the old one."""
    dataset = numbered(80)
    dataset.store.pin("mena", id="id-6")
    for number in (5, 6, 7):  # as if all three had been staged for version 5
        dataset.alter(key("ts", number), lambda raw: re.sub(rb'"version":[0-9]+', b'"version":5', raw))
    lose_the_first_page(dataset)
    dataset.alter(MANIFEST, lambda raw: raw.replace(b'"version":6,', b'"version":5,'))
    dataset.repaired()
    status = another(dataset.store).status("mena")
    assert status is not None
    assert status.pinned in dataset.history()
    another(dataset.store).prune("mena", retention=Retention(max_count=2))
    dataset.sim.keyspace.expire_all()
    latest = another(dataset.store).read_latest("mena")
    assert latest is not None
    assert latest.id == "id-6"
    assert dataset.problems() == set()


@pytest.mark.parametrize("published", [1, 2, 40])
def test_a_whole_snapshot_without_manifest_and_ts_record_is_kept(published: int) -> None:
    """One publish after the manifest and a ts record were lost lets the whole snapshot expire, unreported."""
    dataset = numbered(1)
    dataset.delete(MANIFEST, key("ts", 1))
    for number in range(published):
        dataset.sim.connect().publish("mena", number, id=f"new-{number}", ts=at(100 + number))
    (report,) = another(dataset.store).repair("mena", apply=True)
    assert (report.dropped, report.left, report.restored) == ((), (), ("id-1",))
    dataset.sim.keyspace.expire_all()
    assert dataset.problems() == set()
    reader = another(dataset.store)
    assert reader.read("mena", id="id-1") is not None
    latest = reader.read_latest("mena")
    assert latest is not None
    assert latest.id == f"new-{published - 1}"


def test_what_nothing_proves_is_not_served() -> None:
    """A repair serves what a dying server left behind, because its ts record has expired."""
    dataset = numbered(5)
    dataset.cut_off("torn", writes=1)
    dataset.sim.keyspace.expire_all()
    (report,) = another(dataset.store).repair("mena", apply=True)
    assert report.restored == ("torn",), "it can be read, because it may have been committed"
    latest = another(dataset.store).read_latest("mena")
    assert latest is not None
    assert latest.id == "id-5"
    assert dataset.problems() == set()


def test_an_id_that_is_published_again_keeps_its_payload() -> None:
    """Retention takes an old row whose payload was lost, and with it that of the row of the same id."""
    dataset = numbered(80)
    dataset.delete(key("id", 6), key("ts", 6))
    again = another(dataset.store).publish("mena", {"n": 6}, id="id-6", ts=at(6), labels={"n": "6"})
    assert again.created
    another(dataset.store).prune("mena", retention=Retention(max_count=10))
    dataset.sim.keyspace.expire_all()
    assert another(dataset.store).read("mena", id="id-6") is not None
    assert dataset.problems() == set()


def test_a_lost_snapshot_of_the_same_time_is_not_served_instead() -> None:
    """A repair finds a history that was lost, and readers go back to a snapshot of it."""
    dataset = opened()
    dataset.store.publish("mena", "lost", id="lost", ts=at(5))
    dataset.delete(MANIFEST)
    dataset.sim.clock.advance(1)
    another(dataset.store).publish("mena", "new", id="new", ts=at(5))
    (report,) = another(dataset.store).repair("mena", apply=True)
    assert report.restored == ("lost",)
    latest = another(dataset.store).read_latest("mena")
    assert latest is not None
    assert latest.id == "new"


@pytest.mark.parametrize("lost", ["first", "second"])
def test_a_ts_record_that_is_written_again_names_the_line_of_its_neighbours(lost: str) -> None:
    """A history that was lost twice comes back with a snapshot of one line among those of the other."""
    dataset = opened()
    for number in range(3):
        dataset.store.publish("mena", number, id=f"first-{number}", ts=at(number))
    dataset.delete(MANIFEST)
    dataset.sim.clock.advance(1000)
    for number in range(3):
        another(dataset.store).publish("mena", number, id=f"second-{number}", ts=at(10 + number))
    dataset.delete("swapstore:ts:{mena}:1:first-1" if lost == "first" else "swapstore:ts:{mena}:11:second-1")
    dataset.repaired()
    dataset.delete(MANIFEST)
    dataset.repaired()
    ids = [row.id for row in dataset.history()]
    assert sorted(ids[:3]) == ["first-0", "first-1", "first-2"]
    assert ids[3:] == ["second-0", "second-1", "second-2"]


@pytest.mark.parametrize("what", ["confirmed", "leaked"])
def test_what_a_repair_keeps_and_for_how_long(what: str) -> None:
    """A repair forgets when the data was confirmed, or deletes a leak before anybody looks at it."""
    dataset = numbered(5)
    dataset.sim.clock.advance(5000)
    dataset.store.confirm("mena")
    before = dataset.store.status("mena")
    assert before is not None
    dataset.sim.clock.advance(5000)
    if what == "confirmed":
        dataset.alter(MANIFEST, lambda raw: raw[:-1])
    else:
        dataset.cut_off("leak")
    another(dataset.store).repair("mena", apply=True)
    after = another(dataset.store).status("mena")
    assert after is not None
    assert after.confirmed_at == before.confirmed_at
    if what == "leaked":
        expires_at = dataset.sim.keyspace.values["swapstore:id:{mena}:leak"].expires_at
        assert expires_at == dataset.sim.clock.ms + 24 * 60 * 60 * 1000


def test_what_a_rebuild_drops_can_be_inspected_for_a_day() -> None:
    """A repair of a lost manifest deletes an altered payload before anybody looks at it."""
    dataset = numbered(5)
    dataset.alter(key("id", 3), lambda data: data[:-1] + b"?")
    dataset.delete(MANIFEST)
    another(dataset.store).repair("mena", apply=True)
    expires_at = dataset.sim.keyspace.values[key("id", 3)].expires_at
    assert expires_at == dataset.sim.clock.ms + 24 * 60 * 60 * 1000


def test_a_repair_in_a_full_store_deletes_nothing_at_once() -> None:
    """A repair makes room with an altered payload, before anybody looks at it."""

    class Full(Meddler):
        def execute(self, commands: Sequence[Command[Any]]) -> list[Any]:
            if any(isinstance(command, Swap) and command.even_if_full for command in commands):
                return super().execute(commands)
            return [
                super(Full, self).execute([command])[0]
                if isinstance(command, ReadCommand)
                else Failed(StoreFull("full"))
                for command in commands
            ]

    dataset = numbered(80)
    dataset.alter(key("id", 3), lambda data: data[:-1] + b"?")
    with suppress(StoreFull):
        Store(Full(dataset.store._driver), dataset.store._context).repair("mena", apply=True)
    dataset.sim.clock.advance(23 * 60 * 60 * 1000)
    dataset.sim.keyspace.expire(dataset.sim.clock.ms)
    assert key("id", 3) in dataset.sim.keyspace.values


def test_a_page_that_is_lost_during_a_repair_is_repaired_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """An eviction between two commands ends a repair, and what was found first stays damaged."""
    monkeypatch.setattr(manifest, "F", 4)
    grown = numbered(9)
    grown.alter(key("id", 2), lambda data: data[:-1] + b"?")
    page = invariants.manifest_of(grown.store).log.pages[0].key
    for number in range(40):
        dataset = grown.copy()
        client, meddler = meddled(dataset.store)

        def lose(dataset: SimulatedDataset = dataset) -> None:
            dataset.sim.keyspace.values.pop(page, None)

        meddler.before(number, lose)
        (report,) = client.repair("mena", apply=True)
        assert report.left == ()
        assert dataset.problems() == set()
        assert len(dataset.history()) == 8
        if number >= len(meddler.batches):
            break


@pytest.mark.parametrize("bound", ["count", "age"])
def test_a_manifest_that_is_rebuilt_goes_on_where_its_header_was(bound: str) -> None:
    """A repair shows what retention has hidden, or gives a version out again that a client has stored."""
    dataset = numbered(5)
    max_age = timedelta(milliseconds=dataset.sim.clock.ms - 4)
    bounds = Retention(max_count=2) if bound == "count" else Retention(max_age=max_age)
    another(dataset.store).prune("mena", retention=bounds)
    for _ in range(3):
        dataset.store.confirm("mena")
    before, history = dataset.store.status("mena"), dataset.history()
    assert before is not None
    assert len(history) == 2
    dataset.alter(MANIFEST, lambda raw: raw[:-1])
    dataset.repaired()
    after = another(dataset.store).status("mena")
    assert after is not None
    assert dataset.history() == history
    assert after.version > before.version


def test_a_dropped_row_leaves_the_records_of_a_later_row_of_its_id_alone() -> None:
    """A repair gives a TTL to the ts record of a committed snapshot, and a second swap has to undo that."""
    dataset = numbered(80)
    dataset.delete(key("id", 6), key("ts", 6))
    again = another(dataset.store).publish("mena", "other", id="id-6", ts=at(6))
    assert again.created
    (report,) = another(dataset.store).repair("mena", apply=True)
    assert (report.dropped, report.left, report.version) == (("id-6",), (), again.version + 1)
    dataset.sim.keyspace.expire_all()
    snapshot = another(dataset.store).read("mena", id="id-6")
    assert snapshot is not None
    assert snapshot.value == "other"
    assert dataset.problems() == set()


def test_what_was_only_staged_corrects_no_row() -> None:
    """A publish that never committed, under the id of a lost payload, becomes history in a repair."""
    dataset = numbered(70)
    dataset.delete(key("id", 6), key("ts", 6))
    dataset.cut_off("id-6", writes=0)
    assert dataset.sim.keyspace.values[key("id", 6)].expires_at is not None
    (report,) = another(dataset.store).repair("mena", apply=True)
    assert (report.dropped, report.restored, report.left) == (("id-6",), (), ())
    assert "id-6" not in {row.id for row in dataset.history()}
    assert dataset.problems() == set()


def test_what_is_pinned_and_gone_is_not_called_restored() -> None:
    """A repair says that a snapshot is in the log again whose payload cannot be brought back."""
    dataset = numbered(80)
    dataset.store.pin("mena", id="id-6")
    lose_the_first_page(dataset)
    dataset.delete(key("id", 6), key("ts", 6))
    (report,) = another(dataset.store).repair("mena", apply=True)
    assert report.dropped == ("id-6",)
    assert len(report.restored) == manifest.F - 1
    assert "id-6" not in report.restored
    assert [row.id for row in dataset.history()] == [f"id-{n}" for n in range(1, 81) if n != 6]
    assert dataset.problems() == set()


def test_what_is_pinned_and_hidden_is_not_put_back_into_the_history() -> None:
    """A repair of something else shows a snapshot again that retention has hidden."""
    dataset = numbered(80)
    dataset.store.pin("mena", id="id-6")
    another(dataset.store).prune("mena", retention=Retention(max_count=2))
    dataset.sim.keyspace.expire_all()
    dataset.cut_off("leak")
    before = dataset.history()
    (report,) = another(dataset.store).repair("mena", apply=True)
    assert (report.restored, report.left) == ((), ())
    assert dataset.history() == before
    status = another(dataset.store).status("mena")
    assert status is not None
    assert status.count == invariants.manifest_of(dataset.store).log.count
    assert dataset.problems() == set()


@pytest.mark.parametrize("left", [9, 13])
def test_retention_opens_a_page_of_references_during_a_repair(
    left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repair skips a page that retention has just taken out of another, and its rows count as leaked."""
    monkeypatch.setattr(manifest, "F", 2)
    monkeypatch.setattr(manifest, "G", 2)
    grown = numbered(18)
    for number in range(8):
        dataset = grown.copy()

        def prune(dataset: SimulatedDataset = dataset) -> None:
            another(dataset.store).prune("mena", retention=Retention(max_count=left))
            dataset.sim.keyspace.expire_all()

        client, meddler = meddled(dataset.store)
        meddler.before(number, prune)
        assert client.repair("mena", apply=True) == []
        dataset.sim.keyspace.expire_all()
        assert dataset.problems() == set()
        assert {f"id-{18 - back}" for back in range(left)} <= {row.id for row in dataset.history()}
