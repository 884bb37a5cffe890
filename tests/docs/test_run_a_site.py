"""The page about `swapstore serve`: its commands start, and its proxies, probes and app do what it says."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from fastapi import FastAPI

import swapstore
from tests.docs import http_reference
from tests.serve.conftest import READ_TOKEN, TOKEN
from tests.support.command import serving
from tests.support.streams import Stream
from tests.support.valkey import free_port
from tests.support.web import Site, running_asgi

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "run-a-site.md").read_text("utf-8")
NAME = "data.example.com"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


def block(language: str) -> str:
    """The one block of the page in this language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return str(found)


def commands() -> list[str]:
    """The arguments of each `swapstore serve` on the page, in whatever language the block is."""
    blocks = "\n".join(re.findall(r"^```\w+\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
    lines = re.sub(r'[",\[\]]', " ", blocks)
    return sorted({each.strip() for each in re.findall(r"swapstore +serve(.*)$", lines, re.MULTILINE)})


def options_of(line: str) -> list[str]:
    return shlex.split(re.sub(r"--host +\S+", "", line))


def environment(tmp_path: Path, **more: str) -> dict[str, str]:
    return {"SWAPSTORE_URL": f"sqlite:///{tmp_path}/store.db", "SWAPSTORE_TOKEN": TOKEN, **more}


def publish(site: Site, path: str, body: bytes = b"{}", **headers: str) -> Any:
    return site.send("PUT", path, body, Content_Type="application/json", **BEARER, **headers)


def test_there_are_commands() -> None:
    """The test below starts nothing."""
    assert len(commands()) >= 5
    assert any("--host" in each for each in commands())


@pytest.mark.slow
@pytest.mark.parametrize("line", commands())
def test_every_command_of_the_page_starts(line: str, tmp_path: Path) -> None:
    """A newcomer types what the page says, and gets an error."""
    with serving(options_of(line), environment(tmp_path)) as (site, path):
        assert site.get(f"{path}/").status == 200
        assert publish(site, f"{path}/api/datasets/eu%2Fx").status == (
            201 if "--allow-writes" in line else 403
        )


@pytest.mark.slow
def test_a_site_below_a_path(tmp_path: Path) -> None:
    """Behind a proxy, a link leads out of the site, another path reaches it, or the cookie goes over http."""
    env = environment(tmp_path, SWAPSTORE_READ_TOKEN=READ_TOKEN)
    with serving(["--path", "/data/", "--allow-writes", "--allowed-host", NAME], env) as (site, path):
        assert path == "/data"
        made = publish(site, "/data/api/datasets/eu%2Fx", Host=NAME)
        assert made.headers["Location"] == "/data/api/datasets/eu%2Fx/latest?version=1"
        assert site.get("/data/api/datasets/eu%2Fx/latest", **BEARER).json == {}
        assert site.get("/api/datasets/eu%2Fx/latest", **BEARER).status == 404
        assert site.get("/data/", Host=NAME).headers["Location"] == "/data/login?next=%2F"
        assert site.get("/data/", Host="other.example").status == 421
        form = urlencode({"token": TOKEN}).encode()
        kind = "application/x-www-form-urlencoded"
        for proto, is_secure in (("https", True), ("http", False)):
            answer = site.send("POST", "/data/login", form, Content_Type=kind, X_Forwarded_Proto=proto)
            assert answer.headers["Location"] == "/data/"
            assert "Path=/data;" in answer.headers["Set-Cookie"]
            assert ("Secure" in answer.headers["Set-Cookie"]) is is_secure


@pytest.mark.parametrize("path", ["data", "/a b", "/%2F", "//x", "/{x}"])
def test_a_path_that_cannot_be_one(path: str, tmp_path: Path) -> None:
    """The site starts, and nothing can be reached."""
    from swapstore.serve import application  # noqa: PLC0415

    with pytest.raises(swapstore.InvalidInput, match="must be like /data"):
        application.below(path, application.app(swapstore.aio.connect(f"sqlite:///{tmp_path}/a.db")))


# --- proxies -------------------------------------------------------------------------------------------


@contextmanager
def running(command: Sequence[str | Path], port: int, directory: Path) -> Iterator[Site]:
    """Run a proxy until the end of the test."""
    process = subprocess.Popen(
        command, cwd=directory, env={"HOME": str(directory)}, stderr=subprocess.DEVNULL
    )
    site = Site(port)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                site.get("/", Host=NAME)
                break
            except ConnectionError:
                assert process.poll() is None, "the proxy does not start"
                assert time.monotonic() < deadline, "the proxy does not start"
                time.sleep(0.05)
        yield site
    finally:
        process.terminate()
        process.wait(20)


def nginx(port: int, site_port: int, directory: Path) -> list[str | Path]:
    temporary = "".join(
        f"{each}_temp_path {directory}/{each};"
        for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    there = block("nginx").replace(":8000", f":{site_port}")
    server = f"server {{ listen 127.0.0.1:{port}; {there} }}"
    config = directory / "nginx.conf"
    config.write_text(
        f"daemon off; pid {directory}/pid; error_log {directory}/log; events {{}} "
        f"http {{ access_log off; {temporary} {server} }}"
    )
    return ["nginx", "-p", directory, "-e", directory / "log", "-c", config]


def caddy(port: int, site_port: int, directory: Path) -> list[str | Path]:
    there = block("caddyfile").replace(":8000", f":{site_port}").replace(f"{NAME} ", f"http://{NAME}:{port} ")
    (directory / "Caddyfile").write_text(f"{{\n admin off\n auto_https off\n}}\n{there}")
    return ["caddy", "run", "--config", directory / "Caddyfile"]


@pytest.mark.slow
@pytest.mark.parametrize("proxy", [nginx, caddy], ids=["nginx", "caddy"])
def test_behind_a_proxy(proxy: Any, tmp_path: Path) -> None:
    """Behind the proxy of the page, names with a slash, large bodies, events or the page do not work."""
    program = shutil.which(proxy.__name__)
    if program is None:
        pytest.skip(f"there is no {proxy.__name__} on PATH")
    port, large = free_port(), b'"' + b"x" * (3 << 20) + b'"'
    options = ["--path", "/data", "--allowed-host", NAME, "--allow-writes"]
    with serving(options, environment(tmp_path)) as (site, _):
        command = [program, *proxy(port, site.port, tmp_path)[1:]]
        with running(command, port, tmp_path) as front:
            dataset = "/data/api/datasets/eu%2Fx"
            assert publish(front, dataset, b"1", Host=NAME).status == 201
            assert front.get(f"{dataset}/latest", Host=NAME).json == 1
            assert front.get("/data", Host=NAME).headers["Location"].endswith("/data/")
            assert b"/data/datasets/eu%2Fx" in front.get("/data/", Host=NAME).body
            with Stream(port, "eu/x", mount="/data", Host=NAME) as stream:
                assert stream.next("served").version == 1
                assert publish(front, dataset, large, Host=NAME).status == 201
                assert stream.next("served").version == 2


# --- what the other blocks name ------------------------------------------------------------------------


def test_probes_are_answered() -> None:
    """Kubernetes restarts a site whose store is down, or sends no request to one whose store is empty."""
    probes = re.findall(r"httpGet: \{path: (\S+),", block("yaml"))
    assert len(probes) == 2
    store = swapstore.aio.connect(f"redis://127.0.0.1:{free_port()}/0", patience=0)
    with running_asgi(swapstore.http.app(store, read_token=READ_TOKEN)) as site:
        for path in probes:
            assert site.get(path).status == 200


def test_the_app_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The app that the page mounts serves nothing, or serves it to everybody."""
    monkeypatch.setenv("SWAPSTORE_URL", f"sqlite:///{tmp_path}/store.db")
    with swapstore.connect() as store:
        store.publish("eu/x", 1)
    names: dict[str, Any] = {}
    exec(block("python"), names)  # noqa: S102 - the page is ours
    made: FastAPI = names["app"]
    with running_asgi(made) as site:
        assert site.get("/data/").headers["Location"] == "/data/login?next=%2F"
        token = re.search(r'read_token="([^"]+)"', PAGE)
        assert token is not None
        answer = site.get("/data/api/datasets/eu%2Fx/latest", Authorization=f"Bearer {token[1]}")
        assert (answer.status, answer.json) == (200, 1)


def test_the_reference_is_that_of_the_description() -> None:
    """The page describes another API. `python -m tests.docs.http_reference` writes it anew."""
    page = http_reference.PAGE.read_text("utf-8")
    assert http_reference.generated(page) == page
    assert "GET /api/datasets/{name}/latest" in page
