"""HTTP in a line: snapshots as responses to conditional requests, whatever the framework.

    import swapstore.http

    answer = swapstore.http.response(store.read_latest("mena"), {"If-None-Match": '"…"'})
    answer.status, answer.headers, answer.body

`swapstore.http.starlette` (FastAPI too), `swapstore.http.flask` and `swapstore.http.django` make the response
of the framework. `asgi_app` and `wsgi_app` serve all datasets of a store.
"""

from __future__ import annotations

from swapstore.http.apps import asgi_app, wsgi_app
from swapstore.http.responses import Response, response

__all__ = ["Response", "asgi_app", "response", "wsgi_app"]
