"""What is explored: a few operations on one dataset, and what must hold in every reachable state."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs

from swapstore.commands import Stage, Staged, Swap
from swapstore.errors import SwapstoreError
from swapstore.format import append, manifest, pages, records
from swapstore.format.append import Stamp
from swapstore.models import Commit as Published
from swapstore.models import Entry, Row, Snapshot
from swapstore.protocol.context import Context
from swapstore.protocol.operation import Operation
from swapstore.protocol.publish import Publication, publish
from swapstore.protocol.read import read_latest
from swapstore.testing import Keyspace
from tests.support.explore import KEYS, Explorer, Faults, Next, Outcome, State

D = "d"
MANIFEST = KEYS.manifest(D)

Client = Callable[[Context], Operation[Any]]


def producer(payload: bytes, **options: Any) -> Client:
    """A producer of one payload, with its own ts by default."""
    wanted = Publication(dataset=D, payload=payload, codec="bytes", **options)
    return lambda context: publish(context, wanted)


def reader(context: Context) -> Operation[Snapshot | None]:
    """A reader of the latest snapshot."""
    return read_latest(context, D)


def remembering(client: Client) -> Client:
    """The same client, but it has read the dataset before and begins with a warm cache."""

    def operation(context: Context) -> Operation[Any]:
        yield from read_latest(context, D)
        return (yield from client(context))

    return operation


def with_history(count: int) -> Keyspace:
    """This many snapshots are published."""
    keyspace, base = Keyspace(), None
    for number in range(count):
        payload = b"%d" % number
        entry = Entry(
            id=f"old-{number}",
            ts=number,
            size=len(payload),
            sha256=records.digest(payload),
            codec="bytes",
            labels={},
        )
        draft = append.append(
            base,
            entry,
            dataset=D,
            dedupe_key=None,
            stamp=Stamp(now_ms=0, nonce="0" * 16, new_epoch="e" * 12, keys=KEYS),
        )
        assert draft.row is not None
        staged = {
            KEYS.id(D, entry.id): records.pack(records.entry_fields(entry), payload),
            KEYS.ts(D, entry.ts, entry.id): records.pack_ts(draft.row, "e" * 12),
            **{page.ref.key: page.record for page in draft.pages},
        }
        for key, data in staged.items():
            keyspace.apply(Stage(key, data, 1), 0)
            keyspace.commit(_making_permanent(key), 0, writes=1)
        keyspace.commit(_swap(draft, base), 0)
        base = draft.manifest
    return keyspace


def _making_permanent(key: str) -> Swap:
    return Swap(
        key="nowhere",
        expected=b"",
        prefix=b"-",
        manifest=b"",
        live_key="",
        staged=(Staged(key, b""),),
        staging_ttl_ms=1,
        grace_ms=1,
    )


def _swap(draft: append.Draft, base: manifest.Manifest | None) -> Swap:
    return Swap(
        key=MANIFEST,
        expected=manifest.prefix(base.etag) if base else b"",
        prefix=manifest.prefix(draft.manifest.etag),
        manifest=draft.manifest.raw,
        live_key=KEYS.live(D),
        staging_ttl_ms=1,
        grace_ms=1,
    )


# --- what is explored ------------------------------------------------------------------------------

ONE, TWO, THREE = (producer(b"%d" % n, id=f"new-{n}", ts=10 + n) for n in (1, 2, 3))
KEYED_ONE, KEYED_TWO, KEYED_THREE = (
    producer(b"%d" % n, id=f"new-{n}", ts=10 + n, dedupe_key="k") for n in (1, 2, 3)
)
TIMELESS_ONE, TIMELESS_TWO = (producer(b"%d" % n, id=f"new-{n}") for n in (1, 2))
SAME = producer(b"same", id="x", ts=5)
OTHER = producer(b"other", id="x", ts=5)


@attrs.frozen
class Scenario:
    """Some clients, on a store with this many snapshots, in pages of this many rows."""

    clients: tuple[Client, ...]
    history: int = 1
    page_rows: int = 8


SCENARIOS = {
    "two producers, different ids": Scenario((ONE, TWO)),
    "two producers, different ids, nothing published": Scenario((ONE, TWO), history=0),
    "two producers that remember an old version": Scenario((remembering(ONE), remembering(TWO))),
    "two producers, the same id and content": Scenario((SAME, SAME)),
    "two producers, the same id, other content": Scenario((SAME, OTHER)),
    "two producers that leave the time to the library": Scenario((TIMELESS_ONE, TIMELESS_TWO)),
    "two producers, the same dedupe key": Scenario((KEYED_ONE, KEYED_TWO)),
    "two producers that seal a page": Scenario((ONE, TWO), history=3, page_rows=2),
    "two producers and a reader": Scenario((ONE, TWO, reader)),
    "two producers and a reader that remembers": Scenario((ONE, TWO, remembering(reader))),
    "three producers, different ids": Scenario((ONE, TWO, THREE)),
    "three producers, the same id and content": Scenario((SAME, SAME, SAME)),
    "three producers, the same dedupe key": Scenario((KEYED_ONE, KEYED_TWO, KEYED_THREE)),
}
BUDGETS = {
    "none": Faults(),
    "one crash": Faults(crash=1),
    "one lost reply": Faults(lost=1),
    "one late command": Faults(late=1),
    "a crash and a lost reply": Faults(crash=1, lost=1),
    "one key expires": Faults(expire=1),
    "a commit is cut": Faults(torn=1),
}
ONE_FAULT = {name: faults for name, faults in BUDGETS.items() if name != "a crash and a lost reply"}
NO_CUT = {name: faults for name, faults in ONE_FAULT.items() if name != "a commit is cut"}


def explore(scenario: Scenario, faults: Faults) -> Outcome:
    """Visit every state of a scenario under a budget of faults."""
    usual, manifest.F = manifest.F, scenario.page_rows
    try:
        explorer = Explorer(
            list(scenario.clients),
            start=with_history(scenario.history),
            faults=faults,
            judge=Judge(torn=faults.torn > 0),
        )
        return explorer.run()
    finally:
        manifest.F = usual


# --- what must hold --------------------------------------------------------------------------------


class Judge:
    """Checks every state. What depends on the stored content alone is checked once for each content."""

    def __init__(self, *, torn: bool = False) -> None:
        self._torn = torn
        self._rows: dict[Any, tuple[Row, ...]] = {}

    def __call__(self, keyspace: Keyspace, steps: list[Next | None], state: State) -> None:
        content = keyspace.fingerprint()
        if content not in self._rows:
            self._rows[content] = check_content(keyspace, leaks_allowed=self._torn)
        rows = self._rows[content]
        created = [step.result.version for step in steps if step and getattr(step.result, "created", False)]
        assert len(created) == len(set(created)), "two producers were told that they created one version"
        for index, step in enumerate(steps):
            if step is None or step.batch is not None:
                continue
            if isinstance(step.result, Published):
                check_acknowledged(step.result, rows)
            elif isinstance(step.result, Snapshot):
                seen_through = int(step.result.etag.split(".")[1])
                assert seen_through >= (state.clients[index].began or 0), "a read missed what was there"
                shown = [row for row in rows if row.version == step.result.version]
                assert [row.id for row in shown] == [step.result.id], "a read showed what is not committed"
            elif step.error is not None:
                assert isinstance(step.error, SwapstoreError)


def check_content(keyspace: Keyspace, *, leaks_allowed: bool) -> tuple[Row, ...]:
    """Invariants 1, 4, 6 and 7 of the protocol."""
    values = keyspace.values
    stored = values.get(MANIFEST)
    if stored is None:
        assert leaks_allowed or all(value.expires_at is not None for value in values.values())
        return ()
    assert stored.expires_at is None
    current = manifest.parse(stored.data, D, MANIFEST)
    reachable = {MANIFEST}
    rows: list[Row] = []
    for ref in current.log.pages:
        reachable.add(ref.key)
        rows += manifest_page(keyspace, ref).rows
    rows += current.log.rows
    for row in (*rows, *current.head.kept):
        id_key, ts_key = KEYS.id(D, row.id), KEYS.ts(D, row.ts, row.id)
        records.held(values[id_key].data, row, id_key).payload(None)
        assert records.states_ts(values[ts_key].data, row)
        reachable |= {id_key, ts_key}
    for key, value in values.items():
        if key in reachable:
            assert value.expires_at is None, f"{key} is committed and may expire"
        else:
            assert leaks_allowed or value.expires_at is not None, f"{key} leaks"
    assert [row.version for row in rows] == list(range(1, current.version + 1)), "versions are dense"
    assert len({row.id for row in rows}) == len(rows), "one row per id"
    assert current.head.count == len(rows)
    assert current.head.latest.ts == max(row.ts for row in rows)
    keys = [row.dedupe_key for row in rows if row.dedupe_key]
    assert len(keys) == len(set(keys)), "one commit per dedupe key"
    return tuple(rows)


def manifest_page(keyspace: Keyspace, ref: Any) -> Any:
    """The page of a reference, checked."""
    value = keyspace.values[ref.key]
    assert value.expires_at is None
    return pages.parse(value.data, ref, D)


def check_acknowledged(commit: Published, rows: tuple[Row, ...]) -> None:
    """What was acknowledged is committed, under the version that was returned."""
    row = next((row for row in rows if row.version == commit.version), None)
    assert row is not None, "an acknowledged publish is lost"
    assert (row.id, row.sha256) == (commit.id, commit.sha256)
