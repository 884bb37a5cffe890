"""What HTTP answers instead of replies, as this library's errors. No message holds a token or a body.

The question behind each: can the batch have been carried out? Where the endpoint itself refused the request,
it was not. Where a gateway speaks, or what came cannot be read, it may have been: `ReplyLost`, unless the
batch only reads.
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
from swapstore.errors import AccessDenied, ReplyLost, SwapstoreError, Throttled, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from swapstore.drivers.rest.conversation import Request, Response

TOO_LARGE, TOO_MANY = 413, 429
_DENIED = {401, 403}
_WRONG_PLACE = {404, 405}
_GAVE_UP_WAITING = {408, 499}  # said of a request: nobody knows how far it came


def of_status(response: Response, request: Request, where: str, token: str) -> SwapstoreError:
    """Turn a status that is not 200 into an error."""
    status = response.status
    said = _said(response.body, token)
    shown = f" ({said})" if said else ""
    if status in _DENIED:
        return AccessDenied(
            f"{where} refused the token with HTTP {status}{shown}; check token= or ${TOKEN_VARIABLE}, and "
            "that it is the token of this endpoint"
        )
    if status in _WRONG_PLACE:
        return Unavailable(
            f"{where} has no REST API at this address (HTTP {status}); the URL is probably wrong: use the "
            "REST URL that the console of the store shows"
        )
    if status == TOO_LARGE:
        return refusals.too_large(where, said or f"HTTP {status}", size_bytes=len(request.body))
    if status == TOO_MANY:
        wait_s = retry_after_s(response.headers)
        when = "later" if wait_s is None else f"in {wait_s:g} s"
        return Throttled(
            f"{where} was asked too often (HTTP 429){shown}; try again {when}", retry_after_s=wait_s
        )
    if status // 100 == 3:  # noqa: PLR2004 - redirections
        return Unavailable(
            f"{where} redirects to {_host(response.headers.get('location', ''))} (HTTP {status}), which is "
            "not followed: the token would go there. Connect to where the store is, if that is it"
        )
    if status // 100 == 4 and status not in _GAVE_UP_WAITING:  # noqa: PLR2004 - the request is at fault
        if said:
            return refusals.refusal(said, where, size_bytes=len(request.body))
        return Unavailable(f"{where} refused the request with HTTP {status} and {_received(response)}")
    return lost(f"{where} answered with HTTP {status}{shown}", request)


def of_answer(found: str, response: Response, request: Request, where: str) -> SwapstoreError:
    """Turn an answer that cannot be read into an error, which says what was received and never quotes it."""
    return lost(f"{where} answered with {found}: {_received(response)}", request)


def lost(what: str, request: Request) -> SwapstoreError:
    """Something may have been applied, unless nothing was to be."""
    if request.reads_only:
        return Unavailable(f"{what}. Is there a proxy in between, or the endpoint in trouble? Try again")
    return ReplyLost(f"{what}; whether the request was carried out is not known")


def unsent(what: str) -> Unavailable:
    """Build the error for a request of which nothing was sent."""
    return Unavailable(f"{what}. Is the URL right, and the network up?")


def _received(response: Response) -> str:
    kind = response.headers.get("content-type", "").partition(";")[0].strip() or "no content type"
    kind = kind if len(kind) <= 100 and kind.isprintable() else "a strange content type"  # noqa: PLR2004
    return f"{len(response.body)} bytes of {kind}"


def _said(raw: bytes, token: str) -> str:
    """The text of a JSON error, empty if the answer is none."""
    with suppress(msgspec.DecodeError, UnicodeDecodeError):
        match msgspec.json.decode(raw):
            case {"error": str(text)}:
                return refusals.shown(redacted(text, token))
    return ""


def redacted(text: str, token: str) -> str:
    """An endpoint's text without the token, should it quote it."""
    return text.replace(token, "…")


def _host(location: str) -> str:
    with suppress(ValueError):
        host = urlsplit(location).hostname
        if host:
            return host
    return "another address of its own"


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How long to wait, in seconds: told as such, or as a date. None: not told."""
    told = headers.get("retry-after", "").strip()
    if not told:
        return None
    with suppress(ValueError):
        seconds = float(told)
        return seconds if 0 <= seconds < float("inf") else None
    until, now = _moment(told), _moment(headers.get("date", "")) or datetime.now(UTC)
    return None if until is None else max((until - now).total_seconds(), 0.0)


def _moment(text: str) -> datetime | None:
    with suppress(ValueError, TypeError, IndexError):
        moment = parsedate_to_datetime(text)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return None
