"""HTTP in a line: snapshots as responses to conditional requests, whatever the framework.

    import swapstore.http

    answer = swapstore.http.response(store.read_latest("mena"), {"If-None-Match": '"…"'})
    answer.status, answer.headers, answer.body

`swapstore.http.starlette` (FastAPI too), `swapstore.http.flask` and `swapstore.http.django` make the response
of the framework. `asgi_app` and `wsgi_app` serve all datasets of a store. `app` is an API for programs and a
page for people; it needs the extra `[serve]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from swapstore.errors import InvalidInput
from swapstore.http.apps import asgi_app, wsgi_app
from swapstore.http.responses import Response, response

if TYPE_CHECKING:
    from swapstore.serve import app

__all__ = ["Response", "app", "asgi_app", "response", "wsgi_app"]


def __getattr__(name: str) -> Any:
    """Import what needs an extra when it is asked for."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from swapstore.serve import app  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name not in {"starlette", "jinja2"}:
            raise
        raise InvalidInput("swapstore.http.app needs an extra: pip install 'swapstore[serve]'") from error
    return app
