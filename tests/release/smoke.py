"""What a user of the wheel does first. The Python of a fresh environment runs it, outside of the repository.

    python -I smoke.py cli,upstash cli,jsonschema,otel,prometheus,speedups,upstash redis://127.0.0.1:6379/0

The first list has the extras that are installed, the second one all that there are; `-` is none. Nothing but
swapstore and the standard library is imported, so that what is missing in the wheel is missing here.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable, MutableMapping
from importlib import metadata, util
from pathlib import Path
from typing import Any

import swapstore
import swapstore.aio
from swapstore import http, observe, validators
from swapstore.testing import SimulatedStore

TOKEN = "t"  # noqa: S105 - nothing answers there


def check(holds: object, what: str) -> None:
    """`assert`, whatever the options of Python are."""
    if not holds:
        raise SystemExit(f"smoke test: {what}")


def refused(call: Callable[[], object], *, names: str) -> None:
    """What needs an extra says which one."""
    try:
        call()
    except swapstore.InvalidInput as error:
        check(f"swapstore[{names}]" in str(error), f"{error} does not name the extra {names}")
    else:
        raise SystemExit(f"smoke test: it needs the extra {names}, and works without")


def library(url: str) -> None:
    """Publish, read, go back and verify."""
    with swapstore.connect(url, compression="delta") as store:
        for score in range(20):
            store.publish("mena", {"regime": "calm", "scores": list(range(score, score + 100))})
        kept = store.publish("mena", {"regime": "tense"}, id="kept")
        check(not store.publish("mena", {"regime": "tense"}, id="kept").created, "published twice")
        store.publish_group("group", {"a": 1, "b": {"c": None}})
        store.rollback("mena", version=3)
        served = store.read_latest("mena")
        check(served is not None and served.value["scores"][0] == 2, f"{url} serves {served}")
        again = store.read("mena", id="kept")
        check(again is not None and again.version == kept.version, "a snapshot is not in the history")
        check(list(store.verify()) == [], f"verify finds something in {url}")
        with store.view(["mena"]) as view:
            check((shown := view["mena"]) is not None and shown.version == 3, "a view serves another version")
        check(http.response(store.read_latest("mena"), {}).status == 200, "there is no response")

    async def awaited() -> None:
        async with swapstore.aio.connect(url) as store:
            found = await store.read_latest("mena")
            check(found is not None and found.version == 3, "asyncio reads another version")

    asyncio.run(awaited())


def installed() -> None:
    """It is the package of this environment, whole, and not a folder that is near."""
    folder = Path(swapstore.__file__).parent
    check(folder.is_relative_to(sysconfig.get_path("purelib")), f"swapstore is in {folder}")
    check(metadata.version("swapstore") == swapstore.__version__, "the version is another one")
    check((folder / "py.typed").is_file(), "py.typed is missing")
    check(SimulatedStore().connect().read_latest("mena") is None, "the simulated store does not open")


def command(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command as its script in this environment."""
    script = Path(sysconfig.get_path("scripts")) / "swapstore"
    env = {**os.environ, "SWAPSTORE_URL": "sqlite:///command.db", "PYTHONWARNINGS": "error"}
    return subprocess.run(
        [script, *arguments], input=stdin, capture_output=True, text=True, env=env, check=False
    )


def cli(*, has: bool) -> None:
    """The command publishes and reads; without the extra it says what to install."""
    version = command("--version")
    if not has:
        check((version.returncode, version.stdout) == (2, ""), f"the command works without: {version}")
        check("pip install 'swapstore[cli]'" in version.stderr, version.stderr)
        return
    check(version.stdout.strip() == swapstore.__version__, f"{version}")
    done = command("publish", "mena", stdin='{"regime": "calm"}')
    check(done.returncode == 0, done.stderr)
    read = command("latest", "mena")
    check((read.returncode, read.stdout) == (0, '{"regime": "calm"}'), f"{read}")
    check(command("latest", "nowhere").returncode == 1, "the exit code of what is not there is another one")


def jsonschema(*, has: bool) -> None:
    """A schema refuses what does not fit."""
    if not has:
        refused(lambda: validators.json_schema({}), names="jsonschema")
        return
    schema = validators.json_schema({"type": "array"})
    with swapstore.connect("sqlite:///schema.db", validators=[schema]) as store:
        try:
            store.publish("mena", {})
        except swapstore.Rejected:
            return
    raise SystemExit("smoke test: the schema refuses nothing")


def otel(*, has: bool) -> None:
    """There is a listener for OpenTelemetry."""
    if not has:
        refused(observe.otel_metrics, names="otel")
        return
    observe.otel_metrics()


def prometheus(*, has: bool) -> None:
    """There is a listener for Prometheus."""
    if not has:
        refused(observe.prometheus_metrics, names="prometheus")
        return
    observe.prometheus_metrics()


def serve(*, has: bool) -> None:
    """The page comes with its templates and what they load; without the extra there is none."""
    store = swapstore.aio.connect("sqlite:///serve.db")
    if not has:
        refused(lambda: http.app(store), names="serve")
        return
    app, statuses = http.app(store), []

    async def send(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    async def ask(path: str) -> None:
        messages: list[dict[str, object]] = [{"type": "http.request", "body": b""}]

        async def receive() -> dict[str, object]:
            if not messages:
                await asyncio.Event().wait()  # the client stays for its answer
            return messages.pop()

        scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": []}
        await app(scope, receive, send)

    async def ask_all() -> None:
        async with store:
            for path in ("/", "/static/htmx.min.js", "/static/style.css", "/api/openapi.json"):
                await ask(path)

    asyncio.run(ask_all())
    check(statuses == [200] * 4, f"the page answers {statuses}")


def speedups(*, has: bool) -> None:
    """redis-py reads replies with hiredis, or goes without."""
    check((util.find_spec("hiredis") is not None) == has, "hiredis")


def upstash(*, has: bool) -> None:
    """A REST endpoint that is not there is an outage; without the extra it cannot be connected to."""
    address = "https://127.0.0.1:1"
    if not has:
        refused(lambda: swapstore.connect(address, token=TOKEN), names="upstash")
        return
    try:
        swapstore.connect(address, token=TOKEN, patience=0).read_latest("mena")
    except swapstore.Unavailable:
        return
    raise SystemExit("smoke test: nothing answers, and it is no outage")


CHECKS = {
    "cli": cli,
    "jsonschema": jsonschema,
    "otel": otel,
    "prometheus": prometheus,
    "serve": serve,
    "speedups": speedups,
    "upstash": upstash,
}


def main(wanted: str, known: str, url: str) -> None:
    """Check the library on a SQLite file and on a server, and then each extra, whether it is there or not."""
    installed()
    library("sqlite:///smoke.db")
    library(url)
    for extra in known.split(","):
        check(extra in CHECKS, f"there is no check of the extra {extra}")
        CHECKS[extra](has=extra in wanted.split(","))
    print(f"Python {sys.version.split()[0]}, extras {wanted}: swapstore {swapstore.__version__} works")


if __name__ == "__main__":
    main(*sys.argv[1:])
