"""The Chromium that tests of the page drive: one on PATH, or the one that `make browser` fetched."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import attrs
from playwright.sync_api import Browser as Launched
from playwright.sync_api import ConsoleMessage, Page, Request, WebError, sync_playwright

ON_PATH = ("chromium", "chromium-browser", "google-chrome")
VENV = Path(sys.prefix)
FETCHED = VENV / "chromium-153"  # with the major version that tests.support.chromium fetches
MISSING = VENV / "chromium-missing"  # why it could not be fetched
HEIGHT = 900
START_MS = 60_000
SANDBOX = os.geteuid() != 0  # Chromium refuses to start as root with it

# Chromium asks for nothing but what a page asks for, and reaches only servers on this machine.
ARGUMENTS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]

Scheme = Literal["light", "dark"]


@attrs.frozen
class Chromium:
    """An executable, and the environment that it needs."""

    executable: Path
    environment: dict[str, str] = attrs.field(factory=dict)


def find() -> Chromium | None:
    """Return the Chromium on PATH, or else the one that was fetched."""
    for name in ON_PATH:
        if found := shutil.which(name):
            return Chromium(Path(found))
    return unpacked(FETCHED) if FETCHED.exists() else None


def unpacked(directory: Path) -> Chromium:
    """Return the Chromium of the package from npm, which brings the libraries that servers lack."""
    libraries = [str(directory / "lib"), os.environ.get("LD_LIBRARY_PATH", "")]
    return Chromium(
        directory / "chromium",
        {
            "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
            "FONTCONFIG_FILE": str(directory / "fonts.conf"),
        },
    )


def missing() -> str:
    """Return why there is none."""
    why = MISSING.read_text("utf-8") if MISSING.exists() else "`make browser` has not fetched it"
    return f"no Chromium ({why})"


class Browser:
    """A running Chromium with a profile of its own, driven by Playwright's blocking API."""

    def __init__(self, launched: Launched) -> None:
        self._launched = launched
        self._loop, self._hooks = asyncio._get_running_loop(), sys.get_asyncgen_hooks()

    @contextmanager
    def page(
        self,
        width: int = 1280,
        scheme: Scheme = "light",
        complaints: list[str] | None = None,
        *,
        java_script: bool = True,
    ) -> Iterator[Page]:
        """Open an empty page with cookies and storage of its own; fail in the end if it has complaints.

        `complaints`: what is wrong on the page, for a caller that expects it and takes it out.
        """
        complaints = [] if complaints is None else complaints
        with running_loop(self._loop, self._hooks):
            context = self._launched.new_context(
                viewport={"width": width, "height": HEIGHT},
                color_scheme=scheme,
                java_script_enabled=java_script,
            )
            watch = Watch(complaints)
            context.on("console", watch.console)
            context.on("weberror", watch.error)
            context.on("request", watch.request)
            with context:
                yield context.new_page()
            assert not complaints, complaints


@contextmanager
def launched(chromium: Chromium) -> Iterator[Browser]:
    """Launch Chromium, and end its processes in the end."""
    with (
        tempfile.TemporaryDirectory(prefix="chromium-") as home,
        sync_playwright() as playwright,
        playwright.chromium.launch(
            executable_path=chromium.executable,
            args=ARGUMENTS,
            chromium_sandbox=SANDBOX,
            env={**os.environ, **chromium.environment, "HOME": home},
            timeout=START_MS,
        ) as started,
    ):
        browser = Browser(started)
        with running_loop(None, (None, None)):
            yield browser


@contextmanager
def running_loop(loop: asyncio.AbstractEventLoop | None, hooks: tuple[Any, Any]) -> Iterator[None]:
    """Have this thread take a loop for the running one.

    Playwright's loop counts as running from its start to its end, between its calls as well. It is put aside
    while no page is open, so that other tests of the same process run loops of their own.
    """
    before = asyncio._get_running_loop(), sys.get_asyncgen_hooks()
    asyncio._set_running_loop(loop)
    sys.set_asyncgen_hooks(*hooks)
    try:
        yield
    finally:
        asyncio._set_running_loop(before[0])
        sys.set_asyncgen_hooks(*before[1])


class Watch:
    """Notes errors of pages, and requests to another server than the first one that was asked."""

    def __init__(self, complaints: list[str]) -> None:
        self._complaints = complaints
        self._origin: str | None = None

    def console(self, message: ConsoleMessage) -> None:
        """Note an error or a warning on the console."""
        if message.type in {"error", "warning"}:
            self._complaints.append(f"{message.type}: {message.text}")

    def error(self, error: WebError) -> None:
        """Note an exception that nothing has caught."""
        self._complaints.append(f"uncaught: {error.error}")

    def request(self, request: Request) -> None:
        """Note a request that leaves the server under test."""
        parts = urlsplit(request.url)
        if parts.scheme in {"about", "blob", "data"}:
            return
        origin = f"{parts.scheme}://{parts.netloc}"
        self._origin = self._origin or origin
        if origin != self._origin:
            self._complaints.append(f"a request left {self._origin}: {request.url}")
