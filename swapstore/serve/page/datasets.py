"""The first page: all datasets, and how fresh each is."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from swapstore.health import Health
from swapstore.serve.page.rendering import html
from swapstore.serve.site import Site, site_of


async def show_all(request: Request) -> Response:
    """Show all datasets."""
    found = await examined(site_of(request))
    if found.error is not None:
        raise found.error
    return html(request, "datasets.html", title="Datasets", datasets=list(found.datasets.values()))


async def examined(site: Site) -> Health:
    """Return the health of all datasets: those that are published, and those that are expected."""
    every = await site.store.health()
    if not site.bounds or every.error is not None:
        return every
    return await site.store.health({**dict.fromkeys(every.datasets), **site.bounds})


ROUTES: list[BaseRoute] = [Route("/", show_all, name="datasets")]
