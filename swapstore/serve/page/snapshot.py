"""One snapshot: facts about it, and its payload as a tree that is loaded piece by piece.

A page shows one node of the tree: where it is, and its children. A child opens in place, or, without
JavaScript, as a page of its own. So a page is small however large and deep the document is.
"""

from __future__ import annotations

import logging
from typing import Any

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from swapstore.errors import Damaged, InvalidInput, NotFound
from swapstore.models import Group, Member, Row, Snapshot
from swapstore.serve.api.reads import status_of, whole
from swapstore.serve.heavy import in_thread
from swapstore.serve.page import nodes
from swapstore.serve.page.nodes import Node
from swapstore.serve.page.rendering import html, is_partial
from swapstore.serve.paths import DATASET
from swapstore.serve.site import Site, site_of

LOG = logging.getLogger("swapstore")

CHILDREN = 100
MATCHES = 200
PATIENCE_S = 3.0  # of a search
SHORT = 200  # bytes of a text that are shown in the tree
COPIED = 4_000  # bytes of JSON that a button copies; more is behind a link
HEX = 256
NEAR = (64, 1024)  # how many versions to look through for the next newer one


@attrs.frozen(kw_only=True)
class Shown:
    """A node as a page shows it.

    `count` is how many children it has, `json` its text if it is short enough for a button that copies it.
    """

    node: Node
    text: str
    is_cut: bool
    count: int
    json: str | None

    @classmethod
    def of(cls, node: Node) -> Shown:
        """Return what is shown of a node."""
        return cls(
            node=node,
            text=node.text(SHORT),
            is_cut=node.size > SHORT,
            count=nodes.count(node),
            json=node.text() if node.size <= COPIED else None,
        )


@attrs.frozen(kw_only=True)
class Branch:
    """A node, some of its children, and which they are: from the index `start` to before `end`.

    `path` are the pointers and keys of the nodes above, from the outside.
    """

    at: Shown
    path: list[tuple[str, str]]
    children: list[Shown]
    start: int
    end: int


@attrs.frozen(kw_only=True)
class Matches:
    """What a search found, and the index of the first child on the page of its parent that shows it.

    `is_whole`: the search went through the whole document.
    """

    found: list[tuple[Shown, int]]
    is_whole: bool


async def show(request: Request) -> Response:
    """Show a snapshot: facts, and its payload, at the node that `pointer` names, or what `search` finds."""
    site, name = site_of(request), request.path_params["name"]
    version, chosen = version_in(request), request.query_params.get("member")
    summary = await status_of(site, name)
    row, previous = [*await rows_at(site, name, version), None, None][:2]
    if row is None or row.version != version:
        older, newer = row and row.version, await following(site, name, version)
        near = {"name": name, "version": version, "chosen": chosen, "older": older, "newer": newer}
        return html(request, "no_version.html", 404, title=f"{name}, version {version}", **near)
    values: dict[str, Any] = {
        "title": f"{name}, version {row.version}",
        "name": name,
        "row": row,
        "previous": previous,
        "chosen": chosen,
        "is_appended": is_partial(request),
        "search": request.query_params.get("search", "")[:500],
        "mark": request.query_params.get("mark"),
        "members": {},
        "payload": None,
        "branch": None,
        "matches": None,
        "hex_rows": None,
        "problem": None,
    }
    if values["is_appended"]:
        found = await payload_shown(request, name, row, chosen, "")
        if "branch" not in found:
            raise NotFound(f"version {version} has no tree: it is not JSON", dataset=name)
        return html(request, "tree.html", **values | found)
    values |= {"summary": summary, "following": await following(site, name, row.version)}
    try:
        values |= await payload_shown(request, name, row, chosen, values["search"])
    except Damaged as error:
        message = str(error)
        LOG.error("%s %s: %s", request.method, request.scope["path"], message)  # noqa: TRY400 - it says all
        values["problem"] = message if site.access.tells_all(request) else type(error).__name__
        return html(request, "snapshot.html", 500, **values)
    return html(request, "snapshot.html", **values)


async def payload_shown(
    request: Request, name: str, row: Row, chosen: str | None, search: str
) -> dict[str, Any]:
    """Return what a page shows of a payload: members to choose from, bytes, a branch, or matches."""
    found = await snapshot_of(site_of(request), name, row.version)
    one = payload_of(found, chosen)
    if one is None:
        return {"members": found.members}
    shown: dict[str, Any] = {"payload": one, "members": found.members}
    if one.codec != "json":
        return shown | {"hex_rows": hex_rows(one.raw[:HEX])}
    try:
        if search:
            return shown | {"matches": await in_thread(matches_in, one.raw, search)}
        pointer, start = request.query_params.get("pointer", ""), whole(request, "after") or 0
        return shown | {"branch": await in_thread(branch_of, one.raw, pointer, start)}
    except (Damaged, NotFound, InvalidInput) as error:
        error.dataset = name
        raise


