"""`swapstore copy`, as scripts and people run it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import swapstore as library
from swapstore import Store
from tests.cli.conftest import Swapstore
from tests.support.damage import Damage
from tests.support.times import at
from tests.support.valkey import free_port

D = "mena"


@pytest.fixture
def swapstore(tmp_path: Path) -> Swapstore:
    return Swapstore(tmp_path)


@pytest.fixture
def to(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/target.db"


def fill(url: str, **options: object) -> None:
    with library.connect(url, **options) as store:  # type: ignore[arg-type]
        for number in range(3):
            store.publish(D, number, id=f"id-{number}", ts=at(1000 + number))
        store.publish("other", 1, id="only", ts=at(1))


def ids(store: Store, dataset: str = D) -> list[str]:
    return [row.id for row in store.history(dataset)][::-1]


def test_a_script_gets_a_line_for_each_dataset(swapstore: Swapstore, to: str) -> None:
    """A cron job cannot tell what was copied, or whether all of it was."""
    fill(swapstore.url)
    done = swapstore.inside("copy", swapstore.url, to)
    rest = {"already": 0, "skipped": 0, "failed": 0, "failures": [], "ended": "", "complete": True}
    rest |= {"pinned": False}
    assert (done.code, done.err) == (0, "")
    assert done.lines == [
        {"dataset": D, "copied": 3, "size": 3, "source_serves": "id-2", "target_serves": "id-2", **rest},
        {
            "dataset": "other",
            "copied": 1,
            "size": 1,
            "source_serves": "only",
            "target_serves": "only",
            **rest,
        },
    ]
    again = swapstore.inside("copy", swapstore.url, to, "other")
    assert (again.json["copied"], again.json["already"]) == (0, 1)


def test_a_person_sees_a_table(swapstore: Swapstore, to: str) -> None:
    """A terminal shows JSON, or does not say what failed and why."""
    fill(swapstore.url)
    with library.connect(to) as target:
        target.publish(D, "another", id="id-1", ts=at(1001))
    seen = swapstore.on_a_terminal("copy", swapstore.url, to)
    assert seen.code == 3
    lines = [re.sub(" +", " ", line).strip() for line in seen.out.decode().splitlines()]
    assert lines[:1] + lines[2:] == [
        "dataset copied size there already skipped failed",
        "mena 1 1 B 0 0 1",
        "other 1 1 B 0 0 0",
        "mena: conflict, id id-1: id 'id-1' is committed already (version 1) with another",
        "payload, codec, ts or labels; an id names one content permanently. Publish under",
        "a new id, or without one",
        "mena: the rest of it is not copied",
    ]
    assert "not all of mena" in seen.err


def test_options(swapstore: Swapstore, to: str) -> None:
    """An option has no effect: everything is copied, or into the wrong namespace."""
    fill(swapstore.url, namespace="staging")
    copying = ("copy", swapstore.url, to, "--namespace", "staging")
    assert swapstore.inside(*copying, D, "--history", "latest").code == 0
    with library.connect(to, namespace="staging") as target:
        assert ids(target) == ["id-2"]
    assert swapstore.inside(*copying, D, "--to-namespace", "production", "--history", "2").code == 0
    with library.connect(to, namespace="production") as target:
        assert ids(target) == ["id-1", "id-2"]
        assert target.datasets() == [D]
    assert swapstore.inside(*copying, "--to-namespace", "short", "--max-count", "1").code == 0
    with library.connect(to, namespace="short") as target:
        assert ids(target) == ["id-2"]
    within = swapstore.inside(*copying[:2], swapstore.url, "--namespace", "staging", "--to-namespace", "b")
    assert within.code == 0, "another namespace of the same store"


def test_exit_codes(swapstore: Swapstore, to: str) -> None:
    """A script cannot tell a typo from an outage, or a refusal from damage."""
    empty = swapstore.inside("copy", swapstore.url, to)
    assert (empty.code, "nothing is published in the source" in empty.err) == (1, True)
    fill(swapstore.url)
    assert swapstore.inside("copy", swapstore.url, to, "unknown").code == 1
    assert swapstore.inside("copy", swapstore.url, swapstore.url).code == 2
    assert swapstore.inside("copy", swapstore.url).code == 2
    assert swapstore.inside("copy", swapstore.url, "target.db").code == 2
    assert swapstore.inside("copy", swapstore.url, to, "--history", "newest").code == 2
    assert swapstore.inside("copy", swapstore.url, to, "--url", to).code == 2
    away = swapstore.inside(
        "copy", swapstore.url, f"redis://u:hunter2@127.0.0.1:{free_port()}/0", "--patience", "0"
    )
    assert (away.code, "hunter2" in away.err) == (4, False)
    with library.connect(swapstore.url) as source:
        Damage(source).delete(source._context.keys.id(D, "id-1"))
    damaged = swapstore.inside("copy", swapstore.url, to)
    assert (damaged.code, damaged.lines[0]["failures"][0]["outcome"]) == (5, "damaged")


def test_addresses_from_the_environment(
    swapstore: Swapstore, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password of a store is shown to everyone who lists processes."""
    fill(swapstore.url)
    unset = swapstore.inside("copy", "env:HERE", "env:THERE")
    assert (unset.code, unset.err) == (2, "swapstore: SRC is env:HERE, and $HERE is not set\n")
    monkeypatch.setenv("HERE", swapstore.url)
    monkeypatch.setenv("THERE", to)
    monkeypatch.setenv("THERE_TOKEN", "for a REST endpoint")
    assert swapstore.inside("copy", "env:HERE", "env:THERE").code == 0
    monkeypatch.setenv("THERE", "https://example.com")
    monkeypatch.setenv("THERE_TOKEN", "with a space")
    wrong = swapstore.inside("copy", "env:HERE", "env:THERE")
    assert (wrong.code, "DST cannot be used: the token" in wrong.err) == (2, True)


def test_a_pin_is_told(swapstore: Swapstore, to: str) -> None:
    """Readers who move to the copy get a snapshot that was pinned away, and nobody knows."""
    fill(swapstore.url)
    assert swapstore.inside("copy", swapstore.url, to).err == ""
    with library.connect(swapstore.url) as source:
        source.pin(D, id="id-0")
    there = "dataset 'mena': SRC serves id-0, DST serves id-2: "
    done = swapstore.inside("copy", swapstore.url, to)
    assert (done.code, done.err.count(there), done.lines[0]["target_serves"]) == (0, 1, "id-2")
    back = swapstore.inside("copy", to, swapstore.url)
    assert (back.code, back.err.count("dataset 'mena': SRC serves id-2, DST serves id-0: ")) == (0, 1)


def test_a_restore_of_a_pinned_dataset(swapstore: Swapstore, to: str) -> None:
    """An operator does not know that a restore has pinned a dataset, or that it serves the bad version."""
    fill(swapstore.url)
    with library.connect(swapstore.url) as source:
        source.pin(D, id="id-0")
    said = "swapstore: dataset 'mena': DST had none of it, and is pinned to id-0 now, as SRC is\n"
    done = swapstore.inside("copy", swapstore.url, to)
    assert (done.code, done.err, [line["pinned"] for line in done.lines]) == (0, said, [True, False])
    restored = swapstore.inside("copy", to, f"{to}.restored")
    assert (restored.err, restored.lines[0]["target_serves"]) == (said, "id-0")
    assert swapstore.inside("copy", to, f"{to}.restored").err == ""
