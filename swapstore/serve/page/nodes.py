"""Nodes of a JSON document, addressed by JSON pointers, as the text that is stored: `1.0` is not `1`.

A document is taken apart one level at a time. What lies below stays bytes, which msgspec skips at the speed
of C. So a large document costs little, nothing needs to be remembered, and no nesting fills the stack.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any, Literal

import attrs
import msgspec

from swapstore.errors import Corrupt, InvalidInput

Kind = Literal["object", "array", "string", "number", "boolean", "null"]

MOST_PARTS = 4_000_000  # each takes some 80 bytes while a level is taken apart
_KINDS: dict[str, Kind] = {
    "{": "object",
    "[": "array",
    '"': "string",
    "t": "boolean",
    "f": "boolean",
    "n": "null",
}
_WHOLE = msgspec.json.Decoder(msgspec.Raw)
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_TEXT = msgspec.json.Decoder(str)
_INDEX = re.compile(r"0|[1-9][0-9]{0,15}")
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])*)*", re.DOTALL)
_PLAIN = re.compile(r'[^"\\/\x00-\x1f\x7f]+')  # what JSON text always writes as itself, or as \u and digits


@attrs.frozen
class Node:
    """A value in a document.

    `key` is its name or index in its parent; None: it is the whole document. `place` is its index among the
    children of its parent, of an object too.
    """

    pointer: str
    key: str | int | None
    place: int
    raw: Any = attrs.field(repr=False)  # bytes or `msgspec.Raw`: both are buffers

    @property
    def kind(self) -> Kind:
        """Return the kind of the value."""
        return _KINDS.get(chr(memoryview(self.raw)[0]), "number")

    @property
    def is_container(self) -> bool:
        """Whether it is an object or an array."""
        return self.kind in {"object", "array"}

    @property
    def size(self) -> int:
        """Return the length of the text in bytes."""
        return memoryview(self.raw).nbytes

    def text(self, most: int | None = None) -> str:
        """Return the text as it is stored, or the beginning of it, of so many bytes."""
        text = bytes(memoryview(self.raw)[:most]).decode(errors="replace")
        return text if most is None or self.size <= most else text.rstrip("\ufffd")  # a character cut in two


def root(raw: bytes) -> Node:
    """Return a whole document.

    Raises `Corrupt` if it is not JSON, and `InvalidInput` if it has too many parts, or is nested too deeply.
    """
    if raw.count(b",") > MOST_PARTS:
        raise InvalidInput(
            f"the document has more than {MOST_PARTS:,} values, which is too many to be shown: download it"
        )
    return Node("", None, 0, _decoded(_WHOLE, raw))


def at(raw: bytes, pointer: str) -> Node | None:
    """Return the node at a pointer. None: there is none.

    Raises `InvalidInput` for what is not a JSON pointer, and `Corrupt` for a document that is not JSON.
    """
    found = root(raw)
    for token in tokens(pointer):
        child = _child(found, token)
        if child is None:
            return None
        found = child
    return found


def tokens(pointer: str) -> list[str]:
    """Return the keys that a pointer consists of. Raises `InvalidInput` for what is not a JSON pointer."""
    if not _POINTER.fullmatch(pointer):
        raise InvalidInput(
            f"{pointer[:80]!r} is not a JSON pointer: it begins with /, and ~ is written ~0, / is written ~1"
        )
    return [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]


def joined(pointer: str, key: str | int) -> str:
    """Return the pointer of a child."""
    return f"{pointer}/{str(key).replace('~', '~0').replace('/', '~1')}"


def parent(pointer: str) -> str:
    """Return the pointer of the parent; of the whole document, its own."""
    return pointer.rpartition("/")[0]


def children(node: Node, start: int = 0, most: int | None = None) -> list[Node]:
    """Return the children of a node, or some of them from an index on."""
    end = None if most is None else start + most
    if node.kind == "object":
        every = list(_level(node).items())[start:end]
        return [
            Node(joined(node.pointer, key), key, place, raw) for place, (key, raw) in enumerate(every, start)
        ]
    if node.kind == "array":
        some = _level(node)[start:end]
        return [Node(f"{node.pointer}/{index}", index, index, raw) for index, raw in enumerate(some, start)]
    return []


def count(node: Node) -> int:
    """Return the number of children."""
    return len(_level(node)) if node.is_container else 0


def search(raw: bytes, wanted: str, most: int, *, patience_s: float) -> tuple[list[Node], bool]:
    """Return the nodes whose key or text holds a text, in any case, and whether these are all.

    It ends after so many, and after a time: a search that matches nothing may have to decode every string.
    """
    found: list[Node] = []
    deadline = time.monotonic() + patience_s
    for node, is_match in _walk(root(raw), wanted.casefold()):
        if len(found) == most or time.monotonic() > deadline:
            return found, False
        if is_match:
            found.append(node)
    return found, True


def _walk(whole: Node, needle: str) -> Iterator[tuple[Node, bool]]:
    """Iterate over the nodes in the order of the document. What cannot match is skipped."""
    can_skip = _PLAIN.fullmatch(needle) is not None
    ways: list[Iterator[Node]] = [iter([whole])]
    while ways:
        node = next(ways[-1], None)
        if node is None:
            ways.pop()
            continue
        is_named = isinstance(node.key, str) and needle in node.key.casefold()
        yield node, is_named or (not node.is_container and needle in _plain(node).casefold())
        if node.is_container:
            text = node.text()
            if not can_skip or needle in text.casefold() or "\\u" in text:
                ways.append(iter(children(node)))


def _plain(node: Node) -> str:
    """Return the text of a value: that of a string without quotes and escapes."""
    text = node.text()
    if node.kind != "string":
        return text
    return _TEXT.decode(text) if "\\" in text else text[1:-1]


def _child(node: Node, token: str) -> Node | None:
    if node.kind == "object":
        named = _level(node)
        if token not in named:
            return None
        return Node(joined(node.pointer, token), token, list(named).index(token), named[token])
    if node.kind == "array" and _INDEX.fullmatch(token):
        every, index = _level(node), int(token)
        if index < len(every):
            return Node(f"{node.pointer}/{index}", index, index, every[index])
    return None


def _level(node: Node) -> Any:
    """Take one level apart."""
    return _decoded(_OBJECT if node.kind == "object" else _ARRAY, node.raw)


def _decoded(decoder: msgspec.json.Decoder[Any], raw: Any) -> Any:
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(f"the payload is not JSON although its codec says so ({error}): download it") from error
    except RecursionError:
        raise InvalidInput("the document is nested too deeply to be shown: download it") from None
