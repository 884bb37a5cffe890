"""A newer version has written to the store in the same format: with fields that this version does not know.

What the format promises to later versions: see "Stored format" in docs/reference/compatibility.md.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import swapstore
from swapstore import Problem, Retention, Store
from swapstore.errors import Corrupt, UnsupportedFormat
from tests.support.times import at

VALUES = [{"regime": "calm", "scores": list(range(number, number + 200))} for number in range(40)]
GROUP = {"EG": {"calls": 41, "days": list(range(90))}, "SG": {"calls": 97}}


def with_additions(key: str, value: bytes) -> bytes:
    """A record as a later version may write it: more fields, and more elements in arrays."""
    header, newline, body = value.partition(b"\n")
    fields = {**json.loads(header), "later": {"version": [1, None]}}
    kind = key.split(":")[1]
    if kind in {"manifest", "page"}:
        log = {**json.loads(body), "later": [{}]}
        for name, length in (("rows", 10), ("pages", 8)):
            log[name] = [[*each, *[None] * (length - len(each)), "later"] for each in log.get(name, [])]
        body = json.dumps({name: part for name, part in log.items() if part != []}).encode()
        if kind == "manifest":
            body = json.dumps({"rows": [], "pages": [], **json.loads(body), "dedupe": log["dedupe"]}).encode()
            for row in ("latest", "pinned"):
                if fields[row] is not None:
                    fields[row] = {**fields[row], "later": 1}
        else:
            fields |= {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    return json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode() + newline + body


def change(path: Path, what: Any) -> int:
    """Replace each record by what a function of its key and value returns."""
    with closing(sqlite3.connect(path)) as file, file:
        rows = file.execute("SELECT key, value FROM records").fetchall()
        for key, value in rows:
            file.execute("UPDATE records SET value = ? WHERE key = ?", (what(key, value), key))
    return len(rows)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A store with everything that is stored: pages, bases, groups, a pin, dedupe keys and a live view."""
    path = tmp_path / "store.db"
    with swapstore.connect(f"sqlite:///{path}", compression="delta") as store:
        for number, value in enumerate(VALUES):
            store.publish("mena", value, id=f"id-{number}", ts=at(number * 1000), dedupe_key=f"run-{number}")
        status = store.pin("mena", id="id-5")
        store.put_live("mena", {"now": True}, ttl=3600, etag=status.etag)
        for number in range(3):
            store.publish_group("portwatch", {**GROUP, "run": number}, id=f"run-{number}")
    return path


@pytest.fixture
def newer(path: Path) -> Iterator[Store]:
    """The same after a later version has added to every record."""
    assert change(path, with_additions) > 80
    with swapstore.connect(f"sqlite:///{path}", compression="delta") as store:
        yield store


def test_what_a_later_version_adds_is_ignored(newer: Store) -> None:
    """An upgrade of one producer breaks every reader that is not upgraded yet."""
    served = newer.read_latest("mena")
    assert served is not None
    assert (served.id, served.value) == ("id-5", VALUES[5])
    assert [row.id for row in newer.history("mena", limit=None)] == [f"id-{n}" for n in range(39, -1, -1)]
    for number, value in enumerate(VALUES):
        found = newer.read("mena", id=f"id-{number}")
        assert found is not None
        assert found.value == value
    group = newer.read_group("portwatch")
    assert group is not None
    assert group["EG"].value == GROUP["EG"]
    view = newer.read_live("mena")
    assert view is not None
    assert view.value == {"now": True}


def test_a_producer_goes_on_beside_a_later_version(newer: Store) -> None:
    """An upgrade of one producer stops the others, or they lose commits of it."""
    assert not newer.publish("mena", VALUES[39], id="id-39", ts=at(39_000)).created
    assert newer.publish("mena", VALUES[3], dedupe_key="run-38").id == "id-38"
    for number in range(20):
        newer.publish("mena", {"after": number})
    newer.unpin("mena")
    served = newer.read_latest("mena")
    assert served is not None
    assert served.value == {"after": 19}
    assert len(list(newer.history("mena", limit=None))) == 60
    assert newer.publish_group("portwatch", GROUP).created


def test_what_a_later_version_adds_is_no_damage(newer: Store) -> None:
    """`verify` of an older version reports damage, and `repair` writes records anew that are whole."""
    assert [found for found in newer.verify() if found.problem is not Problem.ORPHAN] == []


def test_an_encoding_of_a_later_version_is_refused(path: Path) -> None:
    """A reader returns bytes that it cannot decode."""
    change(path, lambda _, value: value.replace(b'"encoding":"zstd"', b'"encoding":"brotli"', 1))
    with swapstore.connect(f"sqlite:///{path}") as store, pytest.raises(Corrupt):
        store.read_latest("mena")


def test_nothing_is_written_to_a_later_format(path: Path) -> None:
    """An older producer, or a repair of an older version, damages what a later format holds."""
    change(path, lambda _, value: value.replace(b'"format":1', b'"format":2', 1))
    before = records(path)
    with swapstore.connect(f"sqlite:///{path}", patience=0) as store:
        for call in (
            lambda: store.read_latest("mena"),
            lambda: store.publish("mena", 1),
            lambda: store.pin("mena", id="id-1"),
            lambda: store.prune("mena", retention=Retention(max_count=1)),
            lambda: store.erase("mena", id="id-1", force=True),
            lambda: store.drop("mena"),
            lambda: store.recompress("mena", compression="zstd"),
            lambda: store.repair("mena", apply=True),
        ):
            with pytest.raises(UnsupportedFormat):
                call()
    assert records(path) == before


def records(path: Path) -> dict[str, bytes]:
    with closing(sqlite3.connect(path)) as file:
        return dict(file.execute("SELECT key, value FROM records WHERE expires_at IS NULL"))
