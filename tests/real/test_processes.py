"""Several processes publish to one dataset concurrently, on a SQLite file and on a real server."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

import swapstore
from tests.support import invariants

pytestmark = pytest.mark.every_store

PRODUCER = """
import json, sys
import swapstore
url, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with swapstore.connect(url) as store:
    sys.stdin.readline()
    for number in range(count):
        commit = store.publish("mena", {"by": name, "n": number}, id=f"{name}-{number}")
        print(json.dumps([commit.id, commit.version, commit.created]), flush=True)
"""

READER = """
import sys
import swapstore
with swapstore.connect(sys.argv[1]) as store:
    sys.stdin.readline()
    last, seen = 0, 0
    while last < int(sys.argv[2]):
        snap = store.read_latest("mena")
        if snap is None:
            continue
        assert snap.version >= last, (snap.version, last)
        assert f"{snap.value['by']}-{snap.value['n']}" == snap.id
        last, seen = snap.version, seen + 1
    print(seen)
"""


def spawn(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(processes: list[subprocess.Popen[str]]) -> list[list[Any]]:
    """Start all of them at the same moment; return the lines that each printed."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    results = []
    for process in processes:
        output, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
        results.append([json.loads(line) for line in output.splitlines()])
    return results


@pytest.mark.parametrize("producers", [2, pytest.param(4, marks=pytest.mark.nightly), 8])
def test_every_acknowledged_publish_is_in_the_history_once(real_url: str, producers: int) -> None:
    """Processes that race lose an acknowledged publish, leave a version out, or a reader goes back."""
    each = 100 // producers
    total = producers * each
    reader = spawn(READER, real_url, total)
    processes = [spawn(PRODUCER, real_url, f"p{number}", each) for number in range(producers)]
    *acknowledged, (seen,) = finish([*processes, reader])
    commits = sorted(((version, identifier) for lines in acknowledged for identifier, version, _ in lines))
    assert all(created for lines in acknowledged for _, _, created in lines)
    assert [version for version, _ in commits] == list(range(1, total + 1))
    with swapstore.connect(real_url) as store:
        rows = invariants.check(store)
        assert [(row.version, row.id) for row in rows] == commits
        assert [row.version for row in store.history("mena", limit=None)] == list(range(total, 0, -1))
    assert seen > 0


def test_many_processes_with_one_id_make_one_commit(real_url: str) -> None:
    """Eight hosts that run the same job with the same id commit it more than once."""
    script = PRODUCER.replace('id=f"{name}-{number}"', 'id="job", ts=1_700_000_000_005').replace(
        '{"by": name, "n": number}', '"same"'
    )
    results = finish([spawn(script, real_url, f"p{number}", 1) for number in range(8)])
    outcomes = [line for lines in results for line in lines]
    assert {(identifier, version) for identifier, version, _ in outcomes} == {("job", 1)}
    assert sum(created for _, _, created in outcomes) == 1
    with swapstore.connect(real_url) as store:
        assert len(invariants.check(store)) == 1


def test_killed_producers_leave_a_store_that_works(real_url: str) -> None:
    """After SIGKILL an acknowledged publish is missing, or the next producer has to wait."""
    acknowledged: set[str] = set()
    for round_number in range(6):
        process = spawn(PRODUCER, real_url, f"r{round_number}", 100_000)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("go\n")
        process.stdin.flush()
        lines = [process.stdout.readline() for _ in range(5 + 3 * round_number)]
        process.kill()
        rest = process.stdout.read()  # not communicate(): it would leave out what is buffered already
        process.wait(30)
        for pipe in (process.stdin, process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()
        whole = [line for line in ("".join(lines) + rest).splitlines() if line.endswith("]")]
        acknowledged |= {json.loads(line)[0] for line in whole}
    with swapstore.connect(real_url) as store:
        committed = {row.id for row in invariants.check(store)}
        assert acknowledged <= committed
        assert len(committed - acknowledged) <= 6, "at most the publish that each was killed in"
        assert store.publish("mena", "next").created


GROUP_PRODUCER = """
import sys
import swapstore
with swapstore.connect(sys.argv[1], compression=sys.argv[2]) as store:
    sys.stdin.readline()
    for number in range(int(sys.argv[3])):
        commit = store.publish_group("mena", {name: [number, name, "x" * 300] for name in ("EG", "SG", "MA")})
    print(commit.version)
"""

GROUP_READER = """
import sys
import swapstore
names = sys.argv[2].split()
with swapstore.connect(sys.argv[1]) as store:
    sys.stdin.readline()
    last, seen = 0, 0
    while last < int(sys.argv[3]):
        group = store.read_group("mena", members=names or None)
        if group is None:
            continue
        assert group.version >= last, (group.version, last)
        assert {(each.value[0], each.value[1]) for each in group.members.values()} == {
            (group.version - 1, name) for name in names or ("EG", "SG", "MA")
        }, group.value
        last, seen = group.version, seen + 1
    print(seen)
"""


@pytest.mark.slow
def test_readers_of_members_see_one_version(real_url: str) -> None:
    """A reader gets one member of a group, and another one of the next."""
    processes = [
        spawn(GROUP_READER, real_url, "EG SG", 60),
        spawn(GROUP_READER, real_url, "", 60),
        spawn(GROUP_PRODUCER, real_url, "delta", 60),
    ]
    *seen, (last,) = finish(processes)
    assert last == 60
    assert all(count > 0 for (count,) in seen)
    with swapstore.connect(real_url) as store:
        assert len(invariants.check(store)) == 60
