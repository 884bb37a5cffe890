"""`swapstore verify`: what is printed for scripts and for people, and `Store.verify`."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import socket
import struct
import subprocess
import termios
from collections.abc import Callable

import pytest

from swapstore import Finding, Problem, Progress, Store, connect
from swapstore.cli import output
from swapstore.cli.fsck import Summary
from swapstore.errors import InvalidInput, StoreClosed, Unavailable
from tests.cli.conftest import COMMAND, Swapstore
from tests.cli.spoiled import DEEP, delete, published, put, spoil

LONG = "a/long/name/" + "x" * 100


# --- for scripts -----------------------------------------------------------------------------------


def test_all_is_well(published: Swapstore) -> None:
    """A monitor would alarm for nothing, or print so much that nobody reads the alarm."""
    done = published("verify")
    assert (done.code, done.out, done.err) == (0, b"", "")
    assert published.inside("verify", "mena").code == 0


def test_what_is_wrong_is_a_line_each(published: Swapstore) -> None:
    """A script could not tell which snapshot is damaged, what that means, or what would be done about it."""
    delete(published, ":id:{mena}:id-40")
    done = published("verify")
    assert done.json == {
        "problem": "record-missing",
        "dataset": "mena",
        "key": "swapstore:id:{mena}:id-40",
        "version": 41,
        "id": "id-40",
        "detail": "",
        "expires_in_ms": None,
        "age_ms": None,
        "wrong": True,
        "meaning": Problem.RECORD_MISSING.meaning,
        "remedy": Problem.RECORD_MISSING.remedy,
    }
    assert done.code == 5
    assert done.err == "swapstore: 1 thing is wrong; swapstore repair says what it would do\n"
    assert published.inside("verify", "europe").code == 0


def test_orphans_are_printed_and_are_not_wrong(published: Swapstore) -> None:
    """A producer that was killed would set off the alarm for ten minutes."""
    put(published, "swapstore:id:{mena}:cut", 300_000)
    done = published.inside("verify", "mena")
    assert (done.code, done.err) == (0, "")
    assert (done.json["problem"], done.json["wrong"]) == ("orphan", False)
    assert 290_000 <= done.json["age_ms"] <= 310_000


def test_findings_are_printed_as_they_are_found(
    published: Swapstore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long verify would print nothing for an hour, and nothing at all if it is cut short."""

    def cut(_store: Store, _dataset: str | None, *, on_progress: Callable[[Progress], None]) -> object:
        on_progress(Progress(dataset="mena", rows=1, total=2, keys=0))
        yield Finding(problem=Problem.LEAKED, dataset="mena", key="a")
        assert len(printed) == 1
        raise Unavailable("the server went away")

    printed: list[object] = []
    monkeypatch.setattr(Store, "verify", cut)
    monkeypatch.setattr(output, "write_json", printed.append)
    assert published.inside("verify").code == 4


def test_nothing_published_is_exit_code_1(swapstore: Swapstore, published: Swapstore) -> None:
    """A typo in a name, or a server that was flushed, would keep the monitor green for ever."""
    done = published("verify", "nowhere")
    assert (done.code, done.out) == (1, b"")
    assert "'nowhere'" in done.err
    elsewhere = published.inside("verify", "--namespace", "typo")
    assert elsewhere.code == 1
    assert "'typo'" in elsewhere.err
    put(published, "swapstore:id:{first}:cut", 300_000)
    assert published.inside("verify", "first").code == 0, "its first publish was cut: there is something"


def test_an_unavailable_store_is_exit_code_4(swapstore: Swapstore) -> None:
    """A server that restarts would look like lost data, and its password would be in the log."""
    for command in ("verify", "repair"):
        done = swapstore(command, "--patience=0", env={"SWAPSTORE_URL": "redis://user:s3cret@127.0.0.1:1/0"})
        assert (done.code, done.out) == (4, b"")
        assert "s3cret" not in done.err


def test_an_invalid_name_is_a_usage_error(published: Swapstore) -> None:
    """A typo would look like a sound dataset."""
    assert published.inside("verify", "no such name").code == 2
    assert published.inside("verify", "mena", "europe").code == 2


# --- for people ------------------------------------------------------------------------------------


def test_a_person_reads_that_all_is_well(published: Swapstore) -> None:
    """A person could not see how much was verified."""
    put(published, "swapstore:id:{mena}:cut", 300_000)
    put(published, "swapstore:ts:{mena}:7:cut", 200_000)
    put(published, "swapstore:mine")
    done = published.on_a_terminal("verify")
    seen = " ".join(done.out.decode().split())
    assert done.code == 0
    assert "2 orphans: the oldest from 6 min 4" in seen
    assert "the last expires in 4 min 5" in seen
    assert "1 key that swapstore did not write, and never reads: swapstore:mine" in seen
    assert seen.endswith("all is well: 2 datasets, 76 snapshots")


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_what_is_wrong_fits_the_terminal(published: Swapstore, columns: int) -> None:
    """Long keys would break the table, or hide what is wrong with them."""
    with connect(published.url) as store:
        for number in range(2):
            store.publish(LONG, number, id="i" * 190 + str(number))
    delete(published, ":id:{mena}:id-40", "iii0")  # of the latter the ts record too
    done = published.on_a_terminal("verify", columns=columns)
    lines = done.out.decode().splitlines()
    assert done.code == 5
    assert all(len(line) <= columns for line in lines)
    joined = "".join("".join(lines).split())
    for words in (LONG, "i" * 190 + "0", "swapstore:id:{mena}:id-40", "version41", "→dropsitsrow"):
        assert words in joined
    assert lines[-2] == "3 things are wrong. To see what a repair would do:"
    assert lines[-1] == "  swapstore repair"


