"""A mutant of a Lua script that uses an undefined name would fail any test of a commit, and prove nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.lua import undefined_names
from tests.mutants.workshop import ROOT


@pytest.mark.parametrize(
    ("script", "undefined"),
    [
        ("call('SET', KEYS[1], '')", ["call"]),
        ("local function f() local call = redis.call end\ncall('SET')", ["call"]),
        ("if ARGV[1] then local a = 1 else return a end", ["a"]),
        ("if ARGV[1] then local a = 1 elseif a then return a end", ["a", "a"]),
        ("for i, key in ipairs(KEYS) do redis.call('DEL', key) end return i", ["i"]),
        ("local f\nfunction f(a, ...) return a, ... end\nreturn f(a)", ["a"]),
        ("while x do local y = 1 end repeat local z = y until true return z", ["x", "y", "z"]),
        ("-- nothing(here)\nlocal a = {'b', \"c\"} return a.d, a:e(), 0x1F", []),
    ],
)
def test_a_name_is_known_where_it_is_local(script: str, undefined: list[str]) -> None:
    """A local of one function, used in another, would pass for defined."""
    assert undefined_names(script) == undefined


@pytest.mark.parametrize("path", sorted((ROOT / "swapstore").rglob("*.lua")), ids=lambda path: path.name)
def test_the_scripts_define_what_they_use(path: Path) -> None:
    """Every mutant of the script would be refused."""
    assert undefined_names(path.read_text("utf-8")) == []