async def send_json(request: Request) -> Response:
    """Send the text of one node, as it is stored."""
    name, version = request.path_params["name"], version_in(request)
    found = await snapshot_of(site_of(request), name, version)
    one = payload_of(found, request.query_params.get("member"))
    pointer = request.query_params.get("pointer", "")
    if one is None or one.codec != "json":
        raise NotFound("this is not JSON", dataset=name)
    node = await in_thread(nodes.at, one.raw, pointer)
    if node is None:
        raise NotFound(f"version {version} has nothing at {pointer!r}", dataset=name)
    return Response(bytes(node.raw), 200, {"Content-Type": "application/json", "Cache-Control": "no-store"})


# --- which snapshot ------------------------------------------------------------------------------------


def version_in(request: Request) -> int:
    """Return the version that a path names. Raises `NotFound` for what is no number."""
    text = request.path_params["version"]
    if text.isascii() and text.isdecimal() and len(text) < 16:  # noqa: PLR2004
        return int(text)
    raise NotFound(f"{text[:40]!r} is not a version", dataset=request.path_params["name"])


async def rows_at(site: Site, name: str, version: int) -> list[Row]:
    """Return the rows of a version and of the one before it, as far as there are any."""
    rows = site.store.history(name, limit=2, before=version + 1)
    return [row async for row in rows]


async def following(site: Site, name: str, version: int) -> int | None:
    """Return the next newer version in the history. None: there is none, or it is far away."""
    for reach in NEAR:
        rows = site.store.history(name, limit=reach, before=version + 1 + reach)
        newer = [row.version async for row in rows if row.version > version]
        if newer:
            return newer[-1]
    return None


async def snapshot_of(site: Site, name: str, version: int) -> Snapshot:
    """Return a snapshot by version. Raises `NotFound` if it has been removed."""
    found = await site.store.read(name, version=version)
    if found is None:
        raise NotFound(f"there is no snapshot of version {version}", dataset=name)
    return found


def payload_of(found: Snapshot, member: str | None) -> Snapshot | Member | None:
    """Return what is shown of a snapshot. None: it is a group, and no member is chosen."""
    if member is None:
        return None if isinstance(found, Group) else found
    one = found.members.get(member)
    if one is None:
        raise NotFound(f"version {found.version} has no member {member[:200]!r}", dataset=found.dataset)
    return one


# --- what is shown of it -------------------------------------------------------------------------------


def branch_of(raw: bytes, pointer: str, start: int) -> Branch:
    """Return a node and some of its children, from an index on. Raises `NotFound` if there is no node."""
    node = nodes.at(raw, pointer)
    if node is None:
        raise NotFound(f"there is nothing at {pointer[:500]!r}")
    children = [Shown.of(each) for each in nodes.children(node, start, CHILDREN)]
    return Branch(
        at=Shown.of(node), path=path_to(pointer), children=children, start=start, end=start + len(children)
    )


def path_to(pointer: str) -> list[tuple[str, str]]:
    """Return the pointers and keys of a node and of those above it, from the outside, without the root."""
    path, above = [], ""
    for key in nodes.tokens(pointer):
        above = nodes.joined(above, key)
        path.append((above, key))
    return path


def matches_in(raw: bytes, wanted: str) -> Matches:
    """Return what matches a search, and on which page of its parent each stands."""
    found, is_whole = nodes.search(raw, wanted, MATCHES, patience_s=PATIENCE_S)
    placed = [(Shown.of(node), node.place - node.place % CHILDREN) for node in found]
    return Matches(found=placed, is_whole=is_whole)


def hex_rows(raw: bytes) -> list[tuple[str, str, str]]:
    """Return bytes as rows of 16: offset, hexadecimal, and what is printable."""
    parts = [(start, raw[start : start + 16]) for start in range(0, len(raw), 16)]
    return [
        (f"{start:04x}", part.hex(" "), "".join(chr(b) if 32 <= b < 127 else "." for b in part))  # noqa: PLR2004
        for start, part in parts
    ]


_VERSION = f"{DATASET}/versions/{{version:segment}}"

ROUTES: list[BaseRoute] = [
    Route(_VERSION, show),
    Route(f"{_VERSION}/tree", show),
    Route(f"{_VERSION}/json", send_json),
]
