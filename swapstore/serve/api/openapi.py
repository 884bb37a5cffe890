"""The description of the API, as OpenAPI has it. `GET /api/openapi.json` returns it."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

import swapstore
from swapstore.serve import problems

Schema = dict[str, Any]

_NAME = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "The dataset. A slash in it is written as %2F.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._/-]{0,127}$"},
}


# --- schemas -------------------------------------------------------------------------------------------


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _object(optional: dict[str, Schema] | None = None, /, **required: Schema) -> Schema:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
    }


_TEXT: Schema = {"type": "string"}
_WHOLE: Schema = {"type": "integer"}
_FLAG: Schema = {"type": "boolean"}
_MS: Schema = {"type": "integer", "description": "Milliseconds since the Unix epoch, UTC."}
_ETAG: Schema = {"type": "string", "description": "Of the manifest: it names a swap. Not the header ETag."}
_VERSION: Schema = {"type": "integer", "minimum": 1}
_LABELS: Schema = {"type": "object", "additionalProperties": _TEXT}

_ROW = {
    "id": _TEXT,
    "ts": _MS,
    "size": {"type": "integer", "description": "Bytes of the payload."},
    "sha256": _TEXT,
    "codec": {"type": "string", "description": "json, bytes, or group."},
    "labels": _LABELS,
    "version": _WHOLE,
    "committed_at": _MS,
    "dedupe_key": _or_null(_TEXT),
    "base": _or_null(_TEXT),
}

SCHEMAS: dict[str, Schema] = {
    "Row": {**_object(**_ROW), "description": "A committed snapshot, without its payload."},
    "Status": _object(
        dataset=_TEXT,
        version={"type": "integer", "description": "It counts every swap, pins and confirmations too."},
        etag=_ETAG,
        committed_at=_MS,
        confirmed_at=_MS,
        count=_WHOLE,
        first_version=_WHOLE,
        latest=_ref("Row"),
        pinned=_or_null(_ref("Row")),
        read_at=_MS,
        serving=_ref("Row"),
        bytes=_WHOLE,
        age_ms=_WHOLE,
        confirmed_age_ms=_WHOLE,
    ),
    "Commit": _object(
        {"replicas": _WHOLE},
        dataset=_TEXT,
        version=_WHOLE,
        etag=_ETAG,
        id=_TEXT,
        ts=_MS,
        sha256=_TEXT,
        size=_WHOLE,
        created={"type": "boolean", "description": "False: it was there, by its id or its dedupe key."},
        is_latest=_FLAG,
    ),
    "Datasets": _object(
        datasets={
            "type": "array",
            "items": _object(
                dataset=_TEXT,
                version=_or_null(_WHOLE),
                confirmed_age_ms=_or_null(_WHOLE),
                age_ms=_or_null(_WHOLE),
                size=_or_null(_WHOLE),
                count=_or_null(_WHOLE),
                pinned=_or_null(_FLAG),
                error=_or_null(_TEXT),
            ),
        }
    ),
    "History": _object(
        rows={"type": "array", "items": _ref("Row")},
        next={
            **_or_null(_WHOLE),
            "description": "`before` of the next page. Null: there is none.",
        },
    ),
    "Change": _object(
        {
            "was": {"type": "string", "description": "The place in the old version, if it is another one."},
            "item": {"type": "object", "description": "The field that identifies the item of a list."},
            "before": {},
            "after": {},
        },
        kind={"enum": ["added", "removed", "changed", "moved"]},
        pointer={"type": "string", "description": "The place, as a JSON pointer (RFC 6901)."},
    ),
    "Diff": {
        "type": "object",
        "properties": {
            "from": _WHOLE,
            "to": _WHOLE,
            "counts": {"type": "object", "additionalProperties": _WHOLE},
            "total": {"type": "integer", "description": "The number of changes; some may be left out."},
            "changes": {"type": "array", "items": _ref("Change")},
        },
        "required": ["from", "to", "counts", "total", "changes"],
    },
    "Health": _object(
        ok=_FLAG, state=_TEXT, checked_at=_MS, error=_or_null(_TEXT), datasets={"type": "object"}
    ),
    "Served": _object(
        version=_WHOLE,
        id=_TEXT,
        ts=_MS,
        size=_WHOLE,
        sha256=_TEXT,
        codec=_TEXT,
        labels=_LABELS,
        committed_at=_MS,
        etag=_ETAG,
    ),
    "Problem": _object(
        {
            "detail": {"type": "string", "description": "What happened, and what to do next."},
            "published": {
                **_or_null(_FLAG),
                "description": "Whether anything was published. Null: not known, or the request does not.",
            },
            "id": {**_or_null(_TEXT), "description": "Publish again with this Idempotency-Key."},
            "version": _WHOLE,
            "current_version": _WHOLE,
        },
        type=_TEXT,
        status=_WHOLE,
        title={
            "type": "string",
            "description": "The class of the error, as docs/reference/errors.md has it.",
        },
    ),
}


# --- parts of operations -------------------------------------------------------------------------------


def _query(name: str, schema: Schema, description: str, **more: Any) -> Schema:
    return {"name": name, "in": "query", "schema": schema, "description": description, **more}


def _header(name: str, description: str) -> Schema:
    return {"name": name, "in": "header", "schema": _TEXT, "description": description}


_SELECTORS = [
    _query("version", _VERSION, "The snapshot with this version."),
    _query("id", _TEXT, "The snapshot with this id."),
    _query("as_of", _TEXT, "The snapshot with the greatest ts up to this time: ms, or RFC 3339."),
]
_CONDITIONS = [
    _header("If-None-Match", "An ETag that the client has: 304 if it is still that."),
    _header("Accept-Encoding", "zstd: the payload as a zstd frame, if that is smaller."),
]
_PROBLEMS = {
    "401": "A token is asked for: `Authorization: Bearer …`.",
    "403": "Writing is not allowed, or not with this token.",
    "404": "No such dataset, snapshot or member.",
    "408": "The body did not arrive in time.",
    "409": "The id has other content, or the snapshot is older than the retention.",
    "412": "Another publish came first.",
    "413": "The body is too large.",
    "415": "The body is of another type.",
    "422": "The request, or a value in it, cannot be used.",
    "500": "Stored data is damaged, or the server is set up wrongly.",
    "503": "The store cannot be reached now, or the outcome is not known: send it again after `Retry-After`.",
}


def _problems(*statuses: str) -> Schema:
    content = {problems.TYPE: {"schema": _ref("Problem")}}
    return {each: {"description": _PROBLEMS[each], "content": content} for each in statuses}


def _json(name: str, description: str) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": _ref(name)}}}


_READS = _problems("401", "404", "422", "500", "503")
_WRITES = _problems("401", "403", "404", "409", "412", "413", "415", "422", "500", "503")
_PAYLOAD = {
    "200": {
        "description": "The payload, byte for byte.",
        "headers": {
            name: {"schema": _TEXT} for name in ("ETag", "Swapstore-Version", "Swapstore-Id", "Swapstore-Ts")
        },
        "content": {"application/json": {"schema": {}}, "application/octet-stream": {"schema": {}}},
    },
    "304": {"description": "The client has it."},
}


def _reading(summary: str, responses: Schema, *parameters: Schema, named: bool = True) -> Schema:
    return {
        "summary": summary,
        "parameters": [*([_NAME] if named else []), *parameters],
        "responses": {**responses, **_READS},
        "security": [{}, {"token": []}],
    }


def _steering(summary: str, *, body: bool) -> Schema:
    """Describe a swap of what is served."""
    chosen = {"type": "object", "properties": {"version": _WHOLE, "id": _TEXT}}
    return {
        "summary": summary,
        "parameters": [_NAME],
        "responses": {"200": _json("Status", "The status after it."), **_WRITES},
        "security": [{"token": []}],
        **({"requestBody": {"content": {"application/json": {"schema": chosen}}}} if body else {}),
    }


# --- the document --------------------------------------------------------------------------------------


def _publishing() -> Schema:
    return {
        "summary": "Publish the body as the next snapshot.",
        "description": "Readers see all of it, or the previous snapshot. Send the same request again after "
        "503, or a lost reply: with an Idempotency-Key it ends in one commit.",
        "parameters": [
            _NAME,
            _header(
                "Idempotency-Key", "The id of the snapshot. Default: a new one, so a retry may publish twice."
            ),
            _header("If-Match", 'Publish only if the latest has this version (`"7"`) or ETag; else 412.'),
            _header("If-None-Match", "`*`: publish only if nothing is published yet; else 412."),
            _header("Swapstore-Ts", "The moment that the data describes: ms since 1970, or RFC 3339."),
            _header("Swapstore-Label", "`key=value`, percent-encoded. Several, or one with commas between."),
            _header("Swapstore-Dedupe-Key", "Do nothing if a recent commit has this key."),
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": {}}, "application/octet-stream": {"schema": {}}},
        },
        "responses": {
            "200": _json("Commit", "It was there already."),
            "201": _json("Commit", "It is published."),
            **_WRITES,
            **_problems("408"),
        },
        "security": [{"token": []}],
    }


def _paths() -> Schema:
    dataset = "/api/datasets/{name}"
    named = "The member. A slash in it is written as %2F."
    member = {"name": "member", "in": "path", "required": True, "description": named, "schema": _TEXT}
    every = _reading("All datasets.", {"200": _json("Datasets", "By name.")}, named=False)
    served = _reading("The payload that is served.", _PAYLOAD, *_SELECTORS, *_CONDITIONS)
    of_member = _reading("The payload of a member of a group.", _PAYLOAD, member, *_SELECTORS, *_CONDITIONS)
    return {
        "/api/datasets": {"get": every},
        dataset: {
            "get": _reading("The status of a dataset.", {"200": _json("Status", "The status.")}),
            "put": _publishing(),
        },
        f"{dataset}/latest": {"get": served},
        f"{dataset}/members/{{member}}": {"get": of_member},
        f"{dataset}/history": {"get": _listing()},
        f"{dataset}/diff": {"get": _comparing()},
        f"{dataset}/events": {"get": _listening()},
        f"{dataset}/pin": {
            "post": _steering("Serve one version until it is unpinned.", body=True),
            "delete": _steering("Serve the latest again.", body=False),
        },
        f"{dataset}/rollback": {"post": _steering("Make an earlier snapshot the latest again.", body=True)},
        f"{dataset}/confirm": {"post": _steering("Mark the data as still current.", body=False)},
        "/api/health": {"get": _probing()},
    }


def _listing() -> Schema:
    return _reading(
        "Committed snapshots, newest first.",
        {"200": _json("History", "A page of them.")},
        _query("limit", {"type": "integer", "minimum": 1, "maximum": 1000}, "How many. Default: 50."),
        _query("before", _VERSION, "Only versions below this one: `next` of the page before."),
        _query("label.KEY", _TEXT, "Only those whose label KEY has this value; any number of labels."),
    )


def _comparing() -> Schema:
    return _reading(
        "What changed between two versions.",
        {"200": _json("Diff", "The changes, in the order of the document.")},
        _query("from", _VERSION, "Default: the one before `to`."),
        _query("to", _VERSION, "Default: the latest."),
        _query("limit", {"type": "integer", "minimum": 0}, "How many changes at most: up to 10,000."),
    )


def _listening() -> Schema:
    events = {
        "description": "Server-sent events, without an end. `event: served`: what is served; `id:` names "
        "it. `gone`: nothing is, any more. `behind`: the store cannot be read. `current`: it can again.",
        "content": {"text/event-stream": {"schema": _ref("Served")}},
    }
    has = _header("Last-Event-ID", "The id of the event of what the client has.")
    return _reading("What is served, whenever it changes.", {"200": events}, has)


def _probing() -> Schema:
    return {
        "summary": "Whether all datasets are there, fresh and large enough.",
        "responses": {
            "200": _json("Health", "They are."),
            "503": _json("Health", "One is not, or the store cannot be reached."),
            **_problems("401"),
        },
        "security": [{}, {"token": []}],
    }


@cache
def document() -> bytes:
    """Return the document as JSON."""
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "swapstore",
                "version": swapstore.__version__,
                "description": "Atomic, versioned snapshots: publish them, read them, and see what changed.",
                "license": {"name": "MIT", "identifier": "MIT"},
            },
            "servers": [{"url": ".."}],  # relative to this document: the app may be mounted anywhere
            "paths": _paths(),
            "components": {
                "schemas": SCHEMAS,
                "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            },
        }
    )


async def show_document(_: Request) -> Response:
    """Return the description of the API."""
    return Response(document(), headers={"Content-Type": "application/json", "Cache-Control": "no-cache"})


ROUTES: list[BaseRoute] = [Route("/api/openapi.json", show_document)]
