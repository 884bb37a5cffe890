"""`swapstore serve` as a process."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import attrs
import pytest

from swapstore import connect
from tests.cli.conftest import COMMAND, TIMEOUT_S, Swapstore
from tests.cli.test_exit_codes import failed
from tests.serve.conftest import READ_TOKEN, TOKEN
from tests.support.streams import Stream, idle_connections, is_closed
from tests.support.web import Site

MANY = 10_500


@attrs.define
class Serving:
    process: subprocess.Popen[bytes]
    said: dict[str, Any]
    err: str = ""

    @property
    def site(self) -> Site:
        return Site(int(self.said["url"].rpartition(":")[2]))

    def end(self, by: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(by)
        out, err = self.process.communicate(timeout=TIMEOUT_S)
        assert out == b""
        self.err = err.decode()
        return self.process.returncode


@contextmanager
def serving(swapstore: Swapstore, *options: str, env: Mapping[str, str] | None = None) -> Iterator[Serving]:
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", *options],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**swapstore.env, **(env or {})},
    )
    guard = threading.Timer(TIMEOUT_S, process.kill)
    guard.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, process.communicate()[1].decode()
        yield Serving(process, json.loads(line))
    finally:
        guard.cancel()
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_it_says_where_it_listens_and_ends_quietly(swapstore: Swapstore) -> None:
    """A script does not know the port, or a service manager takes the end of it for a failure."""
    with connect(swapstore.url) as store:
        store.publish("mena", {"a": 1})
    with serving(swapstore, "mena=12h", "other") as running:
        assert running.said == {
            "url": f"http://127.0.0.1:{running.site.port}",
            "store": f"sqlite {swapstore.path}",
            "namespace": "swapstore",
        }
        assert running.site.get("/api/datasets/mena/latest").json == {"a": 1}
        health = running.site.get("/api/health")
        assert (health.status, health.json["datasets"]["other"]["state"]) == (503, "missing")
        assert running.site.send("PUT", "/api/datasets/mena", b"1").status == 403
        assert running.site.get("/api/datasets", Host="evil.example").status == 421
        with Stream(running.site.port, "mena") as stream:
            stream.next("current")
            assert running.end(signal.SIGTERM) == 0
            assert list(stream) == []
        assert running.err == ""


@pytest.mark.slow
def test_ctrl_c_ends_it_with_the_code_of_other_commands(swapstore: Swapstore) -> None:
    """Ctrl-C leaves a traceback."""
    with serving(swapstore) as running:
        assert running.end(signal.SIGINT) == 130
        assert running.err == ""


@pytest.mark.slow
def test_tokens_come_from_the_environment(swapstore: Swapstore) -> None:
    """Everybody may read or write, or a token is in the list of processes."""
    env = {"SWAPSTORE_TOKEN": TOKEN, "SWAPSTORE_READ_TOKEN": READ_TOKEN}
    with serving(swapstore, "--allow-writes", "--host", "0.0.0.0", env=env) as running:  # noqa: S104
        assert running.site.get("/api/datasets").status == 401
        assert (
            running.site.get("/api/datasets", Host="any", Authorization=f"Bearer {READ_TOKEN}").status == 200
        )
        asked = f"Bearer {READ_TOKEN}"
        assert running.site.send("PUT", "/api/datasets/mena", b"1", Authorization=asked).status == 403
        asked = f"Bearer {TOKEN}"
        assert running.site.send("PUT", "/api/none", b"1", Authorization=asked).status in {404, 405}
        assert running.end() == 0
        assert running.err == ""


@pytest.mark.slow
def test_a_server_that_others_reach_and_that_asks_for_no_token(swapstore: Swapstore) -> None:
    """Somebody serves secrets to a network, and does not notice."""
    writing = {"SWAPSTORE_TOKEN": TOKEN}  # it is not for readers
    with serving(swapstore, "--allow-writes", "--host", "0.0.0.0", env=writing) as running:  # noqa: S104
        running.site.get("/api/datasets")
        assert running.end() == 0
        (line,) = running.err.splitlines()
        assert line.startswith("swapstore: everybody who reaches http://0.0.0.0:")
        assert "$SWAPSTORE_READ_TOKEN" in line
    with serving(swapstore, "--allowed-host", "data.example") as running:
        assert running.site.get("/api/datasets", Host="data.example").status == 200
        assert running.site.get("/api/datasets", Host="127.0.0.1").status == 200
        assert running.site.get("/api/datasets", Host="evil.example").status == 421
        with connect(swapstore.url) as store:
            store.publish("a", 1)
        origin = {"Origin": "https://app.example"}
        assert running.site.get("/api/datasets", **origin).headers["Access-Control-Allow-Origin"] is None


@pytest.mark.slow
def test_it_starts_while_the_store_is_down(swapstore: Swapstore) -> None:
    """A machine that starts its services together has a site that gave up."""
    down = {"SWAPSTORE_URL": "redis://user:s3cret@127.0.0.1:1/0"}
    with serving(swapstore, "--patience", "0", "--cors", "https://app.example", env=down) as running:
        assert running.said["store"] == "redis://127.0.0.1:1/0"
        answer = running.site.get("/api/datasets", Origin="https://app.example")
        assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert (answer.status, answer.json["title"]) == (503, "Unavailable")
        page = running.site.get("/")
        assert page.status == 503
        assert b"s3cret" not in page.body
        assert running.end() == 0
        assert "Traceback" not in running.err
        assert "s3cret" not in running.err


def test_2_what_cannot_be_served(swapstore: Swapstore) -> None:
    """A mistake in the options is a traceback, or looks like a server that runs."""
    with serving(swapstore) as running:
        port = str(running.site.port)
        failed(swapstore.inside("serve", "--port", port), 2, f"127.0.0.1, port {port}", "another port")
    failed(swapstore.inside("serve", "--port", "70000"), 2, "65535")
    failed(swapstore.inside("serve", "--allow-writes"), 2, "SWAPSTORE_TOKEN")
    failed(swapstore.inside("serve", "mena=soon"), 2, "'mena'")
    failed(swapstore.inside("serve", "--max-body", "0"), 2, "max_body")


@pytest.mark.parametrize("missing", ["starlette", "uvicorn", "jinja2"])
def test_2_without_the_extra(swapstore: Swapstore, missing: str) -> None:
    """Somebody who installed the command alone gets a traceback."""
    code = f"import sys; sys.modules[{missing!r}] = None; from swapstore.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "serve"]
    done = subprocess.run(command, capture_output=True, text=True, env=swapstore.env, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "swapstore: serve needs an extra: pip install 'swapstore[serve]'\n"


def test_other_commands_do_not_wait_for_it(swapstore: Swapstore) -> None:
    """Each command takes longer to start because one of them is a server."""
    code = (
        "import sys, swapstore.cli.app; print(sorted({'asyncio', 'starlette', 'uvicorn'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=swapstore.env)
    assert done.stdout == b"[]\n"


@pytest.mark.nightly
def test_ten_thousand_idle_connections_lock_nobody_out(swapstore: Swapstore) -> None:
    """Whoever opens enough connections takes the site away from all others."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < MANY + 1000:
        pytest.skip(f"this process may have no more than {hard} files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, MANY + 1000), hard))
    try:
        with connect(swapstore.url) as store:
            store.publish("mena", 1)
        with serving(swapstore) as running, Stream(running.site.port, "mena") as stream:
            stream.next("current")
            with idle_connections(running.site.port, MANY) as idle:
                assert running.site.get("/api/datasets/mena/latest").json == 1
                assert is_closed(idle[0])
                with connect(swapstore.url) as store:
                    store.publish("mena", 2)
                assert stream.next("served").version == 2
            assert running.end() == 0
            assert running.err == ""
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
