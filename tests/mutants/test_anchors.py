"""A mutant finds its code by name: it survives a move, and code that changes is a loud misfit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.anchors import Misfit, Package
from tests.mutants.mutant import Edit

CODE = '''
"""return total"""

LIMITS = {"most": 3}


class Counter:
    """Counts."""

    def add(self, number):
        """Add: self.total += number."""
        # self.total += number
        self.total += number
        return self.total


def add(first, second):
    total = first + second
    return total
'''
ADD = Edit("Counter.add", "self.total += number", "self.total -= number")


def patched(root: Path, *edits: Edit) -> str:
    """Return the one text that changed."""
    [text] = Package(root).patched(edits).values()
    return text


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("within", "old", "new"),
    [
        ("LIMITS", "3", "4"),
        ("Counter.add", "return self.total", "return None"),
        ("Counter", "class Counter", "class Counter(dict)"),
        ("add", "first + second", "first - second"),
    ],
)
def test_a_definition_is_found_by_its_name(tmp_path: Path, within: str, old: str, new: str) -> None:
    """A mutant of a constant, a method, a class or a function would have no anchor."""
    write(tmp_path / "code.py", CODE)
    assert patched(tmp_path, Edit(within, old, new)) == CODE.replace(old, new)


def test_code_that_moved_to_another_file_is_found(tmp_path: Path) -> None:
    """A mutant that names a file would be lost with each move."""
    write(tmp_path / "code.py", CODE)
    before = patched(tmp_path, ADD)
    (tmp_path / "code.py").unlink()
    write(tmp_path / "deep" / "down" / "moved.py", CODE)
    assert patched(tmp_path, ADD) == before


@pytest.mark.parametrize(
    "code",
    [
        "def f(a, b):\n    return g(\n        a,  # the first\n        b,\n    )\n",
        "class C:\n    pass\n\n\nif True:\n\n    def f(a, b):\n        return g(a, b)\n",
        'def f(a, b):\n    """return g(a, b)"""\n    # return g(a, b)\n    return g(a,b)\n',
    ],
)
def test_format_and_prose_do_not_matter(tmp_path: Path, code: str) -> None:
    """An edited comment or a wrapped line would lose mutants."""
    write(tmp_path / "code.py", code)
    text = patched(tmp_path, Edit("f", "g(a, b)", "h()"))
    assert "return h()\n" in text
    assert text.count("h()") == 1


def test_words_are_whole(tmp_path: Path) -> None:
    """A fragment that matches within a longer name would change something else."""
    write(tmp_path / "code.py", "def f(row, rows):\n    return rows.row\n")
    with pytest.raises(Misfit, match="0 times"):
        patched(tmp_path, Edit("f", "return row", "return None"))


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (Edit("subtract", "total", "0"), "defined 0 times"),
        (Edit("add", "first * second", "0"), "holds 0 times"),
        (Edit("add", "total", "0"), "holds 2 times"),
    ],
)
def test_what_is_not_there_once_is_a_misfit(tmp_path: Path, edit: Edit, why: str) -> None:
    """A mutant of code that was renamed or rewritten must not count as tested."""
    write(tmp_path / "code.py", CODE)
    with pytest.raises(Misfit, match=why):
        patched(tmp_path, edit)


def test_a_fragment_selects_among_definitions_of_one_name(tmp_path: Path) -> None:
    """Names such as `commit` and `parse` are not unique in the package: their mutants would be misfits."""
    write(tmp_path / "one.py", "def f():\n    return 1\n")
    write(tmp_path / "two.py", "def f():\n    return 2\n")
    assert patched(tmp_path, Edit("f", "return 2", "return 3")) == "def f():\n    return 3\n"
    with pytest.raises(Misfit, match="defined 2 times, and holds 2 times"):
        patched(tmp_path, Edit("f", "return", "return -"))


def test_a_lua_script_is_found_by_its_file_name(tmp_path: Path) -> None:
    """A script has no definitions that an edit could name."""
    write(tmp_path / "drivers" / "commit.lua", "-- call('SET')\ncall( 'SET' )\n")
    assert patched(tmp_path, Edit("commit.lua", "call('SET')", "")) == "-- call('SET')\n\n"


def test_several_lines_are_indented_like_what_they_replace(tmp_path: Path) -> None:
    """A replacement with other indentation is a syntax error, and kills nothing."""
    write(tmp_path / "code.py", CODE)
    text = patched(tmp_path, Edit("Counter.add", "self.total += number", "if number:\n    self.total = 0"))
    assert "        if number:\n            self.total = 0\n        return" in text


def test_the_edits_of_a_mutant_do_not_disturb_each_other(tmp_path: Path) -> None:
    """Each edit is found in the original code, not in the result of another edit."""
    write(tmp_path / "code.py", CODE)
    text = patched(tmp_path, Edit("add", "(first", "(total"), Edit("add", "return total", "return first"))
    assert text == CODE.replace("(first", "(total").replace("return total\n", "return first\n")
