"""Responses of Flask."""

from __future__ import annotations

from flask import Request, Response

from swapstore.errors import SwapstoreError
from swapstore.http import responses
from swapstore.models import Snapshot


def response(
    request: Request,
    found: Snapshot | SwapstoreError | None,
    *,
    member: str | None = None,
    cache_control: str = "no-cache",
    content_type: str | None = None,
) -> Response:
    """Answer a request with `swapstore.http.response`. Flask itself leaves out the body for `HEAD`."""
    made = responses.response(
        found,
        request.headers,
        member=member,
        cache_control=cache_control,
        content_type=content_type,
    )
    return Response(made.body, made.status, made.headers)
