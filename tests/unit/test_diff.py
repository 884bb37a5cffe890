"""What changed between two values. The strongest check: the changes make the new value of the old one."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from swapstore import Candidate, Change, Diff, LiveView, diff
from swapstore.changes import identifying_field
from swapstore.errors import Corrupt, InvalidInput

# --- an applier --------------------------------------------------------------------------------------


def applied(old: Any, changes: tuple[Change, ...]) -> Any:
    """Make the new value of the old one and the changes, by the documented meaning of these alone."""
    removed = {each.pointer for each in changes if each.kind == "removed"}
    added = {each.pointer: each.after for each in changes if each.kind == "added"}
    changed = {each.pointer: each.after for each in changes if each.kind == "changed"}
    moved = {each.pointer: each.was or each.pointer for each in changes if each.kind == "moved"}

    def made(value: Any, was: str, at: str) -> Any:
        if at in changed:
            return changed[at]
        if isinstance(value, dict):
            kept = {
                name: made(part, f"{was}/{step(name)}", f"{at}/{step(name)}")
                for name, part in value.items()
                if f"{was}/{step(name)}" not in removed
            }
            new = {
                key(place): part for place, part in added.items() if place.rpartition("/")[0] == at and place
            }
            assert not new.keys() & kept.keys()
            return kept | new
        if isinstance(value, list):
            return made_of_list(value, was, at)
        return value

    def made_of_list(value: list[Any], was: str, at: str) -> list[Any]:
        gone = [f"{was}/{place}" in removed for place in range(len(value))]
        from_elsewhere = {place for place in moved.values() if place.rpartition("/")[0] == was}
        stayed = iter(
            place for place in range(len(value)) if not gone[place] and f"{was}/{place}" not in from_elsewhere
        )
        news = sum(place.rpartition("/")[0] == at and place != "" for place in added)
        parts = []
        for place in range(len(value) - sum(gone) + news):
            here = f"{at}/{place}"
            if here in added:
                parts.append(added[here])
                continue
            before = int(moved[here].rpartition("/")[2]) if here in moved else next(stayed)
            parts.append(made(value[before], f"{was}/{before}", here))
        assert next(stayed, None) is None
        return parts

    return made(old, "", "")


def step(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def key(pointer: str) -> str:
    return pointer.rpartition("/")[2].replace("~1", "/").replace("~0", "~")


def at(value: Any, pointer: str) -> Any:
    """Return what a JSON pointer leads to."""
    for each in pointer.split("/")[1:]:
        name = each.replace("~1", "/").replace("~0", "~")
        value = value[int(name)] if isinstance(value, list) else value[name]
    return value


def text(value: Any) -> str:
    """Return a text that is equal for what is equal as JSON: 1, 1.0 and true are three values."""
    return json.dumps(value, sort_keys=True)


# --- values ------------------------------------------------------------------------------------------

KEYS = st.sampled_from(["id", "name", "a", "b", "/", "~", "~1", "", "0"])
LEAVES = st.sampled_from([None, True, False, 0, 1, 2, 1.0, 0.5, 2**70, "", "a", "b", "c", "d"])
ROWS = st.lists(
    st.fixed_dictionaries(
        {"id": st.sampled_from([*range(9), "x", "1"])}, optional={"a": LEAVES, "b": LEAVES}
    ),
    unique_by=lambda row: row["id"],
    max_size=9,
)
VALUES = st.recursive(
    LEAVES | ROWS,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=25,
)
WORDS = st.lists(st.sampled_from("abcdefgh"), max_size=9)


@st.composite
def edited(draw: Callable[..., Any]) -> tuple[Any, Any]:
    """Return a value and one that was made of it by a few edits, as versions of a document are."""
    old = draw(VALUES)
    new = json.loads(json.dumps(old))
    for _ in range(draw(st.integers(0, 5))):
        containers = [each for each in parts(new) if isinstance(each, dict | list)]
        if not containers:
            break
        where = draw(st.sampled_from(containers))
        if isinstance(where, dict):
            where[draw(KEYS)] = draw(LEAVES)
            continue
        what = draw(st.sampled_from(["insert", "remove", "move"]))
        if what == "insert":
            where.insert(draw(st.integers(0, len(where))), draw(LEAVES | ROWS))
        elif where:
            gone = where.pop(draw(st.integers(0, len(where) - 1)))
            if what == "move":
                where.insert(draw(st.integers(0, len(where))), gone)
    return old, new


def parts(value: Any) -> list[Any]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [value, *(each for part in inner for each in parts(part))]


PAIRS = edited() | st.tuples(VALUES, VALUES) | st.tuples(ROWS, ROWS) | st.tuples(WORDS, WORDS)

# --- properties --------------------------------------------------------------------------------------


@given(PAIRS)
@example(([{"id": 1}, {"id": 2}, {"id": 3}], [{"id": 3}, {"id": 2}, {"id": 1}]))
@example(({"": {"": 1}, "/": 1}, {"": {"": 2}, "/": 2}))
@example(([{"id": 1}, {"id": 2}, {"id": 3}, {"id": 4}], [{"id": 1}, {"id": 4}, {"id": 2}]))
@example((["a", "b", "c", "d", "e", "f"], ["a", "d", "e", "f", "b"]))
@example((["a"], ["a", "a", "a", "a"]))
def test_the_changes_make_the_new_value_of_the_old_one(pair: tuple[Any, Any]) -> None:
    """A change is not listed, is listed twice, or has another place or value."""
    old, new = pair
    found = diff(old, new)
    assert text(applied(old, found.changes)) == text(new)
    assert bool(found) == (text(old) != text(new)) == bool(found.changes)
    assert len({(each.kind, each.pointer) for each in found.changes}) == len(found.changes)
    assert sum(found.counts.values()) == len(found.changes)


@given(PAIRS)
@example(([{"id": 1}, {"id": 2}, {"id": 3}], [{"id": 3}, {"id": 2}, {"id": 1}]))
def test_each_pointer_leads_to_the_value_that_is_listed(pair: tuple[Any, Any]) -> None:
    """A script that looks a change up in the two versions finds something else there."""
    old, new = pair
    for each in diff(old, new).changes:
        was = each.was if each.was is not None else each.pointer
        if each.kind in {"removed", "changed"}:
            assert text(at(old, was)) == text(each.before)
        if each.kind in {"added", "changed"}:
            assert text(at(new, each.pointer)) == text(each.after)
        if each.kind == "moved":
            assert each.was is not None
            assert at(old, each.was).__class__ is at(new, each.pointer).__class__


@given(ROWS, st.integers(0, 9), WORDS.filter(lambda words: len(set(words)) == len(words)))
def test_an_insertion_and_a_removal_are_one_change(rows: list[Any], place: int, words: list[str]) -> None:
    """One new row at the top changes every row below it."""
    place = min(place, len(rows))
    new = {"id": "new", "a": 1}
    more = [*rows[:place], new, *rows[place:]]
    only: Any = {"pointer": f"/{place}", "item": {"id": "new"}}
    assert diff(rows, more).changes == (Change(kind="added", after=new, **only),) or not rows
    assert diff(more, rows).changes == (Change(kind="removed", before=new, **only),) or not rows
    place = min(place, len(words))
    more = [*words[:place], "new", *words[place:]]
    assert [each.pointer for each in diff(words, more).changes] == [f"/{place}"]
    assert [each.pointer for each in diff(more, words).changes] == [f"/{place}"]


@given(ROWS.filter(lambda rows: len(rows) > 2), st.data())
def test_as_few_items_as_possible_have_moved(rows: list[Any], data: st.DataObject) -> None:
    """One country that goes up in a ranking is told as all others going down."""
    was = data.draw(st.integers(0, len(rows) - 1))
    now = data.draw(st.integers(0, len(rows) - 1))
    new = [*rows[:was], *rows[was + 1 :]]
    new.insert(now, {**rows[was], "a": "changed"})
    kinds = diff(rows, new).counts
    assert kinds["moved"] == (was != now)
    assert kinds["added"] + kinds["changed"] == 1
    assert kinds["removed"] == 0


# --- what is equal -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (1, True),
        (0, False),
        (1, 1.0),
        (True, 1.0),
        (None, 0),
        (None, False),
        ("1", 1),
        ([], {}),
        ("", None),
        (2**53, 2**53 + 1),
        (float(2**53), 2**53 + 1),
        (10**400, 10**400 + 1),
        (math.nan, math.inf),
        ({"a": None}, {}),
    ],
    ids=repr,
)
def test_what_python_takes_for_equal_or_json_writes_alike_is_told_apart(old: Any, new: Any) -> None:
    """`true` that became `1`, or an id that became a float, is not seen, and a typed reader fails on it."""
    assert diff(old, new)
    assert diff({"a": [old]}, {"a": [new]})
    assert diff([{"a": old}, 5], [{"a": new}, 5])
    assert not diff({"a": [old]}, {"a": [old]})


def test_nan_is_the_same_as_nan_and_the_order_of_fields_is_nothing() -> None:
    """A value that did not change is listed each time."""
    assert not diff([float("nan")], [float("nan")])
    assert not diff({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1})
    assert not diff(-0.0, 0.0)
    assert not diff(OrderedDict(a=(1, 2)), {"a": [1, 2]})


# --- lists -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"rank": 1, "countryName": "Egypt", "countryCode": "EG"}, "countryCode"),
        ({"parentId": 1, "id": 2}, "id"),
        ({"name": "x", "F_OUTAGE_ID": 2}, "F_OUTAGE_ID"),
        ({"value": 1.5, "date": 1_700_000_000_000}, "date"),
        ({"title": "x", "link": "y"}, "link"),
        ({"score": 1.5, "region": "mena"}, "region"),
        ({"rank": 1, "score": 1.5}, None),
        ({"id": True, "name": "x"}, "name"),
        ({"id": 1.0}, None),
        ({"id": None}, None),
        ({"id": ["x"]}, None),
        ({}, None),
    ],
    ids=str,
)
def test_objects_are_matched_by_the_field_that_identifies_them(
    row: dict[str, Any], field: str | None
) -> None:
    """Rows are matched by a rank or an amount, so that a row seems to become another one."""
    assert identifying_field([row], [row]) == field


@pytest.mark.parametrize(
    "rows",
    [
        [{"id": 1}, {"id": 1}],
        [{"id": 1}, {"name": 2}],
        [{"id": 1}, 5],
        [],
    ],
    ids=str,
)
def test_a_field_identifies_only_if_every_object_of_both_lists_has_it_once(rows: list[Any]) -> None:
    """Two rows with one id are taken for each other, and a change is lost."""
    assert identifying_field([{"id": 1}], rows) is None
    assert identifying_field(rows, [{"id": 1}]) is None


def test_a_change_names_the_item_that_it_is_in_and_both_of_its_places() -> None:
    """A person reads `/ports/2/flow`, and has to count which port that is."""
    old = {"ports": [{"id": "suez", "flow": 1}, {"id": "hormuz", "flow": 2, "days": [{"x": 1}]}]}
    new = {"ports": [{"id": "panama", "flow": 9}, *old["ports"][:1], {"id": "hormuz", "flow": 3, "days": []}]}
    assert diff(old, new).changes == (
        Change(kind="added", pointer="/ports/0", item={"id": "panama"}, after={"id": "panama", "flow": 9}),
        Change(
            kind="changed",
            pointer="/ports/2/flow",
            was="/ports/1/flow",
            item={"id": "hormuz"},
            before=2,
            after=3,
        ),
        Change(kind="removed", pointer="/ports/1/days/0", item={"id": "hormuz"}, before={"x": 1}),
    )


def test_what_moved_and_changed_is_listed_as_both() -> None:
    """A row that goes up because its score rose is told as one of the two."""
    old = [{"code": code, "score": 1} for code in ("EG", "SG", "MA", "DZ")]
    new = [{"code": "DZ", "score": 7}, *old[:3]]
    assert [(each.kind, each.pointer, each.was) for each in diff(old, new).changes] == [
        ("moved", "/0", "/3"),
        ("changed", "/0/score", "/3/score"),
    ]


def test_other_lists_are_matched_by_equality() -> None:
    """A word or a row without a name that is inserted changes all that follows."""
    assert shown(["a", "b", "c"], ["c", "a", "b"]) == ["moved /0"]
    assert shown([[1, 2], [3, 4], [5, 6]], [[5, 6], [1, 2], [3, 4]]) == ["moved /0"]
    assert shown(["a", "b", "c"], ["a", "x", "c"]) == ["changed /1"]
    assert shown([[1, 2], [3, 4], [5, 6]], [[1, 2], [3, 9], [5, 6], [7, 8]]) == ["changed /1/1", "added /3"]
    assert shown([1.5, 2.5, 3.5, 4.5], [2.5, 3.5, 4.5, 5.5]) == ["removed /0", "added /3"]
    assert shown([0, 0, 1, 1, 0, 0], [0, 0, 1, 5, 1, 0, 0]) == ["added /3"]


def test_numbers_that_have_their_meaning_by_position_are_compared_by_position() -> None:
    """Twelve monthly figures of which three changed are told as figures that moved, came and went."""
    assert shown([5, 7, 9, 1], [7, 2, 9, 3]) == ["changed /0", "changed /1", "changed /3"]
    assert shown([1.5, 2.5], [2.5, 1.5]) == ["changed /0", "changed /1"]


def test_removed_items_are_listed_where_they_were() -> None:
    """A person finds what replaced a row far from the row."""
    rows = [{"id": each} for each in "abcd"]
    assert shown(rows, [rows[0], {"id": "x"}, rows[2], rows[3]]) == ["removed /1", "added /1"]


def shown(old: Any, new: Any) -> list[str]:
    return [f"{each.kind} {each.pointer}" for each in diff(old, new).changes]


# --- what it is given, and what it returns -----------------------------------------------------------


def candidate(value: Any, codec: str = "json", raw: bytes | None = None) -> Candidate:
    data = json.dumps(value).encode() if raw is None else raw
    sha256 = hashlib.sha256(data).hexdigest()
    return Candidate(
        dataset="mena", id="x", ts=0, labels={}, size=len(data), sha256=sha256, codec=codec, raw=data
    )


def test_payloads_are_compared_with_each_other_and_with_values() -> None:
    """A validator cannot ask what the snapshot that it judges changes."""
    assert shown(candidate({"a": 1}), candidate({"a": 2})) == ["changed /a"]
    assert shown({"a": 1}, candidate({"a": 1, "b": 2})) == ["added /b"]
    live = LiveView(dataset="mena", etag="x", size=1, sha256="", codec="json", raw=b"1")
    assert shown(live, 2) == ["changed "]


def test_equal_payloads_are_not_decoded() -> None:
    """Two snapshots of 60 MB with the same digest take seconds."""
    broken = candidate(None, raw=b"{")
    assert not diff(broken, broken)
    with pytest.raises(Corrupt):
        diff(broken, candidate(1))


def test_bytes_are_compared_as_a_whole() -> None:
    """An image that changed is printed, or is not told."""
    sha256 = hashlib.sha256(b"ab").hexdigest()
    described = {"codec": "bytes", "size": 2, "sha256": sha256}
    assert not diff(candidate(None, "bytes", b"ab"), bytearray(b"ab"))
    (change,) = diff(candidate(None, "bytes", b"ab"), memoryview(b"abc")).changes
    assert (change.kind, change.pointer, change.before, change.after["size"]) == ("changed", "", described, 3)
    (change,) = diff(described, b"ab").changes
    assert (change.before, change.after) == (described, described)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({1, 2}, "a value of type set; "),
        ({"a": [1, {"b": object()}]}, "a value of type object, at '/a/1/b'; "),
        ({"a": {1: 2}}, "an object with the key 1, which is not a string, at '/a'; "),
        ({"a/b": [b"x"]}, "a value of type bytes, at '/a~1b/0'; "),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
def test_what_json_cannot_hold_is_refused_with_its_place(value: Any, words: str, *, swap: bool) -> None:
    """A value that cannot be compared is taken for equal, or nobody finds it in a large document."""
    for other in (1, b"x", {"a": 1}):
        with pytest.raises(InvalidInput, match=re.escape(words)):
            diff(*((other, value) if swap else (value, other)))


def test_a_value_that_contains_itself_is_refused_and_one_that_is_used_twice_is_not() -> None:
    """A comparison never ends."""
    loop: list[Any] = [1]
    loop.append({"x": [loop]})
    with pytest.raises(InvalidInput, match="contains itself, at '/1/x/0'"):
        diff(loop, 1)
    twice = [1]
    assert shown([twice, twice], [twice, [2]]) == ["changed /1/0"]


def test_depth_does_not_matter() -> None:
    """A value that is nested deeper than Python's stack ends the process, or the comparison with an error."""

    def deep(leaf: Any, rows: int = 5_000) -> Any:
        for _ in range(rows):
            leaf = {"a": [leaf]}
        return leaf

    (change,) = diff(deep(1), deep(2)).changes
    assert (change.pointer, change.before, change.after) == ("/a/0" * 5_000, 1, 2)
    (change,) = diff({}, {"x": deep(1)}).changes
    assert len(repr(change)) < 500


def test_a_diff_is_counted_and_summed_up() -> None:
    """A log line says nothing of what changed, or that something changed although nothing did."""
    found = diff({"a": 1, "b": 2, "c": 3}, {"a": 2, "c": 4, "d": 5})
    assert found.counts == {"added": 1, "removed": 1, "changed": 2, "moved": 0}
    assert found.summary == "1 added, 1 removed, 2 changed"
    assert (Diff().summary, bool(Diff()), bool(found)) == ("no changes", False, True)
    assert diff(dict.fromkeys(map(str, range(1000)), 1), {}).summary == "1,000 removed"
