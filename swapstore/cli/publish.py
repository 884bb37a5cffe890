"""`swapstore publish`: bytes from a file or a pipe become the next snapshot, verbatim."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, BinaryIO, Literal

import msgspec
from cyclopts import Parameter

from swapstore.cli import human
from swapstore.cli.arguments import Dataset, MaxAge, MaxCount, Moment, retention_of, to_moment, to_whole
from swapstore.cli.output import emit_json
from swapstore.cli.session import Here
from swapstore.connect import DEFAULT_MAX_PAYLOAD
from swapstore.errors import InvalidInput, PayloadTooLarge
from swapstore.models import Commit

STDIN = "<stdin>"  # a lone dash looks like an option to the parser, so it is handed this


def publish(
    dataset: Dataset,
    file: Annotated[
        str, Parameter(show_default=False, help="What to publish. Unless given, or if it is -: stdin.")
    ] = STDIN,
    /,
    *,
    codec: Annotated[
        Literal["json", "bytes"],
        Parameter(help="json: the text is checked and stored as it is. bytes: anything."),
    ] = "json",
    snapshot_id: Annotated[
        str | None,
        Parameter(
            name="--id", help="Names this content for ever, so that a retry is safe. Unless given: made."
        ),
    ] = None,
    ts: Annotated[
        Moment | None,
        Parameter(
            converter=to_moment,
            help="The moment the data describes: ms since 1970, or ISO 8601 with an offset. "
            "Unless given: now.",
        ),
    ] = None,
    label: Annotated[
        list[str] | None, Parameter(negative="", help="KEY=VALUE, kept beside the payload; may be repeated.")
    ] = None,
    dedupe_key: Annotated[
        str | None,
        Parameter(
            help="A second publish with this key, among the last 32 or more, returns the first one's commit."
        ),
    ] = None,
    expected_version: Annotated[
        int | None,
        Parameter(
            converter=to_whole, help="Publish only if the latest is still this version; 0: if there is none."
        ),
    ] = None,
    max_age: MaxAge = None,
    max_count: MaxCount = None,
    session: Here,
) -> None:
    """Publish a file, or what is piped in, as the next snapshot, and print the commit.

    Readers see it whole or not at all. Whatever goes wrong, the previous version stays.
    """
    labels = _labels(label or [])
    retention = retention_of(max_age, max_count)
    payload = _payload(file)
    with session.connect(retention=retention) as store:
        commit = store.publish(
            dataset,
            msgspec.Raw(payload) if codec == "json" else payload,
            id=snapshot_id,
            ts=ts,
            labels=labels,
            dedupe_key=dedupe_key,
            expected_version=expected_version,
            codec=codec,
        )
    if session.for_a_person:
        _show(commit, by_key=dedupe_key is not None and commit.id != snapshot_id)
    else:
        emit_json(commit)


def _labels(pairs: Sequence[str]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise InvalidInput(f"--label {pair!r} is not KEY=VALUE")
        if key in labels:
            raise InvalidInput(f"--label {key!r} is given twice")
        labels[key] = value
    return labels


def _payload(name: str) -> bytes:
    try:
        if name != STDIN:
            with Path(name).open("rb") as stream:
                return _read(stream, name)
        if sys.stdin is None:
            raise InvalidInput("stdin is closed; name a FILE to publish")
        if sys.stdin.isatty():
            print("swapstore: reading from the terminal; end with Ctrl-D", file=sys.stderr)
        return _read(sys.stdin.buffer, STDIN)
    except OSError as error:
        raise InvalidInput(f"cannot read {name!r}: {error.strerror}") from error


def _read(stream: BinaryIO, name: str) -> bytes:
    """Read all of it, but no more than can be published: a pipe may have no end."""
    payload = stream.read(DEFAULT_MAX_PAYLOAD + 1)
    if len(payload) > DEFAULT_MAX_PAYLOAD:
        raise PayloadTooLarge(
            f"{name} holds more than {DEFAULT_MAX_PAYLOAD:,} bytes, which is the most that can be published",
            limit_bytes=DEFAULT_MAX_PAYLOAD,
        )
    return payload


def _show(commit: Commit, *, by_key: bool) -> None:
    from swapstore.cli.tables import show_facts  # noqa: PLC0415 - only a person waits for rich

    before = "a publish with this dedupe key" if by_key else "this content, under this id"
    show_facts(
        {
            "dataset": commit.dataset,
            "version": str(commit.version),
            "id": commit.id,
            "ts": human.instant(commit.ts),
            "size": f"{commit.size:,} bytes",
            "committed": "now" if commit.created else f"before: {before}",
            "latest": "yes" if commit.is_latest else "no",
        }
    )
