"""`swapstore demo`: publish eight datasets, then cut a publish short after each of its commands.

`run_demo` yields what happened, step by step, and the rest prints it.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import attrs

from swapstore import figures
from swapstore.cli import output
from swapstore.cli.session import CurrentSession, Session
from swapstore.errors import Damaged
from swapstore.models import Snapshot
from swapstore.store import Store

NAMESPACE = "demo"
DATASETS = (
    "mena",
    "east-asia",
    "europe",
    "north-america",
    "south-asia",
    "latam",
    "sub-saharan-africa",
    "global",
)
DATASET = DATASETS[0]  # whose publishes are cut short
LABELS = {"trigger": "demo"}


@attrs.frozen(kw_only=True)
class PublishStep:
    """One of the eight publishes."""

    step: str = "publish"
    dataset: str
    version: int
    id: str
    size: int
    ms: float


@attrs.frozen(kw_only=True)
class CutStep:
    """A publish that was cut short after `commands` commands, and what a reader saw then.

    `last_command` is the last one that was carried out; None: there was none. `completed`: the publish had
    no further command to cut. `fault` says what was wrong with what the reader saw; None: nothing.
    """

    step: str = "cut"
    commands: int
    last_command: str | None
    completed: bool
    version: int | None = None
    id: str | None = None
    whole: bool = False
    fault: str | None = None


@attrs.frozen(kw_only=True)
class Conclusion:
    """What all of it shows. `whole`: every reader saw one version, whole."""

    step: str = "conclusion"
    whole: bool
    text: str


def demo(*, session: CurrentSession) -> None:
    """Cut a publish short after each of its commands, and show what readers see.

    Publishes eight datasets of about 26 KB first. After each cut, a new client
    reads: it gets the previous version until the commit, and never half of one.
    Works in the namespace demo, unless --namespace is given.

    For example:
      swapstore demo --url redis://localhost:6379/0
    """
    if session.namespace_option is None:
        session = attrs.evolve(session, namespace_option=NAMESPACE)
    steps = run_demo(session)
    faults = _print(session, steps) if session.human_readable else _write(steps)
    if faults:
        raise Damaged(f"the demo saw what must never be seen: {'; '.join(faults)}", dataset=DATASET)


# --- what happens ----------------------------------------------------------------------------------


def run_demo(session: Session) -> Iterator[PublishStep | CutStep]:
    """Run the demo, and yield each step when it is done."""
    run = secrets.token_hex(3)
    with session.connect() as store:
        for dataset in DATASETS:
            yield _publish(store, dataset, f"{dataset}-{run}-0")
        store.unpin(DATASET)  # an earlier demo suggested to pin, and readers would see that snapshot only
        for commands in itertools.count():
            cut = _cut(session, store, f"{DATASET}-{run}-{commands + 1}", commands)
            yield cut
            if cut.completed:
                return


def _publish(store: Store, dataset: str, snapshot_id: str) -> PublishStep:
    value = content(dataset, snapshot_id)
    began = time.perf_counter()
    commit = store.publish(dataset, value, id=snapshot_id, labels=LABELS)
    ms = round((time.perf_counter() - began) * 1000, 1)
    return PublishStep(dataset=dataset, version=commit.version, id=commit.id, size=commit.size, ms=ms)


def _cut(session: Session, store: Store, snapshot_id: str, commands: int) -> CutStep:
    """Publish with a client that crashes after so many commands, then read with a new one."""
    from swapstore.testing import Crash, failing_at, faulty  # noqa: PLC0415 - only the demo needs faults

    client, driver = faulty(store, failing_at(commands))
    commit = None
    with suppress(Crash):
        commit = client.publish(DATASET, content(DATASET, snapshot_id), id=snapshot_id, labels=LABELS)
    last = _in_words(driver.done[-1]) if driver.done else None
    cut = CutStep(commands=len(driver.done), last_command=last, completed=commit is not None)
    try:
        with session.connect() as reader:
            snapshot = reader.read_latest(DATASET)
    except Damaged as error:
        return attrs.evolve(cut, fault=str(error))
    if snapshot is None:
        return attrs.evolve(cut, fault="a reader found nothing published")
    fault = _fault_of(snapshot)
    if commit is None and snapshot.id == snapshot_id:
        fault = f"id {snapshot_id} was not committed, and a reader sees it"
    if commit is not None and snapshot.version < commit.version:
        fault = f"version {commit.version} was committed, and a reader sees version {snapshot.version}"
    return attrs.evolve(cut, version=snapshot.version, id=snapshot.id, whole=fault is None, fault=fault)


def _fault_of(snapshot: Snapshot) -> str | None:
    """Compare what a reader saw, bytes and value, with what was published under its id."""
    digest = hashlib.sha256(snapshot.raw).hexdigest()
    if digest == snapshot.sha256 and snapshot.value == content(DATASET, snapshot.id):
        return None
    return f"version {snapshot.version} is not what was published under its id"


def _in_words(command: Any) -> str:
    """Describe a command of the publish by what it does on Redis, and the record that it does it to."""
    kind, record = type(command).__name__, command.key.partition("{")[0].rstrip(":").rpartition(":")[2]
    words = {"Get": f"GET {record}", "Register": f"SADD {record}", "Swap": f"commit (SET {record})"}
    return words.get(kind) or f"SET {record} record (staged)"


# --- what is published -----------------------------------------------------------------------------

START_MS = 1_767_225_600_000  # 2026-01-01T00:00Z: the content depends on the id alone, not on the clock
OBSERVATIONS = 190  # some 26 KB, the size of a real snapshot

_REGIMES = ("calm", "watchful", "strained", "escalating")
_SOURCES = ("wire", "satellite", "transponder", "filing", "market")
_TOPICS = ("port calls", "convoy movements", "grid load", "bond spreads", "grain tenders", "border crossings")
_CHANGES = ("fell short of", "ran ahead of", "matched", "diverged from")
_NORMS = ("the seasonal norm", "last week's guidance", "the insurers' estimate", "the announced schedule")


def content(dataset: str, snapshot_id: str) -> dict[str, Any] | None:
    """Return what the demo publishes under an id; None for an id that the demo does not make.

    It depends on the id alone, so that a reader can check what it sees even while other demos run.
    """
    number = snapshot_id.rpartition("-")[2]
    if not number.isdecimal():
        return None
    rng = random.Random(f"{dataset}/{number}")  # noqa: S311 - invented content, no secret
    generated_at = START_MS + int(number) * 21_600_000
    return {
        "region": dataset,
        "generated_at": generated_at,
        "regime": {"label": rng.choice(_REGIMES), "confidence": round(rng.uniform(0.4, 0.95), 3)},
        "observations": [_observation(rng, generated_at) for _ in range(OBSERVATIONS)],
    }


def _observation(rng: random.Random, generated_at: int) -> dict[str, Any]:
    change = f"{rng.choice(_CHANGES)} {rng.choice(_NORMS)} by {rng.uniform(0.5, 30):.1f} %"
    return {
        "source": rng.choice(_SOURCES),
        "observed_at": generated_at - rng.randrange(7 * 86_400_000),
        "confidence": round(rng.uniform(0.3, 0.99), 3),
        "summary": f"{rng.choice(_TOPICS)} {change}",
    }


# --- how it is printed -----------------------------------------------------------------------------


def _write(steps: Iterator[PublishStep | CutStep]) -> list[str]:
    """Write the steps and what they show as JSON, and return the faults."""
    cuts: list[CutStep] = []
    for step in steps:
        output.write_json(step)
        if isinstance(step, CutStep):
            cuts.append(step)
    output.write_json(_conclusion(cuts))
    return _faults(cuts)


def _print(session: Session, steps: Iterator[PublishStep | CutStep]) -> list[str]:
    """Print two tables and what they show, and return the faults."""
    publishes: list[PublishStep] = []
    cuts: list[CutStep] = []
    with output.stdout_console().status("publishing") as progress:
        for step in steps:
            if isinstance(step, PublishStep):
                publishes.append(step)
                progress.update(f"published {step.dataset}")
            else:
                cuts.append(step)
                progress.update(f"cut short after {step.commands} commands")
    _print_publishes(session, publishes)
    _print_cuts(cuts)
    if not _faults(cuts):
        _print_conclusion(session, cuts)
    return _faults(cuts)


def _faults(cuts: list[CutStep]) -> list[str]:
    return [cut.fault for cut in cuts if cut.fault is not None]


def _conclusion(cuts: list[CutStep]) -> Conclusion:
    if _faults(cuts):
        return Conclusion(whole=False, text=f"A reader of {DATASET} saw what must never be seen.")
    *before, after = (cut.version for cut in cuts)
    if len(set(before)) == 1:
        when = f": version {before[0]} until the commit, version {after} after it"
    else:  # other producers committed at the same time
        when = ", at every moment"
    text = f"However far the publish got, a reader saw one version of {DATASET}, whole{when}."
    return Conclusion(whole=True, text=text)


def _print_publishes(session: Session, publishes: list[PublishStep]) -> None:
    with session.connect() as store:
        output.print_text(f"On {store.where}, in namespace {store.namespace!r}:")
    output.print_text()
    output.print_table(
        ("dataset", "version", "id", "size"),
        ((step.dataset, str(step.version), step.id, figures.size(step.size)) for step in publishes),
        numbers=("version", "size"),
    )
    total_ms = sum(step.ms for step in publishes)
    output.print_text()
    output.print_text(f"{len(publishes)} snapshots published in {total_ms:,.0f} ms.")
    output.print_text(f"Then a publish of {DATASET} was cut short after each of its commands in turn:")
    output.print_text()


def _print_cuts(cuts: list[CutStep]) -> None:
    output.print_table(
        ("commands", "the last one carried out", "a reader then sees", "id"),
        (
            (
                str(cut.commands),
                cut.last_command or "none",
                f"version {cut.version}, whole" if cut.whole else "NOT WHOLE",
                cut.id or "",
            )
            for cut in cuts
        ),
        numbers=("commands",),
    )


def _print_conclusion(session: Session, cuts: list[CutStep]) -> None:
    output.print_text()
    output.print_text(_conclusion(cuts).text)
    output.print_text()
    output.print_text("Try next:")
    output.print_commands(
        session.command_line("history", DATASET),
        session.command_line("latest", DATASET),
        session.command_line("pin", DATASET, "--id", str(cuts[0].id)),
    )
