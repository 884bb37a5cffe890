"""Copies between real stores of every kind, by real processes, which are killed and restarted."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

import swapstore
from swapstore import Store
from tests.cli.conftest import COMMAND
from tests.copying.histories import assert_same, readable
from tests.support.rest import RestServer
from tests.support.rest_switches import NO_SCRIPTS
from tests.support.times import at
from tests.support.valkey import Server

pytestmark = [pytest.mark.server, pytest.mark.slow]

D = "mena"
PRODUCER = """
import sys, time
import swapstore
url, count = sys.argv[1], int(sys.argv[2])
with swapstore.connect(url) as store:
    for number in range(count):
        store.publish("mena", {"n": number, "text": "x" * 500}, id=f"live-{number}")
        print(number, flush=True)
"""


def fill(store: Store, *, large: int = 0) -> None:
    """Publish a bit of everything: JSON as it was written, bytes, groups, labels, backfills, old times."""
    shuffled = random.Random(7)
    lines = [f"line {number}" for number in range(80)]
    for number in range(40):
        lines[shuffled.randrange(80)] = str(shuffled.random())
        store.publish(D, {"lines": lines}, id=f"id-{number}", ts=at(10_000 + number), dedupe_key=f"k{number}")

    store.publish(D, msgspec.Raw(b'{ "b" : 1.50,\n "a": "\xc3\xa9" }'), id="as-written", ts=at(10_050))
    store.publish(D, bytes(range(256)) * 20, codec="bytes", id="bytes", ts=at(10_051), labels={"a": "é"})
    store.publish(D, "old", id="backfilled", ts=at(5))
    for number in range(3):
        members = {name: {"name": name, "n": number // 2, "text": lines} for name in ("EG", "SG", "index")}
        store.publish_group("portwatch", members, id=f"group-{number}", ts=at(10_000 + number))
    store.publish_group("portwatch", {"raw": b"\xff\x00"}, codec="bytes", id="of-bytes", ts=at(10_100))
    if large:
        store.publish_group("large", {f"m{n}": "y" * (large // 30) for n in range(30)}, id="large")


def test_round_trip_over_every_kind(valkey: Server, tmp_path: Path) -> None:
    """A backup, restored, is not what was backed up: other bytes, another order, another time."""
    with (
        RestServer(valkey) as rest,
        RestServer(valkey) as plain,
        swapstore.connect(f"sqlite:///{tmp_path}/a.db", compression="delta") as first,
        swapstore.connect(valkey.url, compression="zstd") as second,
        swapstore.connect(rest.url, token=rest.token, namespace="rest", compression="delta") as third,
    ):
        plain.switches.denied = NO_SCRIPTS
        plain.switches.compares = True
        fill(first, large=300_000)
        with (
            swapstore.connect(plain.url, token=plain.token, namespace="plain") as fourth,
            swapstore.connect(f"sqlite:///{tmp_path}/b.db") as last,
        ):
            stores = [first, second, third, fourth, last]
            for source, target in pairwise(stores):
                assert all(done.complete for done in swapstore.copy(source, target))
            for name in (D, "portwatch", "large"):
                for store in stores[1:]:
                    assert_same(first, store, name)
            for store in stores[1:]:
                assert [done.copied for done in swapstore.copy(first, store)] == [0, 0, 0]
                assert not [finding for finding in store.verify() if finding.wrong]


def test_old_readers_of_the_target_follow(valkey: Server, tmp_path: Path) -> None:
    """Readers of the old keys get nothing of what is copied; or a group is half of what they read."""
    mirror = swapstore.Mirror(prefix="old")
    with (
        swapstore.connect(f"sqlite:///{tmp_path}/a.db") as source,
        swapstore.connect(valkey.url, mirror=mirror) as target,
        valkey.client() as client,
    ):
        source.publish(D, {"n": 1}, id="one", ts=at(1))
        source.publish_group(D, {"EG": 1}, id="group", ts=at(2))
        source.publish(D, {"n": 2}, id="two", ts=at(3))
        (done,) = swapstore.copy(source, target)
        assert [(step.id, step.outcome) for step in done.failures] == [("group", "refused")]
        assert client.get(mirror.latest(D)) == b"two"
        assert client.get(mirror.by_id("one")) == b'{"n":1}'


def test_a_commit_is_copied_in_one_round_trip(valkey: Server, tmp_path: Path) -> None:
    """A copy over a long way takes twice as long, because each commit asks for the server's time."""
    with (
        swapstore.connect(f"sqlite:///{tmp_path}/a.db") as source,
        swapstore.connect(valkey.url) as target,
        valkey.client() as client,
    ):
        for number in range(50):
            source.publish(D, number, ts=at(number))
        client.config_resetstat()
        swapstore.copy(source, target)
        assert client.info("commandstats").get("cmdstat_time") is None


# --- processes --------------------------------------------------------------------------------------


@contextmanager
def copying(*arguments: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    """Run `swapstore copy`."""
    process = subprocess.Popen(
        [*COMMAND, "copy", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
        # Tests that run in the background of a shell inherit that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def steps(process: subprocess.Popen[str]) -> Iterator[Any]:
    assert process.stdout is not None
    return map(json.loads, process.stdout)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_copy_that_is_killed_goes_on(valkey: Server, tmp_path: Path) -> None:
    """A backup whose process was killed lacks something, or has it twice, after the next run."""
    url = f"sqlite:///{tmp_path}/a.db"
    with swapstore.connect(url) as source, swapstore.connect(valkey.url) as target:
        for number in range(60):
            source.publish(D, {"n": number, "text": "x" * 3000}, id=f"id-{number}")
        for kill_at in (1, 30):
            with copying(url, valkey.url, "--follow") as process:
                for step in steps(process):
                    if step["outcome"] == "copied" and step["version"] >= kill_at:
                        process.kill()
                        break
                process.wait(30)
            ours, theirs = readable(source), readable(target)
            assert [row.id for row in theirs] == [row.id for row in ours[: len(theirs)]]
        with copying(url, valkey.url) as process:
            out, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")
        assert json.loads(out)["complete"] is True
        assert_same(source, target)
        assert not [finding for finding in target.verify() if finding.wrong]


def test_a_move_to_another_server_without_a_pause(tmp_path: Path) -> None:
    """While producers publish, and both servers restart, the copy loses a commit, or ends."""
    save = ("--appendonly", "yes", "--appendfsync", "always")
    with (
        Server(tmp_path / "old", *save) as old,
        Server(tmp_path / "new", *save) as new,
        swapstore.connect(old.url, patience=30) as source,
        swapstore.connect(new.url, patience=30) as target,
    ):
        source.publish(D, 1, id="first")
        with copying("env:OLD", "env:NEW", "--follow", "--poll", "0.05", OLD=old.url, NEW=new.url) as process:
            assert next(steps(process))["id"] == "first"
            producing = [sys.executable, "-c", PRODUCER, old.url, "400"]
            with subprocess.Popen(producing, stdout=subprocess.PIPE, text=True) as producer:
                assert producer.stdout is not None
                for line in producer.stdout:
                    if int(line) in {100, 200}:
                        server = new if int(line) == 100 else old
                        server.stop()
                        server.start()
            assert producer.returncode == 0
            source.publish("later", 1, id="other")
            until(lambda: target.read("later", id="other") is not None)
            until(lambda: target.read(D, id="live-399") is not None)
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)
            assert process.returncode == 130
        assert_same(source, target)
        assert_same(source, target, "later")
        assert target.publish(D, {"n": 400}, id="of-the-moved-producer").is_latest
