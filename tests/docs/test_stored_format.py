"""The bytes shown in docs/reference/stored-format.md are those that the library writes."""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from swapstore import Store
from swapstore.cache import Cache
from swapstore.drivers.sqlite.driver import SqliteDriver
from swapstore.format.keys import Keys
from swapstore.protocol.context import Context
from tests.support.times import at

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "stored-format.md"


class StoppedClock:
    """A clock that stands still in 2026."""

    def now_ms(self) -> int:
        return 1_769_860_800_250

    def monotonic(self) -> float:
        return 0.0

    def sleep(self, seconds: float) -> None:
        pass


def written(path: Path) -> dict[str, bytes]:
    """Publish what the page shows, and return every record."""
    context = Context(
        keys=Keys("swapstore"),
        cache=Cache(1 << 20),
        clock=StoppedClock(),
        random=random.Random(2026),
    )
    with Store(SqliteDriver(path), context) as store:
        for number in range(64):
            store.publish("hourly", number, id=f"h-{number}", ts=at(number * 3_600_000))
        store.publish(
            "mena",
            {"régime": "calm", "score": 0.5},
            id="report-1",
            ts=1_769_860_800_000,
            labels={"trigger": "hourly"},
        )
        store.publish("mena", [1, 2], id="report-2", ts=1_769_864_400_000, dedupe_key="run-2")
        store.put_live("mena", "<h1>calm</h1>", ttl=60)
    with closing(sqlite3.connect(path)) as connection:
        return dict(connection.execute("SELECT key, value FROM records"))


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("swapstore:id:{mena}:report-1", "the id record"),
        ("swapstore:ts:{mena}:1769860800000:report-1", "the ts record"),
        ("swapstore:manifest:{mena}", "the manifest"),
        ("swapstore:live:{mena}", "the live view"),
    ],
)
def test_documented_records_are_what_the_library_writes(tmp_path: Path, key: str, what: str) -> None:
    """A reader in another language that was written from this page cannot read the records."""
    text = PAGE.read_text("utf-8")
    assert f"```text\n{key}\n```" in text, f"{what} is not shown under its key"
    record = written(tmp_path / "store.db")[key].decode().removesuffix("\n")
    assert f"```text\n{record}\n```" in text


def test_documented_page_is_what_the_library_writes(tmp_path: Path) -> None:
    """The page's header, first row or reference differ from what is shown."""
    text = PAGE.read_text("utf-8")
    records = written(tmp_path / "store.db")
    key = min(key for key in records if ":page:" in key)
    header, _, body = records[key].decode().partition("\n")
    first_row = body.partition("],[")[0] + "],…]}\n"
    references = records["swapstore:manifest:{hourly}"].decode().partition('"pages":[')[2]
    listed = references.partition('],"dedupe"')[0]
    assert f"```text\n{listed}\n```" in text
    for part in (f"```text\n{key}\n```", f"```text\n{header}\n", first_row):
        assert part in text


def test_documented_tables_are_those_of_the_file(tmp_path: Path) -> None:
    """The SQL on the page is not the SQL of the file."""
    path = tmp_path / "store.db"
    written(path)
    with closing(sqlite3.connect(path)) as connection:
        statements = [
            sql for (sql,) in connection.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")
        ]
        assert connection.execute("PRAGMA application_id").fetchone() == (0x73776170,)
    text = " ".join(PAGE.read_text("utf-8").split())
    for statement in statements:
        assert " ".join(statement.split()) in text
