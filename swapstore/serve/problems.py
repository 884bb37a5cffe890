"""Problems: errors as RFC 9457 has them, for programs.

    {"type": "about:blank", "status": 409, "title": "IdConflict", "detail": "…", "published": false}

`title` is the name of the error's class, `published` whether anything was published (null: it is not known,
or the request does not publish). `detail` is the message, with its advice. It may name the store, so who may
only read because nobody asks readers for a token gets it where the request itself is at fault, and not else.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec
from starlette.responses import Response

from swapstore.errors import (
    Conflict,
    InvalidInput,
    NotFound,
    OutcomeUnknown,
    PayloadTooLarge,
    Refused,
    Rejected,
    SwapstoreError,
    Throttled,
    TooStale,
    Unavailable,
    UnderReplicated,
)

RETRY_AFTER_S = 5
TYPE = "application/problem+json"

STATUSES: dict[type[SwapstoreError], int] = {
    PayloadTooLarge: 413,
    NotFound: 404,
    Conflict: 412,
    Rejected: 422,
    Refused: 409,
    UnderReplicated: 503,
    TooStale: 503,
    Unavailable: 503,
}
"""The status for each class of errors; the first that fits counts. Any other error of swapstore: 500."""


def status_of(error: SwapstoreError) -> int:
    """Return the status that tells of an error."""
    if isinstance(error, InvalidInput) and not isinstance(error, PayloadTooLarge):
        return 500 if error.misused else 422
    return next((status for kind, status in STATUSES.items() if isinstance(error, kind)), 500)


def of_error(error: SwapstoreError, *, in_full: bool) -> Response:
    """Return the response that tells of an error. `in_full`: with its message, whatever it is about."""
    status = status_of(error)
    more: dict[str, Any] = {"published": error.published}
    if isinstance(error, OutcomeUnknown):
        more["id"] = error.id
    if isinstance(error, UnderReplicated):
        more |= {"id": error.commit.id, "version": error.commit.version}
    if isinstance(error, Conflict):
        more["current_version"] = error.current_version
    headers = {}
    if status == 503:  # noqa: PLR2004
        wait_s = error.retry_after_s if isinstance(error, Throttled) else None
        headers["Retry-After"] = str(RETRY_AFTER_S if wait_s is None else math.ceil(wait_s))
    is_about_request = isinstance(error, InvalidInput | NotFound | Refused) and status < 500  # noqa: PLR2004
    detail = str(error) if in_full or is_about_request else None
    return problem(status, type(error).__name__, detail, headers, **more)


def problem(
    status: int, title: str, detail: str | None = None, headers: dict[str, str] | None = None, **more: Any
) -> Response:
    """Return a problem, which no cache keeps."""
    fields = {"type": "about:blank", "status": status, "title": title}
    if detail is not None:
        fields["detail"] = detail
    return Response(
        msgspec.json.encode(fields | more),
        status,
        {"Content-Type": TYPE, "Cache-Control": "no-store", **(headers or {})},
    )
