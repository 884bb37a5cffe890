"""The clients of docs/how-to/publish-from-other-languages.md, against the command `swapstore serve`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import attrs
import pytest

import swapstore
from swapstore import Store
from tests.interop.conftest import HOW_TO, PROGRAMS, blocks, run
from tests.serve.conftest import TOKEN
from tests.support.command import serving
from tests.support.proxy import Proxy
from tests.support.valkey import free_port
from tests.support.web import running_asgi

PAGE = HOW_TO / "publish-from-other-languages.md"
GO = shutil.which("go")
REFUSED = 3  # the exit code of publish.sh
TRY = """
import { publish, read, follow } from "./swapstore.mjs";
const [what, dataset, id, text] = process.argv.slice(2);
const say = (it) => console.log(JSON.stringify(it));
if (what === "publish") say(await publish(dataset, JSON.parse(text), { id }));
if (what === "read") {
  const first = await read(dataset);
  const again = await read(dataset, first);
  say([first, again, first.value === again.value]);
}
if (what === "follow") for await (const event of follow(dataset)) say(event);
"""
GO_TRY = """
package main

import (
	"context"
	"fmt"
	"log"
	"os"
)

func main() {
	ctx, site := context.Background(), Site{os.Getenv("SWAPSTORE_SITE"), os.Getenv("SWAPSTORE_TOKEN")}
	what, dataset := os.Args[1], os.Args[2]
	if what == "publish" {
		commit, err := site.Publish(ctx, dataset, os.Args[3], []byte(os.Args[4]))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(string(commit))
	}
	if what == "follow" {
		log.Fatal(site.Follow(ctx, dataset, func(event, data string) {
			fmt.Printf(`{"event": "%s", "data": %s}`+"\\n", event, data)
		}))
	}
}
"""

Language = Literal["curl", "node", "go"]


@attrs.frozen
class Client:
    """The client of a language, in a directory with the files of the page."""

    language: Language
    directory: Path
    site: str

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start it: `publish DATASET ID JSON`, `read DATASET` or `follow DATASET`."""
        if self.language == "curl":
            (self.directory / "body.json").write_text(words[3], "utf-8")
            command = ["sh", "publish.sh", *words[1:3], "body.json"]
        elif self.language == "node":
            command = ["node", "try.mjs", *words]
        else:
            command = [str(self.directory / "client"), *words]
        env = {**os.environ, "PATH": PROGRAMS, "SWAPSTORE_SITE": self.site, "SWAPSTORE_TOKEN": TOKEN}
        return subprocess.Popen(
            command, cwd=self.directory, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )

    def run(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end."""
        process = self.start(*words)
        try:
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
        return subprocess.CompletedProcess(words, process.returncode, out, err)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clients of the page, each in its file. The one in Go is compiled, if there is a compiler."""
    here = tmp_path_factory.mktemp("clients")
    for text in [*blocks("js", PAGE), *blocks("go", PAGE)]:
        (here / text.partition("\n")[0].removeprefix("// ")).write_text(text, "utf-8")
    (script,) = [text for text in blocks("sh", PAGE) if text.startswith("#!/bin/sh")]
    (here / "publish.sh").write_text(script, "utf-8")
    (here / "try.mjs").write_text(TRY, "utf-8")
    (here / "try.go").write_text(GO_TRY, "utf-8")
    if GO:
        go = {"GO111MODULE": "off", "GOCACHE": str(here / "cache"), "HOME": str(here)}
        for command in (
            ("vet", "swapstore.go", "main.go"),
            ("build", "-o", "client", "swapstore.go", "try.go"),
        ):
            done = run(GO, *command, cwd=here, env=go)
            assert done.returncode == 0, done.stderr.decode()
    return here


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/store.db"


@pytest.fixture(scope="module")
def port(url: str) -> Iterator[int]:
    """The port of the command, as the page starts it."""
    with serving(["--allow-writes"], {"SWAPSTORE_URL": url, "SWAPSTORE_TOKEN": TOKEN}) as (site, _):
        yield site.port


@pytest.fixture(scope="module")
def store(url: str) -> Iterator[Store]:
    with swapstore.connect(url) as made:
        yield made


Make = Callable[[int], Client]


@pytest.fixture(params=["curl", "node", "go"])
def make(request: pytest.FixtureRequest, files: Path) -> Make:
    """Make the client of each language for a site on a port."""
    language: Language = request.param
    if language == "go" and GO is None:
        pytest.skip("there is no go on PATH: the client in Go is not compiled")
    return lambda port: Client(language, files, f"http://127.0.0.1:{port}")


class Meddling:
    """An app in front of another one: notes requests, and answers the first ones with these statuses."""

    def __init__(self, app: Any, *statuses: int) -> None:
        self._app = app
        self._statuses = list(statuses)
        self.keys: list[bytes | None] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.keys.append(dict(scope["headers"]).get(b"idempotency-key"))
        if not self._statuses:
            await self._app(scope, receive, send)
            return
        status = self._statuses.pop(0)
        headers = [(b"retry-after", b"1")] if status == 503 else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"<html>an error of a proxy</html>"})


