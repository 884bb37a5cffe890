"""The page, for people: its routes, and how it tells of errors. It works without a line of JavaScript."""

from __future__ import annotations

from starlette.routing import BaseRoute

from swapstore.serve.page import actions, datasets, diff, health, login
from swapstore.serve.page.rendering import failed, refused

__all__ = ["ROUTES", "failed", "refused"]

ROUTES: list[BaseRoute] = [
    *datasets.ROUTES,
    *diff.ROUTES,
    *health.ROUTES,
    *login.ROUTES,
    *actions.ROUTES,
]
