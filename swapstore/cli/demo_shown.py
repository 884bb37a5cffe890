"""The demo as a person sees it: progress while it works, then two tables and a sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.cli import human
from swapstore.cli.demo import REGION, Cut, Publish
from swapstore.cli.tables import console, say, show_rows, suggest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swapstore.cli.session import Session


def show(session: Session, facts: Iterator[Publish | Cut]) -> list[str]:
    """Show the demo, and return what was not whole."""
    publishes: list[Publish] = []
    cuts: list[Cut] = []
    with console().status("publishing") as progress:
        for fact in facts:
            if isinstance(fact, Publish):
                publishes.append(fact)
                progress.update(f"published {fact.dataset}")
            else:
                cuts.append(fact)
                progress.update(f"cut short after {fact.commands} commands")
    _show_publishes(session, publishes)
    _show_cuts(cuts)
    faults = [cut.fault for cut in cuts if cut.fault is not None]
    if not faults:
        _conclude(session, cuts)
    return faults


def _show_publishes(session: Session, publishes: list[Publish]) -> None:
    with session.connect() as store:
        say(f"On {store.where}, in namespace {store.namespace!r}:")
    say()
    show_rows(
        ("dataset", "version", "id", "size"),
        ((fact.dataset, str(fact.version), fact.id, human.size(fact.size)) for fact in publishes),
        numbers=("version", "size"),
    )
    total_ms = sum(fact.ms for fact in publishes)
    say()
    say(f"{len(publishes)} snapshots published in {total_ms:,.0f} ms.")
    say(f"Then a publish of {REGION} was cut short after each of its commands in turn:")
    say()


def _show_cuts(cuts: list[Cut]) -> None:
    show_rows(
        ("commands", "the last one carried out", "a reader then sees", "id"),
        ((str(cut.commands), cut.last_command or "none", _seen(cut), cut.id or "") for cut in cuts),
        numbers=("commands",),
    )


def _seen(cut: Cut) -> str:
    return f"version {cut.version}, whole" if cut.whole else "NOT WHOLE"


def _conclude(session: Session, cuts: list[Cut]) -> None:
    *before, after = (cut.version for cut in cuts)
    say()
    if len(set(before)) == 1:
        when = f": version {before[0]} until the commit, version {after} after it"
    else:  # other producers committed meanwhile
        when = ", at every moment"
    say(f"However far the publish got, a reader saw one version of {REGION}, whole{when}.")
    say()
    say("Try next:")
    suggest(
        session.hint("history", REGION),
        session.hint("latest", REGION),
        session.hint("pin", REGION, "--id", str(cuts[0].id)),
    )
