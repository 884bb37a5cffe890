"""What producers and operators send: a snapshot to publish; pin, unpin, rollback and confirm."""

from __future__ import annotations

import re
from asyncio import to_thread
from collections.abc import Awaitable
from copy import copy
from http import HTTPStatus
from typing import Any
from urllib.parse import quote, unquote

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from swapstore import arguments, codecs, documents
from swapstore.errors import Conflict, InvalidInput, SwapstoreError
from swapstore.http import responses
from swapstore.models import Commit, Status
from swapstore.serve import bodies, problems
from swapstore.serve.api.reads import json_response, moment
from swapstore.serve.paths import DATASET
from swapstore.serve.site import link, site_of

CODECS: dict[str, codecs.Codec] = {"application/json": "json", "application/octet-stream": "bytes"}
QUICK_BYTES = 16 << 10  # JSON text of this size is checked at once, a larger one in a thread
MOST_ORDER_BYTES = 4 << 10
NEVER = 2**53  # no dataset has this version

_VERSION = re.compile(r'"([0-9]{1,15})"')
_TAG = re.compile(r'"[\x21\x23-\x7e]+"')
_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


# --- publish -------------------------------------------------------------------------------------------


async def publish(request: Request) -> Response:
    """Publish the body as the next snapshot: 201, or 200 if it was published before."""
    site = site_of(request)
    try:
        codec, options, tag = _codec(request), _options(request), _match(request)
        with site.room.share() as share:
            body = await bodies.read(request, site.max_body_bytes, share)
            commit = await _publish(request, await _checked(body, codec), tag, {"codec": codec, **options})
    except HTTPException as error:
        title = HTTPStatus(error.status_code).phrase
        headers = dict(error.headers or {})
        return problems.problem(error.status_code, title, error.detail, headers, published=False)
    except InvalidInput as error:
        error.published = False
        raise
    path = f"/api/datasets/{quote(commit.dataset, safe='')}/latest"
    headers = {
        "Location": link(request, path, version=commit.version),
        "Swapstore-Version": str(commit.version),
        "Swapstore-Id": commit.id,
    }
    return json_response(documents.fields_of(commit), 201 if commit.created else 200, headers)


async def _publish(request: Request, value: Any, tag: str | None, options: dict[str, Any]) -> Commit:
    """Publish a value, on the condition that the entity tag `tag` is that of what is served.

    If it is not, a publish is tried that cannot hold: it finds the commit of an earlier attempt, whose reply
    was lost, and whose snapshot is what has another tag now.
    """
    store, name = site_of(request).store, request.path_params["name"]
    if tag is None:
        return await store.publish(name, value, **options)
    try:
        served = await store.read_latest(name)
    except SwapstoreError as error:
        failed = copy(error)  # other reads may wait for the same one
        failed.published = False
        raise failed from error
    has_it = served is not None and responses.has_tag(served, tag)
    expected = served.version if served is not None and has_it else NEVER
    try:
        return await store.publish(name, value, expected_version=expected, **options)
    except Conflict as error:
        changed = Conflict(
            "If-Match does not hold: what is served, or the latest, is another snapshot now; read it again, "
            "and decide",
            current_version=error.current_version,
        )
        changed.dataset, changed.published = error.dataset, False
        raise changed from None


async def _checked(body: bytes, codec: codecs.Codec) -> Any:
    """Return what is published. A large JSON text is checked in a thread, since that takes long."""
    if codec == "bytes":
        return body
    text = msgspec.Raw(body)
    if len(body) <= QUICK_BYTES:
        return text
    return codecs.Checked(await to_thread(codecs.encode, text, codec, limit_bytes=len(body)))


def _codec(request: Request) -> codecs.Codec:
    """Return the codec for the type of the body. Refuses other types, and encoded bodies, with 415."""
    kind = _type(request)
    if kind not in CODECS:
        allowed = ", ".join(CODECS)
        raise HTTPException(415, f"Content-Type must be one of {allowed}", {"Accept": allowed})
    if (_one(request, "content-encoding") or "identity").lower() != "identity":
        raise HTTPException(
            415,
            "send the body without Content-Encoding; the store compresses it",
            {"Accept-Encoding": "identity"},
        )
    return CODECS[kind]


