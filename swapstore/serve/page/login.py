"""Sign in and out: a form for a token, and the cookie of the session that a right one begins."""

from __future__ import annotations

import re

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from swapstore.serve import bodies
from swapstore.serve.access import COOKIE, SESSION_S, Role
from swapstore.serve.page.rendering import html
from swapstore.serve.site import link, site_of

# A browser takes `//host`, `/\host` and, since it drops tabs and line feeds, `/<tab>/host` for another site.
_OWN_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*")


async def ask(request: Request) -> Response:
    """Show the form, if a token opens anything."""
    _refuse_without_tokens(request)
    return _form(request, request.query_params.get("next", ""))


async def sign_in(request: Request) -> Response:
    """Begin a session, and go on to where the person was on the way to."""
    _refuse_without_tokens(request)
    fields = await bodies.form(request)
    wanted = fields.get("next", "")
    access = site_of(request).access
    role = access.role_by_token(fields.get("token", "").strip())
    if role is Role.NOBODY:
        return _form(request, wanted, status=401)
    answer = RedirectResponse(_address(request, wanted), 303, {"Cache-Control": "no-store"})
    _set_cookie(request, answer, access.session(role), SESSION_S)
    return answer


async def sign_out(request: Request) -> Response:
    """End the session of this browser."""
    answer = RedirectResponse(link(request, "/"), 303, {"Cache-Control": "no-store"})
    _set_cookie(request, answer, "", 0)
    return answer


def _form(request: Request, wanted: str, status: int = 200) -> Response:
    wanted = wanted if _OWN_PATH.fullmatch(wanted) else "/"
    return html(request, "login.html", status, title="Sign in", next=wanted, is_wrong=status != 200)  # noqa: PLR2004


def _address(request: Request, wanted: str) -> str:
    """Return the address of a path of this site, and of its first page for what is not one."""
    if not _OWN_PATH.fullmatch(wanted):
        return link(request, "/")
    return f"{link(request, '')}{wanted}"


def _set_cookie(request: Request, answer: Response, value: str, max_age_s: int) -> None:
    answer.set_cookie(
        COOKIE,
        value,
        max_age=max_age_s,
        path=link(request, "") or "/",
        secure=request.scope["scheme"] == "https",
        httponly=True,
        samesite="strict",
    )


def _refuse_without_tokens(request: Request) -> None:
    access = site_of(request).access
    if access.writer is None and access.reader is None:
        raise HTTPException(404, "nobody has to sign in here: the server was started without a token")


ROUTES: list[BaseRoute] = [
    Route("/login", ask, methods=["GET"]),
    Route("/login", sign_in, methods=["POST"]),
    Route("/logout", sign_out, methods=["POST"]),
]
