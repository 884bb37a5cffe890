"""A store over HTTP: an API for every language, and a page for people. `swapstore serve` runs it.

    app.mount("/data", swapstore.http.app(store))

It needs the extra `[serve]`.
"""

from __future__ import annotations

from swapstore.serve.application import app

__all__ = ["app"]
