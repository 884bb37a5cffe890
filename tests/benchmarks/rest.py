"""A store over REST, if this version has the driver and there is a REST server for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

import swapstore
from swapstore import Store
from tests.benchmarks.bench import Bench

PEER = "tests.support.rest"
NOTE = "the REST peer is Python in this very process: compare it with itself over time"


@contextmanager
def store(bench: Bench) -> Iterator[tuple[Store | None, str]]:
    """Yield a store that reaches the server over HTTP, or None and the reason."""
    with ExitStack() as stack:
        try:
            made = _made(bench, stack)
            made.publish("rest", b"does it work?", codec="bytes")
        except Exception as error:  # noqa: BLE001 - whatever is missing, the other figures are worth having
            yield None, f"{type(error).__name__}: {error}"
        else:
            yield made, ""


def _made(bench: Bench, stack: ExitStack) -> Store:
    if bench.ground.server is None:
        raise RuntimeError("the peer stands in front of a server of the bench's own only")
    connect: Any = swapstore.connect
    peer: Any = stack.enter_context(import_module(PEER).RestServer(bench.ground.server))
    made: Store = stack.enter_context(connect(peer.url, token=peer.token, namespace=bench.ground.namespace))
    return made
