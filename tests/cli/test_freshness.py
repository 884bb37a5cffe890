"""`swapstore status --max-age`: whether the producer still runs."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from swapstore import Retention, connect
from swapstore.protocol.context import SystemClock
from tests.cli.conftest import Done, Swapstore
from tests.support.times import at

HOUR_MS = 3_600_000
COMPUTED = ("read_at", "age_ms", "confirmed_age_ms")


@pytest.fixture
def published(swapstore: Swapstore) -> Swapstore:
    """Three datasets with data of 1970, published now."""
    with connect(swapstore.url) as store:
        for name in ("africa", "europe", "mena"):
            store.publish(name, {"regime": "calm"}, ts=at(1000))
    return swapstore


def later(monkeypatch: pytest.MonkeyPatch, hours: float) -> None:
    """Move the monitor's clock forward."""
    ahead = int(hours * HOUR_MS)
    monkeypatch.setattr(SystemClock, "now_ms", lambda _: time.time_ns() // 1_000_000 + ahead)


def messages(done: Done) -> list[str]:
    """The lines on stderr, without the prefix of each."""
    return [line.removeprefix("swapstore: ") for line in done.err.splitlines()]


def test_0_a_producer_that_runs(published: Swapstore) -> None:
    """A monitor would wake somebody at night because the newest data is old."""
    done = published("status", "mena", "--max-age", "1h")
    assert (done.code, done.err) == (0, "")
    assert done.json["age_ms"] > 50 * 365 * 24 * HOUR_MS
    assert 0 <= done.json["confirmed_age_ms"] < HOUR_MS
    assert done.json["bytes"] == len(b'{"regime":"calm"}')


def test_6_stale(published: Swapstore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dead producer would go unnoticed, or the alarm would not name its dataset and the time since."""
    later(monkeypatch, 14.05)
    done = published.inside("status", "mena", "--max-age", "12h")
    assert done.code == 6
    assert done.json["dataset"] == "mena"
    assert messages(done) == [
        "dataset 'mena': stale: last published or confirmed 14 h 3 min ago, and 12 h is allowed"
    ]
    assert published.inside("status", "mena", "--max-age", "15h").code == 0
    assert published.inside("status", "mena").code == 0


def test_a_confirmation_is_a_sign_of_life(published: Swapstore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that found nothing new would have to publish the same again to keep the monitor quiet."""
    later(monkeypatch, 14)
    published.inside("confirm", "mena")
    assert published.inside("status", "mena", "--max-age", "12h").code == 0
    assert published.inside(
        "pin", "europe", "--id", published.inside("status", "europe").json["latest"]["id"]
    )
    assert published.inside("status", "europe", "--max-age", "12h").code == 6


def test_all_datasets_at_once(published: Swapstore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A monitor of a hundred datasets would run a hundred commands, or see the first stale one only."""
    later(monkeypatch, 13)
    published.inside("confirm", "europe")
    done = published.inside("status", "--max-age", "12h")
    assert done.code == 6
    assert [line["dataset"] for line in done.lines] == ["africa", "europe", "mena"]
    assert [line.partition(": ")[0] for line in messages(done)] == ["dataset 'africa'", "dataset 'mena'"]
    assert published.inside("status", "--max-age", "1d").code == 0
    plain = published.inside("status")
    assert plain.code == 0
    assert [_lasting(line) for line in plain.lines] == [
        _lasting(line) for line in published.inside("datasets").lines
    ]


def _lasting(status: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in status.items() if name not in COMPUTED}


def test_missing_stale_and_unreachable_are_three_answers(
    published: Swapstore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An operator would look at the producer while the server is down, or a name is misspelt."""
    missing = published("status", "nema", "--max-age", "12h")
    unreachable = published(
        *("status", "mena", "--max-age", "12h", "--patience", "0"),
        env={"SWAPSTORE_URL": "redis://127.0.0.1:1/0"},
    )
    later(monkeypatch, 24)
    stale = published.inside("status", "mena", "--max-age", "12h")
    assert [done.code for done in (missing, unreachable, stale)] == [1, 4, 6]
    for done, words in (
        (missing, "dataset 'nema': nothing is published"),
        (unreachable, "127.0.0.1:1"),
        (stale, "dataset 'mena': stale"),
    ):
        (line,) = messages(done)
        assert words in line
    nothing = published.inside("status", "--max-age", "12h", "--namespace", "typo")
    assert (nothing.code, nothing.out) == (1, b"")


def test_damage_outweighs_age_and_hides_none(published: Swapstore, monkeypatch: pytest.MonkeyPatch) -> None:
    """One damaged dataset would hide the others, or look as if it were only old."""
    with sqlite3.connect(published.path) as file:
        file.execute("UPDATE records SET value = x'00' WHERE key LIKE '%manifest:{europe}'")
    file.close()
    later(monkeypatch, 24)
    done = published.inside("status", "--max-age", "12h")
    assert done.code == 5
    assert [line["dataset"] for line in done.lines] == ["africa", "mena"]
    assert sum(": stale: " in line for line in messages(done)) == 2
    assert messages(done)[-1] == "1 of 3 datasets cannot be read: europe"


@pytest.mark.parametrize("text", ["12", "0h", "-1h", "half a day", "1.5h"])
def test_2_an_invalid_age(published: Swapstore, text: str) -> None:
    """A monitor with a typo in its bound would never alarm."""
    done = published.inside("status", "mena", f"--max-age={text}")
    assert (done.code, done.out) == (2, b"")


def test_a_clock_seconds_behind_is_not_stale(published: Swapstore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A monitor whose clock is slightly behind its producer's would alarm for nothing, or fail."""
    later(monkeypatch, -5 / 3600)
    done = published.inside("status", "mena", "--max-age", "1s")
    assert (done.code, done.err) == (0, "")
    assert done.json["confirmed_age_ms"] < 0


def test_clocks_that_disagree_are_not_fresh(published: Swapstore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer whose clock is two hours ahead would count as fresh for two hours after its death."""
    later(monkeypatch, -2)
    done = published.inside("status", "--max-age", "1d")
    assert done.code == 6
    for line, name in zip(messages(done), ("africa", "europe", "mena"), strict=True):
        assert line.startswith(f"dataset {name!r}: the clocks disagree: last published or confirmed in ")


def test_a_person_reads_the_size_and_what_the_count_counts(swapstore: Swapstore) -> None:
    """A person would take hidden rows for snapshots that can be read."""
    with connect(swapstore.url, retention=Retention(max_count=2)) as store:
        for number in range(40):
            store.publish("mena", number)
    status = swapstore.on_a_terminal("status", "mena").out.decode()
    facts = dict(line.split(None, 1) for line in status.splitlines() if not line.startswith("in the"))
    assert facts["history"].strip() == "from version 39"
    assert facts["size"].strip() == "2 bytes"
    count = swapstore.inside("status", "mena").json["count"]
    assert count > 2
    assert f"{count} snapshots (hidden ones too, until they are unlinked)" in status
    assert "in the log" in swapstore.on_a_terminal("status").out.decode()


def test_a_person_reads_who_is_stale_below_the_table(published: Swapstore) -> None:
    """A person would have to compare each age in the table with the bound."""
    time.sleep(1.1)
    done = published.on_a_terminal("status", "--max-age", "1s")
    assert done.code == 6
    assert b"africa" in done.out
    assert done.err.count(": stale: ") == 3
