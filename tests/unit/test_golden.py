"""The stored bytes, pinned. A change of the format must fail a test, and be made on purpose.

To accept a change on purpose: delete the file under `tests/golden/` and run this test once; it writes the
file anew and fails, so that the new bytes are reviewed before they are committed.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from swapstore import Store
from swapstore.drivers.sqlite.driver import SqliteDriver
from swapstore.format import manifest
from tests.support.deterministic import fixed_context
from tests.support.times import at

GOLDEN = Path(__file__).parent.parent / "golden"


def stored(path: Path) -> dict[str, bytes]:
    with sqlite3.connect(path) as connection:
        rows = dict(connection.execute("SELECT key, value FROM records ORDER BY key"))
    connection.close()
    return rows


def compare(name: str, records: dict[str, bytes]) -> None:
    text = b"".join(b"=== " + key.encode() + b"\n" + value + b"\n" for key, value in records.items())
    file = GOLDEN / name
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(text)
        pytest.fail(f"{name} was written anew: look at it, then run the tests again")
    assert text == file.read_bytes()


def test_the_stored_bytes_of_a_small_dataset(tmp_path: Path) -> None:
    """Records, manifest or live view change, and readers in other languages break."""
    path = tmp_path / "golden.db"
    with Store(SqliteDriver(path), fixed_context()) as store:
        first = store.publish("mena", {"regime": "calm", "score": 0.5}, labels={"z": "1", "a": "é"})
        store.publish("mena", b"\x00\x01\xff", id="raw/1", ts=1_700_000_000_000, codec="bytes")
        store.publish("mena", [1, 2, 3], id="run:3", dedupe_key="hourly:3")
        status = store.pin("mena", id=first.id)
        store.put_live("mena", {"now": True}, ttl=60, etag=status.etag)
    compare("small.txt", stored(path))


def test_the_stored_bytes_of_pages(tmp_path: Path) -> None:
    """A history that was written earlier can no longer be read."""
    path = tmp_path / "golden.db"
    with Store(SqliteDriver(path), fixed_context()) as store:
        for number in range(manifest.F * manifest.G + manifest.F + 1):
            job = f"job-{number}" if number % 3 == 0 else None
            store.publish("region/a", number, id=f"id-{number}", ts=at(number * 1000), dedupe_key=job)
            if number == 12:
                store.confirm("region/a")  # its version is missing from the page
    records = stored(path)
    compare(
        "page.txt", {key: value for key, value in records.items() if ":page:" in key or ":manifest:" in key}
    )
