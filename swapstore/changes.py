"""What changed between two snapshots, or two values: added, removed, changed and moved, by JSON pointer.

Theory of operation
===================

Equal parts get equal tokens, in one pass over both values (`_Tokens`). From then on two parts of any size are
compared by their tokens, and only parts that differ are looked into. Neither pass recurses, so the nesting of
a value is bounded by memory alone.

A token tells `1`, `1.0` and `true` apart, which `==` of Python does not: typed readers do. The order of an
object's fields makes no difference.

Items of two lists are matched before they are compared, or one insertion would change all that follows:

- lists of objects by a field that identifies them (`identifying_field`);
- other lists by equality, where an item is in each of them once. What is between two matched items is
  compared position by position. So is the whole list if that gives no more changes, as for a list of numbers
  whose meaning is their position.

If matched items are in another order, as few as possible of them are taken for moved (`_in_order`).
"""

from __future__ import annotations

import hashlib
import math
import re
import reprlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any, Literal

import attrs

from swapstore.arguments import shown
from swapstore.errors import InvalidInput
from swapstore.models import Candidate, LiveView, Snapshot

Kind = Literal["added", "removed", "changed", "moved"]
KINDS: tuple[Kind, ...] = ("added", "removed", "changed", "moved")


@attrs.frozen(kw_only=True)
class Change:
    """One difference between an old and a new value.

    `kind` is `added`, `removed`, `changed` or `moved`. `pointer` is the place in the new value, as a JSON
    pointer (RFC 6901); of what was removed, the place in the old value. `was` is the place in the old value
    if that is another one, because items of a list were inserted, removed or moved. `before` and `after` are
    the values there: what was added has no `before`, what was removed no `after`, what moved neither. A
    change inside an item that moved is listed by itself.

    `item` is the innermost item of a list around the change, if it was matched by a field: the name of that
    field and its value, as `{"id": "EG"}`.
    """

    kind: Kind
    pointer: str
    was: str | None = None
    item: dict[str, str | int] | None = None
    before: Any = attrs.field(default=None, repr=reprlib.repr)
    after: Any = attrs.field(default=None, repr=reprlib.repr)


@attrs.frozen
class Diff:
    """All changes from an old value to a new one, in the order of the document. False if there is none."""

    changes: tuple[Change, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changes)

    @property
    def counts(self) -> dict[str, int]:
        """The number of changes of each kind, 0 included."""
        found = Counter(change.kind for change in self.changes)
        return {kind: found[kind] for kind in KINDS}

    @property
    def summary(self) -> str:
        """The counts in words: `2 added, 14 changed`, or `no changes`."""
        return (
            ", ".join(f"{number:,} {kind}" for kind, number in self.counts.items() if number) or "no changes"
        )


def diff(a: Any, b: Any) -> Diff:
    """Return what changed from `a` to `b`.

    Each is a `Snapshot`, a `Candidate` or a `LiveView`, of which the payloads are compared, or a plain value:
    bytes, or what JSON can hold. `1`, `1.0` and `True` are three values. The order of an object's fields
    makes no difference.

    Items of lists are matched, so that an insertion is one change: objects by a field that identifies them in
    both lists, such as `id`, `code` or `name`, other items by equality. Bytes are compared as a whole:
    `before` or `after` is then their `codec`, `size` and `sha256`.

    Raises `InvalidInput` for a value that JSON cannot hold, with its place, and `Corrupt` if a codec cannot
    decode its payload.
    """
    if _are_same_payloads(a, b):
        return Diff()
    old, new = _value(a), _value(b)
    if isinstance(old, bytes) or isinstance(new, bytes):
        if isinstance(old, bytes) and old == new:
            return Diff()
        return Diff((Change(kind="changed", pointer="", before=_described(old), after=_described(new)),))
    return Diff(tuple(_changes(old, new)))


_Payload = Snapshot | Candidate | LiveView


def _are_same_payloads(a: Any, b: Any) -> bool:
    are_payloads = isinstance(a, _Payload) and isinstance(b, _Payload)
    return are_payloads and (a.codec, a.size, a.sha256) == (b.codec, b.size, b.sha256)


def _value(given: Any) -> Any:
    if isinstance(given, _Payload):
        return attrs.evolve(given).value  # not that of a read with `type=`, which may be any object
    return bytes(given) if isinstance(given, bytearray | memoryview) else given


def _described(value: Any) -> Any:
    """Return the attributes of bytes, and a JSON value as it is."""
    if isinstance(value, bytes):
        return {"codec": "bytes", "size": len(value), "sha256": hashlib.sha256(value).hexdigest()}
    _Tokens().of(value)
    return value


# --- places ------------------------------------------------------------------------------------------

_Item = dict[str, str | int] | None


