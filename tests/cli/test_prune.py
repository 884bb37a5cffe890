"""`swapstore prune`, and the bounds of `swapstore publish`."""

from __future__ import annotations

from datetime import timedelta

import attrs
import pytest

from swapstore import connect
from swapstore.cli.arguments import to_duration
from tests.cli.conftest import Swapstore
from tests.support import invariants

OLD = 1_700_000_000_000


@pytest.fixture
def published(swapstore: Swapstore) -> Swapstore:
    with connect(swapstore.url) as store:
        for number in range(40):
            store.publish("mena", number, id=f"id-{number}", ts=OLD + number)
    return swapstore


def shown(swapstore: Swapstore) -> list[str]:
    return [row["id"] for row in swapstore.inside("history", "mena").lines]


def test_prune_prints_what_it_did(published: Swapstore) -> None:
    """A script could not tell what is left, or another bound would be applied."""
    pruned = published("prune", "mena", "--max-count", "3").json
    assert list(pruned) == ["dataset", "version", "etag", "let_go", "count", "first_version", "floor"]
    assert {key: pruned[key] for key in ("dataset", "let_go", "count", "first_version", "floor")} == {
        "dataset": "mena",
        "let_go": 8,
        "count": 32,
        "first_version": 38,
        "floor": 0,
    }
    assert shown(published) == ["id-39", "id-38", "id-37"]
    again = published.inside("prune", "mena", "--max-count", "3").json
    assert again == {**pruned, "let_go": 0}


def test_prune_by_age(published: Swapstore) -> None:
    """An age would be read as another one, and months of history would be gone."""
    published.inside("publish", "mena", "--id", "new", stdin=b"1")
    assert published.inside("prune", "mena", "--max-age", "100000d").json["let_go"] == 0
    assert len(shown(published)) == 41
    pruned = published.inside("prune", "mena", "--max-age", "12h", "--max-count", "9").json
    assert pruned["floor"] > OLD
    assert shown(published) == ["new"]
    with connect(published.url) as store:
        invariants.check(store)


def test_a_person_reads_a_line(published: Swapstore) -> None:
    """A person would get JSON, or would not see what is hidden now."""
    seen = published.on_a_terminal("prune", "mena", "--max-count", "39").out.decode()
    assert seen == "mena: nothing before version 2 is in the history; unlinked 0 snapshots.\n"
    seen = " ".join(published.on_a_terminal("prune", "mena", "--max-age", "1s").out.decode().split())
    assert seen.startswith("mena: nothing before version 2, or with a ts before 20")
    assert seen.endswith("Z, is in the history; unlinked 8 snapshots.")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "--max-count 30, --max-age 90d, or both"),
        (("--max-count", "0"), "1 or more"),
        (("--max-count", "1.5"), "whole number"),
        (("--max-age", "90"), "90d"),
        (("--max-age", "0d"), "90d"),
        (("--max-age", "-1d"), "--max-age"),
        (("--max-age=-1d",), "90d"),
        (("--max-age", "1.5h"), "90d"),
        (("--max-age", "1w"), "90d"),
        (("--max-age", "1d12h"), "90d"),
        (("--max-age", "1D"), "90d"),
        (("--max-age", "9999999999d"), "too long"),
        (("--max-age", ""), "90d"),
        (("--max-count", "1", "extra"), "too many arguments"),
    ],
    ids=str,
)
def test_invalid_bounds_are_usage_errors(published: Swapstore, options: tuple[str, ...], words: str) -> None:
    """A typo in a bound would delete history for good."""
    done = published.inside("prune", "mena", *options)
    assert (done.code, done.out) == (2, b"")
    (line,) = done.err.splitlines()
    assert words in line
    assert len(shown(published)) == 40


def test_prune_of_nothing(swapstore: Swapstore) -> None:
    """A cron job with a typo in the dataset's name would seem to work."""
    done = swapstore.inside("prune", "mena", "--max-count", "1")
    assert done.code == 1
    assert "'mena'" in done.err


@attrs.define
class Word:
    value: str


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("90d", timedelta(days=90)),
        ("12h", timedelta(hours=12)),
        ("30m", timedelta(minutes=30)),
        ("45s", timedelta(seconds=45)),
        ("007d", timedelta(days=7)),
    ],
)
def test_durations(text: str, duration: timedelta) -> None:
    """Minutes would be taken for months, or hours for days."""
    assert to_duration(timedelta, [Word(text)]) == duration


def test_publish_takes_the_same_bounds(published: Swapstore) -> None:
    """A cron job that publishes from a shell would need a second one to keep its history short."""
    options = ("--max-age", "90d", "--max-count", "5")
    assert published("publish", "mena", "--id", "new", *options, stdin=b"1").json["created"]
    assert shown(published) == ["new"]
    for number in range(6):
        published.inside("publish", "mena", "--id", f"more-{number}", *options, stdin=b"1")
    assert shown(published) == [f"more-{number}" for number in range(5, 0, -1)]
    late = published.inside("publish", "mena", "--ts", str(OLD), *options, stdin=b"1")
    assert (late.code, late.out) == (3, b"")
    assert "older than retention keeps" in late.err
    assert published.inside("publish", "mena", "--max-age", "1y", stdin=b"1").code == 2
