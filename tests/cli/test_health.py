"""`swapstore health`: one report, and an exit code that says what is wrong."""

from __future__ import annotations

import sqlite3
import time

import pytest

from swapstore import connect
from tests.cli.conftest import Done, Swapstore
from tests.cli.test_freshness import later, messages
from tests.support.times import at
from tests.support.valkey import Server

DOWN = ("--url", "redis://127.0.0.1:1/0", "--patience", "0")


@pytest.fixture
def published(swapstore: Swapstore) -> Swapstore:
    """Three datasets with data of 1970, published now."""
    with connect(swapstore.url) as store:
        for name in ("africa", "europe", "mena"):
            store.publish(name, {"regime": "calm"}, ts=at(1000), count=128)
    return swapstore


def states(done: Done) -> dict[str, str]:
    return {name: each["state"] for name, each in done.json["datasets"].items()}


def test_each_result_has_its_exit_code(published: Swapstore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A monitor wakes the operator of the server because a producer has died, or nobody at all."""
    fresh = published.inside("health", "mena=12h", "europe=1d", "africa")
    assert (fresh.code, fresh.err, fresh.json["ok"]) == (0, "", True)
    assert states(fresh) == {"mena": "fresh", "europe": "fresh", "africa": "fresh"}
    small = published.inside("health", "mena=12h", "--min-count", "mena=129", "--min-size", "africa=17")
    assert (small.code, states(small)) == (6, {"mena": "too_small", "africa": "fresh"})
    assert messages(small) == ["dataset 'mena': too small: it counts 128, and 129 or more are expected"]
    larger = published.inside("health", "--min-size", "africa=18")
    assert messages(larger) == ["dataset 'africa': too small: it has 17 bytes, and 18 or more are expected"]
    missing = published.inside("health", "mena=12h", "nema=12h")
    assert (missing.code, states(missing)) == (1, {"mena": "fresh", "nema": "missing"})
    (line,) = messages(missing)
    assert line.startswith("dataset 'nema': nothing is published in sqlite ")
    later(monkeypatch, 14.05)
    stale = published.inside("health", "mena=12h", "europe=1d")
    assert (stale.code, states(stale)) == (6, {"mena": "stale", "europe": "fresh"})
    assert messages(stale) == [
        "dataset 'mena': stale: last published or confirmed 14 h 3 min ago, and 12 h is allowed"
    ]
    worst = published.inside("health", "mena=12h", "nema=12h")
    assert worst.code == 1


def test_clocks_that_disagree(published: Swapstore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer whose clock is two hours ahead counts as fresh for two hours after its death."""
    later(monkeypatch, -2)
    done = published.inside("health", "mena=12h")
    assert (done.code, states(done)) == (6, {"mena": "stale"})
    assert done.err.startswith(
        "swapstore: dataset 'mena': the clocks disagree: last published or confirmed in "
    )


def test_an_outage_is_one_line_and_a_report(published: Swapstore) -> None:
    """A monitor of a hundred datasets gets no report, or a hundred equal lines on stderr."""
    done = published.inside("health", "mena=12h", "europe=6h", *DOWN)
    assert (done.code, states(done)) == (4, {"mena": "unreachable", "europe": "unreachable"})
    (line,) = messages(done)
    assert line.startswith("datasets 'mena', 'europe': cannot connect to redis://127.0.0.1:1/0")
    assert b"127.0.0.1" not in done.out
    everything = published.inside("health", *DOWN)
    assert (everything.code, everything.json["state"], states(everything)) == (4, "unreachable", {})
    assert "cannot connect" in everything.err


def test_damage_is_not_an_outage(published: Swapstore) -> None:
    """Somebody waits until damage passes, or does not learn which dataset it is."""
    with sqlite3.connect(published.path) as file:
        file.execute("UPDATE records SET value = x'00' WHERE key LIKE '%manifest:{europe}'")
    file.close()
    done = published.inside("health")
    assert (done.code, states(done)) == (5, {"africa": "fresh", "europe": "damaged", "mena": "fresh"})
    (line,) = messages(done)
    assert line.startswith("dataset 'europe': ")


@pytest.mark.server
def test_a_wrong_password(published: Swapstore, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Somebody waits for the end of an outage that is a typo in a secret."""
    with Server(tmp_path_factory.mktemp("locked"), "--requirepass", "right") as server:
        url = server.url.replace("://", "://:s3cret@")
        done = published.inside("health", "mena", "--url", url)
    assert (done.code, states(done)) == (8, {"mena": "misconfigured"})
    assert "s3cret" not in done.err + done.out.decode()


def test_nothing_at_all_is_not_healthy(swapstore: Swapstore) -> None:
    """A monitor with a typo in the namespace never alarms."""
    done = swapstore.inside("health")
    assert (done.code, done.json["state"]) == (1, "missing")
    assert "nothing is published in sqlite" in done.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("mena=12",),
        ("mena=",),
        ("mena=0h",),
        ("=12h",),
        ("a b=12h",),
        ("mena=12h", "mena=1d"),
        ("mena", "--min-count", "100"),
        ("mena", "--min-count", "mena=-1"),
        ("mena", "--min-size", "mena=1KB"),
    ],
)
def test_2_an_invalid_bound(published: Swapstore, arguments: tuple[str, ...]) -> None:
    """A monitor with a typo in its bound never alarms."""
    done = published.inside("health", *arguments)
    assert (done.code, done.out) == (2, b"")
    assert done.err


def test_a_person_reads_a_table(published: Swapstore) -> None:
    """A line of the table is wrapped at 80 columns, or a person reads milliseconds."""
    time.sleep(1.1)
    done = published.on_a_terminal("health", "mena=1s", "europe=12h", "nema", "--min-count", "africa=1000000")
    assert done.code == 1
    heading, _, *rows = done.out.decode().rstrip().splitlines()
    assert heading.split() == ["dataset", "state", "confirmed", "allowed", "data", "count", "size"]
    assert [row.split()[0] for row in rows] == ["mena", "europe", "nema", "africa"]
    assert all(len(row) <= 80 for row in rows)
    assert "12 h" in rows[1]
    assert "too small" in rows[3]
    assert [line.split(":")[1].split()[-1] for line in done.err.splitlines()] == [
        "'mena'",
        "'nema'",
        "'africa'",
    ]
    down = published.on_a_terminal("health", "mena=1s", "europe=12h", *DOWN)
    assert down.out.decode().count("unreachable") == 2


def test_a_producer_says_how_much_it_publishes(swapstore: Swapstore) -> None:
    """A job in a shell cannot say what a monitor compares."""
    assert swapstore.inside("publish", "mena", "--count", "128", stdin=b"[1]").code == 0
    assert swapstore.inside("health", "--min-count", "mena=128").json["datasets"]["mena"]["count"] == 128
    assert "128, as its producer counted" in swapstore.on_a_terminal("status", "mena").out.decode()
    assert swapstore.inside("publish", "mena", "--count", "many", stdin=b"[1]").code == 2
