"""Turns HTTP errors and unreadable answers into this library's errors. No message holds a token or a body.

Each of them must decide whether the batch may have been carried out. If the endpoint itself refused the
request, it was not. If a gateway answered, or the answer is unreadable, it may have been: `ReplyLost`. A
batch that only reads is sent again after it.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from swapstore.drivers import refusals
from swapstore.drivers.rest.address import TOKEN_VARIABLE
from swapstore.errors import AccessDenied, Misconfigured, ReplyLost, SwapstoreError, Throttled, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from swapstore.drivers.rest.conversation import Request, Response

TOO_LARGE, TOO_MANY = 413, 429
_DENIED = {401, 403}
_WRONG_PLACE = {404, 405}
_GAVE_UP_WAITING = {408, 499}  # the request may have been carried out all the same


def of_status(response: Response, request: Request, where: str, token: str) -> SwapstoreError:
    """Turn a status that is not 200 into an error."""
    text = _error_text(response.body)
    return without_token(_of_status(response, request, where, text), text, token)


def _of_status(response: Response, request: Request, where: str, text: str) -> SwapstoreError:
    status = response.status
    shown = f" ({text})" if text else ""
    if status in _DENIED:
        return AccessDenied(
            f"{where} refused the token with HTTP {status}{shown}; check token= or ${TOKEN_VARIABLE}: is it "
            "the token of this endpoint?"
        )
    if status in _WRONG_PLACE:
        return Misconfigured(
            f"{where} has no REST API at this address (HTTP {status}); the URL is probably wrong: use the "
            "REST URL that the store's console shows"
        )
    if status == TOO_LARGE:
        return refusals.too_large(where, text or f"HTTP {status}", size_bytes=len(request.body))
    if status == TOO_MANY:
        wait_s = retry_after_s(response.headers)
        when = "later" if wait_s is None else f"in {wait_s:g} s"
        return Throttled(
            f"{where} received too many requests (HTTP 429){shown}; try again {when}", retry_after_s=wait_s
        )
    if status // 100 == 3:  # noqa: PLR2004 - redirections
        return Misconfigured(
            f"{where} redirects to {_host(response.headers.get('location', ''))} (HTTP {status}). Redirects "
            "are not followed, because they would send the token there. If the store is there, connect to it"
        )
    if status // 100 == 4 and status not in _GAVE_UP_WAITING:  # noqa: PLR2004 - the request is at fault
        if text:
            return refusals.refusal(text, where, size_bytes=len(request.body))
        return Unavailable(f"{where} refused the request with HTTP {status} and {_received(response)}")
    return lost(f"{where} answered with HTTP {status}{shown}", request)


def of_answer(found: str, response: Response, request: Request, where: str) -> SwapstoreError:
    """Build the error for an unreadable answer. It describes the answer and never quotes it."""
    return lost(f"{where} answered with {found}: {_received(response)}", request)


def lost(what: str, request: Request) -> SwapstoreError:
    """Build the error for a request that may have been carried out, and is sent again if it only reads."""
    if request.reads_only:
        return ReplyLost(f"{what}. Is a proxy in between, or the endpoint in trouble? Try again")
    return ReplyLost(f"{what}; whether the request was carried out is not known")


def unsent(what: str) -> Unavailable:
    """Build the error for a request of which nothing was sent."""
    return Unavailable(f"{what}. Is the URL right, and the network up?")


def _received(response: Response) -> str:
    kind = response.headers.get("content-type", "").partition(";")[0].strip() or "no content type"
    kind = kind if len(kind) <= 100 and kind.isprintable() else "an invalid content type"  # noqa: PLR2004
    return f"{len(response.body)} bytes of {kind}"


def _error_text(raw: bytes) -> str:
    """Return the text of a JSON error, or an empty string if the body is not one."""
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        match msgspec.json.decode(raw):
            case {"error": str(text)}:
                return refusals.shown(text)
    return ""


def without_token(error: SwapstoreError, text: str, token: str) -> SwapstoreError:
    """Take the token out of an endpoint's text that an error quotes.

    The error was chosen by the whole text: a short token may be part of the words that decide.
    """
    shown = refusals.shown(text)
    if shown:
        error.args = (error.args[0].replace(shown, shown.replace(token, "…")), *error.args[1:])
    return error


def _host(location: str) -> str:
    with suppress(ValueError):
        host = urlsplit(location).hostname
        if host:
            return host
    return "another address"


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return how long the endpoint asks to wait, in seconds. None: it does not say.

    The header `Retry-After` holds seconds or a date.
    """
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    with suppress(ValueError):
        seconds = float(value)
        return seconds if 0 <= seconds < float("inf") else None
    until, now = _parsed_date(value), _parsed_date(headers.get("date", "")) or datetime.now(UTC)
    return None if until is None else max((until - now).total_seconds(), 0.0)


def _parsed_date(text: str) -> datetime | None:
    with suppress(ValueError, TypeError, IndexError):
        date = parsedate_to_datetime(text)
        return date if date.tzinfo else date.replace(tzinfo=UTC)
    return None
