"""Tables on a terminal of any width."""

from __future__ import annotations

import json
import shlex

import pytest

from swapstore import connect
from tests.cli.conftest import Swapstore
from tests.support.times import at

DOCUMENT = {"note": "x" * 500, "days": list(range(60))}
ID = "01a2021c-40f4-7609-8550-9c9bc2b3b117"


@pytest.fixture
def published(swapstore: Swapstore) -> Swapstore:
    with connect(swapstore.url) as store:
        store.publish("mena", {"regime": "calm"}, id="first", ts=at(1_000))
        store.publish("mena", DOCUMENT, id=ID, ts=1_769_882_400_250, labels={"trigger": "6h"})
        store.publish("tiles", b"\x00\x1b[31m", codec="bytes", labels={"note": "[bold]\x1b]0;title\x07"})
    return swapstore


def test_latest_prints_the_metadata_and_a_preview(published: Swapstore) -> None:
    """A person would get a wall of JSON in the terminal, or miss how to get all of it."""
    seen = published.on_a_terminal("latest", "mena").out.decode()
    for words in (
        "mena",
        ID,
        "2026-01-31T18:00:00.250Z",
        "trigger=6h",
        '"days": [',
        "… 41 more lines",
        "xxx…\n",
    ):
        assert words in seen
    assert "swapstore read mena --version 2 --json" in seen
    assert '"days"' not in published.on_a_terminal("latest", "mena", "--meta").out.decode()


def test_json_on_a_terminal_is_what_is_printed_when_piped(published: Swapstore) -> None:
    """The command that a preview suggests for all of the payload would print the preview again."""
    seen = published.on_a_terminal("read", "mena", "--version", "2", "--json").out
    assert json.loads(seen) == DOCUMENT
    assert published.inside("latest", "mena").out == published.inside("latest", "mena", "--json").out


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_history_fits_the_terminal(published: Swapstore, columns: int) -> None:
    """Rows would break into each other, or the id that a person copies would be cut."""
    published.inside("pin", "mena", "--id", "first")
    seen = published.on_a_terminal("history", "mena", columns=columns).out.decode()
    assert all(len(line) <= columns for line in seen.splitlines())
    for word in ("version", "committed at", "latest", "pinned", "first", "trigger=6h", "18:00:00.250Z"):
        assert word in seen
    assert (ID in seen) == (columns >= 80)


def test_history_prints_the_command_for_older_rows(published: Swapstore) -> None:
    """A person would take the first rows for all of them."""
    seen = published.on_a_terminal("history", "mena", "--limit", "1", "--namespace", "swapstore").out.decode()
    hint = seen.splitlines()[-1].split()
    assert hint == ["swapstore", "--namespace", "swapstore", "history", "mena", "--before", "2"]
    assert [row["id"] for row in published.inside(*hint[1:]).lines] == ["first"]


def test_the_command_for_older_rows_asks_for_the_same(published: Swapstore) -> None:
    """A person who goes on to older rows is shown all of them again, or told of older ones that are none."""
    with connect(published.url) as store:
        for number in range(3):
            store.publish("mena", number, ts=at(2_000 + number), labels={"note": "two words"})
    asked = ("--label", "note=two words", "--since", "1970-01-01T00:00:02Z")
    seen = published.on_a_terminal("history", "mena", *asked, "--limit", "2").out.decode()
    hint = shlex.split(seen.splitlines()[-1])
    asked = (*asked[:3], "1970-01-01T00:00:02+00:00")
    assert hint == ["swapstore", "history", "mena", *asked, "--before", "4"]
    assert [row["version"] for row in published.inside(*hint[1:]).lines] == [3]
    assert "older ones" not in published.on_a_terminal("history", "mena", *asked).out.decode()
    seen = published.on_a_terminal("history", "mena", "--label", "no=such").out.decode()
    assert seen == "mena: no snapshot with --label no=such; the newest is version 2.\n"


def test_published_says_what_it_found(published: Swapstore) -> None:
    """A person who asks for a run has to look at the exit code."""
    with connect(published.url) as store:
        store.publish("mena", 1, id="run", dedupe_key="k")
    seen = published.on_a_terminal("published", "mena", "--dedupe-key", "k").out.decode()
    assert "before: a publish with this dedupe key" in " ".join(seen.split())
    missing = published.on_a_terminal("published", "mena", "--dedupe-key", "other", columns=200)
    assert missing.code == 1
    assert missing.out.decode().startswith("mena: no commit with this dedupe key")


def test_status_and_datasets_say_how_old(published: Swapstore) -> None:
    """A person would have to compute from milliseconds whether the data is stale."""
    published.inside("pin", "mena", "--id", "first")
    status = published.on_a_terminal("status", "mena").out.decode()
    assert "1970-01-01T00:00:01Z" in status
    assert "days" in status
    assert "just now" in status or "s ago" in status
    assert "served instead" in status
    assert "(pinned)" in published.on_a_terminal("latest", "mena").out.decode()
    listed = published.on_a_terminal("datasets").out.decode()
    assert "mena" in listed
    assert "pinned" in listed


def test_control_characters_do_not_reach_the_terminal(published: Swapstore) -> None:
    """A label or a payload could set the window's title, move the cursor, or be lost as markup."""
    for command in ("latest", "history"):
        seen = published.on_a_terminal(command, "tiles").out
        assert b"[bold]\\x1b]0;title\\x07" in seen
        assert b"\x1b" not in seen
    assert b"swapstore read tiles --version 1 > FILE" in published.on_a_terminal("latest", "tiles").out


def test_publish_and_errors(published: Swapstore) -> None:
    """A person would read JSON after a publish, or an error between the rows of a table."""
    file = published.path.with_name("value.json")
    file.write_text("1")
    seen = published.on_a_terminal("publish", "mena", str(file), "--ts", "1970-01-01T00:00Z")
    assert ["latest", "no"] in [line.split() for line in seen.out.decode().splitlines()]
    failed = published.on_a_terminal("latest", "nowhere")
    assert (failed.code, failed.out) == (1, b"")
    assert failed.err.startswith("swapstore: dataset 'nowhere'")