# --- publish -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_publish_is_what_readers_get(make: Make, port: int, store: Store) -> None:
    """A producer in another language publishes under another name, or another content."""
    client = make(port)
    name = f"eu/first.{client.language}"
    for created in (True, False):
        done = client.run("publish", name, "run-7", '{"regime":"calm é"}')
        assert done.returncode == 0, done.stderr.decode()
        commit = json.loads(done.stdout)
        assert (commit["dataset"], commit["id"], commit["created"]) == (name, "run-7", created)
    served = store.read_latest(name)
    assert served is not None
    assert served.value == {"regime": "calm é"}


@pytest.mark.slow
def test_an_outage_and_a_proxy_without_its_server_are_waited_for(make: Make, tmp_path: Path) -> None:
    """A producer gives up when the site restarts, or its second attempt is a second snapshot."""
    made = swapstore.http.app(
        swapstore.aio.connect(f"sqlite:///{tmp_path}/a.db"), allow_writes=True, token=TOKEN
    )
    meddling = Meddling(made, 503, 502)
    with running_asgi(meddling, lifespan="off") as site:
        done = make(site.port).run("publish", "mena", "run-7", "1")
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout)["created"]
    assert meddling.keys == [b"run-7"] * 3


@pytest.mark.slow
def test_a_lost_reply_ends_in_one_commit(make: Make, port: int, store: Store) -> None:
    """A producer reports a failure although it has published, or publishes twice."""
    with Proxy(port) as proxy:
        client = make(proxy.port)
        name = f"lost.{client.language}"
        proxy.lose_reply_of(b"run-7")
        done = client.run("publish", name, "run-7", '{"a":1}')
    assert proxy.lost == 1
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout)["created"] is False
    assert len([*store.history(name)]) == 1


@pytest.mark.slow
@pytest.mark.parametrize("status", [401, 409, 412, 413, 422])
def test_what_is_refused_is_not_sent_again(make: Make, status: int) -> None:
    """A producer with a mistake of its own keeps a site busy, and reports it minutes later."""
    meddling = Meddling(None, status, 200)
    with running_asgi(meddling, lifespan="off") as site:
        client = make(site.port)
        done = client.run("publish", "mena", "run-7", "1")
    assert len(meddling.keys) == 1
    assert done.returncode == (REFUSED if client.language == "curl" else 1)
    assert b"an error of a proxy" in done.stderr


@pytest.mark.slow
def test_the_reason_is_shown(make: Make, port: int, store: Store) -> None:
    """A producer fails, and nobody knows why."""
    client = make(port)
    store.publish(f"taken.{client.language}", 1, id="run-7")
    done = client.run("publish", f"taken.{client.language}", "run-7", "2")
    assert done.returncode != 0
    assert b"an id names one content permanently" in done.stderr


def test_a_file_that_is_not_there_is_not_an_empty_one(files: Path) -> None:
    """A producer that was given a wrong path publishes nothing, as a value: curl sends an empty body."""
    nowhere = {"SWAPSTORE_SITE": f"http://127.0.0.1:{free_port()}", "SWAPSTORE_TOKEN": TOKEN}
    done = run("sh", "publish.sh", "mena", "run-7", "none.json", cwd=files, env=nowhere)
    assert (done.returncode, done.stderr) == (2, b"cannot read none.json\n")


