"""`swapstore diff`: which snapshots it compares, and what people and scripts see."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest

from swapstore import connect
from swapstore.changes import KINDS
from tests.cli.conftest import Swapstore
from tests.support.times import at

OLD = {
    "asOf": "2026-01-31",
    "note": "calm " * 40 + "at sea",
    "ports": [{"id": "suez", "flow": 48}, {"id": "hormuz", "flow": 102}, {"id": "panama", "flow": 31}],
    "a/b": {"~": None},
    "old": True,
}
NEW = {
    "asOf": "2026-02-01",
    "note": "calm " * 40 + "on land",
    "ports": [{"id": "panama", "flow": 31}, {"id": "malacca", "flow": 250}, {"id": "suez", "flow": 48.5}],
    "a/b": {"~": "\x1b[31mred"},
    "new": [1, 2],
}
LINES = """\
{"kind":"changed","pointer":"/asOf","before":"2026-01-31","after":"2026-02-01"}
{"kind":"changed","pointer":"/note","before":"NOTEat sea","after":"NOTEon land"}
{"kind":"moved","pointer":"/ports/0","was":"/ports/2","item":{"id":"panama"}}
{"kind":"added","pointer":"/ports/1","item":{"id":"malacca"},"after":{"id":"malacca","flow":250}}
{"kind":"changed","pointer":"/ports/2/flow","was":"/ports/0/flow","item":{"id":"suez"},"before":48,"after":48.5}
{"kind":"removed","pointer":"/ports/1","item":{"id":"hormuz"},"before":{"id":"hormuz","flow":102}}
{"kind":"changed","pointer":"/a~1b/~0","before":null,"after":"\\u001b[31mred"}
{"kind":"removed","pointer":"/old","before":true}
{"kind":"added","pointer":"/new","after":[1,2]}
""".replace("NOTE", "calm " * 40)
SEEN = """\
dataset  mena
from     version 1, 1970-01-01T00:00:01Z, id one
to       version 2, 1970-01-01T00:00:02Z, id two
changes  2 added, 2 removed, 4 changed, 1 moved

~ /asOf  "2026-01-31" → "2026-02-01"
~ /note  "…m calm calm at sea" → "…m calm calm on land"
  id = "panama"
> /ports/0  was /ports/2
  id = "malacca"
+ /ports/1  {"id": "malacca", "flow": 250}
  id = "suez"
~ /ports/2/flow  48 → 48.5
  id = "hormuz"
