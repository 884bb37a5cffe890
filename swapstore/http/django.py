"""Responses of Django."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from swapstore.errors import SwapstoreError
from swapstore.http import responses
from swapstore.models import Snapshot


def response(
    request: HttpRequest,
    found: Snapshot | SwapstoreError | None,
    *,
    member: str | None = None,
    cache_control: str = "no-cache",
    content_type: str | None = None,
) -> HttpResponse:
    """Answer a request with `swapstore.http.response`."""
    made = responses.response(
        found,
        request.headers,
        method=request.method,
        member=member,
        cache_control=cache_control,
        content_type=content_type,
    )
    answer = HttpResponse(made.body, status=made.status, headers=made.headers)
    if "Content-Type" not in made.headers:
        del answer["Content-Type"]  # Django adds one, which a 304 must not have
    return answer
