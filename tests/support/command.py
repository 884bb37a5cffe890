"""`swapstore serve` as a process, as the docs start it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from tests.support.web import Site

TIMEOUT_S = 60


@contextmanager
def serving(options: Sequence[str], environment: Mapping[str, str]) -> Iterator[tuple[Site, str]]:
    """Run the command on a free port; yield the site, and the path that it is below. It ends by SIGTERM."""
    process = subprocess.Popen(
        [sys.executable, "-m", "swapstore.cli", "serve", *options, "--host", "127.0.0.1", "--port", "0"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    guard = threading.Timer(TIMEOUT_S, process.kill)
    guard.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, f"swapstore serve {' '.join(options)} does not start"
        address = urlsplit(json.loads(line)["url"])
        assert address.port is not None
        yield Site(address.port), address.path
        process.terminate()
        assert process.wait(TIMEOUT_S) == 0
    finally:
        guard.cancel()
        process.kill()
        process.communicate()
