"""`swapstore import snapshots`, as scripts and people run it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import termios

import pytest

from tests.cli.conftest import COMMAND, TIMEOUT_S, Swapstore
from tests.migration.conftest import START_MS, Old
from tests.support.valkey import Server, free_port

pytestmark = pytest.mark.slow

T = START_MS


def test_a_sound_source(swapstore: Swapstore, old: Old, server: Server) -> None:
    """A script cannot tell that all went well, or how much was imported."""
    for number in range(3):
        text = old.publish("mena", f"id-{number}", T + number)
    arguments = ("import", "snapshots", "--from", server.url, "--prefix", "intel")
    done = swapstore(*arguments)
    assert (done.code, done.err) == (0, "")
    region = {"step": "region", "dataset": "mena", "created": 3, "already": 0, "left_out": 0}
    assert done.json == {**region, "latest": "id-2", "old_latest": "id-2"}
    assert swapstore.inside("latest", "mena").out == text
    assert swapstore.inside(*arguments).json["already"] == 3


def test_a_damaged_source(swapstore: Swapstore, old: Old, server: Server) -> None:
    """A script takes an import that left something out for a complete one."""
    old.publish("mena", "older", T - 1)
    old.publish("mena", "lost", T, done={"index"})
    old.publish("mena", "text", T + 1, b"text", done={"by_id", "index"})
    old.publish("mena", "good", T + 2)
    done = swapstore.inside("import", "snapshots", "--from", server.url, "--prefix", "intel:")
    assert done.code == 5
    assert done.err.startswith("swapstore: the rest is imported, but 2 ")
    assert done.lines[0] == {
        "step": "finding",
        "kind": "dangling",
        "dataset": "mena",
        "id": "lost",
        "ts": T,
        "key": old.by_id("lost"),
        "imported": False,
        "detail": "the index names it, and there is no payload",
    }
    assert [line["kind"] for line in done.lines[:-1]] == ["dangling", "unreadable"]
    assert (done.lines[-1]["created"], done.lines[-1]["left_out"]) == (2, 2)
    everything = swapstore.inside(
        "import", "snapshots", "--from", server.url, "--prefix", "intel", "--codec", "bytes",
        "--namespace", "b", "--region", "mena",
    )  # fmt: skip
    assert everything.lines[-1]["created"] == 3


def test_exit_codes(swapstore: Swapstore, old: Old, server: Server) -> None:
    """A script cannot tell a wrong prefix from an unreachable source, or from a conflict of ids."""
    old.publish("mena", "a", T)
    assert swapstore.inside("publish", "mena", "--id", "a", stdin=b"1").code == 0
    base = ("import", "snapshots", "--prefix", "intel")
    taken = swapstore.inside(*base, "--from", server.url)
    assert (taken.code, taken.lines[0]["kind"]) == (3, "refused")
    assert swapstore.inside("import", "snapshots", "--from", server.url, "--prefix", "x").code == 1
    assert swapstore.inside(*base, "--from", server.url, "--region", "x").code == 1
    assert swapstore.inside(*base, "--from", server.url, "--latest-key", "x").code == 2
    assert swapstore.inside(*base, "--from", "sqlite:///x.db").code == 2
    assert swapstore.inside(*base).code == 2
    assert swapstore.inside("import").code == 2
    away = swapstore.inside(*base, "--from", f"redis://u:hunter2@127.0.0.1:{free_port()}/0")
    assert away.code == 4
    assert "hunter2" not in away.err


def test_imported_snapshots_without_an_index_entry_are_not_damage(
    swapstore: Swapstore, old: Old, server: Server
) -> None:
    """A migration that lost nothing ends as a failure."""
    old.publish("mena", "a", T, done={"by_ts", "by_id", "latest"})
    done = swapstore.inside("import", "snapshots", "--from", server.url, "--prefix", "intel")
    assert done.code == 0
    assert [(line["step"], line.get("kind")) for line in done.lines] == [
        ("finding", "unindexed"),
        ("region", None),
    ]


def test_the_address_may_come_from_the_environment(swapstore: Swapstore, old: Old, server: Server) -> None:
    """A password has to be given on the command line, where all users of the machine see it."""
    old.publish("mena", "a", T)
    done = swapstore("import", "snapshots", "--prefix", "intel", env={"SWAPSTORE_IMPORT_FROM": server.url})
    assert done.json["created"] == 1


def test_names_of_keys_can_be_given(swapstore: Swapstore, old: Old, server: Server) -> None:
    """An option for the name of a key has no effect."""
    old.client.set("now/mena", "a")
    old.client.set("one/a", "1")
    old.client.set("at/mena/1700000000001", "1")
    old.client.zadd("all/mena", {"a": T + 1})
    names = ("--latest-key", "now/{region}", "--by-id-key", "one/{id}", "--index-key", "all/{region}")
    done = swapstore.inside(
        "import", "snapshots", "--from", server.url, *names, "--by-ts-key", "at/{region}/{ts}"
    )
    assert (done.code, done.json["created"]) == (0, 1)


def test_a_person_sees_what_was_found_and_imported(swapstore: Swapstore, old: Old, server: Server) -> None:
    """A person sees JSON, or a table that leaves out what was wrong."""
    old.publish("mena", "expired", T, done={"index"})
    old.publish("mena", "older", T + 1)
    old.publish("mena", "lost\x1b[2J", T + 2, done={"index"})
    old.publish("mena", "good", T + 3)
    seen = swapstore.on_a_terminal("import", "snapshots", "--from", server.url, "--prefix", "intel")
    text = seen.out.decode()
    assert seen.code == 5
    assert "dangling: intel:snapshot-by-id:v1:lost\\x1b[2J" in text
    assert "Found: 1 expired, 1 dangling." in text
    assert re.search(r"mena +2 +0 +2 +good", text)
    assert seen.err.startswith("swapstore: the rest is imported")
    plain = swapstore.on_a_terminal(
        "import", "snapshots", "--from", server.url, "--prefix", "intel", "--json"
    )
    assert plain.lines[-1]["already"] == 2


def test_payloads_past_their_time_to_live_are_not_damage(
    swapstore: Swapstore, old: Old, server: Server
) -> None:
    """An import of all that there is fails, because the index was never pruned."""
    old.publish("mena", "expired", T, done={"index"})
    old.publish("mena", "good", T + 1)
    done = swapstore.inside("import", "snapshots", "--from", server.url, "--prefix", "intel")
    assert (done.code, done.err) == (0, "")
    assert [line.get("kind") for line in done.lines] == ["expired", None]


@pytest.mark.parametrize(("options", "bars"), [((), 1), (("--json",), 0)])
def test_progress_is_shown_on_stderr(
    options: tuple[str, ...], bars: int, swapstore: Swapstore, old: Old, server: Server
) -> None:
    """A long import looks as if it hung, or its progress bar ends up in the report."""
    for number in range(30):
        old.publish("mena", f"id-{number}", T + number)
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 80, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, "import", "snapshots", "--from", server.url, "--prefix", "intel", *options],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=swapstore.env,
    )
    os.close(theirs)
    out, _ = process.communicate(timeout=TIMEOUT_S)
    seen = b""
    try:
        while chunk := os.read(ours, 65_536):
            seen += chunk
    except OSError:
        pass  # the error on Linux when the other side is closed
    os.close(ours)
    assert process.returncode == 0
    assert out.startswith(b'{"step":"region"')
    assert out.count(b"\n") == 1
    assert min(1, seen.count(b"30/30")) == bars