def test_many_things_of_one_kind_do_not_hide_the_others(published: Swapstore) -> None:
    """A thousand lost snapshots would scroll the one lost manifest off the screen."""
    with connect(published.url) as store:
        for number in range(60):
            store.publish("europe", number)
    spoil(published, "DELETE FROM records WHERE key LIKE '%:id:{europe}:%'")
    delete(published, ":id:{mena}:id-40")
    lines = published.on_a_terminal("verify").out.decode().splitlines()
    assert sum(line.startswith("record-missing") for line in lines) == 50 + 1, "and once, what it means"
    assert any("swapstore:id:{mena}:id-40" in line for line in lines)
    assert "and 12 more; with --json all are printed." in lines
    assert lines[-2] == "62 things are wrong. To see what a repair would do:"


def test_the_command_to_copy_works_on_the_same_dataset(published: Swapstore) -> None:
    """The printed command would look at another namespace, or at every dataset."""
    delete(published, ":id:{mena}:id-40")
    done = published.on_a_terminal("verify", "mena", "--namespace", "swapstore")
    hint = done.out.decode().splitlines()[-1].split()
    assert hint == ["swapstore", "--namespace", "swapstore", "repair", "mena"]
    assert published.inside(*hint[1:]).json["dropped"] == ["id-40"]


def test_control_characters_do_not_reach_the_terminal(published: Swapstore) -> None:
    """A key that somebody wrote among swapstore's could set the window's title, or move the cursor."""
    put(published, "swapstore:\x1b]0;title\x07")
    put(published, "swapstore:id:{mena}:\x1b[31mred")
    for command in (("verify",), ("repair",), ("repair", "--apply")):
        seen = published.on_a_terminal(*command).out
        assert b"\x1b" not in seen
        assert b"\x07" not in seen
    assert "\\u001b[31mred" in published.inside("verify").out.decode()


def with_stderr_on_a_terminal(
    swapstore: Swapstore, *arguments: str
) -> tuple[subprocess.Popen[bytes], Callable[[], bytes]]:
    """Start the command with stdout piped and a person at stderr; return what reads what they see."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 80, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=swapstore.env,
        # Tests that run in the background of a shell inherit that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    os.close(theirs)

    def read() -> bytes:
        try:
            return os.read(ours, 65_536)
        except OSError:
            os.close(ours)
            return b""

    return process, read


def test_a_bar_says_how_far_it_is(published: Swapstore) -> None:
    """A person would see no progress on a large store, or the bar would be mixed with the JSON."""
    delete(published, ":id:{mena}:id-40")
    process, read = with_stderr_on_a_terminal(published, "verify")
    seen = b""
    while chunk := read():
        seen += chunk
    out, _ = process.communicate(timeout=60)
    assert [json.loads(line)["problem"] for line in out.splitlines()] == ["record-missing"]
    assert b"76/76" in seen
    assert b"keys" in seen
    quiet, read = with_stderr_on_a_terminal(published, "verify", "--json")
    assert (
        b"".join(iter(read, b""))
        == b"swapstore: 1 thing is wrong; swapstore repair says what it would do\r\n"
    )
    quiet.communicate(timeout=60)


@pytest.mark.parametrize("command", ["verify", "repair"])
def test_ctrl_c_gives_the_terminal_back(swapstore: Swapstore, command: str) -> None:
    """Ctrl-C would print a traceback, or leave the terminal without a cursor."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"redis://127.0.0.1:{silent.getsockname()[1]}/0?socket_timeout=50"
        process, read = with_stderr_on_a_terminal(swapstore, command, "--url", url)
        seen = b""
        while b"looking" not in seen:
            seen += read()
        process.send_signal(signal.SIGINT)
        while chunk := read():
            seen += chunk
        out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, b"")
    assert seen.count(b"\x1b[?25l") == seen.count(b"\x1b[?25h") == 1, "the cursor is shown again"
    assert b"Traceback" not in seen


# --- in Python -------------------------------------------------------------------------------------


def test_verify_checks_its_arguments_at_the_call(published: Swapstore) -> None:
    """A wrong name would be noticed during the iteration, far from the call, or never."""
    with connect(published.url) as store:
        with pytest.raises(InvalidInput):
            store.verify("no such name")
        unread = store.verify("mena")
    for dataset in ("mena", None):
        with pytest.raises(StoreClosed):
            store.verify(dataset)
    assert unread is not None


def test_verify_reads_while_it_is_iterated(published: Swapstore) -> None:
    """A caller that stops at the first finding would have waited for every payload."""
    delete(published, ":id:{mena}:id-3")
    steps: list[Progress] = []
    with connect(published.url) as store:
        findings = store.verify("mena", on_progress=steps.append)
        assert steps == []
        assert next(findings).id == "id-3"
        begun = len(steps)
        assert list(findings) == []
    assert begun < len(steps)
    assert (steps[-1].rows, steps[-1].total) == (DEEP, DEEP)
    assert steps[-1].keys >= 2 * DEEP


def test_the_summary_of_findings_is_bounded() -> None:
    """The findings of a million damaged keys would not fit in memory."""
    summary = Summary()
    for number in range(10_000):
        summary.add(Finding(problem=Problem.LEAKED, dataset="mena", key=f"{number}"))
    assert summary.wrong == 10_000
    assert [len(group.findings) for group in summary.groups.values()] == [50]
    for number in range(100):
        summary.add(Finding(problem=Problem.LOST, dataset=f"d{number}", key=f"{number}"))
    assert len(summary.sample(50)) == 50


__all__ = ["published"]
