"""One dataset: what is served, the timeline of its versions, and plots of their sizes and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from swapstore import arguments, figures
from swapstore.errors import Damaged, InvalidInput
from swapstore.health import Bound, judged
from swapstore.models import Group, Row, Status
from swapstore.serve.api.reads import status_of, whole
from swapstore.serve.page.plots import Plot, plot
from swapstore.serve.page.rendering import html, is_partial
from swapstore.serve.paths import DATASET
from swapstore.serve.site import Site, site_of

ROWS = 50
PLOTTED = 200
LOOKED_AT = 2_000  # rows that one request looks at for a label; a link goes on


@attrs.frozen(kw_only=True)
class Line:
    """A row of the timeline, and what changed since the version before it. None: there is none."""

    row: Row
    interval_ms: int | None
    change_bytes: int | None
    has_previous: bool


@attrs.frozen(kw_only=True)
class Page:
    """Rows of the timeline, newest first. `next`: older rows begin below this version; None: there are none.

    `seen` is how many versions were looked at for a label.
    """

    lines: list[Line]
    next: int | None
    seen: int


async def show(request: Request) -> Response:
    """Show a dataset: a page of its timeline, and all else beside the newest."""
    site, name = site_of(request), request.path_params["name"]
    before, asked = whole(request, "before"), request.query_params.get("label", "")
    label = label_of(asked)
    status = await status_of(site, name)
    page = await timeline(site, name, before, label)
    values = {"title": name, "summary": status, "page": page, "label": asked, "before": before}
    values["is_appended"] = is_partial(request)
    if values["is_appended"]:
        return html(request, "dataset_rows.html", **values)
    is_first = before is None and not label
    newest = [row async for row in site.store.history(name, limit=PLOTTED + 1)] if is_first else []
    members, damage = await members_of(site, status) if is_first else ({}, None)
    return html(
        request,
        "dataset.html",
        health=judged(name, status, site.bounds.get(name, Bound())),
        members=members,
        damage=damage and (str(damage) if site.access.tells_all(request) else type(damage).__name__),
        plots=plots_of(newest),
        count=arguments.count_in(status.serving.labels),
        **values,
    )


def label_of(text: str) -> tuple[str, str] | None:
    """Return the key and the value of a label, from `key=value`. None: no label is asked for."""
    if not text.strip():
        return None
    key, equals, value = text.partition("=")
    if not equals:
        raise InvalidInput(f"label must be key=value, not {text[:40]!r}")
    return key.strip(), value.strip()


async def timeline(site: Site, name: str, before: int | None, label: tuple[str, str] | None) -> Page:
    """Return rows of the history, newest first, below a version; if a label is given, those that have it."""
    most = LOOKED_AT if label else ROWS
    rows = [row async for row in site.store.history(name, limit=most + 1, before=before)]
    lines: list[Line] = []
    seen = 0
    for row, previous in zip(rows[:most], [*rows[1:], None], strict=False):
        seen += 1
        if label is None or row.labels.get(label[0]) == label[1]:
            lines.append(line(row, previous))
        if len(lines) == ROWS:
            break
    return Page(lines=lines, next=rows[seen - 1].version if len(rows) > seen else None, seen=seen)


def line(row: Row, previous: Row | None) -> Line:
    """Return a row of the timeline, given the row before it."""
    return Line(
        row=row,
        interval_ms=None if previous is None else row.committed_at - previous.committed_at,
        change_bytes=None if previous is None else row.size - previous.size,
        has_previous=previous is not None,
    )


async def members_of(site: Site, status: Status) -> tuple[dict[str, tuple[int, str]], Damaged | None]:
    """Return sizes and codecs of the members that are served, or what is damaged about them."""
    if not status.serving.is_group:
        return {}, None
    try:
        found = await site.store.read(status.dataset, version=status.serving.version)
    except Damaged as error:
        return {}, error
    if not isinstance(found, Group):
        return {}, None
    return {name: (member.size, member.codec) for name, member in found.members.items()}, None


def plots_of(newest: Sequence[Row]) -> list[Plot]:
    """Return the plots of the last versions, from rows with the newest first. One version is no line."""
    rows = newest[::-1]
    if len(rows) == 1:
        return []
    shown = rows[-PLOTTED:]
    names = [f"version {row.version}" for row in shown]
    made = [plot("Size", [float(row.size) for row in shown], names, _size, _bytes)]
    pairs = list(pairwise(rows))[-PLOTTED:]
    intervals = [float(row.committed_at - previous.committed_at) for previous, row in pairs]
    names = [f"version {row.version}" for _, row in pairs]
    made.append(plot("Interval between commits", intervals, names, lambda ms: figures.interval(int(ms))))
    return [each for each in made if each is not None]


def _size(size_bytes: float) -> str:
    return figures.size(int(size_bytes))


def _bytes(size_bytes: float) -> str:
    return f"{int(size_bytes):,} B"


ROUTES: list[BaseRoute] = [Route(DATASET, show)]
