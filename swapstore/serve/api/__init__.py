"""The HTTP API: its routes. `openapi.py` describes them."""

from __future__ import annotations

from starlette.routing import BaseRoute

from swapstore.serve.api import events, openapi, reads, writes

ROUTES: list[BaseRoute] = [*openapi.ROUTES, *reads.ROUTES, *writes.ROUTES, *events.ROUTES]
