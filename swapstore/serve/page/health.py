"""How the store does: whether each dataset is fresh, and what `doctor` says of the server."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from swapstore.errors import SwapstoreError
from swapstore.serve.page.datasets import examined
from swapstore.serve.page.rendering import html, is_partial
from swapstore.serve.site import site_of


async def show_health(request: Request) -> Response:
    """Show the health of all datasets, and what is wrong. Probes ask /api/health."""
    found = await examined(site_of(request))
    return html(
        request,
        "health.html",
        title="Health",
        health=found,
        wrong=[each for each in found.datasets.values() if not each.ok],
    )


async def show_doctor(request: Request) -> Response:
    """Show what could lose or block a publish on this server."""
    if not site_of(request).access.tells_all(request):
        raise HTTPException(403, "sign in: this page names servers")
    checks, error = [], None
    try:
        checks = await site_of(request).store.doctor()
    except SwapstoreError as caught:
        error = caught
    return html(
        request,
        "checks.html" if is_partial(request) else "doctor.html",
        title="Doctor",
        checks=checks,
        error=error,
    )


ROUTES: list[BaseRoute] = [Route("/health", show_health), Route("/doctor", show_doctor)]
