"""Every readable snapshot of the six-command layout is imported once, and problems are reported."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import attrs
import pytest

import swapstore
from swapstore import AccessDenied, InvalidInput, NotFound, Store, Unavailable
from swapstore.connect import source_of
from swapstore.migration.importer import import_snapshots
from swapstore.migration.layout import Layout
from swapstore.migration.plan import Fact, FaultKind, Planned, RegionDone, SourceFault, Tried
from tests.migration.conftest import START_MS, Old
from tests.support.rest_proxy import ALLOWED, SmallProxy
from tests.support.valkey import Server, free_port

LAYOUT = Layout(prefix="intel")
T = START_MS


@attrs.frozen
class Report:
    """The facts of an import, sorted by kind."""

    facts: list[Fact]

    @property
    def findings(self) -> list[SourceFault]:
        return [fact for fact in self.facts if isinstance(fact, SourceFault)]

    @property
    def kinds(self) -> list[tuple[str, str | None, bool]]:
        return [(found.kind.value, found.id, found.imported) for found in self.findings]

    @property
    def regions(self) -> dict[str, RegionDone]:
        return {fact.dataset: fact for fact in self.facts if isinstance(fact, RegionDone)}


def run(server: Server, store: Store, layout: Layout = LAYOUT, **options: Any) -> Report:
    with source_of(server.url, layout) as source:
        return Report(list(import_snapshots(source, store, **options)))


def history(store: Store, dataset: str) -> list[tuple[str, int]]:
    """The ids and times of a dataset, in the order of their commits."""
    return [(row.id, row.ts) for row in store.history(dataset, limit=None)][::-1]


@pytest.mark.every_store
def test_regions_are_imported_whole_and_in_order(old: Old, server: Server, store: Store) -> None:
    """Imported history is incomplete, out of order, or has other bytes than the old readers had."""
    texts = {}
    for number in (3, 1, 4, 0, 2):
        for region in ("mena", "east-asia"):
            name = f"{region}:{number}"
            texts[region, name] = old.publish(region, name, T + number, b'{ "n":  %d }' % number)
    for region in ("mena", "east-asia"):
        old.client.set(old.latest(region), f"{region}:4")
    before = old.everything() if "sqlite" in store.where else None
    report = run(server, store)
    assert report.findings == []
    assert report.facts[0] == Planned(10)
    assert sum(isinstance(fact, Tried) for fact in report.facts) == 10
    for region in ("mena", "east-asia"):
        assert history(store, region) == [(f"{region}:{n}", T + n) for n in range(5)]
        for name, _ in history(store, region):
            snapshot = store.read(region, id=name)
            assert snapshot is not None
            assert snapshot.raw == texts[region, name]
        done = RegionDone(dataset=region, created=5, latest=f"{region}:4", old_latest=f"{region}:4")
        assert report.regions[region] == done
    if before is not None:
        assert old.everything() == before, "the source was written to"


@pytest.mark.every_store
def test_an_import_stores_as_its_store_is_set(old: Old, server: Server, tmp_path: Path) -> None:
    """History that comes from the old layout takes as much as there, or cannot be read."""
    texts = {}
    for number in range(12):
        name = f"mena:{number}"
        payload = json.dumps({"run": number, "rows": [[index, "calm"] for index in range(200)]}).encode()
        texts[name] = old.publish("mena", name, T + number, payload)
    with swapstore.connect(f"sqlite:///{tmp_path}/store.db", compression="delta") as store:
        assert run(server, store).findings == []
        assert run(server, store).findings == []  # again: the same content
        rows = list(store.history("mena"))
        assert len(rows) == 12
        assert len({row.base for row in rows}) == 1
    with swapstore.connect(f"sqlite:///{tmp_path}/store.db") as reader:
        for name, text in texts.items():
            snapshot = reader.read("mena", id=name)
            assert snapshot is not None
            assert snapshot.raw == text
        assert list(reader.verify("mena")) == []


def test_a_second_import_changes_nothing(old: Old, server: Server, store: Store) -> None:
    """Running the import again publishes everything twice."""
    for number in range(80):  # deeper than the rows that a manifest holds
        old.publish("mena", f"id-{number}", T + number)
    run(server, store)
    version = store.status("mena").version  # type: ignore[union-attr]
    again = run(server, store)
    assert again.regions["mena"].already == 80
    assert again.regions["mena"].created == 0
    assert again.findings == []
    assert store.status("mena").version == version  # type: ignore[union-attr]
    old.publish("mena", "id-80", T + 80)
    assert run(server, store).regions["mena"].created == 1


@pytest.mark.every_store
@pytest.mark.parametrize("after", [0, 1, 3, 5])
def test_an_interrupted_import_can_be_completed(
    after: int, old: Old, server: Server, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash during an import leaves a dataset that no second import can complete."""
    for number in range(6):
        old.publish("mena", f"id-{number}", T + number)
    publish, calls = Store.publish, itertools.count()

    def dying(self: Store, *args: Any, **options: Any) -> Any:
        if next(calls) == after:
            raise KeyboardInterrupt
        return publish(self, *args, **options)

    monkeypatch.setattr(Store, "publish", dying)
    with pytest.raises(KeyboardInterrupt):
        run(server, store)
    monkeypatch.undo()
    report = run(server, store)
    assert report.regions["mena"].already == after
    assert history(store, "mena") == [(f"id-{n}", T + n) for n in range(6)]


