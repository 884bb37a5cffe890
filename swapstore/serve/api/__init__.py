"""The HTTP API: its routes. `openapi.py` describes them."""

from __future__ import annotations

from starlette.routing import BaseRoute

from swapstore.serve.api import events, reads

ROUTES: list[BaseRoute] = [*reads.ROUTES, *events.ROUTES]
