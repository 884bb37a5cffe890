"""The guard: who may not do something is refused before a handler sees the request. Headers for browsers."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from swapstore.serve import problems
from swapstore.serve.access import Role
from swapstore.serve.paths import App, Message, Receive, Send
from swapstore.serve.site import Site

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
OPEN = ("/static/", "/login", "/api/openapi.json")  # for everybody: they show nothing of the store

HEADERS = {
    b"content-security-policy": (
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"no-referrer",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
}


class SecurityHeaders:
    """Middleware that tells browsers to load nothing from elsewhere, and to stay outside other pages."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                more = [(name, value) for name, value in HEADERS.items() if name not in given]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


class Guard:
    """Middleware that refuses who may not read, or not write."""

    def __init__(self, app: App, site: Site) -> None:
        self._app = app
        self._site = site

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        refusal = self._refusal(Request(scope)) if scope["type"] == "http" else None
        await (self._app if refusal is None else refusal)(scope, receive, send)

    def _refusal(self, request: Request) -> Response | None:
        """Return the response to a request that is refused. None: it is not."""
        path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
        if path.startswith(OPEN):
            return None if request.method in SAFE else _from_elsewhere(request)
        role, is_api = self._site.access.role_of(request), path.startswith("/api/")
        if request.method in SAFE:
            return None if role >= Role.READER else _unknown(request, path, is_api=is_api)
        if not self._site.access.allow_writes:
            detail = "this server only reads: start it with --allow-writes, or allow_writes=True"
            return problems.problem(403, "Writing Is Not Allowed", detail, published=False)
        if role < Role.WRITER:
            if role is Role.READER and self._site.access.reader is not None:
                detail = "this token is for reading; writing takes the one of SWAPSTORE_TOKEN"
                return problems.problem(403, "Forbidden", detail, published=False)
            return _unknown(request, path, is_api=is_api)
        return _from_elsewhere(request)


def _unknown(request: Request, path: str, *, is_api: bool) -> Response:
    """Return the response to who has shown no token: a form for a person, a challenge for a program."""
    if is_api or request.method not in SAFE:
        return problems.problem(
            401,
            "Unauthorized",
            "send a token: Authorization: Bearer TOKEN",
            {"WWW-Authenticate": "Bearer"},
        )
    asked = f"{path}?{request.url.query}" if request.url.query else path
    return RedirectResponse(f"{request.scope.get('root_path', '')}/login?next={quote(asked, safe='')}", 303)


def _from_elsewhere(request: Request) -> Response | None:
    """Refuse what a page of another origin made a browser send with its cookie. None: it is not that."""
    if "authorization" in request.headers:
        return None
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    is_ours = (
        site in {"same-origin", "none"}
        if site is not None
        else (origin is None or urlsplit(origin).netloc == request.headers.get("host"))
    )
    return None if is_ours else problems.problem(403, "Forbidden", "a page of another origin sent this")
