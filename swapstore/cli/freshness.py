"""`swapstore status`: how datasets are, and whether their producers still run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated

from cyclopts import Parameter

from swapstore.cli import human
from swapstore.cli.arguments import to_duration
from swapstore.cli.complaint import complain
from swapstore.cli.session import Here, Session, status_of
from swapstore.cli.status import each_dataset, print_status
from swapstore.models import Status

STALE = 6

Which = Annotated[
    str | None,
    Parameter(help="The dataset's name. Unless given: every dataset that has something published."),
]


def status(
    dataset: Which = None,
    /,
    *,
    max_age: Annotated[
        timedelta | None,
        Parameter(
            converter=to_duration,
            help="Exit with 6 if no producer published or confirmed within this time: 90d, 12h, 30m, 45s.",
        ),
    ] = None,
    session: Here,
) -> None:
    """Print how a dataset is: its versions, what is served, and how old that is.

    With --max-age, whether the producer still runs. The exit code is 6 if it
    last published or confirmed longer ago, 1 if nothing is published, 4 if the
    store is unavailable. How old the data itself is, by its ts, does not count.
    """
    looked_at = each_dataset(session) if dataset is None else _one(session, dataset)
    stale = [each.dataset for each in looked_at if _is_stale(each, max_age)]
    if stale:  # a dataset that is damaged has raised by now: that is worse
        sys.stdout.flush()  # a reader that went away is noticed here, not while the interpreter exits
        sys.exit(STALE)


def _one(session: Session, dataset: str) -> Iterator[Status]:
    with session.connect() as store:
        found = status_of(store, dataset)
    print_status(session, found)
    yield found


def _is_stale(status: Status, max_age: timedelta | None) -> bool:
    """Say whether, and tell the person or the log how much."""
    if max_age is None or timedelta(milliseconds=status.confirmed_age_ms) <= max_age:
        return False
    heard = human.age(status.confirmed_at, status.read_at)
    allowed = human.duration(max_age // timedelta(milliseconds=1))
    complain(
        f"dataset {status.dataset!r}: stale: last published or confirmed {heard}, and {allowed} is allowed"
    )
    return True
