"""The state machine: public operations by several clients with stale caches, compared with a model."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from swapstore import Commit, Group, Pruned, Retention, Snapshot, Store
from swapstore.errors import Conflict, IdConflict, InvalidInput, NotFound, SwapstoreError, Unavailable
from swapstore.format import manifest
from swapstore.format.members import Part, parse_table, table
from swapstore.testing import Crash, Fault, FaultyDriver, Kind, faulty
from tests.machine.model import Attempt, Model
from tests.support.times import at

DATASETS = ("a", "b/c")
CLIENTS = 3
BOUNDS = {2: 3}  # clients with a retention, and the number of commits that it keeps
DELTAS = {1, 2}  # clients that store differences
IDS = st.sampled_from([f"id-{number}" for number in range(12)])
ALIKE = random.Random(1).randbytes(300)  # too much for a snapshot that can be stored as a difference
PAYLOADS = st.sampled_from([b"", b"x", b"yy", b"zzz" * 50, ALIKE, ALIKE + b"x", b"y" + ALIKE])
MEMBERS = st.dictionaries(st.sampled_from(["EG", "SG", "MA"]), PAYLOADS, min_size=1)
VALUES = PAYLOADS | MEMBERS
TIMES = st.none() | st.integers(0, 40)
KEYS = st.none() | st.sampled_from(["k1", "k2", "k3"])
FAULTS = st.none() | st.builds(Fault, st.sampled_from(Kind), st.integers(0, 8))
WHO = st.integers(0, CLIENTS - 1)
WHICH = st.sampled_from(DATASETS)


def table_of(members: dict[str, bytes]) -> bytes:
    """The payload of a group."""
    return table({name: Part(payload, "bytes") for name, payload in members.items()})


class Machine(RuleBasedStateMachine):
    """Rules that every store must keep. Subclasses choose the store, and whether faults happen."""

    faults_happen = False
    groups = True  # published too
    unused_pages = False  # a refused publish may leave a page, which the next publish uses
    page_sizes = 1, 2  # rows, references: a short run seals pages at several levels, and unlinks some

    def connect(self) -> Store:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self._usual = manifest.F, manifest.G
        manifest.F, manifest.G = self.page_sizes
        self.models = {name: Model(name, unused_pages=self.unused_pages) for name in DATASETS}

    @initialize(history=st.lists(VALUES, max_size=5))
    def begin(self, history: list[bytes | dict[str, bytes]]) -> None:
        """Begin with some snapshots of one dataset, so that short runs find something to change."""
        self.observer = self.connect()
        self.clients: list[tuple[Store, FaultyDriver]] = [self.client(who) for who in range(CLIENTS)]
        self.seen: list[dict[str, tuple[int, int]]] = [{} for _ in range(CLIENTS)]
        for number, value in enumerate(history):
            self.publish(who=1, name="a", id=f"id-{number}", value=value, ts=None, key=None, fault=None)

    def client(self, who: int) -> tuple[Store, FaultyDriver]:
        """A client with an empty cache. Some clients have a retention, and some store differences."""
        retention = Retention(max_count=BOUNDS.get(who))
        context = self.observer._context
        policy = msgspec.structs.replace(context.policy, compression="delta" if who in DELTAS else "none")
        context = msgspec.structs.replace(context, retention=retention, policy=policy)
        return faulty(Store(self.observer._driver, context))

    def teardown(self) -> None:
        manifest.F, manifest.G = self._usual
        if hasattr(self, "observer"):
            self.observer.close()

    # --- running one operation, with or without a fault --------------------------------------------

    def run(self, who: int, fault: Fault | None, act: Callable[[Store], Any]) -> Any:
        """Run an operation of a client; return its result, or the error, or the crash."""
        client, driver = self.clients[who]
        driver.plan(*([fault] if fault is not None and self.faults_happen else []))
        try:
            return act(client)
        except SwapstoreError as error:
            return error
        except Crash as crash:
            late = driver.late
            self.clients[who] = self.client(who)
            self.clients[who][1].late = late
            self.seen[who] = {}
            return crash
        finally:
            driver.plan()
            self.tick()

    def observe(self, *, steered: bool = False) -> None:
        for model in self.models.values():
            model.observe(self.observer, steered=steered)

    @property
    def is_late(self) -> bool:
        """Whether packets of any client are under way."""
        return any(driver.late for _, driver in self.clients)

    def settle(self, model: Model) -> None:
        """What may be removed is removed by now, or will not be, unless packets are under way."""
        if not self.is_late:
            model.erasing, model.dropping = set(), False

    def tick(self) -> None:
        """Let time pass after an operation, where it is simulated.

        So two clients never commit in the same millisecond, and a manifest that a drop has deleted is gone:
        it has the shortest TTL, and a drop that is cut does not wait for that.
        """

    # --- publishing --------------------------------------------------------------------------------

    @rule(who=WHO, name=WHICH, id=IDS, value=VALUES, ts=TIMES, key=KEYS, fault=FAULTS)
    def publish(
        self,
        who: int,
        name: str,
        id: str,
        value: bytes | dict[str, bytes],
        ts: int | None,
        key: str | None,
        fault: Fault | None,
    ) -> None:
        model = self.models[name]
        before = model.alive
        is_group = isinstance(value, dict)
        assume(self.groups or not is_group)
        attempt = Attempt(id, table_of(value) if isinstance(value, dict) else value)
        model.attempts.append(attempt)
        model.applying(BOUNDS.get(who))

        def act(store: Store) -> Commit:
            publish: Any = store.publish_group if is_group else store.publish
            commit: Commit = publish(name, value, id=id, ts=at(ts), dedupe_key=key, codec="bytes")
            return commit

        result = self.run(who, fault, act)
        attempt.late = bool(self.clients[who][1].late)
        self.observe()
        self.check_outcome(model, result, before, attempt, id=id, key=key)

    def check_outcome(
        self, model: Model, result: Any, before: list[Any], attempt: Attempt, *, id: str, key: str | None
    ) -> None:
        """Check the result of a publish against what is stored."""
        existing = next((row for row in before if row.id == id), None)
        if isinstance(result, Commit):
            self._check_commit(model, result, before, id=id, key=key)
            if not attempt.late and attempt in model.attempts:
                model.attempts.remove(attempt)
        elif isinstance(result, IdConflict):
            assert existing is not None, "an id is refused that nobody committed"
            if attempt in model.attempts:
                model.attempts.remove(attempt)
        else:
            assert self.faults_happen, result
            assert isinstance(result, Unavailable | Crash), result

    def _check_commit(
        self, model: Model, commit: Commit, before: list[Any], *, id: str, key: str | None
    ) -> None:
        row = model.row(commit.version)
        assert (row.id, row.ts, row.sha256) == (commit.id, commit.ts, commit.sha256)
        assert commit.is_latest == (model.latest == commit.version)
        if commit.created:
            assert row not in before
            assert commit.id == id
            return
        assert row in before, "its own commit is called somebody else's"
        if commit.id != id:
            assert key is not None
            assert row.dedupe_key == key

    @rule(who=WHO, name=WHICH, payload=PAYLOADS, offset=st.integers(-2, 1), fault=FAULTS)
    def publish_if(self, who: int, name: str, payload: bytes, offset: int, fault: Fault | None) -> None:
        model = self.models[name]
        expected = model.latest + offset
        assume(expected >= 0)
        holds = expected in {model.latest, model.version}
        id = f"if-{len(model.rows)}-{expected}-{model.version}"
        attempt = Attempt(id, payload)
        model.attempts.append(attempt)
        model.applying(BOUNDS.get(who))
        result = self.run(
            who,
            fault,
            lambda store: store.publish(name, payload, id=id, expected_version=expected, codec="bytes"),
        )
        attempt.late = bool(self.clients[who][1].late)
        self.observe()
        if isinstance(result, Commit):
            assert holds or not result.created
        elif isinstance(result, Conflict):
            assert not holds
        else:
            assert self.faults_happen, result

    @rule(who=WHO)
    def late_packets_arrive(self, who: int) -> None:
        driver = self.clients[who][1]
        driver.deliver_late()
        self.tick()
        self.observe(steered=True)
        for model in self.models.values():
            for attempt in model.attempts:
                attempt.late = self.is_late
            self.settle(model)

    # --- pins and rollbacks -------------------------------------------------------------------------

    @rule(who=WHO, name=WHICH, what=st.sampled_from(["pin", "rollback"]), data=st.data(), fault=FAULTS)
    def pin_or_roll_back(self, who: int, name: str, what: str, data: Any, fault: Fault | None) -> None:
        model = self.models[name]
        id = data.draw(st.sampled_from([*(row.id for row in model.alive), "never"]))
        target = next((row.version for row in model.readable if row.id == id), None)
        result = self.run(who, fault, lambda store: getattr(store, what)(name, id=id))
        self.observe(steered=True)
        if isinstance(result, NotFound):
            assert target is None
        elif isinstance(result, SwapstoreError | Crash):
            assert self.faults_happen, result
        else:
            assert target is not None
            assert (model.pinned if what == "pin" else model.latest) == target

    @rule(who=WHO, name=WHICH, what=st.sampled_from(["unpin", "confirm"]), fault=FAULTS)
    def unpin_or_confirm(self, who: int, name: str, what: str, fault: Fault | None) -> None:
        result = self.run(who, fault, lambda store: getattr(store, what)(name))
        model = self.models[name]
        pinned = model.pinned
        self.observe(steered=True)
        if isinstance(result, NotFound):
            assert not model.latest
        elif isinstance(result, SwapstoreError | Crash):
            assert self.faults_happen, result
        else:
            assert model.pinned == (0 if what == "unpin" else pinned)

    @rule(who=WHO, name=WHICH, count=st.integers(1, 6), fault=FAULTS)
    def prune(self, who: int, name: str, count: int, fault: Fault | None) -> None:
        model = self.models[name]
        newest = model.rows[-count:]
        model.applying(count)
        result = self.run(who, fault, lambda store: store.prune(name, retention=Retention(max_count=count)))
        self.observe()
        if isinstance(result, NotFound):
            assert not model.latest
        elif isinstance(result, SwapstoreError | Crash):
            assert self.faults_happen, result
        else:
            assert isinstance(result, Pruned)
            assert (result.count, result.first_version) == (len(model.rows), model.first_version)
            more = [row for row in model.shown if row not in newest]
            assert len(more) < manifest.F, "a few more, where the versions of a page have gaps"

    # --- reading -----------------------------------------------------------------------------------

    def check_snapshot(self, model: Model, snapshot: Any, row: Any) -> None:
        if isinstance(snapshot, SwapstoreError | Crash):
            assert self.faults_happen, snapshot
        elif row is None:
            assert snapshot is None
        else:
            assert isinstance(snapshot, Snapshot)
            assert (snapshot.id, snapshot.version, snapshot.ts) == (row.id, row.version, row.ts)
            assert snapshot.raw == model.payloads[row.version]

    @rule(who=WHO, name=WHICH, fault=FAULTS)
    def read_latest(self, who: int, name: str, fault: Fault | None) -> None:
        model = self.models[name]
        snapshot = self.run(who, fault, lambda store: store.read_latest(name))
        self.check_snapshot(model, snapshot, model.serving)
        if isinstance(snapshot, Snapshot):
            self.seen[who][name] = model.seen_in(snapshot)

    @rule(who=WHO, name=WHICH, names=st.none() | st.lists(st.sampled_from(["EG", "SG", "XX"])), fault=FAULTS)
    def read_group(self, who: int, name: str, names: list[str] | None, fault: Fault | None) -> None:
        model = self.models[name]
        row = model.serving
        group = self.run(who, fault, lambda store: store.read_group(name, members=names))
        listed = parse_table(model.payloads[row.version], name) if row and row.is_group else {}
        if isinstance(group, Group):
            assert row is not None
            assert (group.id, group.version, set(group)) == (
                row.id,
                row.version,
                set(listed if names is None else names),
            )
            assert all(each.sha256 == listed[each.name].sha256 for each in group.members.values())
        elif isinstance(group, NotFound):
            assert names is not None
            assert not set(names) <= set(listed)
        elif isinstance(group, InvalidInput):
            assert row is not None
            assert not row.is_group
        elif group is None:
            assert row is None
        else:
            assert self.faults_happen, group

    @rule(who=WHO, name=WHICH)
    def read_stale(self, who: int, name: str) -> None:
        model = self.models[name]
        snapshot = self.run(who, None, lambda store: store.read_latest(name, max_staleness=3600))
        if isinstance(snapshot, Snapshot):
            self.check_stale(who, name, snapshot)
        else:
            assert snapshot is None
            assert not model.latest or model.dropped, "a client remembers nothing but a manifest that says so"

    def check_stale(self, who: int, name: str, snapshot: Snapshot) -> None:
        seen = self.models[name].seen_in(snapshot)
        assert self.seen[who].get(name, seen) <= seen, "a client went back"
        self.seen[who][name] = seen

    @rule(who=WHO, name=WHICH, data=st.data(), fault=FAULTS)
    def read_one(self, who: int, name: str, data: Any, fault: Fault | None) -> None:
        model = self.models[name]
        row = data.draw(st.sampled_from([*model.known.values()]) if model.known else st.none())
        if row is None:
            assert self.run(who, None, lambda store: store.read(name, id="id-1")) is None
            return
        by_id = self.run(who, fault, lambda store: store.read(name, id=row.id))
        there = {found.id: found for found in model.readable}  # an unlinked id may be used again
        self.check_snapshot(model, by_id, there.get(row.id))
        by_version = self.run(who, None, lambda store: store.read(name, version=row.version))
        self.check_snapshot(model, by_version, row if row in there.values() else None)
        moment = row.ts + data.draw(st.integers(-1, 1))
        assume(moment >= 0)
        as_of = self.run(who, None, lambda store: store.read(name, as_of=at(moment)))
        self.check_snapshot(model, as_of, model.as_of(moment))

    @rule(who=WHO, name=WHICH, limit=st.none() | st.integers(0, 9), data=st.data())
    def history(self, who: int, name: str, limit: int | None, data: Any) -> None:
        model = self.models[name]
        before = data.draw(st.none() | st.integers(0, model.version + 1))
        since, until = sorted(data.draw(st.tuples(*[st.sampled_from([0, 10, 20, 30, 1 << 42])] * 2)))
        asked = {"limit": limit, "before": before, "since": at(since), "until": at(until)}
        rows = self.run(who, None, lambda store: list(store.history(name, **asked)))
        below = model.version + 1 if before is None else before
        expected = [row for row in model.shown[::-1] if row.version < below and since <= row.ts < until]
        assert rows == expected[: len(expected) if limit is None else limit]

    @rule(who=WHO, name=WHICH, key=KEYS.filter(bool), fault=FAULTS)
    def published(self, who: int, name: str, key: str, fault: Fault | None) -> None:
        rows = self.models[name].rows
        found = self.run(who, fault, lambda store: store.published(name, dedupe_key=key))
        if isinstance(found, Commit):
            row = self.models[name].row(found.version)
            assert row in rows
            assert (row.id, row.dedupe_key) == (found.id, key)
        elif found is None:
            assert key not in [row.dedupe_key for row in self.models[name].recent]
        else:
            assert self.faults_happen, found

    @rule(who=WHO)
    def datasets(self, who: int) -> None:
        listed = self.run(who, None, lambda store: store.datasets())
        published = [name for name, model in self.models.items() if model.latest]
        assert set(listed) <= set(published)
        if not self.faults_happen:
            assert listed == published

    # --- the live view -----------------------------------------------------------------------------

    @rule(who=WHO, name=WHICH, payload=PAYLOADS)
    def live(self, who: int, name: str, payload: bytes) -> None:
        model = self.models[name]
        assume(model.latest)
        self.run(
            who, None, lambda store: store.put_live(name, payload, ttl=60, etag=model.etag, codec="bytes")
        )
        view = self.run(who, None, lambda store: store.read_live(name))
        assert view.raw == payload

    @rule(who=WHO, name=WHICH)
    def read_live(self, who: int, name: str) -> None:
        view = self.run(who, None, lambda store: store.read_live(name))
        assert view is None or view.etag == self.models[name].etag
