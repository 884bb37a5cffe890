"""Finds the code that a mutant changes, by the name of its definition, in any file of the package."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from tests.mutants.mutant import Edit


class Misfit(Exception):  # noqa: N818 - the term
    """The fragment of an edit is not found exactly once in the definition it names: the code has changed."""


@attrs.frozen
class Passage:
    """The lines of a definition: a file, and offsets into its text."""

    path: Path
    start: int
    end: int


@attrs.frozen
class Change:
    """A span of a file's text, and what replaces it."""

    start: int
    end: int
    new: str


class Package:
    """The definitions of all Python files below a directory, and its Lua scripts, each found by name.

    A fragment is compared without regard to white space, line breaks, comments, docstrings and trailing
    commas.
    """

    def __init__(self, root: Path) -> None:
        self.texts: dict[Path, str] = {}
        self._code: dict[Path, str] = {}  # the texts, with blanks for comments and docstrings
        self._passages: dict[str, list[Passage]] = {}
        for path in sorted(root.rglob("*.py")):
            text = self.texts[path] = path.read_text("utf-8")
            tree, lines = ast.parse(text), _offsets_of_lines(text)
            self._code[path] = _without_prose(text, tree, lines)
            for name, first, last in _definitions(tree):
                passage = Passage(path, lines[first - 1], lines[last])
                self._passages.setdefault(name, []).append(passage)
        for path in sorted(root.rglob("*.lua")):
            text = self.texts[path] = path.read_text("utf-8")
            self._code[path] = re.sub(r"--.*", _blank, text)
            self._passages.setdefault(path.name, []).append(Passage(path, 0, len(text)))

    def patched(self, edits: Sequence[Edit]) -> dict[Path, str]:
        """Return the new texts of the files that the edits change. Each edit is found in the original."""
        changes: dict[Path, list[Change]] = {}
        for edit in edits:
            path, change = self._find(edit)
            changes.setdefault(path, []).append(change)
        return {path: _changed(self.texts[path], changes[path]) for path in changes}

    def _find(self, edit: Edit) -> tuple[Path, Change]:
        passages = self._passages.get(edit.within, [])
        fragment = _pattern(edit.old)
        found = [
            (passage.path, match)
            for passage in passages
            for match in fragment.finditer(self._code[passage.path], passage.start, passage.end)
        ]
        if len(found) != 1:
            raise Misfit(
                f"{edit.within} is defined {len(passages)} times, and holds {len(found)} times:\n{edit.old}"
            )
        [(path, match)] = found
        before = self.texts[path][: match.start()].rpartition("\n")[2]
        indentation = before[: len(before) - len(before.lstrip())]
        return path, Change(*match.span(), edit.new.replace("\n", "\n" + indentation))


def _pattern(fragment: str) -> re.Pattern[str]:
    """Compile a fragment of code: a word is whole, and between two tokens there is any white space."""
    parts = []
    for part in re.findall(r"\w+|[^\w\s]", re.sub(r",\s*([)\]}])", r"\1", fragment)):
        if re.match(r"\w", part):
            parts.append(rf"\b{part}\b")
        else:
            comma = r"(?:,\s*)?" if parts and part in ")]}" else ""
            parts.append(comma + re.escape(part))
    return re.compile(r"\s*".join(parts))


def _definitions(
    tree: ast.AST, prefix: str = "", *, in_module: bool = True
) -> Iterator[tuple[str, int, int]]:
    """Yield the name, first and last line of each function, class, method and module-level constant."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
                yield prefix + node.name, first, _last_line(node)
                yield from _definitions(node, f"{prefix}{node.name}.", in_module=False)
            case ast.Assign() | ast.AnnAssign() if in_module:
                names = [each for each in ast.walk(node) if isinstance(each, ast.Name)]
                for name in names:
                    if isinstance(name.ctx, ast.Store):
                        yield name.id, node.lineno, _last_line(node)
            case ast.stmt() | ast.excepthandler() | ast.match_case():
                yield from _definitions(node, prefix, in_module=in_module)


def _without_prose(text: str, tree: ast.Module, lines: Sequence[int]) -> str:
    """Replace comments and docstrings by blanks. Offsets do not change."""
    spans = [
        (lines[node.lineno - 1], lines[_last_line(node)])
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and node.value.value is not ...
    ]
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            start = lines[token.start[0] - 1] + token.start[1]
            spans.append((start, start + len(token.string)))
    for start, end in spans:
        text = text[:start] + re.sub(r".+", _blank, text[start:end]) + text[end:]
    return text


def _blank(prose: re.Match[str]) -> str:
    return " " * len(prose[0])


def _offsets_of_lines(text: str) -> list[int]:
    """Return where each line begins, and where the last one ends."""
    offsets = [0]
    for line in io.StringIO(text):
        offsets.append(offsets[-1] + len(line))
    return offsets


def _last_line(node: ast.stmt) -> int:
    assert node.end_lineno
    return node.end_lineno


def _changed(text: str, changes: Sequence[Change]) -> str:
    for change in sorted(changes, key=lambda change: change.start, reverse=True):
        text = text[: change.start] + change.new + text[change.end :]
    return text
