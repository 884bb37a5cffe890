"""Finds names in a Lua script that nothing defines: the server refuses them when it comes to them."""

from __future__ import annotations

import re
from itertools import pairwise

GIVEN = re.compile("redis|KEYS|ARGV|cjson|string|math|table|type|ipairs|pairs|pcall|error|tonumber|tostring")
WORD = re.compile("and|break|false|goto|if|in|nil|not|or|return|true|while")  # the others delimit blocks
TOKEN = re.compile(r"--.*|'[^'\n]*'|\"[^\"\n]*\"|\d[\w.]*|\w+|\.\.\.?|[=~<>]=|\S")


def undefined_names(script: str) -> list[str]:
    """Return each use of a name that is not local where it is used, and that Redis does not provide.

    A name after a dot or a colon is a field. Three things that our scripts do not use count as undefined:
    keys in a table constructor, labels, and a local of a `repeat` in its `until`.
    """
    tokens = [token for token in TOKEN.findall(script) if not token.startswith("--")]
    scopes: list[set[str]] = [set()]
    coming: set[str] = set()  # names of the block that the next `do`, `then` or function body opens
    undefined = []
    for at, (before, token) in enumerate(pairwise(["", *tokens])):
        match token:
            case "local":
                named = tokens[at + 2 :] if tokens[at + 1] == "function" else tokens[at + 1 :]
                scopes[-1].update(_names(named))
            case "for":
                coming = set(_names(tokens[at + 1 :]))
            case "function":
                start = tokens.index("(", at)
                scopes.append(set(_names(tokens[start + 1 :])))
            case "do" | "then" | "repeat":
                scopes.append(coming)
                coming = set()
            case "else":
                scopes[-1] = set()
            case "end" | "until" | "elseif":
                scopes.pop()
            case _ if re.match(r"[A-Za-z_]", token) and before not in {".", ":"}:
                is_local = any(token in scope for scope in (*scopes, coming))
                if not (is_local or GIVEN.fullmatch(token) or WORD.fullmatch(token)):
                    undefined.append(token)
    return undefined


def _names(tokens: list[str]) -> list[str]:
    """Return the names of a list `a, b, c` at the beginning of some tokens."""
    names = []
    for name, comma in zip(tokens[::2], tokens[1::2], strict=False):
        names.append(name)
        if comma != ",":
            break
    return names
