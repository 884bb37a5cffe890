"""The demo shows what readers see, and fails when they see something wrong."""

from __future__ import annotations

import shlex

import attrs
import msgspec
import pytest

from swapstore import PayloadMissing, Snapshot, Store, connect
from swapstore.cli.demo import DATASETS, content
from tests.cli.conftest import Swapstore
from tests.support.valkey import Server

STEPS = [
    None,
    "GET manifest",
    "SADD datasets",
    "SET id record (staged)",
    "SET ts record (staged)",
    "commit (SET manifest)",
]


@pytest.mark.parametrize("dataset", DATASETS)
def test_snapshots_are_of_realistic_size(dataset: str) -> None:
    """The demo would prove something about toys only."""
    snapshots = [content(dataset, f"{dataset}-abcdef-{number}") for number in range(12)]
    for snapshot in snapshots:
        assert 24_000 <= len(msgspec.json.encode(snapshot)) <= 28_000
        assert snapshots.count(snapshot) == 1


def test_the_content_depends_on_the_id_alone() -> None:
    """A reader could not check a snapshot that another demo published, and would call the store broken."""
    assert content("mena", "mena-abcdef-3") == content("mena", "mena-fedcba-3")
    assert content("mena", "published-by-somebody-else") is None


def the_facts_are_right(facts: list[dict[str, object]], before: int) -> None:
    publishes = [fact for fact in facts if fact["step"] == "publish"]
    cuts = [fact for fact in facts if fact["step"] == "cut"]
    assert [fact["dataset"] for fact in publishes] == list(DATASETS)
    assert [cut["last_command"] for cut in cuts] == STEPS
    assert [cut["commands"] for cut in cuts] == list(range(6))
    assert [cut["version"] for cut in cuts] == [before] * 5 + [before + 1]
    assert all(cut["whole"] for cut in cuts)
    assert [cut["completed"] for cut in cuts] == [False] * 5 + [True]
    assert facts[-1]["step"] == "conclusion"
    assert facts[-1]["whole"] is True
    assert f"version {before} until the commit, version {before + 1} after it" in str(facts[-1]["text"])


def test_every_cut_leaves_the_previous_version(swapstore: Swapstore) -> None:
    """The first demo, or a second one, would not show what the README promises."""
    the_facts_are_right(swapstore("demo").lines, before=1)
    second = swapstore("demo", env={"SWAPSTORE_NAMESPACE": "production"})
    the_facts_are_right(second.lines, before=3)
    with connect(swapstore.url, namespace="production") as store:
        assert store.datasets() == []


def test_the_demo_on_a_real_server(swapstore: Swapstore, valkey: Server) -> None:
    """The demo would work on the embedded file only."""
    the_facts_are_right(swapstore.inside("demo", "--url", valkey.url).lines, before=1)


def test_a_demo_after_somebody_pinned(swapstore: Swapstore) -> None:
    """The demo suggests a pin; the next demo would then call the store broken."""
    first = swapstore.inside("demo").lines[0]
    assert swapstore.inside("--namespace", "demo", "pin", "mena", "--id", first["id"]).code == 0
    assert swapstore.inside("demo").code == 0


def test_a_person_sees_tables_and_what_to_try_next(swapstore: Swapstore) -> None:
    """A person would see JSON, or copy a suggested command that does not work."""
    seen = swapstore.on_a_terminal("demo", "--namespace", "other", columns=80)
    assert seen.code == 0
    text = seen.out.decode()
    for words in ("the last one carried out", "SET ts record (staged)", "version 2, whole", "26.0 KB"):
        assert words in text
    assert "version 1 until the commit, version 2 after it." in text.replace(" \n", " ")
    suggested = [shlex.split(line) for line in text.splitlines() if line.startswith("  swapstore ")]
    assert len(suggested) == 3
    for command in suggested:
        assert swapstore.inside(*command[1:]).code == 0, command


@pytest.mark.parametrize("fault", ["altered", "older", "nothing", "missing"])
def test_a_reader_that_sees_anything_else_fails_the_demo(
    fault: str, swapstore: Swapstore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The demo would succeed whatever its readers see, and prove nothing."""
    true_read = Store.read_latest

    def read_latest(store: Store, dataset: str) -> Snapshot | None:
        snapshot = true_read(store, dataset)
        assert snapshot is not None
        match fault:
            case "altered":
                return attrs.evolve(snapshot, raw=snapshot.raw.replace(b"a", b"b", 1))
            case "older":
                return store.read(dataset, version=1)
            case "missing":
                raise PayloadMissing("the record is gone", dataset=dataset)
            case _:
                return None

    monkeypatch.setattr(Store, "read_latest", read_latest)
    done = swapstore.inside("demo")
    assert done.code == 5
    assert done.lines[-1]["whole"] is False
    assert done.err.startswith("swapstore: dataset 'mena': the demo saw what must never be seen")
