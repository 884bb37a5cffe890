"""CONTRIBUTING has a map of the package. It is the tree, file by file."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
NAME = re.compile(r"[\w.-]+(?:\.py|\.lua|/)")


def mapped() -> set[str]:
    """The files and folders that the map names, by the folders that they are indented under."""
    block = CONTRIBUTING.read_text("utf-8").split("```text\n")[1].split("```")[0]
    found: set[str] = set()
    above: list[str] = []
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        names: list[str] = []
        for word in line.split():
            if not NAME.fullmatch(word):
                break  # what follows describes them
            names.append(word)
        above = above[:depth]
        found |= {"".join([*above, name]) for name in names}
        if len(names) == 1 and names[0].endswith("/"):
            above.append(names[0])
    return found


def there() -> set[str]:
    """The files and folders of the package, without what only makes a folder a package."""
    files = [path for kind in ("*.py", "*.lua") for path in (ROOT / "swapstore").rglob(kind)]
    folders = {path.parent for path in files}
    return {str(path.relative_to(ROOT)) for path in files if path.name != "__init__.py"} | {
        f"{folder.relative_to(ROOT)}/" for folder in folders
    }


def test_the_map_is_the_tree() -> None:
    """Somebody looks for a file that is not there any more, or does not learn of a new one."""
    package = {name for name in mapped() if name.startswith("swapstore/")} - {"swapstore/__init__.py"}
    assert package == there()


def test_the_map_has_every_folder_of_tests() -> None:
    """Somebody looks for tests in a folder that was renamed, or does not find where a failing one is."""
    folders = {f"tests/{path.name}/" for path in (ROOT / "tests").iterdir() if path.is_dir()}
    assert {name for name in mapped() if name.startswith("tests/")} - {"tests/"} == folders - {
        "tests/__pycache__/"
    }