def _options(request: Request) -> dict[str, Any]:
    """Return the options of a publish that headers give."""
    key = _one(request, "idempotency-key")
    options: dict[str, Any] = {
        "id": key[1:-1] if key is not None and key[:1] == key[-1:] == '"' else key,
        "ts": moment(_one(request, "swapstore-ts"), "Swapstore-Ts"),
        "dedupe_key": _one(request, "swapstore-dedupe-key"),
        "labels": _labels(request),
    }
    found, none = _one(request, "if-match"), _one(request, "if-none-match")
    if found is not None and none is not None:
        raise InvalidInput("send If-Match or If-None-Match, not both")
    if none is not None:
        if none != "*":
            raise InvalidInput(f"If-None-Match can only be *: nothing is published yet; not {none[:80]!r}")
        options["expected_version"] = 0
    version = None if found is None else _VERSION.fullmatch(found)
    if version is not None:
        options["expected_version"] = int(version[1])
    return options


def _match(request: Request) -> str | None:
    """Return the entity tag of `If-Match`. None: it has a version, or is not there."""
    found = _one(request, "if-match")
    if found is None or _VERSION.fullmatch(found):
        return None
    if arguments.is_etag(found.strip('"')):
        raise InvalidInput(
            "If-Match has the etag of a status or a commit, which names a swap; send the header ETag of "
            '…/latest, or the version in quotes, such as "7"'
        )
    if not _TAG.fullmatch(found):
        raise InvalidInput(
            'If-Match must be a version in quotes, such as "7", or the ETag of …/latest, which is strong, '
            f"and not {found[:80]!r}"
        )
    return found


def _labels(request: Request) -> dict[str, str]:
    """Return the labels. Clients and proxies join a header that is there several times by commas."""
    labels: dict[str, str] = {}
    for text in ",".join(request.headers.getlist("swapstore-label")).split(","):
        pair = text.strip()
        if not pair:
            continue
        key, separator, value = pair.partition("=")
        if not separator or not pair.isascii() or _ESCAPE.search(pair):
            raise InvalidInput(
                f"Swapstore-Label {pair[:80]!r} is not key=value, with all but ASCII letters and digits "
                "percent-encoded as UTF-8"
            )
        try:
            key, value = unquote(key, errors="strict"), unquote(value, errors="strict")
        except UnicodeDecodeError:
            raise InvalidInput(f"Swapstore-Label {pair[:80]!r} is not percent-encoded UTF-8") from None
        if key in labels:
            raise InvalidInput(f"the label {key!r} is given twice")
        labels[key] = value
    return labels


def _type(request: Request) -> str:
    """Return the type of the body, without parameters."""
    return (_one(request, "content-type") or "").partition(";")[0].strip().lower()


def _one(request: Request, name: str) -> str | None:
    """Return a header that can be there once. None: it is not there."""
    found = request.headers.getlist(name)
    if len(found) > 1:
        raise InvalidInput(f"the header {name} is given {len(found)} times")
    return found[0].strip() if found else None


# --- what is served ------------------------------------------------------------------------------------


class Target(msgspec.Struct, forbid_unknown_fields=True):
    """The snapshot that an operator names, by version or by id."""

    version: int | None = None
    id: str | None = None


async def pin(request: Request) -> Response:
    """Serve a snapshot until it is unpinned. Repeating it changes nothing."""
    target = await _target(request)
    return await _changed(site_of(request).store.pin(request.path_params["name"], **target))


async def unpin(request: Request) -> Response:
    """Serve the latest again. Repeating it changes nothing."""
    return await _changed(site_of(request).store.unpin(request.path_params["name"]))


async def rollback(request: Request) -> Response:
    """Make a snapshot the latest. Repeating it changes nothing, unless another one was published since."""
    target = await _target(request)
    return await _changed(site_of(request).store.rollback(request.path_params["name"], **target))


async def confirm(request: Request) -> Response:
    """Mark the data as still current. Repeating it marks it again."""
    return await _changed(site_of(request).store.confirm(request.path_params["name"]))


async def _changed(change: Awaitable[Status]) -> Response:
    return json_response(documents.status(await change))


async def _target(request: Request) -> dict[str, Any]:
    """Return which snapshot the body names."""
    if _type(request) != "application/json":
        raise HTTPException(
            415, 'send {"version": 7} or {"id": "…"} as application/json', {"Accept": "application/json"}
        )
    body = await bodies.read(request, MOST_ORDER_BYTES)
    try:
        target = msgspec.json.decode(body, type=Target)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidInput(f'the body must be {{"version": 7}} or {{"id": "…"}}: {error}') from None
    return {"version": target.version, "id": target.id}


ROUTES: list[BaseRoute] = [
    Route(f"/api{DATASET}", publish, methods=["PUT"]),
    Route(f"/api{DATASET}/pin", pin, methods=["POST"]),
    Route(f"/api{DATASET}/pin", unpin, methods=["DELETE"]),
    Route(f"/api{DATASET}/rollback", rollback, methods=["POST"]),
    Route(f"/api{DATASET}/confirm", confirm, methods=["POST"]),
]
