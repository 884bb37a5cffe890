"""`swapstore import snapshots`: the old keys of a Redis become datasets, and a report of what was wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from cyclopts import App, Parameter

from swapstore.cli.output import emit_json
from swapstore.cli.session import Here, Session
from swapstore.errors import Damaged, InvalidInput, Refused
from swapstore.migration.layout import Layout
from swapstore.migration.plan import Fact, Finding, Kind, RegionDone

SOURCE_VARIABLE = "SWAPSTORE_IMPORT_FROM"

app = App(
    name="import",
    help="Bring snapshots over from another layout.",
    help_format="plaintext",
    version_flags=[],
)

_USUAL = Layout()


def _key(names: str, usual: str) -> Parameter:
    return Parameter(show_default=False, help=f"{names} Unless given: {usual}")


@app.default
def _nothing() -> None:
    """Say what can be imported: a command without a kind does nothing."""
    raise InvalidInput("import what? There is `swapstore import snapshots`; see swapstore import --help")


@app.command
def snapshots(
    *,
    source: Annotated[
        str | None,
        Parameter(
            name="--from",
            help=f"The source: redis://, rediss:// or unix://. Unless given: ${SOURCE_VARIABLE}.",
        ),
    ] = None,
    prefix: Annotated[
        str, Parameter(show_default=False, help="In front of all keys, with a colon between them.")
    ] = "",
    region: Annotated[
        list[str] | None, Parameter(negative="", help="Only this region; may be repeated.")
    ] = None,
    codec: Annotated[
        Literal["json", "bytes"],
        Parameter(help="json: what is not JSON is left out. bytes: everything goes in, as bytes."),
    ] = "json",
    latest_key: Annotated[
        str, _key("The key that holds the latest id.", _USUAL.latest_key)
    ] = _USUAL.latest_key,
    by_id_key: Annotated[str, _key("The key of a payload by its id.", _USUAL.by_id_key)] = _USUAL.by_id_key,
    index_key: Annotated[str, _key("The key of a region's sorted set.", _USUAL.index_key)] = _USUAL.index_key,
    by_ts_key: Annotated[str, _key("The key of a payload by its time.", _USUAL.by_ts_key)] = _USUAL.by_ts_key,
    session: Here,
) -> None:
    """Publish every readable snapshot of the six-command layout, with its own id and time.

    A region becomes the dataset of its name. The source is only read;
    what is dangling, unindexed or unreadable there is reported.
    Running it again takes up what is missing.
    """
    from swapstore.migration.importer import import_snapshots  # noqa: PLC0415 - redis-py takes 0.1 s to import
    from swapstore.migration.source import Source  # noqa: PLC0415

    layout = Layout(
        prefix=prefix,
        latest_key=latest_key,
        by_id_key=by_id_key,
        index_key=index_key,
        by_ts_key=by_ts_key,
    )
    address = source if source is not None else os.environ.get(SOURCE_VARIABLE)
    if not address:
        raise InvalidInput(
            f"where from? Give --from or ${SOURCE_VARIABLE}, for example redis://localhost:6379/0"
        )
    with Source.from_url(address, layout) as old, session.connect() as store:
        facts = _with_progress(session, import_snapshots(old, store, codec=codec, regions=region or ()))
        found = _show(facts) if session.for_a_person else _emit(facts)
    _judge(found, old.where)


def _judge(found: Iterable[Finding], where: str) -> None:
    """End with an exit code that says whether the source was sound."""
    damaged = sum(finding.is_damage for finding in found)
    refused = sum(finding.kind is Kind.REFUSED for finding in found)
    if damaged:
        raise Damaged(
            f"the rest is imported, but {damaged} of the findings in {where} are damage: a payload that is "
            "gone, cannot be read or cannot be placed"
        )
    if refused:
        raise Refused(f"the rest is imported, but {refused} snapshots of {where} were refused")


def _emit(facts: Iterable[Fact]) -> list[Finding]:
    found = []
    for fact in facts:
        if isinstance(fact, Finding | RegionDone):
            emit_json(fact)
        if isinstance(fact, Finding):
            found.append(fact)
    return found


def _show(facts: Iterable[Fact]) -> list[Finding]:
    from swapstore.cli.importing_shown import show  # noqa: PLC0415 - only a person waits for rich

    return show(facts)


def _with_progress(session: Session, facts: Iterator[Fact]) -> Iterable[Fact]:
    """Show a bar on stderr while the facts come, when a person looks there: stdout may be a file."""
    if session.json or not sys.stderr.isatty():
        return facts
    from swapstore.cli.importing_shown import progress  # noqa: PLC0415 - only a person waits for rich

    return progress(facts)
