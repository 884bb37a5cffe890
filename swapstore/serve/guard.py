"""The guard: who may not do something is refused before a handler sees the request. Headers for browsers."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from swapstore.serve import page, problems
from swapstore.serve.access import COOKIE, Role, is_bearer
from swapstore.serve.paths import App, Message, Receive, Send
from swapstore.serve.site import Site, is_for_programs, login_address, path_of

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
OPEN = frozenset({"/login", "/logout", "/api/openapi.json"})  # for everybody: they show nothing of the store
STATIC = "/static/"

HEADERS = {
    b"content-security-policy": (
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    b"cross-origin-opener-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"referrer-policy": b"same-origin",  # with no-referrer, browsers send our own forms as from Origin: null
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
        path, is_safe = path_of(request), request.method in SAFE
        if path in OPEN or path.startswith(STATIC):
            return None if is_safe else _from_elsewhere(request)
        access = self._site.access
        role = access.role_of(request)
        if is_safe:
            return None if role >= Role.READER else _unknown(request)
        if not access.allow_writes:
            detail = "this server only reads: start it with --allow-writes, or allow_writes=True"
            return _refused(request, 403, "Writing Is Not Allowed", detail)
        if role is Role.READER and access.reader is not None:
            detail = "this token is for reading; writing takes the one of SWAPSTORE_TOKEN"
            return _refused(request, 403, "Forbidden", detail)
        return _from_elsewhere(request) if role is Role.WRITER else _unknown(request)


def _refused(request: Request, status: int, title: str, detail: str) -> Response:
    """Return the response to a request that changes nothing: a problem for a program, a page for a person."""
    if is_for_programs(request):
        return problems.problem(status, title, detail, published=False)
    return page.refused(request, status, title, detail, {})


def _unknown(request: Request) -> Response:
    """Return the response to who has shown no token: a form for a person, a challenge for a program."""
    if not is_for_programs(request):
        return RedirectResponse(login_address(request), 303)
    more = {} if request.method in SAFE else {"published": False}
    detail = "send a token: Authorization: Bearer TOKEN"
    if is_bearer(request):
        detail = "the token is not one that this server knows"
    return problems.problem(401, "Unauthorized", detail, {"WWW-Authenticate": "Bearer"}, **more)


def _from_elsewhere(request: Request) -> Response | None:
    """Refuse what a page of another origin made a browser send with its cookie. None: it is not that.

    A browser adds no token by itself, but it does add the cookie, and the password of a proxy. It says where
    a request comes from in `Sec-Fetch-Site`, or if it is old or the address is not https, in `Origin`. One
    that says neither cannot write with a cookie.
    """
    if is_bearer(request):
        return None
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        is_ours = site in {"same-origin", "none"}
    elif origin is not None:
        is_ours = _is_own(origin, request)
    else:
        is_ours = COOKIE not in request.cookies
    if is_ours:
        return None
    return _refused(
        request, 403, "Forbidden", "a page of another origin sent this, or the browser does not say"
    )


def _is_own(origin: str, request: Request) -> bool:
    """Whether an origin is that of the site. Behind a proxy for TLS, the site may not know its scheme."""
    host, scheme = request.headers.get("host", ""), request.scope["scheme"]
    schemes = {"https"} if scheme == "https" else {"http", "https"}
    return bool(host) and origin.lower() in {f"{each}://{host.lower()}" for each in schemes}
