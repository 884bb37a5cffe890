"""JSON documents of what calls return: the command prints them, and the HTTP API sends them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from swapstore.changes import Change
    from swapstore.models import Snapshot, Status

_OPTIONAL = {"encoding", "replicas", "nodes"}  # fields that are left out where they are None


def fields_of(value: Any) -> dict[str, Any]:
    """Return the fields of an attrs instance in their order; some of them only if it has one."""
    return attrs.asdict(value, filter=lambda field, each: field.name not in _OPTIONAL or each is not None)


def status(found: Status) -> dict[str, Any]:
    """Return the fields of a status, and the properties that are computed from them."""
    computed = {"bytes": found.bytes, "age_ms": found.age_ms, "confirmed_age_ms": found.confirmed_age_ms}
    return {**fields_of(found), "serving": fields_of(found.serving), **computed}


def snapshot(found: Snapshot) -> dict[str, Any]:
    """Return the fields of a snapshot, without its payload."""
    return attrs.asdict(found, filter=lambda field, _: field.name != "raw")


def change(found: Change) -> dict[str, Any]:
    """Return the attributes of a change, without those that it does not have; null is a value like others."""
    fields: dict[str, Any] = {"kind": found.kind, "pointer": found.pointer}
    if found.was is not None:
        fields["was"] = found.was
    if found.item is not None:
        fields["item"] = found.item
    if found.kind in {"removed", "changed"}:
        fields["before"] = found.before
    if found.kind in {"added", "changed"}:
        fields["after"] = found.after
    return fields
