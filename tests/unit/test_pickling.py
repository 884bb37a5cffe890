"""Errors and values cross processes: they can be pickled and copied, and say the same afterwards."""

from __future__ import annotations

import copy
import inspect
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest

import swapstore
from swapstore import Retention, SomeFailed, SwapstoreError, Unavailable, errors, events, models, reports
from swapstore.doctor.check import Check, Node, Verdict
from swapstore.fsck.findings import Finding, Problem, Progress, Repair
from swapstore.migration.layout import Mirror
from swapstore.testing import SimulatedStore


def pickled(value: Any, protocol: int = pickle.DEFAULT_PROTOCOL) -> Any:
    return pickle.loads(pickle.dumps(value, protocol))  # noqa: S301 - these bytes are ours


COPIES: dict[str, Callable[[Any], Any]] = {
    **{
        f"pickle {number}": partial(pickled, protocol=number) for number in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}
KINDS = sorted(
    (
        kind
        for kind in vars(errors).values()
        if inspect.isclass(kind) and issubclass(kind, SwapstoreError) and kind is not SwapstoreError
    ),
    key=lambda kind: kind.__name__,
)


def made(kind: type[SwapstoreError]) -> SwapstoreError:
    """Make an error with a value for everything that its class takes."""
    if kind is SomeFailed:
        return SomeFailed({"mena": made(errors.Throttled), "europe": made(errors.IdConflict)}, of=3)
    values: dict[str, Any] = {"dataset": "mena", "key": "k", "id": "a", "reason": "bad", "retry_after_s": 1.5}
    taken: dict[str, Any] = {
        name: values.get(name, 7)
        for name, parameter in inspect.signature(kind).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    error = kind("what happened", **taken)
    error.dataset = "mena"
    return error


def told(error: SwapstoreError) -> dict[str, Any]:
    """Everything that an error says."""
    attributes = {
        name: {key: told(each) for key, each in value.items()} if name == "failures" else value
        for name, value in vars(error).items()
    }
    return {"kind": type(error), "text": str(error), "args": error.args, **attributes}


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_error_can_be_pickled_and_copied(kind: type[SwapstoreError], how: str) -> None:
    """A process pool hangs, because the error of its worker cannot be made again."""
    error = made(kind)
    again = COPIES[how](error)
    assert again is not error
    assert told(again) == told(error)


def an_error(kind: str) -> None:
    raise made(getattr(errors, kind))


@pytest.mark.slow
def test_an_error_comes_back_from_another_process() -> None:
    """`SomeFailed` in a worker hangs the whole pool."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        for kind in ("SomeFailed", "PayloadTooLarge", "OutcomeUnknown"):
            with pytest.raises(getattr(errors, kind)) as caught:
                pool.submit(an_error, kind).result(60)
            assert told(caught.value) == told(made(getattr(errors, kind)))


def values() -> dict[str, Any]:
    """One value of each public kind, by its name."""
    store = SimulatedStore(seed=1).connect()
    commit = store.publish("mena", {"a": [1]}, labels={"x": "y"}, dedupe_key="d")
    store.put_live("mena", 1, ttl=60)
    candidates: list[Any] = []
    store.publish("mena", 2, validate=lambda *given: candidates.append(given[0]))
    snapshot = store.read_latest("mena")
    assert snapshot is not None
    assert snapshot.value == 2, "the decoded value is there as well"
    row = next(iter(store.history("mena")))
    store.publish_group("regions", {"EG": 1, "SG": [2]})
    group = store.read_group("regions")
    assert group is not None
    assert group.value == {"EG": 1, "SG": [2]}
    steps: list[reports.CopyStep] = []
    copied = swapstore.copy(store, SimulatedStore().connect(), "mena", on_progress=steps.append)
    health = store.health({"mena": "12h"})
    finding = Finding(problem=next(iter(Problem)), dataset="mena", key="k")
    with store.view(["mena"]) as view:
        view_health = view.health()
    return {
        "Commit": commit,
        "Bound": swapstore.Bound(max_age="12h"),
        "Health": health,
        "DatasetHealth": health.datasets["mena"],
        "ViewHealth": view_health,
        "ViewedDataset": view_health.datasets["mena"],
        "Outcomes": store.publish_many({"mena": 3, "europe": {1}}),
        "Item": models.Item({"a": 1}, id="x", ts=1769839200000, labels={"x": "y"}),
        "Snapshot": snapshot,
        "Group": group,
        "Member": group["EG"],
        "Candidate": candidates[0],
        "LiveView": store.read_live("mena"),
        "Row": row,
        "Entry": models.Entry(id="a", ts=1, size=2, sha256="x", codec="json", labels={}),
        "Status": store.status("mena"),
        "Copied": copied[0],
        "CopyStep": steps[0],
        "Pruned": store.prune("mena"),
        "Recompressed": store.recompress("mena", compression="zstd"),
        "Dropped": reports.Dropped(dataset="mena", snapshots=3, republished=False),
        "Erased": reports.Erased(dataset="mena", id="a", version=1, etag="x", latest=2, stored_anew=0),
        "Durability": models.Durability(replicas=2, fsync=True),
        "Timeout": models.Timeout(connect=1.0, reply=2.0, total=3.0),
        "Retention": Retention(max_age=timedelta(1), max_count=3),
        "Gap": models.Gap(dataset="mena", after=1, resumes_at=2, reason="reset"),
        "Mirror": Mirror(prefix="old"),
        "Finding": finding,
        "Progress": Progress(dataset="mena", rows=1, total=2, keys=3),
        "Problem": next(iter(Problem)),
        "Check": Check(name="eviction", verdict=Verdict.OK, found="x", advice=""),
        "Node": Node(address="127.0.0.1:6379", role="primary"),
        "Verdict": Verdict.OK,
        "Change": swapstore.Change(kind="added", pointer="/a", after=1),
        "Diff": swapstore.diff({"a": [1]}, {"a": [2]}),
        "Repair": Repair(
            dataset="mena", applied=True, findings=(finding,), dropped=(), restored=(), left=(), version=1
        ),
        **{f"event {kind.__name__}": an_event(kind) for kind in EVENTS},
    }


EVENTS = [getattr(events, name) for name in events.__all__]


def an_event(kind: type[events.Event]) -> events.Event:
    return kind(**{field.name: "mena" for field in attrs.fields(kind)})


VALUES = values()


def test_every_public_value_is_tried() -> None:
    """A new kind of value is not among those below."""
    classes = {name for name in swapstore.__all__ if inspect.isclass(getattr(swapstore, name))}
    ours = {name for name in classes if not issubclass(getattr(swapstore, name), SwapstoreError)}
    assert ours - {"Store", "View"} <= set(VALUES)


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", VALUES)
def test_every_value_can_be_pickled_and_copied(name: str, how: str) -> None:
    """A task queue cannot send a commit or a snapshot to another process."""
    value = VALUES[name]
    again = COPIES[how](value)
    assert type(again) is type(value)
    if name == "Outcomes":
        assert again["mena"] == value["mena"]
        assert told(again["europe"]) == told(value["europe"])
        with pytest.raises(swapstore.InvalidInput):
            again.raise_for_failures()
    else:
        assert again == value
    if name in {"Snapshot", "Group"}:
        assert (again.raw, again.value) == (value.raw, value.value)


@pytest.mark.parametrize("how", COPIES)
def test_a_store_says_that_it_belongs_to_its_process(how: str, tmp_path: Path) -> None:
    """Somebody who hands a store to a process pool reads of a lock that cannot be pickled."""
    for store in (
        swapstore.connect(f"sqlite:///{tmp_path}/a.db"),
        swapstore.aio.connect(f"sqlite:///{tmp_path}/a.db"),
        swapstore.connect(f"sqlite:///{tmp_path}/a.db").view(["mena"]),
    ):
        with pytest.raises(TypeError, match="connect in each process"):
            COPIES[how](store)


def test_an_unpickled_error_can_be_raised_and_caught() -> None:
    """An error that came from another process cannot be raised again."""
    again = pickled(Unavailable("down", dataset="mena"))
    with pytest.raises(Unavailable, match="dataset 'mena': down"):
        raise again
