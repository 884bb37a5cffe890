"""Common validators, for `validate=` of a publish and `validators=` of `connect`.

    from swapstore import validators

    store = swapstore.connect(validators=[validators.must_not_shrink(percent=20)])

Each gets the candidate and the latest snapshot (None: nothing is published, or its payload is lost). Their
reasons contain numbers and places in the value, never the data itself.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from swapstore import arguments
from swapstore.errors import InvalidInput
from swapstore.models import Validator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from jsonschema_rs import ValidationError

    from swapstore.models import Candidate, Snapshot

__all__ = ["Validator", "at_least", "json_schema", "must_be_newer", "must_not_shrink"]

FAULTS_NAMED = 3
LONGEST_PLACE = 100
LONGEST_RULE = 60
_UNCOUNTED = "its items cannot be counted: it is neither a list nor an object; publish it with count="


def json_schema(schema: dict[str, Any] | bool) -> Validator:  # noqa: FBT001 - a schema may be true or false
    """Reject values that a JSON Schema (a dict or a bool) does not allow.

    Supports drafts 4 to 2020-12, selected by `$schema` (default: 2020-12). The reason names the first three
    faults: the place in the value, as a JSON pointer, and the rule that it breaks. A value with another codec
    than JSON is rejected. A `$ref` must point into the schema: nothing is fetched.

    Needs the extra `jsonschema`. Raises `InvalidInput` at once, not at the first publish, if the extra is not
    installed or the schema is invalid.
    """
    try:
        import jsonschema_rs  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise InvalidInput("json_schema needs an extra: pip install 'swapstore[jsonschema]'") from error
    if not isinstance(schema, dict | bool):
        raise InvalidInput(f"a JSON Schema is a dict, or true or false, not a {type(schema).__name__}")
    try:
        compiled = jsonschema_rs.validator_for(schema, retriever=_fetch_nothing)
    except (ValueError, TypeError) as error:
        reason = str(getattr(error, "message", error)).strip().partition("\n")[0]
        raise InvalidInput(f"this is not a JSON Schema that can be used: {reason}") from error

    def validate(candidate: Candidate, _: Snapshot | None) -> str | None:
        if candidate.codec != "json":
            return f"it is published as {candidate.codec}, and a JSON Schema is for JSON"
        faults = list(islice(compiled.iter_errors(candidate.value), FAULTS_NAMED + 1))
        if not faults:
            return None
        described = [_describe(fault, schema) for fault in faults[:FAULTS_NAMED]]
        more = "; and more" if len(faults) > FAULTS_NAMED else ""
        return f"it does not match the JSON Schema: {'; '.join(described)}{more}"

    return validate


def at_least(number: int, *, of: Literal["items", "bytes"] = "items") -> Validator:
    """Reject a value of fewer than `number` items or bytes, the first one of a dataset too.

    `of="items"` takes the `count` that the publish names. Without one it counts the items of a list or
    object, and the members of a group, and rejects any other value. `of="bytes"` measures the encoded
    payload; of a group, its table of members. Raises `InvalidInput` for an invalid argument.
    """
    arguments.whole(number, "number", least=0)
    measure = _measure(of)

    def validate(candidate: Candidate, _: Snapshot | None) -> str | None:
        now = measure(candidate)
        if now is None:
            return _UNCOUNTED
        return None if now >= number else f"it has {now:,} {of}, and {number:,} or more are required"

    return validate


def must_not_shrink(*, percent: float, of: Literal["bytes", "items"] = "bytes") -> Validator:
    """Reject a value that is smaller than the latest snapshot by more than `percent` percent.

    `percent` is from 0 (must not shrink at all) to less than 100. `of="bytes"` measures the encoded payload.
    `of="items"` takes the `count` that the publish names; without one it counts the items of a list or
    object, and rejects any other value. If those of the latest snapshot cannot be counted, every count is
    accepted. Raises `InvalidInput` for an invalid argument.
    """
    if isinstance(percent, bool) or not isinstance(percent, int | float) or not 0 <= percent < 100:  # noqa: PLR2004
        raise InvalidInput(f"percent must be 0 or more and less than 100, not {arguments.shown(percent)}")
    measure = _measure(of)

    def validate(candidate: Candidate, previous: Snapshot | None) -> str | None:
        now = measure(candidate)
        if now is None:
            return _UNCOUNTED
        before = None if previous is None else measure(previous)
        if before is None or now * 100 >= before * (100 - percent):
            return None
        lost = 100 * (before - now) / before
        return (
            f"it shrinks from {before:,} to {now:,} {of}, by {lost:.1f} %, and may by {percent:g} %; "
            "if that is meant, publish it without this validator"
        )

    return validate


def must_be_newer() -> Validator:
    """Reject a `ts` that the producer set and that is not greater than the latest's, backfills included.

    A publish without a `ts` is accepted: it becomes the latest in any case.
    """

    def validate(candidate: Candidate, previous: Snapshot | None) -> str | None:
        if previous is None or candidate.ts_is_default or candidate.ts > previous.ts:
            return None
        return f"its ts {candidate.ts} is not newer than that of the latest, {previous.ts}"

    return validate


def _measure(of: Any) -> Callable[[Candidate | Snapshot], int | None]:
    if of not in {"bytes", "items"}:
        raise InvalidInput(f"of must be 'bytes' or 'items', not {arguments.shown(of)}")
    return _bytes if of == "bytes" else _items


def _bytes(one: Candidate | Snapshot) -> int:
    return one.size


def _items(one: Candidate | Snapshot) -> int | None:
    count = arguments.count_in(one.labels)
    if count is not None:
        return count
    return len(one.value) if isinstance(one.value, list | dict) else None


def _fetch_nothing(uri: str) -> Any:
    """Refuse to fetch a schema: a publish must not depend on another server."""
    raise ValueError(f"$ref to {uri}: schemas are not fetched; put it into $defs")


def _describe(fault: ValidationError, schema: Any) -> str:
    """Say where a value breaks which rule. It quotes the rule from the schema, and nothing from the value."""
    rule = _rule(fault.schema_path, schema)
    return f"{_clipped(_pointer(fault.instance_path), LONGEST_PLACE)} breaks {rule}"


def _rule(path: Iterable[str | int], schema: Any) -> str:
    """Name the rule at this path of the schema, and quote it."""
    keyword, rule = "the schema", schema
    try:
        for step in path:
            rule = rule[step]
            keyword = str(step)
    except (KeyError, IndexError, TypeError):  # behind a `$ref`, the path does not follow the schema
        return str(step)
    return f"{keyword} {_clipped(msgspec.json.encode(rule).decode(), LONGEST_RULE)}"


def _pointer(path: Iterable[str | int]) -> str:
    """Return a JSON pointer (RFC 6901), or words if it is empty: it points to the whole value."""
    steps = [str(step).replace("~", "~0").replace("/", "~1") for step in path]
    return "".join(f"/{step}" for step in steps) or "the value itself"


def _clipped(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}…"