- /ports/1  {"id": "hormuz", "flow": 102}
~ /a~1b/~0  null → "\\u001b[31mred"
- /old  true
+ /new  [1, 2]
"""


@pytest.fixture
def published(swapstore: Swapstore) -> Swapstore:
    with connect(swapstore.url) as store:
        store.publish("mena", OLD, id="one", ts=at(1_000))
        store.publish("mena", NEW, id="two", ts=at(2_000))
    return swapstore


def test_a_pipe_gets_a_line_of_json_for_each_change(published: Swapstore) -> None:
    """A script that reads the changes gets another form than the documented one."""
    done = published("diff", "mena")
    assert (done.code, done.err) == (0, "")
    assert done.out.decode() == LINES
    assert published.inside("diff", "mena", "--limit", "2").out.decode() == "".join(
        LINES.splitlines(keepends=True)[:2]
    )
    assert published.on_a_terminal("diff", "mena", "--json").out.decode() == LINES


def test_a_terminal_shows_what_a_person_looks_for(published: Swapstore) -> None:
    """A person sees two texts that begin alike, or does not see which port it is."""
    seen = published.on_a_terminal("diff", "mena")
    assert "\n".join(line.rstrip() for line in seen.out.decode().splitlines()) + "\n" == SEEN
    assert b"\x1b" not in seen.out


def test_colours_are_for_terminals_only(published: Swapstore) -> None:
    """A file has escape sequences in it, or a person asked for none and gets them."""
    assert b"\x1b" not in published("diff", "mena").out
    plain = published.on_a_terminal("diff", "mena", env={"NO_COLOR": "1"})
    assert plain.out == published.on_a_terminal("diff", "mena").out


def test_a_large_diff_is_bounded_on_a_terminal(swapstore: Swapstore) -> None:
    """A person scrolls through thousands of lines, or takes the first ones for all of them."""
    with connect(swapstore.url) as store:
        store.publish("mena", {f"k{each}": "x" * 1_000 for each in range(200)})
        store.publish("mena", {f"k{each}": {"y" * 300: list(range(100))} for each in range(200)})
    seen = swapstore.on_a_terminal("diff", "mena", "--namespace", "swapstore").out.decode()
    assert seen.count("~ /k") == 50
    assert len(seen) < 50 * 300
    assert max(map(len, seen.splitlines())) <= 80
    *_, more, command = seen.splitlines()
    assert more == "… and 150 more. All of them:"
    assert command.split() == ["swapstore", "--namespace", "swapstore", "diff", "mena", "1", "2", "--json"]
    assert len(swapstore.inside(*command.split()[1:]).lines) == 200
    few = swapstore.on_a_terminal("diff", "mena", "--limit", "3").out.decode()
    assert few.count("~ /k") == 3
    assert "… and 197 more" in few


def versions(done: Any) -> tuple[int, int]:
    """Which versions were compared: each document is its version."""
    return done.json["before"]["n"], done.json["after"]["n"]


@pytest.fixture
def several(swapstore: Swapstore) -> Swapstore:
    """Snapshots 1, 2, 3 and 5; 4 is a pin, and 3 a backfill. The ids of 2 and 5 are numbers."""
    with connect(swapstore.url) as store:
        for version, name, ts in ((1, "one", 1_000), (2, "20260131", 3_000), (3, "three", 2_000)):
            store.publish("mena", msgspec.Raw(b'{"x": {"n": %d}}' % version), id=name, ts=at(ts))
            store.publish("whole", {"n": version}, id=name, ts=at(ts))
        store.pin("whole", id="one")
        store.publish("whole", {"n": 5}, id="1", ts=at(4_000))
    return swapstore


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        ([], "3 5"),
        (["1"], "1 5"),
        (["2", "3"], "2 3"),
        (["3", "2"], "3 2"),
        (["three", "one"], "3 1"),
        (["20260131", "three"], "2 3"),
        (["five", "one"], ""),
    ],
    ids=str,
)
def test_snapshots_are_named_by_version_or_id(several: Swapstore, arguments: list[str], changes: str) -> None:
    """Other snapshots are compared than those that were named, or than the documented default."""
    done = several.inside("diff", "whole", *arguments)
    if changes:
        assert f"{done.json['before']} {done.json['after']}" == changes
        assert done.json["pointer"] == "/n"
    else:
        assert done.code == 1
        assert "no snapshot matches id five" in done.err


def test_the_default_is_the_latest_against_the_one_committed_before_it(several: Swapstore) -> None:
    """After a backfill, the backfill is taken for the latest."""
    done = several.inside("diff", "mena")
    assert (done.json["before"], done.json["after"]) == (1, 2)
    assert several.inside("diff", "mena", "2").out == b""


def test_nothing_to_compare_is_not_found(swapstore: Swapstore) -> None:
    """A script takes a snapshot that is missing for one without changes."""
    for arguments in ([], ["1"], ["1", "2"]):
        done = swapstore.inside("diff", "mena", *arguments)
        assert (done.code, done.out) == (1, b"")
        assert "nothing is published" in done.err
    swapstore.inside("publish", "mena", stdin=b"1")
    done = swapstore.inside("diff", "mena")
    assert (done.code, done.out) == (1, b"")
    assert "there is no snapshot before the latest, version 1" in done.err
    done = swapstore.inside("diff", "mena", "0", "1")
    assert (done.code, "no snapshot matches id 0" in done.err) == (1, True)
    done = swapstore.inside("diff", "mena", "9", "1")
    assert (done.code, "version 9 or id 9" in done.err) == (1, True)
    assert swapstore.inside("diff", "mena", "1", "1", "--limit", "0").code == 2


def test_exit_code_tells_whether_there_is_a_change(published: Swapstore) -> None:
    """A script cannot branch on a change, or takes a missing snapshot or an outage for one."""
    assert published.inside("diff", "mena", "--exit-code").code == 10
    assert published.inside("diff", "mena").code == 0
    assert published.inside("diff", "mena", "2", "two", "--exit-code").code == 0
    assert published.inside("diff", "mena", "3", "--exit-code").code == 1
    assert published.on_a_terminal("diff", "mena", "--exit-code").code == 10


def test_what_is_written_otherwise_has_not_changed(swapstore: Swapstore) -> None:
    """Fields in another order are taken for changes, or nothing says why the digest is another one."""
    for text in (b'{"a": 1, "b": [1e2, "\\u00e9"]}', '{ "b": [100.0, "é"], "a": 1 }'.encode()):
        assert swapstore.inside("publish", "mena", stdin=text).code == 0
    assert swapstore.inside("diff", "mena", "--exit-code").out == b""
    seen = swapstore.on_a_terminal("diff", "mena").out.decode()
    assert "no changes" in seen
    assert "The payloads differ in spaces" in seen
    assert "payloads differ" not in swapstore.on_a_terminal("diff", "mena", "1", "1").out.decode()


def test_bytes_are_compared_by_size_and_digest(swapstore: Swapstore) -> None:
    """An image is printed on the terminal."""
    for payload in (b"\x00\x1b[31m", b"\x00\x1b[32m!"):
        swapstore.inside("publish", "tiles", "--codec", "bytes", stdin=payload)
    change = swapstore.inside("diff", "tiles").json
    assert (change["kind"], change["pointer"]) == ("changed", "")
    assert [change[each]["size"] for each in ("before", "after")] == [6, 7]
    assert re.fullmatch("[0-9a-f]{64}", change["after"]["sha256"])
    seen = swapstore.on_a_terminal("diff", "tiles", columns=120).out.decode()
    assert '- {"codec": "bytes", "size": 6, "sha256": "' in seen


@pytest.mark.every_store
def test_on_every_store(swapstore: Swapstore, real_url: str) -> None:
    """The command works on a file only."""
    with connect(real_url) as store:
        store.publish("mena", [{"id": each} for each in range(100)])
        store.publish("mena", [{"id": each} for each in range(1, 101)])
    kinds = [
        json.loads(line)["kind"] for line in swapstore("diff", "mena", "--url", real_url).out.splitlines()
    ]
    assert kinds == ["removed", "added"]
    assert set(kinds) < set(KINDS)
