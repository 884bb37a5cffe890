"""Recorded histories of real stores are linearizable, also with lost replies and late requests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Barrier

import pytest

import swapstore
from swapstore import Store
from swapstore.fsck.findings import Problem
from tests.linearizability import process, recorder
from tests.linearizability.chaos import FAULTS, Chaos, disturbed
from tests.linearizability.chaos_proxy import ChaosProxy
from tests.linearizability.checker import violations
from tests.linearizability.events import Event, save
from tests.linearizability.recorder import DATASET, Plan
from tests.support import invariants
from tests.support.rest import RestServer
from tests.support.rest_switches import NO_SCRIPTS
from tests.support.valkey import Server

pytestmark = pytest.mark.every_store

SEEDS = [11, 12]


def plans(seed: int, *, calls: int, readers: int = 1, impatient: bool = False) -> list[Plan]:
    """Three clients that publish and read, and some that only read."""
    mixed = [
        Plan(client=name, seed=seed + number, calls=calls, share=0.6, impatient=impatient)
        for number, name in enumerate("abc")
    ]
    reading = [
        Plan(client=f"reader{number}", seed=seed, calls=2 * calls, share=0, impatient=impatient)
        for number in range(readers)
    ]
    return mixed + reading


def run_threads(jobs: list[tuple[Plan, Store]]) -> list[Event]:
    """Carry out all plans at once, each on its store."""
    barrier = Barrier(len(jobs), timeout=30)

    def work(plan: Plan, store: Store) -> list[Event]:
        barrier.wait()
        return recorder.run(store, plan)

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [event for future in [pool.submit(work, *job) for job in jobs] for event in future.result()]


def check(events: list[Event], url: str, keep: Path, *, leaks: bool = False) -> Counter[str]:
    """Assert that a history is linearizable and the store whole; count the outcomes.

    `leaks`: records that nothing names may be without a TTL.
    """
    with swapstore.connect(url) as store:
        rows = [(row.version, row.id) for row in store.history(DATASET, limit=None)][::-1]
        save(keep / "history.jsonl", events, rows)
        found = violations(events, rows)
        assert not found, "\n".join([f"see {keep}/history.jsonl", *found])
        if leaks:
            assert {each.problem for each in store.verify() if each.wrong} <= {Problem.LEAKED}
        else:
            assert [(row.version, row.id) for row in invariants.check(store)] == rows
    counts = Counter(f"{event.kind} {event.outcome}" for event in events)
    acknowledged = {event.id for event in events if event.outcome == "ok" and event.kind == "publish"}
    counts["unknown and committed"] = len({identifier for _, identifier in rows} - acknowledged)
    return counts


@contextmanager
def stores(urls: Iterable[str], *, shared: bool) -> Iterator[list[Store]]:
    """A store for each address; or one store, returned again and again."""
    with ExitStack() as stack:
        made = [stack.enter_context(swapstore.connect(url)) for url in urls]
        yield [made[0]] * len(made) if shared else made


@pytest.mark.parametrize("shared", [True, False], ids=["one store", "a store each"])
def test_threads(real_url: str, tmp_path: Path, *, shared: bool) -> None:
    """A thread reads what was replaced before it asked, or loses an acknowledged publish."""
    work = plans(1, calls=70, readers=2)
    with stores([real_url] * len(work), shared=shared) as clients:
        events = run_threads(list(zip(work, clients, strict=True)))
    counts = check(events, real_url, tmp_path)
    assert set(counts) - {"unknown and committed"} == {"publish ok", "read ok"}, "nothing was disturbed"


def test_processes(real_url: str, tmp_path: Path) -> None:
    """Several hosts see the versions in different orders."""
    events = process.run_all(dict.fromkeys(plans(1, calls=60), real_url))
    counts = check(events, real_url, tmp_path)
    assert set(counts) - {"unknown and committed"} == {"publish ok", "read ok"}, "nothing was disturbed"


# --- with delays, lost replies and late requests ---------------------------------------------------------


@contextmanager
def proxied(server: Server, seed: int, count: int) -> Iterator[list[ChaosProxy]]:
    """Addresses of the server behind faulty proxies, each with its own seed. All late requests arrive."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(ChaosProxy(server.port, Chaos(100 * seed + number)))
            for number in range(count)
        ]


