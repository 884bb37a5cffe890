"""`swapstore health`: whether datasets are there, fresh and large enough."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from swapstore import figures
from swapstore.cli import ExitCode, output
from swapstore.cli.arguments import pairs_of
from swapstore.cli.session import CurrentSession
from swapstore.errors import InvalidInput
from swapstore.health import Bound, Health, State

CODES: dict[State, ExitCode] = {
    "fresh": ExitCode.DONE,
    "stale": ExitCode.STALE,
    "too_small": ExitCode.STALE,
    "missing": ExitCode.NOT_FOUND,
    "damaged": ExitCode.DAMAGED,
    "unreachable": ExitCode.UNAVAILABLE,
    "misconfigured": ExitCode.MISCONFIGURED,
}


def health(
    *datasets: Annotated[
        str,
        Parameter(
            help="A dataset that must exist; with =AGE, how long ago a producer published or confirmed, at "
            "most: mena=12h (90d, 12h, 30m, 45s). Default: all datasets, none of which may be damaged."
        ),
    ],
    min_count: Annotated[
        list[str] | None,
        Parameter(help="NAME=NUMBER: the least count, see publish --count. May be repeated.", negative=""),
    ] = None,
    min_size: Annotated[
        list[str] | None,
        Parameter(help="NAME=BYTES: the least size of the payload. May be repeated.", negative=""),
    ] = None,
    session: CurrentSession,
) -> ExitCode:
    """Check whether datasets are there, fresh and large enough.

    Prints one report, whatever it finds; stderr says what is wrong. The exit
    code is that of the worst: 6 stale or too small, 1 nothing is published,
    5 damaged, 4 the store is unavailable, 8 it refuses this client.

    For example:
      swapstore health mena=12h europe=6h
      swapstore health mena=12h --min-count mena=100
    """
    bounds = bounds_of(datasets, min_count or (), min_size or ())
    with session.connect() as store:
        found, place = store.health(bounds), f"{store.where}, namespace {store.namespace!r}"
    if not session.human_readable:
        output.write_json(found.as_dict())
    elif found.datasets:
        _print(found)
    _complain(found, place)
    return CODES[found.state]


def bounds_of(
    datasets: Sequence[str], min_count: Sequence[str] = (), min_size: Sequence[str] = ()
) -> dict[str, Bound] | None:
    """Return the bound of each dataset that was named. None: none was."""
    ages: dict[str, str | None] = {}
    for each in datasets:
        name, separator, age = each.partition("=")
        if name in ages:
            raise InvalidInput(f"dataset {name!r} is given twice")
        ages[name] = age if separator else None
    counts = pairs_of("--min-count", "NAME=NUMBER", min_count)
    sizes = pairs_of("--min-size", "NAME=BYTES", min_size)
    found = {}
    for name in dict.fromkeys([*ages, *counts, *sizes]):
        try:
            found[name] = Bound(
                max_age=ages.get(name),
                min_count=_number("--min-count", counts.get(name)),
                min_size=_number("--min-size", sizes.get(name)),
            )
        except InvalidInput as error:
            error.dataset = name
            raise
    return found or None


def _number(option: str, text: str | None) -> int | None:
    if text is None or re.fullmatch("[0-9]{1,15}", text):
        return None if text is None else int(text)
    raise InvalidInput(f"{option}: {text!r} is not a whole number")


# --- what was found --------------------------------------------------------------------------------


def _complain(found: Health, place: str) -> None:
    """Say on stderr what is wrong. What several datasets have in common is one line: an outage is."""
    if found.error is not None:
        output.complain(str(found.error))
    elif not found.datasets:
        output.complain(f"nothing is published in {place}")
    said: dict[str, list[str]] = {}
    for name, each in found.datasets.items():
        if not each.ok:
            words = each.reason + (f" in {place}" if each.state == "missing" else "")
            said.setdefault(words, []).append(repr(name))
    for words, names in said.items():
        output.complain(f"dataset{'' if len(names) == 1 else 's'} {', '.join(names)}: {words}")


def _print(found: Health) -> None:
    output.print_table(
        ("dataset", "state", "confirmed", "allowed", "data", "count", "size", ""),
        (
            (
                each.dataset,
                each.state.replace("_", " "),
                _ago(each.confirmed_age_ms),
                "" if each.bound.max_age_ms is None else figures.duration(each.bound.max_age_ms),
                _ago(each.age_ms),
                "" if each.count is None else f"{each.count:,}",
                "" if each.size is None else figures.size(each.size),
                "pinned" if each.pinned else "",
            )
            for each in found.datasets.values()
        ),
        numbers=("count", "size"),
    )


def _ago(age_ms: int | None) -> str:
    return "" if age_ms is None else figures.age(0, age_ms)
