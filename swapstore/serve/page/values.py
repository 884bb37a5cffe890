"""How one value of a dataset changed from version to version, as a table and, of numbers, as a line.

It costs one read for each version, of those whose payloads differ. Few run at the same time, and the page
shows what was read within some seconds, with a link that goes on.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from itertools import groupby
from typing import Literal

import attrs
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from swapstore.errors import Damaged, InvalidInput
from swapstore.models import Group, Row
from swapstore.serve.api.reads import status_of, whole
from swapstore.serve.heavy import in_thread
from swapstore.serve.page import nodes
from swapstore.serve.page.plots import Plot, plot
from swapstore.serve.page.rendering import html
from swapstore.serve.page.snapshot import SHORT, payload_of
from swapstore.serve.paths import DATASET
from swapstore.serve.site import Site, site_of

LAST = 50
MOST = 200
AT_ONCE = 4
PATIENCE_S = 3.0

State = Literal["there", "absent", "unreadable"]


@attrs.frozen(kw_only=True)
class Value:
    """What stands at a pointer in one version: its text as it is stored, or why there is none.

    `kind` is that of a JSON value; `digest` tells texts apart that are too long to be kept.
    """

    state: State
    text: str
    kind: str = ""
    is_cut: bool = False
    digest: bytes = b""

    @property
    def number(self) -> float | None:
        """Return it as a number. None: it is not one."""
        return float(self.text) if self.kind == "number" and not self.is_cut else None


@attrs.frozen(kw_only=True)
class Run:
    """Successive versions with the same value, from the oldest to the newest.

    `is_change`: it differs from the run before. None: the run before was not read.
    """

    oldest: Row
    newest: Row
    number: int
    value: Value
    is_change: bool | None


async def show(request: Request) -> Response:
    """Show how the value at `pointer` changed over the `last` versions, older ones below `before`."""
    site, name = site_of(request), request.path_params["name"]
    pointer, member = request.query_params.get("pointer", ""), request.query_params.get("member")
    nodes.tokens(pointer)
    last, before = whole(request, "last") or LAST, whole(request, "before")
    if last > MOST:
        raise InvalidInput(f"last must be 1 to {MOST}, not {last}", dataset=name)
    await status_of(site, name)
    rows = [row async for row in site.store.history(name, limit=last + 1, before=before)]
    values = await values_at(site, name, rows[:last], pointer, member)
    read = rows[: len(values)]
    return html(
        request,
        "value.html",
        title=f"{pointer or 'everything'} of {name}",
        name=name,
        pointer=pointer,
        chosen=member,
        last=last,
        before=before,
        number=len(read),
        asked=min(last, len(rows)),
        newest=read[0] if read else None,
        runs=runs_of(read, values, is_all=len(rows) == len(read)),
        plot=line_of(read, values),
        next=read[-1].version if read and len(rows) > len(read) else None,
    )


async def values_at(
    site: Site, dataset: str, rows: Sequence[Row], pointer: str, member: str | None
) -> list[Value]:
    """Return the value in each of these versions; of fewer if it takes too long, but of one at least."""
    deadline = time.monotonic() + PATIENCE_S
    known: dict[tuple[str, str], Value] = {}
    for start in range(0, len(rows), AT_ONCE):
        if start and time.monotonic() > deadline:
            rows = rows[:start]
            break
        some = {(row.sha256, row.codec): row for row in rows[start : start + AT_ONCE]}
        new = {content: row for content, row in some.items() if content not in known}
        found = await asyncio.gather(*(value_in(site, row, dataset, pointer, member) for row in new.values()))
        known |= zip(new, found, strict=True)
    return [known[row.sha256, row.codec] for row in rows]


async def value_in(site: Site, row: Row, dataset: str, pointer: str, member: str | None) -> Value:
    """Return the value in one version."""
    try:
        found = await site.store.read(dataset, version=row.version)
        if found is None:
            return Value(state="unreadable", text="removed since")
        if isinstance(found, Group) and member is None:
            return Value(state="unreadable", text="a group: choose one of its members")
        if member is not None and member not in found.members:
            return Value(state="absent", text="no such member")
        one = payload_of(found, member)
        if one is None or one.codec != "json":
            return Value(state="unreadable", text="not JSON")
        return await in_thread(_value_of, one.raw, pointer)
    except (Damaged, InvalidInput) as error:
        return Value(state="unreadable", text=f"cannot be read: {type(error).__name__}")


def _value_of(raw: bytes, pointer: str) -> Value:
    node = nodes.at(raw, pointer)
    if node is None:
        return Value(state="absent", text="nothing there")
    return Value(
        state="there",
        text=node.text(SHORT),
        kind=node.kind,
        is_cut=node.size > SHORT,
        digest=hashlib.sha256(node.raw).digest(),
    )


def runs_of(rows: Sequence[Row], values: Sequence[Value], *, is_all: bool) -> list[Run]:
    """Fold successive versions with the same value, the newest first. `is_all`: the first one is there."""
    groups = [list(each) for _, each in groupby(zip(rows, values, strict=True), key=lambda pair: pair[1])]
    return [
        Run(
            newest=group[0][0],
            oldest=group[-1][0],
            number=len(group),
            value=group[0][1],
            is_change=index + 1 < len(groups) or (False if is_all else None),
        )
        for index, group in enumerate(groups)
    ]


def line_of(rows: Sequence[Row], values: Sequence[Value]) -> Plot | None:
    """Return the plot of the values that are numbers, the oldest first. None: fewer than two are."""
    numbers = [value.number for value in values][::-1]
    if sum(number is not None for number in numbers) < 2:  # noqa: PLR2004
        return None
    names = [f"version {row.version}" for row in reversed(rows)]
    return plot("Value", numbers, names, "{:,.6g}".format, "{:,.15g}".format)


ROUTES: list[BaseRoute] = [Route(f"{DATASET}/value", show)]
