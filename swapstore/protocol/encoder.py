"""The encoder of one publish: how its payload is stored, and whether it brings a new base.

A delta is made against the base in force in the manifest that the draft is built on. After a conflict that
may be another base, or the payload may be worth a base of its own under another version: so the encoder is
asked for each draft, and remembers what it has compressed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from swapstore.errors import Damaged
from swapstore.format import bases, encodings
from swapstore.format.encodings import Dictionary, Encoded, InForce
from swapstore.format.keys import base_name, is_of_group
from swapstore.protocol.load import load_base
from swapstore.protocol.operation import Operation
from swapstore.structs import Struct

if TYPE_CHECKING:
    from swapstore.format.encodings import Encoding
    from swapstore.format.manifest import Manifest
    from swapstore.protocol.commit import Record
    from swapstore.protocol.context import Context


class Form(Struct, frozen=True):
    """How a snapshot is stored in the next version.

    `in_force`: the base in force from then on. `brought`: the name and the record of the base that it brings,
    if it does. `members`: the records of a group's members, and what these are stored against. `delta_of`:
    the base that the snapshot, or one of its members, is stored against.
    """

    encoded: Encoded
    in_force: InForce | None = None
    brought: tuple[tuple[str, bytes], ...] = ()
    members: tuple[Record, ...] = ()
    delta_of: str | None = None


class Encoder:
    """Encodes the payload of one publish, once for each base.

    `adopted`: the encoding and the base with which a record that is there already holds it.
    """

    _of_group = False

    def __init__(
        self,
        ctx: Context,
        dataset: str,
        payload: bytes,
        sha256: str,
        *,
        adopted: tuple[Encoding | None, str | None] | None = None,
    ) -> None:
        self.adopted = adopted
        self._ctx = ctx
        self._dataset = dataset
        self._payload = payload
        self._sha256 = sha256
        self._text_only = ctx.policy.text_only
        self._encoded: dict[str | None, Encoded] = {}
        self._content: Encoded | None = None  # as a base
        self._lost: set[str] = set()  # the keys of bases that are not to be used

    def adopting(self, held: tuple[Encoding | None, str | None]) -> Encoder:
        """Return an encoder of the same payload, for a record that is there already."""
        return Encoder(self._ctx, self._dataset, self._payload, self._sha256, adopted=held)

    def lose(self, key: str) -> None:
        """Note that the base under this key is gone, or may expire, although it is in force."""
        name = self._ctx.keys.parse(key)
        self._lost.add(key if name is None else self._ctx.keys.base(self._dataset, name.rest))
        self._ctx.cache.forget_base(key)

    def form(self, current: Manifest | None) -> Operation[Form]:
        """Return how the payload is stored in the version after `current`."""
        in_force = current.log.base if current else None
        if self.adopted is not None:
            adopted = yield from self._as_adopted(self.adopted, in_force)
            if adopted is not None:
                return Form(adopted, delta_of=adopted.base)
        compression = self._ctx.policy.compression
        if compression == "none":
            return Form(encodings.plain(self._payload, text_only=self._text_only))
        if compression == "zstd":
            return Form(self._compressed(None))
        base = yield from self._load(in_force)
        encoded = self._compressed(base)
        size = len(encoded.body)
        if encodings.may_be_base(self._payload) and encodings.is_due(in_force if base else None, size):
            return self._with_own_base(current.version + 1 if current else 1)
        return Form(encoded, in_force.then(size) if in_force and base else None, delta_of=encoded.base)

    def _as_adopted(
        self, held: tuple[Encoding | None, str | None], in_force: InForce | None
    ) -> Operation[Encoded | None]:
        """Return the payload as the record holds it that is there already. None: its base is not in force."""
        encoding, name = held
        is_in_force = in_force is not None and name == in_force.name  # the one before may be unlinked
        base = (yield from self._load(in_force)) if is_in_force else None
        if name is not None and base is None:
            return None
        return encodings.encoded_as(self._payload, encoding, base)

    def _load(self, in_force: InForce | None) -> Operation[Dictionary | None]:
        """Return the base in force. None: there is none, or it is lost; then this publish brings another."""
        if in_force is None or is_of_group(in_force.name) != self._of_group:
            return None
        if self._ctx.keys.base(self._dataset, in_force.name) in self._lost:
            return None
        try:
            return (yield from load_base(self._ctx, self._dataset, in_force.name))
        except Damaged:
            return None

    def _compressed(self, base: Dictionary | None) -> Encoded:
        name = base.name if base else None
        if name not in self._encoded:
            self._encoded[name] = encodings.compressed(self._payload, base, text_only=self._text_only)
        return self._encoded[name]

    def _with_own_base(self, version: int) -> Form:
        """Return the form of a snapshot that brings itself as the new base."""
        name = base_name(version, self._sha256, of_group=self._of_group)
        base = Dictionary(name, self._payload)
        self._content = self._content or encodings.base_content(self._payload, text_only=self._text_only)
        record = bases.pack(
            name, self._content, size=len(self._payload), sha256=self._sha256, dataset=self._dataset
        )
        encoded = self._compressed(base)
        key = self._ctx.keys.base(self._dataset, name)
        self._ctx.cache.keep_base(key, base, compressing=True)
        begun = InForce.begun(name, self._content, encoded)
        return Form(encoded, begun, ((name, record),), delta_of=encoded.base)