@attrs.define(eq=False)
class _Place:
    """Where a part is in the old and in the new value: a chain, so that a deep part costs no long text."""

    above: _Place | None = None
    old: str | int = ""
    new: str | int = ""
    item: _Item = None
    _pointers: tuple[str, str] | None = None

    def part(self, old: str | int, new: str | int, item: _Item = None) -> _Place:
        """Return the place of a part of what is here."""
        return _Place(self, old, new, item or self.item)

    def changed(self, kind: Kind, before: Any = None, after: Any = None) -> Change:
        """Return the change of what is here."""
        old, new = self.above.pointers() if self.above else ("", "")
        if self.above:
            old, new = old + _step(self.old), new + _step(self.new)
        if kind == "removed":
            new = old
        was = old if kind == "moved" or (kind == "changed" and old != new) else None
        return Change(kind=kind, pointer=new, was=was, item=self.item, before=before, after=after)

    def pointers(self) -> tuple[str, str]:
        """Return the JSON pointers into the old and the new value. The parts of what is here share them."""
        chain: list[_Place] = []
        place: _Place | None = self
        while place is not None and place._pointers is None:  # noqa: SLF001 - of the same class
            chain.append(place)
            place = place.above
        old, new = ("", "") if place is None or place._pointers is None else place._pointers  # noqa: SLF001
        steps = [each for each in reversed(chain) if each.above]
        self._pointers = (
            old + "".join(_step(each.old) for each in steps),
            new + "".join(_step(each.new) for each in steps),
        )
        return self._pointers


def _step(key: str | int) -> str:
    """Return one step of a JSON pointer."""
    return f"/{key}" if isinstance(key, int) else "/" + key.replace("~", "~0").replace("/", "~1")


# --- equality ----------------------------------------------------------------------------------------

Token = Hashable
_OWN_TOKENS = frozenset({str, int, type(None)})  # no value of one of these types equals one of another
_CONTAINERS = (dict, list, tuple)


class _Tokens:
    """Tokens of values: equal for what is equal as JSON."""

    def __init__(self) -> None:
        self._by_contents: dict[Token, object] = {}
        self._by_id: dict[int, object] = {}  # of containers, which the caller keeps alive

    def differ(self, old: Any, new: Any) -> bool:
        """Return whether two values differ, or two parts of values that have been here."""
        if old is new:
            return False
        if type(old) is type(new) and type(old) in _OWN_TOKENS:
            return bool(old != new)
        return self.of(old) != self.of(new)

    def of(self, value: Any) -> Token:
        """Return the token of a value; of a part of one that has been here, at once.

        Raises `InvalidInput` for what JSON cannot hold, with its place.
        """
        # Containers, and where each is in the one around it. Those that are entered lead to the last one.
        todo: list[tuple[str | int, Any]] = [("", value)]
        entered: set[int] = set()
        try:
            if not isinstance(value, _CONTAINERS):
                return _of_leaf(value)
            while todo:
                container = todo[-1][1]
                number = id(container)
                if number in self._by_id:
                    todo.pop()
                    continue
                inner = [] if number in entered else self._without_token(container, entered)
                todo += inner
                if not inner:
                    self._by_id[number] = self._of_contents(container)
                    entered.remove(number)
        except _Fault as fault:
            around = [step for step, container in todo if id(container) in entered]
            where = "".join(map(_step, [*around, *fault.steps][1:]))
            at = f", at {shown(where)}" if where else ""
            raise InvalidInput(
                f"cannot compare {fault.what}{at}; give snapshots, bytes, or what JSON can hold: dict, list, "
                "str, int, float, bool and None"
            ) from None
        return self._by_id[id(value)]

    def _without_token(self, container: Any, entered: set[int]) -> list[tuple[str | int, Any]]:
        """Enter a container; return the containers in it that have no token yet, and where they are in it."""
        inner = [
            pair
            for pair in _parts(container)
            if isinstance(pair[1], _CONTAINERS) and id(pair[1]) not in self._by_id
        ]
        entered.add(id(container))
        for step, part in inner:
            if id(part) in entered:
                raise _Fault("a value that contains itself", step)
        return inner

    def _of_contents(self, container: Any) -> object:
        """Return the token of a container whose containers have theirs."""
        contents: Token
        if isinstance(container, dict):
            if not all(isinstance(key, str) for key in container):
                key = shown(next(key for key in container if not isinstance(key, str)))
                raise _Fault(f"an object with the key {key}, which is not a string")
            if _OWN_TOKENS.issuperset(map(type, container.values())):
                contents = frozenset(container.items())
            else:
                contents = frozenset([(key, self._of_part(key, part)) for key, part in container.items()])
        else:
            contents = tuple([self._of_part(place, part) for place, part in enumerate(container)])
        return self._by_contents.setdefault(contents, object())

    def _of_part(self, step: str | int, part: Any) -> Token:
        if type(part) in _OWN_TOKENS:
            return part  # type: ignore[no-any-return]
        if isinstance(part, _CONTAINERS):
            return self._by_id[id(part)]
        return _of_leaf(part, step)


