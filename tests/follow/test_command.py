"""`swapstore follow`: every commit on its own line, as soon as it is there."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import swapstore
from swapstore import Retention
from tests.cli.conftest import COMMAND, Swapstore
from tests.follow.followers import publish

pytestmark = pytest.mark.slow


@pytest.fixture
def command(tmp_path: Path) -> Swapstore:
    return Swapstore(tmp_path)


@contextmanager
def running(command: Swapstore, *arguments: str, stdout: int = subprocess.PIPE) -> Iterator[Any]:
    process = subprocess.Popen(
        [*COMMAND, "follow", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=command.env,
        # Tests that run in the background of a shell inherit that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_each_commit_is_a_line_of_json_at_once(command: Swapstore) -> None:
    """`swapstore follow mena | while read …` waits for a full buffer, or reads half a commit."""
    with swapstore.connect(command.url) as store:
        publish(store, 2)
        with running(command, "mena", "--after", "0") as process:
            lines = [json.loads(process.stdout.readline()) for _ in range(2)]
            store.publish("mena", 2, id="late", labels={"run": "18:00"})
            lines.append(json.loads(process.stdout.readline()))
            assert lines == [json.loads(line) for line in history(command)]
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (130, b"", b"")


def history(command: Swapstore) -> list[bytes]:
    return command.inside("history", "mena").out.splitlines()[::-1]


def test_gaps_are_lines_too(command: Swapstore) -> None:
    """A script that reads commits does not learn that retention hid some of them."""
    with swapstore.connect(command.url) as store:
        publish(store, 40)
        store.prune("mena", retention=Retention(max_count=1))
    with running(command, "mena", "--after", "2") as process:
        gap, row = (json.loads(process.stdout.readline()) for _ in range(2))
    assert gap == {"gap": {"dataset": "mena", "after": 2, "resumes_at": 40, "reason": "retention"}}
    assert row["version"] == 40


def test_a_person_sees_a_line_per_commit(command: Swapstore) -> None:
    """A terminal shows JSON, or lets control characters in foreign text through."""
    with swapstore.connect(command.url) as store:
        store.publish("mena", "x" * 2000, id="the-first", labels={"title": "\x1b]0;gone\x07"})
        ours, theirs = pty.openpty()
        with running(command, "mena", "--after", "9", stdout=theirs) as process:
            seen = b""
            while b"\n" not in seen or b"the-first" not in seen:
                seen += os.read(ours, 4096)
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
            assert b"version 9 does not exist: the newest is 1" in process.stderr.read()
        os.close(theirs)
        os.close(ours)
    assert b"gap: version 9 does not exist, or not any more; continuing at version 1" in seen
    assert b"version 1  id the-first  2.0 KB  title=" in seen
    assert b"\x07" not in seen


def test_a_reader_that_goes_away(command: Swapstore) -> None:
    """`swapstore follow mena | head -1` waits for the next commit, or ends with a traceback."""
    with swapstore.connect(command.url) as store, running(command, "mena", "--after", "0") as process:
        publish(store, 1)
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(20) == 141
        assert process.stderr.read() == b""


def test_a_store_that_is_not_there(command: Swapstore) -> None:
    """A unit that was started with a wrong address looks as if it ran."""
    done = command("follow", "mena", "--url", "redis://127.0.0.1:1/0", "--patience", "0")
    assert (done.code, done.out) == (4, b"")
    assert done.err.startswith("swapstore: dataset 'mena': cannot connect")


@pytest.mark.parametrize("arguments", [("--after", "-1"), ("--after", "1.5"), ("--after", "last")])
def test_an_invalid_cursor_is_refused(command: Swapstore, arguments: tuple[str, ...]) -> None:
    """An empty or truncated cursor file makes the command start anywhere."""
    done = command.inside("follow", "mena", *arguments)
    assert done.code == 2


def test_an_outage_is_reported(command: Swapstore, tmp_path: Path) -> None:
    """Nobody knows why no commits come any more."""
    from tests.support.valkey import Server  # noqa: PLC0415

    with Server(tmp_path / "server") as server:
        command.env["SWAPSTORE_URL"] = server.url
        with swapstore.connect(server.url) as store, running(command, "mena", "--after", "0") as process:
            publish(store, 1)
            process.stdout.readline()
            time.sleep(0.1)
            server.stop()
            said = process.stderr.readline().decode()
    assert said.startswith("swapstore: dataset 'mena' cannot be followed now: ")
    assert "trying until it can" in said


def test_a_name_that_does_not_exist_is_said(command: Swapstore) -> None:
    """`swapstore follow menna`, misspelt, waits mutely."""
    with swapstore.connect(command.url) as store:
        publish(store, 1)
    with running(command, "menna") as process:
        said = process.stderr.readline().decode()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
    assert said.startswith("swapstore: dataset 'menna': nothing is published by this name")
