"""`swapstore history` and `swapstore datasets`, and the status that other commands print."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from swapstore import NotFound, Row, Store, connect
from swapstore.cli import output
from tests.cli.conftest import Swapstore


def test_history_lists_everything_when_piped(swapstore: Swapstore) -> None:
    """`swapstore history mena | wc -l` would silently count a part of it."""
    with connect(swapstore.url) as store:
        for number in range(120):
            store.publish("mena", number)
    versions = [row["version"] for row in swapstore.inside("history", "mena").lines]
    assert versions == list(range(120, 0, -1))
    some = swapstore.inside("history", "mena", "--limit", "3", "--before", "100").lines
    assert [row["version"] for row in some] == [99, 98, 97]
    assert swapstore.inside("history", "mena", "--limit", "0").out == b""


def test_history_lists_what_it_is_asked_for(swapstore: Swapstore) -> None:
    """A person who looks for the scheduled runs of a day has to filter all rows."""
    with connect(swapstore.url) as store:
        for hour in range(24):
            labels = {"trigger": "6h" if hour % 6 == 0 else "hourly", "by": "cron"}
            store.publish("mena", hour, ts=datetime(2026, 1, 31, hour, tzinfo=UTC), labels=labels)

    def versions(*options: str) -> list[int]:
        return [row["version"] for row in swapstore.inside("history", "mena", *options).lines]

    assert versions("--label", "trigger=6h") == [19, 13, 7, 1]
    assert versions("--label", "trigger=6h", "--label", "by=hand") == []
    assert versions("--since", "2026-01-31T06:00:00Z", "--until", "2026-01-31T08:00:00Z") == [8, 7]
    assert versions("--until", "1769839200000", "--limit", "2") == [6, 5]
    assert versions("--label", "trigger=6h", "--since", "2026-01-31T01:00:00Z", "--before", "19") == [13, 7]


def test_history_is_printed_while_it_is_read(swapstore: Swapstore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A history of millions would have to fit in memory before its first line is printed."""
    printed = []

    def endless(store: Store, dataset: str, **_: Any) -> Iterator[Row]:
        status = store.status(dataset)
        assert status is not None
        yield from itertools.repeat(status.latest)

    def write(row: Row) -> None:
        printed.append(row)
        if len(printed) == 3:
            raise NotFound("enough")

    with connect(swapstore.url) as store:
        store.publish("mena", 1)
    monkeypatch.setattr(Store, "history", endless)
    monkeypatch.setattr(output, "write_json", write)
    assert swapstore.inside("history", "mena").err == "swapstore: enough\n"


def test_datasets_and_status_say_the_same(swapstore: Swapstore) -> None:
    """A monitor that reads the list would see another state than one that asks for each dataset."""
    for name in ("mena", "europe"):
        swapstore.inside("publish", name, stdin=b"1")
    listed = swapstore.inside("datasets").lines
    assert [status["dataset"] for status in listed] == ["europe", "mena"]
    alone = swapstore.inside("status", "mena").json
    for moment in ("read_at", "age_ms", "confirmed_age_ms"):
        assert listed[1].pop(moment) <= alone.pop(moment)
    assert listed[1] == alone
    assert (listed[1]["version"], listed[1]["count"], listed[1]["pinned"]) == (1, 1, None)


def test_a_damaged_dataset_hides_none_of_the_others(swapstore: Swapstore) -> None:
    """One broken manifest would make the list fail, or go unnoticed in it."""
    for name in ("africa", "europe", "mena"):
        swapstore.inside("publish", name, stdin=b"1")
    with sqlite3.connect(swapstore.path) as file:
        file.execute("UPDATE records SET value = x'00' WHERE key LIKE '%manifest:{europe}'")
    file.close()
    done = swapstore.inside("datasets")
    assert done.code == 5
    assert [status["dataset"] for status in done.lines] == ["africa", "mena"]
    first, last = done.err.splitlines()
    assert first.startswith("swapstore: dataset 'europe': ")
    assert last == "swapstore: 1 of 3 datasets cannot be read: europe"


def test_pin_rollback_and_confirm_print_the_status_after_them(swapstore: Swapstore) -> None:
    """An operator who pins during an incident could not see in the output what is served now."""
    for name in ("a", "b"):
        swapstore.inside("publish", "mena", "--id", name, stdin=b'"%s"' % name.encode())
    assert swapstore.inside("pin", "mena", "--id", "a").json["pinned"]["id"] == "a"
    assert swapstore.inside("latest", "mena").out == b'"a"'
    assert swapstore.inside("unpin", "mena").json["pinned"] is None
    assert swapstore.inside("rollback", "mena", "--id", "a").json["latest"]["id"] == "a"
    before = swapstore.inside("status", "mena").json
    after = swapstore.inside("confirm", "mena").json
    assert after["version"] == before["version"] + 1
    assert after["confirmed_at"] >= before["confirmed_at"]
