"""What an operator runs to take datasets from one store to another: `swapstore copy`."""

from __future__ import annotations

import contextlib
import os
import re
from typing import TYPE_CHECKING, Annotated, Any

import attrs
from cyclopts import Parameter

import swapstore
from swapstore import figures
from swapstore.cli import output
from swapstore.cli.arguments import MaxAge, MaxCount, retention_of, to_seconds
from swapstore.cli.session import CurrentSession, Session
from swapstore.errors import Damaged, InvalidInput, Refused
from swapstore.models import Retention
from swapstore.reports import Copied, CopyStep
from swapstore.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FROM_ENVIRONMENT = "env:"
_TOKENS = ("https://", "http://")
_NUMBER = re.compile(r"[0-9]+")


def copy(
    source: Annotated[str, Parameter(name="SRC", help="The store to copy from: a URL, or env:NAME.")],
    target: Annotated[str, Parameter(name="DST", help="The store to copy to: a URL, or env:NAME.")],
    /,
    *datasets: Annotated[str, Parameter(name="DATASET", help="Copy only these datasets. Default: all.")],
    history: Annotated[
        str,
        Parameter(
            help="all; how many of the newest commits; or latest: the snapshot that the source serves."
        ),
    ] = "all",
    follow: Annotated[
        bool,
        Parameter(
            negative="",
            show_default=False,
            help="Go on with what is published, in new datasets too, until Ctrl-C.",
        ),
    ] = False,
    poll: Annotated[
        float,
        Parameter(converter=to_seconds, help="With --follow: seconds between two looks at the source."),
    ] = 2.0,
    to_namespace: Annotated[
        str | None, Parameter(help="The namespace in DST. Default: that of SRC, see --namespace.")
    ] = None,
    max_age: MaxAge = None,
    max_count: MaxCount = None,
    session: CurrentSession,
) -> None:
    """Copy datasets from one store to another: ids, times, labels, content, order.

    What is there already is left out, so it can be stopped and run again.
    env:NAME takes the URL from $NAME, and the token of a REST endpoint from
    $NAME_TOKEN, so that no password is on the command line. --max-age and
    --max-count bound the history in DST. A pin is copied with a dataset that DST
    has not yet, and never changed later.
    When piped: a line of JSON for each dataset; with --follow, for each snapshot.

    For example:
      swapstore copy redis://localhost:6379/0 sqlite:///backup.db
      swapstore copy env:STAGING env:PRODUCTION mena --history latest
      swapstore copy env:OLD env:NEW --follow
    """
    if session.url is not None:
        raise InvalidInput("copy takes two URLs, SRC and DST: leave --url out")
    retention = retention_of(max_age, max_count)
    to = session.namespace if to_namespace is None else to_namespace
    with (
        _store(session, source, "SRC", session.namespace) as reading,
        _store(session, target, "DST", to, retention) as writing,
    ):
        options = {"datasets": datasets or None, "history": _history(history), "follow": follow, "poll": poll}
        if follow:
            done = swapstore.copy(reading, writing, on_progress=_teller(session), **options)
        else:
            with _progress(session) as tell:
                done = swapstore.copy(reading, writing, on_progress=tell, **options)
            _print(session, done)
        _note_what_is_served(done)
    _raise_for(done)


# --- arguments -------------------------------------------------------------------------------------


def _store(
    session: Session, address: str, what: str, namespace: str, retention: Retention | None = None
) -> Store:
    name = address.removeprefix(FROM_ENVIRONMENT) if address.startswith(FROM_ENVIRONMENT) else ""
    url = os.environ.get(name, "") if name else address
    if not url:
        raise InvalidInput(f"{what} is {address}, and ${name} is not set" if name else f"{what} is empty")
    token = os.environ.get(f"{name}_TOKEN") if name and url.startswith(_TOKENS) else None
    try:
        return swapstore.connect(
            url,
            token=token,
            namespace=namespace,
            single_writer=session.single_writer,
            patience=session.patience,
            retention=retention,
        )
    except InvalidInput as error:
        raise InvalidInput(f"{what} cannot be used: {error}") from None