@pytest.mark.parametrize("score", [T // 1000, T])
def test_scores_in_seconds_and_in_milliseconds(score: float, old: Old, server: Server, store: Store) -> None:
    """A region whose producer scored in seconds is dated 1970, behind all others."""
    old.publish("mena", "a", T, score=score)
    report = run(server, store)
    assert history(store, "mena") == [("a", T)]
    assert report.findings == []


def test_a_score_in_seconds_is_matched_with_its_copy_in_milliseconds(
    old: Old, server: Server, store: Store
) -> None:
    """The copy in milliseconds is published as a second snapshot that never existed."""
    old.publish("mena", "a", T + 123, score=T // 1000)
    assert run(server, store).findings == []
    assert history(store, "mena") == [("a", T)]


def test_an_index_of_times(old: Old, server: Server, store: Store) -> None:
    """Where index members are times, snapshots are imported twice, or under invented ids."""
    for number in range(3):
        ts = T + number
        old.publish("mena", f"id-{number}", ts, member=str(ts))
    old.publish("mena", "gone", T + 3, member=str(T + 3), done={"by_ts", "index"})
    old.client.set(old.latest("mena"), f"mena-{T + 3}")
    report = run(server, store)
    expected = [(f"id-{n}", T + n) for n in range(3)]
    assert history(store, "mena") == [*expected, (f"mena-{T + 3}", T + 3)]
    assert report.findings == []
    assert run(server, store).regions["mena"].already == 4


def test_a_dangling_entry_is_reported_and_the_rest_imported(old: Old, server: Server, store: Store) -> None:
    """One lost payload stops the import, or is not reported."""
    old.publish("mena", "a", T)
    old.publish("mena", "lost", T + 1, done={"index"})
    old.publish("mena", str(T + 2), T + 2, done={"index"})
    old.publish("mena", "b", T + 3)
    old.publish("mena", "never", T + 4, done={"latest"})
    report = run(server, store)
    assert history(store, "mena") == [("a", T), ("b", T + 3)]
    assert report.kinds == [
        ("dangling", "lost", False),
        ("dangling", str(T + 2), False),
        ("dangling", "never", False),
    ]
    assert report.findings[0].key == old.by_id("lost")
    assert report.findings[2].key == old.latest("mena")
    done = RegionDone(dataset="mena", created=2, left_out=2, latest="b", old_latest="never")
    assert report.regions["mena"] == done


def test_a_payload_that_exists_by_time_only_is_imported(old: Old, server: Server, store: Store) -> None:
    """A snapshot whose by-id write was refused is lost although its copy exists."""
    old.publish("mena", "a", T, done={"by_ts", "index", "latest"})
    report = run(server, store)
    assert history(store, "mena") == [("a", T)]
    assert report.kinds == [("dangling", "a", True)]
    assert old.by_ts("mena", T) in report.findings[0].detail


def test_a_copy_by_time_is_not_used_for_another_snapshot(old: Old, server: Server, store: Store) -> None:
    """The id of a lost snapshot permanently gets the payload of another one."""
    old.publish("mena", "lost", T, done={"index"})
    old.publish("mena", "b", T)  # the same millisecond
    old.publish("mena", "gone", T + 1, json.dumps({"snapshot_id": "other"}).encode(), done={"by_ts", "index"})
    report = run(server, store)
    assert history(store, "mena") == [("b", T)]
    assert ("dangling", "lost", False) in report.kinds
    assert ("dangling", "gone", False) in report.kinds


def test_payloads_without_an_index_entry_are_imported_if_datable(
    old: Old, server: Server, store: Store
) -> None:
    """Payloads whose index entry was pruned or refused are left behind silently."""
    old.publish("mena", "twin", T, done={"by_ts", "by_id"})
    old.publish("mena", "indexed", T + 1)
    old.publish("mena", "-", T + 2, b'{"only": "by time"}', done={"by_ts"})
    told = {"meta": {"snapshot_id": "told"}, "region_id": "mena", "generated_at": T + 3}
    old.publish("mena", "told", T + 3, json.dumps(told).encode(), done={"by_id"})
    own = {"snapshot_id": "own"}
    old.publish("mena", "own", T + 4, json.dumps(own).encode(), done={"by_ts"})
    pointed = {"timestamp": (T + 5000) / 1000}
    old.publish("mena", "pointed", T + 5000, json.dumps(pointed).encode(), done={"by_id", "latest"})
    old.publish("?", "nowhere", T, b'{"nothing": "told"}', done={"by_id"})
    report = run(server, store)
    assert history(store, "mena") == [
        ("twin", T),
        ("indexed", T + 1),
        (f"mena-{T + 2}", T + 2),
        ("told", T + 3),
        ("own", T + 4),
        ("pointed", T + 5000),
    ]
    assert {(name, came) for kind, name, came in report.kinds if kind == "unindexed"} == {
        ("nowhere", False),
        ("own", True),
        ("pointed", True),
        ("told", True),
        ("twin", True),
        (f"mena-{T + 2}", True),
    }
    assert run(server, store).regions["mena"].already == 6


def test_a_snapshot_that_contains_its_id_is_imported_once(old: Old, server: Server, store: Store) -> None:
    """A by-id record that differs from its copy by time is imported as two snapshots."""
    old.client.set(old.by_ts("mena", T), json.dumps({"snapshot_id": "a", "short": 1}))
    old.client.set(old.by_id("a"), json.dumps({"snapshot_id": "a", "long": 2}))
    run(server, store)
    assert history(store, "mena") == [("a", T)]
    assert store.read("mena", id="a").value["long"] == 2  # type: ignore[union-attr]


def test_another_payload_of_an_imported_id_is_reported(old: Old, server: Server, store: Store) -> None:
    """One id is published with two contents, and the store refuses one at every import."""
    old.publish("mena", "a", T, json.dumps({"snapshot_id": "a"}).encode())
    old.publish("mena", "a", T + 9, json.dumps({"snapshot_id": "a", "v": 1}).encode(), done={"by_ts"})
    report = run(server, store)
    assert report.kinds == [("unindexed", "a", False)]
    assert report.findings[0].key == old.by_ts("mena", T + 9)
    assert history(store, "mena") == [("a", T)]


def test_a_constant_field_is_not_an_id(old: Old, server: Server, store: Store) -> None:
    """A constant field of the payloads becomes the id of one of them."""
    for number in range(3):
        payload = json.dumps({"id": "constant", "n": number}).encode()
        old.publish("mena", "-", T + number, payload, done={"by_ts"})
    run(server, store)
    assert history(store, "mena") == [(f"mena-{T + n}", T + n) for n in range(3)]


def test_an_id_that_looks_like_a_time(old: Old, server: Server, store: Store) -> None:
    """A producer that named its snapshots by their time gets them under other ids."""
    old.publish("mena", str(T), T)
    assert run(server, store).findings == []
    assert history(store, "mena") == [(str(T), T)]


def test_data_of_a_mirror_is_not_damage(old: Old, server: Server) -> None:
    """The last import of a migration ends as a failure, or reports the mirror's snapshots as conflicts."""
    old.publish("mena", "a", T)
    with swapstore.connect(server.url, mirror=swapstore.Mirror(prefix="intel")) as store:
        run(server, store)
        for number in range(3):
            value = {"region_id": "mena", "generated_at": T + 77}  # not the ts it was published with
            store.publish("mena", {**value, "n": number}, id=f"new-{number}", ts=T + 100 + number)
        old.publish("mena", "b", T + 1)
        old.client.set(old.latest("mena"), "new-2")
        report = run(server, store)
        assert [name for name, _ in history(store, "mena")] == ["a", "new-0", "new-1", "new-2", "b"]
    assert report.regions["mena"].already == 4
    assert report.regions["mena"].created == 1
    assert report.kinds == [("unindexed", f"new-{n}", True) for n in range(3)]


def test_identical_payloads_are_separate_snapshots(old: Old, server: Server, store: Store) -> None:
    """A producer that published the same value twice loses one of the two snapshots."""
    for number in range(3):
        old.publish("mena", f"id-{number}", T + number, b'"same"', done={"by_ts", "by_id"})
    run(server, store)
    assert history(store, "mena") == [(f"id-{n}", T + n) for n in range(3)]


def test_an_unreadable_payload_is_reported(old: Old, server: Server, store: Store) -> None:
    """One broken payload stops the import, or is imported and breaks every reader."""
    old.publish("mena", "text", T, b"not json", done={"by_id", "index"})
    old.publish("mena", "list", T + 1, done={"index"})
    old.client.rpush(old.by_id("list"), "x")
    old.publish("mena", "has space", T + 2)
    old.publish("mena", "eternity", T + 3, score=float("inf"), done={"index", "by_id"})
    old.publish("mena", "cut", T + 4)
    old.client.set(old.by_id("cut"), b'{"n": "cu')  # its copy by time is whole
    old.publish("mena", "good", T + 5)
    old.client.rpush(old.index("europe"), "not a sorted set")
    old.publish("europe", "e", T, done={"by_id", "by_ts"})
    old.client.rpush(old.latest("asia"), "x")
    old.publish("asia:minor", "m", T)
    old.publish("mena", "-", 9 * 10**17, b"{}", done={"by_ts"})
    report = run(server, store)
    assert history(store, "mena") == [("cut", T + 4), ("good", T + 5)]
    assert history(store, "europe") == [("e", T)]
    unreadable = {
        (found.dataset, found.key, found.imported)
        for found in report.findings
        if found.kind is FaultKind.UNREADABLE
    }
    assert unreadable == {
        ("mena", old.by_id("text"), False),
        ("mena", old.by_id("list"), False),
        ("mena", old.by_id("has space"), False),
        ("mena", old.index("mena"), False),
        ("mena", old.by_id("cut"), True),
        ("mena", old.by_ts("mena", 9 * 10**17), False),
        ("europe", old.index("europe"), False),
        ("asia", old.latest("asia"), False),
        ("asia:minor", old.index("asia:minor"), False),
    }


def test_bytes_are_imported_on_request(old: Old, server: Server, store: Store) -> None:
    """A layout of compressed payloads cannot be imported."""
    binary = bytes(range(256)) * 3
    old.publish("mena", "a", T, binary)
    assert run(server, store).kinds == [("unreadable", "a", False), ("latest", "a", False)]
    assert store.datasets() == []
    report = run(server, store, codec="bytes")
    assert report.findings == []
    snapshot = store.read_latest("mena")
    assert snapshot is not None
    assert (snapshot.raw, snapshot.codec) == (binary, "bytes")


def test_large_payloads(old: Old, server: Server, store: Store) -> None:
    """Real snapshots of some megabytes are not imported."""
    text = json.dumps({"text": "x" * 2_500_000}).encode()
    for number in range(3):
        old.publish("mena", f"id-{number}", T + number, text)
    assert run(server, store).findings == []
    assert store.read_latest("mena").raw == text  # type: ignore[union-attr]


def test_an_id_with_other_content_is_reported(old: Old, server: Server, store: Store) -> None:
    """The import overwrites what is in the store, or ends in the middle."""
    store.publish("mena", "something else", id="b", ts=T + 1)
    for number, name in enumerate("abc"):
        old.publish("mena", name, T + number)
    report = run(server, store)
    assert report.kinds == [("refused", "b", False)]
    assert [name for name, _ in history(store, "mena")] == ["b", "a", "c"]
    assert store.read("mena", id="b").value == "something else"  # type: ignore[union-attr]


def test_an_old_latest_that_is_not_the_newest_is_reported(old: Old, server: Server, store: Store) -> None:
    """Readers that move over see another snapshot than before, without an explanation."""
    old.publish("mena", "newer", T + 1)
    old.publish("mena", "older", T)  # the slow producer finishes last
    report = run(server, store)
    assert report.kinds == [("latest", "older", False)]
    assert report.regions["mena"].latest == "newer"
    old.client.set(old.latest("mena"), '"newer"')  # as a JSON string, as some producers write it
    assert run(server, store).findings == []
    old.client.delete(old.latest("mena"))
    assert run(server, store).kinds == [("latest", None, False)]


def test_one_region_of_many(old: Old, server: Server, store: Store) -> None:
    """A migration of one region moves all of them, or a mistyped region is not reported."""
    for region in ("mena", "europe"):
        old.publish(region, f"{region}-1", T)
        old.publish(region, f"{region}-2", T + 1, done={"index"})
    old.publish("europe", "never", T, score=float("inf"), done={"index"})
    report = run(server, store, regions=["mena"])
    assert store.datasets() == ["mena"]
    assert report.kinds == [("dangling", "mena-2", False)]
    with pytest.raises(NotFound, match="no region 'arctic'.*europe, mena"):
        run(server, store, regions=["arctic"])


def test_a_source_without_any_key_of_the_layout(old: Old, server: Server, store: Store) -> None:
    """A wrong prefix looks like a successful import."""
    old.publish("mena", "a", T)
    with pytest.raises(NotFound, match="prefix"):
        run(server, store, Layout(prefix="other"))


def test_other_names(old: Old, server: Server, store: Store) -> None:
    """A layout with other key names cannot be imported."""
    layout = Layout(
        prefix="geo*[x]",
        latest_key="{region}/now",
        by_id_key="one/{id}",
        index_key="{region}/all",
        by_ts_key="{region}/at/{ts}",
    )
    old.client.set("geo*[x]:mena/now", "a")
    old.client.set("geo*[x]:one/a", b"1")
    old.client.set("geo*[x]:mena/at/5", b"1")
    old.client.zadd("geo*[x]:mena/all", {"a": T})
    old.client.set("geo-x:mena/now", "decoy")
    report = run(server, store, layout)
    assert history(store, "mena")[-1] == ("a", T)
    assert set(report.regions) == {"mena"}


def test_other_keys_are_ignored(old: Old, server: Server, store: Store) -> None:
    """The live view, a lock or another application's key is imported as a snapshot."""
    old.publish("mena", "a", T)
    old.client.set(old.key("snapshot:v1:mena:live"), "x")
    old.client.set(old.key("snapshots"), "x")
    old.client.set("dedup:snapshot:v1:mena:6h:1", "x")
    assert run(server, store).findings == []


def test_many_snapshots_in_small_replies(old: Old, server: Server, store: Store) -> None:
    """An index that comes in several replies is imported only in part."""
    members: dict[Any, Any] = {f"id-{n}": T + n for n in range(2_500)}
    old.client.zadd(old.index("mena"), members)
    old.client.mset({old.key("snapshots", n): "of others" for n in range(5_000)})
    old.client.mset({old.by_id(f"id-{n}"): n for n in (0, 1_234, 2_499)})
    old.client.mset({old.by_ts("mena", T + n): n for n in (0, 1_234, 2_499)})
    report = run(server, store)
    assert report.facts[0] == Planned(2_500)
    assert [name for name, _ in history(store, "mena")] == ["id-0", "id-1234", "id-2499"]
    assert report.regions["mena"].left_out == 2_497


def test_the_right_to_read_is_enough(old: Old, server: Server, store: Store) -> None:
    """An import, which only reads its source, needs the right to write there."""
    old.publish("mena", "a", T)
    old.client.acl_setuser(
        "reader",
        enabled=True,
        passwords=["+secret"],
        keys=["intel:*"],
        commands=["+scan", "+zscan", "+get", "+getrange", "+select"],
        reset=True,
    )
    url = f"redis://reader:secret@127.0.0.1:{server.port}/0"
    try:
        with source_of(url, LAYOUT) as source:
            assert Report(list(import_snapshots(source, store))).findings == []
        old.client.acl_setuser("reader", enabled=True, commands=["-zscan"])
        with source_of(url, LAYOUT) as source, pytest.raises(AccessDenied, match="source") as refused:
            list(import_snapshots(source, store))
        assert "secret" not in str(refused.value)
    finally:
        old.client.acl_deluser("reader")


def test_an_unreachable_source(store: Store) -> None:
    """A typo in the address looks like an empty source, or shows the password."""
    url = f"redis://user:hunter2@127.0.0.1:{free_port()}/0"
    with source_of(url, LAYOUT) as source, pytest.raises(Unavailable) as away:
        list(import_snapshots(source, store))
    assert "hunter2" not in str(away.value)
    with pytest.raises(InvalidInput) as malformed:
        source_of("redis://user:hun#ter2@localhost/0", LAYOUT)
    assert "ter2" not in str(malformed.value)


def test_a_source_that_becomes_unreachable(old: Old, server: Server, store: Store) -> None:
    """A lost connection looks like missing payloads."""
    for number in range(3):
        old.publish("mena", f"id-{number}", T + number)
    facts: Iterable[Fact]
    with source_of(server.url, LAYOUT) as source:
        facts = iter(import_snapshots(source, store))
        assert next(facts) == Planned(3)
        asked = source._driver.execute

        def failing(commands: Any) -> Any:
            raise Unavailable("the server went away")

        source._driver.execute = failing  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            list(facts)
        source._driver.execute = asked  # type: ignore[method-assign]


def test_an_index_that_was_never_pruned(old: Old, server: Server, store: Store) -> None:
    """An import of everything that there is ends like damage, because old payloads have expired."""
    for number in range(5):
        old.publish("mena", f"gone-{number}", T + number, done={"index"})
    old.publish("mena", "a", T + 10)
    old.publish("mena", "lost", T + 11, done={"index"})
    old.publish("mena", "b", T + 12)
    old.publish("empty", "gone", T, done={"index"})
    report = run(server, store)
    kinds = [(fact.dataset, str(fact.kind), fact.is_damage) for fact in report.findings]
    assert kinds.count(("mena", "expired", False)) == 5
    assert kinds.count(("empty", "expired", False)) == 1
    assert kinds.count(("mena", "dangling", True)) == 1
    assert history(store, "mena") == [("a", T + 10), ("b", T + 12)]


@pytest.mark.parametrize("lacks", [set(), {"ZSCAN"}])
def test_a_source_over_rest(old: Old, server: Server, store: Store, lacks: set[str]) -> None:
    """The data of a system that is reached over REST alone cannot be imported."""
    for number in range(3):
        old.publish("mena", f"id-{number}", T + number)
    with SmallProxy(server) as proxy:
        proxy.allowed = (ALLOWED | {"ZSCAN"}) - lacks
        with source_of(proxy.url, LAYOUT, proxy.token) as source:
            assert [fact for fact in import_snapshots(source, store) if isinstance(fact, SourceFault)] == []
    assert history(store, "mena") == [(f"id-{number}", T + number) for number in range(3)]
