"""What a store holds of the explored dataset, and everything that is wrong with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from swapstore.errors import Damaged
from swapstore.format import manifest, pages, records
from tests.exploration.scenarios import D
from tests.support.bases import problems_of
from tests.support.explore import KEYS

if TYPE_CHECKING:
    from swapstore.format.manifest import Head
    from swapstore.models import Ref, Row
    from swapstore.testing import Keyspace


@attrs.define
class Contents:
    """The rows that are named, the header, and what contradicts the invariants of the protocol."""

    rows: list[Row] = attrs.field(factory=list)
    head: Head | None = None
    holes: bool = False
    problems: list[str] = attrs.field(factory=list)


def contents_of(keyspace: Keyspace, dataset: str = D) -> Contents:
    """Look at a dataset, damaged or not."""
    found = Contents()
    values = {key: value for key, value in keyspace.values.items() if f"{{{dataset}}}" in key}
    key = KEYS.manifest(dataset)
    reachable = {key}
    try:
        current = manifest.parse(values[key].data, dataset, key)
    except (KeyError, Damaged) as error:
        found.problems.append(f"no manifest: {error}")
        return found
    found.head = current.head
    ahead: list[Ref] = list(current.log.pages)
    while ahead:
        ref = ahead.pop(0)
        reachable.add(ref.key)
        try:
            page = pages.parse(values[ref.key].data, ref, dataset)
        except (KeyError, Damaged) as error:
            found.holes = True
            found.problems.append(f"{ref.key}: {error}")
            continue
        ahead[:0] = page.pages
        found.rows += page.rows
    found.rows += current.log.rows
    alive = (*found.rows, *current.head.kept)
    for row in alive:
        reachable |= _check_ts(keyspace, dataset, row, found)
    plain = {key: (value.data, value.expires_at is not None) for key, value in values.items()}
    wrong, bases = problems_of(plain, KEYS, dataset, current, alive)
    found.problems += wrong
    reachable |= bases
    _check_log(current, found)
    for key, value in values.items():
        if key in reachable and value.expires_at is not None:
            found.problems.append(f"{key} is committed and may expire")
        if key not in reachable and value.expires_at is None:
            found.problems.append(f"{key} leaks")
    return found


def _check_ts(keyspace: Keyspace, dataset: str, row: Row, found: Contents) -> set[str]:
    id_key, ts_key = KEYS.id(dataset, row.id), KEYS.ts(dataset, row.ts, row.id)
    ts_record = keyspace.values.get(ts_key)
    if ts_record is None or not records.states_ts(ts_record.data, row):
        found.problems.append(f"{ts_key} is not what version {row.version} names")
    elif (origin := records.origin_in(ts_record.data)) is None or origin.version > row.version:
        found.problems.append(f"{ts_key} was staged for another version than {row.version}")
    return {id_key, ts_key}


def _check_log(current: manifest.Manifest, found: Contents) -> None:
    versions = [row.version for row in found.rows]
    if versions != sorted(set(versions)) or (versions and versions[-1] > current.version):
        found.problems.append(f"versions are {versions} at {current.version}")
    if len({row.id for row in found.rows}) != len(found.rows):
        found.problems.append("an id has two rows")
    if current.head.count != len(found.rows) and not found.holes:
        found.problems.append(f"{current.head.count} are counted, {len(found.rows)} are there")
    shown = [row for row in found.rows if current.head.shows(row)]
    if shown and current.head.latest.ts < max(row.ts for row in shown):
        found.problems.append("latest is not the latest")
