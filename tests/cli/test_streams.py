"""Broken pipes, full disks, locales without Unicode, and Ctrl-C."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

from swapstore import connect
from tests.cli.conftest import COMMAND, Swapstore

REGIME = {"regime": "gespannt, é, 火"}


@pytest.fixture
def published(swapstore: Swapstore) -> Swapstore:
    with connect(swapstore.url) as store:
        store.publish("mena", REGIME, labels={"ort": "Köln"})
        store.publish("big", b"x" * 1_000_000, codec="bytes")
    return swapstore


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
def test_a_reader_that_goes_away(published: Swapstore, unbuffered: str) -> None:
    """`swapstore latest big | head` would print a traceback, or exit as if all of it was read."""
    process = subprocess.Popen(
        [*COMMAND, "latest", "big"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**published.env, "PYTHONUNBUFFERED": unbuffered},
    )
    assert process.stdout is not None
    process.stdout.read(1)
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (141, b"")


def test_a_reader_that_was_never_there(published: Swapstore) -> None:
    """The interpreter would complain of the pipe once more while it exits, with another exit code."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [*COMMAND, "status", "mena"], stdout=writer, stderr=subprocess.PIPE, env=published.env, check=False
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full to write to")
@pytest.mark.parametrize("arguments", [["latest", "mena"], ["--version"]], ids=["latest", "version"])
def test_a_disk_that_is_full(published: Swapstore, arguments: list[str]) -> None:
    """`swapstore latest mena > file` on a full disk would leave an empty file and exit with 0."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, env=published.env, check=False
        )
    assert done.returncode == 2
    assert done.stderr == b"swapstore: the output cannot be written: No space left on device\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full to write to")
def test_a_publish_that_cannot_print_its_commit_says_so(swapstore: Swapstore) -> None:
    """The exit code reads as if nothing had been published, and the job publishes again."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, "publish", "mena"],
            input=b"1",
            stdout=full,
            stderr=subprocess.PIPE,
            env=swapstore.env,
            check=False,
        )
    assert done.returncode == 2
    assert b"version 1 is published, but cannot be printed" in done.stderr
    with connect(swapstore.url) as store:
        assert store.datasets() == ["mena"]


def test_streams_that_are_closed(published: Swapstore) -> None:
    """A job without stdout, stderr or stdin would fail after its publish was committed."""
    script = f"{' '.join(COMMAND)} publish mena {{}} 0<&- 1>&- 2>&-"
    file = published.path.with_name("value.json")
    file.write_text("1")
    for name, code in ((str(file), 0), ("", 2)):
        done = subprocess.run(script.format(name), shell=True, env=published.env, check=False)  # noqa: S602
        assert done.returncode == code


def test_json_is_utf8_in_every_locale(published: Swapstore) -> None:
    """A cron job, which has no locale, would print other bytes than a shell, or fail."""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    assert "火".encode() in published("latest", "mena", env=plain).out
    assert published("history", "mena", env=plain).json["labels"] == {"ort": "Köln"}
    seen = published.on_a_terminal("latest", "mena", env=plain)
    assert seen.code == 0
    assert b"K?ln" in seen.out


NO_UNICODE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["publish", "--help"],
        ["read", "mena", "--version", "1"],
        ["history", "mena"],
        ["status"],
        ["status", "mena", "--max-age", "1s"],
        ["verify"],
        ["repair"],
        ["doctor"],
        ["completion", "zsh"],
    ],
    ids=" ".join,
)
def test_a_terminal_without_unicode(published: Swapstore, arguments: list[str]) -> None:
    """A server's console, which has no locale, shows a traceback in place of the answer."""
    seen = published.on_a_terminal(*arguments, env=NO_UNICODE)
    assert seen.code in {0, 6, 7}
    assert seen.out.isascii()
    assert "Traceback" not in seen.err


def test_a_follower_on_a_terminal_without_unicode(published: Swapstore) -> None:
    """The follower dies of the first label that is not ASCII."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "follow", "mena", "--after", "0"],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        env={**published.env, **NO_UNICODE},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    os.close(theirs)
    try:
        seen = b""
        while b"ort=K?ln" not in seen:
            seen += os.read(ours, 1000)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
        os.close(ours)
    assert (process.returncode, err) == (130, b"")


def test_ctrl_c_is_quiet(swapstore: Swapstore) -> None:
    """Ctrl-C at the prompt would print a traceback."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, "publish", "mena"],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=swapstore.env,
        # Tests that run in the background of a shell inherit that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    try:
        os.close(theirs)
        assert process.stderr is not None
        assert process.stderr.readline() == b"swapstore: reading from the terminal; end with Ctrl-D\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
        os.close(ours)
    assert (process.returncode, out, err) == (130, b"", b"")