def _history(text: str) -> Any:
    """Return a number, or the word, which `copy` checks."""
    return int(text) if _NUMBER.fullmatch(text) else text


# --- what is printed -------------------------------------------------------------------------------


@contextlib.contextmanager
def _progress(session: Session) -> Iterator[Callable[[CopyStep], None] | None]:
    """Draw a progress bar on stderr, if that is a terminal."""
    if not session.shows_progress:
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn  # noqa: PLC0415

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=output.stderr_console(), transient=True) as bar:
        task = bar.add_task("comparing", total=None)

        def tell(step: CopyStep) -> None:
            name = output.printable(step.dataset)
            bar.update(task, description=name, completed=step.done, total=step.total)

        yield tell


def _teller(session: Session) -> Callable[[CopyStep], None]:
    """Return what prints each snapshot as it is copied."""

    def tell(step: CopyStep) -> None:
        if session.human_readable:
            print(_line(step), flush=True)
        else:
            output.write_json(step)

    return tell


def _line(step: CopyStep) -> str:
    words = [step.outcome, step.dataset, f"id {step.id}", figures.instant(step.ts), figures.size(step.size)]
    return output.printable("  ".join([*words, step.detail]).rstrip())


def _print(session: Session, done: list[Copied]) -> None:
    if not session.human_readable:
        for each in done:
            output.write_json(_plain(each))
        return
    output.print_table(
        ("dataset", "copied", "size", "there already", "skipped", "failed"),
        (
            (
                each.dataset,
                f"{each.copied:,}",
                figures.size(each.size),
                f"{each.already:,}",
                f"{each.skipped:,}",
                f"{each.failed:,}",
            )
            for each in done
        ),
        numbers=("copied", "size", "there already", "skipped", "failed"),
    )
    for each in done:
        for step in each.failures:
            output.print_text(f"{step.dataset}: {step.outcome}, id {step.id}: {step.detail}")
        if each.failed > len(each.failures):
            output.print_text(f"{each.dataset}: {each.failed - len(each.failures):,} more")
        if each.ended:
            is_told = any(step.detail == each.ended for step in each.failures)
            why = "" if is_told else f": {each.ended}"
            output.print_text(f"{each.dataset}: the rest of it is not copied{why}")


def _plain(done: Copied) -> dict[str, Any]:
    return {**attrs.asdict(done), "complete": done.complete}


def _note_what_is_served(done: list[Copied]) -> None:
    """Say on stderr what was pinned, and where the readers of both stores get different snapshots."""
    for each in done:
        if each.pinned:
            pin = f"is pinned to {each.target_serves} now, as SRC is"
            output.complain(f"dataset {each.dataset!r}: DST had none of it, and {pin}")
        if each.source_serves is not None and each.source_serves != each.target_serves:
            output.complain(
                f"dataset {each.dataset!r}: SRC serves {each.source_serves}, DST serves "
                f"{each.target_serves or 'nothing'}: DST has a pin or snapshots of its own, or SRC has a pin "
                "or a rollback, which is not copied into a dataset that is there. To serve the same, pin it "
                "in DST"
            )


def _raise_for(done: list[Copied]) -> None:
    incomplete = [each for each in done if not each.complete]
    if not incomplete:
        return
    names = ", ".join(each.dataset for each in incomplete)
    what = f"the rest is copied, but not all of {names}"
    conflicts = sum(step.outcome == "conflict" for each in incomplete for step in each.failures)
    ended = sum(bool(each.ended) for each in incomplete)
    if ended > conflicts or any(step.outcome == "damaged" for each in incomplete for step in each.failures):
        raise Damaged(f"{what}: something is damaged. See swapstore verify")
    raise Refused(f"{what}: DST has an id with other content, or refuses a snapshot")