# --- read and follow -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_node_reads_only_what_has_changed(files: Path, port: int, store: Store) -> None:
    """A reader loads the same payload again and again, or goes on to show the old one."""
    store.publish("eu/read", {"a": 1})
    store.publish("eu/read", {"a": 2})
    done = Client("node", files, f"http://127.0.0.1:{port}").run("read", "eu/read")
    first, again, is_same = json.loads(done.stdout)
    assert first == again
    assert (first["value"], first["version"], is_same) == ({"a": 2}, 2, True)


@pytest.mark.slow
@pytest.mark.parametrize("make", ["node", "go"], indirect=True)
def test_a_follower_gets_each_version_across_a_lost_connection(make: Make, port: int, store: Store) -> None:
    """A follower shows an old version, or ends, after its connection was lost."""
    with Proxy(port) as proxy:
        client = make(proxy.port)
        name = f"eu/followed.{client.language}"
        store.publish(name, 1)
        process = client.start("follow", name)
        try:
            assert process.stdout is not None
            events = (json.loads(line) for line in process.stdout)
            served = (each["data"]["version"] for each in events if each["event"] == "served")
            assert next(served) == 1
            store.publish(name, 2, labels={"text": "a: b"})
            assert next(served) == 2
            proxy._close_kept()  # as a proxy that restarts does
            store.publish(name, 3)
            assert next(served) == 3
        finally:
            process.kill()
            process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("make", ["node", "go"], indirect=True)
def test_a_follower_of_nothing_is_told(make: Make, port: int) -> None:
    """A name that is misspelt is followed silently."""
    done = make(port).run("follow", "mina")
    assert done.returncode == 1
    assert b"nothing is published" in done.stderr


@pytest.mark.slow
def test_the_commands_of_the_page(files: Path, port: int, store: Store, tmp_path: Path) -> None:
    """A command that is copied from the page does not work, or loses what it had."""
    store.publish("mena", {"a": 1})
    reading, following = [text for text in blocks("sh", PAGE) if text.startswith("curl")]
    env = {"SWAPSTORE_SITE": f"http://127.0.0.1:{port}"}
    for _ in range(2):  # the second time it is a 304
        assert run("sh", "-c", reading, cwd=tmp_path, env=env).returncode == 0
        assert (tmp_path / "prices.json").read_bytes() == b'{"a":1}'
    nowhere = {"SWAPSTORE_SITE": f"http://127.0.0.1:{free_port()}"}
    assert run("sh", "-c", reading, cwd=tmp_path, env=nowhere).returncode
    assert (tmp_path / "prices.json").read_bytes() == b'{"a":1}'
    once = following.replace("curl", "curl --max-time 2")
    shown = run("sh", "-c", once, cwd=tmp_path, env=env).stdout.splitlines()
    assert json.loads(shown[0])["version"] == 1


@pytest.mark.slow
def test_the_example_of_the_page(files: Path, port: int, store: Store) -> None:
    """The example ends with an error."""
    env = {"SWAPSTORE_SITE": f"http://127.0.0.1:{port}", "SWAPSTORE_TOKEN": TOKEN, "PATH": PROGRAMS}
    process = subprocess.Popen(["node", "example.mjs"], cwd=files, env=env, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().split()[1] == b"true"
        assert process.stdout.readline() == b"served { regime: 'calm' }\n"
    finally:
        process.kill()
        process.communicate()


def test_the_clients_agree() -> None:
    """Where there is no compiler for Go, its client may name another path, header or status."""
    (node, *_), (go, *_) = blocks("js", PAGE), blocks("go", PAGE)
    headers = re.findall(r'"([A-Z][a-z]+-[A-Za-z-]+)"', go)
    paths = re.findall(r'"(/[a-z/]+)"', go)
    assert len(headers) >= 5
    assert len(paths) == 3
    assert [each for each in [*headers, *paths] if each not in node] == []
    assert set(re.findall(r"\b50\d\b", go)) == set(re.findall(r"\b50\d\b", node)) == {"502", "503", "504"}
