"""`swapstore follow`: every commit as it comes."""

from __future__ import annotations

import logging
import select
import sys
import threading
from contextlib import suppress
from typing import Annotated

import attrs
from cyclopts import Parameter

from swapstore.cli import human
from swapstore.cli.arguments import Dataset, to_whole
from swapstore.cli.complaint import complain
from swapstore.cli.output import emit_json
from swapstore.cli.session import Here
from swapstore.errors import StoreClosed
from swapstore.models import Gap, Row
from swapstore.store import Store


class _Complaints(logging.Handler):
    """Says on stderr what the library logs, as the command says things."""

    def emit(self, record: logging.LogRecord) -> None:
        complain(record.getMessage())


def follow(
    dataset: Dataset,
    /,
    *,
    after: Annotated[
        int | None,
        Parameter(
            converter=to_whole,
            help="Begin after this version; 0: with the oldest there is. Unless given: with the next commit.",
        ),
    ] = None,
    session: Here,
) -> None:
    """Print every commit as it comes, in order, until Ctrl-C.

    When piped, a line of JSON each, at once; {"gap": …} where commits are lacking.
    """
    handler = _Complaints(logging.WARNING)
    logging.getLogger("swapstore").addHandler(handler)
    try:
        with session.connect() as store:
            commits = store.follow(dataset, after=after)
            gone = _watch_reader(store)
            with suppress(StoreClosed):  # by who watches, before the first
                for found in commits:
                    if session.for_a_person:
                        print(_line(found), flush=True)
                    else:
                        emit_json({"gap": attrs.asdict(found)} if isinstance(found, Gap) else found)
            if gone.is_set():
                raise BrokenPipeError
    finally:
        logging.getLogger("swapstore").removeHandler(handler)


def _watch_reader(store: Store) -> threading.Event:
    """Stop when nobody reads any more: a pipe tells who writes, and the next commit may be a day away."""
    gone = threading.Event()

    def watch() -> None:
        with suppress(OSError, ValueError):
            poll = select.poll()
            poll.register(sys.stdout.fileno(), 0)  # it hears of nothing but the end
            poll.poll()
            gone.set()
            store.close()

    if hasattr(select, "poll"):
        threading.Thread(target=watch, daemon=True).start()
    return gone


def _line(found: Row | Gap) -> str:
    if isinstance(found, Gap):
        if found.reason == "reset":
            return (
                f"gap: version {found.after} is not in the history any more; it goes on at {found.resumes_at}"
            )
        return f"gap: commits between version {found.after} and {found.resumes_at} are there no more"
    words = [
        human.instant(found.committed_at),
        f"version {found.version}",
        f"id {found.id}",
        human.size(found.size),
        human.labels(found.labels),
    ]
    return human.printable("  ".join(words).rstrip())
