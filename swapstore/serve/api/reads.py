"""What readers ask: datasets, snapshots, the history, and what changed."""

from __future__ import annotations

import re
from datetime import datetime
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

import swapstore
from swapstore import documents
from swapstore.errors import InvalidInput, NotFound
from swapstore.http import responses
from swapstore.models import Group, Snapshot
from swapstore.serve.heavy import in_thread
from swapstore.serve.paths import DATASET
from swapstore.serve.site import Site, site_of

MOST_ROWS = 1000
MOST_CHANGES = 10_000

_NUMBER = re.compile("[0-9]{1,15}")


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a document that a cache may keep, and has to ask about before each use."""
    return Response(
        msgspec.json.encode(value),
        status,
        {"Content-Type": "application/json", "Cache-Control": "no-cache", **(headers or {})},
    )


def whole(request: Request, name: str) -> int | None:
    """Return a whole number of the query. None: it is not there."""
    text = request.query_params.get(name)
    if text is None or _NUMBER.fullmatch(text):
        return None if text is None else int(text)
    raise InvalidInput(f"{name} must be a whole number, not {text[:40]!r}")


def takes(request: Request, *names: str, labels: bool = False) -> None:
    """Refuse a parameter that is unknown: with a typo, another snapshot would be returned, or all of them."""
    for name in request.query_params:
        if name not in names and not (labels and name.startswith("label.")):
            known = [*names, *(["label.KEY"] if labels else [])]
            listed = f"these are known: {', '.join(known)}" if known else "this path takes none"
            raise InvalidInput(f"the parameter {name[:40]!r} is unknown; {listed}")


# --- datasets ------------------------------------------------------------------------------------------


async def list_datasets(request: Request) -> Response:
    """Return the health of all datasets, in alphabetical order."""
    takes(request)
    site = site_of(request)
    found = await site.store.health()
    if found.error is not None:
        raise found.error
    named = found.as_dict()["datasets"]
    keep = ("dataset", "version", "confirmed_age_ms", "age_ms", "size", "count", "pinned", "error")
    return json_response({"datasets": [{key: each[key] for key in keep} for each in named.values()]})


async def show_status(request: Request) -> Response:
    """Return the status of a dataset."""
    takes(request)
    return json_response(documents.status(await status_of(site_of(request), request.path_params["name"])))


async def status_of(site: Site, name: str) -> swapstore.Status:
    """Return the status of a dataset. Raises `NotFound` if nothing is published."""
    found = await site.store.status(name)
    if found is None:
        raise NotFound("nothing is published", dataset=name)
    return found


# --- snapshots -----------------------------------------------------------------------------------------


async def show_latest(request: Request) -> Response:
    """Return the payload of what is served, or of another snapshot that the query selects."""
    return await payload(request, await selected(request), None)


async def show_member(request: Request) -> Response:
    """Return the payload of a member of a group."""
    member = request.path_params["member"]
    return await payload(request, await selected(request, member), member)


async def selected(request: Request, member: str | None = None) -> Snapshot:
    """Return the snapshot that `version`, `id` or `as_of` of the query select; without them, what is served.

    Raises `NotFound` if there is none.
    """
    takes(request, "version", "id", "as_of")
    store, name = site_of(request).store, request.path_params["name"]
    version, id_ = whole(request, "version"), request.query_params.get("id")
    as_of = moment(request.query_params.get("as_of"), "as_of")
    if version is not None or id_ is not None or as_of is not None:
        found = await store.read(name, version=version, id=id_, as_of=as_of)
    elif member is not None:
        found = await store.read_group(name, members=[member])
    else:
        found = await store.read_latest(name)
    if found is None:
        await status_of(site_of(request), name)
        raise NotFound("no snapshot matches; its history lists those that exist", dataset=name)
    if member is not None and (not isinstance(found, Group) or member not in found):
        raise NotFound(f"version {found.version} has no member {member!r}", dataset=name)
    return found


def moment(text: str | None, what: str) -> int | datetime | None:
    """Return a time of a request: milliseconds since the Unix epoch, or RFC 3339."""
    if text is None or _NUMBER.fullmatch(text):
        return None if text is None else int(text)
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"{what} is {text[:40]!r}, which is neither milliseconds since 1970 nor a time as in RFC 3339"
        ) from None


async def payload(request: Request, found: Snapshot, member: str | None) -> Response:
    """Return the payload of a snapshot, or of one member, as the headers of the request ask for it."""
    answer = partial(responses.response, found, request.headers, method=request.method, member=member)
    made = answer() if responses.is_quick(found, member) else await in_thread(answer)
    headers = {
        **made.headers,
        "Swapstore-Version": str(found.version),
        "Swapstore-Id": found.id,
        "Swapstore-Ts": str(found.ts),
    }
    return Response(made.body, made.status, headers)


# --- the history ---------------------------------------------------------------------------------------


async def list_history(request: Request) -> Response:
    """Return committed rows, newest first, and where the next page begins."""
    takes(request, "limit", "before", labels=True)
    site, name = site_of(request), request.path_params["name"]
    status = await status_of(site, name)
    limit = whole(request, "limit")
    most = 50 if limit is None else limit
    if not 1 <= most <= MOST_ROWS:
        raise InvalidInput(f"limit must be 1 to {MOST_ROWS:,}, not {most}")
    labels = {key[6:]: text for key, text in request.query_params.items() if key.startswith("label.")}
    rows = site.store.history(name, limit=most, before=whole(request, "before"), label=labels or None)
    found = [documents.fields_of(row) async for row in rows]
    is_more = len(found) == most and found[-1]["version"] > status.first_version
    return json_response({"rows": found, "next": found[-1]["version"] if is_more else None})


async def show_diff(request: Request) -> Response:
    """Return what changed between two versions."""
    takes(request, "from", "to", "limit")
    site, name = site_of(request), request.path_params["name"]
    limit = whole(request, "limit")
    old, new = await pair(site, name, whole(request, "from"), whole(request, "to"))
    found = await in_thread(swapstore.diff, old, new)
    most = MOST_CHANGES if limit is None else min(limit, MOST_CHANGES)
    return json_response(
        {
            "from": old.version,
            "to": new.version,
            "counts": found.counts,
            "total": len(found.changes),
            "changes": [documents.change(each) for each in found.changes[:most]],
        }
    )


async def pair(site: Site, name: str, old: int | None, new: int | None) -> tuple[Snapshot, Snapshot]:
    """Return two snapshots by version. Default: the latest, and the one before it."""
    if new is None:
        new = (await status_of(site, name)).latest.version
    if old is None:
        old = next(iter([row.version async for row in site.store.history(name, limit=1, before=new)]), None)
        if old is None:
            raise NotFound(f"there is no snapshot before version {new}, to compare it with", dataset=name)
    found = []
    for version in (old, new):
        one = await site.store.read(name, version=version)
        if one is None:
            await status_of(site, name)
            raise NotFound(f"there is no version {version}; the history lists those that exist", dataset=name)
        found.append(one)
    return found[0], found[1]


ROUTES: list[BaseRoute] = [
    Route("/api/datasets", list_datasets),
    Route(f"/api{DATASET}", show_status),
    Route(f"/api{DATASET}/latest", show_latest),
    Route(f"/api{DATASET}/history", list_history),
    Route(f"/api{DATASET}/diff", show_diff),
    Route(f"/api{DATASET}/members/{{member:segment}}", show_member),
]