def was_disturbed(chaos: Iterable[Chaos], counts: Counter[str]) -> None:
    """Assert that faults happened: a history without any proves nothing here."""
    drawn = sum((each.drawn for each in chaos), Counter[str]())
    assert all(drawn[fault] for fault in FAULTS), drawn
    assert counts["publish ok"] > counts["publish unknown"] > 0, counts
    assert counts["read ok"] > counts["read failed"], counts


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("shared", [True, False], ids=["one store", "a store each"])
def test_threads_on_a_bad_network(valkey: Server, seed: int, tmp_path: Path, *, shared: bool) -> None:
    """A retry after a lost reply commits twice, or a late request undoes a newer version."""
    work = plans(seed, calls=50, impatient=True)
    count = 1 if shared else len(work)
    with proxied(valkey, seed, count) as ways, stores([way.url for way in ways], shared=False) as clients:
        events = run_threads(list(zip(work, clients * (len(work) // count), strict=True)))
    counts = check(events, valkey.url, tmp_path)
    was_disturbed([way.chaos for way in ways], counts)


def test_patient_threads_on_a_bad_network(valkey: Server, tmp_path: Path) -> None:
    """The library resolves a lost reply wrongly, and gives a producer a wrong result."""
    work = plans(SEEDS[0], calls=50)
    with (
        proxied(valkey, SEEDS[0], len(work)) as ways,
        stores([way.url for way in ways], shared=False) as clients,
    ):
        events = run_threads(list(zip(work, clients, strict=True)))
    counts = check(events, valkey.url, tmp_path)
    assert counts["publish ok"] > 5 * counts["publish unknown"], "it resolves nearly all of them"


def test_processes_on_a_bad_network(valkey: Server, tmp_path: Path) -> None:
    """Several hosts on a bad network lose or repeat a version."""
    work = plans(SEEDS[0], calls=50, impatient=True)
    with proxied(valkey, SEEDS[0], len(work)) as ways:
        events = process.run_all({plan: way.url for plan, way in zip(work, ways, strict=True)})
    counts = check(events, valkey.url, tmp_path)
    was_disturbed([way.chaos for way in ways], counts)


@pytest.mark.parametrize("seed", SEEDS)
def test_threads_on_a_file_that_loses_replies(seed: int, tmp_path: Path) -> None:
    """A file on a failing disk, where SQLite loses replies, commits twice."""
    url = f"sqlite:///{tmp_path}/store.db"
    work = plans(seed, calls=50, impatient=True)
    chaos = [Chaos(100 * seed + number) for number in range(len(work))]
    with stores([url] * len(work), shared=False) as clients, ExitStack() as stack:
        shaky = [
            stack.enter_context(disturbed(store, each)) for store, each in zip(clients, chaos, strict=True)
        ]
        events = run_threads(list(zip(work, shaky, strict=True)))
    counts = check(events, url, tmp_path)
    was_disturbed(chaos, counts)


# --- over REST -------------------------------------------------------------------------------------------


@pytest.fixture
def rest(valkey: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[RestServer]:
    """A REST endpoint of the real server, with its token in the environment, for processes too."""
    with RestServer(valkey) as running:
        monkeypatch.setenv("UPSTASH_REDIS_REST_TOKEN", running.token)
        yield running


def test_processes_over_rest(rest: RestServer, valkey: Server, tmp_path: Path) -> None:
    """Two hosts commit on the same version, because a pipeline over REST is not atomic."""
    events = process.run_all(dict.fromkeys(plans(1, calls=25), rest.url))
    counts = check(events, valkey.url, tmp_path)
    assert set(counts) - {"unknown and committed"} == {"publish ok", "read ok"}, "nothing was disturbed"


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_threads_on_bad_rest(rest: RestServer, valkey: Server, tmp_path: Path, *, scripts: bool) -> None:
    """A lost reply or a late request over REST commits twice, or undoes a newer version."""
    if not scripts:
        rest.switches.denied = NO_SCRIPTS
    seed = SEEDS[0]
    work = plans(seed, calls=30, impatient=True)
    chaos = [Chaos(100 * seed + number) for number in range(len(work))]
    with stores([rest.url] * len(work), shared=False) as clients, ExitStack() as stack:
        shaky = [
            stack.enter_context(disturbed(store, each)) for store, each in zip(clients, chaos, strict=True)
        ]
        events = run_threads(list(zip(work, shaky, strict=True)))
    counts = check(events, valkey.url, tmp_path, leaks=not scripts)
    was_disturbed(chaos, counts)