class _Fault(Exception):  # noqa: N818 - it becomes an `InvalidInput`
    """What cannot be compared, and the last step to it, unless it is the container itself."""

    def __init__(self, what: str, *steps: str | int) -> None:
        super().__init__(what)
        self.what = what
        self.steps = steps


def _of_leaf(value: Any, *steps: str | int) -> Token:
    if value is None:
        return None
    if isinstance(value, bool):
        return (bool, value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, float):  # a whole one would equal an int, and NaN would not equal itself
        if math.isnan(value):
            return (float, "NaN")
        return (float, float(value)) if value.is_integer() else float(value)
    raise _Fault(f"a value of type {type(value).__name__}", *steps)


def _parts(container: Any) -> Iterable[tuple[Any, Any]]:
    return container.items() if isinstance(container, dict) else enumerate(container)


# --- the walk ----------------------------------------------------------------------------------------

_Pair = tuple[_Place, Any, Any]  # two parts that differ
_Step = Change | _Pair


def _changes(old: Any, new: Any) -> Iterator[Change]:
    """Yield every change, in the order of the document."""
    tokens = _Tokens()
    if not tokens.differ(old, new):
        return
    todo: list[Iterator[_Step]] = [iter([(_Place(), old, new)])]
    while todo:
        step = next(todo[-1], None)
        if step is None:
            todo.pop()
        elif isinstance(step, Change):
            yield step
        else:
            todo.append(_steps(tokens, *step))


