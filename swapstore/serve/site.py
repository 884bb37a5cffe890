"""The site: what the handlers of all requests share."""

from __future__ import annotations

from urllib.parse import quote, urlencode

import attrs
from starlette.requests import Request

from swapstore.health import Bound
from swapstore.serve.access import Access
from swapstore.serve.feeds import Feeds
from swapstore.store import AsyncStore


@attrs.frozen(kw_only=True)
class Site:
    """The store, what is expected of its datasets, who may do what, the largest body, and the feeds."""

    store: AsyncStore
    bounds: dict[str, Bound]
    access: Access
    max_body_bytes: int
    feeds: Feeds = attrs.field(default=attrs.Factory(lambda site: Feeds(site.store), takes_self=True))

    @property
    def place(self) -> str:
        """Where the store is, for people."""
        return f"{self.store.where}, namespace {self.store.namespace!r}"


def site_of(request: Request) -> Site:
    """Return the site that a request is for."""
    site: Site = request.app.state.site
    return site


def link(request: Request, path: str, **query: str | int | None) -> str:
    """Return the address of a path of this site, as seen by the client. Parameters that are None are left out."""
    given = {name: value for name, value in query.items() if value is not None}
    mount = request.scope.get("root_path", "")
    return f"{mount}{path}{'?' if given else ''}{urlencode(given, quote_via=quote)}"
