"""The site: what the handlers of all requests share."""

from __future__ import annotations

from urllib.parse import quote, urlencode

import attrs
from starlette.requests import Request

from swapstore.health import Bound
from swapstore.serve.access import Access
from swapstore.serve.bodies import AT_A_TIME, Room
from swapstore.serve.feeds import Feeds
from swapstore.store import AsyncStore


@attrs.frozen(kw_only=True)
class Site:
    """The store, what is expected of its datasets, who may do what, and the largest body that is read.

    `room`: the memory for all bodies. `feeds`: what is sent to those who wait for changes.
    """

    store: AsyncStore
    bounds: dict[str, Bound]
    access: Access
    max_body_bytes: int
    room: Room = attrs.field(
        init=False, default=attrs.Factory(lambda self: Room(AT_A_TIME * self.max_body_bytes), takes_self=True)
    )
    feeds: Feeds = attrs.field(default=attrs.Factory(lambda site: Feeds(site.store), takes_self=True))

    @property
    def place(self) -> str:
        """Where the store is, for people."""
        return f"{self.store.where}, namespace {self.store.namespace!r}"


def site_of(request: Request) -> Site:
    """Return the site that a request is for."""
    site: Site = request.app.state.site
    return site


def path_of(request: Request) -> str:
    """Return the path of a request below the mount, as the routes see it: percent-encoded."""
    path: str = request.scope["path"]
    mount: str = request.scope.get("root_path", "")
    return path[len(mount) :] if path.startswith(f"{mount}/") else path


def is_for_programs(request: Request) -> bool:
    """Whether a request is for the API, and not for the page."""
    return path_of(request).startswith("/api/")


def login_address(request: Request) -> str:
    """Return the address of the form for a token, which leads on to what was requested."""
    query = request.scope["query_string"].decode("latin-1")
    return link(request, "/login", next=f"{path_of(request)}?{query}" if query else path_of(request))


def link(request: Request, path: str, **query: str | int | None) -> str:
    """Return the address of a path of this site, for the client. Parameters that are None are left out."""
    given = {name: value for name, value in query.items() if value is not None}
    mount = request.scope.get("root_path", "")
    return f"{mount}{path}{'?' if given else ''}{urlencode(given, quote_via=quote)}"