def _steps(tokens: _Tokens, place: _Place, old: Any, new: Any) -> Iterator[_Step]:
    """Yield the changes of two parts that differ, and the pairs of their parts that differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        return _steps_of_objects(tokens, place, old, new)
    if isinstance(old, list | tuple) and isinstance(new, list | tuple):
        return _steps_of_lists(tokens, place, old, new)
    return iter([place.changed("changed", old, new)])


def _steps_of_objects(
    tokens: _Tokens, place: _Place, old: dict[str, Any], new: dict[str, Any]
) -> Iterator[_Step]:
    for key, part in old.items():
        if key not in new:
            yield place.part(key, key).changed("removed", before=part)
        elif tokens.differ(part, new[key]):
            yield (place.part(key, key), part, new[key])
    for key, part in new.items():
        if key not in old:
            yield place.part(key, key).changed("added", after=part)


def _steps_of_lists(
    tokens: _Tokens, place: _Place, old: Sequence[Any], new: Sequence[Any]
) -> Iterator[_Step]:
    field = identifying_field(old, new)
    if field is None:
        matching = _by_equality([tokens.of(each) for each in old], [tokens.of(each) for each in new])
    else:
        matching = _by_field(field, old, new)

    def part(was: int, at: int, row: Any) -> _Place:
        return place.part(was, at, None if field is None else {field: row[field]})

    for was, at in matching.places(len(old), len(new)):
        if was is not None and at is not None:
            if at in matching.moved:
                yield part(was, at, new[at]).changed("moved")
            if tokens.differ(old[was], new[at]):
                yield (part(was, at, new[at]), old[was], new[at])
        elif was is not None:
            yield part(was, was, old[was]).changed("removed", before=old[was])
        elif at is not None:
            yield part(at, at, new[at]).changed("added", after=new[at])


# --- lists -------------------------------------------------------------------------------------------

IDENTIFIERS = (  # the last word of a name of a field that identifies; those of one line are equally good
    {"id", "uuid", "guid", "uid", "key"},
    {"code", "iso", "slug", "symbol", "ticker", "url", "uri", "link"},
    {"name", "title", "label"},
    {"date", "day", "month", "year", "time", "timestamp", "ts"},
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


@attrs.frozen
class _Matching:
    """Which items of two lists are matched: by the place in the new list, the place in the old one."""

    matched: dict[int, int]
    moved: set[int] = attrs.field(factory=set)  # places in the new list

    def places(self, old_length: int, new_length: int) -> Iterator[tuple[int | None, int | None]]:
        """Yield the old and the new place of each item, in the order of the new list; None: there is none.

        What was removed follows what it followed in the old list.
        """
        kept = set(self.matched.values())
        stayed = kept - {self.matched[at] for at in self.moved}
        removed: dict[int, list[int]] = {}
        follows = -1
        for was in range(old_length):
            if was in stayed:
                follows = was
            elif was not in kept:
                removed.setdefault(follows, []).append(was)
        for gone in removed.get(-1, ()):
            yield (gone, None)
        for at in range(new_length):
            if at not in self.matched:
                yield (None, at)
                continue
            yield (self.matched[at], at)
            if at not in self.moved:
                for gone in removed.get(self.matched[at], ()):
                    yield (gone, None)


def identifying_field(old: Sequence[Any], new: Sequence[Any]) -> str | None:
    """Return the field by which the objects of two lists are matched; None: there is none.

    Every object of both lists has it, as a string or an int, and no two of one list have the same. Of several
    it is the one whose name ends with the best word of `IDENTIFIERS`; then the one whose name is that word
    alone; then the first one in the first object. A field without such a name must be a string, because an
    int may be anything, such as a rank or an amount.
    """
    if not (old and new and isinstance(old[0], dict)):
        return None
    fields: list[str] = sorted(old[0], key=_rank)
    for field in fields:
        kinds: set[type] = {str, int} if _rank(field)[0] < len(IDENTIFIERS) else {str}
        if _identifies(field, old, kinds) and _identifies(field, new, kinds):
            return field
    return None


def _rank(field: str) -> tuple[int, bool]:
    words = [word.lower() for word in _WORD.findall(field)]
    ranks = (rank for rank, names in enumerate(IDENTIFIERS) if words and words[-1] in names)
    return next(ranks, len(IDENTIFIERS)), len(words) > 1


def _identifies(field: str, rows: Sequence[Any], kinds: set[type]) -> bool:
    seen = set()
    for row in rows:
        value = row.get(field) if isinstance(row, dict) else None
        if type(value) not in kinds or value in seen:
            return False
        seen.add(value)
    return True


def _by_field(field: str, old: Sequence[Any], new: Sequence[Any]) -> _Matching:
    places = {row[field]: was for was, row in enumerate(old)}
    matched = {at: places[row[field]] for at, row in enumerate(new) if row[field] in places}
    return _Matching(matched, set(matched) - _in_order(matched))


def _by_equality(old: list[Token], new: list[Token]) -> _Matching:
    """Match what is equal and once in each list, and what is between by position; or all by position.

    A number, a bool or a null is not taken for moved: that it is elsewhere, too, says nothing.
    """
    counted = Counter(old), Counter(new)
    places = {token: was for was, token in enumerate(old) if counted[0][token] == 1}
    equal = {at: places[token] for at, token in enumerate(new) if counted[1][token] == 1 and token in places}
    stayed = _in_order(equal)
    moved = {at for at in equal if at not in stayed and type(new[at]) in (str, object)}
    matched = {at: equal[at] for at in moved}
    moved_from = set(matched.values())
    was_begin = at_begin = 0
    for was_end, at_end in [*((equal[at], at) for at in equal if at in stayed), (len(old), len(new))]:
        left = [was for was in range(was_begin, was_end) if was not in moved_from]
        right = [at for at in range(at_begin, at_end) if at not in moved]
        alike = _alike(old, left, new, right)
        both = min(len(left), len(right)) - alike
        matched.update(zip(right[:both], left[:both], strict=True))
        matched.update(zip(right[len(right) - alike :], left[len(left) - alike :], strict=True))
        was_begin, at_begin = was_end, at_end  # what stayed begins the next gap, and pairs with itself there
    by_position = {at: at for at in range(min(len(old), len(new)))}
    if _changes_of(by_position, old, new) <= _changes_of(matched, old, new) + len(moved):
        return _Matching(by_position)
    return _Matching(matched, moved)


def _alike(old: list[Token], left: list[int], new: list[Token], right: list[int]) -> int:
    """Return how many of the last items of two gaps are equal."""
    pairs = zip(reversed(left), reversed(right), strict=False)
    return next(
        (number for number, (was, at) in enumerate(pairs) if old[was] != new[at]), min(len(left), len(right))
    )


def _changes_of(matched: dict[int, int], old: list[Token], new: list[Token]) -> int:
    """Return how many items were added or removed, or are matched and differ."""
    differ = sum(old[was] != new[at] for at, was in matched.items())
    return differ + len(old) + len(new) - 2 * len(matched)


def _in_order(matched: dict[int, int]) -> set[int]:
    """Return the new places of the most items that are in the same order in both lists.

    `matched` is in the order of the new places. This is the longest increasing subsequence of the old ones.
    """
    ends: list[int] = []  # for each length, the smallest old place that a subsequence can end with
    chain: list[int] = []  # the new places of these
    before: dict[int, int | None] = {}
    for at, was in matched.items():
        length = bisect_left(ends, was)
        before[at] = chain[length - 1] if length else None
        ends[length : length + 1] = [was]
        chain[length : length + 1] = [at]
    found: set[int] = set()
    last = chain[-1] if chain else None
    while last is not None:
        found.add(last)
        last = before[last]
    return found
