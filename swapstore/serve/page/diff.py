"""What changed between two versions of a dataset: as a list, or side by side."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import attrs
import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

import swapstore
from swapstore.changes import KINDS, Change, Diff
from swapstore.errors import InvalidInput
from swapstore.models import Row, Snapshot
from swapstore.serve.api.reads import pair, whole
from swapstore.serve.heavy import in_thread
from swapstore.serve.page.rendering import html, is_partial
from swapstore.serve.paths import DATASET
from swapstore.serve.site import Site, site_of

CHANGES_A_PAGE = 100
SHORT = 160  # characters of a value that are shown at once
LONG = 20_000  # characters of a value that are shown at all: the snapshot's page has the rest
CHOICES = 50  # versions to choose from
KEPT_DIFFS = 4

Look = Literal["list", "side"]

_kept: OrderedDict[tuple[str, str], Diff] = OrderedDict()


@attrs.frozen
class Shown:
    """A value as JSON text: on one line, and, if it does not fit there, on many."""

    line: str
    block: str | None = None
    is_cut: bool = False

    @classmethod
    def of(cls, value: Any) -> Shown:
        """Return how to show a value."""
        text = msgspec.json.encode(value)
        if len(text) <= SHORT:
            return cls(text.decode())
        block = msgspec.json.format(text, indent=2).decode() if len(text) <= 4 * LONG else text.decode()
        return cls(text[:SHORT].decode("utf-8", "ignore") + "…", block[:LONG], len(block) > LONG)


@attrs.frozen
class ShownChange:
    """A change with its values as text. None: there is no value on that side."""

    change: Change
    before: Shown | None
    after: Shown | None

    @classmethod
    def of(cls, change: Change) -> ShownChange:
        """Return how to show a change."""
        return cls(
            change,
            Shown.of(change.before) if change.kind in {"removed", "changed"} else None,
            Shown.of(change.after) if change.kind in {"added", "changed"} else None,
        )

    @property
    def item(self) -> str:
        """The item of a list that it is in, in words."""
        return ", ".join(f"{field} {value}" for field, value in (self.change.item or {}).items())


async def show_diff(request: Request) -> Response:
    """Show what changed between two versions, or, for `offset`, more of it."""
    site, name, query = site_of(request), request.path_params["name"], request.query_params
    old, new = await pair(site, name, whole(request, "from"), whole(request, "to"))
    look: Look = "side" if query.get("look") == "side" else "list"
    kind, below = query.get("kind"), query.get("below", "")
    if kind is not None and kind not in KINDS:
        raise InvalidInput(f"kind must be one of {', '.join(KINDS)}, not {kind[:40]!r}")
    found = await in_thread(compared, old, new)
    wanted = await in_thread(_selected, found, kind, below)
    offset = whole(request, "offset") or 0
    shown = await in_thread(_shown, wanted[offset : offset + CHANGES_A_PAGE])
    more = offset + CHANGES_A_PAGE
    return html(
        request,
        "changes.html" if is_partial(request) else "diff.html",
        title=f"{name}: {old.version} → {new.version}",
        name=name,
        old=old,
        new=new,
        look=look,
        kind=kind,
        below=below,
        found=found,
        wanted=len(wanted),
        changes=shown,
        offset=offset,
        more=more if more < len(wanted) else None,
        versions=[] if is_partial(request) else await _choices(site, name, old, new),
    )


def compared(old: Snapshot, new: Snapshot) -> Diff:
    """Compare two snapshots. The last few results are kept, for the next page of changes."""
    key = (f"{old.sha256} {old.codec}", f"{new.sha256} {new.codec}")
    found = _kept.pop(key, None)  # it goes to the end; another thread may do the same
    if found is None:
        found = swapstore.diff(old, new)
    _kept[key] = found
    while len(_kept) > KEPT_DIFFS:
        _kept.popitem(last=False)
    return found


def _selected(found: Diff, kind: str | None, below: str) -> Sequence[Change]:
    """Return the changes of a kind, at a pointer or below it."""
    return [
        each
        for each in found.changes
        if kind in {None, each.kind}
        and (not below or each.pointer == below or each.pointer.startswith(f"{below.rstrip('/')}/"))
    ]


def _shown(changes: Sequence[Change]) -> list[ShownChange]:
    return list(map(ShownChange.of, changes))


async def _choices(site: Site, name: str, *chosen: Snapshot) -> list[Row | Snapshot]:
    """Return versions to choose from: the newest, and those that are shown."""
    rows: list[Row | Snapshot] = [row async for row in site.store.history(name, limit=CHOICES)]
    there = {row.version for row in rows}
    return rows + [each for each in _once(chosen) if each.version not in there]


def _once(chosen: Sequence[Snapshot]) -> Iterator[Snapshot]:
    """Yield each version once, the newest first."""
    yield from {each.version: each for each in sorted(chosen, key=lambda each: -each.version)}.values()


ROUTES: list[BaseRoute] = [Route(f"{DATASET}/diff", show_diff)]
