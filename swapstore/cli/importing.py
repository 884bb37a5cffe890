"""`swapstore import snapshots`: publish what the six-command layout holds, and report its damage."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from cyclopts import App, Parameter

from swapstore.cli import output
from swapstore.cli.session import CurrentSession, Session
from swapstore.errors import Damaged, InvalidInput, Refused
from swapstore.migration.layout import Layout
from swapstore.migration.plan import Fact, FaultKind, Planned, RegionDone, SourceFault, Tried

SOURCE_VARIABLE = "SWAPSTORE_IMPORT_FROM"
TOKEN_VARIABLE = "SWAPSTORE_IMPORT_TOKEN"  # noqa: S105 - a name
FINDINGS_PRINTED = 50

app = App(
    name="import",
    help="Import snapshots from another layout.",
    help_format="plaintext",
    version_flags=[],
)

_DEFAULT = Layout()


def _key(names: str, default: str) -> Parameter:
    return Parameter(show_default=False, help=f"{names} Default: {default}")


@app.default
def _nothing() -> None:
    """Ask what to import: `import` alone does nothing."""
    raise InvalidInput("import what? There is `swapstore import snapshots`; see swapstore import --help")


@app.command
def snapshots(
    *,
    source: Annotated[
        str | None,
        Parameter(
            name="--from",
            help=(
                "The source: redis://, rediss://, unix://, or https:// with the token in "
                f"${TOKEN_VARIABLE}. Default: ${SOURCE_VARIABLE}."
            ),
        ),
    ] = None,
    prefix: Annotated[
        str,
        Parameter(
            show_default=False, help="The beginning of all keys; a colon is added unless it ends in one."
        ),
    ] = "",
    region: Annotated[
        list[str] | None, Parameter(negative="", help="Import only this region; may be repeated.")
    ] = None,
    codec: Annotated[
        Literal["json", "bytes"],
        Parameter(help="json: what is not JSON is left out. bytes: everything is imported, as bytes."),
    ] = "json",
    latest_key: Annotated[
        str, _key("The key that holds the latest id.", _DEFAULT.latest_key)
    ] = _DEFAULT.latest_key,
    by_id_key: Annotated[
        str, _key("The key of a payload by its id.", _DEFAULT.by_id_key)
    ] = _DEFAULT.by_id_key,
    index_key: Annotated[
        str, _key("The key of a region's sorted set.", _DEFAULT.index_key)
    ] = _DEFAULT.index_key,
    by_ts_key: Annotated[
        str, _key("The key of a payload by its time.", _DEFAULT.by_ts_key)
    ] = _DEFAULT.by_ts_key,
    session: CurrentSession,
) -> None:
    """Publish every readable snapshot of the six-command layout, with its own id and time.

    A region becomes the dataset of its name. The source is only read. What is
    dangling, unindexed or unreadable there is reported.
    Run it again to import what is missing.

    For example:
      swapstore import snapshots --from redis://localhost:6379/0 --prefix intel
    """
    from swapstore.connect import source_of  # noqa: PLC0415
    from swapstore.migration.importer import import_snapshots  # noqa: PLC0415 - redis-py takes 0.1 s to import

    layout = Layout(
        prefix=prefix,
        latest_key=latest_key,
        by_id_key=by_id_key,
        index_key=index_key,
        by_ts_key=by_ts_key,
    )
    option = "--from" if source is not None else f"${SOURCE_VARIABLE}"
    address = source if source is not None else os.environ.get(SOURCE_VARIABLE)
    if not address:
        raise InvalidInput(
            f"where from? Give --from or ${SOURCE_VARIABLE}, for example redis://localhost:6379/0"
        )
    token = os.environ.get(TOKEN_VARIABLE) or None  # None: that of the store, if both are one endpoint
    with source_of(address, layout, token, option) as old, session.connect() as store:
        facts = _with_progress(session, import_snapshots(old, store, codec=codec, regions=region or ()))
        findings = _print(facts) if session.human_readable else _write(facts)
    session.say_where(store)
    _raise_for(findings, old.where)


def _raise_for(findings: Iterable[SourceFault], where: str) -> None:
    """Raise an error if something in the source was damaged, or refused by the store."""
    damaged = sum(finding.is_damage for finding in findings)
    refused = sum(finding.kind is FaultKind.REFUSED for finding in findings)
    if damaged:
        raise Damaged(
            f"the rest is imported, but {damaged} of the findings in {where} are damage: a payload that is "
            "gone, cannot be read or cannot be placed"
        )
    if refused:
        raise Refused(f"the rest is imported, but {refused} snapshots of {where} were refused")


def _with_progress(session: Session, facts: Iterator[Fact]) -> Iterator[Fact]:
    """Pass the facts on, with a progress bar on stderr."""
    if not session.shows_progress:
        yield from facts
        return
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=output.stderr_console(), transient=True) as bar:
        task = bar.add_task("reading the source", total=None)
        for fact in facts:
            if isinstance(fact, Planned):
                bar.update(task, total=fact.total, description="importing")
            elif isinstance(fact, Tried):
                bar.update(task, advance=1, description=output.printable(fact.dataset))
            yield fact


def _write(facts: Iterable[Fact]) -> list[SourceFault]:
    """Write findings and regions as JSON, and return the findings."""
    findings = []
    for fact in facts:
        if isinstance(fact, SourceFault | RegionDone):
            output.write_json(fact)
        if isinstance(fact, SourceFault):
            findings.append(fact)
    return findings


def _print(facts: Iterable[Fact]) -> list[SourceFault]:
    """Print the findings and a row for each region, and return the findings."""
    findings: list[SourceFault] = []
    regions: list[RegionDone] = []
    for fact in facts:
        if isinstance(fact, SourceFault):
            findings.append(fact)
        elif isinstance(fact, RegionDone):
            regions.append(fact)
    if findings:
        _print_findings(findings)
    output.print_table(
        ("dataset", "imported", "there already", "left out", "latest"),
        (
            (
                region.dataset,
                f"{region.created:,}",
                f"{region.already:,}",
                f"{region.left_out:,}",
                region.latest or "none",
            )
            for region in regions
        ),
        numbers=("imported", "there already", "left out"),
    )
    return findings


def _print_findings(findings: list[SourceFault]) -> None:
    for finding in findings[:FINDINGS_PRINTED]:
        output.print_text(f"{finding.kind}: {finding.key}")
        output.print_text(f"  {finding.detail}")
    counts = Counter(finding.kind for finding in findings)
    listed = ", ".join(f"{number:,} {kind}" for kind, number in counts.items())
    more = " The first ones are printed; with --json all are." if len(findings) > FINDINGS_PRINTED else ""
    output.print_text()
    output.print_text(f"Found: {listed}.{more}")
    output.print_text()
