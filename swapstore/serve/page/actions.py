"""Pin, unpin, rollback and confirm from the page. Each shows first what it will do, and then does it.

The form has the etag of the manifest that the confirmation was made from. If the dataset has moved on since,
nothing is done, and the new state is shown. The etag is compared just before the call, not by the commit: a
publish within these milliseconds is not noticed, as with the command.
"""

from __future__ import annotations

from urllib.parse import quote

import attrs
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from swapstore.errors import InvalidInput, NotFound
from swapstore.models import Row, Status
from swapstore.serve import bodies
from swapstore.serve.access import Role
from swapstore.serve.api.reads import status_of, whole
from swapstore.serve.page.rendering import html
from swapstore.serve.paths import DATASET
from swapstore.serve.site import link, login_address, site_of

ACTIONS = ("pin", "unpin", "rollback", "confirm")
OF_VERSION = {"pin", "rollback"}


@attrs.frozen
class Plan:
    """What an action changes: the dataset now, and the rows that will be the latest and the pinned one."""

    status: Status
    latest: Row
    pinned: Row | None

    @classmethod
    def of(cls, action: str, status: Status, row: Row) -> Plan:
        """Plan an action on a row."""
        match action:
            case "pin":
                return cls(status, status.latest, row)
            case "unpin":
                return cls(status, status.latest, None)
            case "rollback":
                return cls(status, row, status.pinned)
        return cls(status, status.latest, status.pinned)

    @property
    def serving(self) -> Row:
        """The row that is served then."""
        return self.pinned or self.latest

    @property
    def is_idle(self) -> bool:
        """Whether no other row becomes the latest, or the pinned one."""
        return (self.latest, self.pinned) == (self.status.latest, self.status.pinned)


async def _show(request: Request, action: str) -> Response:
    """Show what the action will change, with the form that does it."""
    site = site_of(request)
    if not site.access.allow_writes:
        raise HTTPException(403, "this server only reads: start it with --allow-writes, or allow_writes=True")
    if site.access.role_of(request) is not Role.WRITER:
        return RedirectResponse(login_address(request), 303)
    status = await status_of(site, request.path_params["name"])
    return _confirmation(request, action, status, await _row(request, action, status))


async def _do(request: Request, action: str) -> Response:
    """Do it, if the dataset is as it was when the confirmation was shown, and go back to the dataset."""
    site, name = site_of(request), request.path_params["name"]
    seen = (await bodies.form(request)).get("etag")
    status = await status_of(site, name)
    row = await _row(request, action, status)
    if seen != status.etag:
        return _confirmation(request, action, status, row, http_status=409)
    match action:
        case "pin":
            await site.store.pin(name, id=row.id)
        case "unpin":
            await site.store.unpin(name)
        case "rollback":
            await site.store.rollback(name, id=row.id)
        case "confirm":
            await site.store.confirm(name)
    return RedirectResponse(link(request, f"/datasets/{quote(name, safe='')}", done=action), 303)


async def _row(request: Request, action: str, status: Status) -> Row:
    """Return the row that the action is about: that of the version in the query, or the latest."""
    if action not in OF_VERSION:
        return status.latest
    version = whole(request, "version")
    if version is None:
        raise InvalidInput("which version? Follow a link of the dataset's history, or add ?version= here")
    rows = site_of(request).store.history(status.dataset, limit=1, before=version + 1)
    found = [row async for row in rows if row.version == version]
    if not found:
        raise NotFound(f"there is no version {version} in the history", dataset=status.dataset)
    return found[0]


def _confirmation(
    request: Request, action: str, status: Status, row: Row, http_status: int = 200
) -> Response:
    return html(
        request,
        "action.html",
        http_status,
        title=f"{action.capitalize()} {status.dataset}",
        action=action,
        version=row.version if action in OF_VERSION else None,
        dataset=status.dataset,
        plan=Plan.of(action, status, row),
        has_changed=http_status != 200,  # noqa: PLR2004
    )


def _route(action: str) -> list[BaseRoute]:
    async def show(request: Request) -> Response:
        return await _show(request, action)

    async def do(request: Request) -> Response:
        return await _do(request, action)

    path = f"{DATASET}/{action}"
    return [Route(path, show, methods=["GET"]), Route(path, do, methods=["POST"])]


ROUTES: list[BaseRoute] = [route for action in ACTIONS for route in _route(action)]
