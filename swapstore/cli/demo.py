"""`swapstore demo`: eight regions are published, then a publish is cut short after each of its commands.

The facts are gathered here, as they happen; how they are shown is `demo_shown`'s part.
"""

from __future__ import annotations

import hashlib
import itertools
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import attrs

from swapstore.cli.demo_snapshots import REGIONS, snapshot_of
from swapstore.cli.output import emit_json
from swapstore.cli.session import Here, Session
from swapstore.errors import Damaged
from swapstore.models import Snapshot
from swapstore.store import Store

NAMESPACE = "demo"
REGION = REGIONS[0]
LABELS = {"trigger": "demo"}


@attrs.frozen(kw_only=True)
class Publish:
    """One of the eight publishes."""

    step: str = "publish"
    dataset: str
    version: int
    id: str
    size: int
    ms: float


@attrs.frozen(kw_only=True)
class Cut:
    """A publish that got as far as `commands`, and what a reader then saw.

    `last_command` is the last one carried out, None when there was none. `completed` says that there was
    none left to cut. `fault` is None when the reader saw a published version whole, or else what it saw.
    """

    step: str = "cut"
    commands: int
    last_command: str | None
    completed: bool
    version: int | None = None
    id: str | None = None
    whole: bool = False
    fault: str | None = None


def demo(*, session: Here) -> None:
    """Show that readers see whole versions only, whenever a publish is cut short.

    Publishes eight regions of about 26 KB, then cuts a publish short after each of its commands in turn
    and reads with a new client each time. Works in namespace demo unless --namespace says otherwise.
    """
    if session.namespace_option is None:
        session = attrs.evolve(session, namespace_option=NAMESPACE)
    if session.for_a_person:
        from swapstore.cli.demo_shown import show  # noqa: PLC0415 - only a person waits for rich

        faults = show(session, run_demo(session))
    else:
        faults = _emit(run_demo(session))
    if faults:
        raise Damaged(f"the demo saw what must never be seen: {'; '.join(faults)}", dataset=REGION)


def run_demo(session: Session) -> Iterator[Publish | Cut]:
    """Do it, and yield each fact as it becomes known."""
    run = secrets.token_hex(3)
    with session.connect() as store:
        yield from _publish_all(store, run)
        store.unpin(REGION)  # after an earlier demo somebody may have tried pin, as its last line suggests
        for after in itertools.count():
            cut = _cut(session, store, f"{REGION}-{run}-{after + 1}", after)
            yield cut
            if cut.completed:
                return


def _publish_all(store: Store, run: str) -> Iterator[Publish]:
    for region in REGIONS:
        snapshot_id = f"{region}-{run}-0"
        value = content(region, snapshot_id)
        began = time.perf_counter()
        commit = store.publish(region, value, id=snapshot_id, labels=LABELS)
        ms = round((time.perf_counter() - began) * 1000, 1)
        yield Publish(dataset=region, version=commit.version, id=commit.id, size=commit.size, ms=ms)


def content(region: str, snapshot_id: str) -> dict[str, Any] | None:
    """Return what a demo publishes under an id, or None for an id that no demo makes.

    The id alone tells, so that a reader can check what it sees also when several demos run at once.
    """
    number = snapshot_id.rpartition("-")[2]
    return snapshot_of(region, int(number)) if number.isdecimal() else None


def _cut(session: Session, store: Store, snapshot_id: str, after: int) -> Cut:
    """Let a client die after so many commands of a publish, then look with another."""
    from swapstore.testing import Crash, failing_at, faulty  # noqa: PLC0415 - only the demo breaks things

    client, driver = faulty(store, failing_at(after))
    commit = None
    with suppress(Crash):
        commit = client.publish(REGION, content(REGION, snapshot_id), id=snapshot_id, labels=LABELS)
    last = in_words(driver.done[-1]) if driver.done else None
    cut = Cut(commands=len(driver.done), last_command=last, completed=commit is not None)
    try:
        with session.connect() as reader:
            snapshot = reader.read_latest(REGION)
    except Damaged as error:
        return attrs.evolve(cut, fault=str(error))
    if snapshot is None:
        return attrs.evolve(cut, fault="nothing is published, says a reader")
    fault = judge(snapshot)
    if commit is None and snapshot.id == snapshot_id:
        fault = f"id {snapshot_id} was not committed, and a reader sees it"
    if commit is not None and snapshot.version < commit.version:
        fault = f"version {commit.version} was committed, and a reader sees version {snapshot.version}"
    return attrs.evolve(cut, version=snapshot.version, id=snapshot.id, whole=fault is None, fault=fault)


def judge(snapshot: Snapshot) -> str | None:
    """Compare what a reader saw, bytes and value, with what was published under its id."""
    digest = hashlib.sha256(snapshot.raw).hexdigest()
    if digest == snapshot.sha256 and snapshot.value == content(REGION, snapshot.id):
        return None
    return f"version {snapshot.version} has another content than was published"


def in_words(command: Any) -> str:
    """Name a command of the publish by what it does on Redis, and the record it does it to."""
    kind, record = type(command).__name__, command.key.partition("{")[0].rstrip(":").rpartition(":")[2]
    words = {"Get": f"GET {record}", "Register": f"SADD {record}", "Commit": f"commit (SET {record})"}
    return words.get(kind) or f"SET {record} record (staged)"


def _emit(facts: Iterator[Publish | Cut]) -> list[str]:
    faults = []
    for fact in facts:
        emit_json(fact)
        if isinstance(fact, Cut) and fact.fault is not None:
            faults.append(fact.fault)
    return faults
