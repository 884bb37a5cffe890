"""`swapstore doctor` as scripts and people run it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Swapstore
from tests.support.deployment import until
from tests.support.valkey import Server, free_port

SECRET = "s3cr3t-Pa55"  # noqa: S105 - it must not turn up anywhere


@pytest.fixture
def command(tmp_path: Path) -> Swapstore:
    return Swapstore(tmp_path)


def test_a_sound_store_is_exit_code_0(command: Swapstore) -> None:
    """A deployment that checks its store first stops although nothing is wrong."""
    for _ in range(2):
        done = command("doctor")
        assert (done.code, done.err) == (0, "")
        assert {tuple(check) for check in done.lines} == {("name", "verdict", "found", "advice")}
        assert not {check["verdict"] for check in done.lines} & {"problem"}
        command("publish", "mena", stdin=b"1")


def test_a_problem_is_exit_code_7(command: Swapstore, tmp_path: Path) -> None:
    """A deployment goes on with a server that drops or forgets what is published."""
    with Server(tmp_path / "server", "--maxmemory-policy", "allkeys-lru") as server:
        done = command("doctor", "--url", server.url)
        assert done.code == 7
        found = {check["name"]: check["verdict"] for check in done.lines}
        assert (found["eviction"], found["persistence"], found["scripts"]) == ("problem", "problem", "ok")
        seen = command.on_a_terminal("doctor", "--url", server.url)
        assert seen.code == 7
        assert seen.err == ""


def test_a_warning_is_exit_code_0(command: Swapstore, tmp_path: Path) -> None:
    """A server with the default configuration stops the deployment."""
    with Server(tmp_path / "server", "--save", "3600 1") as server:
        done = command("doctor", "--url", server.url)
    assert done.code == 0
    assert [check["name"] for check in done.lines if check["verdict"] == "warning"] == ["persistence"]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_person_sees_what_to_do(command: Swapstore, tmp_path: Path, columns: int) -> None:
    """The advice is missing, or cut off at the width of the terminal."""
    with Server(tmp_path / "server") as server:
        done = command.on_a_terminal("doctor", "--url", server.url, columns=columns)
    lines = done.out.decode().splitlines()
    assert all(len(line) <= columns for line in lines)
    assert lines[0].split() == ["verdict", "what", "found,", "and", "what", "to", "do"]
    words = " ".join(done.out.decode().split())
    for said in ("problem", "persistence", "off: a restart of the server loses everything", "→ CONFIG SET"):
        assert said in words


def test_a_primary_and_its_replica(command: Swapstore, tmp_path: Path) -> None:
    """The table of servers is missing or cut off, or a script does not get it."""
    with Server(tmp_path / "primary") as primary:
        of_it = ("--replicaof", "127.0.0.1", str(primary.port))
        with Server(tmp_path / "replica", *of_it) as replica, primary.client() as admin:
            until(lambda: admin.wait(1, 1000) == 1, "no replication")
            for columns in (80, 120):
                done = command.on_a_terminal("doctor", "--url", primary.url, columns=columns)
                lines = done.out.decode().splitlines()
                assert all(len(line) <= columns for line in lines)
                (heading,) = [line.split() for line in lines if line.startswith("server ")]
                assert heading == ["server", "role", "link", "behind", "heard", "append-only", "version"]
                assert lines[-1].split()[:3] == [f"127.0.0.1:{replica.port}", "replica", "up"]
            (check,) = [line for line in command("doctor", "--url", primary.url).lines if "nodes" in line]
    assert check["name"] == "replicas"
    assert [node["role"] for node in check["nodes"]] == ["primary", "replica"]
    assert check["nodes"][1]["of"] == check["nodes"][0]["address"]


def test_an_unreachable_server_is_exit_code_4(command: Swapstore) -> None:
    """A server that is down looks like one with a wrong configuration, or its password is shown."""
    done = command("doctor", "--patience", "0", "--url", f"redis://app:{SECRET}@127.0.0.1:{free_port()}/0")
    assert (done.code, done.out) == (4, b"")
    assert "cannot connect" in done.err
    assert SECRET not in done.err


def test_the_exit_code_is_documented(command: Swapstore) -> None:
    """A 7 in a log is explained nowhere but in the source."""
    assert "7  doctor found a problem" in command("--help").out.decode()
