"""The benchmark runs, removes what it wrote, and reports its figures. No figure fails a test."""

from __future__ import annotations

import json
import lzma
import math
import re
import shutil
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.benchmarks import __main__ as bench
from tests.benchmarks import (
    bounds,
    history,
    payloads,
    peer_environment,
    plots,
    report,
    sequences,
    targets,
)
from tests.benchmarks.bench import Bench
from tests.benchmarks.ground import NAMESPACE, ground
from tests.benchmarks.latency import SlowNetwork
from tests.benchmarks.peer_subjects import SUBJECTS
from tests.benchmarks.rounds import UNTIMED, Ratio, Sample, Way, measure, ratio, told
from tests.support.valkey import Server

ROOT = Path(__file__).parents[2]
WAIT_S = 30


def keys(server: Server) -> list[bytes]:
    with server.client() as client:
        found: Any = client.keys(f"{NAMESPACE}-*")
        return list(found)


@pytest.mark.nightly
def test_a_quick_run_shows_ratios_and_leaves_nothing_behind(
    valkey: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A benchmark on a server in use leaves keys there, or shows no figures."""
    file = tmp_path / "figures.json"
    with valkey.client() as client:
        client.set("theirs", 1)
        arguments = [
            "--quick",
            "--rounds",
            "5",
            "--only",
            "publish,read,compression,load",
            "--url",
            valkey.url,
        ]
        assert bench.main([*arguments, "--json", str(file), "--plots", str(tmp_path)]) == 0
        assert client.keys("*") == [b"theirs"]
    shown = capsys.readouterr().out
    assert re.search(r"swapstore, warm .* \d+\.\d+ .* \d+\.\d+ .*(ms|µs)", shown)
    assert "bounds:" in shown
    assert valkey.url not in shown + file.read_text("utf-8")
    found = json.loads(file.read_text("utf-8"))
    sections = {sheet["section"] for sheet in found["sheets"]}
    assert sections == {"publish", "read", "compression", "load", "bounds"}
    timed = [row for sheet in found["sheets"] for row in sheet["rows"] if "median_us" in row]
    assert all(row["median_us"] > 0 and row["ratio"] > 0 and row["rounds"] == 5 for row in timed)
    assert (tmp_path / "publish-by-size.svg").read_text("utf-8").startswith("<svg")


def test_stopping_it_removes_the_namespace(valkey: Server) -> None:
    """Ctrl-C during a benchmark leaves keys on the user's server, or a process."""
    command = [sys.executable, "-m", "tests.benchmarks", "--only", "publish", "--url", valkey.url]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + WAIT_S
        while not keys(valkey):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        shown, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 130
    assert "the namespace is removed" in shown
    assert keys(valkey) == []


def test_every_round_takes_each_way_once_in_random_order() -> None:
    """A machine that slows down makes one way look slow, or a way always follows a similar one."""
    order: list[str] = []
    prepared: list[str] = []

    def way(name: str) -> Way:
        def act() -> int:
            order.append(name)
            return len(order)

        return Way(name, act, before=lambda: prepared.append(name), clock=told)

    samples = measure([way("a"), way("b"), way("c")], rounds=9)
    rounds = ["".join(order[at : at + 3]) for at in range(0, len(order), 3)]
    assert {"".join(sorted(each)) for each in rounds} == {"abc"}
    assert len(set(rounds)) > 3
    assert prepared == order
    assert [len(each.taken_ns) for each in samples.values()] == [9, 9, 9]
    assert list(samples) == ["a", "b", "c"], "shown in the order that they were given in"


def test_a_ratio_is_taken_round_by_round() -> None:
    """One slow minute looks like one slow way."""
    drifting = Sample((100, 200, 400, 800))
    twice = Sample(tuple(2 * each for each in drifting.taken_ns))
    assert ratio(twice, drifting).value == ratio(twice, drifting).low == ratio(twice, drifting).high == 2
    assert drifting.median_us == 0.3
    assert drifting.p99_us == 0.8


@pytest.mark.parametrize("size", payloads.SIZES.values())
def test_payloads_have_their_size_and_never_change(size: int) -> None:
    """Figures of two runs are of different bytes, or the two sides of a ratio are."""
    assert len(payloads.payload(size)) == size
    assert payloads.payload(size) == payloads.payload(size)
    assert payloads.payload(size) != payloads.payload(size, seed=1)
    assert json.loads(payloads.payload(size)) == payloads.value(size)


def test_a_sequence_is_the_same_everywhere_and_changes_a_little() -> None:
    """Figures of two machines are of different bytes, or the versions are no versions of one document."""
    made = sequences.generated("15 KB", 40)
    assert made == sequences.generated("15 KB", 40)
    assert made != sequences.generated("15 KB", 40, seed=1)
    events = [json.loads(each)["events"] for each in made]
    kept = [sum(event in after for event in before) for before, after in pairwise(events)]
    assert all(10_240 < len(each) < 20_480 for each in made)
    assert all(len(before) // 2 < same < len(before) for same, before in zip(kept, events, strict=False))


def test_real_sequences_are_read_line_by_line(tmp_path: Path) -> None:
    """A document of a real sequence has a byte that the source did not have, or a sequence is left out."""
    (tmp_path / "plain.jsonl").write_bytes(b'{"a":1}\n{"a":2}\n{"a":3}\n')
    with lzma.open(tmp_path / "packed.jsonl.xz", "wb") as packed:
        packed.write(b'{"b":1}\n')
    assert sequences.real(tmp_path, 2) == {"packed": [b'{"b":1}'], "plain": [b'{"a":1}', b'{"a":2}']}
    assert sequences.real(tmp_path / "none") == {}


@pytest.mark.slow
def test_history_is_counted_and_judged(tmp_path: Path) -> None:
    """A figure of a compression is compared with another figure of the six, or is not judged at all."""
    found = report.Report(report.console())
    with ground(None) as where:
        history.run(Bench(where, found, quick=True, sequences=tmp_path))
    of_small, *_, of_large = found.facts[history.SECTION].values()
    published = {way: each["publish, sent"] for way, each in of_large["server"].items()}
    assert published[history.SIX] > 2 * of_large["size"] > published["none"] > of_large["size"]
    assert published["none"] > published["zstd"] > published["delta"]
    assert of_small["server"]["none"]["cold read, received"] > payloads.SIZES[history.SMALL]
    judged = list(bounds.counted(found))
    of_files = 2 * bool(shutil.which("git"))
    of_sequences = 2 * len(bounds.HISTORY_MOST)
    assert len(judged) == len(bounds.SMALL_MOST) + of_sequences + of_files


def test_a_slow_network_carries_so_many_bytes_a_second(valkey: Server) -> None:
    """A network that is too fast makes what sends much look good."""
    size, rate = 100_000, 500_000
    with (
        SlowNetwork(valkey.port, 0.01, bytes_per_s=rate) as network,
        redis.Redis(port=network.port) as client,
    ):
        client.ping()
        began = time.monotonic()
        client.set("slow", b"x" * size)
        assert client.get("slow") == b"x" * size
        assert time.monotonic() - began >= 2 * size / rate


def test_a_bound_is_judged_by_its_own_figures() -> None:
    """A bound that was missed is called met, or one that was not measured."""
    found = report.Report(report.console())
    first, *_ = bounds.timed(found)
    assert first.row(found) is None
    found.samples[first.block, first.base] = Sample((100,) * 9)
    found.samples[first.block, first.way] = Sample((99,) * 9)
    row = first.row(found)
    assert row is not None
    assert (row["verdict"], row["measured"]) == ("met", 0.99)
    found.samples[first.block, first.way] = Sample((101,) * 9)
    row = first.row(found)
    assert row is not None
    assert row["verdict"] == "MISSED"


@pytest.mark.parametrize(
    ("measured", "least", "verdict"), [(0.9, False, "met"), (1.1, False, "MISSED"), (1.1, True, "met")]
)
def test_a_target_is_judged_in_its_direction(*, measured: float, least: bool, verdict: str) -> None:
    """A throughput that is too low, or a time that is too long, is called met."""
    found = Ratio(measured, measured, measured)
    assert targets.Target("figure", "base", 1.0, found, least=least).row()["verdict"] == verdict


def test_bytes_are_counted_without_those_of_counting(tmp_path: Path) -> None:
    """The bytes beside a time include those of the bench's own questions to the server."""
    with ground(None) as where, redis.Redis.from_url(where.url) as client:
        client.ping()
        samples = measure([Way("set", lambda: client.set("key", b"x" * 10_000))], rounds=2, wire=where.wire)
    sent, received = samples["set"].sent, samples["set"].received
    assert sent == pytest.approx(10_000 + len("*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\n10000\r\n"), abs=20)
    assert received == pytest.approx(len("+OK\r\n"), abs=20)


def test_no_more_rounds_are_run_than_inputs_are_made_for() -> None:
    """A section runs out of versions to publish, after ten minutes of others."""
    runs: list[int] = []
    measure([Way("way", lambda: runs.append(1))], rounds=50, wire=lambda: (0, 0))
    assert len(runs) == 50 + UNTIMED


def test_a_section_that_fails_takes_nothing_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Half an hour of figures is lost to one mistake, or nobody learns of it."""

    def failing(_: Bench) -> None:
        raise ValueError("too few")

    def telling(found: Bench) -> None:
        found.report.facts["told"] = {"figure": 1.0}

    monkeypatch.setattr(bench, "SECTIONS", {"first": failing, "second": telling})
    file = tmp_path / "figures.json"
    assert bench.main(["--quick", "--only", "first,second", "--json", str(file)]) == 1
    found = json.loads(file.read_text("utf-8"))
    assert found["facts"]["told"] == {"figure": 1.0}
    assert "the section first failed" in " ".join(found["notes"])
    assert "too few" in capsys.readouterr().err


def test_the_packages_of_peers_are_listed_with_their_names() -> None:
    """A peer in the list is neither measured nor said to be missing."""
    packages = peer_environment.listed(peer_environment.LISTED.read_text("utf-8"))
    assert packages.keys() | set(peer_environment.OURS) == SUBJECTS.keys()
    assert packages["delta-rs"] == ["deltalake", "pyarrow"]


def test_plots_are_drawn_within_their_frame() -> None:
    """A line that leaves the picture, or a name that is not XML, is missing in the docs."""
    lines = {"a < b": [(100.0, 40.0), (1e6, 900.0)], "c": [(100.0, 45.0), (1e6, 41.0)]}
    svg = plots.Plot("name", "R & D", "versions", "µs", lines).svg()
    numbers = [float(each) for each in re.findall(r'c[xy]="([^"]+)"', svg)]
    assert len(numbers) == 8
    assert all(0 < each < plots.WIDTH and not math.isnan(each) for each in numbers)
    assert "a &lt; b" in svg
    assert "R &amp; D" in svg
