"""How committed snapshots are stored anew: each alone, or a run of them as differences from bases.

The rows of a log with the same base are neighbours, but for rows without one: what unlinks bases relies on
that. So a run of rows without a base may use the base of the rows before it, and then bases of its own. But
between two rows with the same base it may use only this one. A base of its own is the content of a row of the
run, under the name that this row's publish would have given it. So if the rows after the run have a base of
that name, it is this content, and the rest of the run uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from swapstore.errors import Corrupt, Damaged
from swapstore.format import bases, encodings, records
from swapstore.format.encodings import Dictionary, Encoded, InForce
from swapstore.format.keys import base_name, is_of_group
from swapstore.protocol.load import load_base
from swapstore.protocol.operation import Operation

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from swapstore.models import Row
    from swapstore.protocol.context import Context


@attrs.frozen
class Stored:
    """A committed snapshot: its row, its id record, its payload, and how the record holds it."""

    row: Row
    record: bytes = attrs.field(repr=False)
    payload: bytes = attrs.field(repr=False)
    encoded: Encoded

    @property
    def header(self) -> bytes:
        """The header line of the record, newline included."""
        return self.record[: self.record.index(b"\n") + 1]

    def anew(self, encoded: Encoded) -> bytes:
        """Return the record that holds the payload in another encoding."""
        return records.id_header(self.row, encoded.encoding, encoded.base) + encoded.body


def decoded(ctx: Context, dataset: str, row: Row, record: bytes | None) -> Operation[Stored]:
    """Decode the id record of a row, and its base if it needs one. Raises `Damaged`."""
    key = ctx.keys.id(dataset, row.id)
    held = records.held(record, row, key)
    if record is None or held.base not in {None, row.base}:
        raise Corrupt(f"{key} needs a base that its row does not name", key=key)
    base = None
    if held.base is not None:
        base = yield from load_base(ctx, dataset, held.base)
    return Stored(row, record, held.payload(base), Encoded(held.body, held.encoding, held.base))


@attrs.frozen
class Chain:
    """The base that the next snapshot of a run may be stored against, and what those before it cost."""

    base: Dictionary
    in_force: InForce


@attrs.frozen
class Plan:
    """How snapshots are to be stored, by version; those that stay as they are, are left out.

    `brought`: the records of new bases, by name. `chain`: where the rows after them go on.
    """

    encoded: Mapping[int, Encoded] = attrs.field(factory=dict, repr=False)
    brought: Mapping[str, bytes] = attrs.field(factory=dict, repr=False)
    chain: Chain | None = None

    @property
    def needed(self) -> set[str]:
        """The names of the bases that the new records need."""
        return {each.base for each in self.encoded.values() if each.base is not None}

    def saves(self, stored: Sequence[Stored], *, goes_on: bool) -> bool:
        """Whether everything takes fewer bytes. `goes_on`: rows after these may use the last base, too."""
        was = sum(each.encoded.cost for each in stored if each.row.version in self.encoded)
        brought = [len(record) for record in self.brought.values()]
        return (
            sum(each.cost for each in self.encoded.values()) + sum(brought[:-1] if goes_on else brought) < was
        )


def alone(stored: Sequence[Stored], *, compress: bool, text_only: bool) -> Plan:
    """Plan to store snapshots without a base; `compress`: with zstd, where that is smaller."""
    encoded: dict[int, Encoded] = {}
    for each in stored:
        form = encodings.compressed(each.payload, text_only=text_only) if compress else None
        form = form or encodings.plain(each.payload, text_only=text_only)
        was = each.encoded
        if was.base is not None or (form.cost < was.cost if compress else form.encoding != was.encoding):
            encoded[each.row.version] = form
    return Plan(encoded)


class Deltas:
    """Plans to store a run of the log as differences from bases.

    `rows`: the run, with rows that have a base among them. `stored`: those that have none and can be read.
    `before` and `after`: the bases of the nearest rows around the run that have one; if there is none after
    it, the base in force. `chain`: where the run before this one has ended. `lost`: bases that are not to be
    used.
    """

    def __init__(
        self,
        ctx: Context,
        dataset: str,
        rows: Sequence[Row],
        stored: Sequence[Stored],
        *,
        before: str | None,
        after: str | None,
        chain: Chain | None,
        lost: Collection[str],
    ) -> None:
        self._ctx = ctx
        self._dataset = dataset
        self._rows = rows
        self._stored = {each.row.version: each for each in stored}
        self._before = before
        self._after = after
        self._given = chain
        self._lost = lost
        self._chain: Chain | None = None
        self._encoded: dict[int, Encoded] = {}
        self._brought: dict[str, bytes] = {}

    def plan(self, *, bring: bool) -> Operation[Plan]:
        """Plan it; `bring`: with new bases where they pay."""
        self._encoded, self._brought, self._chain = {}, {}, self._given
        name = self._before
        for row, after in zip(self._rows, self._bases_after(), strict=True):
            stored = self._stored.get(row.version)
            if row.base is not None:
                name = row.base
            elif stored is not None:
                yield from self._go_on_from(name)
                form = yield from self._form(stored, after, bring=bring and (name is None or name != after))
                if form.cost < stored.encoded.cost:
                    self._encoded[row.version] = form
                    name = form.base or name
        return Plan(self._encoded, self._brought, self._chain)

    def _bases_after(self) -> list[str | None]:
        """Return, for each row, the base of the first row after it that has one."""
        found, after = [], self._after
        for row in reversed(self._rows):
            found.append(after)
            after = row.base or after
        return found[::-1]

    def _go_on_from(self, name: str | None) -> Operation[None]:
        """Let the chain be that of the base of the row before. None: it has none, or it is lost."""
        if self._chain is not None and self._chain.base.name == name:
            return
        self._chain = None
        base = None if name is None or is_of_group(name) else (yield from self._load(name))
        if base is not None:
            size = len(encodings.base_content(base.content, text_only=self._ctx.policy.text_only).body)
            self._chain = Chain(base, InForce(base.name, size, 0, 0, 0))

    def _load(self, name: str) -> Operation[Dictionary | None]:
        if name in self._lost:
            return None
        try:
            return (yield from load_base(self._ctx, self._dataset, name))
        except Damaged:
            return None

    def _form(self, stored: Stored, after: str | None, *, bring: bool) -> Operation[Encoded]:
        """Return how one snapshot takes the fewest bytes, and note what that is for the next one."""
        text_only = self._ctx.policy.text_only
        chain = self._chain
        form = encodings.compressed(stored.payload, chain.base if chain else None, text_only=text_only)
        size = len(form.body)
        is_due = bring and encodings.is_due(chain.in_force if chain else None, size)
        if is_due and encodings.may_be_base(stored.payload):
            return (yield from self._with_own_base(stored, after)) or form
        if chain is not None:
            self._chain = Chain(chain.base, chain.in_force.then(size))
        return form

    def _with_own_base(self, stored: Stored, after: str | None) -> Operation[Encoded | None]:
        """Return how a snapshot is stored that is the new base. None: that does not make it smaller."""
        row, text_only = stored.row, self._ctx.policy.text_only
        base: Dictionary | None = Dictionary(base_name(row.version, row.sha256), stored.payload)
        if base is not None and base.name == after:
            base = yield from self._load(after)  # it has to be there, and need not be brought
        if base is None:
            return None
        form = encodings.compressed(stored.payload, base, text_only=text_only)
        if form.base is None or form.cost >= stored.encoded.cost:
            return None
        content = encodings.base_content(base.content, text_only=text_only)
        if base.name != after:
            self._brought[base.name] = bases.pack(
                base.name, content, size=row.size, sha256=row.sha256, dataset=self._dataset
            )
        self._chain = Chain(base, InForce.begun(base.name, content, form))
        return form
