"""Groups on the command line: files that are published together, and read one by one or as one document."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Swapstore

EG = b'{ "b": 1.50, "a": "\\u00e9" }\n'
SG = b"[1e3,\n 2]"


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory with two members, and what is none."""
    directory = tmp_path / "countries"
    (directory / "old").mkdir(parents=True)
    (directory / "EG.json").write_bytes(EG)
    (directory / "SG.json").write_bytes(SG)
    (directory / ".hidden.json").write_bytes(b"{")
    return directory


def test_files_are_published_together_and_read_byte_for_byte(swapstore: Swapstore, files: Path) -> None:
    """A country's numbers would be changed on the way, or another country's would be printed."""
    named = ("--member", f"EG={files}/EG.json", "--member", f"SG={files}/SG.json")
    commits = [
        swapstore("publish-group", "portwatch", *named, "--id", "a", "--label", "run=1").json,
        swapstore.inside("publish-group", "portwatch", "--dir", str(files), "--id", "b").json,
    ]
    assert [commit["version"] for commit in commits] == [1, 2]
    assert commits[0]["sha256"] == commits[1]["sha256"]
    assert swapstore("latest", "portwatch", "--member", "EG").out == EG
    assert swapstore("latest", "portwatch", "--member", "SG").out == SG
    for selector in (("--version", "1"), ("--id", "a"), ("--as-of", "2100-01-01T00:00:00Z")):
        assert swapstore.inside("read", "portwatch", *selector, "--member", "EG").out == EG
    meta = swapstore.inside("read", "portwatch", "--version", "1", "--meta").json
    assert (meta["codec"], meta["labels"]) == ("group", {"run": "1"})
    assert {name: (each["size"], each["codec"]) for name, each in meta["members"].items()} == {
        "EG": (len(EG), "json"),
        "SG": (len(SG), "json"),
    }
    assert "raw" not in json.dumps(meta)


def test_a_whole_group_is_one_document(swapstore: Swapstore, files: Path) -> None:
    """A script would get the table of the members, or text that is not JSON."""
    swapstore.inside("publish-group", "portwatch", "--dir", str(files))
    whole = b'{"EG":{ "b": 1.50, "a": "\\u00e9" },"SG":[1e3,\n 2]}\n'
    assert swapstore("latest", "portwatch").out == whole
    assert swapstore.inside("read", "portwatch", "--version", "1").out == whole
    for command in (("latest", "portwatch"), ("read", "portwatch", "--version", "1")):
        both = swapstore.inside(*command, "--member", "SG", "--member", "EG").out
        assert json.loads(both) == json.loads(whole)


def test_members_of_bytes_are_printed_one_by_one(swapstore: Swapstore, tmp_path: Path) -> None:
    """Tiles would be printed as text, or one after the other in one stream."""
    tile = bytes(range(256)) * 9
    (tmp_path / "t.pbf").write_bytes(tile)
    (tmp_path / "none").write_bytes(b"")
    named = ("--member", f"t={tmp_path}/t.pbf", "--member", f"none={tmp_path}/none")
    assert swapstore.inside("publish-group", "tiles", *named, "--codec", "bytes").code == 0
    assert swapstore("latest", "tiles", "--member", "t").out == tile
    assert swapstore.inside("latest", "tiles", "--member", "none").out == b""
    done = swapstore.inside("latest", "tiles")
    assert (done.code, done.out) == (2, b"")
    assert "member 'none' is not JSON" in done.err
    assert "--member none" in done.err


def test_what_is_wrong_with_a_member_is_said(swapstore: Swapstore, files: Path, tmp_path: Path) -> None:
    """Somebody who publishes two hundred files has to guess which one is wrong."""
    (files / "EG.txt").write_bytes(b"{}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "S G.json").write_bytes(b"{}")
    bad = tmp_path / "bad.json"
    bad.write_bytes(b'{\n "a": }')
    for options, code, words in (
        (("--dir", str(files)), 2, "would both be the member 'EG'"),
        (("--dir", str(tmp_path / "empty")), 2, "holds no files"),
        (("--dir", str(tmp_path / "nowhere")), 2, "No such file or directory"),
        (("--member", f"EG={files}/EG.json", "--member", f"X={bad}"), 2, "member 'X': "),
        (("--member", "X=/nowhere"), 2, "member 'X': cannot read '/nowhere'"),
        (("--member", f"S G={bad}"), 2, "S G"),
        (("--member", f"EG={bad}", "--member", f"EG={bad}"), 2, "--member 'EG' is given twice"),
        (("--member", "EG"), 2, "--member 'EG' is not NAME=FILE"),
        (("--member", f"EG={bad}", "--dir", str(files)), 2, "one of them"),
        ((), 2, "one of them"),
    ):
        done = swapstore.inside("publish-group", "portwatch", *options)
        assert (done.code, done.out) == (code, b""), options
        assert words in done.err, options
    assert swapstore.inside("latest", "portwatch").code == 1


def test_members_that_are_not_there(swapstore: Swapstore, files: Path) -> None:
    """A typing mistake in a name is taken for damage, or prints nothing with success."""
    swapstore.inside("publish-group", "portwatch", "--dir", str(files))
    swapstore.inside("publish", "mena", stdin=b"{}")
    for command in (("latest", "portwatch"), ("read", "portwatch", "--version", "1")):
        done = swapstore.inside(*command, "--member", "XX")
        assert (done.code, done.out) == (1, b"")
        assert "version 1 has no member 'XX'; it has 2 others" in done.err
    for command in (("latest", "mena"), ("read", "mena", "--version", "1")):
        done = swapstore.inside(*command, "--member", "EG")
        assert (done.code, done.out) == (2, b"")
        assert "version 1 is a single snapshot and no group" in done.err
    assert swapstore.inside("latest", "nowhere", "--member", "EG").code == 1


def test_a_group_on_a_terminal(swapstore: Swapstore, files: Path) -> None:
    """A person would not see which members there are, or get the table of them."""
    swapstore.inside("publish-group", "portwatch", "--dir", str(files))
    seen = swapstore.on_a_terminal("latest", "portwatch").out.decode()
    for words in ("2: EG, SG", f"{len(EG) + len(SG)} bytes", '"b": 1.50', '"SG": ['):
        assert words in seen
    seen = swapstore.on_a_terminal("latest", "portwatch", "--member", "SG").out.decode()
    assert "EG" not in seen
    assert "1: SG" in seen
    (files / "big.json").write_text(json.dumps(list(range(100))))
    swapstore.inside("publish-group", "portwatch", "--dir", str(files))
    seen = swapstore.on_a_terminal("latest", "portwatch", "--member", "big").out.decode()
    assert "swapstore read portwatch --version 2 --member big --json" in seen


def test_retries_and_locks_work_as_for_one_file(swapstore: Swapstore, files: Path) -> None:
    """A cron job that repeats its command after a failure would publish twice."""
    command = ("publish-group", "portwatch", "--dir", str(files), "--id", "one")
    assert [swapstore.inside(*command).json["created"] for _ in range(2)] == [True, False]
    (files / "SG.json").write_bytes(b"7")
    assert swapstore.inside(*command).code == 3
    assert swapstore.inside(*command[:-2], "--expected-version", "7").code == 3
    (row,) = swapstore.inside("history", "portwatch").lines
    assert row["codec"] == "group"
    assert swapstore.inside("verify", "portwatch").code == 0
