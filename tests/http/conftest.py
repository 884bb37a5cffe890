"""The apps of docs/how-to/serve-over-http.md and of the package, behind real servers on free ports."""

from __future__ import annotations

import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.conf import settings
from django.core.handlers.wsgi import WSGIHandler
from django.urls import clear_url_caches
from starlette.applications import Starlette
from werkzeug.exceptions import NotFound
from werkzeug.middleware.dispatcher import DispatcherMiddleware

import swapstore
import swapstore.http
from tests.support.web import Site, running_asgi, running_wsgi

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "serve-over-http.md"


Serving = Callable[[str], AbstractContextManager[Site]]


def documented(*marks: str) -> dict[str, Any]:
    """Run the code blocks of the page that contain these marks, in their order; return their names."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {"__name__": "documented"}
    for mark in marks:
        (code,) = [block for block in blocks if mark in block]
        exec(compile(code, PAGE, "exec"), names)  # noqa: S102 - it is our own page
    return names


def starlette(url: str) -> AbstractContextManager[Site]:
    return running_asgi(documented("app = Starlette(")["app"])


def fastapi(url: str) -> AbstractContextManager[Site]:
    return running_asgi(documented("app = Starlette(", "async def newest(")["app"])


@contextmanager
def flask(url: str) -> Iterator[Site]:
    names = documented("app = Flask(")
    with names["store"], running_wsgi(names["app"]) as site:
        yield site


@contextmanager
def django(url: str) -> Iterator[Site]:
    if not settings.configured:
        settings.configure(
            ALLOWED_HOSTS=["127.0.0.1"],
            ROOT_URLCONF="documented_urls",
            MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
            LOGGING_CONFIG=None,
        )
    names = documented("import swapstore.http.django")
    sys.modules["documented_urls"] = module = ModuleType("documented_urls")
    vars(module).update(names)
    clear_url_caches()
    with names["store"], running_wsgi(WSGIHandler()) as site:
        yield site


def asgi_app(url: str) -> AbstractContextManager[Site]:
    store = swapstore.aio.connect(url, patience=1)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with store:
            yield

    app = Starlette(lifespan=lifespan)
    app.mount("/datasets", swapstore.http.asgi_app(store))
    return running_asgi(app)


@contextmanager
def wsgi_app(url: str) -> Iterator[Site]:
    with swapstore.connect(url, patience=1) as store:
        app = DispatcherMiddleware(NotFound(), {"/datasets": swapstore.http.wsgi_app(store)})
        with running_wsgi(app) as site:
            yield site


APPS = [asgi_app, wsgi_app]
FRAMEWORKS = [starlette, fastapi, flask, django, *APPS]


@pytest.fixture(params=FRAMEWORKS, ids=lambda made: made.__name__)
def serving(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Serving:
    """Serves a store by its address, with the app of each framework."""

    def serve(url: str) -> AbstractContextManager[Site]:
        monkeypatch.setenv("SWAPSTORE_URL", url)
        made: AbstractContextManager[Site] = request.param(url)
        return made

    return serve


@pytest.fixture
def store(real_url: str) -> Iterator[swapstore.Store]:
    """The producer's store."""
    with swapstore.connect(real_url) as made:
        yield made


@pytest.fixture
def site(real_url: str, store: swapstore.Store, serving: Serving) -> Iterator[Site]:
    """An app on the same store."""
    with serving(real_url) as running:
        yield running
