"""Templates: what all pages have around them, and how values become text. Whatever comes in is escaped."""

from __future__ import annotations

import re
import time
from functools import partial
from typing import Any
from urllib.parse import quote

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

import swapstore
from swapstore import figures
from swapstore.errors import SwapstoreError
from swapstore.serve.access import COOKIE, Role
from swapstore.serve.site import link, path_of, site_of

_DIRECTIONS = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(text: str) -> str:
    """Return a text with marks that turn the direction of writing as escapes, so that nobody is misled."""
    return _DIRECTIONS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


_TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("swapstore.serve"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.filters |= {
    "age": figures.age,
    "count": figures.count,
    "duration": figures.duration,
    "instant": figures.instant,
    "labels": figures.labels,
    "interval": figures.interval,
    "segment": partial(quote, safe=""),  # a name as one segment of a path
    "size": figures.size,
    "visible": visible,
}
_TEMPLATES.globals["library_version"] = swapstore.__version__

HEADINGS = {
    404: "There is no such thing here",
    422: "This cannot be used",
    500: "Something that is stored is damaged, or the store is set up wrongly",
    503: "The store cannot be reached now",
}
"""What a page says of an error, by its status."""

DONE = {
    "pin": "It is pinned: readers of the latest get this version until it is unpinned.",
    "unpin": "It is unpinned: readers of the latest get the latest again.",
    "rollback": "It is rolled back: this version is the latest now.",
    "confirm": "It is confirmed: the data is still current.",
}
"""What a page says after an action, by the parameter `done` of its address."""


def is_partial(request: Request) -> bool:
    """Whether htmx asks for a part of a page, to put it into the page that is open."""
    return "hx-request" in request.headers


def html(
    request: Request, template: str, status: int = 200, headers: dict[str, str] | None = None, **values: Any
) -> Response:
    """Return a page, or a part of one, made of a template. No cache keeps it: it may show what is private."""
    site = site_of(request)
    role, tells_all = site.access.role_of(request), site.access.tells_all(request)

    def here(path: str, **query: str | int | None) -> str:
        return link(request, path, **query)

    text = _TEMPLATES.get_template(template).render(
        here=here,
        path=path_of(request),
        place=site.place if role > Role.NOBODY and tells_all else None,
        tells_all=tells_all,
        may_write=site.access.allow_writes and role is Role.WRITER,
        can_sign_in=site.access.allow_writes or site.access.reader is not None,
        is_signed_in=COOKIE in request.cookies and role > Role.NOBODY,
        done=DONE.get(request.query_params.get("done", "")),
        now_ms=time.time_ns() // 1_000_000,
        **values,
    )
    return HTMLResponse(text, status, {"Cache-Control": "no-store", **(headers or {})})


def failed(request: Request, status: int, error: SwapstoreError, *, in_full: bool) -> Response:
    """Return the page that tells of an error of a call."""
    detail = str(error) if in_full or status < 500 else "Sign in to see why."  # noqa: PLR2004
    return refused(request, status, HEADINGS.get(status, "This cannot be done"), detail, {})


def refused(
    request: Request, status: int, title: str, detail: str | None, headers: dict[str, str]
) -> Response:
    """Return the page that tells why there is nothing else to show."""
    return html(request, "error.html", status, headers, number=status, title=title, detail=detail)
